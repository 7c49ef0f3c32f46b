//! Every public test vector holds: fields, warnings, errors, lenient and strict. And no input
//! whatever makes a decoder panic.

use std::path::Path;

use bedrail::gatt::{self, CHARACTERISTICS, Context, DecodeError, Decoded, Warning};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

/// How many vectors must have run: a test that finds no files would pass otherwise.
const VECTORS: usize = 292;

#[derive(Deserialize)]
struct Vector {
    id: String,
    characteristic: String,
    uuid: String,
    hex: Hex,
    #[serde(default)]
    context: serde_json::Map<String, Value>,
    expect: Option<Value>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    strict_error: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hex {
    One(String),
    Segments(Vec<String>),
}

impl Vector {
    fn segments(&self) -> Vec<Vec<u8>> {
        match &self.hex {
            Hex::One(text) => vec![octets(text)],
            Hex::Segments(texts) => texts.iter().map(|text| octets(text)).collect(),
        }
    }

    fn decode(&self, name: &str, strict: bool) -> Result<Decoded, DecodeError> {
        let mut context = Context::default();
        for (key, value) in &self.context {
            context.set(key, value.as_str().unwrap_or(&value.to_string())).expect("a vector's context key is known");
        }
        let segments = self.segments();
        let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
        gatt::find(name).unwrap_or_else(|error| panic!("{}: {error}", self.id)).decode(&segments, &context, strict)
    }
}

fn octets(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of vectors") {
        let path = entry.expect("a directory entry").path();
        let text = std::fs::read_to_string(&path).expect("a file of vectors");
        let of_file: Vec<Vector> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!of_file.is_empty(), "{} holds no vector", path.display());
        all.extend(of_file);
    }
    all
}

#[test]
fn every_public_vector_holds() {
    let mut run = 0;
    for vector in vectors().iter() {
        // A vector is decoded by its name, and again by each UUID it is for: both must lead to the same decoder.
        let uuids = vector.uuid.split(',').filter(|uuid| is_uuid(uuid));
        for name in [vector.characteristic.as_str()].into_iter().chain(uuids) {
            holds(vector, name);
        }
        run += 1;
    }
    assert_eq!(run, VECTORS);
}

/// In 16 or 128 bits; types, advertisements and records of a memory have words instead.
fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 4 | 36) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn holds(vector: &Vector, name: &str) {
    let id = format!("{} as {name}", vector.id);
    let (lenient, strict) = (vector.decode(name, false), vector.decode(name, true));
    if let Some(error) = &vector.error {
        assert_eq!(lenient.as_ref().map_err(DecodeError::name), Err(error.as_str()), "{id}");
        assert_eq!(strict.as_ref().map_err(DecodeError::name), Err(error.as_str()), "{id}, strict");
        return;
    }
    let decoded = lenient.unwrap_or_else(|error| panic!("{id}: {error}"));
    let json = serde_json::to_value(&decoded).expect("plain data");
    assert_eq!(Some(&json["fields"]), vector.expect.as_ref(), "{id}");
    assert_eq!(json["warnings"], Value::from(vector.warnings.clone()), "{id}");
    match &vector.strict_error {
        Some(error) => assert_eq!(strict.map_err(|e| e.name()), Err(error.as_str()), "{id}, strict"),
        None => assert_eq!(strict, Ok(decoded), "{id}, strict"),
    }
}

proptest! {
    #[test]
    fn no_octets_make_a_decoder_panic(
        row in 0..CHARACTERISTICS.len(),
        octets in proptest::collection::vec(any::<u8>(), 0..64),
        strict in any::<bool>(),
    ) {
        let uuid = CHARACTERISTICS[row].uuid;
        if let Ok(decoded) = gatt::decode(uuid, &[&octets], &Context::default(), strict) {
            prop_assert!(decoded.warnings.len() <= Warning::ALL.len());
            prop_assert!(!strict || decoded.warnings.is_empty());
            serde_json::to_string(&decoded).expect("plain data");
        }
        if let Some(Ok((records, warnings))) = gatt::observe(uuid, &octets) {
            prop_assert!(warnings.len() <= Warning::ALL.len());
            // Work and memory grow with the input and with nothing else.
            let values: usize = records.iter().map(|observed| observed.values.len()).sum();
            prop_assert!(records.len() <= octets.len() && values <= octets.len());
        }
        let _ = (gatt::device_clock(uuid, &octets), gatt::information_text(&octets));
    }

    #[test]
    fn no_name_makes_the_search_panic(name in "\\PC{0,80}") {
        let _ = gatt::find(&name).map_err(|error| error.to_string());
    }
}

/// Random octets seldom get past the flags, a real value cut short does.
#[test]
fn no_prefix_of_a_real_value_makes_a_decoder_panic() {
    for vector in vectors() {
        for octets in vector.segments() {
            for end in 0..=octets.len() {
                for row in CHARACTERISTICS {
                    let decoded = gatt::decode(row.uuid, &[&octets[..end]], &Context::default(), false);
                    let observed = gatt::observe(row.uuid, &octets[..end]);
                    if let Some(observed) = observed {
                        assert_eq!(decoded.is_ok(), observed.is_ok(), "{} {}", vector.id, row.name);
                    }
                }
            }
        }
    }
}
