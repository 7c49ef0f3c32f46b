//! Characteristics by UUID and by name, and how the octets of one are read.

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use uuid::Uuid;

use super::error::{DecodeError, Warning};
use super::segment::join;
use super::{
    ADVERTISEMENTS, CHARACTERISTICS, Context, CurrentTime, DateTime, Decode, Fields, Measurement, Observed, Read, Records, TYPES,
    Text, read, read_with,
};
use crate::reading::DeviceTime;

#[derive(Clone, Copy, Debug)]
pub struct Characteristic {
    pub uuid: Uuid,
    /// The name on the command line and in test vectors.
    pub name: &'static str,
    /// The Bluetooth SIG's name.
    pub title: &'static str,
    pub properties: Properties,
    /// The service it belongs to; `None` where vendors put it into services of their choice.
    pub service: Option<Uuid>,
    pub decoder: Decoder,
}

impl Characteristic {
    /// Whether its value comes in one piece.
    pub const fn is_whole(&self) -> bool {
        matches!(self.decoder.fields, Shape::Whole(_))
    }
}

/// What the characteristic may be used for as far as bedrail does: it writes to none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    pub read: bool,
    pub notify: bool,
    pub indicate: bool,
}

/// A characteristic that measures nothing.
pub const fn plain<T: Decode>(
    uuid16: u16,
    name: &'static str,
    title: &'static str,
    properties: Properties,
    service: Option<Uuid>,
) -> Characteristic {
    Characteristic { uuid: sig_uuid(uuid16), name, title, properties, service, decoder: Decoder::plain::<T>() }
}

/// A characteristic whose value is one record.
pub const fn measurement<T: Measurement>(
    uuid16: u16,
    name: &'static str,
    title: &'static str,
    properties: Properties,
    service: Option<Uuid>,
) -> Characteristic {
    Characteristic { uuid: sig_uuid(uuid16), name, title, properties, service, decoder: Decoder::measurement::<T>() }
}

/// A characteristic whose value is one or more records.
pub const fn records<T: Records>(
    uuid16: u16,
    name: &'static str,
    title: &'static str,
    properties: Properties,
    service: Option<Uuid>,
) -> Characteristic {
    let decoder = Decoder { observe: Some(records_of::<T>), ..Decoder::plain::<T>() };
    Characteristic { uuid: sig_uuid(uuid16), name, title, properties, service, decoder }
}

/// A characteristic whose value comes in segments.
pub const fn segmented(
    uuid16: u16,
    name: &'static str,
    title: &'static str,
    properties: Properties,
    service: Option<Uuid>,
    fields: ReadsSegments,
) -> Characteristic {
    let decoder = Decoder { fields: Shape::Segments(fields), observe: None };
    Characteristic { uuid: sig_uuid(uuid16), name, title, properties, service, decoder }
}

/// A characteristic whose value comes in segments and is one or more records.
pub const fn segmented_records<T: Records>(
    uuid16: u16,
    name: &'static str,
    title: &'static str,
    properties: Properties,
    service: Option<Uuid>,
) -> Characteristic {
    let decoder = Decoder { fields: Shape::Segments(joined_fields_of::<T>), observe: Some(joined_records_of::<T>) };
    Characteristic { uuid: sig_uuid(uuid16), name, title, properties, service, decoder }
}

type Reads<T> = fn(&[u8], &Context) -> Read<T>;
type ReadsSegments = fn(&[&[u8]], &Context) -> Read<Fields>;

/// How the octets of one characteristic are read.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    fields: Shape,
    observe: Option<Reads<Vec<Observed>>>,
}

/// Whether a value is one piece.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Whole(Reads<Fields>),
    Segments(ReadsSegments),
}

impl Decoder {
    /// Whether its values say something of a patient or device.
    pub const fn measures(self) -> bool {
        self.observe.is_some()
    }

    pub const fn plain<T: Decode>() -> Self {
        Self { fields: Shape::Whole(fields_of::<T>), observe: None }
    }

    pub const fn measurement<T: Measurement>() -> Self {
        Self { observe: Some(observed_of::<T>), ..Self::plain::<T>() }
    }

    pub fn decode(self, segments: &[&[u8]], context: &Context, strict: bool) -> Result<Decoded, DecodeError> {
        let (fields, warnings) = match (self.fields, segments) {
            (Shape::Segments(read), segments) => read(segments, context)?,
            (Shape::Whole(read), [octets]) => read(octets, context)?,
            (Shape::Whole(_), segments) => return Err(DecodeError::Segments { given: segments.len() }),
        };
        match warnings.first() {
            Some(warning) if strict => Err(DecodeError::Strict(*warning)),
            _ => Ok(Decoded { fields, warnings }),
        }
    }

    /// What a value says, record by record; `None` where it measures nothing.
    pub fn observe(self, octets: &[u8], context: &Context) -> Option<Read<Vec<Observed>>> {
        self.observe.map(|observe| observe(octets, context))
    }
}

fn fields_of<T: Decode>(octets: &[u8], context: &Context) -> Read<Fields> {
    read_with::<T>(octets, context).map(|(value, warnings)| (value.fields(), warnings))
}

fn observed_of<T: Measurement>(octets: &[u8], context: &Context) -> Read<Vec<Observed>> {
    read_with::<T>(octets, context).map(|(value, warnings)| (vec![value.observed()], warnings))
}

fn records_of<T: Records>(octets: &[u8], context: &Context) -> Read<Vec<Observed>> {
    read_with::<T>(octets, context).map(|(value, warnings)| (value.records(), warnings))
}

fn joined_fields_of<T: Decode>(segments: &[&[u8]], context: &Context) -> Read<Fields> {
    fields_of::<T>(&join::<0>(segments)?.octets, context)
}

/// Of a value that is one segment; a longer one is put together by a [`super::SegmentJoiner`] first.
fn joined_records_of<T: Records>(octets: &[u8], context: &Context) -> Read<Vec<Observed>> {
    records_of::<T>(&join::<0>(&[octets])?.octets, context)
}

/// A value as `bedrail decode` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decoded {
    pub fields: Fields,
    #[serde(serialize_with = "warning_names")]
    pub warnings: Vec<Warning>,
}

fn warning_names<S: Serializer>(warnings: &[Warning], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(warnings.len()))?;
    for warning in warnings {
        list.serialize_element(warning.name())?;
    }
    list.end()
}

/// The 128-bit form of a UUID that the Bluetooth SIG gave out as 16 bits.
pub const fn sig_uuid(short: u16) -> Uuid {
    Uuid::from_u128(BASE_UUID | (short as u128) << 96)
}

/// 00000000-0000-1000-8000-00805F9B34FB (Core Specification, Vol 3, Part B, 2.5.1).
const BASE_UUID: u128 = 0x0000_0000_0000_1000_8000_0080_5F9B_34FB;

pub fn characteristic(uuid: Uuid) -> Option<&'static Characteristic> {
    CHARACTERISTICS.iter().find(|row| row.uuid == uuid)
}

/// Reads a value for showing. Lenient unless `strict`: then the first warning is the error.
pub fn decode(uuid: Uuid, segments: &[&[u8]], context: &Context, strict: bool) -> Result<Decoded, DecodeError> {
    let Some(row) = characteristic(uuid) else { return Err(DecodeError::Unsupported { uuid }) };
    row.decoder.decode(segments, context, strict)
}

/// Reads a value for what it says, record by record and always leniently; `None` for a characteristic that measures nothing.
pub fn observe(uuid: Uuid, octets: &[u8]) -> Option<Read<Vec<Observed>>> {
    characteristic(uuid)?.decoder.observe(octets, &Context::default())
}

/// The device's clock, from Current Time (2A2B) or Date Time (2A08); `None` for anything else, cut short or no time.
pub fn device_clock(uuid: Uuid, octets: &[u8]) -> Option<DeviceTime> {
    if uuid == sig_uuid(0x2A2B) {
        return read::<CurrentTime>(octets).ok()?.0.time.time;
    }
    if uuid == sig_uuid(0x2A08) {
        return read::<DateTime>(octets).ok()?.0.time;
    }
    None
}

/// The text of a Device Information string, without its padding.
pub fn information_text(octets: &[u8]) -> String {
    read::<Text>(octets).map(|(text, _)| text.0).unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a characteristic bedrail decodes; {remedy}")]
pub struct UnknownCharacteristic {
    given: String,
    remedy: String,
}

/// The decoder of a characteristic given by name, by the SIG's name, or by UUID in 16 or 128 bits; case does not matter.
pub fn find(text: &str) -> Result<Decoder, UnknownCharacteristic> {
    let name = text.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    if let Some(row) = CHARACTERISTICS.iter().find(|row| row.name == name) {
        return Ok(row.decoder);
    }
    if let Some((_, decoder)) = TYPES.iter().find(|(known, _)| *known == name) {
        return Ok(*decoder);
    }
    if let Some(row) = ADVERTISEMENTS.iter().find(|row| row.name == name) {
        return Ok(row.decoder);
    }
    parse_uuid(text.trim()).and_then(characteristic).map(|row| row.decoder).ok_or_else(|| unknown(text, &name))
}

fn parse_uuid(text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return u16::from_str_radix(digits, 16).ok().map(sig_uuid);
    }
    Uuid::try_parse(text).ok()
}

/// How much a name must resemble a known one to be suggested; strangers score about 0.6.
const SIMILAR: f64 = 0.8;
/// How much of a mistyped argument is worth repeating.
const ECHOED_CHARS: usize = 60;

/// Every name that [`find`] takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    let types = TYPES.iter().map(|(name, _)| *name);
    CHARACTERISTICS.iter().map(|row| row.name).chain(types).chain(ADVERTISEMENTS.iter().map(|row| row.name))
}

fn unknown(text: &str, name: &str) -> UnknownCharacteristic {
    let given: String = text.chars().take(ECHOED_CHARS).collect();
    let short: String = name.chars().take(ECHOED_CHARS).collect();
    let best = names().map(|known| (strsim::jaro_winkler(&short, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    let remedy = match best {
        Some((likeness, known)) if likeness >= SIMILAR => format!("did you mean `{known}`?"),
        _ => format!("give its 16- or 128-bit UUID or one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    UnknownCharacteristic { given, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_characteristic_is_in_the_table_once_under_a_name_like_its_title() {
        let uuids: BTreeSet<_> = CHARACTERISTICS.iter().map(|row| row.uuid).collect();
        assert_eq!(uuids.len(), CHARACTERISTICS.len());
        for row in CHARACTERISTICS {
            assert_eq!(row.title.to_ascii_lowercase().replace([' ', '-'], "_"), row.name);
        }
    }

    #[test]
    fn a_characteristic_is_found_by_name_and_by_either_uuid() {
        for text in [
            "heart_rate_measurement",
            "Heart Rate Measurement",
            "HEART-RATE-MEASUREMENT",
            "2a37",
            "0x2A37",
            "00002A37-0000-1000-8000-00805f9b34fb",
            "00002a3700001000800000805f9b34fb",
        ] {
            let decoded = find(text).expect(text).decode(&[&[0, 85]], &Context::default(), true).expect(text);
            let json = serde_json::to_string(&decoded).expect("plain data");
            assert_eq!(
                json, r#"{"fields":{"heart_rate":{"v":"85","u":"/min"},"contact":"not_supported"},"warnings":[]}"#,
                "{text}"
            );
        }
    }

    #[test]
    fn a_mistyped_name_gets_the_right_one_suggested() {
        let message = |text| find(text).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message("heart_rate_mesurement").contains("did you mean `heart_rate_measurement`?"));
        assert!(message("battery").contains("did you mean `battery_level`?"));
        for text in ["", "ffff", "zzz", "00002A37-0000-1000-8000-00805f9b34fc", "é".repeat(5000).as_str()] {
            assert!(message(text).contains("one of heart_rate_measurement"), "{text}");
        }
    }

    #[test]
    fn an_unsegmented_value_in_several_pieces_is_refused() {
        let error = decode(sig_uuid(0x2A19), &[&[50], &[51]], &Context::default(), false).expect_err("two pieces");
        assert_eq!(error.name(), "segment_error");
        let error = decode(sig_uuid(0x2A00), &[&[0]], &Context::default(), false).expect_err("no decoder");
        assert_eq!(error.name(), "unsupported");
    }

    #[test]
    fn a_device_clock_is_read_from_either_characteristic() {
        let time = [0xEA, 0x07, 0x0B, 0x17, 0x0A, 0x1E, 0x00, 1, 0, 0];
        let shown = |uuid, octets: &[u8]| device_clock(sig_uuid(uuid), octets).map(|time| time.to_string());
        assert_eq!(shown(0x2A2B, &time).as_deref(), Some("2026-11-23T10:30:00"));
        assert_eq!(shown(0x2A08, &time[..7]).as_deref(), Some("2026-11-23T10:30:00"));
        assert_eq!(shown(0x2A2B, &time[..7]), None);
        assert_eq!(shown(0x2A19, &time), None);
        assert_eq!(information_text(b"Wahoo Fitness\0\0"), "Wahoo Fitness");
    }
}
