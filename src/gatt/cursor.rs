//! Walks a value from its first octet to its last. A field is taken or the whole value is refused: there are no offsets,
//! because one optional field moves all that follow.

use super::fields::{Names, is_named};
use super::{Context, DecodeError, Fields, Observed, Warning};

/// A characteristic value that can be read off a cursor and shown.
pub trait Decode: Sized {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError>;

    /// The fields in the order sent, for people and test vectors.
    fn fields(&self) -> Fields;
}

/// A characteristic value that says something measured.
pub trait Measurement: Decode {
    /// The facts, unclassified.
    fn observed(&self) -> Observed;
}

/// A characteristic value that holds several records, each with a time of its own.
pub trait Records: Decode {
    fn records(&self) -> Vec<Observed>;
}

/// What was read, and what was odd about it.
pub type Read<T> = Result<(T, Vec<Warning>), DecodeError>;

/// Reads a whole value that says all about itself.
pub fn read<T: Decode>(octets: &[u8]) -> Read<T> {
    read_with(octets, &Context::default())
}

/// Reads a whole value of a device of which more is known.
pub fn read_with<T: Decode>(octets: &[u8], context: &Context) -> Read<T> {
    let mut cursor = Cursor::new(octets, context);
    let value = T::decode(&mut cursor)?;
    Ok((value, cursor.finish()))
}

pub struct Cursor<'a> {
    left: &'a [u8],
    context: &'a Context,
    /// Each kind once, in the order met: bounded by the number of kinds.
    warnings: Vec<Warning>,
}

impl<'a> Cursor<'a> {
    pub const fn new(octets: &'a [u8], context: &'a Context) -> Self {
        Self { left: octets, context, warnings: Vec::new() }
    }

    pub const fn context(&self) -> &'a Context {
        self.context
    }

    /// The next `octets` octets as a value of their own, with the same warnings.
    pub fn within<T>(
        &mut self,
        field: &'static str,
        octets: usize,
        decode: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<(T, usize), DecodeError> {
        let inner = self.octets(field, octets)?;
        let outer = std::mem::replace(&mut self.left, inner);
        let value = decode(self);
        let unread = std::mem::replace(&mut self.left, outer).len();
        value.map(|value| (value, unread))
    }

    /// The next `count` octets as they are.
    pub fn octets(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((octets, rest)) = self.left.split_at_checked(count) else {
            return Err(DecodeError::Truncated { field, needed: count, left: self.left.len() });
        };
        self.left = rest;
        Ok(octets)
    }

    /// The next `N` octets; `field` is named in the error.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((octets, rest)) = self.left.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { field, needed: N, left: self.left.len() });
        };
        self.left = rest;
        Ok(*octets)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub fn u24(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Big endian, as some vendors send.
    pub fn u16_be(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_le_bytes)
    }

    pub fn i8(&mut self, field: &'static str) -> Result<i8, DecodeError> {
        self.array(field).map(i8::from_le_bytes)
    }

    pub fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.array(field).map(i16::from_le_bytes)
    }

    /// A code; one without a name is reported.
    pub fn code(&mut self, field: &'static str, names: Names) -> Result<u8, DecodeError> {
        let code = self.u8(field)?;
        self.known_code(code, names);
        Ok(code)
    }

    /// Reports a code that has no name.
    pub fn known_code(&mut self, code: u8, names: Names) {
        if !is_named(code, names) {
            self.warn(Warning::ReservedValue);
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// All that is left, without taking it.
    pub const fn ahead(&self) -> &'a [u8] {
        self.left
    }

    pub const fn left(&self) -> usize {
        self.left.len()
    }

    pub fn warn(&mut self, warning: Warning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Reports bits outside `known`, and gives back those inside.
    pub fn known_bits(&mut self, bits: u32, known: u32) -> u32 {
        if bits & !known != 0 {
            self.warn(Warning::ReservedBits);
        }
        bits & known
    }

    /// What was met on the way; octets that nobody read are one of the things.
    pub fn finish(mut self) -> Vec<Warning> {
        if !self.left.is_empty() {
            self.warn(Warning::TrailingBytes);
        }
        self.warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_a_cut_one_takes_nothing() {
        let context = Context::default();
        let mut cursor = Cursor::new(&[1, 2, 3, 4, 5, 6, 7], &context);
        assert_eq!(cursor.u16("a"), Ok(0x0201));
        assert_eq!(cursor.u24("b"), Ok(0x05_0403));
        assert_eq!(cursor.u24("c"), Err(DecodeError::Truncated { field: "c", needed: 3, left: 2 }));
        assert_eq!(cursor.u16("d"), Ok(0x0706), "the octets of a refused field are still there");
    }

    #[test]
    fn a_warning_is_given_once_however_often_it_is_met() {
        let context = Context::default();
        let mut cursor = Cursor::new(&[0], &context);
        assert_eq!(cursor.known_bits(0b101, 0b001), 1);
        cursor.known_bits(0b100, 0b001);
        assert_eq!(cursor.finish(), [Warning::ReservedBits, Warning::TrailingBytes]);
    }
}
