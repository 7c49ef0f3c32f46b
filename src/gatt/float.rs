//! The two number formats of medical devices, IEEE 11073-20601 SFLOAT (16 bits) and FLOAT (32 bits): a decimal mantissa and
//! a decimal exponent. Five mantissas are no numbers, and only while the exponent is zero.

use super::{Cursor, Decode, DecodeError, Field, Fields, Number};
use crate::reading::Decimal;

impl Cursor<'_> {
    pub fn sfloat(&mut self, field: &'static str) -> Result<Number, DecodeError> {
        self.u16(field).map(sfloat)
    }

    pub fn float(&mut self, field: &'static str) -> Result<Number, DecodeError> {
        self.u32(field).map(float)
    }
}

fn sfloat(bits: u16) -> Number {
    match bits {
        0x07FF => Number::NotANumber,
        0x0800 => Number::NotAtThisResolution,
        0x07FE => Number::PositiveInfinity,
        0x0802 => Number::NegativeInfinity,
        0x0801 => Number::Reserved,
        // Shifting up and down again carries the sign of the 12-bit mantissa.
        _ => Number::Finite(Decimal::new(i64::from((bits as i16) << 4 >> 4), ((bits as i16) >> 12) as i8)),
    }
}

fn float(bits: u32) -> Number {
    match bits {
        0x007F_FFFF => Number::NotANumber,
        0x0080_0000 => Number::NotAtThisResolution,
        0x007F_FFFE => Number::PositiveInfinity,
        0x0080_0002 => Number::NegativeInfinity,
        0x0080_0001 => Number::Reserved,
        _ => Number::Finite(Decimal::new(i64::from((bits as i32) << 8 >> 8), ((bits as i32) >> 24) as i8)),
    }
}

/// A bare SFLOAT: no characteristic, but a value worth decoding by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medfloat16(pub Number);

/// A bare FLOAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medfloat32(pub Number);

impl Decode for Medfloat16 {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.sfloat("value").map(Self)
    }

    fn fields(&self) -> Fields {
        Fields::new().with("value", Field::Quantity(self.0, ""))
    }
}

impl Decode for Medfloat32 {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.float("value").map(Self)
    }

    fn fields(&self) -> Fields {
        Fields::new().with("value", Field::Quantity(self.0, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_number_is_its_mantissa_times_a_power_of_ten_except_five() {
        let mut special = 0;
        for bits in 0..=u16::MAX {
            let (mantissa, exponent) = (i64::from(bits & 0x0FFF), (bits >> 12) as i8);
            let mantissa = if mantissa >= 2048 { mantissa - 4096 } else { mantissa };
            let exponent = if exponent >= 8 { exponent - 16 } else { exponent };
            match sfloat(bits) {
                Number::Finite(value) => assert_eq!(value, Decimal::new(mantissa, exponent), "{bits:#06x}"),
                _ => special += 1,
            }
        }
        assert_eq!(special, 5);
    }

    #[test]
    fn a_special_mantissa_with_another_exponent_is_a_number() {
        assert_eq!(float(0xFF7F_FFFF), Number::Finite(Decimal::new(8_388_607, -1)));
        assert_eq!(float(0x0180_0000), Number::Finite(Decimal::new(-8_388_608, 1)));
        assert_eq!(float(0x0080_0002), Number::NegativeInfinity);
        assert_eq!(float(0x0080_0001), Number::Reserved);
        assert_eq!(float(0x8000_0001), Number::Finite(Decimal::new(1, -128)));
    }
}
