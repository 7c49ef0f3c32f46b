//! Heart Rate Service (180D): about one value a second from a chest strap or an arm band.

use super::fields::{Names, is_named};
use super::{Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status, Warning};
use crate::reading::{Decimal, Flag, Metric, Modality, Unit};

const RATE_IS_16_BITS: u32 = 1 << 0;
const CONTACT_DETECTED: u32 = 1 << 1;
const CONTACT_SUPPORTED: u32 = 1 << 2;
const ENERGY_PRESENT: u32 = 1 << 3;
const RR_PRESENT: u32 = 1 << 4;
const KNOWN_FLAGS: u32 = 0b1_1111;

/// Heart Rate Measurement (2A37).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartRateMeasurement {
    pub heart_rate: u16,
    pub contact: Contact,
    /// Kilojoule since the last reset, standing still at 65535. (GSS prints joule; the service means kilojoule.)
    pub energy_kj: Option<u16>,
    /// Intervals between beats, oldest first, in 1/1024 s; empty when not sent.
    pub rr_1024: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    NotSupported,
    NotDetected,
    Detected,
}

impl Contact {
    const fn from_flags(flags: u32) -> Self {
        match (flags & CONTACT_SUPPORTED != 0, flags & CONTACT_DETECTED != 0) {
            (false, _) => Contact::NotSupported,
            (true, false) => Contact::NotDetected,
            (true, true) => Contact::Detected,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Contact::NotSupported => "not_supported",
            Contact::NotDetected => "not_detected",
            Contact::Detected => "detected",
        }
    }
}

impl Decode for HeartRateMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let heart_rate = match flags & RATE_IS_16_BITS {
            0 => cursor.u8("heart_rate")?.into(),
            _ => cursor.u16("heart_rate")?,
        };
        let energy_kj = (flags & ENERGY_PRESENT != 0).then(|| cursor.u16("energy_expended")).transpose()?;
        let rr_1024 = if flags & RR_PRESENT != 0 { rr_intervals(cursor)? } else { Vec::new() };
        Ok(Self { heart_rate, contact: Contact::from_flags(flags), energy_kj, rr_1024 })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("heart_rate", Field::quantity(whole(self.heart_rate), Unit::PerMinute))
            .with("contact", Field::Word(self.contact.name()))
            .with_sent("energy_expended", self.energy_kj.map(|energy| Field::quantity(whole(energy), Unit::Kilojoule)))
            .with_sent("rr_1024", (!self.rr_1024.is_empty()).then(|| Field::Integers(self.rr_1024.clone())))
    }
}

/// As many as fill the value, and at least one: the flag promises it.
fn rr_intervals(cursor: &mut Cursor<'_>) -> Result<Vec<u16>, DecodeError> {
    let mut intervals = Vec::with_capacity(cursor.left() / 2);
    loop {
        intervals.push(cursor.u16("rr_1024")?);
        if cursor.left() == 0 {
            return Ok(intervals);
        }
    }
}

impl Measurement for HeartRateMeasurement {
    fn observed(&self) -> Observed {
        let status = match self.contact {
            Contact::NotDetected => vec![Status::SensorOff],
            _ if self.heart_rate == 0 => vec![Status::SensorOff],
            Contact::NotSupported => vec![Status::Flag(Flag::ContactNotSupported)],
            Contact::Detected => Vec::new(),
        };
        let mut values = vec![continuous(Metric::HeartRate, whole(self.heart_rate), Unit::PerMinute, status.clone())];
        // The energy counter stands whether or not a sensor touches skin at the moment.
        values.extend(self.energy_kj.map(|e| continuous(Metric::EnergyExpended, whole(e), Unit::Kilojoule, Vec::new())));
        values.extend(
            self.rr_1024
                .iter()
                .map(|rr| continuous(Metric::RrInterval, Number::Finite(milliseconds(*rr)), Unit::Millisecond, status.clone())),
        );
        Observed { values, ..Observed::default() }
    }
}

fn continuous(metric: Metric, number: Number, unit: Unit, status: Vec<Status>) -> Measured {
    Measured { metric, site: None, modality: Modality::Continuous, value: Numbers::Single(number, unit), status }
}

fn whole(value: u16) -> Number {
    Number::Finite(Decimal::new(value.into(), 0))
}

/// 1/1024 s in milliseconds, exactly: × 1000 / 1024 = × 9765625 / 10^7, without zeros at the end.
fn milliseconds(rr_1024: u16) -> Decimal {
    let (mut mantissa, mut exponent) = (i64::from(rr_1024) * 9_765_625, -7);
    while exponent < 0 && mantissa % 10 == 0 {
        (mantissa, exponent) = (mantissa / 10, exponent + 1);
    }
    Decimal::new(mantissa, exponent)
}

const LOCATION: Names = &[(0, "other"), (1, "chest"), (2, "wrist"), (3, "finger"), (4, "hand"), (5, "ear_lobe"), (6, "foot")];

/// Body Sensor Location (2A38), as a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySensorLocation(pub u8);

impl Decode for BodySensorLocation {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let code = cursor.u8("location")?;
        if !is_named(code, LOCATION) {
            cursor.warn(Warning::ReservedValue);
        }
        Ok(Self(code))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("location", Field::Code(self.0, LOCATION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    fn observed(octets: &[u8]) -> Vec<Measured> {
        read::<HeartRateMeasurement>(octets).expect("a heart rate").0.observed().values
    }

    #[test]
    fn an_interval_between_beats_is_exact_in_milliseconds() {
        assert_eq!(milliseconds(33).to_string(), "32.2265625");
        assert_eq!(milliseconds(1).to_string(), "0.9765625");
        assert_eq!(milliseconds(2048).to_string(), "2000");
        assert_eq!(milliseconds(0).to_string(), "0");
        for rr in 0..=u16::MAX {
            let exact = milliseconds(rr).checked_mul(Decimal::new(1024, 0)).expect("fits");
            assert!(exact.cmp_value(Decimal::new(i64::from(rr) * 1000, 0)).is_eq(), "{rr}");
        }
    }

    #[test]
    fn a_strap_without_skin_contact_gives_no_rate_and_no_intervals() {
        let values = observed(&[0x14, 74, 0x00, 0x04]);
        assert_eq!(values.len(), 2);
        assert!(values.iter().all(|value| value.status == [Status::SensorOff]), "{values:?}");
    }

    #[test]
    fn a_rate_of_zero_is_a_sensor_that_is_off() {
        assert_eq!(observed(&[0x06, 0])[0].status, [Status::SensorOff]);
        assert_eq!(observed(&[0x00, 0])[0].status, [Status::SensorOff]);
        assert!(observed(&[0x06, 60])[0].status.is_empty());
        assert_eq!(observed(&[0x00, 60])[0].status, [Status::Flag(Flag::ContactNotSupported)]);
    }

    #[test]
    fn energy_that_stands_still_at_its_limit_is_still_a_value() {
        let values = observed(&[0x0E, 60, 0xFF, 0xFF]);
        assert_eq!(values[1].value, Numbers::Single(whole(65_535), Unit::Kilojoule));
        assert!(values.iter().all(|value| value.modality == Modality::Continuous));
    }
}
