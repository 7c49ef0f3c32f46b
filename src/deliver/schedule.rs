//! When a route may send: at once, or in turns. Pure: time is what has passed since the route began, and the wall's time
//! where it is known.
//!
//! A turn is everything that was in the log when it began; what comes meanwhile waits for the next.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::config::When;
use crate::reading::{Seq, Timestamp};

/// Without a clock a daily turn comes after a day of running, so that nothing waits for ever.
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub struct Schedule {
    when: When,
    zone: TimeZone,
    /// Of this run.
    last: Option<Duration>,
    /// By the wall's clock, over restarts; of a route that had none yet, when its first clock was seen.
    last_wall: Option<Timestamp>,
    /// What the turn that is on takes in.
    turn: Option<Seq>,
}

impl Schedule {
    /// `last` is what [`Schedule::mark`] said before a restart.
    pub fn new(when: When, zone: TimeZone, last: Option<Timestamp>) -> Self {
        Self { when, zone, last: None, last_wall: last, turn: None }
    }

    /// Begins a turn if it is time for one; `true` if it did.
    pub fn begin(&mut self, now: Duration, wall: Option<Timestamp>, head: Seq) -> bool {
        if self.when == When::AtOnce || self.turn.is_some() || !self.is_due(now, wall) {
            return false;
        }
        (self.turn, self.last) = (Some(head), Some(now));
        self.last_wall = wall.or(self.last_wall);
        true
    }

    /// The last record that may go now; `None`: nothing may.
    pub fn limit(&self, head: Seq) -> Option<Seq> {
        if self.when == When::AtOnce { Some(head) } else { self.turn }
    }

    /// Everything of the turn has gone.
    pub fn over(&mut self) {
        self.turn = None;
    }

    /// For the next run of the daemon.
    pub fn mark(&self) -> Option<Timestamp> {
        self.last_wall.filter(|_| matches!(self.when, When::Daily { .. }))
    }

    /// When the next turn begins, for people.
    pub fn next(&self, now: Duration, wall: Option<Timestamp>) -> String {
        let minutes = |wait: Duration| format!("in {} min", wait.as_secs().div_ceil(60));
        match (self.when, wall) {
            (When::AtOnce, _) => "now".to_owned(),
            (When::Every(every), _) => minutes((self.last.unwrap_or_default() + every).saturating_sub(now)),
            (When::Daily { .. }, None) => minutes((self.last.unwrap_or_default() + DAY).saturating_sub(now)),
            (When::Daily { hour, minute }, Some(_)) => format!("at {hour:02}:{minute:02}"),
        }
    }

    fn is_due(&mut self, now: Duration, wall: Option<Timestamp>) -> bool {
        match (self.when, wall) {
            (When::AtOnce, _) => true,
            (When::Every(every), _) => self.last.is_none_or(|last| last + every <= now),
            (When::Daily { .. }, None) => self.last.unwrap_or_default() + DAY <= now,
            (When::Daily { hour, minute }, Some(wall)) => {
                // A time in the future was a wrong clock's.
                let last = *self.last_wall.insert(self.last_wall.filter(|last| *last <= wall).unwrap_or(wall));
                self.last_slot(wall, hour, minute).is_some_and(|slot| last < slot)
            }
        }
    }

    /// The newest time of day `hour:minute` that is not after `wall`. Where the clocks go forward over it, it is an hour later;
    /// where they go back over it, the first of the two.
    fn last_slot(&self, wall: Timestamp, hour: u8, minute: u8) -> Option<Timestamp> {
        let today = self.date(wall)?;
        let slot = |date: Date| {
            let local = date.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
            Some(Timestamp(self.zone.to_timestamp(local).ok()?.as_millisecond()))
        };
        slot(today).filter(|at| *at <= wall).or_else(|| slot(today.yesterday().ok()?))
    }

    fn date(&self, wall: Timestamp) -> Option<Date> {
        Some(self.zone.to_datetime(jiff::Timestamp::from_millisecond(wall.0).ok()?).date())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;
    const SIX: When = When::Daily { hour: 6, minute: 0 };

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond())
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("tzdata is installed")
    }

    /// Times of the turns of a route that looks every minute.
    fn turns(schedule: &mut Schedule, from: Timestamp, days: i64) -> Vec<Timestamp> {
        let minutes = (0..days * 24 * 60).map(|n| (Duration::from_secs(n as u64 * 60), from.plus_ms(n * MINUTE)));
        let begun = |(now, wall): (Duration, Timestamp)| {
            let begins = schedule.begin(now, Some(wall), Seq(1));
            schedule.over();
            begins.then_some(wall)
        };
        minutes.filter_map(begun).collect()
    }

    #[test]
    fn a_daily_turn_comes_once_a_day_also_where_the_clocks_change() {
        for (name, when) in [
            ("Europe/Vienna", When::Daily { hour: 2, minute: 30 }),
            ("Europe/Vienna", SIX),
            ("Australia/Lord_Howe", When::Daily { hour: 2, minute: 0 }),
            ("America/New_York", When::Daily { hour: 1, minute: 30 }),
            ("UTC", When::Daily { hour: 0, minute: 0 }),
        ] {
            let mut schedule = Schedule::new(when, zone(name), None);
            let all = turns(&mut schedule, at("2026-01-01T12:00:00Z"), 365);
            assert!((364..=365).contains(&all.len()), "{name} {when:?}: {}", all.len());
            let dates: Vec<_> = all.iter().map(|at| schedule.date(*at)).collect();
            assert!(dates.windows(2).all(|pair| pair[0] < pair[1]), "{name}: two in one day");
        }
        let mut schedule = Schedule::new(SIX, zone("Europe/Vienna"), None);
        let spring = turns(&mut schedule, at("2026-03-28T00:00:00Z"), 2);
        assert_eq!(spring, [at("2026-03-28T05:00:00Z"), at("2026-03-29T04:00:00Z")], "06:00 is 06:00 on both days");
    }

    #[test]
    fn a_turn_missed_while_the_gateway_was_off_is_made_when_it_is_back_and_one_made_is_not_made_again() {
        let wall = at("2026-05-01T09:00:00Z");
        let begins = |last| Schedule::new(SIX, TimeZone::UTC, last).begin(Duration::ZERO, Some(wall), Seq(1));
        assert!(begins(Some(at("2026-04-30T06:00:00Z"))));
        assert!(!begins(Some(at("2026-05-01T06:00:30Z"))));
        assert!(!begins(None), "a new route waits for its time");
        assert!(!begins(Some(at("2036-01-01T00:00:00Z"))), "a time in the future was a wrong clock's");
    }

    #[test]
    fn without_a_clock_a_daily_turn_comes_after_a_day_and_others_do_not_care() {
        let mut daily = Schedule::new(SIX, TimeZone::UTC, None);
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        assert!(!daily.begin(hours(23), None, Seq(1)) && daily.begin(hours(24), None, Seq(1)));
        daily.over();
        assert!(!daily.begin(hours(47), None, Seq(1)) && daily.begin(hours(48), None, Seq(1)));
        let mut every = Schedule::new(When::Every(hours(1)), TimeZone::UTC, None);
        assert!(every.begin(hours(0), None, Seq(1)), "the first at once");
        every.over();
        assert!(!every.begin(Duration::from_secs(3_599), None, Seq(1)) && every.begin(hours(1), None, Seq(1)));
    }

    proptest! {
        #[test]
        fn a_turn_takes_in_what_was_there_and_nothing_goes_between_turns(heads in proptest::collection::vec(1u64..9, 1..60)) {
            let mut schedule = Schedule::new(When::Every(Duration::from_secs(600)), TimeZone::UTC, None);
            let (mut head, mut began) = (0, None);
            for (minute, more) in heads.into_iter().enumerate() {
                head += more;
                let now = Duration::from_secs(minute as u64 * 60);
                if schedule.begin(now, None, Seq(head)) {
                    prop_assert_eq!(minute % 10, 0);
                    began = Some(Seq(head));
                }
                prop_assert_eq!(schedule.limit(Seq(head)), began);
                if minute % 10 == 4 {
                    schedule.over();
                    began = None;
                }
            }
        }
    }
}
