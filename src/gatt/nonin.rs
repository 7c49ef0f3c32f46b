//! Nonin's own oximetry characteristic, of fingertip oximeters that lack the SIG's. Ten octets, big endian, once a second.

use super::fields::{Names, named_bits};
use super::scaled::{HUNDREDTH, TENTH};
use super::{Absent, Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status};
use crate::reading::{Flag, Metric, Modality, Unit};

const LENGTH: u8 = 10;
const STATUS: Names =
    &[(0, "display_sync"), (1, "weak_signal"), (2, "smartpoint"), (3, "searching"), (4, "correct_check"), (5, "low_battery")];
const STATUS_MEANS: &[(u8, Flag)] = &[(1, Flag::PoorSignal), (3, Flag::InadequateSignal), (5, Flag::BatteryLow)];
const NO_SPO2: u8 = 127;
const NO_PULSE: u16 = 511;

/// Nonin Continuous Oximetry (0AAD7EA0-…).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoninContinuous {
    status: u32,
    battery_volt: Number,
    pub pulse_amplitude_index: Number,
    /// Seconds, counted by the device.
    pub counter: u16,
    pub spo2: Number,
    pub pulse_rate: Number,
}

impl Decode for NoninContinuous {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let length = cursor.u8("length")?;
        if length != LENGTH {
            return Err(DecodeError::InvalidLength { field: "value", octets: length.into() });
        }
        let status = cursor.u8("status")?;
        let status = cursor.known_bits(status.into(), named_bits(STATUS));
        let battery_volt = TENTH.of(cursor.u8("battery")?);
        let pulse_amplitude_index = HUNDREDTH.of(cursor.u16_be("pulse_amplitude_index")?);
        let counter = cursor.u16_be("counter")?;
        let spo2 = match cursor.u8("spo2")? {
            NO_SPO2 => Number::Absent(Absent::Missing),
            percent => Number::whole(percent),
        };
        let pulse_rate = match cursor.u16_be("pulse_rate")? {
            NO_PULSE => Number::Absent(Absent::Missing),
            rate => Number::whole(rate),
        };
        Ok(Self { status, battery_volt, pulse_amplitude_index, counter, spo2, pulse_rate })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("status", Field::Bits(self.status, STATUS))
            .with("battery", Field::Quantity(self.battery_volt, "V"))
            .with("pulse_amplitude_index", Field::quantity(self.pulse_amplitude_index, Unit::Percent))
            .with("counter_s", Field::Integer(self.counter.into()))
            .with("spo2", Field::quantity(self.spo2, Unit::Percent))
            .with("pulse_rate", Field::quantity(self.pulse_rate, Unit::PerMinute))
    }
}

impl Measurement for NoninContinuous {
    fn observed(&self) -> Observed {
        let said = STATUS_MEANS.iter().filter(|(bit, _)| self.status >> bit & 1 != 0);
        let status: Vec<Status> = said.map(|(_, flag)| Status::Flag(*flag)).collect();
        let value = |metric, number, unit| Measured {
            metric,
            site: None,
            modality: Modality::Continuous,
            value: Numbers::Single(number, unit),
            status: status.clone(),
        };
        let mut values = vec![
            value(Metric::Spo2, self.spo2, Unit::Percent),
            value(Metric::PulseRateOximeter, self.pulse_rate, Unit::PerMinute),
        ];
        // Without a pulse the index is a zero that measures nothing.
        if matches!(self.pulse_rate, Number::Finite(_)) {
            values.push(value(Metric::PulseAmplitudeIndex, self.pulse_amplitude_index, Unit::Percent));
        }
        Observed { values, ..Observed::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn an_oximeter_without_a_finger_measures_nothing() {
        let value = read::<NoninContinuous>(&[0x0A, 0x28, 0x1E, 0, 0, 0, 1, 0x7F, 1, 0xFF]).expect("a value").0;
        let observed = value.observed();
        assert_eq!(observed.values.len(), 2);
        for value in observed.values {
            assert!(matches!(value.value, Numbers::Single(Number::Absent(Absent::Missing), _)), "{value:?}");
        }
    }
}
