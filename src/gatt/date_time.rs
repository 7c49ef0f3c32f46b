//! Date Time (GSS, 2A08): seven octets of the device's own local time. No zone, and any part of the date may be unknown.

use super::{Cursor, Decode, DecodeError, Field, Fields, Warning};
use crate::reading::DeviceTime;

/// A time as sent: the octets always, since they are part of a record's identity, and the time where they are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    pub octets: [u8; 7],
    pub time: Option<DeviceTime>,
}

impl DateTime {
    pub fn field(self) -> Field {
        Field::Time(self.time)
    }
}

impl Cursor<'_> {
    pub fn date_time(&mut self, field: &'static str) -> Result<DateTime, DecodeError> {
        let octets = self.array(field)?;
        let time = device_time(octets);
        if time.is_none() {
            self.warn(Warning::InvalidDateTime);
        }
        Ok(DateTime { octets, time })
    }
}

impl Decode for DateTime {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.date_time("time")
    }

    fn fields(&self) -> Fields {
        Fields::new().with("time", self.field())
    }
}

fn device_time([low, high, month, day, hour, minute, second]: [u8; 7]) -> Option<DeviceTime> {
    let year = u16::from_le_bytes([low, high]);
    let valid = matches!(year, 0 | 1582..=9999)
        && month <= 12
        && day <= days_in(year, month)
        && hour <= 23
        && minute <= 59
        && second <= 59;
    let known = |part: u8| (part != 0).then_some(part);
    valid.then_some(DeviceTime { year: (year != 0).then_some(year), month: known(month), day: known(day), hour, minute, second })
}

/// The most days the month can have; an unknown month or year allows the longest.
const fn days_in(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year == 0 || (year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(year: u16, rest: [u8; 5]) -> Option<DeviceTime> {
        let [low, high] = year.to_le_bytes();
        let [month, day, hour, minute, second] = rest;
        device_time([low, high, month, day, hour, minute, second])
    }

    #[test]
    fn a_time_that_no_clock_can_show_is_none() {
        for (year, rest) in [
            (1581, [1, 1, 0, 0, 0]),
            (10_000, [1, 1, 0, 0, 0]),
            (2026, [13, 1, 0, 0, 0]),
            (2026, [1, 32, 0, 0, 0]),
            (2026, [2, 29, 0, 0, 0]),
            (1900, [2, 29, 0, 0, 0]),
            (2026, [4, 31, 0, 0, 0]),
            (2026, [1, 1, 24, 0, 0]),
            (2026, [1, 1, 0, 60, 0]),
            (2026, [1, 1, 0, 0, 60]),
        ] {
            assert_eq!(time(year, rest), None, "{year} {rest:?}");
        }
    }

    #[test]
    fn unknown_parts_of_a_date_stay_unknown() {
        let leap_day = time(0, [2, 29, 20, 41, 59]).expect("29 February of an unknown year exists");
        assert_eq!(leap_day.to_string(), "XXXX-02-29T20:41:59");
        assert_eq!(time(2026, [0, 31, 0, 0, 0]).map(|t| t.to_string()).as_deref(), Some("2026-XX-31T00:00:00"));
        assert!(time(2000, [2, 29, 0, 0, 0]).is_some());
    }
}
