//! A profile as it is written. What can be said by shape alone is said here; `check` says the rest.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub profile: Spanned<Head>,
    #[serde(rename = "match")]
    pub matches: Spanned<Matches>,
    pub link: Option<Spanned<Link>>,
    #[serde(default)]
    pub init: Vec<Spanned<Step>>,
    #[serde(default)]
    pub poll: Vec<Spanned<Step>>,
    #[serde(default)]
    pub end: Vec<Spanned<Step>>,
    pub frame: Vec<Spanned<Frame>>,
    pub test: Vec<Spanned<Test>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub id: String,
    pub version: u32,
    pub name: String,
    /// Where the facts are from.
    #[allow(dead_code, reason = "for whoever reads the file; required so that it is thought of")]
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    pub any: Vec<Match>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    pub name_prefix: Option<String>,
    pub service_uuid: Option<String>,
    pub service_data_uuid: Option<String>,
    pub manufacturer_id: Option<u16>,
    pub model_number: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub bond: Bond,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Gatt,
    Advert,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bond {
    #[default]
    Never,
    Required,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub subscribe: Option<String>,
    pub read: Option<String>,
    pub write: Option<String>,
    pub with: Option<With>,
    pub expect: Option<Expect>,
    #[serde(default)]
    pub optional: bool,
    /// Of a `[[poll]]` alone.
    pub every_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct With {
    pub hex: Option<String>,
    pub now: Option<Clock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    DateTime,
    CurrentTime,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub source: String,
    pub prefix: String,
    pub timeout_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    pub source: String,
    pub length: Option<usize>,
    pub min_length: Option<usize>,
    #[serde(default)]
    pub guard: Vec<Condition>,
    #[serde(default)]
    pub drop_if: Vec<Condition>,
    pub checksum: Option<Checksum>,
    pub reassemble: Option<Reassemble>,
    #[serde(default)]
    pub sequential: bool,
    #[serde(default)]
    pub modality: Modality,
    /// It came from the device's memory.
    #[serde(default)]
    pub stored: bool,
    pub field: Vec<Spanned<Field>>,
    #[serde(default)]
    pub bit: Vec<Spanned<Bit>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    #[default]
    Spot,
    Continuous,
}

/// `mask` and `eq` are octets from `at` on; `bit` counts from the least significant one of the octet at `at`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub at: usize,
    pub bit: Option<u8>,
    pub mask: Option<String>,
    pub eq: Option<String>,
}

/// `length_at` with what belongs to it; or `first_mask` with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reassemble {
    pub begins: Vec<Condition>,
    pub length_at: Option<usize>,
    pub length_type: Option<String>,
    pub add: Option<usize>,
    pub first_mask: Option<String>,
    pub last_mask: Option<String>,
    pub counter_shift: Option<u8>,
}

impl Reassemble {
    /// With nothing beside it.
    pub fn headed(first_mask: &str, last_mask: &str, counter_shift: Option<u8>) -> Self {
        let (first_mask, last_mask) = (Some(first_mask.to_owned()), Some(last_mask.to_owned()));
        Self { first_mask, last_mask, counter_shift, ..Self::default() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksum {
    pub kind: ChecksumKind,
    #[serde(default)]
    pub from: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChecksumKind {
    /// The sum, its low seven bits alone.
    Sum7,
    Sum8,
    Xor8,
    /// Polynomial 07, from 0.
    Crc8,
    /// Polynomial 31 from the least significant bit on, from 0: of 1-Wire.
    Crc8Maxim,
    Crc16Mcrf4xx,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub code: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a `date_time` that is not the standard's.
    pub order: Option<String>,
    pub at: Option<usize>,
    pub mask: Option<u32>,
    pub shift: Option<u8>,
    pub scale: Option<String>,
    pub add: Option<String>,
    pub unit: Option<String>,
    #[serde(default)]
    pub unit_if: Vec<UnitIf>,
    #[serde(default)]
    pub missing: Vec<i64>,
    pub range: Option<[String; 2]>,
    #[serde(default)]
    pub when: Vec<Condition>,
    pub present_if: Option<Condition>,
    #[serde(default = "yes")]
    pub emit: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitIf {
    pub unit: String,
    pub at: usize,
    pub bit: Option<u8>,
    pub mask: Option<String>,
    pub eq: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bit {
    pub at: usize,
    pub bit: u8,
    pub code: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    pub source: String,
    /// One packet, or `segments`: several.
    pub hex: Option<String>,
    pub segments: Option<Vec<String>>,
    pub expect: Option<BTreeMap<String, String>>,
    pub error: Option<String>,
}

const fn yes() -> bool {
    true
}
