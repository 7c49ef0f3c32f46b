//! A value in another unit, in exact decimal arithmetic: every factor is a ratio of whole numbers, and only the last digit is
//! rounded, half to even. Pure.

use crate::reading::{Decimal, Unit};

/// Digits behind the point at most: more than any device resolves, and 12 of them still fit beside any value.
const MAX_PLACES: u8 = 12;

/// What one unit of a dimension is in the dimension's own: (value + `offset`) × `numerator` / `denominator`.
#[derive(Clone, Copy)]
struct Scale {
    dimension: Dimension,
    offset: Decimal,
    numerator: i128,
    denominator: i128,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dimension {
    /// °C.
    Temperature,
    /// Pa.
    Pressure,
    /// mg.
    Mass,
    /// mm.
    Length,
    /// mL.
    Volume,
    /// ms.
    Time,
    /// mg/dL, of glucose.
    Glucose,
    Number,
}

/// Whether a value in one unit can be told in the other.
pub fn converts(from: Unit, to: Unit) -> bool {
    from == to || matches!((scale(from), scale(to)), (Some(a), Some(b)) if a.dimension == b.dimension)
}

/// The value in `to`, with `decimals` digits behind the point at most. Absent: as few as tell each value of this resolution
/// from the next, so that converted back and rounded it is the same again; a value in its own unit stays as it is. `None`: it
/// is of another dimension, or has too many digits.
pub fn convert(value: Decimal, from: Unit, to: Unit, decimals: Option<u8>) -> Option<Decimal> {
    if from == to {
        let finest = decimals.map_or(value.exponent(), |decimals| -i8::try_from(decimals).unwrap_or(i8::MAX));
        return if value.exponent() < finest { value.round_to(finest) } else { Some(value) };
    }
    let (from, to) = (scale(from)?, scale(to)?);
    if from.dimension != to.dimension {
        return None;
    }
    let places = places(value.exponent(), from, to)?.min(decimals.unwrap_or(MAX_PLACES));
    at(value, from, to, -i8::try_from(places).ok()?)
}

/// The fewest places at which a step is no longer than a step of the value's resolution.
fn places(exponent: i8, from: Scale, to: Scale) -> Option<u8> {
    let step = from.numerator.checked_mul(to.denominator)?;
    let unit = from.denominator.checked_mul(to.numerator)?;
    (0..=MAX_PLACES).find(|places| {
        let shift = i16::from(exponent) + i16::from(*places);
        let Some(power) = 10i128.checked_pow(u32::from(shift.unsigned_abs())) else { return shift > 0 };
        let (step, unit) = if shift >= 0 { (step.checked_mul(power), Some(unit)) } else { (Some(step), unit.checked_mul(power)) };
        matches!((step, unit), (None, _)) || matches!((step, unit), (Some(step), Some(unit)) if unit <= step)
    })
}

/// Half to even at `exponent`.
fn at(value: Decimal, from: Scale, to: Scale, exponent: i8) -> Option<Decimal> {
    let shifted = value.checked_add(from.offset)?;
    let mut numerator = i128::from(shifted.mantissa()).checked_mul(from.numerator)?.checked_mul(to.denominator)?;
    let mut denominator = from.denominator.checked_mul(to.numerator)?;
    // The offset of the target is taken off at the resolution that is asked for, where it is exact.
    let power = 10i128.checked_pow(u32::from(shifted.exponent().abs_diff(exponent)))?;
    if shifted.exponent() >= exponent {
        numerator = numerator.checked_mul(power)?;
    } else {
        denominator = denominator.checked_mul(power)?;
    }
    let offset = to.offset.round_to(exponent.min(to.offset.exponent()))?;
    let rounded = Decimal::new(i64::try_from(div_half_even(numerator, denominator)).ok()?, exponent);
    rounded.checked_sub(offset)?.round_to(exponent)
}

fn div_half_even(numerator: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (numerator.div_euclid(divisor), numerator.rem_euclid(divisor));
    match remainder.cmp(&(divisor - remainder)) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + quotient.rem_euclid(2),
    }
}

const fn scale(unit: Unit) -> Option<Scale> {
    const fn of(dimension: Dimension, numerator: i128, denominator: i128) -> Option<Scale> {
        Some(Scale { dimension, offset: Decimal::ZERO, numerator, denominator })
    }
    match unit {
        Unit::DegreeCelsius => of(Dimension::Temperature, 1, 1),
        Unit::DegreeFahrenheit => {
            Some(Scale { dimension: Dimension::Temperature, offset: Decimal::new(-32, 0), numerator: 5, denominator: 9 })
        }
        // The conventional millimetre of mercury: 13.5951 g/cm³ × 9.80665 m/s².
        Unit::MillimetreOfMercury => of(Dimension::Pressure, 133_322_387_415, 1_000_000_000),
        Unit::Kilopascal => of(Dimension::Pressure, 1_000, 1),
        Unit::Kilogram => of(Dimension::Mass, 1_000_000, 1),
        Unit::Gram => of(Dimension::Mass, 1_000, 1),
        Unit::Milligram => of(Dimension::Mass, 1, 1),
        // 0.45359237 kg since 1959.
        Unit::Pound => of(Dimension::Mass, 45_359_237, 100),
        Unit::Metre => of(Dimension::Length, 1_000, 1),
        Unit::Centimetre => of(Dimension::Length, 10, 1),
        Unit::Inch => of(Dimension::Length, 254, 10),
        Unit::Litre => of(Dimension::Volume, 1_000, 1),
        Unit::Millilitre => of(Dimension::Volume, 1, 1),
        Unit::Second => of(Dimension::Time, 1_000, 1),
        Unit::Millisecond => of(Dimension::Time, 1, 1),
        Unit::MilligramPerDecilitre => of(Dimension::Glucose, 1, 1),
        // The molar mass of glucose is 180.156 g/mol.
        Unit::MillimolePerLitre => of(Dimension::Glucose, 180_156, 10_000),
        Unit::One | Unit::InternationalNormalizedRatio => of(Dimension::Number, 1, 1),
        Unit::PerMinute
        | Unit::Percent
        | Unit::Kilojoule
        | Unit::KilogramPerSquareMetre
        | Unit::Ohm
        | Unit::LitrePerMinute
        | Unit::MilligramPerDecilitrePerMinute => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of a unit that converts to none but itself.
    const IDENTITY: Scale = Scale { dimension: Dimension::Number, offset: Decimal::ZERO, numerator: 1, denominator: 1 };

    fn d(text: &str) -> Decimal {
        text.parse().expect("a decimal in a test")
    }

    /// Worked out by hand, with as many digits as a person would read.
    #[test]
    fn known_values_convert_as_the_textbooks_say() {
        use Unit::{
            Centimetre, DegreeCelsius, DegreeFahrenheit, Inch, Kilogram, Kilopascal, Metre, MilligramPerDecilitre,
            MillimetreOfMercury, MillimolePerLitre, Pound,
        };
        for (value, from, to, decimals, expected) in [
            ("37.0", DegreeCelsius, DegreeFahrenheit, None, "98.6"),
            ("98.6", DegreeFahrenheit, DegreeCelsius, None, "37.00"),
            ("-40", DegreeCelsius, DegreeFahrenheit, None, "-40"),
            ("16.0", Kilopascal, MillimetreOfMercury, Some(0), "120"),
            ("120", MillimetreOfMercury, Kilopascal, None, "16.0"),
            ("71.35", Kilogram, Pound, Some(1), "157.3"),
            ("150", Pound, Kilogram, None, "68.0"),
            ("1.75", Metre, Centimetre, None, "175"),
            ("70.0", Inch, Centimetre, Some(1), "177.8"),
            ("99", MilligramPerDecilitre, MillimolePerLitre, Some(1), "5.5"),
            ("99", MilligramPerDecilitre, MillimolePerLitre, None, "5.50"),
            ("5.5", MillimolePerLitre, MilligramPerDecilitre, Some(0), "99"),
        ] {
            assert_eq!(convert(d(value), from, to, decimals), Some(d(expected)), "{value} {}", from.ucum());
        }
    }

    #[test]
    fn a_value_in_its_own_unit_keeps_its_digits_and_gets_none() {
        assert_eq!(convert(d("36.60"), Unit::DegreeCelsius, Unit::DegreeCelsius, None), Some(d("36.60")));
        assert_eq!(convert(d("36.6"), Unit::DegreeCelsius, Unit::DegreeCelsius, Some(2)), Some(d("36.6")));
        assert_eq!(convert(d("71.355"), Unit::Kilogram, Unit::Kilogram, Some(1)), Some(d("71.4")));
    }

    #[test]
    fn no_unit_becomes_one_of_another_kind() {
        assert!(!converts(Unit::Kilogram, Unit::Centimetre));
        assert_eq!(convert(d("1"), Unit::PerMinute, Unit::Percent, None), None);
        for from in Unit::ALL {
            for to in Unit::ALL {
                assert_eq!(converts(*from, *to), converts(*to, *from), "{from:?} {to:?}");
                assert_eq!(converts(*from, *to), convert(d("1"), *from, *to, None).is_some(), "{from:?} {to:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn converted_and_converted_back_it_is_the_value_again(
            mantissa in -10_000_000i64..10_000_000, exponent in -4i8..=0, from in 0..Unit::ALL.len()
        ) {
            let (value, from) = (Decimal::new(mantissa, exponent), Unit::ALL[from]);
            for to in Unit::ALL.iter().copied().filter(|to| converts(from, *to)) {
                let there = convert(value, from, to, None).expect("it fits");
                let back = at(there, scale(to).unwrap_or(IDENTITY), scale(from).unwrap_or(IDENTITY), exponent).expect("it fits");
                prop_assert!(back.cmp_value(value).is_eq(), "{value} {} -> {there} {} -> {back}", from.ucum(), to.ucum());
            }
        }

        #[test]
        fn no_value_makes_it_panic(mantissa in any::<i64>(), exponent in any::<i8>(), from in 0..Unit::ALL.len(), to in 0..Unit::ALL.len(), decimals in any::<Option<u8>>()) {
            let _ = convert(Decimal::new(mantissa, exponent), Unit::ALL[from], Unit::ALL[to], decimals);
        }
    }
}
