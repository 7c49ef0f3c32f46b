//! A record of an Omron cuff's memory (HEM-7188T1, HEM-7361T and their kin), as the public readers of these devices take it
//! apart: packed bits, the systolic pressure less 25.

use super::blood_pressure::pressure_and_pulse;
use super::{Cursor, Decode, DecodeError, Field, Fields, Measurement, Number, Observed, Status, Warning};
use crate::reading::{DeviceTime, Flag, Unit};

const SYSTOLIC_OFFSET: i64 = 25;
const IRREGULAR: u16 = 1 << 14;
const MOVED: u16 = 1 << 15;
/// What follows the time and is not understood.
const UNKNOWN_OCTETS: usize = 8;
/// What an erased slot of the memory holds.
const EMPTY: u8 = 0xFF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OmronRecord {
    pub systolic: i64,
    pub diastolic: u8,
    pub pulse_rate: u8,
    irregular: bool,
    moved: bool,
    time: Option<DeviceTime>,
    time_octets: [u8; 5],
}

impl Decode for OmronRecord {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let [systolic, diastolic, pulse_rate]: [u8; 3] = cursor.array("pressures")?;
        let time_octets: [u8; 5] = cursor.array("time")?;
        cursor.octets("rest", UNKNOWN_OCTETS)?;
        if [systolic, diastolic, pulse_rate] == [EMPTY; 3] {
            return Err(DecodeError::InvalidField { field: "pressures", value: 0xFF_FFFF });
        }
        let [year, a, b, c, d] = time_octets;
        let (day, clock) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let time = omron_time(year, day, clock);
        if time.is_none() {
            cursor.warn(Warning::InvalidDateTime);
        }
        let (irregular, moved) = (day & IRREGULAR != 0, day & MOVED != 0);
        let systolic = i64::from(systolic) + SYSTOLIC_OFFSET;
        Ok(Self { systolic, diastolic, pulse_rate, irregular, moved, time, time_octets })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("systolic", Field::quantity(Number::whole(self.systolic), Unit::MillimetreOfMercury))
            .with("diastolic", Field::quantity(Number::whole(self.diastolic), Unit::MillimetreOfMercury))
            .with("pulse_rate", Field::quantity(Number::whole(self.pulse_rate), Unit::PerMinute))
            .with("time", Field::Time(self.time))
            .with("irregular_pulse", Field::Bool(self.irregular))
            .with("body_movement", Field::Bool(self.moved))
    }
}

/// Years from 2000 in six bits; month, day and hour, then minute and second, packed. A second above 59 is the last one: cuffs
/// write up to 63.
fn omron_time(year: u8, day: u16, clock: u16) -> Option<DeviceTime> {
    let part = |word: u16, shift: u16, bits: u16| u8::try_from(word >> shift & ((1 << bits) - 1)).unwrap_or(u8::MAX);
    let (month, of_month, hour) = (part(day, 10, 4), part(day, 5, 5), part(day, 0, 5));
    let (minute, second) = (part(clock, 6, 6), part(clock, 0, 6).min(59));
    let exists = matches!(month, 1..=12) && of_month >= 1 && hour <= 23 && minute <= 59;
    let time =
        DeviceTime { year: Some(2000 + u16::from(year & 0x3F)), month: Some(month), day: Some(of_month), hour, minute, second };
    // Only a day that exists can be told from itself.
    exists.then_some(time).filter(|time| time.since_ms(*time).is_some())
}

impl Measurement for OmronRecord {
    fn observed(&self) -> Observed {
        let flags = [(self.irregular, Flag::IrregularPulse), (self.moved, Flag::BodyMovement)];
        let status: Vec<Status> = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| Status::Flag(*flag)).collect();
        let pressures = [Number::whole(self.systolic), Number::whole(self.diastolic), Number::NotANumber];
        let pulse = Some(Number::whole(self.pulse_rate));
        Observed {
            values: pressure_and_pulse(pressures, Unit::MillimetreOfMercury, pulse, &status),
            device_time: self.time,
            base_time: Some(self.time_octets.to_vec()),
            stored: true,
            ..Observed::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    /// 150/93, pulse 70, 2026-11-23 10:30:63 with the given upper bits of the day.
    fn record(bits: u16) -> [u8; 16] {
        let day = (bits | 11 << 10 | 23 << 5 | 10).to_le_bytes();
        let clock = (30u16 << 6 | 63).to_le_bytes();
        [0x7D, 0x5D, 0x46, 26, day[0], day[1], clock[0], clock[1], 0, 0, 0, 0, 0, 0, 0, 0]
    }

    #[test]
    fn a_packed_record_is_a_pressure_a_pulse_and_a_time() {
        let (value, warnings) = read::<OmronRecord>(&record(IRREGULAR)).expect("a record");
        assert_eq!((value.systolic, value.diastolic, value.pulse_rate, warnings), (150, 93, 70, vec![]));
        let observed = value.observed();
        assert_eq!(observed.device_time.map(|time| time.to_string()).as_deref(), Some("2026-11-23T10:30:59"));
        assert_eq!(observed.values[0].status, [Status::Flag(Flag::IrregularPulse)]);
        assert!(observed.stored);
    }

    #[test]
    fn an_erased_slot_is_no_record() {
        assert_eq!(read::<OmronRecord>(&[0xFF; 16]).map_err(|error| error.name()), Err("invalid_field"));
    }
}
