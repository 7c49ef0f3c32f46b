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
use tracing::{debug, info, warn};

use super::agent::MayPair;
use super::bluez::Bus;
use super::bond::{Bond, BondState, BondWatch};
use super::central::{Central, CentralError, Handle};
use super::event::RadioEvent;
use super::fetch::Durable;
use super::pairing::{self, PairError, UnderWay};
use super::place::{Bonds, Held};
use super::queue::Standing;
use super::requests::{Request, RequestError, What};
use super::session::{Action, Event, Failure, Session};
use super::settings::{ClockDecoder, Deadlines, RadioDevice};
use super::steps::Link;
use super::turns::{Turn, Turns};
use super::values::{self, Facts};
use super::watch::DeviceState;
use crate::reading::{DeviceId, SecurityLevel};

/// BlueZ answers Pair within milliseconds of the end of its link.
const LAST_WORD: Duration = Duration::from_secs(1);
/// On the way out an orderly end of the link is worth this long; BlueZ needs about 2 s.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all devices share.
#[derive(Clone)]
pub struct Shared {
    pub bus: Bus,
    pub central: Arc<Central>,
    pub turns: Turns,
    pub may_pair: MayPair,
    pub held: Held,
    pub bonds: Bonds,
    pub durable: Durable,
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
    /// Since it was ready; what is still to be said to it goes this way.
    link: Option<Link>,
    requests: mpsc::Receiver<Request>,
    bond: Bonding,
}

/// What the device's task keeps of its bond.
#[derive(Default)]
struct Bonding {
    /// As BlueZ last said while it knew the device.
    paired: bool,
    state: BondState,
    /// What of it was reported.
    told: BondState,
    watch: BondWatch,
    under_way: UnderWay,
    /// Somebody asked to pair it, and stands by it until then.
    asked: Option<Instant>,
    /// Everything was subscribed to over this link.
    worked: bool,
    /// BlueZ was told to remove it and has not done so yet: it still tells of the bond, and of its link's end before its own.
    removed: bool,
    /// Where a bond was made that is not the one configured.
    undo: Option<String>,
    /// Why it is not to be had, since the adapter that has its bond is away; until it is told.
    away: Option<String>,
    quiet: Option<Quiet>,
}

/// Why advertisements of the device are passed over: each try would be one more refusal, or crash a bluetoothd.
#[derive(Clone, Copy)]
struct Quiet {
    /// `None`: until somebody asks to pair it.
    until: Option<Instant>,
    /// One was passed over.
    heard: bool,
}

/// What kept it from being subscribed to.
enum Obstacle {
    Pairing(PairError),
    Gatt(CentralError),
}

impl From<CentralError> for Obstacle {
    fn from(error: CentralError) -> Self {
        Obstacle::Gatt(error)
    }
}

type Opened = watch::Receiver<Option<Result<Handle, CentralError>>>;

/// What an operation came back with.
enum Outcome {
    Turn(Turn),
    Event(Event),
    Subscribed(Link),
    NotSubscribed(Obstacle),
}

type Operation = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Reads = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Device {
    pub fn new(
        shared: Shared,
        device: RadioDevice,
        state: watch::Receiver<DeviceState>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        let seed = RandomState::new().hash_one(device.id.octets());
        let facts = Facts::default();
        facts.link_begins(&device);
        Self {
            session: Session::new(shared.deadlines, seed),
            shared,
            device: Arc::new(device),
            state,
            seen: DeviceState::default(),
            turn: None,
            handles: BTreeMap::new(),
            readers: JoinSet::new(),
            facts,
            link: None,
            requests,
            bond: Bonding::default(),
        }
    }

    pub async fn run(mut self) {
        let mut operation: Option<Operation> = None;
        let mut reads: Option<Reads> = None;
        let stop = self.shared.stop.clone();
        let mut silence = self.shared.silence.subscribe();
        loop {
            let (due, quiet_until) = (self.session.timeout(), self.bond.quiet.and_then(|quiet| quiet.until));
            let stands_by_until = self.bond.asked;
            // Biased: what BlueZ says of the link comes before the answer that follows from it.
            let events = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.state.changed() => match changed {
                    Ok(()) => {
                        let mut events = self.look();
                        if let Some(outcome) = self.last_word(&events, &mut operation).await {
                            events.insert(0, self.finished(outcome, &mut reads));
                        }
                        events
                    }
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
                () = sleep_until(quiet_until) => self.quiet_is_over(),
                () = sleep_until(stands_by_until) => self.nobody_stands_by(),
                Some(request) = self.requests.recv() => self.answer(request).await,
            };
            for event in events {
                match event {
                    Event::LinkUp => self.facts.link_begins(&self.device),
                    Event::LinkDown | Event::Gone => self.facts.link_ended(),
                    _ => {}
                }
                if self.bond.watch.note(Instant::now(), &event, self.bond.paired) {
                    self.bond_is_lost();
                }
                for action in self.session.poll(Instant::now(), event) {
                    debug!(device = %self.device.id, ?action, "session");
                    match action {
                        Action::AskTurn | Action::Connect | Action::Subscribe | Action::Disconnect => {
                            operation = Some(self.operation(&action));
                        }
                        Action::Abandon => (operation, self.link) = (None, None),
                        Action::ReleaseTurn => self.turn.iter().for_each(Turn::connected),
                        Action::Rescan => self.shared.turns.ask_rescan(),
                        Action::ReportReady => {
                            self.bond.works();
                            self.report(RadioEvent::Ready { device: self.device.id }).await;
                        }
                        Action::ReportLost(reason) => {
                            let reason = self.refused_over_this_link().unwrap_or(reason);
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
            self.undo_bond().await;
            self.tell_bond().await;
        }
        drop((operation, reads));
        self.farewell().await;
    }

    /// What changed since the last look, as events in the order in which it can have happened.
    fn look(&mut self) -> Vec<Event> {
        let now = self.state.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.seen, now.clone());
        if let Some(adapter) = now.bond_away.filter(|_| now.bond_away != before.bond_away) {
            self.bond.away = Some(self.bond_is_away(adapter));
        }
        let (lost, broke) = (now.losses != before.losses, now.breaks != before.breaks);
        self.bond.removed &= !lost;
        if let Some(path) = now.path.as_ref().filter(|_| !self.bond.removed) {
            // Seen here, because the device may end the link before Pair answers.
            let anew = now.paired && !self.bond.paired && before.path.as_ref() == Some(path);
            if anew && matches!(self.device.bond, Bond::Passkey(_)) && !self.shared.may_pair.was_given(path) {
                self.bond.undo = Some(path.clone());
            }
            self.bond.seen(now.paired);
            self.facts.lock().security = security(now.paired, self.device.bond);
        }
        if self.device.is_read_by_adverts() {
            return Vec::new();
        }
        let anew = lost || broke;
        let happened = [
            (lost, Event::Gone),
            (broke && !lost, Event::LinkDown),
            (now.heard != before.heard && !self.bond.passes_over(), Event::Seen),
            (now.connected && (anew || !before.connected), Event::LinkUp),
            (now.resolved && (anew || !before.resolved), Event::Resolved),
        ];
        happened.into_iter().filter(|(did, _)| *did).map(|(_, event)| event).collect()
    }

    /// A device that refuses a pairing also ends the link, and why comes by another way: what is known of a link that broke
    /// while it was being paired is not thrown away for having come second.
    async fn last_word(&self, events: &[Event], operation: &mut Option<Operation>) -> Option<Outcome> {
        let broke = events.iter().any(|event| matches!(event, Event::LinkDown | Event::Gone));
        if !broke || !self.bond.under_way.is_asked() {
            return None;
        }
        let outcome = tokio::time::timeout(LAST_WORD, operation.as_mut()?).await.ok()?;
        *operation = None;
        Some(outcome)
    }

    fn finished(&mut self, outcome: Outcome, reads: &mut Option<Reads>) -> Event {
        match outcome {
            Outcome::Turn(turn) => {
                self.turn = Some(turn);
                Event::Turn
            }
            Outcome::Event(event) => event,
            Outcome::NotSubscribed(Obstacle::Pairing(error)) => {
                if matches!(error, PairError::WithoutPasskey(_)) {
                    self.bond.undo.clone_from(&self.seen.path);
                }
                if error.is_final() {
                    self.refuse(&error);
                } else if self.bond.state == BondState::Bonding && self.bond.asked.is_none() {
                    self.bond.state = BondState::None;
                }
                Event::Failed((&error).into())
            }
            Outcome::NotSubscribed(Obstacle::Gatt(error)) => {
                match self.refused_to_pair().filter(|_| error.is_security()) {
                    Some(why) => self.refuse(&why),
                    None if error.is_security() && self.bond.watch.refused(self.bond.paired) => self.bond_is_lost(),
                    None => {}
                }
                Event::Failed(error.into())
            }
            Outcome::Subscribed(link) => {
                let (durable, profile) = (self.shared.durable.clone(), self.device.profile.clone());
                self.link = Some(link.clone());
                *reads = Some(Box::pin(async move {
                    values::read(&link).await;
                    link.visit(&durable).await;
                    if let Some(profile) = profile {
                        link.poll(&profile.polls).await;
                    }
                }));
                Event::Subscribed
            }
        }
    }

    fn operation(&mut self, action: &Action) -> Operation {
        let Shared { bus, turns, .. } = self.shared.clone();
        let (path, pairing) = (self.seen.path.clone().unwrap_or_default(), self.bond.under_way.clone());
        match action {
            Action::AskTurn => {
                (self.turn, self.link) = (None, None);
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
            Action::Disconnect => {
                let last_words = self.last_words();
                Box::pin(async move {
                    if pairing.take() {
                        bus.cancel_pairing(&path).await;
                    }
                    last_words.await;
                    bus.disconnect_device(&path).await;
                    Outcome::Event(Event::Disconnected)
                })
            }
            _ => self.subscribe(path),
        }
    }

    /// The object path of the adapter it is on.
    fn adapter(&self) -> String {
        let path = self.seen.path.as_deref().and_then(|path| path.rsplit_once('/'));
        path.map(|(adapter, _)| adapter.to_owned()).unwrap_or_default()
    }

    /// What the device's profile says before its link is ended; nothing to a device that was not ready.
    fn last_words(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (link, profile) = (self.link.take(), self.device.profile.clone());
        async move {
            if let Some((link, profile)) = link.zip(profile) {
                link.end(&profile.end).await;
            }
        }
    }

    /// The handle is made once for a path; services are looked up and subscribed anew in every connection.
    fn subscribe(&mut self, path: String) -> Operation {
        let mut opened = self.open(path.clone());
        let Shared { bus, may_pair, deadlines, events, .. } = self.shared.clone();
        let pair = !self.bond.paired && self.wants_to_pair();
        if pair {
            self.bond.state = BondState::Bonding;
        }
        let under_way = self.bond.under_way.clone();
        let (device, facts, decoder) = (self.device.clone(), self.facts.clone(), self.shared.clock_decoder);
        let steps = async move {
            if pair {
                let paired = pairing::pair(&bus, &path, &device, &may_pair, deadlines.pair, &under_way).await;
                paired.map_err(Obstacle::Pairing)?;
            }
            let opened = opened.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
            let handle = opened.unwrap_or_else(|| Err(CentralError::stopped()))?;
            let link = values::subscribe(handle, device, facts.clone(), events, decoder).await?;
            // Subscribing may have bonded; BlueZ's word of it comes on another connection than the values.
            if bus.is_paired(&path).await {
                facts.lock().security = security(true, link.device.bond);
            }
            Ok(link)
        };
        Box::pin(async move {
            match steps.await {
                Ok(link) => Outcome::Subscribed(link),
                Err(obstacle) => Outcome::NotSubscribed(obstacle),
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
            RadioEvent::Bond { state, .. } => info!(device = %id, name, ?state, "bond"),
            _ => info!(device = %id, name, "ready"),
        }
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            _ = self.shared.events.send(event) => {}
        }
    }

    fn wants_to_pair(&self) -> bool {
        match self.device.bond {
            Bond::Passkey(_) => true,
            // By itself it does when it needs to, and BlueZ then asks the agent.
            Bond::JustWorks => self.bond.asked.is_some(),
            Bond::None => false,
        }
    }

    fn bond_is_lost(&mut self) {
        let name = &self.device.name;
        let remedy = format!(
            "BlueZ has a bond with device \"{name}\" and the device no longer; if it was reset or paired elsewhere, \
             `bedrail forget {name}`, then `bedrail pair {name}`"
        );
        self.bond.state = BondState::Lost(remedy);
        self.bond.be_quiet(Some(Instant::now() + self.shared.deadlines.retry_suspect));
    }

    fn bond_is_away(&self, adapter: DeviceId) -> String {
        let name = &self.device.name;
        format!(
            "device \"{name}\" has its bond with adapter {adapter}, which is not there or has no power, and is paired with no other by \
             itself; plug that in again, or name another one as its `adapter` in the config and restart bedrail"
        )
    }

    fn quiet_is_over(&mut self) -> Vec<Event> {
        let heard = self.bond.quiet.take().is_some_and(|quiet| quiet.heard);
        if heard { vec![Event::Seen] } else { vec![] }
    }

    /// Whoever asked for the pairing has given up; one that is under way comes to its own end.
    fn nobody_stands_by(&mut self) -> Vec<Event> {
        self.bond.asked = None;
        if self.bond.state == BondState::Bonding && !self.bond.under_way.is_asked() {
            self.bond.state = BondState::None;
        }
        vec![]
    }

    /// Whoever asked may have gone; what was asked is done all the same.
    async fn answer(&mut self, Request { what, answer }: Request) -> Vec<Event> {
        match what {
            What::Pair(stands_by) => {
                let may = self.may_be_paired();
                let begins = may.is_ok();
                let _ = answer.send(may);
                if begins { self.begin_pairing(stands_by).await } else { vec![] }
            }
            What::Forget => {
                let _ = answer.send(self.forget().await);
                vec![]
            }
        }
    }

    fn may_be_paired(&self) -> Result<(), RequestError> {
        let name = || self.device.name.clone();
        match self.device.bond {
            _ if self.device.is_read_by_adverts() => Err(RequestError::NeverConnected(name())),
            Bond::None => Err(RequestError::NoBonding(name())),
            // A person may choose another adapter.
            _ if self.bond.paired && self.seen.bond_away.is_none() => Err(RequestError::Bonded(name())),
            _ => Ok(()),
        }
    }

    async fn begin_pairing(&mut self, stands_by: Duration) -> Vec<Event> {
        self.shared.bonds.forget(self.device.id);
        self.bond.asked = Some(Instant::now() + stands_by);
        (self.bond.quiet, self.bond.state) = (None, BondState::Bonding);
        // Pairing is a step of connecting.
        if let Some(path) = self.seen.path.as_deref().filter(|_| self.session.is_linked()) {
            self.shared.bus.disconnect_device(path).await;
        }
        self.shared.turns.ask_rescan();
        vec![Event::Asked]
    }

    async fn forget(&mut self) -> Result<(), RequestError> {
        match self.seen.path.clone().filter(|_| self.bond.paired) {
            Some(path) => self.shared.bus.remove_device(&path).await.map_err(|error| RequestError::BlueZ(error.to_string()))?,
            // What BlueZ keeps of an adapter that is away it keeps.
            None if self.seen.bond_away.is_some() => {}
            None => return Err(RequestError::NotBonded(self.device.name.clone())),
        }
        self.shared.bonds.forget(self.device.id);
        let told = std::mem::take(&mut self.bond.told);
        self.bond = Bonding { told, removed: self.seen.path.is_some(), ..Bonding::default() };
        // Otherwise it would be paired anew with the next advertisement.
        self.bond.be_quiet(None);
        Ok(())
    }

    /// A bond that was made without the passkey is none.
    async fn undo_bond(&mut self) {
        let Some(path) = self.bond.undo.take() else { return };
        match self.shared.bus.remove_device(&path).await {
            Ok(()) => self.bond.removed = true,
            Err(error) => warn!(device = %self.device.id, %error, "the bond made without the passkey is not removed"),
        }
        self.bond.paired = false;
        self.shared.bonds.forget(self.device.id);
        self.facts.lock().security = SecurityLevel::None;
        self.refuse(&PairError::WithoutPasskey(self.device.name.clone()));
    }

    /// Why it was refused to pair, if it asked over this link and was.
    fn refused_to_pair(&self) -> Option<PairError> {
        let name = self.device.name.clone();
        let path = self.seen.path.as_deref().unwrap_or_default();
        let passkey = self.shared.may_pair.take_refusal(path)?;
        Some(if passkey { PairError::NeedsPasskey(name) } else { PairError::NeedsBond(name) })
    }

    /// What says more than how a link ended that never worked: BlueZ leaves a subscription unanswered, or the device hangs
    /// up, when the device asked to pair and was refused. One that works without does not care.
    fn refused_over_this_link(&mut self) -> Option<String> {
        let worked = std::mem::take(&mut self.bond.worked);
        let why = self.refused_to_pair().filter(|_| !worked)?;
        self.refuse(&why);
        Some(why.to_string())
    }

    fn refuse(&mut self, error: &PairError) {
        self.bond.asked = None;
        self.bond.state = BondState::Refused(error.to_string());
        self.bond.be_quiet(Some(Instant::now() + self.shared.deadlines.retry_suspect));
    }

    async fn tell_bond(&mut self) {
        if let Some(reason) = self.bond.away.take() {
            self.report(RadioEvent::Lost { device: self.device.id, reason }).await;
        }
        if self.bond.told != self.bond.state {
            self.bond.told.clone_from(&self.bond.state);
            self.report(RadioEvent::Bond { device: self.device.id, state: self.bond.state.clone() }).await;
        }
    }

    /// A link nobody ends would keep the device from everybody else.
    async fn farewell(mut self) {
        let last_words = self.last_words();
        if let Some(path) = self.seen.path.as_deref().filter(|_| self.session.is_linked()) {
            let farewell = async {
                last_words.await;
                if self.bond.under_way.take() {
                    self.shared.bus.cancel_pairing(path).await;
                }
                self.shared.bus.disconnect_device(path).await;
            };
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        }
    }
}

impl Bonding {
    /// As BlueZ says.
    fn seen(&mut self, paired: bool) {
        self.paired = paired;
        match (&self.state, paired) {
            (BondState::None | BondState::Bonding | BondState::Refused(_), true) => {
                (self.state, self.asked, self.quiet) = (BondState::Bonded, None, None);
            }
            (BondState::Bonded | BondState::Lost(_), false) => self.state = BondState::None,
            _ => {}
        }
    }

    fn works(&mut self) {
        self.watch.ready();
        (self.worked, self.quiet) = (true, None);
        match self.state {
            BondState::Lost(_) => self.state = BondState::Bonded,
            BondState::Refused(_) => self.state = BondState::None,
            _ => {}
        }
    }

    fn be_quiet(&mut self, until: Option<Instant>) {
        self.quiet = Some(Quiet { until, heard: false });
    }

    /// Whether an advertisement leads to nothing now.
    fn passes_over(&mut self) -> bool {
        self.quiet.as_mut().map(|quiet| quiet.heard = true).is_some()
    }
}

/// What a link is worth: a bond of a device with a passkey was made with it, or was there before bedrail.
fn security(paired: bool, bond: Bond) -> SecurityLevel {
    match bond {
        _ if !paired => SecurityLevel::None,
        Bond::Passkey(_) => SecurityLevel::Authenticated,
        Bond::None | Bond::JustWorks => SecurityLevel::Encrypted,
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
