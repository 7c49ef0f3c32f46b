//! A change of the ward's history: what was sent for the wrong patient is found, taken back and sent again.

use super::Route;
use crate::config::{Bind, Retract};
use crate::deliver::decide::carries;
use crate::deliver::held::Recheck;
use crate::deliver::{Correction, Decision, Destination, HORIZON_MS, Lane, judge, stays};
use crate::reading::{Body, DeviceId, Instant, Record, Retraction, Seq, Stamp, SubjectKey, Timestamp};
use crate::store::{Draft, Identity, READ_LIMIT, StoreError};
use crate::ward::{HoldReason, Ward};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The ward's last event that this route has followed.
pub(super) const WARD: &str = "ward";

/// Readings are looked at this far around what changed, beyond the widest guard: the uncertainty of a device's clock.
const CLOCKS_MS: i64 = 15 * 60_000;

impl<D: Destination> Route<D> {
    /// The ward says something new: what was sent is looked at, then what is held.
    pub(super) fn ward_changed(&mut self) -> Result<(), StoreError> {
        self.correction_due = self.settings.rules.bind == Bind::Patient;
        self.shares.clear();
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
        // As long as they are few each is kept here; more, or older ones, or any on a route that asks, wait for a person.
        let (mut wrong, mut oldest, now) = (Vec::new(), Timestamp(i64::MAX), self.now());
        let verdict = |count, oldest, retract| judge(retract, count, oldest, now.unwrap_or(oldest));
        let retract = self.settings.retract;
        if verdict(0, oldest, retract) == Correction::Now {
            self.each_moved(&spans, |route, seq, record, moved| {
                let Some(at) = moved else { return route.cut_anew(seq, record).map(|()| true) };
                wrong.push((seq, record.clone()));
                oldest = oldest.min(at);
                Ok(verdict(wrong.len(), oldest, retract) == Correction::Now)
            })?;
        }
        if verdict(wrong.len(), oldest, retract) == Correction::Now {
            for (seq, record) in &wrong {
                self.take_back(*seq, record)?;
                self.planner.owe(*seq, *seq);
            }
            self.said_of_wrong_charts(wrong.len(), "they are taken back");
            return self.write();
        }
        let mut count = 0;
        self.each_moved(&spans, |route, seq, record, moved| {
            if moved.is_some() {
                count += 1;
                route.held.hold(Lane::Backlog, seq, record, HoldReason::AwaitingDecision);
            } else {
                route.held.passed(Lane::Backlog, record);
                route.cut_anew(seq, record)?;
            }
            Ok(true)
        })?;
        self.said_of_wrong_charts(count, "they wait for a decision");
        self.write()
    }

    fn said_of_wrong_charts(&self, count: usize, what: &str) {
        if count > 0 {
            tracing::warn!(route = %self.settings.name, count, "records stand in a chart they do not belong to: {what}");
        }
    }

    /// A window that went out as a whole, or as a side, and is cut elsewhere by now: its sides go instead, the first of them
    /// as the next version of what stands.
    fn cut_anew(&mut self, seq: Seq, record: &Record) -> Result<(), StoreError> {
        let Body::Window(window) = &record.body else { return Ok(()) };
        let lanes = self.planner.lanes();
        let waits = lanes.live.contains(seq) || lanes.backlog.contains(seq) || self.held.covers(seq, record);
        if waits || window.from != window.start || !carries(record, &self.settings.rules) {
            return Ok(());
        }
        if self.stands_with(seq, record).is_some() && matches!(self.decide(record, Lane::Backlog)?, Decision::Cut(_)) {
            self.planner.owe(seq, seq);
        }
        Ok(())
    }

    /// Gives every record that may be affected, with its time where it stands in a chart it does not belong to, until `give`
    /// says no.
    fn each_moved(
        &mut self,
        spans: &BTreeMap<DeviceId, (Timestamp, Timestamp)>,
        mut give: impl FnMut(&mut Self, Seq, &Record, Option<Timestamp>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let horizon = self.now().map_or(i64::MIN, |now| now.0 - HORIZON_MS);
        let around = self.inputs.ward.borrow().guards().widest_ms() + CLOCKS_MS;
        let first = spans.values().map(|(from, _)| from.0).min().unwrap_or(i64::MAX).saturating_sub(around).max(horizon);
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
                let near = |at: &Timestamp| from.0.saturating_sub(around) <= at.0 && at.0 <= to.0.saturating_add(around);
                let moved = at.filter(near).filter(|_| !dead.contains(seq));
                if moved.is_some() && self.was_passed_over(*seq, record) {
                    self.planner.owe(*seq, *seq);
                }
                let moved = if moved.is_some() && self.stands_wrongly(*seq, record)? { moved } else { None };
                if !give(self, *seq, record, moved)? {
                    return Ok(());
                }
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

    /// A value of a stream that a scan did not take: under another one it may be the value that counts.
    fn was_passed_over(&self, seq: Seq, record: &Record) -> bool {
        let spot = self.settings.rules.spots.get(&record.device);
        let steadied = spot.is_some_and(|spot| spot.is_steadied(record));
        steadied && !self.waits(seq, record) && self.stands_with(seq, record).is_none()
    }

    fn waits(&self, seq: Seq, record: &Record) -> bool {
        let lanes = self.planner.lanes();
        lanes.live.contains(seq) || lanes.backlog.contains(seq) || self.held.covers(seq, record)
    }

    fn stands_wrongly(&mut self, seq: Seq, record: &Record) -> Result<bool, StoreError> {
        if self.waits(seq, record) || matches!(record.body, Body::Retraction(_)) || !carries(record, &self.settings.rules) {
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
        // A retraction says nothing wrong however often it comes.
        if !self.attempted.contains(seq) || matches!(record.body, Body::Retraction(_)) {
            return Ok(None);
        }
        let Some(subject) = self.stands_with(seq, record) else { return Ok(None) };
        // Of whom is forgotten it is not known any more, and it is held.
        let unknown = *decision == Decision::Hold(HoldReason::PatientUnknown);
        if unknown || stays(&self.inputs.ward.borrow(), record, &subject, decision) {
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
        self.attempted.remove(seq, seq);
        if self.settings.retract != Retract::Never {
            let of = Retraction { of: record.id, version: record.version, placement, route: self.settings.name.clone() };
            let stamp =
                Stamp { boot: self.boot.id(), arrived: self.boot.now(), device_time: None, device_clock: None, stored: false };
            let body = Body::Retraction(of);
            let (identity, device) = (Identity::Arrival, record.device);
            let draft = Draft { identity, device, stream: Some(stream), stamp, body, nameplate: None };
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

    /// A person's word about what waits for it from `first` to `last`, of one stream. What has come to wait since waits on.
    pub(super) fn decide_for(&mut self, first: Seq, last: Seq, accept: bool) -> Result<Option<u64>, StoreError> {
        let entry = self.held.iter().find(|run| run.first == first && run.reason == HoldReason::AwaitingDecision).copied();
        let Some(run) = entry else { return Ok(None) };
        let (mut next, mut count, mut later) = (run.first, 0, Recheck::default());
        while next <= run.last {
            let records = self.store.read(next, run.last, READ_LIMIT)?;
            let Some((end, _)) = records.last() else { break };
            next = end.next();
            for (seq, record) in records {
                let of_run = (record.device, record.stream) == (run.device, run.stream);
                if !of_run || matches!(record.body, Body::Retraction(_)) {
                    continue;
                }
                if seq > last {
                    later.still_held(seq, HoldReason::AwaitingDecision);
                    continue;
                }
                count += 1;
                if accept {
                    self.take_back(seq, &record)?;
                    self.planner.owe(seq, seq);
                }
            }
        }
        self.held.replace(&run, &later);
        self.write()?;
        Ok(Some(count))
    }
}
