//! What happens to one record: fetched, decided, bound, sent, answered.

use super::Route;
use crate::clean::Preference;
use crate::config::{Bind, History};
use crate::deliver::decide::decide;
use crate::deliver::{Choice, Decision, Destination, Item, Known, Lane, NotSent, Settled, Token, Verdict, sides};
use crate::reading::{Body, DeviceId, Op, Placement, Record, Seq, SubjectKey};
use crate::store::{BoundRow, DeadRow, StoreError};
use crate::ward::{Binding, HoldReason};

/// Records fetched ahead in each lane: a few windows' worth.
const READ_AHEAD: usize = 256;

impl<D: Destination> Route<D> {
    /// Fills the destination's window with what is owed.
    pub(super) fn fill(&mut self) -> Result<(), StoreError> {
        while self.destination.room() > 0 {
            let Some((lane, seq)) = self.planner.next(self.head) else { break };
            let Some(record) = self.fetch(lane, seq)? else {
                self.settle_evicted(seq)?;
                continue;
            };
            let decision = self.decide(&record, lane)?;
            if !matches!(decision, Decision::Hold(_)) {
                self.held.passed(lane, &record);
            }
            match decision {
                Decision::Settle(settled) => self.settle(lane, seq, settled.name()),
                Decision::Hold(reason) => self.hold(lane, seq, record, reason)?,
                Decision::Backlog => self.planner.to_backlog(seq),
                Decision::Cut(edges) => {
                    sides::make(&mut self.store, &self.anchors, self.boot, &self.settings, &record, &edges)?;
                    self.settle(lane, seq, Settled::Cut.name());
                    self.look()?;
                }
                Decision::Choose(binding) => match self.choose(seq, &record, &binding)? {
                    None => self.settle(lane, seq, Settled::NotChosen.name()),
                    Some(choice) => {
                        if !self.send(lane, seq, record, Some(binding), None, Some(choice))? {
                            break;
                        }
                    }
                },
                Decision::Send { binding, subject } => {
                    if !self.send(lane, seq, record, binding, subject, None)? {
                        break;
                    }
                }
            }
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
    #[allow(clippy::too_many_arguments)]
    fn send(
        &mut self,
        lane: Lane,
        seq: Seq,
        record: Record,
        binding: Option<Binding>,
        subject: Option<SubjectKey>,
        choice: Option<Choice>,
    ) -> Result<bool, StoreError> {
        let placement = self.place(seq, &record, binding.as_ref())?;
        if !self.change.bind.is_empty() {
            // Who it is for could not be written yet: it goes when that is on the card.
            return Ok(false);
        }
        let subject = binding.map(|binding| binding.subject).or(subject);
        let item = self.item(seq, record, lane, placement, subject, choice);
        let token = self.planner.sending(lane, seq);
        match self.destination.send(token, &item) {
            Ok(()) => {
                self.outbox.record_sent();
                self.flying.insert(token, (seq, item.record));
                Ok(true)
            }
            Err(NotSent::NoRoom) => {
                self.planner.not_sent(token);
                Ok(false)
            }
            Err(NotSent::TooLarge(why)) => {
                self.planner.refused(token);
                self.bury(seq, item.record, "too_large", why);
                Ok(true)
            }
        }
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
            chart: self.store.site_key().chart_id(record.id, placement),
            subject,
            gateway: self.settings.gateway.clone(),
            device: device.map(|device| device.label.clone()),
            measured: self.anchors.measured(&record.stamp, self.zone(record.device)),
            received: self.anchors.wall(record.stamp.boot, record.stamp.arrived),
            sent: self.now(),
            choice,
            record,
        }
    }

    /// The placement of a record; for a patient, the change of subject is on the card before the first send under it.
    fn place(&mut self, seq: Seq, record: &Record, binding: Option<&Binding>) -> Result<Placement, StoreError> {
        let (Some(binding), Some(stream)) = (binding, record.stream) else {
            return Ok(self.nowhere);
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

    /// What an answer means for the record. A text is returned when the connection is of no more use.
    pub(super) fn answered(&mut self, token: Token, verdict: Verdict) -> Option<String> {
        match verdict {
            Verdict::Settled => {
                if let Some(seq) = self.planner.acknowledged(token) {
                    self.tally("sent");
                    self.not_retried(seq);
                }
                self.refusal = None;
                self.flying.remove(&token);
                self.due();
                None
            }
            Verdict::Dead { reason, detail } => {
                if let (Some(_), Some((seq, record))) = (self.planner.refused(token), self.flying.remove(&token)) {
                    self.bury(seq, record, reason, detail);
                }
                None
            }
            Verdict::Owed(reason) => {
                self.refusal = Some(reason.clone());
                Some(reason)
            }
        }
    }

    fn bury(&mut self, seq: Seq, record: Record, reason: &str, detail: String) {
        tracing::warn!(route = %self.settings.name, %seq, reason, %detail, "dead letter");
        let since = Some((self.boot.id(), self.boot.now()));
        self.change.dead.push(DeadRow { seq, record, reason: reason.to_owned(), detail, since });
        // The row that lent the record is written over.
        self.retried.remove(&seq);
        self.status.dead += 1;
        self.due();
    }

    pub(super) fn decide(&self, record: &Record, lane: Lane) -> Result<Decision, StoreError> {
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
    pub(super) fn choose(&self, seq: Seq, record: &Record, binding: &Binding) -> Result<Option<Choice>, StoreError> {
        let ward = self.inputs.ward.borrow();
        let metric = record.stream.and_then(|stream| self.settings.preferences.get(&stream.metric));
        let preference = Preference {
            prefer: metric.map_or(&[][..], |metric| &metric.prefer),
            agree_within: metric.and_then(|metric| metric.agree_within),
            min_coverage_permille: self.settings.min_coverage_permille,
        };
        let labels = |device: DeviceId| self.settings.devices.get(&device).map(|device| &device.label);
        sides::choose(&self.store, &ward, seq, self.head, record, binding, &preference, labels)
    }

    fn hold(&mut self, lane: Lane, seq: Seq, record: Record, reason: HoldReason) -> Result<(), StoreError> {
        self.planner.settled(lane, seq);
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
