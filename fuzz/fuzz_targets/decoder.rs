//! Nothing a device sends may make a decoder panic, loop, or take more memory than the octets account for. The first octet
//! picks the decoder, unless FUZZ_DECODER names one; the second says what the decoder is told beside the octets and whether
//! these are one piece. `FUZZ_LIST=1` prints the names, `FUZZ_SEEDS=DIR` writes the public vectors there to begin with.

#![no_main]

use std::sync::LazyLock;

use bedrail::gatt::{self, CHARACTERISTICS, Context, Decoder, Warning};
use bedrail::reading::Metric;
use bedrail_fuzz::{allocated, seeds};
use libfuzzer_sys::fuzz_target;

/// Octets of memory a value may take for each octet of its own: a row of two octets shows as an object of three fields, in
/// vectors that grow by doubling.
const PER_OCTET: usize = 768;
/// And what it takes however short it is: the fixed fields, a table of names.
const FOR_ANY: usize = 16 * 1024;

static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| gatt::names().collect());
static DECODERS: LazyLock<Vec<Decoder>> =
    LazyLock::new(|| NAMES.iter().map(|name| gatt::find(name).expect("a name of the table")).collect());
static ONLY: LazyLock<Option<usize>> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_DECODER").ok()?;
    Some(NAMES.iter().position(|known| *known == name).expect("FUZZ_DECODER names a decoder"))
});

const CRC: u8 = 1 << 0;
const KEY: u8 = 1 << 1;
const SEGMENTS: u8 = 1 << 2;

fuzz_target!(
    init: {
        if std::env::var_os("FUZZ_LIST").is_some() {
            NAMES.iter().for_each(|name| println!("{name}"));
            std::process::exit(0);
        }
        if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
            seeds::write(folder.as_ref(), &NAMES, [CRC, KEY, SEGMENTS]);
            std::process::exit(0);
        }
    },
    |data: &[u8]| {
        let [pick, told, octets @ ..] = data else { return };
        let at = ONLY.unwrap_or(usize::from(*pick) % NAMES.len());
        let segments = if told & SEGMENTS != 0 { pieces(octets) } else { vec![octets] };
        one(NAMES[at], DECODERS[at], &segments, &context(*told));
    }
);

fn one(name: &str, decoder: Decoder, segments: &[&[u8]], context: &Context) {
    let octets: usize = segments.iter().map(|segment| segment.len()).sum();
    let before = allocated();
    let lenient = decoder.decode(segments, context, false);
    let taken = allocated() - before;
    assert!(taken <= FOR_ANY + PER_OCTET * octets, "{name}: {taken} octets of memory for {octets}");
    let strict = decoder.decode(segments, context, true);
    if let [octets] = segments {
        observed(name, decoder, octets, context, lenient.is_ok());
    }
    let Ok(decoded) = lenient else {
        assert!(strict.is_err(), "{name}: strict is never the milder one");
        return;
    };
    assert!(decoded.warnings.len() <= Warning::ALL.len());
    assert_eq!(strict.is_ok(), decoded.warnings.is_empty(), "{name}");
    let shown = serde_json::to_string(&decoded).expect("plain data");
    assert!(shown.len() <= FOR_ANY + PER_OCTET * octets, "{name}: {} characters for {octets} octets", shown.len());
}

fn observed(name: &str, decoder: Decoder, octets: &[u8], context: &Context, readable: bool) {
    let before = allocated();
    let Some(observed) = decoder.observe(octets, context) else { return };
    let taken = allocated() - before;
    assert!(taken <= FOR_ANY + PER_OCTET * octets.len(), "{name}: {taken} octets of memory for {}", octets.len());
    assert_eq!(observed.is_ok(), readable, "{name}: shown and observed by the same reading");
    if let Ok((records, _)) = observed {
        let values: usize = records.iter().map(|record| record.values.len()).sum();
        assert!(values <= octets.len(), "{name}: {values} values in {} octets", octets.len());
        for uuid in CHARACTERISTICS.iter().filter(|row| row.name == name).map(|row| row.uuid) {
            let _ = gatt::device_clock(uuid, octets);
        }
    }
}

fn context(told: u8) -> Context {
    let of_key = told & KEY != 0;
    Context {
        e2e_crc: told & CRC != 0,
        key: of_key.then_some(seeds::KEY),
        mac: of_key.then_some(seeds::MAC),
        measures: of_key.then_some(Metric::BodyTemperature),
    }
}

/// A length, then so many octets, as long as there are any.
fn pieces(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = octets.split_first() {
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces
}
