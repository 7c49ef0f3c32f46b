//! Where the records of a route stand: to whom each was sent, and where it stood before. Pure. Rows are runs of a stream, so
//! that a patient's day is one row, however many records it has.

use std::collections::{BTreeMap, BTreeSet};

use crate::reading::{Placement, Seq, SiteKey, StreamKey};
use crate::store::{BoundRow, OPEN};
use crate::ward::Binding;

type Place = (StreamKey, Seq);

#[derive(Debug, Default)]
pub struct Placements {
    /// By stream and first record; no two rows of a stream overlap.
    rows: BTreeMap<Place, BoundRow>,
    changed: BTreeSet<Place>,
    gone: BTreeSet<Place>,
}

impl Placements {
    pub fn new(rows: Vec<BoundRow>) -> Self {
        Self { rows: rows.into_iter().map(|row| ((row.stream, row.first), row)).collect(), ..Self::default() }
    }

    /// The row that speaks of a record. A record that was never sent may lie in one as well.
    pub fn of(&self, stream: &StreamKey, seq: Seq) -> Option<&BoundRow> {
        let (_, row) = self.rows.range((*stream, Seq(0))..=(*stream, seq)).next_back()?;
        (row.last >= seq).then_some(row)
    }

    /// Notes for whom a record is sent, and claims what follows it up to `until`, of which nothing was sent yet.
    pub fn place(&mut self, key: &SiteKey, stream: &StreamKey, seq: Seq, until: Seq, binding: &Binding) -> Placement {
        let row = self.of(stream, seq).cloned();
        if let Some(row) = row.as_ref().filter(|row| row.subject.as_ref() == Some(&binding.subject)) {
            return row.placement;
        }
        let next = self.rows.range((*stream, seq.next())..=(*stream, OPEN)).next();
        let gap_end = next.map_or(OPEN, |((_, first), _)| Seq(first.0 - 1));
        let last = until.min(row.as_ref().map_or(gap_end, |row| row.last)).max(seq);
        let past = row.as_ref().map(|row| row.past.clone()).unwrap_or_default();
        let times = past.iter().filter(|subject| **subject == binding.subject).count();
        let placement = key.placement(Some(&binding.subject), u32::try_from(times).unwrap_or(u32::MAX));
        // What was taken back goes out again one by one: its rows grow together.
        let from = row.filter(|row| row.subject.is_none()).map_or(seq, |row| row.first);
        let before = from.0.checked_sub(1).and_then(|before| self.of(stream, Seq(before)).cloned());
        self.cut(stream, seq, last);
        if let Some(mut row) = before.filter(|row| row.placement == placement && row.past == past && row.subject.is_some()) {
            self.drop_between(stream, from, last);
            row.last = last;
            self.put(row);
        } else {
            self.put(BoundRow {
                stream: *stream,
                first: seq,
                last,
                subject: Some(binding.subject.clone()),
                rule: binding.rule.name().to_owned(),
                evidence: binding.evidence.clone(),
                placement,
                past,
            });
        }
        placement
    }

    /// A record is taken back from where it stands.
    pub fn take_back(&mut self, stream: &StreamKey, seq: Seq) {
        let Some(mut row) = self.of(stream, seq).cloned() else { return };
        let Some(subject) = row.subject.take() else { return };
        row.past.push(subject);
        let before = seq.0.checked_sub(1).and_then(|before| self.of(stream, Seq(before)).cloned());
        self.cut(stream, seq, seq);
        match before.filter(|before| before.subject.is_none() && before.past == row.past && before.placement == row.placement) {
            Some(before) => self.put(BoundRow { last: seq, ..before }),
            None => self.put(BoundRow { first: seq, last: seq, ..row }),
        }
    }

    /// Forgets rows that speak only of records below `seq`, which are not in the log any more.
    pub fn forget_below(&mut self, seq: Seq) {
        let past: Vec<Place> = self.rows.iter().filter(|(_, row)| row.last < seq).map(|(place, _)| *place).collect();
        past.into_iter().for_each(|place| self.remove(place));
    }

    /// Rows to delete and rows to write since the last call.
    pub fn take_changes(&mut self) -> (Vec<Place>, Vec<BoundRow>) {
        let written = std::mem::take(&mut self.changed).into_iter().filter_map(|place| self.rows.get(&place).cloned()).collect();
        (std::mem::take(&mut self.gone).into_iter().collect(), written)
    }

    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// Makes room for a row: the one that covers it keeps what lies on either side.
    fn cut(&mut self, stream: &StreamKey, first: Seq, last: Seq) {
        let Some(row) = self.of(stream, first).cloned() else { return };
        self.remove((*stream, row.first));
        if row.first < first {
            self.put(BoundRow { last: Seq(first.0 - 1), ..row.clone() });
        }
        if last < row.last {
            self.put(BoundRow { first: last.next(), ..row });
        }
    }

    fn drop_between(&mut self, stream: &StreamKey, first: Seq, last: Seq) {
        let within: Vec<Place> = self.rows.range((*stream, first)..=(*stream, last)).map(|(place, _)| *place).collect();
        within.into_iter().for_each(|place| self.remove(place));
    }

    fn put(&mut self, row: BoundRow) {
        let place = (row.stream, row.first);
        self.gone.remove(&place);
        self.changed.insert(place);
        self.rows.insert(place, row);
    }

    fn remove(&mut self, place: Place) {
        if self.rows.remove(&place).is_some() {
            self.changed.remove(&place);
            self.gone.insert(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{DeviceId, Metric, Modality};
    use crate::ward::Rule;

    #[test]
    fn bindings_go_with_the_records_they_speak_of_and_no_sooner() {
        let device = DeviceId::new([1; 6]);
        let stream = StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Spot };
        let key = SiteKey::new(&[7; 32]);
        let to = |who: &str| Binding { subject: who.parse().expect("a key"), rule: Rule::DevicePairing, evidence: vec![1] };
        let mut placements = Placements::default();
        placements.place(&key, &stream, Seq(1), Seq(9), &to("p-anna"));
        placements.place(&key, &stream, Seq(10), OPEN, &to("p-bert"));
        placements.take_changes();
        placements.forget_below(Seq(9));
        assert!(!placements.is_changed(), "record 9 is still there");
        placements.forget_below(Seq(10));
        let (gone, written) = placements.take_changes();
        assert_eq!((gone, written), (vec![(stream, Seq(1))], vec![]));
        assert!(placements.of(&stream, Seq(9)).is_none());
        placements.forget_below(Seq(1_000));
        assert_eq!(placements.of(&stream, Seq(2_000)).map(|row| row.first), Some(Seq(10)), "it goes on");
    }
}
