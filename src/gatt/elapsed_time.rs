//! Elapsed Time (GSS, 2BF2): the time stamp of the Generic Health Sensor and the clock of the Elapsed Time Service (183F). It
//! counts from 2000-01-01, or is a mere counter of ticks.

use super::current_time::TIME_SOURCE;
use super::{Cursor, Decode, DecodeError, Field, Fields, Warning};
use crate::reading::DeviceTime;

const IS_TICKS: u8 = 1 << 0;
const IS_UTC: u8 = 1 << 1;
const RESOLUTION_SHIFT: u8 = 2;
const OFFSET_USED: u8 = 1 << 4;
const ON_CURRENT_TIMELINE: u8 = 1 << 5;
const KNOWN_FLAGS: u32 = 0b11_1111;
const EPOCH_YEAR: i16 = 2000;
/// By code: steps a second.
const STEPS_PER_SECOND: [u64; 4] = [1, 10, 1_000, 10_000];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElapsedTime {
    /// As sent: part of a record's identity.
    pub octets: [u8; 9],
    flags: u8,
    steps: u64,
    source: u8,
    /// Quarters of an hour from UTC to the device's local time.
    offset_quarters: i8,
}

impl ElapsedTime {
    /// What the device's local clock showed. `None` for ticks; for a clock that was set since, because its times can't be
    /// placed; and for UTC without the way from there to local time.
    pub fn device_time(&self) -> Option<DeviceTime> {
        let has = |bit| self.flags & bit != 0;
        let placed = has(ON_CURRENT_TIMELINE) && (has(OFFSET_USED) || !has(IS_UTC));
        let offset_min = if has(OFFSET_USED) { i64::from(self.offset_quarters) * 15 } else { 0 };
        self.clock().filter(|_| placed)?.plus_minutes(offset_min)
    }

    fn clock(&self) -> Option<DeviceTime> {
        let is_clock = self.flags & IS_TICKS == 0;
        is_clock.then(|| DeviceTime::after_year(EPOCH_YEAR, self.steps / self.steps_per_second())).flatten()
    }

    fn steps_per_second(&self) -> u64 {
        STEPS_PER_SECOND[usize::from(self.flags >> RESOLUTION_SHIFT & 0b11)]
    }
}

impl Decode for ElapsedTime {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets: [u8; 9] = cursor.array("time")?;
        let [flags, a, b, c, d, e, f, source, offset] = octets;
        cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let value = Self {
            octets,
            flags,
            steps: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
            source,
            offset_quarters: i8::from_le_bytes([offset]),
        };
        if flags & IS_TICKS == 0 {
            cursor.known_code(source, TIME_SOURCE);
            if value.clock().is_none() {
                cursor.warn(Warning::InvalidDateTime);
            }
        }
        Ok(value)
    }

    fn fields(&self) -> Fields {
        let has = |bit| self.flags & bit != 0;
        let fields = Fields::new()
            .with("tick", Field::Bool(has(IS_TICKS)))
            .with("current_timeline", Field::Bool(has(ON_CURRENT_TIMELINE)));
        let resolution = Field::Integer(self.steps_per_second());
        if has(IS_TICKS) {
            return fields.with("ticks", Field::Integer(self.steps)).with("resolution_per_s", resolution);
        }
        fields
            .with("time", Field::Time(self.clock()))
            .with("is_utc", Field::Bool(has(IS_UTC)))
            .with("resolution_per_s", resolution)
            .with("sync_source", Field::Code(self.source, TIME_SOURCE))
            .with_sent("offset_min", has(OFFSET_USED).then(|| Field::Signed(i64::from(self.offset_quarters) * 15)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn a_time_of_a_clock_that_was_set_since_and_a_count_of_ticks_are_no_times() {
        let time = |flags| {
            let time = read::<ElapsedTime>(&[flags, 60, 0, 0, 0, 0, 0, 1, 4]).expect("a time").0.device_time();
            time.map(|time| time.to_string())
        };
        assert_eq!(time(0x32).as_deref(), Some("2000-01-01T01:01:00"), "UTC and an offset");
        assert_eq!(time(0x20).as_deref(), Some("2000-01-01T00:01:00"), "local");
        assert_eq!((time(0x12), time(0x31), time(0x22)), (None, None, None));
    }

    #[test]
    fn a_time_past_what_a_clock_can_show_is_said_and_not_made_up() {
        let (value, warnings) = read::<ElapsedTime>(&[0x22, 255, 255, 255, 255, 255, 255, 1, 0]).expect("a time");
        assert_eq!((value.device_time(), warnings), (None, vec![Warning::InvalidDateTime]));
    }
}
