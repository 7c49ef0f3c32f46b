//! Which windows are due: holds the points of slots that are still open, closes a slot once five seconds have passed since
//! its end, and says which closed slots a late point touches. It never sleeps and holds no policy: time is an argument, and
//! what it cannot make itself it names, so that the caller makes it from the log.

use std::collections::{BTreeMap, BTreeSet};

use super::window::{Point, PointKind, Slot, make_window, reach_ms};
use crate::reading::{Metric, Seq, StreamKey, Summary, Timestamp, Window};

/// Lengths every windowed stream gets, in seconds; routes add those they carry.
pub const DEFAULT_LENGTHS_S: [u32; 2] = [60, 900];
/// How long after its end a slot still takes points without a new version: links and decoders need a moment.
pub const CLOSE_AFTER_MS: i64 = 5_000;
/// Points held for one stream: an hour at two a second, the longest usual window of the fastest usual sensor. At about 60
/// octets each a stream costs half a megabyte at most; beyond it the older half is left to the log. How many streams there
/// are is bounded by the configured devices.
pub const MAX_POINTS: usize = 8_192;

/// A slot the caller makes from the log: its window exists already, or its points no longer fit in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Late {
    pub stream: StreamKey,
    pub slot: Slot,
}

/// What became due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    pub windows: Vec<(StreamKey, Window)>,
    pub late: Vec<Late>,
}

pub struct Windower {
    lengths: BTreeMap<Metric, Vec<u32>>,
    streams: BTreeMap<StreamKey, Held>,
    /// Every slot that ends here or earlier is closed.
    closed_until: Timestamp,
}

#[derive(Default)]
struct Held {
    points: BTreeMap<(Timestamp, Seq), PointKind>,
    lost: Option<Lost>,
}

/// The span of points that were let go to stay within [`MAX_POINTS`].
#[derive(Clone, Copy)]
struct Lost {
    from: Timestamp,
    to: Timestamp,
    first: Seq,
}

impl Windower {
    /// `lengths` in seconds for the metrics that differ from [`DEFAULT_LENGTHS_S`]. `closed_until` is what
    /// [`Windower::closed_until`] said before a restart: without it a slot closed then would be made anew from the points
    /// that are replayed, which may be a part of it. The first start gives the time of the first point, or earlier.
    pub fn new(lengths: BTreeMap<Metric, Vec<u32>>, closed_until: Timestamp) -> Self {
        let lengths = lengths.into_iter().map(|(metric, lengths)| (metric, in_order(&lengths))).collect();
        Self { lengths, streams: BTreeMap::new(), closed_until }
    }

    /// Takes a point and names the closed slots it belongs to or speaks into. Replaying the log after a restart, the
    /// answer is ignored: those slots were made in the transaction that appended the point.
    pub fn push(&mut self, stream: StreamKey, point: Point) -> Vec<Late> {
        if stream.metric.summary(stream.modality) == Summary::None {
            return Vec::new();
        }
        let until = point.at.plus_ms(reach_ms(stream.metric));
        let mut late = Vec::new();
        for length_s in self.lengths(stream.metric) {
            let mut slot = Slot::containing(point.at, *length_s);
            while slot.end() <= self.closed_until && slot.start < until {
                late.push(Late { stream, slot });
                slot = slot.next();
            }
        }
        if point.at >= self.keep_from(stream.metric) {
            self.streams.entry(stream).or_default().insert(point);
        }
        late
    }

    /// Closes every slot whose end lies five seconds or more before `now`. A `now` before an earlier one closes nothing.
    pub fn close(&mut self, now: Timestamp) -> Closed {
        let mut closed = Closed::default();
        let until = now.plus_ms(-CLOSE_AFTER_MS);
        if until <= self.closed_until {
            return closed;
        }
        for (stream, held) in &self.streams {
            for length_s in self.lengths(stream.metric) {
                let first = Slot::containing(self.closed_until, *length_s);
                if first.end() <= until {
                    held.close(stream, first, until, &mut closed);
                }
            }
        }
        self.closed_until = until;
        self.forget();
        closed
    }

    /// Where a restart must replay the log from, to close the open slots as if nothing had happened. It walks all that is
    /// held: ask when closing, not at every point.
    pub fn oldest_open(&self) -> Option<Seq> {
        let held = self.streams.values();
        held.flat_map(|held| held.points.keys().map(|(_, seq)| *seq).chain(held.lost.map(|lost| lost.first))).min()
    }

    pub const fn closed_until(&self) -> Timestamp {
        self.closed_until
    }

    pub fn lengths(&self, metric: Metric) -> &[u32] {
        self.lengths.get(&metric).map_or(&DEFAULT_LENGTHS_S, |lengths| lengths)
    }

    fn forget(&mut self) {
        let mut streams = std::mem::take(&mut self.streams);
        streams.retain(|stream, held| held.keep(self.keep_from(stream.metric)));
        self.streams = streams;
    }

    /// No open slot of this metric reads a point before this time.
    fn keep_from(&self, metric: Metric) -> Timestamp {
        let open = self.lengths(metric).iter().map(|length_s| Slot::containing(self.closed_until, *length_s).reads_from(metric));
        open.min().unwrap_or(self.closed_until)
    }
}

impl Held {
    fn insert(&mut self, point: Point) {
        self.points.insert((point.at, point.seq), point.kind);
        if self.points.len() <= MAX_POINTS {
            return;
        }
        let middle = self.points.keys().nth(MAX_POINTS / 2).copied().expect("more points than half the bound");
        let kept = self.points.split_off(&middle);
        let gone = std::mem::replace(&mut self.points, kept);
        for (at, seq) in gone.into_keys() {
            let lost = self.lost.get_or_insert(Lost { from: at, to: at, first: seq });
            *lost = Lost { from: lost.from.min(at), to: lost.to.max(at), first: lost.first.min(seq) };
        }
    }

    fn close(&self, stream: &StreamKey, first: Slot, until: Timestamp, closed: &mut Closed) {
        for slot in self.due(stream.metric, first, until) {
            let reads = (slot.reads_from(stream.metric), Seq(0))..(slot.end(), Seq(0));
            if self.lost.is_some_and(|lost| lost.from < slot.end() && lost.to >= reads.start.0) {
                closed.late.push(Late { stream: *stream, slot });
                continue;
            }
            let points: Vec<Point> =
                self.points.range(reads).map(|((at, seq), kind)| Point { seq: *seq, at: *at, kind: *kind }).collect();
            if let Some(window) = make_window(stream, slot, slot.start, slot.end(), &points) {
                closed.windows.push((*stream, window));
            }
        }
    }

    /// The slots from `first` on that end by `until` and hold or held a point.
    fn due(&self, metric: Metric, first: Slot, until: Timestamp) -> BTreeSet<Slot> {
        let mut due = BTreeSet::new();
        let mut cursor = first.start;
        while let Some(((at, _), _)) = self.points.range((cursor, Seq(0))..).next() {
            let slot = Slot::containing(*at, first.length_s);
            if slot.end() > until {
                break;
            }
            due.insert(slot);
            cursor = slot.end();
        }
        if let Some(lost) = self.lost {
            let mut slot = Slot::containing(lost.from.max(first.start), first.length_s);
            while slot.end() <= until && slot.start < lost.to.plus_ms(reach_ms(metric)) {
                due.insert(slot);
                slot = slot.next();
            }
        }
        due
    }

    /// Lets go of what lies before `from`; `false` when nothing is left.
    fn keep(&mut self, from: Timestamp) -> bool {
        if self.points.first_key_value().is_some_and(|((at, _), _)| *at < from) {
            self.points = self.points.split_off(&(from, Seq(0)));
        }
        self.lost = self.lost.filter(|lost| lost.to >= from);
        !self.points.is_empty() || self.lost.is_some()
    }
}

fn in_order(lengths: &[u32]) -> Vec<u32> {
    let lengths: BTreeSet<u32> = lengths.iter().copied().filter(|length_s| *length_s > 0).collect();
    lengths.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Decimal, DeviceId, Modality, Unit};
    use proptest::prelude::*;

    const START: Timestamp = Timestamp(900_000);

    fn spo2() -> StreamKey {
        let device = DeviceId::new([0, 0x1C, 5, 1, 2, 3]);
        StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Continuous }
    }

    fn point(seq: u64, at_ms: i64) -> Point {
        let kind = PointKind::Value { value: Decimal::new(90 + at_ms / 1000 % 10, 0), unit: Unit::Percent };
        Point { seq: Seq(seq), at: Timestamp(at_ms), kind }
    }

    fn windower() -> Windower {
        Windower::new(BTreeMap::new(), START)
    }

    fn from_log(late: &Late, points: &[Point]) -> Option<Window> {
        make_window(&late.stream, late.slot, late.slot.start, late.slot.end(), points)
    }

    #[test]
    fn a_slot_closes_five_seconds_after_its_end_and_once() {
        let mut windower = windower();
        assert_eq!(windower.push(spo2(), point(1, 930_000)), []);
        assert_eq!(windower.close(Timestamp(964_999)), Closed::default());
        let closed = windower.close(Timestamp(965_000));
        assert_eq!(closed.windows.len(), 1, "the minute; the quarter of an hour is open");
        assert_eq!(windower.close(Timestamp(1_000_000)), Closed::default());
        assert_eq!(windower.close(Timestamp(965_000)), Closed::default(), "a clock stepped back closes nothing twice");
        let quarter = windower.close(Timestamp(1_805_000));
        assert_eq!(quarter.windows.iter().map(|(_, w)| (w.length_s, w.n)).collect::<Vec<_>>(), [(900, 1)]);
    }

    #[test]
    fn a_late_point_names_its_slot_and_the_one_it_speaks_into() {
        let mut windower = windower();
        windower.close(Timestamp(1_085_000));
        let slots = |late: Vec<Late>| late.iter().map(|l| (l.slot.start.0, l.slot.length_s)).collect::<Vec<_>>();
        assert_eq!(slots(windower.push(spo2(), point(1, 930_000))), [(900_000, 60)]);
        assert_eq!(slots(windower.push(spo2(), point(2, 955_000))), [(900_000, 60), (960_000, 60)]);
        assert_eq!(slots(windower.push(spo2(), point(3, 1_075_000))), [(1_020_000, 60)], "1,080 s is still open");
    }

    #[test]
    fn memory_is_bounded_and_what_did_not_fit_is_made_from_the_log() {
        let mut windower = windower();
        let points: Vec<Point> = (0..20_000).map(|i| point(100 + i as u64, 900_000 + i * 45)).collect();
        for point in &points {
            assert_eq!(windower.push(spo2(), *point), []);
            assert!(windower.streams[&spo2()].points.len() <= MAX_POINTS);
        }
        assert_eq!(windower.oldest_open(), Some(Seq(100)));
        let closed = windower.close(Timestamp(1_805_000));
        let mut all: Vec<Window> = closed.windows.into_iter().map(|(_, window)| window).collect();
        assert!(!closed.late.is_empty() && !all.is_empty());
        all.extend(closed.late.iter().filter_map(|late| from_log(late, &points)));
        let of = |length: u32| all.iter().filter(|w| w.length_s == length).map(|w| w.n).sum::<u32>();
        assert_eq!((of(60), of(900)), (20_000, 20_000), "every point is in one window of each length");
        windower.close(Timestamp(2_705_000));
        assert_eq!(windower.oldest_open(), None, "nothing speaks into the next quarter of an hour any more");
    }

    #[test]
    fn a_restart_that_replays_from_the_oldest_open_makes_the_same_windows() {
        let points: Vec<Point> = (0..60).map(|i| point(1 + i as u64, 900_000 + i * 4_000)).collect();
        let mut kept = windower();
        let mut restarted = windower();
        for point in &points[..40] {
            kept.push(spo2(), *point);
            restarted.push(spo2(), *point);
        }
        assert_eq!(kept.close(Timestamp(1_060_000)), restarted.close(Timestamp(1_060_000)));
        let from = restarted.oldest_open().expect("the quarter of an hour is open");
        let mut restarted = Windower::new(BTreeMap::new(), restarted.closed_until());
        for point in points[..40].iter().filter(|p| p.seq >= from) {
            let _ = restarted.push(spo2(), *point);
        }
        for point in &points[40..] {
            assert_eq!(kept.push(spo2(), *point), restarted.push(spo2(), *point));
        }
        assert_eq!(kept.close(Timestamp(1_805_000)), restarted.close(Timestamp(1_805_000)));
    }

    proptest! {
        /// The reference: every slot made from all points once nothing more arrives.
        #[test]
        fn windows_end_up_as_if_every_point_had_been_on_time(
            times in prop::collection::vec((900_000i64..1_800_000, 0i64..400_000), 1..60),
            step_ms in 1_000i64..60_000,
        ) {
            let mut points: Vec<(i64, Point)> =
                times.iter().enumerate().map(|(i, (at, delay))| (at + delay, point(i as u64 + 1, *at))).collect();
            points.sort_by_key(|(arrival, point)| (*arrival, point.seq));
            let mut windower = windower();
            let (mut latest, mut log) = (BTreeMap::new(), Vec::new());
            let mut now = 900_000;
            let mut arriving = points.iter().peekable();
            while now < 2_400_000 {
                now += step_ms;
                let mut late = Vec::new();
                while let Some((_, point)) = arriving.next_if(|(arrival, _)| *arrival <= now) {
                    log.push(*point);
                    late.extend(windower.push(spo2(), *point));
                }
                let closed = windower.close(Timestamp(now));
                latest.extend(closed.windows.into_iter().map(|(_, w)| ((w.start, w.length_s), w)));
                let remade = late.iter().chain(&closed.late).filter_map(|late| from_log(late, &log));
                latest.extend(remade.map(|w| ((w.start, w.length_s), w)));
            }
            let all: Vec<Point> = points.iter().map(|(_, point)| *point).collect();
            let mut expected = BTreeMap::new();
            for point in &all {
                for length_s in DEFAULT_LENGTHS_S {
                    let slot = Slot::containing(point.at, length_s);
                    let window = from_log(&Late { stream: spo2(), slot }, &all).expect("a point lies in it");
                    expected.insert((slot.start, length_s), window);
                }
            }
            prop_assert_eq!(latest, expected);
            windower.close(Timestamp(2_705_000));
            prop_assert_eq!(windower.oldest_open(), None);
        }
    }
}
