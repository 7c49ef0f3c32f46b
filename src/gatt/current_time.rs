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
