//! Environmental Sensing Service (181A): the air of the room. It is shown and not charted: no code of the nomenclature was found
//! for it.

use super::scaled::{HUNDREDTH, TENTH};
use super::{Absent, Cursor, Decode, DecodeError, Field, Fields, Number, Warning};
use crate::reading::Unit;

/// Temperature (2A6E).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbientTemperature(pub Number);

const UNKNOWN_TEMPERATURE: i16 = i16::MIN;
/// −273.15 °C.
const ABSOLUTE_ZERO: i16 = -27_315;

impl Decode for AmbientTemperature {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self(match cursor.i16("temperature")? {
            UNKNOWN_TEMPERATURE => Number::Absent(Absent::Unknown),
            steps if steps < ABSOLUTE_ZERO => {
                cursor.warn(Warning::ReservedValue);
                Number::Absent(Absent::Prohibited)
            }
            steps => HUNDREDTH.of(steps),
        }))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("temperature", Field::quantity(self.0, Unit::DegreeCelsius))
    }
}

/// Humidity (2A6F).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Humidity(pub Number);

const UNKNOWN_HUMIDITY: u16 = u16::MAX;
const SATURATED: u16 = 10_000;

impl Decode for Humidity {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self(match cursor.u16("humidity")? {
            UNKNOWN_HUMIDITY => Number::Absent(Absent::Unknown),
            steps if steps > SATURATED => {
                cursor.warn(Warning::ReservedValue);
                Number::Absent(Absent::Prohibited)
            }
            steps => HUNDREDTH.of(steps),
        }))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("humidity", Field::quantity(self.0, Unit::Percent))
    }
}

/// Pressure (2A6D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AirPressure(pub Number);

impl Decode for AirPressure {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u32("pressure").map(|steps| Self(TENTH.of(steps)))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("pressure", Field::Quantity(self.0, "Pa"))
    }
}
