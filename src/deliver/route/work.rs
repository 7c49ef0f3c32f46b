//! What happens to one record on its way out: fetched, decided, bound, sent.

use super::Route;
use crate::clean::Preference;
use crate::config::{Bind, History, Order};
use crate::deliver::decide::{decide, unless_forgotten};
use crate::deliver::receipts::Receipts;
use crate::deliver::{Choice, Decision, Destination, Item, Known, Lane, NotSent, Sent, Settled, Source, Verdict, sides};
use crate::reading::{Body, ChartId, DeviceId, Op, Placement, Record, Seq, SubjectKey};
use crate::store::{OPEN, StoreError};
use crate::ward::{Binding, HoldReason};

/// One write for so many records to a chart; after a crash so many that never went may be taken for such that did.
const AHEAD: u64 = 64;

/// Records fetched ahead in each lane: a few windows' worth.
const READ_AHEAD: usize = 256;

/// A record on its way to the destination, and for whom.
struct Outgoing {
    lane: Lane,
    seq: Seq,
    record: Record,
    binding: Option<Binding>,
    subject: Option<SubjectKey>,
    choice: Option<Choice>,
    /// It is held, and sent to hear whether its source is taken again.
    probe: bool,
}

impl<D: Destination> Route<D> {
    /// Fills the destination's window with what is owed.
    pub(super) fn fill(&mut self) -> Result<(), StoreError> {
        if self.row.paused.is_some() {
            return Ok(());
        }
        if !self.follow_ward()? {
            return Ok(());
        }
        self.overdue();
        self.begin_turn();
        let Some(limit) = self.schedule.limit(self.head) else { return Ok(()) };
        self.probe()?;
        while let Some((lane, seq)) = self.next(limit) {
            if !self.is_open(lane) {
                break;
            }
            let Some(record) = self.fetch(lane, seq)? else {
                self.settle_evicted(seq)?;
                continue;
            };
            if !self.consider(lane, seq, record)? {
                break;
            }
        }
        let sent = self.destination.flush();
        self.spent(sent);
        if self.planner.in_flight() == 0 && self.planner.next(limit).is_none() {
            self.schedule.over();
        }
        Ok(())
    }

    /// While the log is looked through nothing goes of what is looked at: what is live does.
    fn next(&self, limit: Seq) -> Option<(Lane, Seq)> {
        match &self.look {
            Some(look) => self.planner.next_live(limit, look.until()),
            None => self.planner.next(limit),
        }
    }

    fn begin_turn(&mut self) {
        let wall = self.now();
        if self.schedule.begin(self.clock(), wall, self.head) {
            self.planner.turn(self.head);
            self.due();
        }
        self.budget.iter_mut().for_each(|budget| budget.roll(wall));
    }

    /// Whether a record of this lane may go now.
    fn is_open(&mut self, lane: Lane) -> bool {
        let now = self.clock();
        self.destination.room_for(lane) > 0
            && self.stand.room(now, self.planner.in_flight()) > 0
            && self.rate.is_open(now)
            && self.budget.as_ref().is_none_or(|budget| budget.allows(self.budget_lane(lane)))
            && self.receipts.as_ref().is_none_or(Receipts::has_room)
    }

    /// In strict order nothing is kept free for anything.
    fn budget_lane(&self, lane: Lane) -> Lane {
        if self.settings.order == Order::Strict { Lane::Live } else { lane }
    }

    /// What waits too long for its receipt goes again.
    fn overdue(&mut self) {
        let now = self.clock();
        for seq in self.receipts.iter_mut().flat_map(|receipts| receipts.overdue(now)).collect::<Vec<_>>() {
            self.planner.unconfirmed(seq);
            self.tally("unconfirmed");
            self.due();
        }
    }

    /// `false`: nothing more goes for now.
    fn consider(&mut self, lane: Lane, seq: Seq, record: Record) -> Result<bool, StoreError> {
        self.receipts.iter_mut().for_each(|receipts| receipts.forget(seq));
        let decision = match (self.decide(&record, lane)?, self.stand.is_parked(&source(&record))) {
            (Decision::Send { .. } | Decision::Choose(_), Some(reason)) => Decision::Hold(reason),
            (decision, _) => decision,
        };
        let decision = match self.settle_doubt(seq, &record, &decision)? {
            Some(reason) => Decision::Hold(reason),
            None => decision,
        };
        if !matches!(decision, Decision::Hold(_)) {
            self.held.passed(lane, &record);
        }
        let (binding, subject, choice) = match decision {
            Decision::Send { binding, subject } => (binding, subject, None),
            Decision::Choose(binding) => match self.choose(seq, &record, &binding)? {
                Some(choice) => (Some(binding), None, Some(choice)),
                None => {
                    self.settle(lane, seq, Settled::NotChosen.name());
                    return Ok(true);
                }
            },
            Decision::Settle(settled) => {
                self.settle(lane, seq, settled.name());
                return Ok(true);
            }
            Decision::Hold(reason) => {
                self.hold(lane, seq, record, reason)?;
                return Ok(true);
            }
            Decision::Backlog => {
                self.planner.to_backlog(seq);
                return Ok(true);
            }
            Decision::Cut(edges) => {
                // A later side goes with the first one, which is made anew once.
                if matches!(&record.body, Body::Window(window) if window.from == window.start) {
                    sides::make(&mut self.store, &self.anchors, self.boot, &self.settings, &record, &edges)?;
                }
                self.settle(lane, seq, Settled::Cut.name());
                self.look_at_log()?;
                return Ok(true);
            }
        };
        self.send(Outgoing { lane, seq, record, binding, subject, choice, probe: false })
    }

    /// Sends one held record of each parked source that it is time for.
    fn probe(&mut self) -> Result<(), StoreError> {
        while self.is_open(Lane::Backlog)
            && let Some(parked) = self.stand.probe_due(self.clock())
        {
            let first = self.stand.is_parked(&parked).and_then(|reason| self.held.first_of(&parked, reason));
            let record = match first {
                Some(seq) => self.store.read(seq, seq, 1)?.pop(),
                None => None,
            };
            let decided = match &record {
                Some((_, record)) => Some(self.decide(record, Lane::Backlog)?),
                None => None,
            };
            match (record, decided) {
                (Some((seq, record)), Some(Decision::Send { binding, subject })) => {
                    self.stand.probing(&parked);
                    let lane = Lane::Backlog;
                    if !self.send(Outgoing { lane, seq, record, binding, subject, choice: None, probe: true })? {
                        return Ok(());
                    }
                }
                // Nothing is held any more, or for another reason: the next record of the source is its own probe.
                _ => self.unpark(&parked)?,
            }
        }
        Ok(())
    }

    pub(super) fn unpark(&mut self, source: &Source) -> Result<(), StoreError> {
        if self.stand.unpark(source) {
            self.recheck_held()?;
        }
        Ok(())
    }

    /// Retention took it, and maybe more after it, and has put a gap record in the place.
    pub(super) fn settle_evicted(&mut self, seq: Seq) -> Result<(), StoreError> {
        let next = self.next_to_have(seq.next())?.unwrap_or(self.head.next());
        let count = self.planner.gone(seq, Seq(next.0 - 1));
        *self.change.tally.entry("evicted".to_owned()).or_default() += count;
        self.due();
        Ok(())
    }

    /// `false`: the destination takes nothing any more.
    fn send(&mut self, outgoing: Outgoing) -> Result<bool, StoreError> {
        let Outgoing { lane, seq, record, binding, subject, choice, probe } = outgoing;
        let placement = self.place(lane, seq, &record, binding.as_ref())?;
        let unwritten = self.placements.is_changed() || self.change.under_way.is_some();
        if unwritten || !self.change.bind.is_empty() || !self.change.append.is_empty() {
            // Who it is for could not be written yet: it goes when that is on the card.
            return Ok(false);
        }
        let subject = binding.map(|binding| binding.subject).or(subject);
        let item = self.item(seq, record, lane, placement, subject, choice);
        let token = if probe { self.planner.probing(seq) } else { self.planner.sending(lane, seq) };
        match self.destination.send(token, &item) {
            Ok(sent) => {
                self.outbox.record_sent();
                self.receipts.iter_mut().for_each(|receipts| receipts.sent(seq, item.delivery()));
                if self.settings.rules.bind == Bind::Patient {
                    self.attempted.insert(seq, seq);
                }
                self.flying.insert(token, (seq, item.record));
                self.stand.sent();
                self.spent(sent);
                Ok(true)
            }
            Err(NotSent::NoRoom) => {
                self.planner.not_sent(token);
                Ok(false)
            }
            Err(NotSent::TooLarge(why)) => {
                self.flying.insert(token, (seq, item.record));
                self.answered(token, Verdict::Dead { reason: "too_large", detail: why })?;
                Ok(true)
            }
        }
    }

    fn spent(&mut self, sent: Sent) {
        self.rate.spend(sent.messages, self.clock());
        self.budget.iter_mut().for_each(|budget| budget.spend(sent.octets));
    }

    pub(super) fn item(
        &self,
        seq: Seq,
        record: Record,
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
            chart: match &record.body {
                Body::Retraction(retraction) => ChartId::of(retraction.of, retraction.placement),
                _ => ChartId::of(record.id, placement),
            },
            subject,
            gateway: self.settings.gateway.clone(),
            device: device.map(|device| device.label.clone()),
            measured: self.anchors.of(&record.stamp, record.stream, self.zone(record.device)),
            received: self.anchors.wall(record.stamp.boot, record.stamp.arrived),
            sent: self.now(),
            choice,
            record,
        }
    }

    /// The placement of a record; for a patient, the change of subject is on the card before the first send under it.
    fn place(&mut self, lane: Lane, seq: Seq, record: &Record, binding: Option<&Binding>) -> Result<Placement, StoreError> {
        let (Some(binding), Some(stream)) = (binding, record.stream) else {
            return Ok(self.nowhere);
        };
        self.note_under_way(lane, seq);
        if self.attempted.contains(seq)
            && let Some(row) = self.placements.of(&stream, seq).filter(|row| row.subject.is_some())
        {
            // The same person, maybe under a key that was merged since: the same delivery again.
            return Ok(row.placement);
        }
        // What follows is owed as well, so nothing of it was sent, up to what may have been.
        let doubted = self.attempted.next_from(seq.next()).map_or(OPEN, |doubted| Seq(doubted.0 - 1));
        let until = self.planner.run_end(lane, seq).min(doubted);
        let placement = self.placements.place(self.store.site_key(), &stream, seq, until, binding);
        if self.placements.is_changed() || self.change.under_way.is_some() {
            self.write()?;
        }
        Ok(placement)
    }

    /// Before a record goes to a chart it is on the card that it may stand there, for it and the next few at once.
    fn note_under_way(&mut self, lane: Lane, seq: Seq) {
        if self.under_way.contains(seq) {
            return;
        }
        self.under_way = self.attempted.clone();
        self.under_way.insert(seq, self.planner.run_end(lane, seq).min(Seq(seq.0 + AHEAD)));
        self.change.under_way = Some(self.under_way.clone());
    }

    /// What was noted ahead and not sent is owed like any other: nobody doubts it after an orderly end.
    pub(super) fn under_way_is_attempted(&mut self) {
        if self.under_way != self.attempted {
            self.under_way = self.attempted.clone();
            self.change.under_way = Some(self.under_way.clone());
        }
    }

    pub(super) fn decide(&mut self, record: &Record, lane: Lane) -> Result<Decision, StoreError> {
        if let Body::Retraction(retraction) = &record.body {
            // It speaks of what one route sent, behind all that may still be on its way there.
            return Ok(match lane {
                _ if retraction.route != self.settings.name => Decision::Settle(Settled::Filtered),
                Lane::Live if self.settings.order == Order::LiveFirst => Decision::Backlog,
                _ => Decision::Send { binding: None, subject: None },
            });
        }
        let newest = match record.body {
            Body::Window(_) => {
                let sides = self.settings.rules.bind == Bind::Patient;
                self.store.newest_versions([record.id].into_iter(), sides)?.get(&record.id).copied().unwrap_or(0)
            }
            _ => 0,
        };
        let decision = self.decide_knowing(record, lane, newest)?;
        Ok(unless_forgotten(decision, &self.ward))
    }

    /// As if no newer version were in the log. What was sent stays where it is, whoever is forgotten.
    pub(super) fn decide_as_newest(&mut self, record: &Record) -> Result<Decision, StoreError> {
        self.decide_knowing(record, Lane::Backlog, record.version)
    }

    fn decide_knowing(&mut self, record: &Record, lane: Lane, newest: u32) -> Result<Decision, StoreError> {
        let share = self.share(record)?;
        let device = self.settings.devices.get(&record.device);
        let known = Known {
            ward: &self.ward,
            anchors: &self.anchors,
            zone: self.zone(record.device),
            history: device.map_or(History::New, |device| device.history),
            nameplate: device.map(|device| &device.nameplate),
            newest,
            share,
        };
        Ok(decide(record, lane, &self.settings.rules, &known))
    }

    /// Compares the streams of one patient: `None` when another one speaks, or none covers enough.
    pub(super) fn choose(&self, seq: Seq, record: &Record, binding: &Binding) -> Result<Option<Choice>, StoreError> {
        let metric = record.stream.and_then(|stream| self.settings.preferences.get(&stream.metric));
        let preference = Preference {
            prefer: metric.map_or(&[][..], |metric| &metric.prefer),
            agree_within: metric.and_then(|metric| metric.agree_within),
            min_coverage_permille: self.settings.min_coverage_permille,
        };
        let labels = |device: DeviceId| self.settings.devices.get(&device).map(|device| &device.label);
        sides::choose(&self.store, &self.ward, seq, self.head, record, binding, &preference, labels)
    }

    fn hold(&mut self, lane: Lane, seq: Seq, record: Record, reason: HoldReason) -> Result<(), StoreError> {
        self.planner.settled(lane, seq);
        self.keep_held(lane, seq, record, reason)
    }

    /// What is no longer owed is held.
    pub(super) fn keep_held(&mut self, lane: Lane, seq: Seq, record: Record, reason: HoldReason) -> Result<(), StoreError> {
        if !self.retried.contains(&seq) {
            self.held.hold(lane, seq, &record, reason);
        } else if self.store.next_present(seq)? == Some(seq) {
            self.held.hold_alone(lane, seq, &record, reason);
            self.not_retried(seq);
        } else {
            // A hold is a run of the log, and this is no longer in it.
            self.bury(seq, record, "held", format!("it may not go now: {}", reason.name()));
        }
        self.due();
        Ok(())
    }

    fn settle(&mut self, lane: Lane, seq: Seq, what: &str) {
        self.planner.settled(lane, seq);
        self.not_retried(seq);
        self.tally(what);
        self.due();
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
        match found.then(|| ahead.pop_front()).flatten() {
            Some((_, record)) => Ok(Some(record)),
            None if self.retried.contains(&seq) => self.store.kept_record(self.row.n, seq),
            None => Ok(None),
        }
    }
}

pub(super) fn source(record: &Record) -> Source {
    (record.device, record.stream)
}
