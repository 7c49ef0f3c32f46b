//! How long to wait before the next try: decorrelated jitter, so that a thousand gateways of a site that lost its broker do
//! not come back at the same moment. Pure; chance comes in as a number.

use std::time::Duration;

/// A broker that restarts is back within a second or two.
const FIRST: Duration = Duration::from_secs(1);
/// A route that was down for days is up again within a minute of its destination.
const CAP: Duration = Duration::from_secs(60);

/// A thousand gateways that lost one broker come back over this long, not at once.
const SOONEST: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Backoff {
    /// `None`: something went right since the last failure.
    last: Option<Duration>,
}

impl Backoff {
    /// The next wait: after something went right within a second, since most lines that break are back at once; then anywhere
    /// between a second and three times the last wait, capped.
    pub fn next(&mut self, chance: u32) -> Duration {
        let (from, to) = match self.last {
            None => (SOONEST, FIRST),
            Some(last) => (FIRST, last * 3),
        };
        let part = to.saturating_sub(from).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        let wait = (from + part).min(CAP);
        self.last = Some(wait.max(FIRST));
        wait
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
        fn the_first_wait_is_below_a_second_and_the_next_ones_between_that_and_a_minute(chances in proptest::collection::vec(any::<u32>(), 1..50)) {
            let mut backoff = Backoff::default();
            prop_assert!((SOONEST..=FIRST).contains(&backoff.next(chances[0])));
            for chance in chances {
                let wait = backoff.next(chance);
                prop_assert!((FIRST..=CAP).contains(&wait));
            }
            backoff.reset();
            prop_assert!(backoff.next(u32::MAX) <= FIRST);
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
