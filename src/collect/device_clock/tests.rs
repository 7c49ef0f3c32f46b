use super::*;
use proptest::prelude::*;

const MIN: i64 = 60_000;
const HOUR: i64 = 60 * MIN;
/// 2026-10-20T12:00:00Z: five days before summer time ends in Vienna.
const START: i64 = 1_792_497_600_000;

/// What a clock so far ahead of the true time shows.
fn shows(at: i64, offset_ms: i64) -> DeviceTime {
    let zero = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let civil = zero + jiff::SignedDuration::from_millis(at + offset_ms);
    DeviceTime {
        year: Some(civil.year() as u16),
        month: Some(civil.month() as u8),
        day: Some(civil.day() as u8),
        hour: civil.hour() as u8,
        minute: civil.minute() as u8,
        second: civil.second() as u8,
    }
}

fn vienna() -> TimeZone {
    TimeZone::get("Europe/Vienna").expect("tzdata is installed")
}

fn dated(clock: &DeviceClock, shown: DeviceTime, now: i64) -> Dated {
    clock.dated(shown, Timestamp(now), &TimeZone::UTC)
}

#[test]
fn a_clock_that_only_drifts_was_not_moved() {
    let mut clock = DeviceClock::default();
    assert_eq!(clock.read(shows(START, 5_000), Timestamp(START)), None);
    let later = START + 30 * DAY_MS;
    assert_eq!(clock.read(shows(later, 5_000 + 5 * MIN), Timestamp(later)), None, "ten seconds a day");
    assert_eq!(dated(&clock, shows(START + HOUR, 5_000), later), Dated::AsRead);
}

#[test]
fn what_was_measured_before_we_set_the_clock_is_dated_by_the_clock_as_it_stood() {
    let mut clock = DeviceClock::default();
    let wrong = -90 * MIN;
    clock.read(shows(START, wrong), Timestamp(START));
    let set = START + MIN;
    let moved = clock.set(Some((shows(set, wrong), Timestamp(set))), (shows(set + 1_000, 0), Timestamp(set + 1_000)));
    assert_eq!(moved.map(|moved| moved / 1_000), Some(90 * 60));
    let now = set + HOUR;
    assert_eq!(clock.read(shows(now, 0), Timestamp(now)), None, "it stands as we set it");
    let before = dated(&clock, shows(START - HOUR, wrong), now);
    assert!(matches!(before, Dated::AsItStood(by) if (by - wrong).abs() <= 1_000), "{before:?}");
    assert_eq!(dated(&clock, shows(now - 10 * MIN, 0), now), Dated::AsRead);
}

#[test]
fn a_clock_that_somebody_set_back_leaves_times_that_could_be_either_and_one_that_we_did_leaves_none() {
    let fast = 2 * HOUR;
    let now = START + 6 * HOUR;
    let mut by_somebody = DeviceClock::default();
    by_somebody.read(shows(START, fast), Timestamp(START));
    assert_eq!(by_somebody.read(shows(START + MIN, 0), Timestamp(START + MIN)), Some(-fast));
    let mut by_us = DeviceClock::default();
    by_us.read(shows(START, fast), Timestamp(START));
    by_us.set(Some((shows(START, fast), Timestamp(START))), (shows(START, 0), Timestamp(START)));
    // It shows 13:00 twice: an hour before it was set, which it has told by then where we set it, and an hour after.
    assert_eq!(dated(&by_somebody, shows(START + HOUR, 0), now), Dated::Unclear);
    assert_eq!(dated(&by_us, shows(START + HOUR, 0), now), Dated::AsRead);
    for clock in [by_somebody, by_us] {
        assert_eq!(dated(&clock, shows(START + 3 * HOUR, 0), now), Dated::AsRead);
        assert!(matches!(dated(&clock, shows(START - 3 * HOUR, fast), now), Dated::AsItStood(_)));
    }
}

#[test]
fn a_clock_that_somebody_moved_between_two_connections_dates_nothing_between_them() {
    let mut clock = DeviceClock::default();
    clock.read(shows(START, 0), Timestamp(START));
    let now = START + 10 * HOUR;
    assert_eq!(clock.read(shows(now, HOUR), Timestamp(now)), Some(HOUR));
    for hours in [3, 5, 8] {
        assert_eq!(dated(&clock, shows(START + hours * HOUR, 0), now), Dated::Unclear, "{hours} h");
    }
    assert!(matches!(dated(&clock, shows(START - HOUR, 0), now), Dated::AsItStood(by) if by == -HOUR), "before both");
    assert_eq!(dated(&clock, shows(now, HOUR), now), Dated::AsRead, "and now is now");
    assert_eq!(dated(&clock, shows(now + DAY_MS, HOUR), now), Dated::Unclear, "nobody measured tomorrow");
}

#[test]
fn summer_time_before_the_first_contact_is_a_question_and_after_it_is_none() {
    let (zone, summer, winter) = (vienna(), START, START + 10 * DAY_MS);
    let mut clock = DeviceClock::default();
    clock.read(shows(winter, HOUR), Timestamp(winter));
    let of = |clock: &DeviceClock, at| clock.dated(shows(at, HOUR), Timestamp(winter), &zone);
    assert_eq!(of(&clock, summer), Dated::Unclear, "it may have followed the change, or not");
    assert_eq!(of(&clock, winter - DAY_MS), Dated::AsRead);
    assert_eq!(clock.dated(shows(summer, HOUR), Timestamp(winter), &TimeZone::UTC), Dated::AsRead, "no zone, no change");

    let mut known_since_summer = DeviceClock::default();
    known_since_summer.read(shows(summer, HOUR), Timestamp(summer));
    assert_eq!(known_since_summer.read(shows(winter, HOUR), Timestamp(winter)), None);
    assert_eq!(of(&known_since_summer, summer + DAY_MS), Dated::AsRead, "it did not follow the change");
}

#[test]
fn a_clock_that_follows_summer_time_holds_what_lies_between() {
    let mut clock = DeviceClock::default();
    clock.read(shows(START, 2 * HOUR), Timestamp(START));
    let winter = START + 10 * DAY_MS;
    assert_eq!(clock.read(shows(winter, HOUR), Timestamp(winter)), Some(-HOUR));
    assert_eq!(clock.dated(shows(START + 3 * DAY_MS, 2 * HOUR), Timestamp(winter), &vienna()), Dated::Unclear);
}

#[test]
fn a_clock_nobody_read_or_without_a_date_is_taken_as_it_is() {
    let clock = DeviceClock::default();
    assert_eq!(dated(&clock, shows(START, 0), START), Dated::AsRead);
    let mut clock = DeviceClock::default();
    let undated = DeviceTime { year: None, ..shows(START, 0) };
    assert_eq!(clock.read(undated, Timestamp(START)), None);
    clock.read(shows(START, 0), Timestamp(START));
    assert_eq!(dated(&clock, undated, START), Dated::AsRead);
}

proptest! {
    /// Whatever is done with a clock: a value that is dated is dated right, to the drift that is let pass, and what is known
    /// survives a restart.
    #[test]
    fn nothing_is_ever_dated_by_a_clock_it_was_not_measured_with(
        steps in proptest::collection::vec((1i64..40, -30i64..30, any::<bool>()), 1..8),
        back in 0i64..200,
    ) {
        let (mut clock, mut now, mut offset) = (DeviceClock::default(), START, 0);
        // (true time, offset) of what it measured, every 20 minutes.
        let mut measured = vec![];
        clock.read(shows(now, offset), Timestamp(now));
        for (hours, moved, by_us) in steps {
            for minutes in (0..hours * 60).step_by(20) {
                measured.push((now + minutes * MIN, offset));
            }
            now += hours * HOUR;
            let before = (shows(now, offset), Timestamp(now));
            offset += moved * 10 * MIN;
            if by_us {
                // All of it was told.
                measured.clear();
                clock.set(Some(before), (shows(now, offset), Timestamp(now)));
            } else {
                clock.read(shows(now, offset), Timestamp(now));
            }
            let marks: std::collections::BTreeMap<String, u64> = clock.marks().into_iter().collect();
            prop_assert_eq!(&DeviceClock::of_marks(|name| marks.get(name).copied()), &clock);
        }
        // A memory does not reach back over more moves than are kept.
        let kept = clock.moves.first().map_or(START, |first| first.from.0).max(now - back * HOUR);
        for (at, with) in measured.into_iter().filter(|(at, _)| *at > kept) {
            let believed = match dated(&clock, shows(at, with), now) {
                Dated::AsRead => offset,
                Dated::AsItStood(by) => offset + by,
                Dated::Unclear => continue,
            };
            prop_assert!((believed - with).abs() <= WAVERS_MS + 3_000, "{at}: by {believed}, with {with}");
        }
    }
}
