//! What a decoder can object to, under the names that `bedrail decode` prints.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

/// Readable, but not as the specification has it. A strict decode takes the first one as its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Warning {
    /// A bit reserved for future use is set; real devices do that, and it is ignored.
    ReservedBits,
    /// A coded value nobody has defined.
    ReservedValue,
    /// Octets follow the last field.
    TrailingBytes,
    /// A date or time of day that does not exist.
    InvalidDateTime,
    /// A string that should end in NUL ends with the value.
    MissingTerminator,
    /// Octets that are no UTF-8; each such run reads as U+FFFD.
    InvalidUtf8,
}

impl Warning {
    pub const ALL: [Warning; 6] = [
        Warning::ReservedBits,
        Warning::ReservedValue,
        Warning::TrailingBytes,
        Warning::InvalidDateTime,
        Warning::MissingTerminator,
        Warning::InvalidUtf8,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Warning::ReservedBits => "reserved_bits",
            Warning::ReservedValue => "reserved_value",
            Warning::TrailingBytes => "trailing_bytes",
            Warning::InvalidDateTime => "invalid_date_time",
            Warning::MissingTerminator => "missing_terminator",
            Warning::InvalidUtf8 => "invalid_utf8",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not readable: nothing of the value is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "the value ends inside `{field}` (octets needed: {needed}, left: {left}); the device or the link cut it, or it is \
         another characteristic's"
    )]
    Truncated { field: &'static str, needed: usize, left: usize },
    #[error("`{field}` can't be {octets} octets long; check that the value is this characteristic's")]
    InvalidLength { field: &'static str, octets: usize },
    #[error("the checksum sent is {sent:04x} and that of the octets {computed:04x}; the value was damaged, ask for it again")]
    CrcMismatch { sent: u16, computed: u16 },
    #[error("opcode {opcode:#04x} is not defined for this control point")]
    UnknownOpcode { opcode: u8 },
    #[error("`{field}` can't be {value}; check that the value is this characteristic's")]
    InvalidField { field: &'static str, value: u32 },
    #[error("characteristic {uuid} has no decoder; `bedrail decode` lists the known names")]
    Unsupported { uuid: Uuid },
    #[error("this characteristic is sent in one piece and not in {given}; give its octets as one argument")]
    Segments { given: usize },
    #[error("strict: {0}; without --strict this is only a warning")]
    Strict(Warning),
}

impl DecodeError {
    pub const fn name(&self) -> &'static str {
        match self {
            DecodeError::Truncated { .. } => "truncated",
            DecodeError::InvalidLength { .. } => "invalid_length",
            DecodeError::CrcMismatch { .. } => "crc_mismatch",
            DecodeError::UnknownOpcode { .. } => "unknown_opcode",
            DecodeError::InvalidField { .. } => "invalid_field",
            DecodeError::Unsupported { .. } => "unsupported",
            DecodeError::Segments { .. } => "segment_error",
            DecodeError::Strict(warning) => warning.name(),
        }
    }
}

/// What a decoder must be told that the octets do not say. No characteristic of today needs any of it; the names are fixed
/// so that a misspelt one is refused and not ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<&'static str, String>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a context key; known are {keys}", keys = Context::KEYS.join(", "))]
pub struct ContextError(String);

impl Context {
    pub const KEYS: &'static [&'static str] = &["e2e_crc", "sequence_width", "e2e", "key", "mac"];

    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ContextError> {
        let known = Self::KEYS.iter().find(|known| known.eq_ignore_ascii_case(key));
        let known = known.ok_or_else(|| ContextError(key.chars().take(40).collect()))?;
        self.0.insert(known, value.to_owned());
        Ok(())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}
