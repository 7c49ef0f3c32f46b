//! The shell of one route: it fetches what the planner names, decides, binds, renders and hands it to a link, and writes
//! down what became of it. It runs on a thread of its own, so that reading the log never holds up a connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

use super::decide::{carries, decide};
use super::held::{HeldRuns, Recheck};
use super::mqtt::{AckReason, Link, LinkEvent, NotTaken, RefusalCode, TopicTemplate, render};
use super::retry::Backoff;
use super::sides;
use super::status::{RouteState, RouteStatus};
use super::{Choice, Decision, DeviceLabel, Item, Known, Lane, Planner, Rules, Settled, Token};
use crate::clean::Preference;
use crate::config::{Bind, History, Order};
use crate::radio::BootClock;
use crate::reading::{Anchors, Body, DeviceId, Metric, Op, Placement, Record, Seq, StreamKey, SubjectKey, Timestamp};
use crate::store::{BoundRow, DeadRow, READ_LIMIT, RouteChange, RouteRow, Store, StoreError};
use crate::ward::{Binding, HoldReason, Ward};

/// The log's head is looked at this often even if no bell rings: a datagram is only a hint.
const TICK: Duration = Duration::from_secs(1);
/// Records fetched ahead in each lane: a few windows' worth.
const READ_AHEAD: usize = 256;
/// The retained status is renewed when it changed, and not more often than this.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// An acknowledgement for it settles nothing.
const STATUS_TOKEN: Token = Token::MAX;
/// How long an orderly end waits for what is in flight; a living broker acknowledges within it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a route needs to know about one device.
#[derive(Clone, Debug)]
pub struct RouteDevice {
    pub label: DeviceLabel,
    pub zone: TimeZone,
    pub history: History,
}

#[derive(Clone, Debug)]
pub struct RouteSettings {
    pub name: String,
    pub gateway: String,
    pub rules: Rules,
    pub order: Order,
    pub window: usize,
    pub ack_interval: Duration,
    pub topic: TopicTemplate,
    /// As written in the config, for messages.
    pub topic_text: String,
    pub devices: BTreeMap<DeviceId, RouteDevice>,
    pub default_zone: TimeZone,
    /// How one stream of several is chosen, by metric: preferred names, allowed disagreement in percent.
    pub preferences: BTreeMap<Metric, (Vec<String>, Option<crate::reading::Decimal>)>,
    pub min_coverage_permille: u16,
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
    /// How many of these were already sent: asked before history is changed.
    Sent {
        records: Arc<Vec<(Seq, Record)>>,
        done: oneshot::Sender<u64>,
    },
}

/// Outside things a route follows.
pub struct RouteInputs {
    pub ward: watch::Receiver<Arc<Ward>>,
    pub bell: watch::Receiver<u64>,
    pub commands: mpsc::Receiver<RouteCommand>,
    /// The gateway's retained status, ready to publish: topic and payload.
    pub gateway_status: watch::Receiver<Option<(String, Vec<u8>)>>,
    /// What the last will says, for the end of which the broker drops the will.
    pub farewell: (String, Vec<u8>),
    pub publish: watch::Sender<RouteStatus>,
    pub stop: CancellationToken,
}

/// Makes a new connection; every one is new from the ground up.
pub type Connector<L> = Box<dyn Fn() -> L + Send>;

pub struct Route<L: Link> {
    settings: RouteSettings,
    store: Store,
    row: RouteRow,
    planner: Planner,
    held: HeldRuns,
    /// Who the last records of each stream went to.
    bound: BTreeMap<StreamKey, BoundRow>,
    change: RouteChange,
    /// What is in flight, for what must be known when its answer comes.
    flying: BTreeMap<Token, (Seq, Record)>,
    ahead: [VecDeque<(Seq, Record)>; 2],
    anchors: Anchors,
    head: Seq,
    data_version: i64,
    status: RouteStatus,
    boot: BootClock,
    inputs: RouteInputs,
    connector: Connector<L>,
    write_due: Option<Moment>,
    status_sent: Option<Moment>,
    /// Why the broker last refused a message, until it takes one: some hang up then, and often that is all that is heard.
    refusal: Option<String>,
    chance: fn() -> u32,
}

/// Why a connection was left.
enum Left {
    Stopped,
    Paused,
    Lost(String),
}

impl<L: Link> Route<L> {
    pub fn new(
        settings: RouteSettings,
        store: Store,
        row: RouteRow,
        boot: BootClock,
        inputs: RouteInputs,
        connector: Connector<L>,
    ) -> Result<Self, StoreError> {
        let planner = Planner::new(settings.order, settings.window, store.lanes(row.n)?);
        let held = HeldRuns::new(store.held(row.n)?);
        let bound = store.bound_now(row.n)?.into_iter().map(|bound| (bound.stream, bound)).collect();
        let (anchors, head, data_version) = (store.anchors()?, store.head()?, store.data_version()?);
        let mut status = RouteStatus { name: settings.name.clone(), kind: row.kind.clone(), ..RouteStatus::default() };
        status.tally = store.tally(row.n)?;
        status.dead = store.dead_count(row.n)?;
        Ok(Self {
            settings,
            store,
            row,
            planner,
            held,
            bound,
            change: RouteChange::default(),
            flying: BTreeMap::new(),
            ahead: [VecDeque::new(), VecDeque::new()],
            anchors,
            head,
            data_version,
            status,
            boot,
            inputs,
            connector,
            write_due: None,
            status_sent: None,
            refusal: None,
            chance: || crate::store::key::random::<4>().map_or(u32::MAX / 2, u32::from_le_bytes),
        })
    }

    /// Runs until told to stop. Only a store that fails ends it with an error.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut backoff = Backoff::default();
        // Everything held is looked at anew: the ward may have changed while nobody was here.
        self.recheck_held()?;
        loop {
            if self.row.paused.is_some() {
                self.state(RouteState::Paused, self.row.paused.clone());
                if !self.idle(None).await? {
                    return self.write();
                }
                continue;
            }
            let left = self.connected(&mut backoff).await?;
            self.planner.link_down();
            self.flying.clear();
            self.ahead.iter_mut().for_each(VecDeque::clear);
            self.write()?;
            match left {
                Left::Stopped => return Ok(()),
                Left::Paused => {}
                Left::Lost(reason) => {
                    let reason = match &self.refusal {
                        Some(refusal) if *refusal != reason => format!("{reason}; before that, {refusal}"),
                        _ => reason,
                    };
                    let wait = backoff.next((self.chance)());
                    tracing::warn!(route = %self.settings.name, %reason, retry_in_ms = wait.as_millis() as u64, "link down");
                    self.state(RouteState::Down, Some(reason));
                    if !self.idle(Some(Moment::now() + wait)).await? {
                        return self.write();
                    }
                }
            }
        }
    }

    /// One connection, from its first octet to its end.
    async fn connected(&mut self, backoff: &mut Backoff) -> Result<Left, StoreError> {
        self.state(RouteState::Connecting, self.status.detail.clone());
        let mut link = (self.connector)();
        let mut up = false;
        let mut tick = tokio::time::interval(TICK);
        loop {
            if up {
                self.fill(&mut link)?;
                self.publish_status(&mut link);
            }
            tokio::select! {
                biased;
                () = self.inputs.stop.cancelled() => {
                    self.leave(link, up).await?;
                    return Ok(Left::Stopped);
                }
                event = link.event() => match event {
                    LinkEvent::Connected { .. } => {
                        up = true;
                        backoff.reset();
                        self.link_up()?;
                    }
                    LinkEvent::Acked { token, reason } => {
                        if let Some(lost) = self.answered(token, reason) {
                            link.close().await;
                            return Ok(Left::Lost(lost));
                        }
                    }
                    LinkEvent::Lost(reason) => return Ok(Left::Lost(reason.to_string())),
                },
                () = until(self.write_due) => self.write()?,
                Some(command) = self.inputs.commands.recv() => {
                    self.command(command)?;
                    if self.row.paused.is_some() {
                        self.leave(link, up).await?;
                        return Ok(Left::Paused);
                    }
                }
                Ok(()) = self.inputs.ward.changed() => self.recheck_held()?,
                Ok(()) = self.inputs.bell.changed() => self.look()?,
                _ = tick.tick() => self.look()?,
            }
        }
    }

    /// An orderly end: what is in flight settles, so that it does not go again. The broker drops the will then, so the gateway
    /// says itself that it is gone.
    async fn leave(&mut self, mut link: L, up: bool) -> Result<(), StoreError> {
        let until = Moment::now() + FAREWELL;
        while up && (self.planner.in_flight() > 0 || link.room() == 0) {
            match tokio::time::timeout_at(until, link.event()).await {
                Ok(LinkEvent::Acked { token, reason }) => drop(self.answered(token, reason)),
                Ok(LinkEvent::Connected { .. }) => {}
                Ok(LinkEvent::Lost(_)) | Err(_) => break,
            }
        }
        let (topic, payload) = &self.inputs.farewell;
        // Without room for it the retained status stays behind; there is nobody left to wait.
        let _ = link.publish(STATUS_TOKEN, topic, payload.clone(), true);
        self.write()?;
        link.close().await;
        Ok(())
    }

    /// Waits without a connection; what people and the ward say is heard all the same. `false`: told to stop.
    async fn idle(&mut self, wake: Option<Moment>) -> Result<bool, StoreError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
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
                Ok(()) = self.inputs.ward.changed() => self.recheck_held()?,
                Ok(()) = self.inputs.bell.changed() => self.look()?,
                _ = tick.tick() => self.look()?,
            }
        }
    }

    fn link_up(&mut self) -> Result<(), StoreError> {
        self.look()?;
        self.planner.link_up(self.head);
        self.write()?;
        self.status_sent = None;
        self.state(RouteState::Up, None);
        tracing::info!(route = %self.settings.name, backlog = self.status.backlog, "link up");
        Ok(())
    }

    /// Fills the link's window with what is owed.
    fn fill(&mut self, link: &mut L) -> Result<(), StoreError> {
        while link.room() > 0 {
            let Some((lane, seq)) = self.planner.next(self.head) else { break };
            let Some(record) = self.fetch(lane, seq)? else {
                // Evicted by retention, which has put a gap record in its place.
                self.settle(lane, seq, "evicted");
                continue;
            };
            let decision = self.decide(&record, lane)?;
            if !matches!(decision, Decision::Hold(_)) {
                self.held.passed(lane, &record);
            }
            match decision {
                Decision::Settle(settled) => self.settle(lane, seq, settled.name()),
                Decision::Hold(reason) => self.hold(lane, seq, &record, reason),
                Decision::Backlog => self.planner.to_backlog(seq),
                Decision::Cut(edges) => {
                    sides::make(&mut self.store, &self.anchors, self.boot, &self.settings, &record, &edges)?;
                    self.settle(lane, seq, Settled::Cut.name());
                    self.look()?;
                }
                Decision::Choose(binding) => match self.choose(seq, &record, &binding)? {
                    None => self.settle(lane, seq, Settled::NotChosen.name()),
                    Some(choice) => {
                        if !self.send(link, lane, seq, record, Some(binding), None, Some(choice))? {
                            break;
                        }
                    }
                },
                Decision::Send { binding, subject } => {
                    if !self.send(link, lane, seq, record, binding, subject, None)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// `false`: the link takes nothing any more.
    #[allow(clippy::too_many_arguments)]
    fn send(
        &mut self,
        link: &mut L,
        lane: Lane,
        seq: Seq,
        record: Record,
        binding: Option<Binding>,
        subject: Option<SubjectKey>,
        choice: Option<Choice>,
    ) -> Result<bool, StoreError> {
        let placement = self.place(seq, &record, binding.as_ref())?;
        let subject = binding.map(|binding| binding.subject).or(subject);
        let item = self.item(seq, &record, lane, placement, subject, choice);
        let rendered = render(&item, &self.settings.topic);
        let token = self.planner.sending(lane, seq);
        match link.publish(token, &rendered.topic, rendered.payload, false) {
            Ok(()) => {
                self.flying.insert(token, (seq, record));
            }
            // The connection ended between asking for room and using it.
            Err(NotTaken::Full) => {
                self.planner.not_sent(token);
                return Ok(false);
            }
            Err(error @ NotTaken::TooLarge { .. }) => {
                self.planner.refused(token);
                self.bury(seq, record, "too_large", error.to_string());
            }
        }
        Ok(true)
    }

    fn item(
        &self,
        seq: Seq,
        record: &Record,
        lane: Lane,
        placement: Placement,
        subject: Option<SubjectKey>,
        choice: Option<Choice>,
    ) -> Item {
        let device = self.settings.devices.get(&record.device);
        Item {
            seq,
            lane,
            op: Op::Put,
            placement,
            chart: self.store.site_key().chart_id(record.id, placement),
            subject,
            gateway: self.settings.gateway.clone(),
            device: device.map(|device| device.label.clone()),
            measured: self.anchors.measured(&record.stamp, self.zone(record.device)),
            received: self.anchors.wall(record.stamp.boot, record.stamp.arrived),
            sent: self.now(),
            choice,
            record: record.clone(),
        }
    }

    /// The placement of a record; for a patient, the change of subject is on the card before the first send under it.
    fn place(&mut self, seq: Seq, record: &Record, binding: Option<&Binding>) -> Result<Placement, StoreError> {
        let (Some(binding), Some(stream)) = (binding, record.stream) else {
            return Ok(self.store.site_key().placement(None, 0));
        };
        let placement = self.store.site_key().placement(Some(&binding.subject), 0);
        if self.bound.get(&stream).and_then(|bound| bound.subject.as_ref()) != Some(&binding.subject) {
            let bound = BoundRow {
                stream,
                first: seq,
                subject: Some(binding.subject.clone()),
                rule: binding.rule.name().to_owned(),
                evidence: binding.evidence.clone(),
                placement,
            };
            self.bound.insert(stream, bound.clone());
            self.change.bind.push(bound);
            self.write()?;
        }
        Ok(placement)
    }

    /// What a broker's answer means. A text is returned when the connection is of no more use.
    fn answered(&mut self, token: Token, reason: AckReason) -> Option<String> {
        if token == STATUS_TOKEN {
            return None;
        }
        match reason {
            AckReason::Success | AckReason::NoMatchingSubscribers => {
                let what = if reason == AckReason::Success { "sent" } else { "sent_to_nobody" };
                if self.planner.acknowledged(token).is_some() {
                    self.tally(what);
                }
                self.refusal = None;
                self.flying.remove(&token);
                self.due();
                None
            }
            AckReason::Refused(code @ (RefusalCode::PAYLOAD_FORMAT_INVALID | RefusalCode::TOPIC_NAME_INVALID)) => {
                if let (Some(_), Some((seq, record))) = (self.planner.refused(token), self.flying.remove(&token)) {
                    self.bury(seq, record, "refused", code.to_string());
                }
                None
            }
            // The record stays owed: it is the route that is refused, and a person has to change something.
            AckReason::Refused(code) => {
                self.refusal = Some(format!(
                    "the broker refuses to take messages of this route ({code}); check the broker's access rules for topic `{}`",
                    self.settings.topic_text
                ));
                self.refusal.clone()
            }
        }
    }

    fn bury(&mut self, seq: Seq, record: Record, reason: &str, detail: String) {
        tracing::warn!(route = %self.settings.name, %seq, reason, %detail, "dead letter");
        self.change.dead.push(DeadRow { seq, record, reason: reason.to_owned(), detail });
        self.status.dead += 1;
        self.due();
    }

    fn decide(&self, record: &Record, lane: Lane) -> Result<Decision, StoreError> {
        let ward = self.inputs.ward.borrow();
        let newest = match record.body {
            Body::Window(_) => {
                let sides = self.settings.rules.bind == Bind::Patient;
                self.store.newest_versions([record.id].into_iter(), sides)?.get(&record.id).copied().unwrap_or(0)
            }
            _ => 0,
        };
        let device = self.settings.devices.get(&record.device);
        let known = Known {
            ward: &ward,
            anchors: &self.anchors,
            zone: self.zone(record.device),
            history: device.map_or(History::New, |device| device.history),
            newest,
        };
        Ok(decide(record, lane, &self.settings.rules, &known))
    }

    /// Compares the streams of one patient: `None` when another one speaks, or none covers enough.
    fn choose(&self, seq: Seq, record: &Record, binding: &Binding) -> Result<Option<Choice>, StoreError> {
        let ward = self.inputs.ward.borrow();
        let (prefer, agree_within) = record
            .stream
            .and_then(|stream| self.settings.preferences.get(&stream.metric))
            .map_or((&[][..], None), |(prefer, agree)| (prefer.as_slice(), *agree));
        let preference = Preference { prefer, agree_within, min_coverage_permille: self.settings.min_coverage_permille };
        let labels = |device: DeviceId| self.settings.devices.get(&device).map(|device| &device.label);
        sides::choose(&self.store, &ward, seq, self.head, record, binding, &preference, labels)
    }

    fn hold(&mut self, lane: Lane, seq: Seq, record: &Record, reason: HoldReason) {
        self.held.hold(lane, seq, record, reason);
        self.planner.settled(lane, seq);
        self.due();
    }

    fn settle(&mut self, lane: Lane, seq: Seq, what: &str) {
        self.planner.settled(lane, seq);
        self.tally(what);
        self.due();
    }

    /// Looks at every held record again; what may go now goes to the backlog lane.
    fn recheck_held(&mut self) -> Result<(), StoreError> {
        for run in self.held.due_for_recheck() {
            if self.planner.lanes().backlog.len() >= Recheck::MAX_BACKLOG_RUNS {
                self.held.postpone();
                break;
            }
            let mut recheck = Recheck::default();
            let mut from = run.first;
            while from <= run.last {
                let records = self.store.read(from, run.last, READ_LIMIT)?;
                let Some((last, _)) = records.last() else { break };
                from = last.next();
                for (seq, record) in records.iter().filter(|(_, r)| r.device == run.device && r.stream == run.stream) {
                    match self.decide(record, Lane::Backlog)? {
                        Decision::Hold(reason) => recheck.still_held(*seq, reason),
                        _ => recheck.released(*seq),
                    }
                }
            }
            // Whatever the backlog lane makes of it then: sent, settled as history, or cut.
            recheck.release().for_each(|seq| self.planner.owe(seq, seq));
            self.held.replace(&run, &recheck);
        }
        self.due();
        Ok(())
    }

    /// Reads ahead in a lane; `None` for a record that is no longer in the log.
    fn fetch(&mut self, lane: Lane, seq: Seq) -> Result<Option<Record>, StoreError> {
        let ahead = &mut self.ahead[usize::from(lane == Lane::Backlog)];
        while ahead.front().is_some_and(|(front, _)| *front < seq) {
            ahead.pop_front();
        }
        if ahead.front().is_none_or(|(front, _)| *front != seq) {
            let end = self.planner.run_end(lane, seq).min(self.head);
            *ahead = self.store.read(seq, end, READ_AHEAD)?.into();
        }
        let found = ahead.front().is_some_and(|(front, _)| *front == seq);
        Ok(found.then(|| ahead.pop_front()).flatten().map(|(_, record)| record))
    }

    fn command(&mut self, command: RouteCommand) -> Result<(), StoreError> {
        match command {
            RouteCommand::Pause { reason, done } => {
                self.row.paused = Some(reason);
                let _ = done.send(());
            }
            RouteCommand::Resume { done } => {
                self.row.paused = None;
                let _ = done.send(());
            }
            RouteCommand::Replay { from, to, done } => {
                let count = self.replay(from, to)?;
                self.write()?;
                let _ = done.send(count);
            }
            RouteCommand::Sent { records, done } => {
                let _ = done.send(records.iter().filter(|(seq, record)| self.was_sent(*seq, record)).count() as u64);
            }
        }
        Ok(())
    }

    /// Sent, or on its way and not known to have failed.
    fn was_sent(&self, seq: Seq, record: &Record) -> bool {
        let lanes = self.planner.lanes();
        let owed = lanes.live.contains(seq) || lanes.backlog.contains(seq);
        let ever = record.stream.is_some_and(|stream| self.bound.contains_key(&stream));
        self.planner.is_in_flight(seq)
            || (ever && carries(record, &self.settings.rules) && !owed && !self.held.covers(seq, record))
    }

    /// Owes again what arrived in a span of time; what is held stays held.
    fn replay(&mut self, from: Timestamp, to: Timestamp) -> Result<u64, StoreError> {
        let (mut next, mut count) = (Seq(1), 0);
        loop {
            let records = self.store.read(next, self.head, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { return Ok(count) };
            next = last.next();
            for (seq, record) in &records {
                let arrived = self.anchors.wall(record.stamp.boot, record.stamp.arrived).map(|wall| wall.at);
                if arrived.is_some_and(|at| from <= at && at < to) && !self.held.covers(*seq, record) {
                    self.planner.owe(*seq, *seq);
                    count += 1;
                }
            }
        }
    }

    /// Sees what others have written.
    fn look(&mut self) -> Result<(), StoreError> {
        self.head = self.store.head()?;
        let version = self.store.data_version()?;
        if version != self.data_version {
            self.data_version = version;
            let anchors = self.store.anchors()?;
            let clock_came = anchors.iter().count() != self.anchors.iter().count();
            self.anchors = anchors;
            if clock_came {
                self.recheck_held()?;
            }
        }
        if self.held.is_postponed() && self.planner.lanes().backlog.is_empty() {
            self.recheck_held()?;
        }
        self.report();
        Ok(())
    }

    /// Puts everything found out since the last time on the card, in one commit.
    fn write(&mut self) -> Result<(), StoreError> {
        self.write_due = None;
        (self.change.release, self.change.hold) = self.held.take_changes();
        let nothing = self.change.release.is_empty()
            && self.change.hold.is_empty()
            && self.change.bind.is_empty()
            && self.change.dead.is_empty()
            && self.change.tally.is_empty();
        if self.planner.is_dirty() || !nothing {
            self.change.lanes = self.planner.lanes().clone();
            self.store.apply(self.row.n, &self.change)?;
            for (what, n) in &self.change.tally {
                *self.status.tally.entry(what.clone()).or_default() += n;
            }
            self.change = RouteChange::default();
            self.planner.written();
        }
        self.report();
        Ok(())
    }

    fn publish_status(&mut self, link: &mut L) {
        let fresh = self.inputs.gateway_status.has_changed().unwrap_or(false) || self.status_sent.is_none();
        if !fresh || self.status_sent.is_some_and(|at| at.elapsed() < STATUS_EVERY) || link.room() == 0 {
            return;
        }
        let Some((topic, payload)) = self.inputs.gateway_status.borrow_and_update().clone() else { return };
        if link.publish(STATUS_TOKEN, &topic, payload, true).is_ok() {
            self.status_sent = Some(Moment::now());
        }
    }

    fn state(&mut self, state: RouteState, detail: Option<String>) {
        (self.status.state, self.status.detail) = (state, detail);
        self.report();
    }

    fn report(&mut self) {
        let lanes = self.planner.lanes();
        self.status.live = lanes.live.count_to(self.head);
        self.status.backlog = lanes.backlog.count_to(self.head);
        self.status.in_flight = self.planner.in_flight() as u64;
        self.status.held = self.held.counts();
        self.inputs.publish.send_if_modified(|published| {
            let changed = *published != self.status;
            published.clone_from(&self.status);
            changed
        });
    }

    fn tally(&mut self, what: &str) {
        *self.change.tally.entry(what.to_owned()).or_default() += 1;
    }

    /// Something is to be written within the interval.
    fn due(&mut self) {
        self.write_due.get_or_insert(Moment::now() + self.settings.ack_interval);
    }

    fn zone(&self, device: DeviceId) -> &TimeZone {
        self.settings.devices.get(&device).map_or(&self.settings.default_zone, |device| &device.zone)
    }

    fn now(&self) -> Option<Timestamp> {
        self.anchors.wall(self.boot.id(), self.boot.now()).map(|wall| wall.at)
    }
}

async fn until(due: Option<Moment>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
