//! Battery Service (180F): the charge of the device's battery, in percent.

use super::{Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Warning};
use crate::reading::{Decimal, Metric, Modality, Unit};

/// Battery Level (2A19); `None` for an octet above 100, which is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryLevel {
    pub percent: Option<u8>,
}

impl Decode for BatteryLevel {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octet = cursor.u8("level")?;
        let percent = (octet <= 100).then_some(octet);
        if percent.is_none() {
            cursor.warn(Warning::ReservedValue);
        }
        Ok(Self { percent })
    }

    fn fields(&self) -> Fields {
        let level = self
            .percent
            .map_or(Field::Null, |percent| Field::quantity(Number::Finite(Decimal::new(percent.into(), 0)), Unit::Percent));
        Fields::new().with("level", level)
    }
}

impl Measurement for BatteryLevel {
    fn observed(&self) -> Observed {
        let number = self.percent.map_or(Number::Reserved, |percent| Number::Finite(Decimal::new(percent.into(), 0)));
        let level = Measured {
            metric: Metric::BatteryLevel,
            site: None,
            modality: Modality::Spot,
            value: Numbers::Single(number, Unit::Percent),
            status: Vec::new(),
        };
        Observed { values: vec![level], ..Observed::default() }
    }
}
