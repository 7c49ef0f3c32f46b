//! Plain integer fields with a fixed step, such as 0.005 kg, and the number their service uses for "none".

use super::{Absent, Cursor, DecodeError, Number};
use crate::reading::{Decimal, Unit};

/// What one step of an integer field is worth: `factor` × 10^`exponent`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub factor: i64,
    pub exponent: i8,
}

impl Step {
    pub const fn new(factor: i64, exponent: i8) -> Self {
        Self { factor, exponent }
    }

    pub fn of(self, steps: impl Into<i64>) -> Number {
        Number::Finite(Decimal::new(steps.into() * self.factor, self.exponent))
    }
}

pub const TENTH: Step = Step::new(1, -1);
pub const HUNDREDTH: Step = Step::new(1, -2);

/// The masses and lengths of a scale, all in one of two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measures {
    Metric,
    Imperial,
}

impl Measures {
    pub const fn of_flag(imperial: bool) -> Self {
        if imperial { Measures::Imperial } else { Measures::Metric }
    }

    pub const fn mass(self) -> (Step, Unit) {
        match self {
            Measures::Metric => (Step::new(5, -3), Unit::Kilogram),
            Measures::Imperial => (HUNDREDTH, Unit::Pound),
        }
    }

    pub const fn length(self) -> (Step, Unit) {
        match self {
            Measures::Metric => (Step::new(1, -3), Unit::Metre),
            Measures::Imperial => (TENTH, Unit::Inch),
        }
    }
}

/// The scale tried and could not (Weight Scale Service 1.0 and Body Composition Service 1.0).
const UNSUCCESSFUL: u16 = 0xFFFF;

impl Cursor<'_> {
    /// A field of a scale, in steps.
    pub fn steps(&mut self, field: &'static str, step: Step) -> Result<Number, DecodeError> {
        Ok(match self.u16(field)? {
            UNSUCCESSFUL => Number::Absent(Absent::Unsuccessful),
            steps => step.of(steps),
        })
    }
}
