//! How long to wait before the next try: decorrelated jitter, so that a thousand gateways of a site that lost its broker do
//! not come back at the same moment. Pure; chance comes in as a number.

use std::time::Duration;

use super::FaultClass;

/// A broker that restarts is back within a second or two.
const FIRST: Duration = Duration::from_secs(1);
/// A route that was down for days is up again within a minute of its destination.
const CAP: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::between(FIRST, CAP)
    }
}

impl Backoff {
    pub const fn between(first: Duration, cap: Duration) -> Self {
        Self { first, cap, last: first }
    }

    /// The next wait: anywhere between the first and three times the last, capped.
    pub fn next(&mut self, chance: u32) -> Duration {
        let span = (self.last * 3).saturating_sub(self.first);
        let part = span.mul_f64(f64::from(chance) / f64::from(u32::MAX));
        self.last = (self.first + part).min(self.cap);
        self.last
    }

    /// The wait after a connection ended like this.
    pub fn after(&mut self, class: FaultClass, chance: u32) -> Duration {
        self.next(chance).max(at_least(class))
    }

    /// Something went right.
    pub fn reset(&mut self) {
        self.last = self.first;
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
    fn a_broker_in_trouble_is_left_alone_for_longer_than_a_broken_line() {
        let wait = |class| Backoff::default().after(class, 0);
        assert_eq!(wait(FaultClass::Broken), FIRST);
        assert_eq!(wait(FaultClass::Ended), FIRST);
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
