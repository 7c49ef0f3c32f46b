//! Scales that tell a weight in a way of their own: A&D's characteristic, and the advertisements of Xiaomi's scales.

use super::scaled::{HUNDREDTH, Step, TENTH};
use super::weight_scale::spot;
use super::{Cursor, DateTime, Decode, DecodeError, Field, Fields, Measurement, Number, Observed, Warning};
use crate::reading::{Metric, Unit};

const AND_IS_POUND: u32 = 1 << 0;
const AND_TIME_PRESENT: u32 = 1 << 1;

/// The characteristic of the A&D UC-352BLE (23434101-…): as Weight Measurement, in steps of a tenth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AndUc352Weight {
    pub weight: Number,
    pub unit: Unit,
    pub time: Option<DateTime>,
}

impl Decode for AndUc352Weight {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), AND_IS_POUND | AND_TIME_PRESENT);
        Ok(Self {
            unit: if flags & AND_IS_POUND == 0 { Unit::Kilogram } else { Unit::Pound },
            weight: cursor.steps("weight", TENTH)?,
            time: (flags & AND_TIME_PRESENT != 0).then(|| cursor.date_time("time")).transpose()?,
        })
    }

    fn fields(&self) -> Fields {
        Fields::new().with("weight", Field::quantity(self.weight, self.unit)).with_sent("time", self.time.map(DateTime::field))
    }
}

impl Measurement for AndUc352Weight {
    fn observed(&self) -> Observed {
        Observed {
            values: vec![spot(Metric::BodyWeight, self.weight, self.unit)],
            device_time: self.time.and_then(|time| time.time),
            base_time: self.time.map(|time| time.octets.to_vec()),
            ..Observed::default()
        }
    }
}

const MI_IS_POUND: u8 = 1 << 0;
/// Jin, of 500 g: its hundredths are the 0.005 kg of the others.
const MI_IS_JIN: u8 = 1 << 4;
const MI_IMPEDANCE: u8 = 1 << 1;
const MI_STABLE: u8 = 1 << 5;
const MI_REMOVED: u8 = 1 << 7;

/// The service data (181B) of the Mi Body Composition Scale 2. It repeats until it times out: the time on it tells weighings
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiBodyScale {
    pub stable: bool,
    pub removed: bool,
    pub time: DateTime,
    pub weight: Number,
    pub unit: Unit,
    pub impedance: Option<Number>,
}

impl Decode for MiBodyScale {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let (units, state) = (cursor.u8("units")?, cursor.u8("state")?);
        let (step, unit) = match units & MI_IS_POUND {
            0 => (Step::new(5, -3), Unit::Kilogram),
            _ => (HUNDREDTH, Unit::Pound),
        };
        if units & MI_IS_JIN != 0 && units & MI_IS_POUND != 0 {
            cursor.warn(Warning::ReservedBits);
        }
        let time = cursor.date_time("time")?;
        let impedance = cursor.u16("impedance")?;
        let weight = step.of(cursor.u16("weight")?);
        Ok(Self {
            stable: state & MI_STABLE != 0,
            removed: state & MI_REMOVED != 0,
            time,
            weight,
            unit,
            impedance: (state & MI_IMPEDANCE != 0).then(|| Number::whole(impedance)),
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("stabilized", Field::Bool(self.stable))
            .with("removed", Field::Bool(self.removed))
            .with("time", self.time.field())
            .with("weight", Field::quantity(self.weight, self.unit))
            .with_sent("impedance", self.impedance.map(|ohm| Field::quantity(ohm, Unit::Ohm)))
    }
}

impl Measurement for MiBodyScale {
    /// Only what the scale has settled on, while somebody stands on it.
    fn observed(&self) -> Observed {
        let mut values = Vec::new();
        if self.stable && !self.removed {
            values.push(spot(Metric::BodyWeight, self.weight, self.unit));
            values.extend(self.impedance.map(|ohm| spot(Metric::BodyImpedance, ohm, Unit::Ohm)));
        }
        Observed { values, device_time: self.time.time, base_time: Some(self.time.octets.to_vec()), ..Observed::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn a_weight_that_still_moves_or_is_left_standing_is_none() {
        let values = |state| {
            let octets = [2, state, 0xE6, 7, 2, 14, 16, 41, 58, 0xF7, 1, 0x9A, 0x38];
            read::<MiBodyScale>(&octets).expect("an advertisement").0.observed().values.len()
        };
        assert_eq!([0x26, 0x24, 0x06, 0xA6].map(values), [2, 1, 0, 0]);
    }
}
