//! A record after a change of the ward's history: whether it stands in the wrong chart, and how it is taken back.

use super::Route;
use crate::config::Retract;
use crate::deliver::decide::carries;
use crate::deliver::held::Recheck;
use crate::deliver::{Decision, Destination, Lane, stays};
use crate::reading::{Body, Instant, Record, Retraction, Seq, Stamp, SubjectKey, Timestamp};
use crate::store::{Draft, Identity, READ_LIMIT, StoreError};
use crate::ward::HoldReason;

impl<D: Destination> Route<D> {
    /// A window that went out as a whole, or as a side, and is cut elsewhere by now: its sides go instead, the first of them
    /// as the next version of what stands.
    pub(super) fn cut_anew(&mut self, seq: Seq, record: &Record) -> Result<(), StoreError> {
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

    /// When a record was measured; of a window, when it ends, which is never earlier than what it is made of.
    pub(super) fn time_of(&self, record: &Record) -> Option<Timestamp> {
        if let Body::Window(window) = &record.body {
            return Some(window.to);
        }
        match self.anchors.of(&record.stamp, record.stream, self.zone(record.device)) {
            Instant::Unknown => None,
            instant => instant.wall().map(|wall| wall.at),
        }
    }

    /// A value of a stream that a scan did not take: under another one it may be the value that counts.
    pub(super) fn was_passed_over(&self, seq: Seq, record: &Record) -> bool {
        let spot = self.settings.rules.spots.get(&record.device);
        let steadied = spot.is_some_and(|spot| spot.is_steadied(record));
        steadied && !self.waits(seq, record) && self.stands_with(seq, record).is_none()
    }

    fn waits(&self, seq: Seq, record: &Record) -> bool {
        let lanes = self.planner.lanes();
        lanes.live.contains(seq) || lanes.backlog.contains(seq) || self.held.covers(seq, record)
    }

    pub(super) fn stands_wrongly(&mut self, seq: Seq, record: &Record) -> Result<bool, StoreError> {
        if self.waits(seq, record) || matches!(record.body, Body::Retraction(_)) || !carries(record, &self.settings.rules) {
            return Ok(false);
        }
        let Some(subject) = self.stands_with(seq, record) else { return Ok(false) };
        let decision = self.decide_as_newest(record)?;
        // What a device brought along was never sent, whatever row it lies in.
        let never_sent = matches!(decision, Decision::Settle(_)) && record.stamp.stored;
        Ok(!never_sent && !stays(&self.ward, record, &subject, &decision))
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
        if unknown || stays(&self.ward, record, &subject, decision) {
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
