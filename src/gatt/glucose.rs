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
    /// Every record of a meter is one it had stored, the latest included.
    fn observed(&self) -> Observed {
        let value = self.concentration.map(|told| {
            let (metric, site) = told.sample.metric_and_site();
            let said = STATUS_MEANS.iter().filter(|(bit, _)| self.says(*bit)).map(|(_, means)| *means);
            let mut status: Vec<Status> = Vec::new();
            for means in told.sample.status().into_iter().chain(said) {
                if !status.contains(&means) {
                    status.push(means);
                }
            }
            Measured { metric, site, modality: Modality::Spot, value: Numbers::Single(told.glucose, told.unit), status }
        });
        Observed {
            values: value.into_iter().collect(),
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

mod context_flag {
    pub const CARBOHYDRATE: u32 = 1 << 0;
    pub const MEAL: u32 = 1 << 1;
    pub const TESTER_HEALTH: u32 = 1 << 2;
    pub const EXERCISE: u32 = 1 << 3;
    pub const MEDICATION: u32 = 1 << 4;
    pub const MEDICATION_IS_VOLUME: u32 = 1 << 5;
    pub const HBA1C: u32 = 1 << 6;
    pub const EXTENDED: u32 = 1 << 7;
}

/// Glucose Measurement Context (2A34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlucoseMeasurementContext {
    pub sequence: u16,
    pub carbohydrate: Option<(u8, Number)>,
    pub meal: Option<u8>,
    pub tester: Option<u8>,
    pub health: Option<u8>,
    pub exercise_seconds: Option<Number>,
    pub exercise_intensity: Option<Number>,
    pub medication: Option<(u8, Number, Unit)>,
    pub hba1c: Option<Number>,
}

const CARBOHYDRATE: Names =
    &[(1, "breakfast"), (2, "lunch"), (3, "dinner"), (4, "snack"), (5, "drink"), (6, "supper"), (7, "brunch")];
const MEAL: Names = &[(1, "preprandial"), (2, "postprandial"), (3, "fasting"), (4, "casual"), (5, "bedtime")];
const TESTER: Names = &[(1, "self"), (2, "health_care_professional"), (3, "lab_test"), (15, "not_available")];
const HEALTH: Names = &[
    (1, "minor_issues"),
    (2, "major_issues"),
    (3, "during_menses"),
    (4, "under_stress"),
    (5, "no_issues"),
    (15, "not_available"),
];
const MEDICATION: Names =
    &[(1, "rapid_insulin"), (2, "short_insulin"), (3, "intermediate_insulin"), (4, "long_insulin"), (5, "premixed_insulin")];

const CARBOHYDRATE_MEANS: &[Flag] =
    &[Flag::Breakfast, Flag::Lunch, Flag::Dinner, Flag::Snack, Flag::Drink, Flag::Supper, Flag::Brunch];
const MEAL_MEANS: &[Flag] = &[Flag::Preprandial, Flag::Postprandial, Flag::Fasting, Flag::Casual, Flag::Bedtime];
const TESTER_MEANS: &[Flag] = &[Flag::TestedBySelf, Flag::TestedByProfessional, Flag::TestedByLaboratory];
const HEALTH_MEANS: &[Flag] =
    &[Flag::MinorHealthIssues, Flag::MajorHealthIssues, Flag::DuringMenses, Flag::UnderStress, Flag::NoHealthIssues];
const MEDICATION_MEANS: &[Flag] = &[
    Flag::RapidActingInsulin,
    Flag::ShortActingInsulin,
    Flag::IntermediateActingInsulin,
    Flag::LongActingInsulin,
    Flag::PremixedInsulin,
];

/// The code of a list that counts from 1.
fn meaning(code: u8, means: &[Flag]) -> Option<Status> {
    means.get(usize::from(code.checked_sub(1)?)).map(|flag| Status::Flag(*flag))
}

impl Decode for GlucoseMeasurementContext {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags: u32 = cursor.u8("flags")?.into();
        let sent = |bit| flags & bit != 0;
        let sequence = cursor.u16("sequence")?;
        if sent(context_flag::EXTENDED) {
            let extended = cursor.u8("extended_flags")?;
            cursor.known_bits(extended.into(), 0);
        }
        let carbohydrate = sent(context_flag::CARBOHYDRATE)
            .then(|| Ok((cursor.code("carbohydrate_id", CARBOHYDRATE)?, cursor.sfloat("carbohydrate")?.shifted(3))))
            .transpose()?;
        let meal = sent(context_flag::MEAL).then(|| cursor.code("meal", MEAL)).transpose()?;
        let people = sent(context_flag::TESTER_HEALTH).then(|| cursor.u8("tester_health")).transpose()?;
        let (tester, health) = (people.map(|octet| octet & 0x0F), people.map(|octet| octet >> 4));
        tester.inspect(|code| cursor.known_code(*code, TESTER));
        health.inspect(|code| cursor.known_code(*code, HEALTH));
        let (exercise_seconds, exercise_intensity) = match sent(context_flag::EXERCISE) {
            true => (Some(exercise_duration(cursor)?), Some(Number::whole(cursor.u8("exercise_intensity")?))),
            false => (None, None),
        };
        let (places, unit) = match sent(context_flag::MEDICATION_IS_VOLUME) {
            true => (3, Unit::Millilitre),
            false => (6, Unit::Milligram),
        };
        let medication = sent(context_flag::MEDICATION)
            .then(|| Ok((cursor.code("medication_id", MEDICATION)?, cursor.sfloat("medication")?.shifted(places), unit)))
            .transpose()?;
        let hba1c = sent(context_flag::HBA1C).then(|| cursor.sfloat("hba1c")).transpose()?;
        Ok(Self { sequence, carbohydrate, meal, tester, health, exercise_seconds, exercise_intensity, medication, hba1c })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("sequence", Field::Integer(self.sequence.into()))
            .with_sent("carbohydrate_id", self.carbohydrate.map(|(id, _)| Field::Code(id, CARBOHYDRATE)))
            .with_sent("carbohydrate", self.carbohydrate.map(|(_, mass)| Field::quantity(mass, Unit::Gram)))
            .with_sent("meal", self.meal.map(|code| Field::Code(code, MEAL)))
            .with_sent("tester", self.tester.map(|code| Field::Code(code, TESTER)))
            .with_sent("health", self.health.map(|code| Field::Code(code, HEALTH)))
            .with_sent("exercise_duration", self.exercise_seconds.map(|time| Field::quantity(time, Unit::Second)))
            .with_sent("exercise_intensity", self.exercise_intensity.map(|share| Field::quantity(share, Unit::Percent)))
            .with_sent("medication_id", self.medication.map(|(id, ..)| Field::Code(id, MEDICATION)))
            .with_sent("medication", self.medication.map(|(_, dose, unit)| Field::quantity(dose, unit)))
            .with_sent("hba1c", self.hba1c.map(|share| Field::quantity(share, Unit::Percent)))
    }
}

fn exercise_duration(cursor: &mut Cursor<'_>) -> Result<Number, DecodeError> {
    Ok(match cursor.u16("exercise_duration")? {
        0xFFFF => Number::Absent(Absent::Overrun),
        seconds => Number::whole(seconds),
    })
}

impl GlucoseMeasurementContext {
    /// What it says about the glucose it belongs to.
    pub fn remarks(&self) -> Vec<Status> {
        let meal = self.meal.and_then(|code| meaning(code, MEAL_MEANS));
        let tester = self.tester.and_then(|code| meaning(code, TESTER_MEANS));
        let health = self.health.and_then(|code| meaning(code, HEALTH_MEANS));
        [meal, tester, health].into_iter().flatten().collect()
    }

    /// What it says beside that.
    pub fn values(&self) -> Vec<Measured> {
        let spot = |metric, number, unit, status: Option<Status>| Measured {
            metric,
            site: None,
            modality: Modality::Spot,
            value: Numbers::Single(number, unit),
            status: status.into_iter().collect(),
        };
        let carbohydrate =
            self.carbohydrate.map(|(id, mass)| spot(Metric::Carbohydrate, mass, Unit::Gram, meaning(id, CARBOHYDRATE_MEANS)));
        let exercise = self.exercise_intensity.map(|share| spot(Metric::ExerciseIntensity, share, Unit::Percent, None));
        let medication =
            self.medication.map(|(id, dose, unit)| spot(Metric::Medication, dose, unit, meaning(id, MEDICATION_MEANS)));
        let hba1c = self.hba1c.map(|share| spot(Metric::Hba1c, share, Unit::Percent, None));
        [carbohydrate, exercise, medication, hba1c].into_iter().flatten().collect()
    }
}

impl Measurement for GlucoseMeasurementContext {
    /// Alone it has no time, and a sequence number without one names nothing: a meter that starts over counts over it.
    fn observed(&self) -> Observed {
        Observed { values: self.values(), stored: true, ..Observed::default() }
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
    fn a_record_without_a_concentration_is_no_value() {
        assert_eq!(observed(0x00, &[]).values, []);
    }

    #[test]
    fn a_context_speaks_of_the_glucose_and_of_what_was_eaten_and_taken() {
        let octets = [0x57, 1, 0, 1, 0x3C, 0xD0, 2, 0x51, 1, 0x0A, 0xA0, 0x41, 0xF0];
        let context = read::<GlucoseMeasurementContext>(&octets).expect("a context").0;
        assert_eq!(context.remarks(), [Flag::Postprandial, Flag::TestedBySelf, Flag::NoHealthIssues].map(Status::Flag));
        let values = context.values();
        let shown: Vec<_> = values.iter().map(|value| (value.metric, value.status.as_slice())).collect();
        let expected: [(Metric, &[Status]); 3] = [
            (Metric::Carbohydrate, &[Status::Flag(Flag::Breakfast)]),
            (Metric::Medication, &[Status::Flag(Flag::RapidActingInsulin)]),
            (Metric::Hba1c, &[]),
        ];
        assert_eq!(shown, expected);
    }
}
