//! Setting a device's clock, after everything it stored was fetched under the old one: read, write only what is wrong, read
//! back. What the device answers to the write counts for nothing; what it shows afterwards does.

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::LocalNow;
use crate::gatt::{device_clock, sig_uuid};
use crate::reading::{DeviceTime, Timestamp};

const CURRENT_TIME: Uuid = sig_uuid(0x2A2B);
/// A clock of whole seconds, read over a link of some hundred milliseconds, is as right as it gets within these; less would
/// set it at every connection.
const RIGHT_WITHIN_MS: i64 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockEvent<'a> {
    Begin,
    Read(Option<&'a [u8]>),
    Written,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClockAction {
    Read,
    Write(Vec<u8>),
    Done(ClockOutcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockOutcome {
    /// It was right.
    Right,
    /// What it showed before, where that was a time, and what it showed when it was read back, each with the true time.
    Set { before: Option<(DeviceTime, Timestamp)>, after: (DeviceTime, Timestamp) },
    /// It shows a wrong time still.
    Refused,
    /// It does not let it be read, so that nobody could know what writing did.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Looking,
    Setting,
    LookingAgain,
    Ended,
}

#[derive(Debug)]
pub struct SetClock {
    /// Current Time or Date Time.
    characteristic: Uuid,
    zone: TimeZone,
    state: State,
    before: Option<(DeviceTime, Timestamp)>,
}

impl SetClock {
    pub const fn new(characteristic: Uuid, zone: TimeZone) -> Self {
        Self { characteristic, zone, state: State::Idle, before: None }
    }

    /// `now` is the true time; whoever does not know it does not set clocks.
    pub fn poll(&mut self, now: Timestamp, event: ClockEvent<'_>) -> Option<ClockAction> {
        match (self.state, event) {
            (State::Idle, ClockEvent::Begin) => {
                self.state = State::Looking;
                Some(ClockAction::Read)
            }
            (State::Looking, ClockEvent::Read(None)) => self.end(ClockOutcome::Unreadable),
            (State::Looking, ClockEvent::Read(Some(octets))) => {
                let shown = device_clock(self.characteristic, octets);
                self.before = shown.filter(|shown| shown.in_zone(&self.zone).is_some()).map(|shown| (shown, now));
                if shown.is_some_and(|shown| self.is_right(shown, now)) {
                    return self.end(ClockOutcome::Right);
                }
                let Some(told) = LocalNow::of(now, &self.zone) else { return self.end(ClockOutcome::Refused) };
                self.state = State::Setting;
                let as_current_time = self.characteristic == CURRENT_TIME;
                Some(ClockAction::Write(if as_current_time { told.current_time() } else { told.date_time.to_vec() }))
            }
            (State::Setting, ClockEvent::Written) => {
                self.state = State::LookingAgain;
                Some(ClockAction::Read)
            }
            (State::LookingAgain, ClockEvent::Read(octets)) => {
                let shown = octets.and_then(|octets| device_clock(self.characteristic, octets));
                match shown.filter(|shown| self.is_right(*shown, now)) {
                    Some(shown) => self.end(ClockOutcome::Set { before: self.before, after: (shown, now) }),
                    None => self.end(ClockOutcome::Refused),
                }
            }
            _ => None,
        }
    }

    fn is_right(&self, shown: DeviceTime, now: Timestamp) -> bool {
        shown.in_zone(&self.zone).is_some_and(|shown| (shown.0 - now.0).abs() <= RIGHT_WITHIN_MS)
    }

    fn end(&mut self, outcome: ClockOutcome) -> Option<ClockAction> {
        self.state = State::Ended;
        Some(ClockAction::Done(outcome))
    }
}

impl ClockOutcome {
    pub const fn name(self) -> &'static str {
        match self {
            ClockOutcome::Right => "right",
            ClockOutcome::Set { .. } => "set",
            ClockOutcome::Refused => "refused",
            ClockOutcome::Unreadable => "unreadable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T10:00:00Z.
    const NOW: Timestamp = Timestamp(1_795_428_000_000);
    const RIGHT: [u8; 10] = [0xEA, 0x07, 11, 23, 10, 0, 2, 1, 0, 0];
    const FAST: [u8; 10] = [0xEA, 0x07, 11, 23, 10, 40, 0, 1, 0, 0];

    fn begun() -> SetClock {
        let mut clock = SetClock::new(CURRENT_TIME, TimeZone::UTC);
        assert_eq!(clock.poll(NOW, ClockEvent::Begin), Some(ClockAction::Read));
        clock
    }

    #[test]
    fn a_clock_that_is_right_is_left_alone() {
        assert_eq!(begun().poll(NOW, ClockEvent::Read(Some(&RIGHT))), Some(ClockAction::Done(ClockOutcome::Right)));
    }

    #[test]
    fn a_clock_is_set_and_believed_only_when_it_shows_it() {
        for (shows, is_set) in [(Some(&RIGHT[..]), true), (Some(&FAST[..]), false), (None, false)] {
            let mut clock = begun();
            let written = clock.poll(NOW, ClockEvent::Read(Some(&FAST)));
            assert_eq!(written, Some(ClockAction::Write(vec![0xEA, 0x07, 11, 23, 10, 0, 0, 1, 0, 2])));
            assert_eq!(clock.poll(NOW, ClockEvent::Written), Some(ClockAction::Read));
            let Some(ClockAction::Done(outcome)) = clock.poll(NOW, ClockEvent::Read(shows)) else { panic!("not done") };
            assert_eq!(matches!(outcome, ClockOutcome::Set { before: Some(_), .. }), is_set, "{outcome:?}");
            assert_eq!(clock.poll(NOW, ClockEvent::Read(shows)), None);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_and_one_that_cant_be_read_is_not() {
        let mut clock = SetClock::new(sig_uuid(0x2A08), TimeZone::UTC);
        clock.poll(NOW, ClockEvent::Begin);
        let written = clock.poll(NOW, ClockEvent::Read(Some(&[0; 7])));
        assert_eq!(written, Some(ClockAction::Write(vec![0xEA, 0x07, 11, 23, 10, 0, 0])));
        assert_eq!(begun().poll(NOW, ClockEvent::Read(None)), Some(ClockAction::Done(ClockOutcome::Unreadable)));
    }
}
