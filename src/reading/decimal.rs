//! A measured value as the device sent it: mantissa × 10^exponent, never a binary float.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `mantissa × 10^exponent`. The exponent is part of the value: `37.60` and `37.6` compare equal as numbers
/// ([`Decimal::cmp_value`]) and print differently, because the device's resolution is information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decimal {
    mantissa: i64,
    exponent: i8,
}

/// Most decimal places accepted in text: a 64-bit mantissa has no more digits than that to fill them.
const MAX_PLACES: i8 = 19;

impl Decimal {
    pub const ZERO: Decimal = Decimal::new(0, 0);

    pub const fn new(mantissa: i64, exponent: i8) -> Self {
        Self { mantissa, exponent }
    }

    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    pub const fn exponent(self) -> i8 {
        self.exponent
    }

    /// The same digits with the decimal point moved by `by` places: an exact ×10^by. `None` past the exponent's range.
    pub fn shift(self, by: i8) -> Option<Self> {
        Some(Self::new(self.mantissa, self.exponent.checked_add(by)?))
    }

    /// Compares as numbers, whatever the resolution.
    pub fn cmp_value(self, other: Self) -> Ordering {
        match (self.mantissa.signum(), other.mantissa.signum()) {
            (a, b) if a != b => return a.cmp(&b),
            (0, _) => return Ordering::Equal,
            _ => {}
        }
        let low = self.exponent.min(other.exponent);
        match (self.scaled_to(low), other.scaled_to(low)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // A mantissa has at most 19 digits, so a scale that overflows 128 bits decides by magnitude alone.
            (None, _) => Ordering::Greater.reverse_if(self.mantissa < 0),
            (_, None) => Ordering::Less.reverse_if(self.mantissa < 0),
        }
    }

    /// Exact sum at the finer of the two resolutions; `None` when it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let low = self.exponent.min(other.exponent);
        let sum = self.scaled_to(low)?.checked_add(other.scaled_to(low)?)?;
        Some(Self::new(i64::try_from(sum).ok()?, low))
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.checked_add(Self::new(other.mantissa.checked_neg()?, other.exponent))
    }

    /// Exact product; `None` when it does not fit.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        let product = i128::from(self.mantissa) * i128::from(other.mantissa);
        Some(Self::new(i64::try_from(product).ok()?, self.exponent.checked_add(other.exponent)?))
    }

    /// Rounds half to even to `exponent` (which may be coarser or finer than the value's own); `None` past the range.
    pub fn round_to(self, exponent: i8) -> Option<Self> {
        if exponent <= self.exponent {
            return Some(Self::new(i64::try_from(self.scaled_to(exponent)?).ok()?, exponent));
        }
        let places = u32::from(exponent.abs_diff(self.exponent));
        let Some(divisor) = 10i128.checked_pow(places) else { return Some(Self::new(0, exponent)) };
        Some(Self::new(i64::try_from(div_half_even(self.mantissa.into(), divisor)).ok()?, exponent))
    }

    /// The arithmetic mean with one digit more than the finest input, rounded half to even. `None` for no values.
    pub fn mean(values: &[Self]) -> Option<Self> {
        let finest = values.iter().map(|v| v.exponent).min()?;
        let mut sum: i128 = 0;
        for value in values {
            sum = sum.checked_add(value.scaled_to(finest)?)?;
        }
        let mean = div_half_even(sum.checked_mul(10)?, i128::try_from(values.len()).ok()?);
        Some(Self::new(i64::try_from(mean).ok()?, finest.checked_sub(1)?))
    }

    fn scaled_to(self, exponent: i8) -> Option<i128> {
        let places = u32::from(self.exponent.abs_diff(exponent));
        10i128.checked_pow(places)?.checked_mul(self.mantissa.into())
    }
}

fn div_half_even(numerator: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (numerator.div_euclid(divisor), numerator.rem_euclid(divisor));
    match remainder.cmp(&(divisor - remainder)) {
        Ordering::Less => quotient,
        Ordering::Greater => quotient + 1,
        Ordering::Equal => quotient + quotient.rem_euclid(2), // to even
    }
}

trait ReverseIf {
    fn reverse_if(self, condition: bool) -> Self;
}

impl ReverseIf for Ordering {
    fn reverse_if(self, condition: bool) -> Self {
        if condition { self.reverse() } else { self }
    }
}

/// Plain decimal text at the value's own resolution: `36.60`, `120`, `10000000`, `-0.5`. No exponent notation.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        if self.mantissa < 0 {
            f.write_str("-")?;
        }
        if self.exponent >= 0 {
            f.write_str(&digits)?;
            let zeros = if self.mantissa == 0 { 0 } else { usize::from(self.exponent.unsigned_abs()) };
            return f.write_str(&"0".repeat(zeros));
        }
        let places = usize::from(self.exponent.unsigned_abs());
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - places);
        write!(f, "{whole}.{fraction}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a decimal number such as 36.60 or -5")]
pub struct ParseDecimalError(String);

impl FromStr for Decimal {
    type Err = ParseDecimalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDecimalError(text.chars().take(40).collect());
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || (digits.contains('.') && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(error());
        }
        let magnitude: i64 = format!("{whole}{fraction}").parse().map_err(|_| error())?;
        let exponent = i8::try_from(fraction.len()).ok().filter(|n| *n <= MAX_PLACES).ok_or_else(error)?;
        Ok(Self::new(if negative { -magnitude } else { magnitude }, -exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn d(text: &str) -> Decimal {
        text.parse().expect("a decimal in a test")
    }

    #[test]
    fn a_value_prints_at_the_resolution_the_device_sent() {
        assert_eq!(Decimal::new(3760, -2).to_string(), "37.60");
        assert_eq!(Decimal::new(120, 0).to_string(), "120");
        assert_eq!(Decimal::new(1, 7).to_string(), "10000000");
        assert_eq!(Decimal::new(120, -8).to_string(), "0.00000120");
        assert_eq!(Decimal::new(0, -1).to_string(), "0.0");
        assert_eq!(Decimal::new(-5, -1).to_string(), "-0.5");
    }

    #[test]
    fn values_compare_as_numbers_and_not_as_digits() {
        assert_eq!(d("37.60").cmp_value(d("37.6")), Ordering::Equal);
        assert_eq!(d("-1").cmp_value(d("0.5")), Ordering::Less);
        assert_eq!(Decimal::new(1, 127).cmp_value(Decimal::new(i64::MAX, -128)), Ordering::Greater);
        assert_eq!(Decimal::new(-1, 127).cmp_value(Decimal::new(i64::MIN, -128)), Ordering::Less);
    }

    #[test]
    fn a_mean_has_one_digit_more_and_rounds_half_to_even() {
        assert_eq!(Decimal::mean(&[d("97"), d("98")]), Some(d("97.5")));
        assert_eq!(Decimal::mean(&[d("1"), d("1"), d("2")]), Some(d("1.3")));
        assert_eq!(Decimal::mean(&[d("0.1"), d("0.2"), d("0.2"), d("0.2")]), Some(d("0.18")));
        assert_eq!(Decimal::mean(&[d("0"), d("0"), d("0"), d("0.1")]), Some(d("0.02")));
        assert_eq!(Decimal::mean(&[]), None);
    }

    #[test]
    fn rounding_goes_half_to_even_also_below_zero() {
        assert_eq!(d("2.5").round_to(0), Some(d("2")));
        assert_eq!(d("3.5").round_to(0), Some(d("4")));
        assert_eq!(d("-2.5").round_to(0), Some(d("-2")));
        assert_eq!(d("2").round_to(-2), Some(d("2.00")));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back_to_the_same_digits(mantissa in any::<i32>(), exponent in -12i8..=0) {
            let value = Decimal::new(mantissa.into(), exponent);
            prop_assert_eq!(value.to_string().parse::<Decimal>(), Ok(value));
        }

        #[test]
        fn no_decimal_panics_in_any_operation(a in any::<(i64, i8)>(), b in any::<(i64, i8)>(), to in any::<i8>()) {
            let (a, b) = (Decimal::new(a.0, a.1), Decimal::new(b.0, b.1));
            let _ = (a.to_string(), a.cmp_value(b), a.checked_add(b), a.checked_sub(b), a.checked_mul(b), a.round_to(to));
            let _ = Decimal::mean(&[a, b]);
            prop_assert_eq!(a.cmp_value(b), b.cmp_value(a).reverse());
        }
    }
}
