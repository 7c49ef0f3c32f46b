//! The task of one configured device: it turns what `watch` shows and what operations answer into events for the
//! session, and carries out the session's actions.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{OptionFuture, pending};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::bluez::Bus;
use super::central::{Central, CentralError, Found, Handle};
use super::event::RadioEvent;
use super::place::Held;
use super::queue::Standing;
use super::session::{Action, Event, Failure, Session};
use super::settings::{ClockDecoder, Deadlines, RadioDevice};
use super::turns::{Turn, Turns};
use super::values::{self, Facts};
use super::watch::DeviceState;
use crate::reading::DeviceId;

/// On the way out an orderly end of the link is worth this long; BlueZ needs about 2 s.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all devices share.
#[derive(Clone)]
pub struct Shared {
    pub bus: Bus,
    pub central: Arc<Central>,
    pub turns: Turns,
    pub held: Held,
    pub events: mpsc::Sender<RadioEvent>,
    pub clock_decoder: ClockDecoder,
    pub deadlines: Deadlines,
    pub stop: CancellationToken,
    /// Devices of which a value is overdue.
    pub silence: broadcast::Sender<DeviceId>,
}

pub struct Device {
    shared: Shared,
    device: Arc<RadioDevice>,
    session: Session,
    state: watch::Receiver<DeviceState>,
    /// What `state` was when it was last looked at.
    seen: DeviceState,
    turn: Option<Turn>,
    /// By object path: one, or as many as the adapters it was ever heard on.
    handles: BTreeMap<String, Opened>,
    readers: JoinSet<()>,
    facts: Facts,
}

type Opened = watch::Receiver<Option<Result<Handle, CentralError>>>;

/// What an operation came back with.
enum Outcome {
    Turn(Turn),
    Event(Event),
    Subscribed(Handle, Vec<Found>),
}

type Operation = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Reads = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Device {
    pub fn new(shared: Shared, device: RadioDevice, state: watch::Receiver<DeviceState>) -> Self {
        let seed = RandomState::new().hash_one(device.id.octets());
        Self {
            session: Session::new(shared.deadlines, seed),
            shared,
            device: Arc::new(device),
            state,
            seen: DeviceState::default(),
            turn: None,
            handles: BTreeMap::new(),
            readers: JoinSet::new(),
            facts: Facts::default(),
        }
    }

    pub async fn run(mut self) {
        let mut operation: Option<Operation> = None;
        let mut reads: Option<Reads> = None;
        let stop = self.shared.stop.clone();
        let mut silence = self.shared.silence.subscribe();
        loop {
            let due = self.session.timeout();
            // Biased: what BlueZ says of the link comes before the answer that follows from it.
            let events = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.state.changed() => match changed {
                    Ok(()) => self.look(),
                    Err(_) => break,
                },
                Some(outcome) = OptionFuture::from(operation.as_mut()) => {
                    operation = None;
                    vec![self.finished(outcome, &mut reads)]
                }
                Some(()) = OptionFuture::from(reads.as_mut()) => {
                    reads = None;
                    continue;
                }
                silent = silence.recv() => match silent {
                    Ok(device) if device == self.device.id => vec![Event::Silent],
                    // Whoever missed it is told again at the next rung.
                    _ => continue,
                },
                () = asked_to_leave(self.turn.as_ref()) => vec![Event::MakeRoom],
                () = sleep_until(due) => vec![Event::Tick],
            };
            for event in events {
                for action in self.session.poll(Instant::now(), event) {
                    debug!(device = %self.device.id, ?action, "session");
                    match action {
                        Action::AskTurn | Action::Connect | Action::Subscribe | Action::Disconnect => {
                            operation = Some(self.operation(&action));
                        }
                        Action::Abandon => operation = None,
                        Action::ReleaseTurn => self.turn.iter().for_each(Turn::connected),
                        Action::Rescan => self.shared.turns.ask_rescan(),
                        Action::ReportReady => self.report(RadioEvent::Ready { device: self.device.id }).await,
                        Action::ReportLost(reason) => {
                            reads = None;
                            self.facts.lock().clock = None;
                            self.report(RadioEvent::Lost { device: self.device.id, reason }).await;
                        }
                    }
                }
                self.shared.held.set(self.device.id, self.session.is_linked());
                if !self.session.is_linked() {
                    self.turn = None;
                }
            }
        }
        drop((operation, reads));
        self.farewell().await;
    }

    /// What changed since the last look, as events in the order in which it can have happened.
    fn look(&mut self) -> Vec<Event> {
        let now = self.state.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.seen, now.clone());
        if now.paired != before.paired {
            self.facts.lock().paired = now.paired;
        }
        let (lost, broke) = (now.losses != before.losses, now.breaks != before.breaks);
        let anew = lost || broke;
        let happened = [
            (lost, Event::Gone),
            (broke && !lost, Event::LinkDown),
            (now.heard != before.heard, Event::Seen),
            (now.connected && (anew || !before.connected), Event::LinkUp),
            (now.resolved && (anew || !before.resolved), Event::Resolved),
        ];
        happened.into_iter().filter(|(did, _)| *did).map(|(_, event)| event).collect()
    }

    fn finished(&mut self, outcome: Outcome, reads: &mut Option<Reads>) -> Event {
        match outcome {
            Outcome::Turn(turn) => {
                self.turn = Some(turn);
                Event::Turn
            }
            Outcome::Event(event) => event,
            Outcome::Subscribed(handle, found) => {
                let (device, facts, events) = (self.device.clone(), self.facts.clone(), self.shared.events.clone());
                *reads = Some(Box::pin(values::read(handle, device, found, facts, events)));
                Event::Subscribed
            }
        }
    }

    fn operation(&mut self, action: &Action) -> Operation {
        let Shared { bus, turns, .. } = self.shared.clone();
        let path = self.seen.path.clone().unwrap_or_default();
        match action {
            Action::AskTurn => {
                self.turn = None;
                let (adapter, device, linked) = (self.adapter(), self.device.id, self.seen.connected);
                let standing = Standing { priority: self.device.priority, streams: self.device.streams };
                Box::pin(async move { Outcome::Turn(turns.take(&adapter, device, standing, linked).await) })
            }
            Action::Connect => Box::pin(async move {
                Outcome::Event(match bus.connect_device(&path).await {
                    Ok(()) => Event::Connected,
                    Err(error) => Event::Failed(Failure { passing: error.is_passing(), reason: error.to_string() }),
                })
            }),
            Action::Disconnect => Box::pin(async move {
                bus.disconnect_device(&path).await;
                Outcome::Event(Event::Disconnected)
            }),
            _ => self.subscribe(path),
        }
    }

    /// The object path of the adapter it is on.
    fn adapter(&self) -> String {
        let path = self.seen.path.as_deref().and_then(|path| path.rsplit_once('/'));
        path.map(|(adapter, _)| adapter.to_owned()).unwrap_or_default()
    }

    /// The handle is made once for a path; services are looked up and subscribed anew in every connection.
    fn subscribe(&mut self, path: String) -> Operation {
        let mut opened = self.open(path.clone());
        let bus = self.shared.bus.clone();
        let (device, facts, decoder) = (self.device.clone(), self.facts.clone(), self.shared.clock_decoder);
        let steps = async move {
            let opened = opened.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
            let handle = opened.unwrap_or_else(|| Err(CentralError::stopped()))?;
            let found = values::subscribe(&handle, &device, &facts, decoder).await?;
            // Subscribing may have bonded; BlueZ's word of it comes on another connection than the values.
            if bus.is_paired(&path).await {
                facts.lock().paired = true;
            }
            Ok((handle, found))
        };
        Box::pin(async move {
            match steps.await {
                Ok((handle, found)) => Outcome::Subscribed(handle, found),
                Err(error) => Outcome::Event(Event::Failed(CentralError::into(error))),
            }
        })
    }

    fn open(&mut self, path: String) -> Opened {
        let works = |opened: &&Opened| !matches!(*opened.borrow(), Some(Err(_))) && opened.has_changed().is_ok();
        if let Some(opened) = self.handles.get(&path).filter(works) {
            return opened.clone();
        }
        let (opening, opened) = watch::channel(None);
        self.handles.insert(path.clone(), opened.clone());
        let Shared { central, events, .. } = self.shared.clone();
        self.readers.spawn(values::hand_on(central, path, self.device.clone(), self.facts.clone(), events, opening));
        opened
    }

    async fn report(&self, event: RadioEvent) {
        let (id, name) = (self.device.id, &self.device.name);
        match &event {
            RadioEvent::Lost { reason, .. } => info!(device = %id, name, reason, "lost"),
            _ => info!(device = %id, name, "ready"),
        }
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            _ = self.shared.events.send(event) => {}
        }
    }

    /// A link nobody ends would keep the device from everybody else.
    async fn farewell(self) {
        if let Some(path) = self.seen.path.as_deref().filter(|_| self.session.is_linked()) {
            let _ = tokio::time::timeout(FAREWELL, self.shared.bus.disconnect_device(path)).await;
        }
    }
}

async fn asked_to_leave(turn: Option<&Turn>) {
    match turn {
        Some(turn) => turn.asked_to_leave().await,
        None => pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => pending().await,
    }
}
