//! The session of a continuous glucose sensor: when it began, and what its clock says now. A sensor that waits to be told the
//! time is told it, where that is wanted and known. Nothing else is written: no session is started, stopped or calibrated.

use uuid::Uuid;

use super::LocalNow;
use crate::gatt::{CgmFeature, CgmSessionStartTime, CgmStatus, Context, read, read_with, sig_uuid};
use crate::reading::DeviceTime;

const FEATURE: Uuid = sig_uuid(0x2AA8);
const STATUS: Uuid = sig_uuid(0x2AA9);
const START: Uuid = sig_uuid(0x2AAA);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent<'a> {
    Begin,
    /// What was read, `None` where the device has it not or does not let it be read.
    Read(Option<&'a [u8]>),
    /// The device took what was written, or did not.
    Written(bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction {
    Read(Uuid),
    /// To Session Start Time, with response.
    Write(Vec<u8>),
    Done(SessionKnown),
}

/// What is known of the session in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionKnown {
    /// `None`: the sensor waits to be told the time, or does not tell. Its records then have none and are not asked for.
    pub start: Option<DeviceTime>,
    /// The sensor's clock, to the minute, as it was when its status was read.
    pub clock: Option<DeviceTime>,
    /// It was told the time.
    pub set: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Feature,
    Start,
    Setting,
    SetStart,
    Status,
    Ended,
}

#[derive(Debug)]
pub struct CgmSessionSetup {
    state: State,
    context: Context,
    /// `None`: it is not to be told, or we don't know it ourselves.
    now: Option<LocalNow>,
    known: SessionKnown,
}

impl CgmSessionSetup {
    pub fn new(now: Option<LocalNow>) -> Self {
        Self { state: State::Idle, context: Context::default(), now, known: SessionKnown::default() }
    }

    pub fn poll(&mut self, event: SessionEvent<'_>) -> Option<SessionAction> {
        match (self.state, event) {
            (State::Idle, SessionEvent::Begin) => self.ask(State::Feature, FEATURE),
            (State::Feature, SessionEvent::Read(octets)) => {
                let feature = octets.and_then(|octets| read::<CgmFeature>(octets).ok());
                self.context.e2e_crc = feature.is_some_and(|(feature, _)| feature.e2e_crc());
                self.ask(State::Start, START)
            }
            (State::Start | State::SetStart, SessionEvent::Read(octets)) => self.started(octets),
            (State::Setting, SessionEvent::Written(_)) => self.ask(State::SetStart, START),
            (State::Status, SessionEvent::Read(octets)) => {
                let status = octets.and_then(|octets| read_with::<CgmStatus>(octets, &self.context).ok());
                let minutes = status.map(|(status, _)| i64::from(status.time_offset_min));
                self.known.clock = self.known.start.zip(minutes).and_then(|(start, minutes)| start.plus_minutes(minutes));
                self.end()
            }
            _ => None,
        }
    }

    fn started(&mut self, octets: Option<&[u8]>) -> Option<SessionAction> {
        let start = octets.and_then(|octets| read_with::<CgmSessionStartTime>(octets, &self.context).ok());
        let Some((start, _)) = start else { return self.end() };
        match self.now {
            // Told once: what does not hold would not the next time.
            Some(now) if start.is_unset() && self.state == State::Start => {
                self.state = State::Setting;
                let octets =
                    CgmSessionStartTime::encode(now.date_time, now.zone_quarters, now.dst_quarters, self.context.e2e_crc);
                Some(SessionAction::Write(octets))
            }
            _ if start.is_unset() => self.end(),
            _ => {
                self.known = SessionKnown { start: start.start.time, set: self.state == State::SetStart, ..self.known };
                self.ask(State::Status, STATUS)
            }
        }
    }

    fn ask(&mut self, state: State, characteristic: Uuid) -> Option<SessionAction> {
        self.state = state;
        Some(SessionAction::Read(characteristic))
    }

    fn end(&mut self) -> Option<SessionAction> {
        self.state = State::Ended;
        Some(SessionAction::Done(self.known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::crc16;
    use crate::procedure::writable;

    const TOLD: [u8; 9] = [0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 4, 0];

    fn now() -> Option<LocalNow> {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
        LocalNow::of(crate::reading::Timestamp(1_795_424_400_000), &zone)
    }

    /// A sensor with these values; ends with what is known of it, and says what was written.
    fn run(
        feature: Option<&[u8]>,
        start: Option<Vec<u8>>,
        status: Option<&[u8]>,
        now: Option<LocalNow>,
    ) -> (SessionKnown, Vec<Vec<u8>>) {
        let (mut setup, mut start, mut written) = (CgmSessionSetup::new(now), start, vec![]);
        let mut action = setup.poll(SessionEvent::Begin);
        for _ in 0..10 {
            let event = match action.expect("it goes on until it is done") {
                SessionAction::Read(FEATURE) => SessionEvent::Read(feature),
                SessionAction::Read(START) => SessionEvent::Read(start.as_deref()),
                SessionAction::Read(_) => SessionEvent::Read(status),
                SessionAction::Write(octets) => {
                    assert!(writable::passes(START, &octets));
                    start = Some(octets.clone());
                    written.push(octets);
                    SessionEvent::Written(true)
                }
                SessionAction::Done(known) => return (known, written),
            };
            action = setup.poll(event);
        }
        panic!("it does not end");
    }

    fn checked(octets: &[u8]) -> Vec<u8> {
        [octets, &crc16(octets).to_le_bytes()].concat()
    }

    #[test]
    fn a_running_session_tells_its_start_and_its_clock_and_nothing_is_written() {
        let (known, written) = run(Some(&[0, 0, 0, 0x11, 0xFF, 0xFF]), Some(TOLD.to_vec()), Some(&[65, 0, 0, 0, 0]), now());
        assert_eq!(known.start.map(|time| time.to_string()).as_deref(), Some("2026-11-23T10:00:00"));
        assert_eq!(known.clock.map(|time| time.to_string()).as_deref(), Some("2026-11-23T11:05:00"));
        assert_eq!((known.set, written), (false, vec![]));
    }

    #[test]
    fn a_sensor_without_the_time_is_told_it_with_its_checksum_only_where_that_is_wanted_and_known() {
        let feature = checked(&[0, 0x10, 0, 0x11]);
        let (known, written) = run(Some(&feature), Some(checked(&[0; 9])), Some(&checked(&[0, 0, 0, 0, 0])), now());
        assert_eq!(written, [checked(&TOLD)]);
        assert_eq!((known.set, known.start.is_some()), (true, true));
        let (known, written) = run(Some(&feature), Some(checked(&[0; 9])), None, None);
        assert_eq!((known, written), (SessionKnown::default(), vec![]));
    }

    #[test]
    fn a_sensor_that_does_not_take_the_time_is_told_it_once() {
        let mut setup = CgmSessionSetup::new(now());
        setup.poll(SessionEvent::Begin);
        setup.poll(SessionEvent::Read(None));
        assert!(matches!(setup.poll(SessionEvent::Read(Some(&[0; 9]))), Some(SessionAction::Write(_))));
        assert_eq!(setup.poll(SessionEvent::Written(false)), Some(SessionAction::Read(START)));
        assert_eq!(setup.poll(SessionEvent::Read(Some(&[0; 9]))), Some(SessionAction::Done(SessionKnown::default())));
        assert_eq!(setup.poll(SessionEvent::Read(Some(&[0; 9]))), None);
    }

    #[test]
    fn a_sensor_that_tells_nothing_or_with_a_wrong_checksum_has_no_session() {
        assert_eq!(run(None, None, None, now()).0, SessionKnown::default());
        let feature = checked(&[0, 0x10, 0, 0x11]);
        assert_eq!(run(Some(&feature), Some([&TOLD[..], &[1, 2]].concat()), None, None).0, SessionKnown::default());
    }
}
