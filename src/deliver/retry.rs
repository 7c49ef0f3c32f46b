//! How long to wait before the next try: decorrelated jitter, so that a thousand gateways of a site that lost its broker do
//! not come back at the same moment. Pure; chance comes in as a number.

use std::time::Duration;

/// A broker that restarts is back within a second or two.
const FIRST: Duration = Duration::from_secs(1);
/// A route that was down for days is up again within a minute of its destination.
const CAP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Backoff {
    last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { last: FIRST }
    }
}

impl Backoff {
    /// The next wait: anywhere between the first and three times the last, capped.
    pub fn next(&mut self, chance: u32) -> Duration {
        let span = (self.last * 3).saturating_sub(FIRST);
        let part = span.mul_f64(f64::from(chance) / f64::from(u32::MAX));
        self.last = (FIRST + part).min(CAP);
        self.last
    }

    /// Something went right.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_stay_within_a_second_and_a_minute(chances in proptest::collection::vec(any::<u32>(), 1..50)) {
            let mut backoff = Backoff::default();
            for chance in chances {
                let wait = backoff.next(chance);
                prop_assert!((FIRST..=CAP).contains(&wait));
            }
            backoff.reset();
            prop_assert!(backoff.next(u32::MAX) <= FIRST * 3);
        }
    }

    #[test]
    fn two_gateways_do_not_stay_in_step() {
        let (mut a, mut b) = (Backoff::default(), Backoff::default());
        let waits: Vec<bool> = (1..6u32).map(|n| a.next(n * 700_000_000) == b.next(n * 300_000_000)).collect();
        assert!(waits.contains(&false));
        (0..20).for_each(|_| {
            a.next(u32::MAX);
        });
        assert_eq!(a.next(u32::MAX), CAP);
    }
}
