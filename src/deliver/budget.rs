//! What a route may send in a day, in octets: for lines that are paid for by volume. Pure.
//!
//! A day is one of the gateway's zone. Live values may spend all of it, the backlog three quarters, so that a day begun with
//! a long backlog still has room for what is measured.

use jiff::tz::TimeZone;

use super::Lane;
use crate::reading::Timestamp;

/// Octets in a mark; a day number fits above for 90,000 years.
const OCTET_BITS: u32 = 38;

#[derive(Debug)]
pub struct Budget {
    limit: u64,
    zone: TimeZone,
    /// Days since 1970; 0 before the first clock.
    day: u64,
    spent: u64,
}

impl Budget {
    /// More than the largest limit a config can have.
    const MAX: u64 = (1 << OCTET_BITS) - 1;

    /// `mark` is what [`Budget::mark`] said before a restart.
    pub fn new(limit: u64, zone: TimeZone, mark: Option<u64>) -> Self {
        let mark = mark.unwrap_or(0);
        Self { limit, zone, day: mark >> OCTET_BITS, spent: mark & Self::MAX }
    }

    /// A new day begins with nothing spent. Without a clock there is no midnight; where a clock went back, what is spent is
    /// spent.
    pub fn roll(&mut self, wall: Option<Timestamp>) {
        let Some(day) = wall.and_then(|wall| self.day_of(wall)) else { return };
        if day > self.day && self.day > 0 {
            self.spent = 0;
        }
        self.day = day;
    }

    pub fn spend(&mut self, octets: u64) {
        self.spent = self.spent.saturating_add(octets).min(Self::MAX);
    }

    pub fn allows(&self, lane: Lane) -> bool {
        self.spent < self.share(lane)
    }

    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// For the next run of the daemon.
    pub fn mark(&self) -> u64 {
        self.day << OCTET_BITS | self.spent
    }

    const fn share(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Live => self.limit,
            Lane::Backlog => self.limit / 4 * 3,
        }
    }

    fn day_of(&self, wall: Timestamp) -> Option<u64> {
        let date = self.zone.to_datetime(jiff::Timestamp::from_millisecond(wall.0).ok()?).date();
        let days = (date - jiff::civil::date(1970, 1, 1)).get_days();
        u64::try_from(days).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<Timestamp> {
        Some(Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond()))
    }

    #[test]
    fn live_values_may_spend_all_of_a_day_and_the_backlog_three_quarters() {
        let mut budget = Budget::new(1_000, TimeZone::UTC, None);
        let open = |budget: &Budget| (budget.allows(Lane::Live), budget.allows(Lane::Backlog));
        assert_eq!(open(&budget), (true, true));
        budget.spend(750);
        assert_eq!(open(&budget), (true, false));
        budget.spend(250);
        assert_eq!(open(&budget), (false, false));
        budget.spend(u64::MAX);
        assert_eq!(Budget::new(1_000, TimeZone::UTC, Some(budget.mark())).spent(), Budget::MAX);
    }

    #[test]
    fn a_day_ends_at_the_gateways_midnight_and_a_restart_is_no_new_day() {
        let vienna = || TimeZone::get("Europe/Vienna").expect("tzdata is installed");
        let mut budget = Budget::new(1_000, vienna(), None);
        budget.roll(at("2026-07-01T21:59:00Z"));
        budget.spend(600);
        let mut budget = Budget::new(1_000, vienna(), Some(budget.mark()));
        budget.roll(at("2026-07-01T21:59:59Z"));
        assert_eq!(budget.spent(), 600, "23:59:59 there");
        budget.roll(at("2026-07-01T22:00:00Z"));
        assert_eq!(budget.spent(), 0);
    }

    #[test]
    fn a_clock_that_comes_late_or_goes_back_gives_nothing_away() {
        let mut budget = Budget::new(1_000, TimeZone::UTC, None);
        budget.roll(None);
        budget.spend(400);
        budget.roll(at("2026-07-01T12:00:00Z"));
        assert_eq!(budget.spent(), 400, "spent before the clock came");
        budget.roll(at("2026-06-30T12:00:00Z"));
        assert_eq!(budget.spent(), 400);
        budget.roll(at("2026-07-01T12:00:00Z"));
        assert_eq!(budget.spent(), 0, "the next day after all");
        let mut again = Budget::new(1_000, TimeZone::UTC, Some(budget.mark()));
        again.spend(5);
        again.roll(None);
        assert_eq!(again.spent(), 5, "without a clock there is no midnight");
    }
}
