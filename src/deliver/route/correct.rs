//! A change of the ward's history: what was sent for the wrong patient is found, taken back and sent again.

use super::Route;
use crate::config::{Bind, Retract};
use crate::deliver::decide::carries;
use crate::deliver::{Correction, Decision, Destination, HORIZON_MS, Lane, judge, stays};
use crate::reading::{Body, DeviceId, Instant, Record, Retraction, Seq, Stamp, SubjectKey, Timestamp};
use crate::store::{Draft, Identity, READ_LIMIT, StoreError};
use crate::ward::{HoldReason, Ward};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The ward's last event that this route has followed.
pub(super) const WARD: &str = "ward";

/// Readings are looked at this far around what changed: the widest guard of a feed, and the uncertainty of a device's clock.
const AROUND_MS: i64 = 45 * 60_000;

impl<D: Destination> Route<D> {
    /// The ward says something new: what was sent is looked at, then what is held.
    pub(super) fn ward_changed(&mut self) -> Result<(), StoreError> {
        self.correction_due = self.settings.rules.bind == Bind::Patient;
        // A paused route takes nothing back either: the ward may be what is wrong. When it is resumed it looks.
        if self.row.paused.is_none() {
            self.correct_if_due()?;
        }
        self.recheck_held()
    }

    /// What is under way has an answer first: until then it is not known where it stands. `false`: nothing goes meanwhile.
    pub(super) fn correct_if_due(&mut self) -> Result<bool, StoreError> {
        if !self.correction_due {
            return Ok(true);
        }
        if self.planner.in_flight() > 0 {
            return Ok(false);
        }
        let ward = self.inputs.ward.borrow().clone();
        let known = *self.followed.get_or_insert(ward.last_event());
        if known < ward.last_event() {
            self.correct(&ward, &ward.known_at(known))?;
        }
        self.followed = Some(ward.last_event());
        self.correction_due = false;
        self.due();
        Ok(true)
    }

    fn correct(&mut self, ward: &Arc<Ward>, before: &Ward) -> Result<(), StoreError> {
        // What waits for a receipt may stand at the wrong place: it is asked for again, and looked at then.
        for seq in self.receipts.iter_mut().flat_map(|receipts| receipts.forget_all()).collect::<Vec<_>>() {
            self.planner.unconfirmed(seq);
        }
        let mut spans: BTreeMap<DeviceId, (Timestamp, Timestamp)> = BTreeMap::new();
        for affected in Ward::changes(before, ward) {
            let span = spans.entry(affected.device).or_insert((affected.from, affected.to));
            *span = (span.0.min(affected.from), span.1.max(affected.to));
        }
        if spans.is_empty() {
            return Ok(());
        }
        let (mut count, mut oldest) = (0, Timestamp(i64::MAX));
        self.each_moved(&spans, |_, _, _, moved| {
            if let Some(at) = moved {
                (count, oldest) = (count + 1, oldest.min(at));
            }
            Ok(())
        })?;
        if count == 0 {
            return Ok(());
        }
        let now = self.now().unwrap_or(oldest);
        let verdict = judge(self.settings.retract, count, oldest, now);
        tracing::warn!(route = %self.settings.name, count, ?verdict, "records stand in a chart they do not belong to");
        self.each_moved(&spans, |route, seq, record, moved| match (moved, verdict) {
            (None, _) => {
                route.held.passed(Lane::Backlog, record);
                Ok(())
            }
            (Some(_), Correction::Now) => route.take_back(seq, record).map(|()| route.planner.owe(seq, seq)),
            (Some(_), Correction::Ask) => {
                route.held.hold(Lane::Backlog, seq, record, HoldReason::AwaitingDecision);
                Ok(())
            }
        })?;
        self.write()
    }

    /// Gives every record that may be affected, with its time where it stands in a chart it does not belong to.
    fn each_moved(
        &mut self,
        spans: &BTreeMap<DeviceId, (Timestamp, Timestamp)>,
        mut give: impl FnMut(&mut Self, Seq, &Record, Option<Timestamp>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let horizon = self.now().map_or(i64::MIN, |now| now.0 - HORIZON_MS);
        let first = spans.values().map(|(from, _)| from.0).min().unwrap_or(i64::MAX).saturating_sub(AROUND_MS).max(horizon);
        let before = |boot, arrived| self.anchors.wall(boot, arrived).is_some_and(|wall| wall.at.0 < first);
        let mut next = self.store.first_after(before)?;
        let head = self.head;
        loop {
            let records = self.store.read(next, head, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { return Ok(()) };
            let dead = self.dead_among(next, *last)?;
            next = last.next();
            for (seq, record) in &records {
                let Some((from, to)) = spans.get(&record.device) else { continue };
                let at = self.time_of(record).filter(|at| at.0 >= first);
                let near = |at: &Timestamp| from.0.saturating_sub(AROUND_MS) <= at.0 && at.0 <= to.0.saturating_add(AROUND_MS);
                let moved = at.filter(near).filter(|_| !dead.contains(seq));
                let moved = if moved.is_some() && self.stands_wrongly(*seq, record)? { moved } else { None };
                give(self, *seq, record, moved)?;
            }
        }
    }

    /// When a record was measured; of a window, when it ends, which is never earlier than what it is made of.
    fn time_of(&self, record: &Record) -> Option<Timestamp> {
        if let Body::Window(window) = &record.body {
            return Some(window.to);
        }
        match self.anchors.of(&record.stamp, record.stream, self.zone(record.device)) {
            Instant::Unknown => None,
            instant => instant.wall().map(|wall| wall.at),
        }
    }

    fn stands_wrongly(&self, seq: Seq, record: &Record) -> Result<bool, StoreError> {
        let lanes = self.planner.lanes();
        let waits = lanes.live.contains(seq) || lanes.backlog.contains(seq) || self.held.covers(seq, record);
        if waits || matches!(record.body, Body::Retraction(_)) || !carries(record, &self.settings.rules) {
            return Ok(false);
        }
        let Some(subject) = self.stands_with(seq, record) else { return Ok(false) };
        let decision = self.decide_as_newest(record)?;
        // What a device brought along was never sent, whatever row it lies in.
        let never_sent = matches!(decision, Decision::Settle(_)) && record.stamp.stored;
        Ok(!never_sent && !stays(&self.inputs.ward.borrow(), record, &subject, &decision))
    }

    /// The patient in whose chart the route has put it, as far as its rows say.
    pub(super) fn stands_with(&self, seq: Seq, record: &Record) -> Option<SubjectKey> {
        let stream = record.stream.as_ref()?;
        self.placements.of(stream, seq)?.subject.clone()
    }

    /// A record that went out and was never answered may stand in a chart. If it belongs elsewhere by now it is taken back
    /// there; a reason is given where that is for a person.
    pub(super) fn settle_doubt(
        &mut self,
        seq: Seq,
        record: &Record,
        decision: &Decision,
    ) -> Result<Option<HoldReason>, StoreError> {
        if !self.attempted.contains(&seq) {
            return Ok(None);
        }
        let Some(subject) = self.stands_with(seq, record) else { return Ok(None) };
        if stays(&self.inputs.ward.borrow(), record, &subject, decision) {
            return Ok(None);
        }
        if self.settings.retract != Retract::Auto {
            return Ok(Some(HoldReason::AwaitingDecision));
        }
        self.take_back(seq, record)?;
        self.write()?;
        Ok(None)
    }

    /// Notes that a record no longer stands where it was sent, and says so to the destination, behind all that is owed.
    pub(super) fn take_back(&mut self, seq: Seq, record: &Record) -> Result<(), StoreError> {
        let Some(stream) = record.stream else { return Ok(()) };
        let Some(placement) = self.placements.of(&stream, seq).filter(|row| row.subject.is_some()).map(|row| row.placement)
        else {
            return Ok(());
        };
        self.placements.take_back(&stream, seq);
        self.attempted.remove(&seq);
        if self.settings.retract != Retract::Never {
            let of = Retraction { of: record.id, version: record.version, placement, route: self.settings.name.clone() };
            let stamp =
                Stamp { boot: self.boot.id(), arrived: self.boot.now(), device_time: None, device_clock: None, stored: false };
            let body = Body::Retraction(of);
            let draft = Draft { identity: Identity::Arrival, device: record.device, stream: Some(stream), stamp, body };
            self.change.append.push(draft);
            self.tally("retracted");
        }
        if self.change.append.len() >= READ_LIMIT / 4 {
            // What is taken back and what is owed for it are on the card together.
            self.planner.owe(seq, seq);
            self.write()?;
        }
        Ok(())
    }

    /// A person's word about what waits for it: from this record on, what belongs to the same stream.
    pub(super) fn decide_for(&mut self, first: Seq, accept: bool) -> Result<Option<u64>, StoreError> {
        let entry = self.held.iter().find(|run| run.first == first && run.reason == HoldReason::AwaitingDecision).copied();
        let Some(run) = entry else { return Ok(None) };
        let source = (run.device, run.stream);
        let (mut next, mut count) = (run.first, 0);
        while next <= run.last {
            let records = self.store.read(next, run.last, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { break };
            next = last.next();
            for (seq, record) in records.iter().filter(|(_, record)| (record.device, record.stream) == source) {
                count += 1;
                if accept {
                    self.take_back(*seq, record)?;
                    self.planner.owe(*seq, *seq);
                }
            }
        }
        self.held.replace(&run, &crate::deliver::held::Recheck::default());
        self.write()?;
        Ok(Some(count))
    }

    /// After a start it is not known what was under way when the process ended: the first of each lane, a window full.
    pub(super) fn doubt_what_was_under_way(&mut self) {
        let lanes = self.planner.lanes();
        let first = |runs: &crate::store::Runs| -> BTreeSet<Seq> {
            let each = runs.iter().flat_map(|(first, last)| (first.0..=last.0.min(self.head.0)).map(Seq));
            each.take(self.settings.window).collect()
        };
        let doubted = [first(&lanes.live), first(&lanes.backlog)];
        self.attempted.extend(doubted.into_iter().flatten());
    }
}
