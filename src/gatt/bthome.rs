//! BTHome v2 (bthome.io/format): the service data under FCD2 of many makers' sensors, in the clear or encrypted with AES-CCM. It
//! says what it is of and never of whom, and in the clear anybody can send it: it is no source for an alarm.

use aes::Aes128;
use ccm::Ccm;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U4, U13};

use super::battery::BatteryLevel;
use super::scaled::Step;
use super::weight_scale::spot;
use super::{Context, Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Observed, Warning, read};
use crate::reading::{Metric, Unit};

const ENCRYPTED: u8 = 1 << 0;
const TRIGGER_BASED: u8 = 1 << 2;
const KNOWN_INFO: u32 = 0b1110_0101;
const VERSION_SHIFT: u8 = 5;
const VERSION: u8 = 2;
const SERVICE_UUID: [u8; 2] = [0xD2, 0xFC];
const COUNTER: usize = 4;
const MIC: usize = 4;

/// The service data of one advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BthomeAdvertisement {
    pub trigger_based: bool,
    /// Of an encrypted one; [`ReplayGuard`] tells whether it was heard before.
    pub counter: Option<u32>,
    pub objects: Vec<Object>,
    /// What its temperature or mass is of.
    measures: Option<Metric>,
    /// An object nobody has defined, and all behind it: without its length there is no way past it.
    unparsed: Option<(u8, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    row: &'static Row,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(Number),
    Text(String),
    Octets(Vec<u8>),
}

impl Decode for BthomeAdvertisement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let info = cursor.u8("info")?;
        let version = info >> VERSION_SHIFT;
        if version != VERSION {
            return Err(DecodeError::UnknownFormat { given: version, known: "version 2" });
        }
        cursor.known_bits(info.into(), KNOWN_INFO);
        let (trigger_based, measures) = (info & TRIGGER_BASED != 0, cursor.context().measures);
        if info & ENCRYPTED == 0 {
            let (objects, unparsed) = objects(cursor)?;
            return Ok(Self { trigger_based, counter: None, objects, measures, unparsed });
        }
        let (clear, counter) = decrypt(info, cursor)?;
        let context = Context::default();
        let mut inner = Cursor::new(&clear, &context);
        let (objects, unparsed) = objects(&mut inner)?;
        inner.finish().into_iter().for_each(|warning| cursor.warn(warning));
        Ok(Self { trigger_based, counter: Some(counter), objects, measures, unparsed })
    }

    fn fields(&self) -> Fields {
        let unparsed = self.unparsed.as_ref().map(|(id, octets)| {
            Fields::new().with("id", Field::Integer((*id).into())).with("unparsed", Field::Octets(octets.clone()))
        });
        let objects = self.objects.iter().map(Object::fields).chain(unparsed).collect();
        Fields::new()
            .with("encrypted", Field::Bool(self.counter.is_some()))
            .with("trigger_based", Field::Bool(self.trigger_based))
            .with_sent("counter", self.counter.map(|counter| Field::Integer(counter.into())))
            .with("objects", Field::List(objects))
    }
}

impl Measurement for BthomeAdvertisement {
    /// Its battery, and what somebody said that it measures: without that a temperature is of a room, a mass of a parcel.
    fn observed(&self) -> Observed {
        let body = self.objects.iter().filter_map(|object| self.of_a_body(object));
        let battery = self.objects.iter().find_map(|object| match &object.value {
            Value::Number(Number::Finite(percent)) if object.row.id == BATTERY => u8::try_from(percent.mantissa()).ok(),
            _ => None,
        });
        let level = battery.map(|percent| BatteryLevel { percent: (percent <= 100).then_some(percent) });
        let values = body.chain(level.map(BatteryLevel::measured)).collect();
        Observed { values, sequence: self.counter, ..Observed::default() }
    }
}

impl BthomeAdvertisement {
    /// An octet by which its receivers tell a repeat from the same value anew.
    pub fn has_packet_id(octets: &[u8]) -> bool {
        read::<Self>(octets).is_ok_and(|(value, _)| value.objects.iter().any(|object| object.row.id == PACKET_ID))
    }

    fn of_a_body(&self, object: &Object) -> Option<Measured> {
        let metric = self.measures?;
        let Value::Number(number) = object.value else { return None };
        let unit = match (metric, object.row.name, object.row.unit) {
            (Metric::BodyTemperature, "temperature", _) => Unit::DegreeCelsius,
            (Metric::BodyWeight, "mass", "kg") => Unit::Kilogram,
            (Metric::BodyWeight, "mass", _) => Unit::Pound,
            _ => return None,
        };
        Some(spot(metric, number, unit))
    }
}

/// The objects in the clear and the counter. The nonce is the device's address, the UUID as sent, the info octet and the
/// counter; nothing else is authenticated.
fn decrypt(info: u8, cursor: &mut Cursor<'_>) -> Result<(Vec<u8>, u32), DecodeError> {
    let sealed = cursor.left().checked_sub(COUNTER + MIC);
    let Some(sealed) = sealed else {
        return Err(DecodeError::Truncated { field: "counter and checksum", needed: COUNTER + MIC, left: cursor.left() });
    };
    let mut clear = cursor.octets("objects", sealed)?.to_vec();
    let counter: [u8; COUNTER] = cursor.array("counter")?;
    let mic: [u8; MIC] = cursor.array("checksum")?;
    let (Some(key), Some(mac)) = (cursor.context().key, cursor.context().mac) else {
        return Err(DecodeError::KeyRequired);
    };
    let mut nonce = [0; 13];
    nonce[..6].copy_from_slice(&mac);
    nonce[6..8].copy_from_slice(&SERVICE_UUID);
    nonce[8] = info;
    nonce[9..].copy_from_slice(&counter);
    Ccm::<Aes128, U4, U13>::new(&key.into())
        .decrypt_inout_detached(&nonce.into(), &[], clear.as_mut_slice().into(), &mic.into())
        .map_err(|_| DecodeError::DecryptFailed)?;
    Ok((clear, u32::from_le_bytes(counter)))
}

type Unparsed = Option<(u8, Vec<u8>)>;

fn objects(cursor: &mut Cursor<'_>) -> Result<(Vec<Object>, Unparsed), DecodeError> {
    let mut objects = Vec::new();
    while cursor.left() > 0 {
        let id = cursor.u8("object")?;
        let Some(row) = OBJECTS.iter().find(|row| row.id == id) else {
            cursor.warn(Warning::UnknownObjectId);
            return Ok((objects, Some((id, cursor.rest().to_vec()))));
        };
        objects.push(Object { row, value: row.shape.read(cursor)? });
    }
    Ok((objects, None))
}

impl Object {
    fn fields(&self) -> Fields {
        let fields = Fields::new().with("k", Field::Word(self.row.name));
        match &self.value {
            Value::Number(number) => fields.with("v", Field::Number(*number)).with("u", Field::Word(self.row.unit)),
            Value::Text(text) => fields.with("v", Field::Text(text.clone())),
            Value::Octets(octets) => fields.with("octets", Field::Octets(octets.clone())),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: u8,
    name: &'static str,
    shape: Shape,
    unit: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// So many octets, in steps of factor × 10^exponent.
    Unsigned(usize, i64, i8),
    Signed(usize, i64, i8),
    /// A length, then text or octets.
    Text,
    Raw,
    /// A length in five bits, then an opcode and its arguments.
    Command,
}

/// A command's opcode is not counted in its length.
const COMMAND_LENGTH: u8 = 0x1F;

impl Shape {
    fn read(self, cursor: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        Ok(match self {
            Shape::Unsigned(octets, factor, exponent) => {
                Value::Number(Step::new(factor, exponent).of(unsigned(cursor.octets("value", octets)?)))
            }
            Shape::Signed(octets, factor, exponent) => {
                Value::Number(Step::new(factor, exponent).of(signed(cursor.octets("value", octets)?)))
            }
            Shape::Text => {
                let length = cursor.u8("length")?;
                let octets = cursor.octets("text", length.into())?;
                if std::str::from_utf8(octets).is_err() {
                    cursor.warn(Warning::InvalidUtf8);
                }
                Value::Text(String::from_utf8_lossy(octets).into_owned())
            }
            Shape::Raw => {
                let length = cursor.u8("length")?;
                Value::Octets(cursor.octets("raw", length.into())?.to_vec())
            }
            Shape::Command => {
                let arguments = cursor.u8("length")? & COMMAND_LENGTH;
                Value::Octets(cursor.octets("command", 1 + usize::from(arguments))?.to_vec())
            }
        })
    }
}

fn unsigned(octets: &[u8]) -> i64 {
    octets.iter().rev().fold(0, |value, octet| value << 8 | i64::from(*octet))
}

/// The sign is carried by shifting up and down again.
fn signed(octets: &[u8]) -> i64 {
    let unused = 64 - 8 * octets.len();
    unsigned(octets) << unused >> unused
}

const fn row(id: u8, name: &'static str, shape: Shape, unit: &'static str) -> Row {
    Row { id, name, shape, unit }
}

const PACKET_ID: u8 = 0x00;
const BATTERY: u8 = 0x01;

use Shape::{Command, Raw, Signed, Text, Unsigned};

/// Every object of the format, by id; units are UCUM, empty where there is none.
static OBJECTS: &[Row] = &[
    row(PACKET_ID, "packet_id", Unsigned(1, 1, 0), ""),
    row(BATTERY, "battery", Unsigned(1, 1, 0), "%"),
    row(0x02, "temperature", Signed(2, 1, -2), "Cel"),
    row(0x03, "humidity", Unsigned(2, 1, -2), "%"),
    row(0x04, "pressure", Unsigned(3, 1, -2), "hPa"),
    row(0x05, "illuminance", Unsigned(3, 1, -2), "lx"),
    row(0x06, "mass", Unsigned(2, 1, -2), "kg"),
    row(0x07, "mass", Unsigned(2, 1, -2), "[lb_av]"),
    row(0x08, "dewpoint", Signed(2, 1, -2), "Cel"),
    row(0x09, "count", Unsigned(1, 1, 0), ""),
    row(0x0A, "energy", Unsigned(3, 1, -3), "kW.h"),
    row(0x0B, "power", Unsigned(3, 1, -2), "W"),
    row(0x0C, "voltage", Unsigned(2, 1, -3), "V"),
    row(0x0D, "pm2_5", Unsigned(2, 1, 0), "ug/m3"),
    row(0x0E, "pm10", Unsigned(2, 1, 0), "ug/m3"),
    row(0x0F, "generic_boolean", Unsigned(1, 1, 0), ""),
    row(0x10, "power_on", Unsigned(1, 1, 0), ""),
    row(0x11, "opening", Unsigned(1, 1, 0), ""),
    row(0x12, "co2", Unsigned(2, 1, 0), "[ppm]"),
    row(0x13, "tvoc", Unsigned(2, 1, 0), "ug/m3"),
    row(0x14, "moisture", Unsigned(2, 1, -2), "%"),
    row(0x15, "battery_low", Unsigned(1, 1, 0), ""),
    row(0x16, "battery_charging", Unsigned(1, 1, 0), ""),
    row(0x17, "carbon_monoxide", Unsigned(1, 1, 0), ""),
    row(0x18, "cold", Unsigned(1, 1, 0), ""),
    row(0x19, "connectivity", Unsigned(1, 1, 0), ""),
    row(0x1A, "door", Unsigned(1, 1, 0), ""),
    row(0x1B, "garage_door", Unsigned(1, 1, 0), ""),
    row(0x1C, "gas_detected", Unsigned(1, 1, 0), ""),
    row(0x1D, "heat", Unsigned(1, 1, 0), ""),
    row(0x1E, "light", Unsigned(1, 1, 0), ""),
    row(0x1F, "lock", Unsigned(1, 1, 0), ""),
    row(0x20, "moisture_detected", Unsigned(1, 1, 0), ""),
    row(0x21, "motion", Unsigned(1, 1, 0), ""),
    row(0x22, "moving", Unsigned(1, 1, 0), ""),
    row(0x23, "occupancy", Unsigned(1, 1, 0), ""),
    row(0x24, "plug", Unsigned(1, 1, 0), ""),
    row(0x25, "presence", Unsigned(1, 1, 0), ""),
    row(0x26, "problem", Unsigned(1, 1, 0), ""),
    row(0x27, "running", Unsigned(1, 1, 0), ""),
    row(0x28, "safety", Unsigned(1, 1, 0), ""),
    row(0x29, "smoke", Unsigned(1, 1, 0), ""),
    row(0x2A, "sound", Unsigned(1, 1, 0), ""),
    row(0x2B, "tamper", Unsigned(1, 1, 0), ""),
    row(0x2C, "vibration", Unsigned(1, 1, 0), ""),
    row(0x2D, "window", Unsigned(1, 1, 0), ""),
    row(0x2E, "humidity", Unsigned(1, 1, 0), "%"),
    row(0x2F, "moisture", Unsigned(1, 1, 0), "%"),
    row(0x3A, "button", Unsigned(1, 1, 0), ""),
    row(0x3B, "command", Command, ""),
    row(0x3C, "dimmer", Unsigned(2, 1, 0), ""),
    row(0x3D, "count", Unsigned(2, 1, 0), ""),
    row(0x3E, "count", Unsigned(4, 1, 0), ""),
    row(0x3F, "rotation", Signed(2, 1, -1), "deg"),
    row(0x40, "distance", Unsigned(2, 1, 0), "mm"),
    row(0x41, "distance", Unsigned(2, 1, -1), "m"),
    row(0x42, "duration", Unsigned(3, 1, -3), "s"),
    row(0x43, "current", Unsigned(2, 1, -3), "A"),
    row(0x44, "speed", Unsigned(2, 1, -2), "m/s"),
    row(0x45, "temperature", Signed(2, 1, -1), "Cel"),
    row(0x46, "uv_index", Unsigned(1, 1, -1), ""),
    row(0x47, "volume", Unsigned(2, 1, -1), "L"),
    row(0x48, "volume", Unsigned(2, 1, 0), "mL"),
    row(0x49, "volume_flow_rate", Unsigned(2, 1, -3), "m3/h"),
    row(0x4A, "voltage", Unsigned(2, 1, -1), "V"),
    row(0x4B, "gas", Unsigned(3, 1, -3), "m3"),
    row(0x4C, "gas", Unsigned(4, 1, -3), "m3"),
    row(0x4D, "energy", Unsigned(4, 1, -3), "kW.h"),
    row(0x4E, "volume", Unsigned(4, 1, -3), "L"),
    row(0x4F, "water", Unsigned(4, 1, -3), "L"),
    row(0x50, "timestamp", Unsigned(4, 1, 0), "s"),
    row(0x51, "acceleration", Unsigned(2, 1, -3), "m/s2"),
    row(0x52, "gyroscope", Unsigned(2, 1, -3), "deg/s"),
    row(0x53, "text", Text, ""),
    row(0x54, "raw", Raw, ""),
    row(0x55, "volume_storage", Unsigned(4, 1, -3), "L"),
    row(0x56, "conductivity", Unsigned(2, 1, 0), "uS/cm"),
    row(0x57, "temperature", Signed(1, 1, 0), "Cel"),
    row(0x58, "temperature", Signed(1, 35, -2), "Cel"),
    row(0x59, "count", Signed(1, 1, 0), ""),
    row(0x5A, "count", Signed(2, 1, 0), ""),
    row(0x5B, "count", Signed(4, 1, 0), ""),
    row(0x5C, "power", Signed(4, 1, -2), "W"),
    row(0x5D, "current", Signed(2, 1, -3), "A"),
    row(0x5E, "direction", Unsigned(2, 1, -2), "deg"),
    row(0x5F, "precipitation", Unsigned(2, 1, -1), "mm"),
    row(0x60, "channel", Unsigned(1, 1, 0), ""),
    row(0x61, "rotational_speed", Unsigned(2, 1, 0), "/min"),
    row(0x62, "speed", Signed(4, 1, -6), "m/s"),
    row(0x63, "acceleration", Signed(4, 1, -6), "m/s2"),
    row(0x64, "light_level", Unsigned(1, 1, 0), ""),
    row(0x65, "settings_revision", Unsigned(1, 1, 0), ""),
    row(0xF0, "device_type_id", Unsigned(2, 1, 0), ""),
    row(0xF1, "firmware_version", Unsigned(4, 1, 0), ""),
    row(0xF2, "firmware_version", Unsigned(3, 1, 0), ""),
];

/// The last counter of one encrypted device: what is not above it was heard before, or is played again by somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayGuard {
    last: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// The same advertisement once more, as every device sends it several times.
    Repeated,
    /// An earlier one: refused. After a change of batteries a person has to say that the counter began anew.
    Replayed,
}

impl ReplayGuard {
    /// Going on from the counter that was kept.
    pub const fn after(last: u32) -> Self {
        Self { last: Some(last) }
    }

    /// Only of an advertisement that decrypted: its counter is authenticated by that.
    pub fn take(&mut self, counter: u32) -> Freshness {
        match self.last {
            Some(last) if counter == last => Freshness::Repeated,
            Some(last) if counter < last => Freshness::Replayed,
            _ => {
                self.last = Some(counter);
                Freshness::Fresh
            }
        }
    }

    pub const fn last(self) -> Option<u32> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read_with;

    /// The example of bthome.io/encryption.
    const SEALED: [u8; 15] = [0x41, 0xA4, 0x72, 0x66, 0xC9, 0x5F, 0x73, 0x00, 0x11, 0x22, 0x33, 0x78, 0x23, 0x72, 0x14];

    fn context() -> Context {
        let mut context = Context::default();
        context.set("key", "231d39c1d7cc1ab1aee224cd096db932").expect("a key");
        context.set("mac", "54:48:E6:8F:80:A5").expect("an address");
        context
    }

    #[test]
    fn an_encrypted_advertisement_reads_as_the_published_example_does() {
        let (value, warnings) = read_with::<BthomeAdvertisement>(&SEALED, &context()).expect("it decrypts");
        assert_eq!((value.counter, warnings), (Some(0x3322_1100), vec![]));
        let json = serde_json::to_string(&value.fields()).expect("plain data");
        let objects = r#"[{"k":"temperature","v":"25.06","u":"Cel"},{"k":"humidity","v":"50.55","u":"%"}]"#;
        let expected = format!(r#"{{"encrypted":true,"trigger_based":false,"counter":857870592,"objects":{objects}}}"#);
        assert_eq!(json, expected);
    }

    #[test]
    fn any_altered_octet_and_any_other_address_or_key_is_refused() {
        let refused = |octets: &[u8], context: &Context| {
            read_with::<BthomeAdvertisement>(octets, context).map_err(|error| error.name()) == Err("decrypt_failed")
        };
        for at in 1..SEALED.len() {
            let mut octets = SEALED;
            octets[at] ^= 1;
            assert!(refused(&octets, &context()), "octet {at}");
        }
        let other = Context { mac: Some([0; 6]), ..context() };
        assert!(refused(&SEALED, &other));
        assert!(refused(&SEALED, &Context { key: Some([0; 16]), ..context() }));
    }

    #[test]
    fn what_was_heard_before_is_told_from_what_is_played_again() {
        let mut guard = ReplayGuard::default();
        let taken = [5, 5, 4, 6, 5].map(|counter| guard.take(counter));
        use Freshness::{Fresh, Repeated, Replayed};
        assert_eq!(taken, [Fresh, Repeated, Replayed, Fresh, Replayed]);
        assert_eq!(ReplayGuard::after(6).take(6), Repeated);
        assert_eq!(guard.last(), Some(6));
    }

    #[test]
    fn objects_are_listed_once_by_rising_id() {
        assert!(OBJECTS.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert_eq!((signed(&[0xFE]), signed(&[0xFF, 0xFF, 0xFF, 0x7F]), unsigned(&[1, 2])), (-2, i64::from(i32::MAX), 513));
    }
}
