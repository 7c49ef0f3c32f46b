//! The manufacturer data of the XOSS X2 arm band: its heart rate, for whoever listens.

use super::battery::BatteryLevel;
use super::{Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status};
use crate::reading::{Metric, Modality, Unit};

/// The company's number and the octets around the two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XossAdvertisement {
    pub battery: BatteryLevel,
    pub heart_rate: u8,
}

const BATTERY_BITS: u8 = 0x7F;

impl Decode for XossAdvertisement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.octets("company", 2)?;
        cursor.u8("unknown")?;
        let battery = cursor.u8("battery")? & BATTERY_BITS;
        let battery = BatteryLevel::of_octet(battery, cursor);
        cursor.u8("unknown")?;
        Ok(Self { battery, heart_rate: cursor.u8("heart_rate")? })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("battery", self.battery.field())
            .with("heart_rate", Field::quantity(Number::whole(self.heart_rate), Unit::PerMinute))
    }
}

impl Measurement for XossAdvertisement {
    fn observed(&self) -> Observed {
        let heart_rate = Measured {
            metric: Metric::HeartRate,
            site: None,
            modality: Modality::Continuous,
            value: Numbers::Single(Number::whole(self.heart_rate), Unit::PerMinute),
            status: if self.heart_rate == 0 { vec![Status::SensorOff] } else { Vec::new() },
        };
        Observed { values: vec![heart_rate, self.battery.measured()], ..Observed::default() }
    }
}
