//! Every public test vector holds: fields, warnings, errors, lenient and strict. And no input
//! whatever makes a decoder panic.

use std::collections::BTreeSet;
use std::path::Path;

use bedrail::gatt::{self, ADVERTISEMENTS, CHARACTERISTICS, Context, DecodeError, Decoded, Numbers, Warning};
use bedrail::reading::Metric;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

/// How many vectors must have run: a test that finds no files would pass otherwise.
const VECTORS: usize = 292;

/// How much text a value may become: all fixed fields with their names, and for an octet at most an object of its own.
const SHOWN_FOR_ANY: usize = 2_000;
const SHOWN_PER_OCTET: usize = 100;

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
    /// Every decoder there is, in one piece or in several, whatever it is told: it answers, and work and memory grow with the
    /// input and with nothing else.
    #[test]
    fn no_octets_make_a_decoder_panic(
        pick in any::<proptest::sample::Index>(),
        segments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4),
        strict in any::<bool>(),
        e2e_crc in any::<bool>(),
        with_key in any::<bool>(),
    ) {
        let names: Vec<&str> = gatt::names().collect();
        let decoder = gatt::find(names[pick.index(names.len())]).expect("a name of the table");
        let context = Context { e2e_crc, key: with_key.then_some([7; 16]), mac: with_key.then_some([8; 6]), ..Context::default() };
        let octets: usize = segments.iter().map(Vec::len).sum();
        let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
        if let Ok(decoded) = decoder.decode(&segments, &context, strict) {
            prop_assert!(decoded.warnings.len() <= Warning::ALL.len());
            prop_assert!(!strict || decoded.warnings.is_empty());
            let shown = serde_json::to_string(&decoded).expect("plain data");
            prop_assert!(shown.len() <= SHOWN_FOR_ANY + SHOWN_PER_OCTET * octets, "{} for {octets} octets", shown.len());
        }
        let Some(octets) = segments.first() else { return Ok(()) };
        if let Some(Ok((records, warnings))) = decoder.observe(octets, &context) {
            prop_assert!(warnings.len() <= Warning::ALL.len());
            let values: usize = records.iter().map(|observed| observed.values.len()).sum();
            prop_assert!(records.len() <= octets.len() && values <= octets.len());
        }
        for uuid in [gatt::sig_uuid(0x2A2B), gatt::sig_uuid(0x2A08)] {
            let _ = gatt::device_clock(uuid, octets);
        }
        let _ = gatt::information_text(octets);
    }

    #[test]
    fn no_name_makes_the_search_panic(name in "\\PC{0,80}") {
        let _ = gatt::find(&name).map_err(|error| error.to_string());
    }
}

/// Random octets seldom get past the flags, a real value cut short does; and what belongs to one decoder is given to all.
#[test]
fn no_prefix_of_a_real_value_makes_a_decoder_panic() {
    let decoders: Vec<_> = gatt::names().map(|name| (name, gatt::find(name).expect("a name of the table"))).collect();
    let context = Context { e2e_crc: true, ..Context::default() };
    for vector in vectors() {
        for octets in vector.segments() {
            for end in 0..=octets.len() {
                for (name, decoder) in &decoders {
                    for context in [&Context::default(), &context] {
                        let decoded = decoder.decode(&[&octets[..end]], context, false);
                        let observed = decoder.observe(&octets[..end], context);
                        if let Some(observed) = observed {
                            assert_eq!(decoded.is_ok(), observed.is_ok(), "{} {name}", vector.id);
                        }
                    }
                }
            }
        }
    }
}

/// A decoder nobody can find out about is of no use, and neither is a line about one that does not exist.
#[test]
fn everything_that_is_decoded_is_in_the_list_of_devices() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/devices.md")).expect("the list");
    for row in CHARACTERISTICS {
        let long = row.uuid.to_string().to_ascii_uppercase();
        let uuid = long.strip_suffix("-0000-1000-8000-00805F9B34FB").map_or(long.as_str(), |short| &short[4..]);
        assert!(text.contains(&format!("| {uuid} | {}", row.title)), "{uuid} {} is not in docs/devices.md", row.title);
    }
    for row in ADVERTISEMENTS {
        assert!(text.contains(&format!("| {} |", row.name)), "{} is not in docs/devices.md", row.name);
    }
    let rows = |table| str::lines(table).skip(1).take_while(|line| line.starts_with('|'));
    for metric in text.split("becomes").skip(1).flat_map(rows).flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let is_name = metric.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'));
        let is_metric = Metric::from_name(metric).is_some() || gatt::find(metric).is_ok();
        assert!(!is_name || is_metric, "docs/devices.md names the metric {metric}");
    }
}

/// A decoder and the table of metrics are written apart: what one gives, the other must know.
#[test]
fn every_value_of_a_vector_is_in_a_unit_and_a_part_of_its_metric() {
    let mut seen = BTreeSet::new();
    for vector in vectors() {
        let decoder = gatt::find(&vector.characteristic).expect("a decoder");
        let [octets] = &vector.segments()[..] else { continue };
        let Some(Ok((records, _))) = decoder.observe(octets, &Context::default()) else { continue };
        for measured in records.into_iter().flat_map(|record| record.values) {
            let row = measured.metric.row();
            let (Numbers::Single(_, unit) | Numbers::Compound(_, unit)) = measured.value;
            assert!(row.units.contains(&unit), "{}: {} in {}", vector.id, row.name, unit.ucum());
            if let Numbers::Compound(parts, _) = measured.value {
                let known = |part| row.components.iter().any(|component| component.component == part);
                assert!(parts.iter().all(|(part, _)| known(*part)), "{}", vector.id);
            }
            seen.insert(measured.metric);
        }
    }
    assert!(seen.len() >= 24, "only {} metrics come out of the vectors", seen.len());
}
