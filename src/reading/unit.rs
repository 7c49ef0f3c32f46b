//! Units, each with its UCUM code and its IEEE 11073 (MDC) unit code.

use serde::{Deserialize, Serialize};

/// A unit a device may send. Conversion is exact decimal arithmetic and belongs to whoever renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unit {
    /// A pure number (UCUM `1`).
    One,
    PerMinute,
    Percent,
    MillimetreOfMercury,
    Kilopascal,
    DegreeCelsius,
    DegreeFahrenheit,
    Millisecond,
    Second,
    Kilojoule,
    Kilogram,
    Pound,
    MilligramPerDecilitre,
    MillimolePerLitre,
    KilogramPerSquareMetre,
    Metre,
    Centimetre,
    Inch,
    Ohm,
    Gram,
    Milligram,
    Millilitre,
    Litre,
    LitrePerMinute,
    MilligramPerDecilitrePerMinute,
    InternationalNormalizedRatio,
}

impl Unit {
    /// UCUM code, as US Core requires it: `/min`, never `bpm`.
    pub const fn ucum(self) -> &'static str {
        match self {
            Unit::One => "1",
            Unit::PerMinute => "/min",
            Unit::Percent => "%",
            Unit::MillimetreOfMercury => "mm[Hg]",
            Unit::Kilopascal => "kPa",
            Unit::DegreeCelsius => "Cel",
            Unit::DegreeFahrenheit => "[degF]",
            Unit::Millisecond => "ms",
            Unit::Second => "s",
            Unit::Kilojoule => "kJ",
            Unit::Kilogram => "kg",
            Unit::Pound => "[lb_av]",
            Unit::MilligramPerDecilitre => "mg/dL",
            Unit::MillimolePerLitre => "mmol/L",
            Unit::KilogramPerSquareMetre => "kg/m2",
            Unit::Metre => "m",
            Unit::Centimetre => "cm",
            Unit::Inch => "[in_i]",
            Unit::Ohm => "Ohm",
            Unit::Gram => "g",
            Unit::Milligram => "mg",
            Unit::Millilitre => "mL",
            Unit::Litre => "L",
            Unit::LitrePerMinute => "L/min",
            Unit::MilligramPerDecilitrePerMinute => "mg/dL/min",
            Unit::InternationalNormalizedRatio => "{INR}",
        }
    }

    /// MDC unit code (partition 4 × 65536 + term), where a checked source gives one.
    pub const fn mdc(self) -> Option<u32> {
        match self {
            Unit::PerMinute => Some(264_864),
            Unit::Percent => Some(262_688),
            Unit::MillimetreOfMercury => Some(266_016),
            Unit::Kilopascal => Some(265_987),
            Unit::DegreeCelsius => Some(268_192),
            Unit::DegreeFahrenheit => Some(266_560),
            Unit::Millisecond => Some(264_338),
            Unit::Kilogram => Some(263_875),
            Unit::Pound => Some(263_904),
            Unit::MilligramPerDecilitre => Some(264_274),
            Unit::MillimolePerLitre => Some(266_866),
            Unit::KilogramPerSquareMetre => Some(264_096),
            Unit::Centimetre => Some(263_441),
            Unit::Inch => Some(263_520),
            Unit::Gram => Some(263_872),
            Unit::Milligram => Some(263_890),
            Unit::Millilitre => Some(263_762),
            Unit::One
            | Unit::Second
            | Unit::Kilojoule
            | Unit::Metre
            | Unit::Ohm
            | Unit::Litre
            | Unit::LitrePerMinute
            | Unit::MilligramPerDecilitrePerMinute
            | Unit::InternationalNormalizedRatio => None,
        }
    }

    /// The unit of an MDC code; `None` where nobody checked one.
    pub fn from_mdc(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|unit| unit.mdc() == Some(code))
    }

    pub fn from_ucum(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|unit| unit.ucum() == code)
    }

    pub const ALL: &'static [Unit] = &[
        Unit::One,
        Unit::PerMinute,
        Unit::Percent,
        Unit::MillimetreOfMercury,
        Unit::Kilopascal,
        Unit::DegreeCelsius,
        Unit::DegreeFahrenheit,
        Unit::Millisecond,
        Unit::Second,
        Unit::Kilojoule,
        Unit::Kilogram,
        Unit::Pound,
        Unit::MilligramPerDecilitre,
        Unit::MillimolePerLitre,
        Unit::KilogramPerSquareMetre,
        Unit::Metre,
        Unit::Centimetre,
        Unit::Inch,
        Unit::Ohm,
        Unit::Gram,
        Unit::Milligram,
        Unit::Millilitre,
        Unit::Litre,
        Unit::LitrePerMinute,
        Unit::MilligramPerDecilitrePerMinute,
        Unit::InternationalNormalizedRatio,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_by_either_of_its_codes() {
        for unit in Unit::ALL {
            assert_eq!(Unit::from_ucum(unit.ucum()), Some(*unit));
            assert!(unit.mdc().is_none_or(|mdc| Unit::from_mdc(mdc) == Some(*unit)), "{unit:?}");
        }
    }
}
