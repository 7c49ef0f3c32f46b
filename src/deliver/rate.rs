//! How fast a route may send: a bucket of messages that fills with time, lowered where a destination says that it is too
//! much. Pure: time is what has passed since the route began.

use std::time::Duration;

/// What may go at once after a pause: a second's worth.
const BURST: f64 = 1.0;
/// Over which the speed so far is taken when a destination has had enough of it.
const LOOK_BACK: Duration = Duration::from_secs(10);
/// Never slower, in messages a second: a destination that takes one now and then hears from us.
const SLOWEST: f64 = 0.1;
/// So long without a complaint, and it may be twice as fast.
const EASE_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Rate {
    /// As configured.
    max: Option<f64>,
    lowered: Option<Lowered>,
    /// Messages that may go now; below zero after one that was more than one.
    tokens: f64,
    filled: Duration,
    /// Messages since `counted_from`.
    count: u64,
    counted_from: Duration,
}

#[derive(Debug)]
struct Lowered {
    limit: f64,
    /// What was too much.
    from: f64,
    since: Duration,
}

impl Rate {
    pub fn new(max: Option<u32>) -> Self {
        let max = max.map(f64::from);
        let tokens = max.map_or(0.0, |max| (max * BURST).max(1.0));
        Self { max, lowered: None, tokens, filled: Duration::ZERO, count: 0, counted_from: Duration::ZERO }
    }

    /// Messages a second at most; `None`: as many as are taken.
    pub fn limit(&self) -> Option<f64> {
        self.lowered.as_ref().map(|lowered| lowered.limit).or(self.max)
    }

    /// Whether a message may go now.
    pub fn is_open(&mut self, now: Duration) -> bool {
        self.ease(now);
        self.fill(now);
        self.limit().is_none() || self.tokens >= 1.0
    }

    /// So many messages went.
    pub fn spend(&mut self, messages: u32, now: Duration) {
        self.tokens -= f64::from(messages);
        if now.saturating_sub(self.counted_from) > LOOK_BACK {
            (self.count, self.counted_from) = (0, now);
        }
        self.count += u64::from(messages);
    }

    /// The destination had too much: half as fast from now on.
    pub fn lower(&mut self, now: Duration) {
        let span = now.saturating_sub(self.counted_from).as_secs_f64().max(1.0);
        let from = self.limit().unwrap_or(self.count as f64 / span);
        let was = self.lowered.as_ref().map_or(from, |lowered| lowered.from);
        self.lowered = Some(Lowered { limit: (from / 2.0).max(SLOWEST), from: was, since: now });
        (self.tokens, self.filled) = (self.tokens.clamp(0.0, 1.0), now);
    }

    /// When [`Rate::is_open`] turns true.
    pub fn open_at(&self, now: Duration) -> Option<Duration> {
        let limit = self.limit()?;
        let missing = 1.0 - self.tokens;
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing / limit) + Duration::from_millis(1))
    }

    fn fill(&mut self, now: Duration) {
        let Some(limit) = self.limit() else { return };
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * limit).min((limit * BURST).max(1.0));
    }

    fn ease(&mut self, now: Duration) {
        let Some(lowered) = &mut self.lowered else { return };
        if now.saturating_sub(lowered.since) < EASE_AFTER {
            return;
        }
        (lowered.limit, lowered.since) = (lowered.limit * 2.0, now);
        if lowered.limit >= lowered.from * 2.0 || self.max.is_some_and(|max| lowered.limit >= max) {
            self.lowered = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends as fast as it may; answers how many went in a span.
    fn run(rate: &mut Rate, from: Duration, span: Duration) -> u32 {
        let (mut now, mut sent) = (from, 0);
        while now < from + span {
            if rate.is_open(now) {
                rate.spend(1, now);
                sent += 1;
            }
            now = rate.open_at(now).unwrap_or(now + Duration::from_millis(1));
        }
        sent
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_twice_the_limit_and_an_hour_no_more_than_an_hours_worth(max in 1u32..500, idle in 0u64..1_000) {
            let mut rate = Rate::new(Some(max));
            let from = Duration::from_secs(idle);
            let sent = run(&mut rate, from, Duration::from_secs(60));
            prop_assert!(sent <= max * 61 && sent >= max * 50, "{} of {} in a minute", sent, max * 60);
            let mut rate = Rate::new(Some(max));
            prop_assert!(run(&mut rate, from, Duration::from_secs(1)) <= 2 * max);
        }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut rate = Rate::new(None);
        assert!(rate.is_open(Duration::ZERO));
        assert_eq!((rate.limit(), rate.open_at(Duration::ZERO)), (None, None));
    }

    #[test]
    fn a_destination_that_has_too_much_gets_half_and_after_a_while_all_again() {
        let mut rate = Rate::new(None);
        let mut now = Duration::ZERO;
        for _ in 0..500 {
            rate.spend(1, now);
            now += Duration::from_millis(10);
        }
        rate.lower(now);
        let halved = rate.limit().expect("a limit");
        assert!((45.0..=55.0).contains(&halved), "{halved}");
        rate.lower(now);
        assert!(rate.limit().is_some_and(|limit| limit < halved));
        (0..20).for_each(|_| rate.lower(now));
        assert!(rate.limit().is_some_and(|limit| limit >= SLOWEST), "it never stops");
        let recovered = (0..100).find(|_| {
            now += EASE_AFTER;
            rate.is_open(now);
            rate.limit().is_none()
        });
        assert!(recovered.is_some());
    }

    #[test]
    fn one_message_that_was_many_is_paid_for_afterwards() {
        let mut rate = Rate::new(Some(10));
        rate.spend(30, Duration::ZERO);
        assert!(!rate.is_open(Duration::from_secs(2)) && rate.is_open(Duration::from_millis(2_200)));
    }
}
