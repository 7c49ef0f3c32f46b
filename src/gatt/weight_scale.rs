//! Weight Scale Service (181D): one weighing, with the body mass index and height a scale that knows its user adds.

use super::fields::{Names, named_bits};
use super::scaled::{Measures, TENTH};
use super::user_data::{known_user, user_field};
use super::{
    Cursor, DateTime, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status, Warning,
};
use crate::reading::{Decimal, Metric, Modality, Unit};

const UNIT_IS_IMPERIAL: u32 = 1 << 0;
const TIME_PRESENT: u32 = 1 << 1;
const USER_PRESENT: u32 = 1 << 2;
const BMI_AND_HEIGHT_PRESENT: u32 = 1 << 3;
const KNOWN_FLAGS: u32 = 0b1111;

/// Weight Measurement (2A9D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightMeasurement {
    pub measures: Measures,
    pub weight: Number,
    pub time: Option<DateTime>,
    /// The octet as sent: 255 is an unknown user, 0 a real one.
    pub user: Option<u8>,
    pub bmi: Option<Number>,
    pub height: Option<Number>,
}

impl Decode for WeightMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let sent = |bit| flags & bit != 0;
        let measures = Measures::of_flag(sent(UNIT_IS_IMPERIAL));
        Ok(Self {
            measures,
            weight: cursor.steps("weight", measures.mass().0)?,
            time: sent(TIME_PRESENT).then(|| cursor.date_time("time")).transpose()?,
            user: sent(USER_PRESENT).then(|| cursor.u8("user_id")).transpose()?,
            bmi: sent(BMI_AND_HEIGHT_PRESENT).then(|| cursor.steps("bmi", TENTH)).transpose()?,
            height: sent(BMI_AND_HEIGHT_PRESENT).then(|| cursor.steps("height", measures.length().0)).transpose()?,
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("weight", Field::quantity(self.weight, self.measures.mass().1))
            .with_sent("time", self.time.map(DateTime::field))
            .with_sent("user_id", self.user.map(user_field))
            .with_sent("bmi", self.bmi.map(|bmi| Field::quantity(bmi, Unit::KilogramPerSquareMetre)))
            .with_sent("height", self.height.map(|height| Field::quantity(height, self.measures.length().1)))
    }
}

impl Measurement for WeightMeasurement {
    fn observed(&self) -> Observed {
        let mut values = vec![spot(Metric::BodyWeight, self.weight, self.measures.mass().1)];
        values.extend(self.bmi.map(|bmi| spot(Metric::BodyMassIndex, bmi, Unit::KilogramPerSquareMetre)));
        values.extend(self.height.map(|height| spot(Metric::BodyHeight, height, self.measures.length().1)));
        Observed {
            values,
            user: self.user.and_then(known_user),
            device_time: self.time.and_then(|time| time.time),
            base_time: self.time.map(|time| time.octets.to_vec()),
            ..Observed::default()
        }
    }
}

/// One value taken on purpose, without a remark.
pub fn spot(metric: Metric, number: Number, unit: Unit) -> Measured {
    Measured { metric, site: None, modality: Modality::Spot, value: Numbers::Single(number, unit), status: Vec::<Status>::new() }
}

const FEATURE: Names = &[(0, "time_stamp"), (1, "multiple_users"), (2, "bmi")];
const KNOWN_FEATURES: u32 = named_bits(FEATURE) | 0b111_1111 << WEIGHT_RESOLUTION_SHIFT;
const WEIGHT_RESOLUTION_SHIFT: u32 = 3;
const HEIGHT_RESOLUTION_SHIFT: u32 = 7;

/// Weight Scale Feature (2A9E). Its resolutions say how good the scale is; the steps on the wire are the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightScaleFeature {
    features: u32,
    resolution: Resolution,
}

impl Decode for WeightScaleFeature {
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

/// How finely a scale weighs and measures; `None` where it does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub weight_kg: Option<Decimal>,
    pub height_m: Option<Decimal>,
}

/// By code, from 1.
const WEIGHT_RESOLUTION_KG: [Decimal; 7] = [
    Decimal::new(5, -1),
    Decimal::new(2, -1),
    Decimal::new(1, -1),
    Decimal::new(5, -2),
    Decimal::new(2, -2),
    Decimal::new(1, -2),
    Decimal::new(5, -3),
];
const HEIGHT_RESOLUTION_M: [Decimal; 3] = [Decimal::new(1, -2), Decimal::new(5, -3), Decimal::new(1, -3)];

impl Resolution {
    /// Four bits of weight and three of height, wherever a feature word has them.
    pub fn decode(cursor: &mut Cursor<'_>, bits: u32, weight_shift: u32, height_shift: u32) -> Self {
        let mut of = |code: u32, table: &[Decimal]| {
            let value = usize::try_from(code).ok().and_then(|code| table.get(code.checked_sub(1)?)).copied();
            if code != 0 && value.is_none() {
                cursor.warn(Warning::ReservedValue);
            }
            value
        };
        Self {
            weight_kg: of(bits >> weight_shift & 0b1111, &WEIGHT_RESOLUTION_KG),
            height_m: of(bits >> height_shift & 0b111, &HEIGHT_RESOLUTION_M),
        }
    }

    pub fn add_to(self, fields: Fields) -> Fields {
        let text = |value: Option<Decimal>| value.map_or(Field::Null, |value| Field::Number(Number::Finite(value)));
        fields.with("weight_resolution_kg", text(self.weight_kg)).with("height_resolution_m", text(self.height_m))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{Absent, read};

    fn observed(octets: &[u8]) -> Observed {
        read::<WeightMeasurement>(octets).expect("a weight").0.observed()
    }

    #[test]
    fn weight_index_and_height_of_one_weighing_are_one_record() {
        let observed = observed(&[0x0E, 0xB0, 0x36, 0xE7, 0x07, 0x0C, 0x19, 0x0E, 0x1E, 0x2D, 0x05, 0xF5, 0x00, 0xD6, 0x06]);
        let shown: Vec<_> = observed.values.iter().map(|value| (value.metric, value.value.clone())).collect();
        let number = |mantissa, exponent, unit| Numbers::Single(Number::Finite(Decimal::new(mantissa, exponent)), unit);
        let expected = [
            (Metric::BodyWeight, number(70_000, -3, Unit::Kilogram)),
            (Metric::BodyMassIndex, number(245, -1, Unit::KilogramPerSquareMetre)),
            (Metric::BodyHeight, number(1_750, -3, Unit::Metre)),
        ];
        assert_eq!(shown, expected);
        assert_eq!((observed.user, observed.base_time.map(|octets| octets.len())), (Some(5), Some(7)));
    }

    #[test]
    fn a_weighing_that_failed_is_no_number() {
        let value = observed(&[0x00, 0xFF, 0xFF]).values[0].value.clone();
        assert_eq!(value, Numbers::Single(Number::Absent(Absent::Unsuccessful), Unit::Kilogram));
    }
}
