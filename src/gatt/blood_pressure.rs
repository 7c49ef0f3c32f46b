//! Blood Pressure Service (1810): one result a measurement, and the pressure of the cuff while it deflates.

use super::fields::{Names, named_bits};
use super::user_data::{known_user, user_field};
use super::{
    Cursor, DateTime, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status, Warning,
};
use crate::reading::{Component, Flag, Metric, Modality, Unit, UserIndex};

const UNIT_IS_KILOPASCAL: u32 = 1 << 0;
pub const TIME_PRESENT: u32 = 1 << 1;
const PULSE_PRESENT: u32 = 1 << 2;
const USER_PRESENT: u32 = 1 << 3;
const STATUS_PRESENT: u32 = 1 << 4;
const KNOWN_FLAGS: u32 = 0b1_1111;

/// Blood Pressure Measurement (2A35). Many cuffs send no mean: then it is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloodPressureMeasurement {
    pub systolic: Number,
    pub diastolic: Number,
    pub mean: Number,
    pub unit: Unit,
    pub about: About,
}

/// Intermediate Cuff Pressure (2A36): the same layout with one pressure. What stands in the place of the other two is
/// ignored, because devices send zero there where the service wants "not a number".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntermediateCuffPressure {
    pub cuff_pressure: Number,
    pub unit: Unit,
    pub about: About,
}

/// What follows the pressures, as far as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    pub time: Option<DateTime>,
    pub remarks: Remarks,
}

/// What the enhanced characteristics have in the same place, between one time and another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remarks {
    pub pulse_rate: Option<Number>,
    /// The octet as sent: 255 is an unknown user, 0 a real one.
    pub user: Option<u8>,
    pub status: Option<BloodPressureStatus>,
}

impl Decode for BloodPressureMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let (flags, unit) = flags_and_unit(cursor)?;
        Ok(Self {
            systolic: cursor.sfloat("systolic")?,
            diastolic: cursor.sfloat("diastolic")?,
            mean: cursor.sfloat("map")?,
            unit,
            about: About::decode(cursor, flags)?,
        })
    }

    fn fields(&self) -> Fields {
        let pressures = Fields::new()
            .with("systolic", Field::quantity(self.systolic, self.unit))
            .with("diastolic", Field::quantity(self.diastolic, self.unit))
            .with("map", Field::quantity(self.mean, self.unit));
        self.about.add_to(pressures)
    }
}

impl Measurement for BloodPressureMeasurement {
    fn observed(&self) -> Observed {
        let pressures = [self.systolic, self.diastolic, self.mean];
        self.about.observed(pressure_and_pulse(pressures, self.unit, self.about.remarks.pulse_rate, &self.about.remarks.flags()))
    }
}

/// Systolic, diastolic and mean as one value, and the pulse as another, under the same remarks.
pub fn pressure_and_pulse(
    [systolic, diastolic, mean]: [Number; 3],
    unit: Unit,
    pulse_rate: Option<Number>,
    status: &[Status],
) -> Vec<Measured> {
    let parts = vec![(Component::Systolic, systolic), (Component::Diastolic, diastolic), (Component::Mean, mean)];
    let spot = |metric, value| Measured { metric, site: None, modality: Modality::Spot, value, status: status.to_vec() };
    let mut values = vec![spot(Metric::BloodPressure, Numbers::Compound(parts, unit))];
    values.extend(pulse_rate.map(|rate| spot(Metric::PulseRateCuff, Numbers::Single(rate, Unit::PerMinute))));
    values
}

/// The pressure of the cuff while it deflates.
pub const fn deflating(cuff_pressure: Number, unit: Unit, status: Vec<Status>) -> Measured {
    let value = Numbers::Single(cuff_pressure, unit);
    Measured { metric: Metric::CuffPressure, site: None, modality: Modality::Intermediate, value, status }
}

impl Decode for IntermediateCuffPressure {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let (flags, unit) = flags_and_unit(cursor)?;
        let cuff_pressure = cursor.sfloat("cuff_pressure")?;
        cursor.u32("unused pressures")?;
        Ok(Self { cuff_pressure, unit, about: About::decode(cursor, flags)? })
    }

    fn fields(&self) -> Fields {
        self.about.add_to(Fields::new().with("cuff_pressure", Field::quantity(self.cuff_pressure, self.unit)))
    }
}

impl Measurement for IntermediateCuffPressure {
    fn observed(&self) -> Observed {
        self.about.observed(vec![deflating(self.cuff_pressure, self.unit, self.about.remarks.flags())])
    }
}

fn flags_and_unit(cursor: &mut Cursor<'_>) -> Result<(u32, Unit), DecodeError> {
    let flags = cursor.u8("flags")?;
    let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
    Ok((flags, unit_of(flags)))
}

pub const fn unit_of(flags: u32) -> Unit {
    if flags & UNIT_IS_KILOPASCAL == 0 { Unit::MillimetreOfMercury } else { Unit::Kilopascal }
}

impl About {
    fn decode(cursor: &mut Cursor<'_>, flags: u32) -> Result<Self, DecodeError> {
        let time = (flags & TIME_PRESENT != 0).then(|| cursor.date_time("time")).transpose()?;
        Ok(Self { time, remarks: Remarks::decode(cursor, flags)? })
    }

    fn add_to(&self, fields: Fields) -> Fields {
        self.remarks.add_to(fields.with_sent("time", self.time.map(DateTime::field)))
    }

    fn observed(&self, values: Vec<Measured>) -> Observed {
        Observed {
            values,
            user: self.remarks.user(),
            device_time: self.time.and_then(|time| time.time),
            base_time: self.time.map(|time| time.octets.to_vec()),
            ..Observed::default()
        }
    }
}

impl Remarks {
    pub fn decode(cursor: &mut Cursor<'_>, flags: u32) -> Result<Self, DecodeError> {
        Ok(Self {
            pulse_rate: (flags & PULSE_PRESENT != 0).then(|| cursor.sfloat("pulse_rate")).transpose()?,
            user: (flags & USER_PRESENT != 0).then(|| cursor.u8("user_id")).transpose()?,
            status: (flags & STATUS_PRESENT != 0).then(|| BloodPressureStatus::decode(cursor)).transpose()?,
        })
    }

    pub fn add_to(&self, fields: Fields) -> Fields {
        fields
            .with_sent("pulse_rate", self.pulse_rate.map(|rate| Field::quantity(rate, Unit::PerMinute)))
            .with_sent("user_id", self.user.map(user_field))
            .with_sent("status", self.status.map(BloodPressureStatus::field))
    }

    pub fn flags(&self) -> Vec<Status> {
        self.status.map(BloodPressureStatus::flags).unwrap_or_default()
    }

    pub fn user(&self) -> Option<UserIndex> {
        self.user.and_then(known_user)
    }
}

const STATUS: Names = &[(0, "body_movement"), (1, "cuff_too_loose"), (2, "irregular_pulse"), (5, "improper_position")];
/// Two bits that are one code, and not flags.
const PULSE_RANGE_SHIFT: u32 = 3;
const PULSE_RANGE: Names = &[(0, "in_range"), (1, "above_upper"), (2, "below_lower")];
const KNOWN_STATUS: u32 = named_bits(STATUS) | 0b11 << PULSE_RANGE_SHIFT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloodPressureStatus(u32);

impl BloodPressureStatus {
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let bits = cursor.u16("status")?;
        let status = Self(cursor.known_bits(bits.into(), KNOWN_STATUS));
        if status.pulse_range() == 0b11 {
            cursor.warn(Warning::ReservedValue);
        }
        Ok(status)
    }

    const fn pulse_range(self) -> u8 {
        ((self.0 >> PULSE_RANGE_SHIFT) & 0b11) as u8
    }

    pub fn field(self) -> Field {
        Field::Group(
            Fields::new()
                .with("flags", Field::Bits(self.0, STATUS))
                .with("pulse_rate_range", Field::Code(self.pulse_range(), PULSE_RANGE)),
        )
    }

    pub fn flags(self) -> Vec<Status> {
        let bits = [(0, Flag::BodyMovement), (1, Flag::CuffTooLoose), (2, Flag::IrregularPulse), (5, Flag::ImproperPosition)];
        let range = match self.pulse_range() {
            1 => Some(Flag::PulseRateAboveRange),
            2 => Some(Flag::PulseRateBelowRange),
            _ => None,
        };
        bits.into_iter().filter(|(bit, _)| self.0 >> bit & 1 != 0).map(|(_, flag)| flag).chain(range).map(Status::Flag).collect()
    }
}

const FEATURE: Names = &[
    (0, "body_movement"),
    (1, "cuff_fit"),
    (2, "irregular_pulse"),
    (3, "pulse_rate_range"),
    (4, "measurement_position"),
    (5, "multiple_bonds"),
    (6, "e2e_crc"),
    (7, "user_data_service"),
    (8, "user_facing_time"),
];

/// Blood Pressure Feature (2A49).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloodPressureFeature(u32);

const E2E_CRC: u32 = 1 << 6;

impl BloodPressureFeature {
    /// Whether stored values end in a checksum.
    pub const fn e2e_crc(self) -> bool {
        self.0 & E2E_CRC != 0
    }
}

impl Decode for BloodPressureFeature {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let bits = cursor.u16("features")?;
        Ok(Self(cursor.known_bits(bits.into(), named_bits(FEATURE))))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("features", Field::Bits(self.0, FEATURE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;
    use crate::reading::Decimal;

    const WITH_ALL: [u8; 18] = [0x1E, 0x8A, 0, 0x58, 0, 0x78, 0, 0, 0, 4, 0x11, 0x14, 0x29, 0x3B, 0x3C, 0, 0x01, 0x27];

    fn observed(octets: &[u8]) -> Observed {
        read::<BloodPressureMeasurement>(octets).expect("a blood pressure").0.observed()
    }

    #[test]
    fn pressure_and_pulse_are_two_values_under_the_same_remarks() {
        let octets = [&WITH_ALL[..], &[0x00]].concat();
        let observed = observed(&octets);
        let metrics: Vec<_> = observed.values.iter().map(|value| value.metric).collect();
        assert_eq!(metrics, [Metric::BloodPressure, Metric::PulseRateCuff]);
        assert_eq!(observed.user, Some(1));
        assert_eq!(observed.base_time.as_deref(), Some(&octets[7..14]));
        for value in &observed.values {
            let flags = [Flag::BodyMovement, Flag::CuffTooLoose, Flag::IrregularPulse, Flag::ImproperPosition];
            assert_eq!(value.status, flags.map(Status::Flag));
            assert_eq!(value.modality, Modality::Spot);
        }
    }

    #[test]
    fn an_unknown_user_is_nobody_and_user_zero_is_somebody() {
        assert_eq!(observed(&[0x08, 120, 0, 80, 0, 93, 0, 255]).user, None);
        assert_eq!(observed(&[0x08, 120, 0, 80, 0, 93, 0, 0]).user, Some(0));
    }

    #[test]
    fn a_pulse_out_of_range_says_on_which_side() {
        let status = |bits| observed(&[0x10, 120, 0, 80, 0, 93, 0, bits, 0]).values[0].status.clone();
        assert_eq!(status(0b0_1000), [Status::Flag(Flag::PulseRateAboveRange)]);
        assert_eq!(status(0b1_0000), [Status::Flag(Flag::PulseRateBelowRange)]);
        assert_eq!(status(0b1_1000), []);
    }

    #[test]
    fn the_pressure_of_the_cuff_stands_alone() {
        let value = read::<IntermediateCuffPressure>(&[0, 150, 0, 0xFF, 0x07, 0xFF, 0x07]).expect("a cuff pressure").0;
        let [measured] = &value.observed().values[..] else { panic!("not one value") };
        assert_eq!(measured.modality, Modality::Intermediate);
        assert_eq!(measured.value, Numbers::Single(Number::Finite(Decimal::new(150, 0)), Unit::MillimetreOfMercury));
    }
}
