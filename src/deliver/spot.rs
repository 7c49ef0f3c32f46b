//! A device that is whoever's is next: only a scan says whose its readings are, and only the first few within its time. Pure.
//! A stream that is used so gives a value when it has been stable, and none before.

use std::collections::BTreeMap;

use crate::reading::{Body, Class, Decimal, Metric, Modality, Record, RecordId, Timestamp, Unit, Value, WallTime};
use crate::ward::{Binding, HoldReason, Rule};

/// How a scan ties readings of one device to a patient.
#[derive(Clone, Debug, Default)]
pub struct SpotRules {
    /// With a worse clock a reading waits.
    pub max_uncertainty_ms: Option<u32>,
    /// A stream gives one value when it is stable so long.
    pub stable_for_ms: Option<i64>,
    /// How far apart values of a stable stream may lie; of a metric that is not in it nothing is compared.
    pub within: BTreeMap<Metric, (Decimal, Unit)>,
}

/// What a reading is to the scan in whose time it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// One of those the scan ties to its patient.
    Counts,
    /// There were enough before it.
    Beyond,
    /// Of a stream, and not the value it gives.
    Passing,
}

impl SpotRules {
    /// Whether this stream goes on telling values, of which the stable one is taken.
    pub fn is_steadied(&self, record: &Record) -> bool {
        let ongoing = |modality| !matches!(modality, Modality::Spot | Modality::Intermediate);
        self.stable_for_ms.is_some()
            && matches!(record.body, Body::Reading(_))
            && record.stream.is_some_and(|stream| ongoing(stream.modality))
    }

    /// What becomes of a binding on such a device: nobody has it but by a scan, and no scan covers it for ever.
    pub fn bind(&self, bound: Result<Binding, HoldReason>, at: WallTime, share: Option<Share>) -> Result<Binding, HoldReason> {
        if self.max_uncertainty_ms.is_some_and(|most| at.uncertainty_ms > most) {
            return Err(HoldReason::AmbiguousTime);
        }
        match bound {
            Ok(binding) if binding.rule == Rule::Spot && share != Some(Share::Beyond) => Ok(binding),
            Ok(_) | Err(HoldReason::NoAssignment | HoldReason::BeforeAssignment) => Err(HoldReason::OutsideSpot),
            Err(reason) => Err(reason),
        }
    }

    /// What each reading of one stream in one scan is to it; `samples` in the order of the log, so that nothing that comes
    /// later changes it.
    pub fn shares(&self, metric: Metric, samples: &[Sample], readings: u16, steadied: bool) -> BTreeMap<RecordId, Share> {
        let mut steady = steadied.then(|| Steady {
            for_ms: self.stable_for_ms.unwrap_or(0),
            longest_gap_ms: i64::from(metric.row().hold_s) * 1_000,
            within: self.within.get(&metric).copied(),
            span: Vec::new(),
        });
        let mut left = readings;
        let mut share_of = |sample: &Sample| {
            let given = steady.as_mut().is_none_or(|steady| steady.gives(*sample));
            match (given, left) {
                (true, 1..) => {
                    left -= 1;
                    Share::Counts
                }
                (true, 0) if !steadied => Share::Beyond,
                _ => Share::Passing,
            }
        };
        samples.iter().map(|sample| (sample.id, share_of(sample))).collect()
    }
}

/// One reading of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub id: RecordId,
    pub at: Timestamp,
    /// `None` where the value is in doubt or there is none.
    pub value: Option<(Decimal, Unit)>,
}

impl Sample {
    pub fn of(record: &Record, at: Timestamp) -> Option<Self> {
        let Body::Reading(reading) = &record.body else { return None };
        let value = match &reading.value {
            Value::Number { value, unit } if reading.class == Class::Measured => Some((*value, *unit)),
            _ => None,
        };
        Some(Self { id: record.id, at, value })
    }
}

struct Steady {
    for_ms: i64,
    longest_gap_ms: i64,
    within: Option<(Decimal, Unit)>,
    /// The latest samples, none of which lies too far from another.
    span: Vec<Sample>,
}

impl Steady {
    /// Whether the stream has been stable for long enough with this sample; after that it begins anew.
    fn gives(&mut self, sample: Sample) -> bool {
        let interrupted = self.span.last().is_some_and(|last| sample.at.0 - last.at.0 > self.longest_gap_ms);
        if interrupted || sample.value.is_none() {
            self.span.clear();
        }
        let Some(value) = sample.value else { return false };
        let apart = self.span.iter().rposition(|other| !self.agree(other.value, value));
        self.span.drain(..apart.map_or(0, |last| last + 1));
        self.span.push(sample);
        let stable = sample.at.0 - self.span[0].at.0 >= self.for_ms;
        if stable {
            self.span.clear();
        }
        stable
    }

    fn agree(&self, other: Option<(Decimal, Unit)>, (value, unit): (Decimal, Unit)) -> bool {
        let (Some((within, of)), Some((other, other_unit))) = (self.within, other) else { return true };
        let (low, high) = if value.cmp_value(other).is_lt() { (value, other) } else { (other, value) };
        let apart = high.checked_sub(low);
        unit == of && other_unit == of && apart.is_some_and(|apart| apart.cmp_value(within).is_le())
    }
}

/// How far apart values of a stable stream may lie, where the config does not say by `agree_within`: what such devices
/// themselves are accurate to.
pub fn usual_agreement(metric: Metric) -> Option<(Decimal, Unit)> {
    let within = |mantissa, exponent, unit| Some((Decimal::new(mantissa, exponent), unit));
    match metric {
        Metric::Spo2 => within(2, 0, Unit::Percent),
        Metric::HeartRate | Metric::PulseRateOximeter => within(5, 0, Unit::PerMinute),
        Metric::BodyTemperature => within(2, -1, Unit::DegreeCelsius),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: u8, at_s: i64, value: Option<i64>) -> Sample {
        let value = value.map(|value| (Decimal::new(value, 0), Unit::Percent));
        Sample { id: RecordId([n; 16]), at: Timestamp(at_s * 1_000), value }
    }

    fn stream(values: &[(i64, Option<i64>)]) -> Vec<Sample> {
        values.iter().enumerate().map(|(n, (at, value))| sample(n as u8, *at, *value)).collect()
    }

    fn counted(rules: &SpotRules, samples: &[Sample], readings: u16) -> Vec<u8> {
        let shares = rules.shares(Metric::Spo2, samples, readings, rules.stable_for_ms.is_some());
        shares.into_iter().filter(|(_, share)| *share == Share::Counts).map(|(id, _)| id.0[0]).collect()
    }

    fn stable_for(seconds: i64) -> SpotRules {
        let within = [(Metric::Spo2, (Decimal::new(2, 0), Unit::Percent))].into();
        SpotRules { max_uncertainty_ms: None, stable_for_ms: Some(seconds * 1_000), within }
    }

    #[test]
    fn a_scan_takes_the_first_few_readings_of_a_stream_and_no_more() {
        let three = stream(&[(0, Some(97)), (30, None), (60, Some(95)), (90, Some(96))]);
        let shares = SpotRules::default().shares(Metric::Spo2, &three, 2, false);
        let of = |n: u8| shares[&RecordId([n; 16])];
        assert_eq!([of(0), of(1), of(2), of(3)], [Share::Counts, Share::Counts, Share::Beyond, Share::Beyond]);
    }

    #[test]
    fn a_stream_gives_one_value_when_it_is_stable_and_none_before() {
        let settling: Vec<_> = (0..30).map(|s| (s, Some(if s < 8 { 80 + 2 * s } else { 96 + s % 3 }))).collect();
        assert_eq!(counted(&stable_for(10), &stream(&settling), 1), [18], "ten seconds after it came to rest at 8");
        assert_eq!(counted(&stable_for(10), &stream(&settling), 2), [18, 29], "and the next after it was stable once more");
        assert_eq!(counted(&stable_for(10), &stream(&settling[..16]), 1), [0u8; 0], "the finger was gone too soon");
    }

    #[test]
    fn a_doubtful_value_a_jump_and_a_pause_begin_the_wait_anew() {
        let steady = |but: &dyn Fn(i64) -> (i64, Option<i64>)| stream(&(0..30).map(but).collect::<Vec<_>>());
        assert_eq!(counted(&stable_for(10), &steady(&|s| (s, Some(97))), 1), [10]);
        assert_eq!(counted(&stable_for(10), &steady(&|s| (s, (s != 5).then_some(97))), 1), [16]);
        assert_eq!(counted(&stable_for(10), &steady(&|s| (s, Some(if s == 5 { 90 } else { 97 }))), 1), [16]);
        assert_eq!(counted(&stable_for(10), &steady(&|s| (if s > 5 { s + 60 } else { s }, Some(97))), 1), [16]);
    }
}
