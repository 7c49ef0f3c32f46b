//! The end-to-end checksum of the SIG's medical services: CRC-16/MCRF4XX, sent little endian at the end (Bluetooth
//! Supplement to the Core Specification, E2E-CRC).

use super::{Cursor, DecodeError, Field, Fields};

const POLYNOMIAL_REFLECTED: u16 = 0x8408;
pub const START: u16 = 0xFFFF;

pub fn crc16(octets: &[u8]) -> u16 {
    crc16_on(START, octets)
}

/// The checksum of what came before, carried on.
pub fn crc16_on(crc: u16, octets: &[u8]) -> u16 {
    octets.iter().fold(crc, |crc, octet| {
        (0..8).fold(crc ^ u16::from(*octet), |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL_REFLECTED })
    })
}

/// That a checksum was sent and matched; a value whose checksum does not match is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(pub bool);

impl Checked {
    pub fn add_to(self, fields: Fields) -> Fields {
        fields.with_sent("crc_ok", self.0.then_some(Field::Bool(true)))
    }
}

impl Cursor<'_> {
    /// Takes the checksum, which follows `of`.
    pub fn crc(&mut self, of: &[u8]) -> Result<Checked, DecodeError> {
        let sent = self.u16("e2e_crc")?;
        let computed = crc16(of);
        if sent == computed { Ok(Checked(true)) } else { Err(DecodeError::CrcMismatch { sent, computed }) }
    }

    /// The checksum of a value that may have one and nothing else after it: two octets or none, none only where the device
    /// does not announce one.
    pub fn crc_at_end(&mut self, of: &[u8]) -> Result<Checked, DecodeError> {
        match self.left() {
            0 if !self.context().e2e_crc => Ok(Checked(false)),
            0 | 2 => self.crc(of),
            octets => Err(DecodeError::InvalidLength { field: "e2e_crc", octets }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_published_examples() {
        assert_eq!(crc16(b"123456789"), 0x6F91);
        assert_eq!(crc16(&[0x3E, 1, 2, 3, 4, 5, 6, 7, 8, 9]), 0x2F01);
        assert_eq!(crc16(&[]), 0xFFFF);
    }
}
