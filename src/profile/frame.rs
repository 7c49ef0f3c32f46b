//! From octets to what they say, by the rows of a profile. Pure; it takes time in proportion to the rows and allocates no
//! more than the values it gives.

use std::fmt;

use uuid::Uuid;

use super::text::ChecksumKind;
use crate::gatt::{
    Absent, DateTime, DecodeError, Measured, Medfloat16, Medfloat32, Number, Numbers, Observed, Read, Status, Warning, crc16,
    read,
};
use crate::reading::{Component, Decimal, DeviceTime, Flag, Metric, Modality, Unit};

/// Where octets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Characteristic(Uuid),
    Manufacturer(u16),
    ServiceData(Uuid),
}

impl From<crate::gatt::Source> for Source {
    fn from(source: crate::gatt::Source) -> Self {
        match source {
            crate::gatt::Source::ServiceData(uuid) => Source::ServiceData(uuid),
            crate::gatt::Source::Manufacturer(company) => Source::Manufacturer(company),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Characteristic(uuid) => write!(f, "{uuid}"),
            Source::Manufacturer(id) => write!(f, "manufacturer:{id:04x}"),
            Source::ServiceData(uuid) => write!(f, "service_data:{uuid}"),
        }
    }
}

/// One layout of a source's octets.
#[derive(Clone, Debug)]
pub struct Frame {
    pub source: Source,
    pub length: Length,
    /// It is this layout if all of these hold.
    pub guard: Vec<Condition>,
    /// It says nothing to be kept if any of these holds.
    pub drop_if: Vec<Condition>,
    pub checksum: Option<Checksum>,
    pub modality: Modality,
    pub stored: bool,
    pub fields: Vec<Field>,
    pub bits: Vec<Bit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Exactly(usize),
    AtLeast(usize),
}

impl Length {
    /// Every offset below it is there.
    pub const fn least(self) -> usize {
        match self {
            Length::Exactly(octets) | Length::AtLeast(octets) => octets,
        }
    }
}

/// The masked octets from `at` on are these; octets that are not there hold nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub at: usize,
    pub mask: Vec<u8>,
    pub eq: Vec<u8>,
}

impl Condition {
    pub fn holds(&self, octets: &[u8]) -> bool {
        let Some(found) = octets.get(self.at..self.at.saturating_add(self.eq.len())) else { return false };
        found.iter().zip(&self.mask).zip(&self.eq).all(|((octet, mask), eq)| octet & mask == *eq)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Checksum {
    pub kind: ChecksumKind,
    /// The first octet that counts; the last ones are the sum.
    pub from: usize,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub code: Code,
    pub kind: Kind,
    pub place: Place,
    /// It is in the frame only if this holds: then the next field begins after it.
    pub present_if: Option<Condition>,
    /// It says something only if all of these hold.
    pub when: Vec<Condition>,
}

#[derive(Clone, Copy, Debug)]
pub enum Place {
    At(usize),
    /// Behind the field before.
    Next,
}

/// What a field is of.
#[derive(Clone, Debug)]
pub enum Code {
    Value(Value),
    Time,
    Sequence,
    User,
    /// It is only passed over.
    Nothing,
}

#[derive(Clone, Debug)]
pub struct Value {
    pub metric: Metric,
    pub component: Option<Component>,
    pub unit: Unit,
    /// The first that holds is the unit in place of the other.
    pub unit_if: Vec<(Condition, Unit)>,
    pub scale: Option<Decimal>,
    pub add: Option<Decimal>,
    /// Numbers, as sent, that mean "none".
    pub missing: Vec<i64>,
    /// Outside it the value is flagged.
    pub range: Option<(Decimal, Decimal)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `octets` of them, most significant first if `big`.
    Integer {
        octets: usize,
        signed: bool,
        big: bool,
        mask: Option<u32>,
        shift: u8,
    },
    /// Two decimal digits an octet, most significant first.
    Bcd {
        octets: usize,
    },
    Sfloat,
    Float,
    DateTime,
    /// An octet each, the year from 2000; what is not told is 0.
    DateParts(Parts),
}

/// Which octet is which part of a time, in the order of [`Parts::LETTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub octets: usize,
    pub places: [Option<usize>; 6],
}

impl Parts {
    pub const LETTERS: &'static str = "yMdhms";

    /// As Date Time (2A08) has it.
    fn standard(self, octets: &[u8]) -> [u8; 7] {
        let [year, month, day, hour, minute, second] =
            self.places.map(|place| place.and_then(|place| octets.get(place)).copied().unwrap_or(0));
        let [low, high] = (2_000 + u16::from(year)).to_le_bytes();
        [low, high, month, day, hour, minute, second]
    }
}

impl Kind {
    pub const fn octets(self) -> usize {
        match self {
            Kind::Integer { octets, .. } | Kind::Bcd { octets } => octets,
            Kind::Sfloat => 2,
            Kind::Float => 4,
            Kind::DateTime => 7,
            Kind::DateParts(parts) => parts.octets,
        }
    }
}

/// A bit that says something of all values of its frame.
#[derive(Clone, Debug)]
pub struct Bit {
    pub at: usize,
    pub bit: u8,
    pub status: Status,
}

/// `None` for a source without a frame.
pub fn observe(frames: &[Frame], source: &Source, octets: &[u8]) -> Option<Read<Vec<Observed>>> {
    let mut of_source = frames.iter().filter(|frame| frame.source == *source).peekable();
    of_source.peek()?;
    Some(match of_source.find(|frame| frame.guard.iter().all(|guard| guard.holds(octets))) {
        Some(frame) => frame.read(octets),
        None => Ok((Vec::new(), vec![Warning::UnknownFrame])),
    })
}

impl Frame {
    fn read(&self, octets: &[u8]) -> Read<Vec<Observed>> {
        self.is_whole(octets)?;
        if self.drop_if.iter().any(|condition| condition.holds(octets)) {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut reader = Reader { frame: self, octets, observed: Observed::default(), warnings: Vec::new() };
        reader.observed.stored = self.stored;
        let mut next = 0;
        for field in &self.fields {
            let at = match field.place {
                Place::At(at) => at,
                Place::Next => next,
            };
            if field.present_if.as_ref().is_some_and(|condition| !condition.holds(octets)) {
                continue;
            }
            next = at + field.kind.octets();
            reader.field(field, at)?;
        }
        Ok((vec![reader.observed], reader.warnings))
    }

    fn is_whole(&self, octets: &[u8]) -> Result<(), DecodeError> {
        match self.length {
            Length::Exactly(length) if length != octets.len() => {
                return Err(DecodeError::InvalidLength { field: "frame", octets: octets.len() });
            }
            Length::AtLeast(length) if octets.len() < length => {
                return Err(DecodeError::Truncated { field: "frame", needed: length, left: octets.len() });
            }
            _ => {}
        }
        let Some(checksum) = self.checksum else { return Ok(()) };
        let (body, sent) = checksum.split(octets).ok_or(DecodeError::InvalidLength { field: "frame", octets: octets.len() })?;
        let computed = checksum.of(body);
        if sent == computed { Ok(()) } else { Err(DecodeError::CrcMismatch { sent, computed }) }
    }
}

impl Checksum {
    pub const fn octets(self) -> usize {
        match self.kind {
            ChecksumKind::Sum7 | ChecksumKind::Sum8 | ChecksumKind::Xor8 | ChecksumKind::Crc8 | ChecksumKind::Crc8Maxim => 1,
            ChecksumKind::Crc16Mcrf4xx => 2,
        }
    }

    fn split(self, octets: &[u8]) -> Option<(&[u8], u16)> {
        let end = octets.len().checked_sub(self.octets())?;
        let sent = octets[end..].iter().rev().fold(0, |sum, octet| sum << 8 | u16::from(*octet));
        Some((octets.get(self.from..end)?, sent))
    }

    fn of(self, body: &[u8]) -> u16 {
        match self.kind {
            ChecksumKind::Sum7 => sum8(body) & 0x7F,
            ChecksumKind::Sum8 => sum8(body),
            ChecksumKind::Xor8 => u16::from(body.iter().fold(0u8, |sum, octet| sum ^ octet)),
            ChecksumKind::Crc8 => {
                u16::from(body.iter().fold(0, |crc, octet| shifted(crc ^ octet, |crc| (crc << 1, crc >> 7, 0x07))))
            }
            ChecksumKind::Crc8Maxim => {
                u16::from(body.iter().fold(0, |crc, octet| shifted(crc ^ octet, |crc| (crc >> 1, crc & 1, 0x8C))))
            }
            ChecksumKind::Crc16Mcrf4xx => crc16(body),
        }
    }
}

fn sum8(body: &[u8]) -> u16 {
    u16::from(body.iter().fold(0u8, |sum, octet| sum.wrapping_add(*octet)))
}

/// Eight steps of a checksum; each says what is left, the bit that fell out, and what that adds.
fn shifted(crc: u8, step: impl Fn(u8) -> (u8, u8, u8)) -> u8 {
    (0..8).fold(crc, |crc, _| {
        let (rest, bit, polynomial) = step(crc);
        rest ^ (bit * polynomial)
    })
}

struct Reader<'a> {
    frame: &'a Frame,
    octets: &'a [u8],
    observed: Observed,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn field(&mut self, field: &Field, at: usize) -> Result<(), DecodeError> {
        let name = match &field.code {
            Code::Value(value) => value.metric.name(),
            Code::Time => "time",
            Code::Sequence => "sequence",
            Code::User => "user",
            Code::Nothing => "field",
        };
        let (needed, left) = (field.kind.octets(), self.octets.len().saturating_sub(at));
        let Some(octets) = self.octets.get(at..at.saturating_add(needed)) else {
            return Err(DecodeError::Truncated { field: name, needed, left });
        };
        if !field.when.iter().all(|condition| condition.holds(self.octets)) {
            return Ok(());
        }
        match &field.code {
            Code::Nothing => {}
            Code::Time => self.time(field.kind, octets),
            Code::Sequence => self.observed.sequence = integer(field.kind, octets).and_then(|n| u32::try_from(n).ok()),
            Code::User => {
                let user = integer(field.kind, octets).and_then(|n| u8::try_from(n).ok());
                self.observed.user = user.filter(|user| *user != UNKNOWN_USER);
            }
            Code::Value(value) => self.value(value, field.kind, octets),
        }
        Ok(())
    }

    fn time(&mut self, kind: Kind, octets: &[u8]) {
        let standard = if let Kind::DateParts(parts) = kind { parts.standard(octets).to_vec() } else { octets.to_vec() };
        let time: Option<DeviceTime> = read::<DateTime>(&standard).ok().and_then(|(time, _)| time.time);
        if time.is_none() {
            self.warnings.push(Warning::InvalidDateTime);
        }
        self.observed.device_time = time;
        self.observed.base_time = Some(octets.to_vec());
    }

    fn value(&mut self, value: &Value, kind: Kind, octets: &[u8]) {
        let number = value.number(kind, octets);
        let unit = value.unit_if.iter().find(|(condition, _)| condition.holds(self.octets)).map_or(value.unit, |(_, unit)| *unit);
        let told = self.frame.bits.iter().filter(|bit| self.octets.get(bit.at).is_some_and(|octet| octet >> bit.bit & 1 == 1));
        let mut status: Vec<Status> = told.map(|bit| bit.status).collect();
        if value.is_outside(number) {
            status.push(Status::Flag(Flag::Implausible));
        }
        let (metric, modality) = (value.metric, self.frame.modality);
        let number = match value.component {
            None => Numbers::Single(number, unit),
            Some(component) => {
                let before = self.observed.values.iter_mut().find(|measured| measured.metric == metric);
                if let Some(Measured { value: Numbers::Compound(parts, _), status: said, .. }) = before {
                    parts.push((component, number));
                    status.retain(|status| !said.contains(status));
                    said.append(&mut status);
                    return;
                }
                Numbers::Compound(vec![(component, number)], unit)
            }
        };
        self.observed.values.push(Measured { metric, site: None, modality, value: number, status });
    }
}

/// User index 255 says "unknown" wherever the standard has one.
const UNKNOWN_USER: u8 = 255;

impl Value {
    fn number(&self, kind: Kind, octets: &[u8]) -> Number {
        let number = match kind {
            Kind::Integer { .. } | Kind::Bcd { .. } => match integer(kind, octets) {
                None => Number::NotANumber,
                Some(sent) if self.missing.contains(&sent) => Number::Absent(Absent::Missing),
                Some(sent) => Number::whole(sent),
            },
            Kind::Sfloat => read::<Medfloat16>(octets).map_or(Number::NotANumber, |(float, _)| float.0),
            Kind::Float => read::<Medfloat32>(octets).map_or(Number::NotANumber, |(float, _)| float.0),
            Kind::DateTime | Kind::DateParts(_) => Number::NotANumber,
        };
        let Number::Finite(sent) = number else { return number };
        let scaled = self.scale.map_or(Some(sent), |scale| sent.checked_mul(scale));
        let added = scaled.and_then(|value| self.add.map_or(Some(value), |add| value.checked_add(add)));
        added.map_or(Number::NotANumber, Number::Finite)
    }

    fn is_outside(&self, number: Number) -> bool {
        let (Some((low, high)), Number::Finite(value)) = (self.range, number) else { return false };
        value.cmp_value(low).is_lt() || value.cmp_value(high).is_gt()
    }
}

/// `None` for digits that are none.
fn integer(kind: Kind, octets: &[u8]) -> Option<i64> {
    match kind {
        Kind::Integer { octets: count, signed, big, mask, shift } => {
            let fold = |sum: u32, octet: &u8| sum << 8 | u32::from(*octet);
            let raw = if big { octets.iter().fold(0, fold) } else { octets.iter().rev().fold(0, fold) };
            if let Some(mask) = mask {
                return Some(i64::from((raw & mask) >> shift));
            }
            let unused = 32 - 8 * u32::try_from(count).ok()?;
            Some(if signed { i64::from((raw << unused).cast_signed() >> unused) } else { i64::from(raw) })
        }
        Kind::Bcd { .. } => octets.iter().try_fold(0i64, |sum, octet| {
            let (tens, ones) = (octet >> 4, octet & 0x0F);
            (tens < 10 && ones < 10).then(|| sum * 100 + i64::from(tens) * 10 + i64::from(ones))
        }),
        Kind::Sfloat | Kind::Float | Kind::DateTime | Kind::DateParts(_) => None,
    }
}
