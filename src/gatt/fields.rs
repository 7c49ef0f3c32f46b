//! A decoded value as ordered JSON, for `bedrail decode` and the test vectors: numbers are decimal text at the device's
//! resolution, units are UCUM, bits and codes are words.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::{Absent, Number};
use crate::reading::{DeviceTime, Unit};

/// Names of bits or of codes, by number.
pub type Names = &'static [(u8, &'static str)];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(&'static str, Field)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Null,
    Bool(bool),
    Integer(u64),
    Signed(i64),
    Integers(Vec<u16>),
    Samples(Vec<i32>),
    Text(String),
    /// Octets nobody can read, in hexadecimal.
    Octets(Vec<u8>),
    Word(&'static str),
    /// The name of a code, or `rfu(n)` for one that has none.
    Code(u8, Names),
    /// The names of the bits set, lowest first.
    Bits(u32, Names),
    /// A number and its UCUM unit, or the reason why there is no number.
    Quantity(Number, &'static str),
    /// A number whose unit stands in a field of its own.
    Number(Number),
    Time(Option<DeviceTime>),
    Group(Fields),
    List(Vec<Fields>),
}

impl Field {
    pub const fn quantity(number: Number, unit: Unit) -> Self {
        Field::Quantity(number, unit.ucum())
    }
}

impl Fields {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, field: Field) -> Self {
        self.0.push((name, field));
        self
    }

    /// Only if it was sent.
    #[must_use]
    pub fn with_sent(self, name: &'static str, field: Option<Field>) -> Self {
        match field {
            Some(field) => self.with(name, field),
            None => self,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Field)> {
        self.0.iter()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Null | Field::Time(None) => serializer.serialize_unit(),
            Field::Bool(value) => serializer.serialize_bool(*value),
            Field::Integer(value) => serializer.serialize_u64(*value),
            Field::Signed(value) => serializer.serialize_i64(*value),
            Field::Integers(values) => values.serialize(serializer),
            Field::Samples(values) => values.serialize(serializer),
            Field::Text(text) => serializer.serialize_str(text),
            Field::Octets(octets) => serializer.collect_str(&Hex(octets)),
            Field::Word(word) => serializer.serialize_str(word),
            Field::Code(code, names) => match names.iter().find(|(known, _)| known == code) {
                Some((_, name)) => serializer.serialize_str(name),
                None => serializer.collect_str(&format_args!("rfu({code})")),
            },
            Field::Bits(bits, names) => {
                let mut list = serializer.serialize_seq(None)?;
                for (_, name) in names.iter().filter(|(bit, _)| bits & bit_mask(*bit) != 0) {
                    list.serialize_element(name)?;
                }
                list.end()
            }
            Field::Quantity(number, unit) => quantity(*number, unit, serializer),
            Field::Number(Number::Finite(value)) => serializer.collect_str(value),
            Field::Number(number) => serializer.serialize_str(special(*number).unwrap_or_default()),
            Field::Time(Some(time)) => serializer.collect_str(time),
            Field::Group(fields) => fields.serialize(serializer),
            Field::List(items) => items.serialize(serializer),
        }
    }
}

/// The bits that have a name.
pub const fn named_bits(names: Names) -> u32 {
    let (mut bits, mut at) = (0, 0);
    while at < names.len() {
        bits |= bit_mask(names[at].0);
        at += 1;
    }
    bits
}

/// Whether the code has a name.
pub fn is_named(code: u8, names: Names) -> bool {
    names.iter().any(|(known, _)| *known == code)
}

const fn bit_mask(bit: u8) -> u32 {
    1 << bit
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

fn quantity<S: Serializer>(number: Number, unit: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    match number {
        Number::Finite(value) => map.serialize_entry("v", &value.to_string())?,
        _ => map.serialize_entry("v", &())?,
    }
    map.serialize_entry("u", unit)?;
    if let Some(special) = special(number) {
        map.serialize_entry("special", special)?;
    }
    map.end()
}

/// The word for what stands where a number should; `None` for a number.
const fn special(number: Number) -> Option<&'static str> {
    match number {
        Number::Finite(_) => None,
        Number::NotANumber => Some("NaN"),
        Number::NotAtThisResolution => Some("NRes"),
        Number::PositiveInfinity => Some("+INF"),
        Number::NegativeInfinity => Some("-INF"),
        Number::Reserved => Some("RFU"),
        Number::Absent(Absent::Unsuccessful) => Some("unsuccessful"),
        Number::Absent(Absent::Unknown) => Some("unknown"),
        Number::Absent(Absent::Missing) => Some("missing"),
        Number::Absent(Absent::Prohibited) => Some("prohibited"),
        Number::Absent(Absent::Overrun) => Some("overrun"),
    }
}
