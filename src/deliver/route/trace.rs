//! What a route knows of one record, for whoever asks where it is and why.

use super::Route;
use crate::deliver::{Decision, Destination, Lane};
use crate::reading::{Body, Record, Seq};
use crate::store::{BoundRow, StoreError};
use crate::ward::HoldReason;

/// Where a record is on a route. Nothing else than this is left to do for it: settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordPlace {
    Pending(Lane),
    /// Sent, and not answered yet.
    UnderWay,
    Held(HoldReason),
    Dead,
    Settled,
}

#[derive(Clone, Debug)]
pub struct Traced {
    pub place: RecordPlace,
    /// What becomes of it by what is known now; of a record that is settled, what would if it came anew.
    pub decision: Decision,
    /// Another stream speaks for the patient.
    pub not_chosen: bool,
    /// Where it stands, and where it stood; `None` for what never went to a patient's chart.
    pub row: Option<BoundRow>,
    /// What it took back it also told the destination.
    pub retracts: bool,
}

impl<D: Destination> Route<D> {
    pub(super) fn trace(&mut self, seq: Seq, record: &Record) -> Result<Traced, StoreError> {
        let decision = self.decide(record, Lane::Backlog)?;
        let not_chosen = match &decision {
            Decision::Choose(binding) => self.choose(seq, record, binding)?.is_none(),
            _ => false,
        };
        let place = self.place_of(seq, record)?;
        let may_stand = match place {
            RecordPlace::Pending(_) => self.attempted.contains(seq),
            RecordPlace::Held(reason) => reason == HoldReason::AwaitingDecision,
            RecordPlace::UnderWay | RecordPlace::Settled => {
                !not_chosen && !matches!(decision, Decision::Settle(_) | Decision::Cut(_))
            }
            RecordPlace::Dead => false,
        };
        let row = record.stream.as_ref().and_then(|stream| self.placements.of(stream, seq)).cloned();
        // A row speaks of a run of the stream: what of it was never sent was never anywhere.
        let row = row.filter(|_| !matches!(record.body, Body::Retraction(_)));
        let row = row.and_then(|row| match may_stand {
            true => Some(row),
            false if row.past.is_empty() => None,
            false => Some(BoundRow { subject: None, ..row }),
        });
        Ok(Traced { place, decision, not_chosen, row, retracts: self.settings.retract != crate::config::Retract::Never })
    }

    fn place_of(&self, seq: Seq, record: &Record) -> Result<RecordPlace, StoreError> {
        let lanes = self.planner.lanes();
        Ok(match self.held.reason_of(seq, record) {
            _ if self.planner.is_in_flight(seq) => RecordPlace::UnderWay,
            _ if lanes.live.contains(seq) => RecordPlace::Pending(Lane::Live),
            _ if lanes.backlog.contains(seq) => RecordPlace::Pending(Lane::Backlog),
            Some(reason) => RecordPlace::Held(reason),
            None if self.dead_among(seq, seq)?.contains(&seq) => RecordPlace::Dead,
            None => RecordPlace::Settled,
        })
    }
}
