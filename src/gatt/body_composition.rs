//! Body Composition Service (181B): what a scale makes of its impedance. A measurement that does not fit one indication comes
//! in two, which [`BodyCompositionParts`] puts together.

use super::fields::{Names, named_bits};
use super::scaled::{Measures, Step, TENTH};
use super::user_data::{known_user, user_field};
use super::weight_scale::{Resolution, spot};
use super::{Absent, Cursor, DateTime, Decode, DecodeError, Field, Fields, Measurement, Number, Observed};
use crate::reading::{BootMillis, Metric, Unit};

const UNIT_IS_IMPERIAL: u32 = 1 << 0;
const TIME_PRESENT: u32 = 1 << 1;
const USER_PRESENT: u32 = 1 << 2;
const MULTIPLE_PACKETS: u32 = 1 << 12;
const KNOWN_FLAGS: u32 = 0x1FFF;

/// In the order sent, with the bit of the flags that says so.
const PARTS: &[(u32, Part)] = &[
    (1 << 3, Part::BasalMetabolism),
    (1 << 4, Part::Muscle),
    (1 << 5, Part::MuscleMass),
    (1 << 6, Part::FatFreeMass),
    (1 << 7, Part::SoftLeanMass),
    (1 << 8, Part::BodyWaterMass),
    (1 << 9, Part::Impedance),
    (1 << 10, Part::Weight),
    (1 << 11, Part::Height),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    BasalMetabolism,
    Muscle,
    MuscleMass,
    FatFreeMass,
    SoftLeanMass,
    BodyWaterMass,
    Impedance,
    Weight,
    Height,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Part::BasalMetabolism => "basal_metabolism",
            Part::Muscle => "muscle",
            Part::MuscleMass => "muscle_mass",
            Part::FatFreeMass => "fat_free_mass",
            Part::SoftLeanMass => "soft_lean_mass",
            Part::BodyWaterMass => "body_water_mass",
            Part::Impedance => "impedance",
            Part::Weight => "weight",
            Part::Height => "height",
        }
    }

    const fn metric(self) -> Metric {
        match self {
            Part::BasalMetabolism => Metric::BasalMetabolism,
            Part::Muscle => Metric::MusclePercent,
            Part::MuscleMass => Metric::MuscleMass,
            Part::FatFreeMass => Metric::BodyFatFreeMass,
            Part::SoftLeanMass => Metric::BodySoftLeanMass,
            Part::BodyWaterMass => Metric::BodyWaterMass,
            Part::Impedance => Metric::BodyImpedance,
            Part::Weight => Metric::BodyWeight,
            Part::Height => Metric::BodyHeight,
        }
    }

    /// GSS gives impedance a resolution of 0.1 ohm in words and of 0.01 in numbers; devices send tenths.
    const fn scale(self, measures: Measures) -> (Step, Unit) {
        match self {
            Part::BasalMetabolism => (Step::new(1, 0), Unit::Kilojoule),
            Part::Muscle => (TENTH, Unit::Percent),
            Part::Impedance => (TENTH, Unit::Ohm),
            Part::Height => measures.length(),
            Part::MuscleMass | Part::FatFreeMass | Part::SoftLeanMass | Part::BodyWaterMass | Part::Weight => measures.mass(),
        }
    }
}

/// Body Composition Measurement (2A9C): one indication, or two put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyCompositionMeasurement {
    pub measures: Measures,
    pub body_fat: Number,
    /// This is one of several indications of one measurement.
    pub multiple_packets: bool,
    pub time: Option<DateTime>,
    /// The octet as sent: 255 is an unknown user, 0 a real one.
    pub user: Option<u8>,
    pub parts: Vec<(Part, Number)>,
}

impl Decode for BodyCompositionMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u16("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let sent = |bit| flags & bit != 0;
        let measures = Measures::of_flag(sent(UNIT_IS_IMPERIAL));
        let body_fat = cursor.steps("body_fat", TENTH)?;
        let time = sent(TIME_PRESENT).then(|| cursor.date_time("time")).transpose()?;
        let user = sent(USER_PRESENT).then(|| cursor.u8("user_id")).transpose()?;
        let mut part = |part: Part| cursor.steps(part.name(), part.scale(measures).0).map(|number| (part, number));
        let parts = PARTS.iter().filter(|(bit, _)| sent(*bit)).map(|(_, of)| part(*of)).collect::<Result<_, _>>()?;
        Ok(Self { measures, body_fat, multiple_packets: sent(MULTIPLE_PACKETS), time, user, parts })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new()
            .with("body_fat", Field::quantity(self.body_fat, Unit::Percent))
            .with("multiple_packet", Field::Bool(self.multiple_packets))
            .with_sent("time", self.time.map(DateTime::field))
            .with_sent("user_id", self.user.map(user_field));
        let quantity = |part: Part, number| Field::quantity(number, part.scale(self.measures).1);
        self.parts.iter().fold(fields, |fields, (part, number)| fields.with(part.name(), quantity(*part, *number)))
    }
}

impl Measurement for BodyCompositionMeasurement {
    fn observed(&self) -> Observed {
        let part = |(part, number): &(Part, Number)| spot(part.metric(), *number, part.scale(self.measures).1);
        let body_fat = spot(Metric::BodyFatPercent, self.body_fat, Unit::Percent);
        Observed {
            values: std::iter::once(body_fat).chain(self.parts.iter().map(part)).collect(),
            user: self.user.and_then(known_user),
            device_time: self.time.and_then(|time| time.time),
            base_time: self.time.map(|time| time.octets.to_vec()),
            ..Observed::default()
        }
    }
}

/// Puts the indications of one measurement together: at most one is waiting, and never longer than [`Self::WAIT_MS`]. `T` is
/// what goes along with an indication, such as how it was heard: two together have that of the first.
#[derive(Clone, Debug)]
pub struct BodyCompositionParts<T> {
    first: Option<(BootMillis, T, BodyCompositionMeasurement)>,
}

impl<T> Default for BodyCompositionParts<T> {
    fn default() -> Self {
        Self { first: None }
    }
}

impl<T> BodyCompositionParts<T> {
    /// The second indication follows the confirmation of the first, within a connection interval or two; 5 s are many.
    pub const WAIT_MS: u64 = 5_000;

    /// Takes an indication; gives back what is complete by now, oldest first: at most two measurements.
    pub fn push(
        &mut self,
        now: BootMillis,
        along: T,
        measurement: BodyCompositionMeasurement,
    ) -> Vec<(T, BodyCompositionMeasurement)> {
        let mut done: Vec<_> = self.due(now).into_iter().collect();
        if !measurement.multiple_packets {
            done.extend(self.finish());
            done.push((along, measurement));
            return done;
        }
        match self.first.take() {
            None => self.first = Some((now, along, measurement)),
            Some((_, of_first, first)) => match first.joined(&measurement) {
                Some(joined) => done.push((of_first, joined)),
                None => {
                    done.push((of_first, first));
                    self.first = Some((now, along, measurement));
                }
            },
        }
        done
    }

    /// What has waited too long goes as it is.
    pub fn due(&mut self, now: BootMillis) -> Option<(T, BodyCompositionMeasurement)> {
        let waited = self.first.as_ref().is_some_and(|(since, ..)| now.0.saturating_sub(since.0) > Self::WAIT_MS);
        if waited { self.finish() } else { None }
    }

    /// The link is gone: nothing will follow.
    pub fn finish(&mut self) -> Option<(T, BodyCompositionMeasurement)> {
        self.first.take().map(|(_, along, measurement)| (along, measurement))
    }
}

impl BodyCompositionMeasurement {
    /// Both as one; `None` where they contradict each other, so that a part of one person's measurement never completes
    /// another's. What the second leaves out (time, user) is the first's.
    fn joined(&self, second: &Self) -> Option<Self> {
        let agree = |a: Option<u8>, b: Option<u8>| a.is_none() || b.is_none() || a == b;
        let times = (self.time.map(|time| time.octets), second.time.map(|time| time.octets));
        let same = self.measures == second.measures
            && agree(self.user, second.user)
            && (times.0.is_none() || times.1.is_none() || times.0 == times.1)
            && !second.parts.iter().any(|(part, _)| self.parts.iter().any(|(known, _)| known == part));
        let body_fat = match (self.body_fat, second.body_fat) {
            (a, b) if a == b => a,
            (Number::Absent(Absent::Unsuccessful), told) | (told, Number::Absent(Absent::Unsuccessful)) => told,
            _ => return None,
        };
        let parts = self.parts.iter().chain(&second.parts).copied().collect();
        same.then(|| Self { body_fat, time: self.time.or(second.time), user: self.user.or(second.user), parts, ..self.clone() })
    }
}

const FEATURE: Names = &[
    (0, "time_stamp"),
    (1, "multiple_users"),
    (2, "basal_metabolism"),
    (3, "muscle_percentage"),
    (4, "muscle_mass"),
    (5, "fat_free_mass"),
    (6, "soft_lean_mass"),
    (7, "body_water_mass"),
    (8, "impedance"),
    (9, "weight"),
    (10, "height"),
];
const WEIGHT_RESOLUTION_SHIFT: u32 = 11;
const HEIGHT_RESOLUTION_SHIFT: u32 = 15;
const KNOWN_FEATURES: u32 = named_bits(FEATURE) | 0b111_1111 << WEIGHT_RESOLUTION_SHIFT;

/// Body Composition Feature (2A9B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyCompositionFeature {
    features: u32,
    resolution: Resolution,
}

impl Decode for BodyCompositionFeature {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let features = cursor.u32("features")?;
        let features = cursor.known_bits(features, KNOWN_FEATURES);
        let resolution = Resolution::decode(cursor, features, WEIGHT_RESOLUTION_SHIFT, HEIGHT_RESOLUTION_SHIFT);
        Ok(Self { features, resolution })
    }

    fn fields(&self) -> Fields {
        self.resolution.add_to(Fields::new().with("features", Field::Bits(self.features, FEATURE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    const TIME: [u8; 7] = [0xEA, 0x07, 0x0B, 0x17, 0x0A, 0x1E, 0x00];

    /// `flags` with the multi-packet bit, the time and user 1, then `rest`.
    fn packet(flags: u16, fat: u16, user: u8, rest: &[u8]) -> BodyCompositionMeasurement {
        let flags = (flags | 0x1006).to_le_bytes();
        let octets = [&flags[..], &fat.to_le_bytes(), &TIME, &[user], rest].concat();
        read::<BodyCompositionMeasurement>(&octets).expect("a packet").0
    }

    fn muscle(user: u8) -> BodyCompositionMeasurement {
        packet(1 << 4, 220, user, &[0x90, 0x01])
    }

    fn weight(user: u8) -> BodyCompositionMeasurement {
        packet(1 << 10, 220, user, &[0xB0, 0x36])
    }

    #[test]
    fn two_indications_of_one_measurement_are_one_record() {
        let mut parts = BodyCompositionParts::default();
        assert_eq!(parts.push(BootMillis(1_000), "first", muscle(1)), []);
        let joined = parts.push(BootMillis(1_100), "second", weight(1));
        let [("first", joined)] = &joined[..] else { panic!("not one: {joined:?}") };
        let metrics: Vec<_> = joined.observed().values.iter().map(|value| value.metric).collect();
        assert_eq!(metrics, [Metric::BodyFatPercent, Metric::MusclePercent, Metric::BodyWeight]);
        assert_eq!(joined.observed().user, Some(1));
        assert_eq!(parts.finish(), None);
    }

    #[test]
    fn indications_that_contradict_each_other_stay_apart() {
        let mut parts = BodyCompositionParts::default();
        parts.push(BootMillis(0), 0, muscle(1));
        assert_eq!(parts.push(BootMillis(1), 1, weight(2)), [(0, muscle(1))], "two users");
        assert_eq!(parts.push(BootMillis(2), 2, weight(2)), [(1, weight(2))], "the same part twice");
        let other_fat = packet(1 << 4, 221, 2, &[0x90, 0x01]);
        assert_eq!(parts.push(BootMillis(3), 3, other_fat.clone()), [(2, weight(2))], "another body fat");
        assert_eq!(parts.finish(), Some((3, other_fat)));
    }

    #[test]
    fn a_half_nobody_completes_goes_alone_and_late() {
        let mut parts = BodyCompositionParts::default();
        let wait = BodyCompositionParts::<u8>::WAIT_MS;
        parts.push(BootMillis(0), 0, muscle(1));
        assert_eq!(parts.due(BootMillis(wait)), None);
        let later = BootMillis(wait + 1);
        assert_eq!(parts.push(later, 1, weight(1)), [(0, muscle(1))]);
        let whole = read::<BodyCompositionMeasurement>(&[0, 0, 0xDC, 0]).expect("a measurement").0;
        assert_eq!(parts.push(later, 2, whole.clone()), [(1, weight(1)), (2, whole)], "a whole one waits for nobody");
    }
}
