//! Which readings of a scan are its patient's: looked up in the log, and remembered while the ward says the same.

use super::Route;
use crate::deliver::{Destination, Sample, Share};
use crate::reading::{Body, Record, Seq, WallTime};
use crate::store::StoreError;
use crate::ward::{Evidence, Rule};

/// Streams of scans that are remembered: those of a ward round. Beyond that all are looked up anew.
const MAX_REMEMBERED: usize = 256;

impl<D: Destination> Route<D> {
    /// `None` where no scan covers it.
    pub(super) fn share(&mut self, record: &Record) -> Result<Option<Share>, StoreError> {
        let Some(rules) = self.settings.rules.spots.get(&record.device) else { return Ok(None) };
        let (Body::Reading(_), Some(stream), Some(at)) = (&record.body, record.stream, self.wall_of(record)) else {
            return Ok(None);
        };
        let ward = self.ward.clone();
        let Some(scan) = ward.spot(record.device, at.at) else { return Ok(None) };
        let Evidence { n, .. } = scan.began;
        if let Some(share) = self.shares.get(&(stream, n)).and_then(|shares| shares.get(&record.id)) {
            return Ok(Some(*share));
        }
        let reaches_back = |boot, arrived| self.anchors.wall(boot, arrived).is_none_or(|wall| wall.at >= scan.from);
        let mut samples: Vec<(Seq, Sample)> = Vec::new();
        self.store.read_stream_back(&stream, reaches_back, |seq, record| {
            let Some(at) = self.wall_of(&record) else { return };
            let bound = ward.bind(record.device, stream.user, at);
            let by_this = bound.is_ok_and(|binding| binding.rule == Rule::Spot && binding.evidence == [n]);
            if by_this && ward.named(&record.id).is_none() {
                samples.extend(Sample::of(&record, at.at).map(|sample| (seq, sample)));
            }
        })?;
        samples.sort_by_key(|(seq, _)| *seq);
        let samples: Vec<Sample> = samples.into_iter().map(|(_, sample)| sample).collect();
        let shares = rules.shares(stream.metric, &samples, scan.value.readings, rules.is_steadied(record));
        let share = shares.get(&record.id).copied();
        if self.shares.len() >= MAX_REMEMBERED {
            self.shares.clear();
        }
        self.shares.insert((stream, n), shares);
        Ok(share)
    }

    /// When it was measured, where that is known.
    fn wall_of(&self, record: &Record) -> Option<WallTime> {
        self.anchors.of(&record.stamp, record.stream, self.zone(record.device)).wall()
    }
}
