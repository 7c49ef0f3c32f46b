//! The records a route may not send yet, as runs per stream and reason: pure. A run covers the records of its stream between
//! its ends, so a thousand held values of one device among sixty others are one row.

use std::collections::{BTreeMap, BTreeSet};

use super::Lane;
use crate::reading::{DeviceId, Record, Seq, StreamKey};
use crate::store::Held;
use crate::ward::HoldReason;

/// Where a record comes from: its stream, or for one of none its device.
pub type Source = (DeviceId, Option<StreamKey>);

#[derive(Debug, Default)]
pub struct HeldRuns {
    /// By source and first record; no two runs of a source overlap.
    runs: BTreeMap<(Source, Seq), Held>,
    /// The run that the next held record of a source in a lane may lengthen.
    growing: BTreeMap<(Lane, Source), Seq>,
    changed: BTreeSet<(Source, Seq)>,
    gone: Vec<Held>,
    postponed: bool,
}

/// What a second look at a run found, record by record in order: still held, or not.
#[derive(Debug, Default)]
pub struct Recheck(Vec<(Seq, Option<HoldReason>)>);

impl Recheck {
    pub fn still_held(&mut self, seq: Seq, reason: HoldReason) {
        self.0.push((seq, Some(reason)));
    }

    pub fn released(&mut self, seq: Seq) {
        self.0.push((seq, None));
    }

    pub fn release(&self) -> impl Iterator<Item = Seq> + '_ {
        self.0.iter().filter(|(_, reason)| reason.is_none()).map(|(seq, _)| *seq)
    }
}

impl HeldRuns {
    pub fn new(rows: Vec<Held>) -> Self {
        let runs = rows.into_iter().map(|held| (((held.device, held.stream), held.first), held)).collect();
        Self { runs, ..Self::default() }
    }

    pub fn hold(&mut self, lane: Lane, seq: Seq, record: &Record, reason: HoldReason) {
        let source = (record.device, record.stream);
        let grown = self.growing.get(&(lane, source)).copied().filter(|first| self.may_grow(source, *first, seq, reason));
        let first = grown.unwrap_or(seq);
        let (device, stream) = source;
        let run = self.runs.entry((source, first)).or_insert(Held { device, stream, reason, first, last: seq, count: 0 });
        run.last = seq;
        run.count += 1;
        self.changed.insert((source, first));
        self.growing.insert((lane, source), first);
    }

    /// One that comes back from elsewhere: what lies beside it may have gone another way long ago.
    pub fn hold_alone(&mut self, lane: Lane, seq: Seq, record: &Record, reason: HoldReason) {
        self.passed(lane, record);
        self.hold(lane, seq, record, reason);
        self.passed(lane, record);
    }

    /// A record of this source went another way: no run of the lane may reach over it.
    pub fn passed(&mut self, lane: Lane, record: &Record) {
        self.growing.remove(&(lane, (record.device, record.stream)));
    }

    pub fn covers(&self, seq: Seq, record: &Record) -> bool {
        self.reason_of(seq, record).is_some()
    }

    /// Why a record is held.
    pub fn reason_of(&self, seq: Seq, record: &Record) -> Option<HoldReason> {
        let source = (record.device, record.stream);
        let ((of, _), run) = self.runs.range(..=(source, seq)).next_back()?;
        (*of == source && run.last >= seq).then_some(run.reason)
    }

    /// The lowest record a source is held at for this reason.
    pub fn first_of(&self, source: &Source, reason: HoldReason) -> Option<Seq> {
        let runs = self.runs.range((*source, Seq(0))..=(*source, Seq(u64::MAX)));
        runs.map(|(_, run)| run).find(|run| run.reason == reason).map(|run| run.first)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.runs.values()
    }

    /// All runs, the lowest first.
    pub fn due_for_recheck(&mut self) -> Vec<Held> {
        self.postponed = false;
        let mut runs: Vec<Held> = self.runs.values().copied().collect();
        runs.sort_by_key(|run| run.first);
        runs
    }

    pub fn postpone(&mut self) {
        self.postponed = true;
    }

    pub fn is_postponed(&self) -> bool {
        self.postponed
    }

    /// Puts what a second look found in the place of a run.
    pub fn replace(&mut self, run: &Held, recheck: &Recheck) {
        let source = (run.device, run.stream);
        self.growing.retain(|(_, of), first| *of != source || *first != run.first);
        self.runs.remove(&(source, run.first));
        self.changed.remove(&(source, run.first));
        self.gone.push(*run);
        let mut current: Option<Held> = None;
        for (seq, reason) in &recheck.0 {
            match (&mut current, reason) {
                (Some(held), Some(reason)) if held.reason == *reason => {
                    held.last = *seq;
                    held.count += 1;
                }
                _ => {
                    self.keep(source, current.take());
                    current = reason.map(|reason| Held { reason, first: *seq, last: *seq, count: 1, ..*run });
                }
            }
        }
        self.keep(source, current);
    }

    /// Rows to delete and rows to write since the last call.
    pub fn take_changes(&mut self) -> (Vec<Held>, Vec<Held>) {
        let written = std::mem::take(&mut self.changed).into_iter().filter_map(|key| self.runs.get(&key).copied()).collect();
        (std::mem::take(&mut self.gone), written)
    }

    /// Held records by reason.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for run in self.runs.values() {
            *counts.entry(run.reason.name().to_owned()).or_default() += run.count;
        }
        counts
    }

    fn keep(&mut self, source: Source, held: Option<Held>) {
        if let Some(held) = held {
            self.runs.insert((source, held.first), held);
            self.changed.insert((source, held.first));
        }
    }

    fn may_grow(&self, source: Source, first: Seq, to: Seq, reason: HoldReason) -> bool {
        let same = self.runs.get(&(source, first)).is_some_and(|run| run.reason == reason && run.last < to);
        same && self.runs.range((source, first.next())..=(source, to)).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Body, BootId, BootMillis, Event, Metric, Modality, NoValue, RecordId, Stamp};
    use proptest::prelude::*;

    fn record(device: u8) -> Record {
        let device = DeviceId::new([device; 6]);
        let stream = StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Spot };
        Record {
            id: RecordId([0; 16]),
            version: 1,
            device,
            stream: Some(stream),
            stamp: Stamp { boot: BootId([0; 16]), arrived: BootMillis(0), device_time: None, device_clock: None, stored: false },
            body: Body::Event(Event::NoValue(NoValue::SensorOff)),
            nameplate: None,
        }
    }

    #[test]
    fn a_thousand_held_values_of_one_device_among_others_are_one_row() {
        let mut held = HeldRuns::default();
        for seq in 1..=3_000u64 {
            if seq % 3 == 0 {
                held.hold(Lane::Live, Seq(seq), &record(1), HoldReason::NoAssignment);
            } else {
                held.passed(Lane::Live, &record(2));
            }
        }
        let (gone, rows) = held.take_changes();
        assert!(gone.is_empty());
        assert_eq!(rows.iter().map(|row| (row.first.0, row.last.0, row.count)).collect::<Vec<_>>(), [(3, 3_000, 1_000)]);
    }

    proptest! {
        /// Against a plain map of record to reason: whatever is held, passed and looked at again, the rows on file name each
        /// held record exactly once, under its reason.
        #[test]
        fn rows_name_each_held_record_once(ops in proptest::collection::vec((0u8..2, 0u8..2, 0u8..4), 1..60), keep in any::<u64>()) {
            let (mut held, mut model, mut sent) = (HeldRuns::default(), BTreeMap::new(), Vec::new());
            let mut rows: BTreeMap<(Source, Seq), Held> = BTreeMap::new();
            for (index, (device, lane, what)) in ops.iter().enumerate() {
                let (seq, record) = (Seq(index as u64 + 1), record(*device));
                let lane = if *lane == 0 { Lane::Live } else { Lane::Backlog };
                match what {
                    0 => { held.passed(Lane::Live, &record); held.passed(Lane::Backlog, &record); sent.push((seq, *device)); }
                    n => {
                        let reason = if *n == 1 { HoldReason::NoClock } else { HoldReason::NoAssignment };
                        held.hold(lane, seq, &record, reason);
                        model.insert(seq, (*device, reason));
                    }
                }
            }
            for round in 0..2 {
                if round == 1 {
                    for run in held.due_for_recheck() {
                        let mut recheck = Recheck::default();
                        let members: Vec<_> = model.iter().filter(|(seq, (device, _))| {
                            DeviceId::new([*device; 6]) == run.device && run.first <= **seq && **seq <= run.last
                        }).map(|(seq, (_, reason))| (*seq, *reason)).collect();
                        for (seq, reason) in members {
                            if keep >> (seq.0 % 64) & 1 == 1 { recheck.still_held(seq, reason) } else { recheck.released(seq); model.remove(&seq); }
                        }
                        held.replace(&run, &recheck);
                    }
                }
                let (gone, written) = held.take_changes();
                for row in gone { rows.remove(&((row.device, row.stream), row.first)); }
                for row in written { rows.insert(((row.device, row.stream), row.first), row); }
                for (seq, (device, reason)) in &model {
                    let of_device = rows.values().filter(|row| row.device == DeviceId::new([*device; 6]));
                    let covering: Vec<_> = of_device.filter(|row| row.first <= *seq && *seq <= row.last).collect();
                    prop_assert_eq!(covering.len(), 1, "{:?} in {:?}", seq, rows);
                    prop_assert_eq!(covering[0].reason, *reason);
                    prop_assert!(held.covers(*seq, &record(*device)));
                }
                for (seq, device) in &sent {
                    let covered = rows.values().any(|row| row.device == DeviceId::new([*device; 6]) && row.first <= *seq && *seq <= row.last);
                    prop_assert!(!covered, "{:?} was sent and is in a held run", seq);
                }
                prop_assert_eq!(held.counts().values().sum::<u64>(), model.len() as u64);
            }
        }
    }
}
