//! What a decoder can object to, under the names that `bedrail decode` prints.

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
    /// A checksum where the device says that it sends none.
    UnexpectedCrcPlaceholder,
    /// An object of a kind nobody has defined; it and what follows it are kept unread.
    UnknownObjectId,
    /// A layout the device's profile does not describe.
    UnknownFrame,
}

impl Warning {
    pub const ALL: [Warning; 9] = [
        Warning::ReservedBits,
        Warning::ReservedValue,
        Warning::TrailingBytes,
        Warning::InvalidDateTime,
        Warning::MissingTerminator,
        Warning::InvalidUtf8,
        Warning::UnknownFrame,
        Warning::UnexpectedCrcPlaceholder,
        Warning::UnknownObjectId,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Warning::ReservedBits => "reserved_bits",
            Warning::ReservedValue => "reserved_value",
            Warning::TrailingBytes => "trailing_bytes",
            Warning::InvalidDateTime => "invalid_date_time",
            Warning::MissingTerminator => "missing_terminator",
            Warning::InvalidUtf8 => "invalid_utf8",
            Warning::UnknownFrame => "unknown_frame",
            Warning::UnexpectedCrcPlaceholder => "unexpected_crc_placeholder",
            Warning::UnknownObjectId => "unknown_object_id",
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
    #[error("{0}; what was there of it is dropped, so that half a value never exists")]
    Segment(SegmentFault),
    #[error("format {given} has no decoder; `bedrail decode` reads {known}")]
    UnknownFormat { given: u8, known: &'static str },
    #[error("the value is encrypted; give the device's key and address (--context key=… --context mac=…)")]
    KeyRequired,
    #[error("the value does not decrypt with this key and address; it was altered, or the key is another device's")]
    DecryptFailed,
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
            DecodeError::Segments { .. } | DecodeError::Segment(_) => "segment_error",
            DecodeError::UnknownFormat { .. } => "unsupported",
            DecodeError::KeyRequired => "key_required",
            DecodeError::DecryptFailed => "decrypt_failed",
            DecodeError::Strict(warning) => warning.name(),
        }
    }
}

/// Why segments do not make one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    #[error("a segment has no header")]
    Empty,
    #[error("the first segment is missing")]
    NoFirst,
    #[error("a segment is missing before this one")]
    Skipped,
    #[error("a new value began before the last segment of the one before")]
    Interrupted,
    #[error("the last segment never came")]
    NoLast,
    #[error("segments go on after the last one")]
    AfterLast,
    #[error("the segments belong to different records")]
    Mixed,
    #[error("the segments are longer together than any value may be")]
    TooLong,
}
