//! The shell of one route: it fetches what the planner names, decides, binds, hands it to its destination, and writes down
//! what became of it. It runs on a thread of its own, so that reading the log never holds up a connection.

mod answers;
mod correct;
mod letters;
mod look;
mod spots;
mod trace;
mod upkeep;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

pub use self::letters::{LetterCommand, LettersDone, MAX_RETRIED, Preview};
use self::look::Look;
pub use self::trace::{RecordPlace, Traced};
use super::announce::{Announcements, Outbox};
use super::budget::Budget;
use super::held::HeldRuns;
use super::rate::Rate;
use super::receipts::Receipts;
use super::retry::Backoff;
use super::schedule::Schedule;
use super::stand::{Stand, Why};
use super::status::{RouteState, RouteStatus};
use super::{Destination, DeviceLabel, Fault, FaultClass, Happened, Placements, Planner, Rules, Share, Source, Token};
use crate::config::{History, Order, Retract, When};
use crate::monitor::Notice;
use crate::radio::BootClock;
use crate::reading::{
    Anchors, Decimal, DeviceId, Metric, Nameplate, Placement, Record, RecordId, Seq, StreamKey, SubjectKey, Timestamp, Unit,
};
use crate::store::{EVICTIONS, READ_LIMIT, RouteChange, RouteRow, Runs, Store, StoreError};
use crate::ward::Ward;

/// The log's head is looked at this often even if no bell rings: a datagram is only a hint.
const TICK: Duration = Duration::from_secs(1);
/// How long an orderly end waits for what is in flight; a living broker acknowledges within it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Names of a route's marks: when its last turn began, and what it sent today.
const TURN: &str = "turn";
const BUDGET: &str = "budget";

/// What a route needs to know about one device.
#[derive(Clone, Debug)]
pub struct RouteDevice {
    pub label: DeviceLabel,
    pub zone: TimeZone,
    pub history: History,
    /// What it must tell of itself; blank: anything.
    pub nameplate: Nameplate,
}

/// How one stream of several is chosen for a metric: names or kinds of devices, best first, and how far apart two may lie.
#[derive(Clone, Debug, Default)]
pub struct StreamPreference {
    pub prefer: Vec<String>,
    pub agree_within: Option<(Decimal, Unit)>,
}

#[derive(Clone, Debug)]
pub struct RouteSettings {
    pub name: String,
    pub gateway: String,
    pub rules: Rules,
    pub order: Order,
    pub window: usize,
    pub ack_interval: Duration,
    /// Messages a second at most.
    pub max_rate: Option<u32>,
    pub when: When,
    /// Octets a day at most.
    pub daily_bytes: Option<u64>,
    /// A record is settled by a receipt of the receiver, which may take so long; `None`: by the broker's word.
    pub receipt_within: Option<Duration>,
    pub devices: BTreeMap<DeviceId, RouteDevice>,
    pub default_zone: TimeZone,
    pub preferences: BTreeMap<Metric, StreamPreference>,
    pub min_coverage_permille: u16,
    pub retract: Retract,
}

/// What a person asks of a route while it runs.
#[derive(Debug)]
pub enum RouteCommand {
    Pause {
        reason: String,
        done: oneshot::Sender<()>,
    },
    Resume {
        done: oneshot::Sender<()>,
    },
    /// Owe these again, under the same identities; answers how many.
    Replay {
        from: Timestamp,
        to: Timestamp,
        done: oneshot::Sender<u64>,
    },
    /// A person's word about what waits for it from this record to that one: taken back and sent where it belongs, or left.
    /// Answers how many that were; `None` where nothing waits.
    Decide {
        first: Seq,
        last: Seq,
        accept: bool,
        done: oneshot::Sender<Option<u64>>,
    },
    /// How many of these were already sent: asked before history is changed.
    Sent {
        records: Arc<Vec<(Seq, Record)>>,
        done: oneshot::Sender<u64>,
    },
    /// Where one record is, and why.
    Trace {
        seq: Seq,
        record: Box<Record>,
        done: oneshot::Sender<Traced>,
    },
    /// How many records are owed to this patient; of a long backlog only the beginning is looked at.
    Unsent {
        subject: SubjectKey,
        done: oneshot::Sender<u64>,
    },
    Letters(LetterCommand),
}

/// Outside things a route follows.
pub struct RouteInputs {
    pub ward: watch::Receiver<Arc<Ward>>,
    pub bell: watch::Receiver<u64>,
    pub commands: mpsc::Receiver<RouteCommand>,
    /// How the gateway is, where that is published.
    pub announce: Option<Announcements>,
    pub publish: watch::Sender<RouteStatus>,
    pub stop: CancellationToken,
}

pub struct Route<D: Destination> {
    settings: RouteSettings,
    store: Store,
    row: RouteRow,
    planner: Planner,
    held: HeldRuns,
    /// Dead letters that go again: their rows lend the record until it is taken.
    retried: BTreeSet<Seq>,
    placements: Placements,
    /// Sent, and not known to be settled: they may stand at the destination.
    attempted: Runs,
    /// The same as it is on the card, with some that go next: what a crash leaves in doubt.
    under_way: Runs,
    /// What is known of the ward; all that goes, goes by it.
    ward: Arc<Ward>,
    /// The last event of the ward that what was sent agrees with.
    followed: Option<u64>,
    /// The ward has changed since the last look through the log began.
    look_due: bool,
    look: Option<Look>,
    /// Records that are looked at between two turns.
    page: usize,
    /// Of scans, by stream and event, what each reading is to them.
    shares: BTreeMap<(StreamKey, u64), BTreeMap<RecordId, Share>>,
    change: RouteChange,
    /// What is in flight, for what must be known when its answer comes.
    flying: BTreeMap<Token, (Seq, Record)>,
    ahead: [VecDeque<(Seq, Record)>; 2],
    stand: Stand,
    rate: Rate,
    receipts: Option<Receipts>,
    schedule: Schedule,
    budget: Option<Budget>,
    /// The route's marks as they are on file.
    marked: BTreeMap<&'static str, u64>,
    /// Of a parked source, the record that was taken as a probe and is still on file as held.
    probed: BTreeMap<Source, Seq>,
    /// Times of the pure parts count from here.
    started: Moment,
    anchors: Anchors,
    /// Of a record that goes to no patient.
    nowhere: Placement,
    head: Seq,
    data_version: i64,
    status: RouteStatus,
    boot: BootClock,
    inputs: RouteInputs,
    destination: D,
    write_due: Option<Moment>,
    /// The last write failed and is tried again.
    unwritable: bool,
    /// Evictions seen, and when what is held is looked at again because of them.
    evictions: u64,
    recheck_due: Option<Moment>,
    outbox: Outbox,
    /// The oldest record owed, and when it was last looked for.
    oldest: (Option<Seq>, Moment),
    /// Why a message was last refused, until one is taken: some brokers hang up then, and often that is all that is heard.
    refusal: Option<String>,
    /// A message was taken since somebody looked.
    went_well: bool,
    chance: fn() -> u32,
}

/// Why a connection was left.
enum Left {
    Stopped,
    Paused,
    Lost(Fault),
}

impl<D: Destination> Route<D> {
    pub fn new(
        settings: RouteSettings,
        store: Store,
        row: RouteRow,
        boot: BootClock,
        inputs: RouteInputs,
        destination: D,
    ) -> Result<Self, StoreError> {
        let planner = Planner::new(settings.order, settings.window, store.lanes(row.n)?);
        let held = HeldRuns::new(store.held(row.n)?);
        let placements = Placements::new(store.bound(row.n)?);
        let under_way = store.under_way(row.n)?;
        // What is no longer owed was answered.
        let lanes = planner.lanes();
        let attempted =
            [&lanes.live, &lanes.backlog].iter().flat_map(|owed| under_way.and(owed).iter().collect::<Vec<_>>()).collect();
        let followed = store.route_mark(row.n, look::WARD)?;
        let ward = inputs.ward.borrow().clone();
        let retried = store.retried(row.n)?;
        let evictions = store.mark(EVICTIONS)?.unwrap_or(0);
        let (anchors, head, data_version) = (store.anchors()?, store.head()?, store.data_version()?);
        let mut status = RouteStatus { name: settings.name.clone(), kind: row.kind.clone(), ..RouteStatus::default() };
        status.tally = store.tally(row.n)?;
        status.dead = store.dead_count(row.n)?;
        let mut stand = Stand::default();
        for held in held.iter() {
            Why::of_hold(held.reason).into_iter().for_each(|why| stand.park((held.device, held.stream), why, Duration::ZERO));
        }
        let last_turn = store.route_mark(row.n, TURN)?.and_then(|ms| i64::try_from(ms).ok()).map(Timestamp);
        let schedule = Schedule::new(settings.when, settings.default_zone.clone(), last_turn);
        let spent = store.route_mark(row.n, BUDGET)?;
        let budget = settings.daily_bytes.map(|limit| Budget::new(limit, settings.default_zone.clone(), spent));
        Ok(Self {
            rate: Rate::new(settings.max_rate),
            receipts: settings.receipt_within.map(Receipts::new),
            schedule,
            budget,
            marked: BTreeMap::new(),
            stand,
            probed: BTreeMap::new(),
            started: Moment::now(),
            went_well: false,
            settings,
            nowhere: store.site_key().placement(None, 0),
            store,
            row,
            planner,
            held,
            retried,
            placements,
            attempted,
            under_way,
            ward,
            followed,
            look_due: false,
            look: None,
            page: READ_LIMIT,
            shares: BTreeMap::new(),
            change: RouteChange::default(),
            flying: BTreeMap::new(),
            ahead: [VecDeque::new(), VecDeque::new()],
            anchors,
            head,
            data_version,
            status,
            boot,
            inputs,
            destination,
            write_due: None,
            unwritable: false,
            evictions,
            recheck_due: None,
            outbox: Outbox::default(),
            oldest: (None, Moment::now()),
            refusal: None,
            chance: || crate::store::key::random::<4>().map_or(u32::MAX / 2, u32::from_le_bytes),
        })
    }

    /// Runs until told to stop. Only a store that fails ends it with an error.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut backoff = Backoff::default();
        // The ward may have changed while nobody was here.
        self.ward_changed()?;
        self.forget_bindings()?;
        loop {
            if self.row.paused.is_some() && !self.tells_while_paused() {
                self.state(RouteState::Paused, self.row.paused.clone());
                if !self.idle(None).await? {
                    return self.write();
                }
                continue;
            }
            let left = self.connected(&mut backoff).await?;
            let under_way = std::mem::take(&mut self.flying);
            if let Left::Lost(fault) = &left {
                self.suspect(fault, under_way);
            }
            self.planner.link_down();
            self.receipts.iter_mut().for_each(Receipts::clear);
            self.stand.link_down(self.clock(), (self.chance)());
            self.ahead.iter_mut().for_each(VecDeque::clear);
            self.under_way_is_attempted();
            self.write()?;
            match left {
                Left::Stopped => return Ok(()),
                Left::Paused => {}
                Left::Lost(Fault { class, text }) => {
                    let refusal = self.stand.standing().map(|(_, detail)| detail.to_owned()).or(self.refusal.take());
                    let reason = match &refusal {
                        Some(refusal) if *refusal != text => format!("{text}; before that, {refusal}"),
                        _ => text,
                    };
                    let wait = backoff.after(class, (self.chance)());
                    self.status.last_fault = Some(class);
                    match self.row.paused.clone() {
                        // Whoever paused it knows that the destination moves.
                        Some(paused) => {
                            tracing::debug!(route = %self.settings.name, %reason, "no link while paused");
                            self.state(RouteState::Paused, Some(paused));
                        }
                        None => {
                            tracing::warn!(route = %self.settings.name, class = class.name(), %reason, retry_in_ms = wait.as_millis() as u64, "link down");
                            self.state(RouteState::Down, Some(reason));
                        }
                    }
                    if !self.idle(Some(Moment::now() + wait)).await? {
                        return self.write();
                    }
                }
            }
        }
    }

    /// A route that a person paused sends no record; where it tells how the gateway is, it goes on doing that.
    fn tells_while_paused(&self) -> bool {
        self.inputs.announce.is_some()
    }

    /// One connection, from its first octet to its end.
    async fn connected(&mut self, backoff: &mut Backoff) -> Result<Left, StoreError> {
        match self.row.paused.clone() {
            Some(paused) => self.state(RouteState::Paused, Some(paused)),
            None => self.state(RouteState::Connecting, self.status.detail.clone()),
        }
        self.destination.connect();
        let mut up = false;
        let mut tick = tokio::time::interval(TICK);
        loop {
            if up {
                self.announce();
                if let Err(error) = self.fill() {
                    self.not_written(error)?;
                }
                self.show();
            }
            self.look_on()?;
            let wake = self.wake().filter(|_| up);
            tokio::select! {
                biased;
                () = self.inputs.stop.cancelled() => {
                    let farewell = self.inputs.announce.as_ref().map(|announce| announce.stopped.clone());
                    self.leave(up, farewell).await?;
                    return Ok(Left::Stopped);
                }
                happened = self.destination.event() => {
                    let mut next = Some(happened);
                    // What came with it is heard too before the window is filled: once, not message by message.
                    while let Some(happened) = next.take() {
                        match happened {
                            Happened::Up => {
                                up = true;
                                self.link_up()?;
                            }
                            Happened::Answered { token, verdict } => {
                                if let Some(text) = self.answered(token, verdict)? {
                                    self.destination.close(None).await;
                                    return Ok(Left::Lost(Fault { class: FaultClass::Refused, text }));
                                }
                            }
                            Happened::Received { deliveries, unreadable } => self.confirmed(&deliveries, unreadable),
                            Happened::Hears(heard) => self.status.receipts = heard.err().map(|fault| fault.text),
                            Happened::Announced(answer) => self.announced(answer),
                            Happened::Down(fault) => return Ok(Left::Lost(fault)),
                        }
                        next = self.destination.event().now_or_never();
                    }
                    if std::mem::take(&mut self.went_well) {
                        backoff.reset();
                    }
                }
                () = until(self.write_due) => self.write()?,
                () = until(wake) => {}
                Some(command) = self.inputs.commands.recv() => {
                    self.command(command)?;
                    if self.row.paused.is_some() && !self.tells_while_paused() {
                        self.leave(up, None).await?;
                        return Ok(Left::Paused);
                    }
                }
                Ok(()) = self.inputs.ward.changed() => self.ward_changed()?,
                Ok(()) = self.inputs.bell.changed() => self.look_at_log()?,
                _ = tick.tick() => self.look_at_log()?,
                () = tokio::task::yield_now(), if self.is_looking() => {}
            }
        }
    }

    /// An orderly end: what is in flight settles, so that it does not go again.
    async fn leave(&mut self, up: bool, farewell: Option<Notice>) -> Result<(), StoreError> {
        let until = Moment::now() + FAREWELL;
        while up && (self.planner.in_flight() > 0 || self.destination.room() == 0) {
            match tokio::time::timeout_at(until, self.destination.event()).await {
                Ok(Happened::Answered { token, verdict }) => drop(self.answered(token, verdict)?),
                Ok(Happened::Announced(answer)) => self.announced(answer),
                Ok(Happened::Received { deliveries, unreadable }) => self.confirmed(&deliveries, unreadable),
                Ok(Happened::Up | Happened::Hears(_)) => {}
                Ok(Happened::Down(_)) | Err(_) => break,
            }
        }
        self.write()?;
        self.destination.close(farewell.as_ref()).await;
        Ok(())
    }

    /// Waits without a connection; what people and the ward say is heard all the same. `false`: told to stop.
    async fn idle(&mut self, wake: Option<Moment>) -> Result<bool, StoreError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            self.look_on()?;
            tokio::select! {
                biased;
                () = self.inputs.stop.cancelled() => return Ok(false),
                () = until(wake) => return Ok(true),
                () = until(self.write_due) => self.write()?,
                Some(command) = self.inputs.commands.recv() => {
                    let was_paused = self.row.paused.is_some();
                    self.command(command)?;
                    if was_paused != self.row.paused.is_some() {
                        return Ok(true);
                    }
                }
                Ok(()) = self.inputs.ward.changed() => self.ward_changed()?,
                Ok(()) = self.inputs.bell.changed() => self.look_at_log()?,
                _ = tick.tick() => self.look_at_log()?,
                () = tokio::task::yield_now(), if self.is_looking() => {}
            }
        }
    }

    fn link_up(&mut self) -> Result<(), StoreError> {
        self.look_at_log()?;
        self.planner.link_up(self.head);
        self.write()?;
        self.outbox = Outbox::default();
        self.show();
        tracing::info!(route = %self.settings.name, backlog = self.status.backlog, "link up");
        Ok(())
    }
}

async fn until(due: Option<Moment>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
