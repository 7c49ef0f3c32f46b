//! Holds each device to a rate that no real one reaches, without I/O and without a clock: one that floods, broken or
//! hostile, costs the others nothing but what it may have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::reading::DeviceId;

/// Values at once: what a meter with a full memory tells when it is asked for all of it, several times over.
pub const BURST: u32 = 4_096;
/// And from then on one every so long. Streams tell up to ten values a second, and waveforms come many samples a value.
const ONE_EVERY: Duration = Duration::from_millis(5);

#[derive(Default)]
pub struct Flood {
    devices: BTreeMap<DeviceId, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// When all it has used will be given back.
    full_at: Instant,
    dropped: u64,
}

impl Flood {
    /// Whether a value of the device may pass; if not, it is counted.
    pub fn admits(&mut self, now: Instant, device: DeviceId) -> bool {
        let bucket = self.devices.entry(device).or_insert(Bucket { full_at: now, dropped: 0 });
        let next = bucket.full_at.max(now) + ONE_EVERY;
        let admitted = next.saturating_duration_since(now) <= ONE_EVERY * BURST;
        if admitted {
            bucket.full_at = next;
        } else {
            bucket.dropped += 1;
        }
        admitted
    }

    pub fn dropped(&self, device: DeviceId) -> u64 {
        self.devices.get(&device).map_or(0, |bucket| bucket.dropped)
    }

    /// Of those that ever flooded.
    pub fn all_dropped(&self) -> impl Iterator<Item = (DeviceId, u64)> {
        self.devices.iter().filter(|(_, bucket)| bucket.dropped > 0).map(|(device, bucket)| (*device, bucket.dropped))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: DeviceId = DeviceId::new([1; 6]);
    const OTHER: DeviceId = DeviceId::new([2; 6]);

    proptest! {
        /// However the flood comes, no more passes than the burst and the rate, what does not is counted, and nobody else
        /// notices.
        #[test]
        fn a_flood_passes_at_its_rate_is_counted_and_costs_nobody_else_a_value(
            bursts in proptest::collection::vec((0u64..20_000, 1u32..6_000), 1..20),
        ) {
            let (mut flood, start) = (Flood::default(), Instant::now());
            let (mut now, mut passed, mut sent) = (start, 0u64, 0u64);
            for (pause, values) in bursts {
                now += Duration::from_millis(pause);
                for _ in 0..values {
                    sent += 1;
                    passed += u64::from(flood.admits(now, ONE));
                }
                prop_assert!(flood.admits(now, OTHER));
                let rate = u64::try_from((now - start).as_millis() / ONE_EVERY.as_millis()).unwrap();
                prop_assert!(passed <= u64::from(BURST) + rate, "{passed} passed");
                prop_assert!(passed >= sent.min(u64::from(BURST)), "{passed} of {sent}");
            }
            prop_assert_eq!(flood.dropped(ONE), sent - passed);
            prop_assert_eq!(flood.dropped(OTHER), 0);
        }
    }

    #[test]
    fn a_device_that_streams_a_hundred_values_a_second_for_an_hour_is_no_flood() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        assert!((0..360_000).all(|n| flood.admits(start + Duration::from_millis(n * 10), ONE)));
        assert_eq!(flood.all_dropped().count(), 0);
    }
}
