//! A glucose and its context come as two notifications, in either order, and the context may never come. They are brought
//! together by sequence number, for a bounded time and in bounded memory; nothing is dropped, only sent without its partner.

use super::{GlucoseMeasurement, GlucoseMeasurementContext, Measurement, Observed};
use crate::reading::BootMillis;

/// A glucose, or a context whose glucose never came, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlucoseRecord {
    Measured(GlucoseMeasurement),
    Paired(GlucoseMeasurement, GlucoseMeasurementContext),
    Context(GlucoseMeasurementContext),
}

impl GlucoseRecord {
    pub fn observed(&self) -> Observed {
        match self {
            GlucoseRecord::Measured(measurement) => measurement.observed(),
            GlucoseRecord::Context(context) => context.observed(),
            GlucoseRecord::Paired(measurement, context) => {
                let mut observed = measurement.observed();
                let remarks = context.remarks();
                observed.values.iter_mut().for_each(|value| value.status.extend(&remarks));
                observed.values.extend(context.values());
                observed
            }
        }
    }
}

/// What waits for its partner, oldest first. `T` is what goes along with a value, such as how it was heard: a pair has that of
/// its measurement.
#[derive(Clone, Debug)]
pub struct GlucosePairs<T> {
    waiting: Vec<(BootMillis, T, GlucoseRecord)>,
}

impl<T> Default for GlucosePairs<T> {
    fn default() -> Self {
        Self { waiting: Vec::new() }
    }
}

impl<T> GlucosePairs<T> {
    /// A context follows within a connection interval or two, or belongs to the same transfer, whose end calls
    /// [`Self::finish`]; 5 s are many.
    pub const WAIT_MS: u64 = 5_000;
    /// A meter sends a context beside its measurement: more than a few apart are strays.
    pub const MAX_WAITING: usize = 16;

    /// Takes a measurement; gives back what is complete by now, oldest first.
    pub fn measured(&mut self, now: BootMillis, along: T, measurement: GlucoseMeasurement) -> Vec<(T, GlucoseRecord)> {
        let mut done = self.due(now);
        let partner = self.waiting.iter().position(|(_, _, waiting)| match waiting {
            GlucoseRecord::Context(context) => context.sequence == measurement.sequence,
            _ => false,
        });
        match partner.map(|at| self.waiting.remove(at).2) {
            Some(GlucoseRecord::Context(context)) => done.push((along, GlucoseRecord::Paired(measurement, context))),
            _ if measurement.context_follows => self.wait(now, along, GlucoseRecord::Measured(measurement), &mut done),
            _ => done.push((along, GlucoseRecord::Measured(measurement))),
        }
        done
    }

    /// Takes a context; gives back what is complete by now, oldest first.
    pub fn context(&mut self, now: BootMillis, along: T, context: GlucoseMeasurementContext) -> Vec<(T, GlucoseRecord)> {
        let mut done = self.due(now);
        let partner = self.waiting.iter().position(|(_, _, waiting)| match waiting {
            GlucoseRecord::Measured(measurement) => measurement.sequence == context.sequence,
            _ => false,
        });
        match partner.map(|at| self.waiting.remove(at)) {
            Some((_, along, GlucoseRecord::Measured(measurement))) => {
                done.push((along, GlucoseRecord::Paired(measurement, context)));
            }
            _ => self.wait(now, along, GlucoseRecord::Context(context), &mut done),
        }
        done
    }

    /// What has waited too long goes without its partner.
    pub fn due(&mut self, now: BootMillis) -> Vec<(T, GlucoseRecord)> {
        let kept = self.waiting.iter().position(|(since, ..)| now.0.saturating_sub(since.0) <= Self::WAIT_MS);
        self.waiting.drain(..kept.unwrap_or(self.waiting.len())).map(|(_, along, record)| (along, record)).collect()
    }

    /// The transfer or the link has ended: nothing will follow.
    pub fn finish(&mut self) -> Vec<(T, GlucoseRecord)> {
        self.waiting.drain(..).map(|(_, along, record)| (along, record)).collect()
    }

    fn wait(&mut self, now: BootMillis, along: T, record: GlucoseRecord, done: &mut Vec<(T, GlucoseRecord)>) {
        if self.waiting.len() == Self::MAX_WAITING {
            let (_, along, oldest) = self.waiting.remove(0);
            done.push((along, oldest));
        }
        self.waiting.push((now, along, record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{Status, read};
    use crate::reading::{Flag, Metric};
    use proptest::prelude::*;

    fn measurement(sequence: u16, context_follows: bool) -> GlucoseMeasurement {
        let [low, high] = sequence.to_le_bytes();
        let flags = if context_follows { 0x12 } else { 0x02 };
        let octets = [flags, low, high, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x6E, 0xB0, 0x11];
        read(&octets).expect("a glucose").0
    }

    fn context(sequence: u16) -> GlucoseMeasurementContext {
        let [low, high] = sequence.to_le_bytes();
        read(&[0x42, low, high, 3, 0x41, 0xF0]).expect("a context").0
    }

    #[test]
    fn a_glucose_and_its_context_are_one_record_whichever_comes_first() {
        let pair = GlucoseRecord::Paired(measurement(7, true), context(7));
        let mut pairs = GlucosePairs::default();
        assert_eq!(pairs.measured(BootMillis(0), "glucose", measurement(7, true)), []);
        assert_eq!(pairs.context(BootMillis(9), "context", context(7)), [("glucose", pair)]);
        assert_eq!(pairs.context(BootMillis(10), "context", context(7)), []);
        assert_eq!(pairs.measured(BootMillis(19), "glucose", measurement(7, true)), [("glucose", pair)]);
        let observed = pair.observed();
        let metrics: Vec<_> = observed.values.iter().map(|value| value.metric).collect();
        assert_eq!(metrics, [Metric::Glucose, Metric::Hba1c]);
        assert_eq!(observed.values[0].status, [Status::Flag(Flag::Fasting)]);
        assert_eq!(observed.sequence, Some(7));
    }

    #[test]
    fn a_glucose_without_a_context_waits_for_nobody() {
        let alone = measurement(1, false);
        let done = GlucosePairs::default().measured(BootMillis(0), (), alone);
        assert_eq!(done, [((), GlucoseRecord::Measured(alone))]);
    }

    #[test]
    fn what_never_gets_its_partner_goes_alone_after_its_time_or_at_the_end() {
        let mut pairs = GlucosePairs::default();
        pairs.measured(BootMillis(0), 1, measurement(1, true));
        pairs.context(BootMillis(1_000), 2, context(2));
        let wait = GlucosePairs::<u8>::WAIT_MS;
        assert_eq!(pairs.due(BootMillis(wait)), []);
        assert_eq!(pairs.due(BootMillis(wait + 1)), [(1, GlucoseRecord::Measured(measurement(1, true)))]);
        assert_eq!(pairs.finish(), [(2, GlucoseRecord::Context(context(2)))]);
        assert_eq!(pairs.finish(), []);
    }

    proptest! {
        /// Everything that goes in comes out once, in bounded memory, and no pair is of two sequence numbers or of what went
        /// along with another.
        #[test]
        fn nothing_is_lost_doubled_or_mispaired(
            steps in proptest::collection::vec((any::<bool>(), 0u16..6, any::<bool>(), 0u64..4_000), 0..80),
        ) {
            let (mut pairs, mut now, mut out, mut given) = (GlucosePairs::default(), 0, Vec::new(), 0);
            for (is_context, sequence, follows, later) in steps {
                now += later;
                out.extend(match is_context {
                    true => pairs.context(BootMillis(now), sequence, context(sequence)),
                    false => pairs.measured(BootMillis(now), sequence, measurement(sequence, follows)),
                });
                given += 1;
                prop_assert!(pairs.waiting.len() <= GlucosePairs::<u16>::MAX_WAITING);
            }
            out.extend(pairs.finish());
            let mut seen = 0;
            for (along, record) in out {
                let (sequence, parts) = match record {
                    GlucoseRecord::Paired(measurement, context) => {
                        prop_assert_eq!(measurement.sequence, context.sequence);
                        (measurement.sequence, 2)
                    }
                    GlucoseRecord::Measured(measurement) => (measurement.sequence, 1),
                    GlucoseRecord::Context(context) => (context.sequence, 1),
                };
                prop_assert_eq!(along, sequence);
                seen += parts;
            }
            prop_assert_eq!(seen, given);
        }
    }
}
