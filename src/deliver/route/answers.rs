//! What the destination, or the receiver behind it, said of a record: settled, not taken for now, refused for good.

use std::collections::BTreeMap;
use std::time::Duration;

use super::work::source;
use super::{Moment, Route};
use crate::deliver::stand::Refused;
use crate::deliver::{Destination, Fault, FaultClass, Lane, Source, Token, Verdict, Why};
use crate::reading::{DeliveryId, Record, Seq};
use crate::store::{DeadRow, StoreError};

/// What a destination could not place is offered again this long after: somebody has to be admitted there first.
const RECHECK_REFUSED: Duration = Duration::from_secs(60);

impl<D: Destination> Route<D> {
    /// What an answer means for the record. A text is returned when the connection is of no more use.
    pub(super) fn answered(&mut self, token: Token, verdict: Verdict) -> Result<Option<String>, StoreError> {
        let Some((seq, record)) = self.flying.remove(&token) else { return Ok(None) };
        let (from, now) = (source(&record), self.clock());
        match verdict {
            Verdict::Settled | Verdict::SettledUnheard => {
                let what = if verdict == Verdict::Settled { "sent" } else { "unheard" };
                let confirmed = self.taken(token, seq, what);
                self.refusal = None;
                self.went_well = true;
                for parked in self.stand.taken(&from, seq, now) {
                    tracing::warn!(route = %self.settings.name, reason = ?self.stand.is_parked(&parked), "a stream is held: its topic is not taken, others are");
                }
                self.probe_ended(from, seq, confirmed)?;
            }
            Verdict::Dead { reason, detail } => {
                if self.planner.refused(token).is_some() {
                    self.bury(seq, record, reason, detail);
                }
                self.stand.gone(seq);
                self.probe_ended(from, seq, true)?;
            }
            Verdict::Waits { why, detail } => self.not_taken(token, seq, record, why, detail)?,
            Verdict::NotCharted => {
                self.taken(token, seq, "not_charted");
                self.stand.gone(seq);
                self.probe_ended(from, seq, true)?;
            }
            Verdict::Held(reason) => {
                self.planner.refused(token);
                self.attempted.remove(seq, seq);
                self.stand.gone(seq);
                if self.held.covers(seq, &record) {
                    // The probe of a parked source: it is allowed again, and each of it finds its own answer.
                    self.unpark(&from)?;
                } else {
                    self.keep_held(Lane::Backlog, seq, record, reason)?;
                }
                self.recheck_due.get_or_insert(Moment::now() + RECHECK_REFUSED);
            }
            Verdict::Again => {
                self.receipts.iter_mut().for_each(|receipts| receipts.forget(seq));
                self.planner.again(token);
            }
            Verdict::Owed(reason) => {
                self.refusal = Some(reason.clone());
                return Ok(Some(reason));
            }
        }
        self.due();
        Ok(None)
    }

    fn not_taken(&mut self, token: Token, seq: Seq, record: Record, why: Why, detail: String) -> Result<(), StoreError> {
        self.receipts.iter_mut().for_each(|receipts| receipts.forget(seq));
        let (now, chance) = (self.clock(), (self.chance)());
        let stood = self.stand.standing().is_some();
        match self.stand.refused(&source(&record), seq, why, &detail, now, chance) {
            Refused::Dead => {
                self.planner.refused(token);
                self.bury(seq, record, "refused", detail);
                return Ok(());
            }
            Refused::Owed | Refused::Parked => self.planner.again(token),
        };
        if !stood && self.stand.standing().is_some() {
            self.status.last_fault = Some(why.class());
            tracing::warn!(route = %self.settings.name, class = why.class().name(), %detail, "nothing goes for now");
            if why == Why::Quota {
                self.rate.lower(now);
            }
        }
        Ok(())
    }

    /// The broker took it. `false`: it stays owed until the receiver says the same.
    fn taken(&mut self, token: Token, seq: Seq, what: &str) -> bool {
        let now = self.clock();
        let Some(receipts) = &mut self.receipts else {
            if self.planner.acknowledged(token).is_some() {
                self.tally(what);
            }
            self.attempted.remove(seq, seq);
            self.not_retried(seq);
            return true;
        };
        if receipts.taken(seq, now) {
            self.planner.taken(token);
            return false;
        }
        // Its receipt came first.
        self.attempted.remove(seq, seq);
        self.planner.acknowledged(token);
        self.not_retried(seq);
        true
    }

    /// The receiver has these. What it names and nobody waits for is counted and changes nothing: a repeat of a receipt, one
    /// for another gateway, or one for what goes again after a broken connection and is confirmed again then.
    pub(super) fn confirmed(&mut self, deliveries: &[DeliveryId], unreadable: u64) {
        let now = self.clock();
        let Some(receipts) = &mut self.receipts else { return };
        let (mut settled, mut unknown) = (0, 0);
        let confirmed: Vec<_> = deliveries.iter().map(|delivery| receipts.received(delivery, now)).collect();
        for confirmed in confirmed {
            match confirmed {
                Some((seq, taken)) => {
                    self.planner.confirmed(seq, taken);
                    self.attempted.remove(seq, seq);
                    self.not_retried(seq);
                    settled += 1;
                }
                None => unknown += 1,
            }
        }
        for (what, n) in [("sent", settled), ("receipt_unknown", unknown), ("receipt_unreadable", unreadable)] {
            if n > 0 {
                *self.change.tally.entry(what.to_owned()).or_default() += n;
            }
        }
        self.due();
    }

    /// If it was the probe of a parked source, the others go again; it itself does not where it is done with.
    fn probe_ended(&mut self, from: Source, seq: Seq, done: bool) -> Result<(), StoreError> {
        if self.stand.is_parked(&from).is_some_and(|reason| self.held.first_of(&from, reason) == Some(seq)) {
            if done {
                self.probed.insert(from, seq);
            }
            self.unpark(&from)?;
        }
        Ok(())
    }

    /// The destination hung up over a message that was too large, and did not say which: alone on the line it is known, and
    /// until then each goes alone.
    pub(super) fn suspect(&mut self, fault: &Fault, under_way: BTreeMap<Token, (Seq, Record)>) {
        let now = self.clock();
        match fault.class {
            FaultClass::TooLarge if under_way.len() == 1 => {
                for (token, (seq, record)) in under_way {
                    self.planner.refused(token);
                    self.stand.gone(seq);
                    self.bury(seq, record, "too_large", fault.text.clone());
                }
            }
            FaultClass::TooLarge => self.stand.one_at_a_time(under_way.len()),
            FaultClass::Quota => self.rate.lower(now),
            _ => {}
        }
    }

    pub(super) fn bury(&mut self, seq: Seq, record: Record, reason: &str, detail: String) {
        self.receipts.iter_mut().for_each(|receipts| receipts.forget(seq));
        tracing::warn!(route = %self.settings.name, %seq, reason, %detail, "dead letter");
        let since = Some((self.boot.id(), self.boot.now()));
        self.change.dead.push(DeadRow { seq, record, reason: reason.to_owned(), detail, since });
        self.attempted.remove(seq, seq);
        // The row that lent the record is written over.
        self.retried.remove(&seq);
        self.status.dead += 1;
        self.due();
    }
}
