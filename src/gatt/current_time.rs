//! Current Time Service (1805): the device's clock, read right after connecting to compare it with the gateway's.

use super::fields::{Names, named_bits};
use super::{Cursor, DateTime, Decode, DecodeError, Field, Fields, Warning};

const ADJUST_REASON: Names = &[(0, "manual_update"), (1, "external_reference"), (2, "time_zone_change"), (3, "dst_change")];

/// Current Time (2A2B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentTime {
    pub time: DateTime,
    /// 1 is Monday, 7 Sunday.
    pub day_of_week: Option<u8>,
    pub fractions256: u8,
    adjust_reason: u32,
}

impl Decode for CurrentTime {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let time = cursor.date_time("time")?;
        let day = cursor.u8("day_of_week")?;
        if day > 7 {
            cursor.warn(Warning::ReservedValue);
        }
        let fractions256 = cursor.u8("fractions256")?;
        let reason = cursor.u8("adjust_reason")?;
        Ok(Self {
            time,
            day_of_week: matches!(day, 1..=7).then_some(day),
            fractions256,
            adjust_reason: cursor.known_bits(reason.into(), named_bits(ADJUST_REASON)),
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("time", self.time.field())
            .with("day_of_week", self.day_of_week.map_or(Field::Null, |day| Field::Integer(day.into())))
            .with("fractions256", Field::Integer(self.fractions256.into()))
            .with("adjust_reason", Field::Bits(self.adjust_reason, ADJUST_REASON))
    }
}

/// Local Time Information (2A0F): what the device takes its zone and its summer time to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTimeInformation {
    /// Without summer time.
    pub zone_min: Option<i16>,
    pub dst_min: Option<i16>,
}

impl Decode for LocalTimeInformation {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self { zone_min: zone_minutes(cursor)?, dst_min: dst_minutes(cursor)? })
    }

    fn fields(&self) -> Fields {
        add_zone_and_dst(Fields::new(), self.zone_min, self.dst_min)
    }
}

pub fn add_zone_and_dst(fields: Fields, zone_min: Option<i16>, dst_min: Option<i16>) -> Fields {
    let minutes = |value: Option<i16>| value.map_or(Field::Null, |minutes| Field::Signed(minutes.into()));
    fields.with("tz_min", minutes(zone_min)).with("dst_min", minutes(dst_min))
}

/// Quarters of an hour from UTC, −12 h to +14 h; −128 is unknown.
const ZONES: std::ops::RangeInclusive<i8> = -48..=56;
const UNKNOWN_ZONE: i8 = -128;

/// Time Zone (GSS), in minutes.
pub fn zone_minutes(cursor: &mut Cursor<'_>) -> Result<Option<i16>, DecodeError> {
    let quarters = cursor.i8("time_zone")?;
    if !ZONES.contains(&quarters) && quarters != UNKNOWN_ZONE {
        cursor.warn(Warning::ReservedValue);
    }
    Ok(ZONES.contains(&quarters).then_some(i16::from(quarters) * 15))
}

/// DST Offset (GSS), in minutes.
pub fn dst_minutes(cursor: &mut Cursor<'_>) -> Result<Option<i16>, DecodeError> {
    Ok(match cursor.u8("dst_offset")? {
        quarters @ (0 | 2 | 4 | 8) => Some(i16::from(quarters) * 15),
        255 => None,
        _ => {
            cursor.warn(Warning::ReservedValue);
            None
        }
    })
}

/// Time Source (GSS): where a clock has its time from.
pub const TIME_SOURCE: Names = &[
    (0, "unknown"),
    (1, "ntp"),
    (2, "gps"),
    (3, "radio"),
    (4, "manual"),
    (5, "atomic_clock"),
    (6, "cellular"),
    (7, "not_synchronized"),
];
/// In units of 1/8 s.
const OUT_OF_RANGE_DRIFT: u8 = 254;
const UNKNOWN_DRIFT: u8 = 255;

/// Reference Time Information (2A14): where the device has its time from, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceTimeInformation {
    source: u8,
    accuracy_eighths: u8,
    /// 255 is that many or more.
    days_since_update: u8,
    hours_since_update: u8,
}

impl Decode for ReferenceTimeInformation {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            source: cursor.code("source", TIME_SOURCE)?,
            accuracy_eighths: cursor.u8("accuracy")?,
            days_since_update: cursor.u8("days_since_update")?,
            hours_since_update: cursor.u8("hours_since_update")?,
        })
    }

    fn fields(&self) -> Fields {
        let accuracy = match self.accuracy_eighths {
            OUT_OF_RANGE_DRIFT => Field::Word("out_of_range"),
            UNKNOWN_DRIFT => Field::Null,
            eighths => Field::Integer(u64::from(eighths) * 125),
        };
        Fields::new()
            .with("source", Field::Code(self.source, TIME_SOURCE))
            .with("accuracy_ms", accuracy)
            .with("days_since_update", Field::Integer(self.days_since_update.into()))
            .with("hours_since_update", Field::Integer(self.hours_since_update.into()))
    }
}
