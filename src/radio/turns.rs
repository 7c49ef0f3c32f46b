//! Carries out what `queue` decides, adapter by adapter, and has the scan rest while somebody connects: controllers do both
//! badly together. Adapters go by their object path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::pending;
use tokio::sync::{Notify, oneshot, watch};

use super::event::AdapterLoad;
use super::queue::{Effect, Queue, Standing};
use super::settings::Sharing;
use crate::reading::DeviceId;

/// Connecting beside a scan that will not stop is worth a try after this long.
const SCAN_STOPS_IN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Turns(Arc<Inner>);

struct Inner {
    sharing: Sharing,
    state: Mutex<State>,
    /// Counts what the scan has to follow: who begins and ends to connect, and who wants a new scan.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// As many as adapters were ever plugged in at once: BlueZ gives their names again.
    adapters: BTreeMap<String, OneAdapter>,
    made_room: u64,
}

struct OneAdapter {
    queue: Queue,
    granting: BTreeMap<DeviceId, oneshot::Sender<()>>,
    leaving: BTreeMap<DeviceId, Arc<Notify>>,
    scanning: watch::Sender<bool>,
    rescan: bool,
}

/// A connection slot, and at first the right to connect. Both end with it.
pub struct Turn {
    turns: Turns,
    adapter: String,
    device: DeviceId,
    leave: Arc<Notify>,
}

impl Turns {
    pub fn new(sharing: Sharing) -> Self {
        Self(Arc::new(Inner { sharing, state: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    /// Waits for its turn on the adapter. `linked`: BlueZ has a link already.
    pub async fn take(&self, adapter: &str, device: DeviceId, standing: Standing, linked: bool) -> Turn {
        let leave = Arc::new(Notify::new());
        let (grant, granted) = oneshot::channel();
        let mut scanning = self.on(adapter, |one| {
            one.granting.insert(device, grant);
            one.leaving.insert(device, leave.clone());
            one.queue.ask(Instant::now(), device, standing, linked);
            one.scanning.subscribe()
        });
        let turn = Turn { turns: self.clone(), adapter: adapter.to_owned(), device, leave };
        if granted.await.is_err() {
            // Nobody but a later call for the same device takes the other end away.
            pending::<()>().await;
        }
        let _ = tokio::time::timeout(SCAN_STOPS_IN, scanning.wait_for(|scanning| !scanning)).await;
        turn
    }

    /// A value of it came.
    pub fn heard(&self, device: DeviceId) {
        let (now, mut state) = (Instant::now(), self.state());
        state.adapters.values_mut().for_each(|one| one.queue.heard(now, device));
    }

    /// Time passed.
    pub fn tick(&self) {
        let mut state = self.state();
        let State { adapters, made_room } = &mut *state;
        let mut begun = false;
        adapters.values_mut().for_each(|one| begun |= one.carry_out(made_room));
        drop(state);
        if begun {
            self.tell();
        }
    }

    /// On all adapters: who is looked for may be heard by another.
    pub fn ask_rescan(&self) {
        self.state().adapters.values_mut().for_each(|one| one.rescan = true);
        self.tell();
    }

    /// Whether a new scan was asked for since the last call.
    pub fn take_rescan(&self, adapter: &str) -> bool {
        self.state().adapters.get_mut(adapter).is_some_and(|one| std::mem::take(&mut one.rescan))
    }

    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub fn is_connecting(&self, adapter: &str) -> bool {
        self.state().adapters.get(adapter).is_some_and(|one| one.queue.is_connecting())
    }

    /// Said before a scan starts and after it stopped.
    pub fn set_scanning(&self, adapter: &str, on: bool) {
        self.on(adapter, |one| one.scanning.send_replace(on));
    }

    /// How full each adapter in use is.
    pub fn loads(&self) -> Vec<AdapterLoad> {
        let load = |(path, one): (&String, &OneAdapter)| AdapterLoad {
            adapter: path.rsplit('/').next().unwrap_or_default().to_owned(),
            slots: self.0.sharing.slots,
            taken: one.queue.taken(),
            waiting: one.queue.waiting().map(|device| device.to_string()).collect(),
        };
        self.state().adapters.iter().map(load).filter(|load| load.taken > 0 || !load.waiting.is_empty()).collect()
    }

    /// How often a device was asked to make room for another.
    pub fn made_room(&self) -> u64 {
        self.state().made_room
    }

    /// Changes one adapter and carries out what follows from it.
    fn on<T>(&self, adapter: &str, change: impl FnOnce(&mut OneAdapter) -> T) -> T {
        let mut state = self.state();
        let State { adapters, made_room } = &mut *state;
        let one = adapters.entry(adapter.to_owned()).or_insert_with(|| OneAdapter::new(self.0.sharing));
        let before = one.queue.is_connecting();
        let out = change(one);
        let differs = one.carry_out(made_room) || one.queue.is_connecting() != before;
        drop(state);
        if differs {
            self.tell();
        }
        out
    }

    fn tell(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics while holding the turns")
    }
}

impl OneAdapter {
    fn new(sharing: Sharing) -> Self {
        Self {
            queue: Queue::new(sharing),
            granting: BTreeMap::new(),
            leaving: BTreeMap::new(),
            scanning: watch::Sender::new(false),
            rescan: false,
        }
    }

    /// Whether somebody begins to connect.
    fn carry_out(&mut self, made_room: &mut u64) -> bool {
        let mut begun = false;
        for effect in self.queue.poll(Instant::now()) {
            match effect {
                Effect::Grant(device) => {
                    begun = true;
                    // Who no longer waits for it gives it back when its `Turn` goes.
                    let _ = self.granting.remove(&device).map(|grant| grant.send(()));
                }
                Effect::MakeRoom(device) => {
                    *made_room += 1;
                    if let Some(leave) = self.leaving.get(&device) {
                        leave.notify_one();
                    }
                }
            }
        }
        begun
    }
}

impl Turn {
    /// It connects no more; the next may.
    pub fn connected(&self) {
        self.turns.on(&self.adapter, |one| one.queue.connected(self.device));
    }

    /// Comes back when others wait for its slot.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.on(&self.adapter, |one| {
            one.granting.remove(&self.device);
            one.leaving.remove(&self.device);
            one.queue.withdraw(self.device);
            one.queue.free(self.device);
        });
    }
}
