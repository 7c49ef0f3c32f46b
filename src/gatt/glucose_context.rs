//! Glucose Measurement Context (2A34): what was eaten, taken and felt around a glucose.

use super::fields::Names;
use super::{Absent, Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status};
use crate::reading::{Flag, Metric, Modality, Unit};

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
