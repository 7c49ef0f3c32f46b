//! The radio as a whole: it starts a task a device, keeps agent and scan alive through restarts of bluetoothd and the
//! comings and goings of the adapter, and ends everything together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::pending;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::adverts::{self, Air, Missed};
use super::agent::{self, Agent, MayPair};
use super::bluez::{self, Bus};
use super::bond::Bond;
use super::central::Central;
use super::device::{Device, Shared};
use super::error::RadioError;
use super::event::RadioEvent;
use super::listen::Listener;
use super::overseer::{self, Overseer};
use super::place::Held;
use super::settings::{RadioDevice, RadioSettings};
use super::turns::Turns;
use super::watch::{AdapterState, Wanted, World};
use crate::reading::DeviceId;

/// The capacity to give the channel `run` sends into: some seconds of a full ward (twenty devices at up to ten values a
/// second), so that one slow commit of the store does not reach the radio, in well under a megabyte.
pub const EVENT_QUEUE: usize = 1_024;

/// After BlueZ refused to scan or to take the agent.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Where somebody is read by advertisements a scan begins anew this often. Controllers report a device once a scan, many of
/// them also when what it says has changed, and BlueZ begins one every ten seconds. [ran, 5.66]
const LISTEN_ANEW: Duration = Duration::from_secs(2);

/// Runs until `stop`, or until nobody receives `events` any more. It neither needs BlueZ nor an adapter to start: it
/// waits for both.
pub async fn run(settings: RadioSettings, events: mpsc::Sender<RadioEvent>, stop: CancellationToken) -> Result<(), RadioError> {
    let may_pair = MayPair::default();
    let bus = Bus::connect(Agent { may_pair: may_pair.clone() }).await?;
    let central = Central::connect().await;
    let no_bus = |error| RadioError::NoBus { address: bluez::address(), reason: format!("{error}") };
    let central = Arc::new(central.map_err(no_bus)?);
    settings.requests.open(bus.clone());
    let held = Held::default();
    let world = World::new(wanted(&settings), may_pair.clone(), held.clone());
    let turns = Turns::new(settings.sharing);
    // A child, so that our own end for another reason stops the devices too.
    let stop = stop.child_token();
    let (inside, from_devices) = mpsc::channel(overseer::INSIDE);
    let (silence, _) = broadcast::channel(settings.devices.len().max(1));
    let ((air, from_air), missed) = (mpsc::channel(adverts::IN_THE_AIR), Missed::default());
    let overseer = Overseer::new(&settings, &bus, &turns, world.watch_adapter(), silence.clone(), stop.clone(), missed.clone());
    let mut overseeing = JoinSet::new();
    overseeing.spawn(overseer.run(from_devices, from_air, events.clone()));
    let shared = Shared {
        bus: bus.clone(),
        central: central.clone(),
        turns: turns.clone(),
        may_pair,
        held,
        bonds: settings.bonds.clone(),
        durable: settings.durable.clone(),
        events: inside.clone(),
        clock_decoder: settings.clock_decoder,
        deadlines: settings.deadlines,
        stop: stop.clone(),
        silence,
    };
    let keeper = Keeper {
        bus: bus.clone(),
        central,
        turns,
        events: inside,
        capability: agent::capability(settings.devices.iter().any(|device| matches!(device.bond, Bond::Passkey(_)))),
        wanted: named_adapters(&settings),
        every_advert: settings.devices.iter().any(RadioDevice::is_read_by_adverts),
        state: world.watch_adapter(),
        reported: None,
        agent_of: 0,
        scans: BTreeMap::new(),
        ask_again: false,
        asking_since: None,
    };

    let mut devices = JoinSet::new();
    for device in settings.devices {
        let state = world.watch_device(device.id);
        let requests = settings.requests.of(device.id);
        devices.spawn(Device::new(shared.clone(), device, state, requests).run());
    }
    // The overseer ends when nobody has anything to say any more.
    drop(shared);
    let mut keeping = JoinSet::new();
    keeping.spawn(keeper.run());
    let mut listening = JoinSet::new();
    listening.spawn(Listener::new(bus, world, Air::new(air, missed)).run());

    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = events.closed() => Ok(()),
        Some(ended) = listening.join_next() => ended.unwrap_or_else(|error| Err(failed("listener", &error))),
        Some(ended) = overseeing.join_next() => ended.unwrap_or_else(|error| Err(failed("overseer", &error))),
        Some(Err(error)) = devices.join_next() => Err(failed("device task", &error)),
        Some(Err(error)) = keeping.join_next() => Err(failed("scan task", &error)),
    };
    // Devices say farewell while the listener still reads: the connection stands still without it.
    stop.cancel();
    keeping.abort_all();
    while devices.join_next().await.is_some() {}
    while keeping.join_next().await.is_some() {}
    while overseeing.join_next().await.is_some() {}
    outcome
}

fn wanted(settings: &RadioSettings) -> Wanted {
    let pairing: BTreeMap<DeviceId, Bond> = settings.devices.iter().map(|device| (device.id, device.bond)).collect();
    let pins = settings.devices.iter().filter_map(|device| Some((device.id, device.adapter?))).collect();
    let devices = settings.devices.iter().map(|device| device.id).collect();
    let adverts = settings.devices.iter().map(|device| (device.id, device.adverts.clone())).collect();
    Wanted { adapters: settings.adapters.clone(), pins, devices, pairing, bonds: settings.bonds.clone(), adverts }
}

/// Every adapter the config names, and how to call it.
fn named_adapters(settings: &RadioSettings) -> BTreeMap<DeviceId, String> {
    let pinned =
        |device: &RadioDevice| Some((device.adapter?, format!("adapter {} of device \"{}\"", device.adapter?, device.name)));
    let listed = settings.adapters.iter().map(|adapter| (*adapter, format!("adapter {adapter}")));
    settings.devices.iter().filter_map(pinned).chain(listed).collect()
}

fn failed(task: &'static str, error: &tokio::task::JoinError) -> RadioError {
    RadioError::Task { task, reason: error.to_string() }
}

/// Keeps agent, scan and the word on the adapter in step with what there is.
struct Keeper {
    bus: Bus,
    central: Arc<Central>,
    turns: Turns,
    events: mpsc::Sender<RadioEvent>,
    capability: &'static str,
    wanted: BTreeMap<DeviceId, String>,
    /// Somebody is read by them.
    every_advert: bool,
    state: watch::Receiver<AdapterState>,
    reported: Option<(bool, String)>,
    /// The bluetoothd process that has our agent.
    agent_of: u64,
    /// By the path of its adapter, what a running scan belongs to: the process, and which time the adapter has power.
    scans: BTreeMap<String, (u64, u64)>,
    ask_again: bool,
    asking_since: Option<Instant>,
}

impl Keeper {
    async fn run(mut self) {
        let mut turns = self.turns.changed();
        loop {
            let state = self.state.borrow_and_update().clone();
            turns.borrow_and_update();
            self.ask_again = false;
            self.keep_agent(&state).await;
            self.say(&state).await;
            self.keep_scans(&state).await;
            let listens = self.every_advert && !self.scans.is_empty();
            let anew = async { if listens { tokio::time::sleep(LISTEN_ANEW).await } else { pending().await } };
            let again = async { if self.ask_again { tokio::time::sleep(ASK_AGAIN).await } else { pending().await } };
            tokio::select! {
                changed = self.state.changed() => if changed.is_err() { return },
                changed = turns.changed() => if changed.is_err() { return },
                () = again => {}
                () = anew => self.turns.ask_rescan(),
            }
        }
    }

    /// A new bluetoothd knows no agent.
    async fn keep_agent(&mut self, state: &AdapterState) {
        if !state.running || state.refused.is_some() || self.agent_of == state.process {
            return;
        }
        match self.bus.register_agent(self.capability).await {
            Ok(()) => self.agent_of = state.process,
            Err(error) => {
                warn!(%error, "BlueZ does not take the bonding agent");
                self.ask_again = true;
            }
        }
    }

    async fn say(&mut self, state: &AdapterState) {
        if !state.asking {
            self.asking_since = None;
        } else if self.asking_since.get_or_insert_with(Instant::now).elapsed() < ASK_AGAIN {
            self.ask_again = true;
            return;
        }
        let (usable, detail) = self.judge(state).await;
        if self.reported.as_ref() == Some(&(usable, detail.clone())) {
            return;
        }
        if usable {
            info!(detail, "adapter usable")
        } else {
            warn!(detail, "no usable adapter")
        }
        self.reported = Some((usable, detail.clone()));
        let _ = self.events.send(RadioEvent::Adapter { usable, detail }).await;
    }

    async fn judge(&self, state: &AdapterState) -> (bool, String) {
        if state.asking {
            return (false, "bluetoothd does not answer; `systemctl restart bluetooth`".to_owned());
        }
        if !state.running {
            return (false, "bluetoothd does not run; start bluetooth.service".to_owned());
        }
        if let Some(reason) = &state.refused {
            return (false, format!("BlueZ does not answer us ({reason}); see the D-Bus policy of bluetoothd"));
        }
        let (mut usable, mut troubles) = (Vec::new(), Vec::new());
        for (path, adapter) in state.adapters.iter().filter(|(_, adapter)| adapter.wanted) {
            let name = path.rsplit('/').next().unwrap_or_default();
            if !adapter.powered {
                troubles.push(format!("{name} is powered off; `bluetoothctl power on`, and AutoEnable=true in main.conf"));
            } else if !self.central.sees_adapter(path).await {
                troubles.push(format!("{name} has no Modalias; remove DeviceID=false from /etc/bluetooth/main.conf"));
            } else {
                usable.push(name.to_owned());
            }
        }
        troubles.extend(self.missing(state));
        let works = !usable.is_empty();
        let names = works.then(|| usable.join(", "));
        (works, names.into_iter().chain(troubles).collect::<Vec<_>>().join("; "))
    }

    /// What the config names and nobody plugged in.
    fn missing(&self, state: &AdapterState) -> Option<String> {
        let here: Vec<_> = state.adapters.iter().filter_map(|(path, adapter)| Some((path, adapter.address?))).collect();
        if here.is_empty() && self.wanted.is_empty() {
            return Some("no Bluetooth adapter plugged in".to_owned());
        }
        let missing = self.wanted.iter().filter(|(address, _)| here.iter().all(|(_, present)| present != *address));
        let missing: Vec<String> = missing.map(|(_, name)| format!("{name} is not plugged in")).collect();
        let others = here.iter().map(|(path, address)| format!("{} {address}", path.rsplit('/').next().unwrap_or_default()));
        let others = if here.is_empty() { "none".to_owned() } else { others.collect::<Vec<_>>().join(", ") };
        (!missing.is_empty()).then(|| format!("{} (there are: {others})", missing.join("; ")))
    }

    async fn keep_scans(&mut self, state: &AdapterState) {
        let usable: BTreeMap<String, (u64, u64)> =
            state.usable().map(|(path, adapter)| (path.clone(), (state.process, adapter.epoch))).collect();
        // BlueZ ended with whatever went away.
        let turns = &self.turns;
        self.scans.retain(|path, of| {
            let goes_on = usable.get(path) == Some(of);
            if !goes_on {
                turns.set_scanning(path, false);
            }
            goes_on
        });
        for (path, of) in usable {
            self.keep_scan(path, of).await;
        }
    }

    async fn keep_scan(&mut self, path: String, of: (u64, u64)) {
        let (busy, restart) = (self.turns.is_connecting(&path), self.turns.take_rescan(&path));
        if (busy || restart) && self.scans.remove(&path).is_some() {
            self.bus.stop_discovery(&path).await;
        }
        if !busy && !self.scans.contains_key(&path) {
            self.turns.set_scanning(&path, true);
            match self.bus.start_discovery(&path, self.every_advert).await {
                Ok(()) => drop(self.scans.insert(path.clone(), of)),
                Err(error) => {
                    debug!(path, %error, "BlueZ does not scan");
                    self.ask_again = true;
                }
            }
        }
        self.turns.set_scanning(&path, self.scans.contains_key(&path));
    }
}
