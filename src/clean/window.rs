//! One window of one stream: a pure function of the points it is given, in whatever order they come. Every length is made
//! from readings and never from smaller windows, so a late value changes a window in exactly the way an early one would.

use std::cmp::Ordering;

use crate::reading::{
    Body, Class, Decimal, Event, Exclusion, Metric, Nameplate, Record, Sample, Seq, StreamKey, Summary, Timestamp, Unit, Value,
    Window, WindowSummary,
};

/// What a record contributes to windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub seq: Seq,
    pub at: Timestamp,
    pub kind: PointKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointKind {
    Value {
        value: Decimal,
        unit: Unit,
    },
    /// It takes no part, is counted by its reason, and ends what the value before it spoke for.
    Excluded(Exclusion),
}

impl Point {
    /// The point a record makes; `None` for what no window is made of: episodic and compound values, windows, gaps. `wanted`:
    /// what its device must have told of itself.
    pub fn of(record: &Record, seq: Seq, at: Timestamp, wanted: Option<&Nameplate>) -> Option<Point> {
        let stream = record.stream.as_ref()?;
        if stream.metric.summary(stream.modality) == Summary::None {
            return None;
        }
        let admitted = wanted.is_none_or(|wanted| wanted.admits(record.nameplate.as_ref()));
        let kind = match &record.body {
            Body::Reading(_) | Body::Event(Event::NoValue(_)) if !admitted => PointKind::Excluded(Exclusion::DeviceMismatch),
            Body::Reading(reading) => match (reading.class, &reading.value) {
                (Class::OutOfRange(_), _) => PointKind::Excluded(Exclusion::OutOfRange),
                (Class::Questionable, _) => PointKind::Excluded(Exclusion::Questionable),
                (Class::Measured, Value::Number { value, unit }) => PointKind::Value { value: *value, unit: *unit },
                (Class::Measured, Value::NoNumber { .. } | Value::Compound { .. }) => return None,
            },
            Body::Event(Event::NoValue(_)) => PointKind::Excluded(Exclusion::NoValue),
            _ => return None,
        };
        Some(Point { seq, at, kind })
    }
}

/// A span aligned to UTC: its start is a multiple of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub start: Timestamp,
    pub length_s: u32,
}

impl Slot {
    /// The slot of this length a time lies in. A length of zero is taken as one second.
    pub fn containing(at: Timestamp, length_s: u32) -> Slot {
        let length_s = length_s.max(1);
        let length_ms = i64::from(length_s) * 1000;
        Slot { start: Timestamp(at.0.div_euclid(length_ms).saturating_mul(length_ms)), length_s }
    }

    pub const fn end(self) -> Timestamp {
        self.start.plus_ms(self.length_s as i64 * 1000)
    }

    pub const fn next(self) -> Slot {
        Slot { start: self.end(), length_s: self.length_s }
    }

    /// From when on points must be given to [`make_window`]: a value shortly before the slot speaks into it.
    pub fn reads_from(self, metric: Metric) -> Timestamp {
        self.start.plus_ms(-reach_ms(metric))
    }
}

/// How far a value speaks beyond its own time, and a counter's step reaches back, in milliseconds.
pub(super) fn reach_ms(metric: Metric) -> i64 {
    i64::from(metric.row().hold_s) * 1000
}

/// The spans a slot falls into at the edges strictly inside it; the whole slot where there are none.
pub fn cut(slot: Slot, edges: &[Timestamp]) -> Vec<(Timestamp, Timestamp)> {
    let mut inside: Vec<Timestamp> = edges.iter().copied().filter(|edge| slot.start < *edge && *edge < slot.end()).collect();
    inside.sort_unstable();
    inside.dedup();
    let starts = std::iter::once(slot.start).chain(inside.iter().copied());
    let ends = inside.iter().copied().chain(std::iter::once(slot.end()));
    starts.zip(ends).collect()
}

/// Condenses the points in `from`..`to`. Points of the slot's [`Slot::reads_from`] before it count for coverage, and for
/// the first step of a counter, never for anything else; a side that begins inside its slot takes none of them, because
/// what was measured before an assignment edge was another patient's.
///
/// `None` for a stream that is never condensed, and when no point lies in the span. Values of another unit than the last
/// one are never converted: they count as questionable.
pub fn make_window(stream: &StreamKey, slot: Slot, from: Timestamp, to: Timestamp, points: &[Point]) -> Option<Window> {
    let summary = stream.metric.summary(stream.modality);
    let hold_ms = reach_ms(stream.metric);
    let earliest = if from > slot.start { from } else { from.plus_ms(-hold_ms) };
    let mut points: Vec<Point> = points.iter().copied().filter(|p| earliest <= p.at && p.at < to).collect();
    points.sort_unstable_by_key(|p| (p.at, p.seq));
    points.dedup_by_key(|p| (p.at, p.seq));
    let inside = &points[points.partition_point(|p| p.at < from)..];
    if summary == Summary::None || inside.is_empty() {
        return None;
    }
    let source = (inside.iter().map(|p| p.seq).min()?, inside.iter().map(|p| p.seq).max()?);
    let unit = last_unit(inside).or_else(|| last_unit(&points)).unwrap_or(stream.metric.row().units[0]);
    for point in &mut points {
        if matches!(point.kind, PointKind::Value { unit: other, .. } if other != unit) {
            point.kind = PointKind::Excluded(Exclusion::Questionable);
        }
    }
    let (before, inside) = points.split_at(points.partition_point(|p| p.at < from));
    let samples: Vec<Sample> = inside.iter().filter_map(sample).collect();
    let previous = before.iter().filter_map(sample).next_back();
    let mut excluded = count_excluded(inside);
    let summary = summarise(summary, previous, &samples);
    let n = samples.len() as u32;
    if summary.is_none() && n > 0 {
        // Numbers so far apart that no exact sum exists come from a broken device; a window never guesses.
        add_excluded(&mut excluded, Exclusion::Questionable, n);
    }
    let coverage_permille = coverage(&points, hold_ms, from, to);
    let n = if summary.is_some() { n } else { 0 };
    Some(Window { start: slot.start, length_s: slot.length_s, from, to, n, unit, summary, coverage_permille, excluded, source })
}

fn last_unit(points: &[Point]) -> Option<Unit> {
    points.iter().rev().find_map(|p| match p.kind {
        PointKind::Value { unit, .. } => Some(unit),
        PointKind::Excluded(_) => None,
    })
}

fn sample(point: &Point) -> Option<Sample> {
    match point.kind {
        PointKind::Value { value, .. } => Some(Sample { at: point.at, value }),
        PointKind::Excluded(_) => None,
    }
}

fn count_excluded(points: &[Point]) -> Vec<(Exclusion, u32)> {
    let mut counts = Vec::new();
    for point in points {
        if let PointKind::Excluded(reason) = point.kind {
            add_excluded(&mut counts, reason, 1);
        }
    }
    counts
}

/// Kept sorted by reason, so that equal windows are equal whatever came first.
fn add_excluded(counts: &mut Vec<(Exclusion, u32)>, reason: Exclusion, count: u32) {
    match counts.binary_search_by_key(&reason, |(reason, _)| *reason) {
        Ok(place) => counts[place].1 += count,
        Err(place) => counts.insert(place, (reason, count)),
    }
}

/// `None` without samples, and when the exact arithmetic does not fit.
fn summarise(summary: Summary, previous: Option<Sample>, samples: &[Sample]) -> Option<WindowSummary> {
    let last = *samples.last()?;
    match summary {
        Summary::Stats => stats(samples),
        Summary::Last => Some(WindowSummary::Last { last }),
        Summary::Counter => counter(previous, samples, last),
        Summary::None => None,
    }
}

/// The median is the lower one: a value the device really sent, at its time and resolution.
fn stats(samples: &[Sample]) -> Option<WindowSummary> {
    let mean = Decimal::mean(&samples.iter().map(|s| s.value).collect::<Vec<_>>())?;
    let mut sorted = samples.to_vec();
    sorted.sort_by(by_value); // stable, and samples come in order of time: ties stay in that order
    let (min, highest) = (*sorted.first()?, sorted.last()?.value);
    let max = sorted[sorted.partition_point(|s| s.value.cmp_value(highest).is_lt())];
    let median = sorted[(sorted.len() - 1) / 2];
    Some(WindowSummary::Stats { median, min, max, mean })
}

fn by_value(a: &Sample, b: &Sample) -> Ordering {
    a.value.cmp_value(b.value)
}

/// The sum of the steps between consecutive values; a fall is a restart from zero.
fn counter(previous: Option<Sample>, samples: &[Sample], last: Sample) -> Option<WindowSummary> {
    let first = previous.unwrap_or(*samples.first()?);
    let (mut before, mut increase, mut resets) = (first.value, Decimal::new(0, first.value.exponent()), 0);
    for sample in samples {
        let step = match sample.value.cmp_value(before) {
            Ordering::Less => {
                resets += 1;
                sample.value
            }
            _ => sample.value.checked_sub(before)?,
        };
        increase = increase.checked_add(step)?;
        before = sample.value;
    }
    Some(WindowSummary::Counter { increase, resets, last })
}

/// Whatever the rate: a value speaks until the next point or for the metric's hold time, whichever ends first.
fn coverage(points: &[Point], hold_ms: i64, from: Timestamp, to: Timestamp) -> u16 {
    let mut covered_ms = 0;
    for (i, point) in points.iter().enumerate() {
        if matches!(point.kind, PointKind::Value { .. }) {
            let next = points.get(i + 1).map_or(to, |next| next.at);
            let until = next.min(point.at.plus_ms(hold_ms)).min(to);
            covered_ms += (until.0 - point.at.max(from).0).max(0);
        }
    }
    let span_ms = (to.0 - from.0).max(1);
    u16::try_from(covered_ms.saturating_mul(1000) / span_ms).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{DeviceId, Modality};
    use proptest::prelude::*;

    const MINUTE: Slot = Slot { start: Timestamp(60_000), length_s: 60 };

    fn d(text: &str) -> Decimal {
        text.parse().expect("a decimal in a test")
    }

    fn stream(metric: Metric) -> StreamKey {
        let device = DeviceId::new([0, 0x1C, 5, 1, 2, 3]);
        StreamKey { device, user: None, metric, site: None, modality: Modality::Continuous }
    }

    fn value(seq: u64, at_s: i64, text: &str, unit: Unit) -> Point {
        Point { seq: Seq(seq), at: Timestamp(at_s * 1000), kind: PointKind::Value { value: d(text), unit } }
    }

    fn no_value(seq: u64, at_s: i64) -> Point {
        Point { seq: Seq(seq), at: Timestamp(at_s * 1000), kind: PointKind::Excluded(Exclusion::NoValue) }
    }

    fn whole(metric: Metric, points: &[Point]) -> Option<Window> {
        make_window(&stream(metric), MINUTE, MINUTE.start, MINUTE.end(), points)
    }

    #[test]
    fn a_value_before_the_window_speaks_into_it_but_is_not_counted() {
        let points = [value(1, 55, "97", Unit::Percent), value(2, 60 + 30, "98", Unit::Percent)];
        let window = whole(Metric::Spo2, &points).expect("a window");
        // 60..65 of the first, 90..100 of the second: 15 of 60 s.
        assert_eq!((window.n, window.coverage_permille, window.source), (1, 250, (Seq(2), Seq(2))));
    }

    #[test]
    fn a_window_of_exclusions_only_has_no_summary_and_an_empty_one_does_not_exist() {
        let window = whole(Metric::Spo2, &[value(1, 59, "97", Unit::Percent), no_value(2, 62)]).expect("a window");
        assert_eq!((window.n, window.summary, window.coverage_permille), (0, None, 33));
        assert_eq!(window.excluded, [(Exclusion::NoValue, 1)]);
        assert_eq!(whole(Metric::Spo2, &[value(1, 59, "97", Unit::Percent)]), None);
        assert_eq!(whole(Metric::BloodPressure, &[value(1, 61, "97", Unit::MillimetreOfMercury)]), None);
    }

    #[test]
    fn values_of_another_unit_are_counted_and_never_converted() {
        let points = [
            value(1, 60, "98.6", Unit::DegreeFahrenheit),
            value(2, 70, "37.00", Unit::DegreeCelsius),
            value(3, 80, "37.1", Unit::DegreeCelsius),
        ];
        let window = whole(Metric::BodyTemperature, &points).expect("a window");
        assert_eq!((window.n, window.unit), (2, Unit::DegreeCelsius));
        assert_eq!(window.excluded, [(Exclusion::Questionable, 1)]);
        assert_eq!(window.coverage_permille, 833, "70..120 of 60..120");
        let Some(WindowSummary::Stats { median, mean, .. }) = window.summary else { panic!("no stats") };
        assert_eq!((median.value, mean), (d("37.00"), d("37.050")));
    }

    #[test]
    fn equal_values_are_told_apart_by_time_and_keep_their_resolution() {
        let points = [
            value(9, 60, "37.60", Unit::DegreeCelsius),
            value(2, 61, "37.6", Unit::DegreeCelsius),
            value(3, 62, "37.600", Unit::DegreeCelsius),
        ];
        let window = whole(Metric::BodyTemperature, &points).expect("a window");
        let Some(WindowSummary::Stats { median, min, max, .. }) = window.summary else { panic!("no stats") };
        assert_eq!((min.at, median.at, max.at), (Timestamp(60_000), Timestamp(61_000), Timestamp(60_000)));
        assert_eq!((min.value, median.value), (d("37.60"), d("37.6")));
    }

    #[test]
    fn a_glucose_stream_is_summarised_by_its_last_value() {
        let unit = Unit::MilligramPerDecilitre;
        let window = whole(Metric::GlucoseInterstitial, &[value(2, 100, "99", unit), value(1, 61, "104", unit)]);
        let window = window.expect("a window");
        let last = Sample { at: Timestamp(100_000), value: d("99") };
        assert_eq!((window.n, window.summary), (2, Some(WindowSummary::Last { last })));
        assert_eq!(window.coverage_permille, 983);
    }

    #[test]
    fn a_side_takes_nothing_from_before_its_edge() {
        let edge = Timestamp(90_000);
        let points = [value(1, 88, "97", Unit::Percent), value(2, 110, "91", Unit::Percent)];
        let side = make_window(&stream(Metric::Spo2), MINUTE, edge, MINUTE.end(), &points).expect("a window");
        assert_eq!((side.n, side.coverage_permille), (1, 333), "110..120 of 90..120");
    }

    #[test]
    fn a_slot_is_cut_at_the_edges_strictly_inside_it() {
        let at = |s: i64| Timestamp(s * 1000);
        assert_eq!(cut(MINUTE, &[]), [(at(60), at(120))]);
        assert_eq!(cut(MINUTE, &[at(60), at(120), at(300)]), [(at(60), at(120))]);
        assert_eq!(cut(MINUTE, &[at(90), at(70), at(90)]), [(at(60), at(70)), (at(70), at(90)), (at(90), at(120))]);
    }

    #[test]
    fn slots_are_aligned_to_utc_multiples_also_before_1970() {
        assert_eq!(Slot::containing(Timestamp(119_999), 60), MINUTE);
        assert_eq!(Slot::containing(Timestamp(120_000), 60), MINUTE.next());
        assert_eq!(Slot::containing(Timestamp(-1), 900).start, Timestamp(-900_000));
    }

    fn any_point() -> impl Strategy<Value = Point> {
        let kind = prop_oneof![
            (any::<i64>(), -20i8..20).prop_map(|(m, e)| PointKind::Value { value: Decimal::new(m, e), unit: Unit::Percent }),
            (850i64..1000).prop_map(|m| PointKind::Value { value: Decimal::new(m, -1), unit: Unit::Percent }),
            Just(PointKind::Excluded(Exclusion::NoValue)),
            Just(PointKind::Excluded(Exclusion::Questionable)),
        ];
        (1u64..500, 40_000i64..130_000, kind).prop_map(|(seq, at, kind)| Point { seq: Seq(seq), at: Timestamp(at), kind })
    }

    proptest! {
        #[test]
        fn a_window_does_not_depend_on_the_order_of_its_points(mut points in prop::collection::vec(any_point(), 0..40)) {
            points.sort_by_key(|p| p.seq);
            points.dedup_by_key(|p| p.seq);
            for metric in [Metric::Spo2, Metric::GlucoseInterstitial, Metric::EnergyExpended] {
                let first = whole(metric, &points);
                points.reverse();
                prop_assert_eq!(&first, &whole(metric, &points));
                let third = points.len() / 3;
                points.rotate_left(third);
                prop_assert_eq!(&first, &whole(metric, &points));
                if let Some(window) = first {
                    let counted = window.n + window.excluded.iter().map(|(_, n)| n).sum::<u32>();
                    let inside = points.iter().filter(|p| MINUTE.start <= p.at && p.at < MINUTE.end()).count();
                    prop_assert_eq!(counted as usize, inside);
                    prop_assert!(window.coverage_permille <= 1000);
                }
            }
        }
    }
}
