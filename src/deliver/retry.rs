//! How long to wait before the next try: decorrelated jitter, so that a thousand gateways of a site that lost its broker do
//! not come back at the same moment. Pure; chance comes in as a number.

use std::time::Duration;

use super::FaultClass;

/// A broker that restarts is back within a second or two.
const FIRST: Duration = Duration::from_secs(1);
/// A route that was down for days is up again within a minute of its destination.
const CAP: Duration = Duration::from_secs(60);

/// A thousand gateways that lost one broker come back over this long, not at once.
const SOONEST: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Backoff {
    /// The first wait after something went right lies between these.
    fresh: (Duration, Duration),
    first: Duration,
    cap: Duration,
    /// `None`: something went right since the last failure.
    last: Option<Duration>,
}

impl Default for Backoff {
    /// After something went right within a second, since most lines that break are back at once; then from a second to a minute.
    fn default() -> Self {
        Self { fresh: (SOONEST, FIRST), ..Self::between(FIRST, CAP) }
    }
}

impl Backoff {
    pub const fn between(first: Duration, cap: Duration) -> Self {
        Self { fresh: (first, first.saturating_mul(3)), first, cap, last: None }
    }

    /// The next wait: anywhere between the first and three times the last, capped.
    pub fn next(&mut self, chance: u32) -> Duration {
        let (from, to) = self.last.map_or(self.fresh, |last| (self.first, last * 3));
        let part = to.saturating_sub(from).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        let wait = (from + part).min(self.cap);
        self.last = Some(wait.max(self.first));
        wait
    }

    /// The wait after a connection ended like this.
    pub fn after(&mut self, class: FaultClass, chance: u32) -> Duration {
        self.next(chance).max(at_least(class))
    }

    /// Something went right.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

/// Where coming back at once would make it worse.
const fn at_least(class: FaultClass) -> Duration {
    match class {
        // It has too much to do, or we were too much: every connection costs it more than a message.
        FaultClass::Busy | FaultClass::Quota => Duration::from_secs(10),
        // Two clients of one name throw each other out as often as they come back.
        FaultClass::TakenOver => Duration::from_secs(30),
        // Nothing changes before a person changes `url`.
        FaultClass::Moved => CAP,
        _ => Duration::ZERO,
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
    fn a_broker_in_trouble_is_left_alone_for_longer_than_a_broken_line() {
        let wait = |class| Backoff::default().after(class, 0);
        assert_eq!(wait(FaultClass::Broken), SOONEST);
        assert_eq!(wait(FaultClass::Ended), SOONEST);
        assert!(wait(FaultClass::Busy) >= FIRST * 10 && wait(FaultClass::Quota) >= FIRST * 10);
        assert!(wait(FaultClass::TakenOver) >= FIRST * 30);
        assert_eq!(wait(FaultClass::Moved), CAP);
        assert!(FaultClass::ALL.iter().all(|class| wait(*class) <= CAP), "back within a minute, whatever it was");
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
