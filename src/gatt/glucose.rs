//! Glucose Service (1808): records out of a meter's memory. What was eaten, taken and felt comes as a context of its own;
//! [`super::GlucosePairs`] brings the two together.

use super::fields::{Names, named_bits};
use super::{
    Absent, Cursor, DateTime, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status,
};
use crate::reading::{DeviceTime, Flag, Metric, Modality, OutOfRange, Site, Unit};

const OFFSET_PRESENT: u32 = 1 << 0;
const CONCENTRATION_PRESENT: u32 = 1 << 1;
const UNIT_IS_MOLE: u32 = 1 << 2;
const STATUS_PRESENT: u32 = 1 << 3;
const CONTEXT_FOLLOWS: u32 = 1 << 4;
const KNOWN_FLAGS: u32 = 0b1_1111;

/// Glucose Measurement (2A18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlucoseMeasurement {
    pub sequence: u16,
    pub base_time: DateTime,
    /// What the user moved the clock by since the base time was set, in minutes.
    pub time_offset_min: Option<i16>,
    pub concentration: Option<Concentration>,
    pub status: Option<u32>,
    pub context_follows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concentration {
    pub glucose: Number,
    pub unit: Unit,
    pub sample: Sample,
}

/// What was measured and where it was taken from, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub kind: u8,
    pub location: u8,
}

pub const SAMPLE_TYPE: Names = &[
    (1, "capillary_whole_blood"),
    (2, "capillary_plasma"),
    (3, "venous_whole_blood"),
    (4, "venous_plasma"),
    (5, "arterial_whole_blood"),
    (6, "arterial_plasma"),
    (7, "undetermined_whole_blood"),
    (8, "undetermined_plasma"),
    (9, "interstitial_fluid"),
    (10, "control_solution"),
];
pub const SAMPLE_LOCATION: Names =
    &[(1, "finger"), (2, "alternate_site"), (3, "earlobe"), (4, "control_solution"), (15, "not_available")];

impl Sample {
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octet = cursor.u8("sample")?;
        let sample = Self { kind: octet & 0x0F, location: octet >> 4 };
        cursor.known_code(sample.kind, SAMPLE_TYPE);
        cursor.known_code(sample.location, SAMPLE_LOCATION);
        Ok(sample)
    }

    pub fn add_to(self, fields: Fields) -> Fields {
        fields
            .with("sample_type", Field::Code(self.kind, SAMPLE_TYPE))
            .with("sample_location", Field::Code(self.location, SAMPLE_LOCATION))
    }

    const fn metric_and_site(self) -> (Metric, Option<Site>) {
        let site = match self.kind {
            1 => Some(Site::CapillaryWholeBlood),
            2 => Some(Site::CapillaryPlasma),
            3 => Some(Site::VenousWholeBlood),
            4 => Some(Site::VenousPlasma),
            5 => Some(Site::ArterialWholeBlood),
            6 => Some(Site::ArterialPlasma),
            7 => Some(Site::UndeterminedWholeBlood),
            8 => Some(Site::UndeterminedPlasma),
            9 => return (Metric::GlucoseInterstitial, None),
            _ => None,
        };
        (Metric::Glucose, site)
    }

    /// A liquid of known strength that checks the meter is nobody's blood, whichever of the two fields says so.
    const fn status(self) -> Option<Status> {
        match (self.kind, self.location) {
            (10, _) | (_, 4) => Some(Status::ControlSolution),
            (_, 2) => Some(Status::Flag(Flag::AlternateSite)),
            (_, 3) => Some(Status::Flag(Flag::Earlobe)),
            _ => None,
        }
    }
}

impl Decode for GlucoseMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let sent = |bit| flags & bit != 0;
        Ok(Self {
            sequence: cursor.u16("sequence")?,
            base_time: cursor.date_time("base_time")?,
            time_offset_min: sent(OFFSET_PRESENT).then(|| cursor.i16("time_offset")).transpose()?,
            concentration: sent(CONCENTRATION_PRESENT).then(|| Concentration::decode(cursor, sent(UNIT_IS_MOLE))).transpose()?,
            status: sent(STATUS_PRESENT).then(|| status_bits(cursor)).transpose()?,
            context_follows: sent(CONTEXT_FOLLOWS),
        })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new()
            .with("sequence", Field::Integer(self.sequence.into()))
            .with("base_time", self.base_time.field())
            .with_sent("time_offset_min", self.time_offset_min.map(|minutes| Field::Signed(minutes.into())))
            .with("time", Field::Time(self.time()));
        let fields = match self.concentration {
            Some(told) => told.sample.add_to(fields.with("glucose", Field::quantity(told.glucose, told.unit))),
            None => fields,
        };
        fields
            .with_sent("status", self.status.map(|bits| Field::Bits(bits, STATUS)))
            .with("context_follows", Field::Bool(self.context_follows))
    }
}

impl Concentration {
    /// Meters send kg/L or mol/L and show mg/dL or mmol/L: the same digits, the point moved.
    fn decode(cursor: &mut Cursor<'_>, is_mole: bool) -> Result<Self, DecodeError> {
        let (places, unit) = if is_mole { (3, Unit::MillimolePerLitre) } else { (5, Unit::MilligramPerDecilitre) };
        Ok(Self { glucose: cursor.sfloat("glucose")?.shifted(places), unit, sample: Sample::decode(cursor)? })
    }
}

fn status_bits(cursor: &mut Cursor<'_>) -> Result<u32, DecodeError> {
    let bits = cursor.u16("status")?;
    Ok(cursor.known_bits(bits.into(), named_bits(STATUS)))
}

impl GlucoseMeasurement {
    /// Base time and offset together: what the meter's clock showed.
    pub fn time(&self) -> Option<DeviceTime> {
        self.base_time.time?.plus_minutes(self.time_offset_min.unwrap_or(0).into())
    }

    fn says(&self, bit: u8) -> bool {
        self.status.is_some_and(|bits| bits >> bit & 1 != 0)
    }
}

impl Measurement for GlucoseMeasurement {
    /// Every record of a meter is one it had stored, the latest included. One without a concentration is an event, or a result
    /// without a number where the status says too high or too low: a record the meter has is never passed over in silence.
    fn observed(&self) -> Observed {
        let told = self.concentration;
        let (metric, site) = told.map_or((Metric::Glucose, None), |told| told.sample.metric_and_site());
        let (number, unit) =
            told.map_or((Number::Absent(Absent::Missing), Unit::MilligramPerDecilitre), |told| (told.glucose, told.unit));
        let said = STATUS_MEANS.iter().filter(|(bit, _)| self.says(*bit)).map(|(_, means)| *means);
        let status = told.and_then(|told| told.sample.status()).into_iter().chain(said).collect();
        let value = Numbers::Single(number, unit);
        Observed {
            values: vec![Measured { metric, site, modality: Modality::Spot, value, status }],
            device_time: self.time().filter(|_| !self.says(TIME_FAULT)),
            base_time: Some(self.base_time.octets.to_vec()),
            sequence: Some(self.sequence.into()),
            stored: true,
            ..Observed::default()
        }
    }
}

const STATUS: Names = &[
    (0, "battery_low"),
    (1, "sensor_malfunction"),
    (2, "sample_size_insufficient"),
    (3, "strip_insertion_error"),
    (4, "strip_type_incorrect"),
    (5, "result_too_high"),
    (6, "result_too_low"),
    (7, "temperature_too_high"),
    (8, "temperature_too_low"),
    (9, "read_interrupted"),
    (10, "general_device_fault"),
    (11, "time_fault"),
];
const TIME_FAULT: u8 = 11;

const STATUS_MEANS: &[(u8, Status)] = &[
    (0, Status::Flag(Flag::BatteryLow)),
    (1, Status::Flag(Flag::SensorMalfunction)),
    (2, Status::Flag(Flag::InsufficientSample)),
    (3, Status::Flag(Flag::StripInsertionError)),
    (4, Status::Flag(Flag::StripTypeIncorrect)),
    (5, Status::OutOfRange(OutOfRange::High)),
    (6, Status::OutOfRange(OutOfRange::Low)),
    (7, Status::Flag(Flag::SensorTemperatureTooHigh)),
    (8, Status::Flag(Flag::SensorTemperatureTooLow)),
    (9, Status::Flag(Flag::ReadInterrupted)),
    (10, Status::Flag(Flag::DeviceFault)),
    (11, Status::Flag(Flag::TimeFault)),
];

const FEATURE: Names = &[
    (0, "low_battery"),
    (1, "sensor_malfunction"),
    (2, "sample_size"),
    (3, "strip_insertion_error"),
    (4, "strip_type_error"),
    (5, "result_high_low"),
    (6, "temperature_high_low"),
    (7, "read_interrupt"),
    (8, "general_device_fault"),
    (9, "time_fault"),
    (10, "multiple_bonds"),
];

/// Glucose Feature (2A51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlucoseFeature(u32);

impl Decode for GlucoseFeature {
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

    /// Sequence 1, 2026-11-23T10:00:00, then what follows.
    fn observed(flags: u8, rest: &[u8]) -> Observed {
        let octets = [&[flags, 1, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0][..], rest].concat();
        read::<GlucoseMeasurement>(&octets).expect("a glucose").0.observed()
    }

    #[test]
    fn control_solution_is_nobodys_blood_whichever_field_says_so() {
        for sample in [0x1A, 0x41, 0x4A] {
            assert_eq!(observed(0x02, &[0x6E, 0xB0, sample]).values[0].status, [Status::ControlSolution], "{sample:#x}");
        }
        assert_eq!(observed(0x02, &[0x6E, 0xB0, 0x11]).values[0].status, []);
    }

    #[test]
    fn a_record_is_named_by_its_sequence_and_base_time_and_the_offset_moves_only_its_time() {
        let observed = observed(0x03, &[0xC4, 0xFF, 0x5A, 0xB0, 0x11]);
        assert_eq!(observed.device_time.map(|time| time.to_string()).as_deref(), Some("2026-11-23T09:00:00"));
        assert_eq!((observed.sequence, observed.base_time.as_deref()), (Some(1), Some(&[0xEA, 7, 11, 23, 10, 0, 0][..])));
        assert!(observed.stored);
    }

    #[test]
    fn a_meter_that_doubts_its_clock_gives_no_time_and_keeps_the_identity() {
        let observed = observed(0x0A, &[0x6E, 0xB0, 0x11, 0x00, 0x08]);
        assert_eq!((observed.device_time, observed.sequence), (None, Some(1)));
        assert_eq!(observed.values[0].status, [Status::Flag(Flag::TimeFault)]);
    }

    #[test]
    fn every_status_bit_with_a_name_means_something() {
        assert_eq!(STATUS_MEANS.iter().fold(0u32, |bits, (bit, _)| bits | 1 << bit), named_bits(STATUS));
    }

    #[test]
    fn a_record_without_a_concentration_is_not_passed_over_in_silence() {
        let [value] = &observed(0x00, &[]).values[..] else { panic!("not one value") };
        assert_eq!(value.value, Numbers::Single(Number::Absent(Absent::Missing), Unit::MilligramPerDecilitre));
        assert_eq!(observed(0x08, &[0x20, 0x00]).values[0].status, [Status::OutOfRange(OutOfRange::High)]);
    }
}
