//! The first octet picks the characteristic, the rest is its value: nothing a device sends may make a decoder panic.
//! `cargo +nightly fuzz run characteristic`

#![no_main]

use bedrail::gatt::{self, CHARACTERISTICS, Context, Warning};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((pick, octets)) = data.split_first() else { return };
    let row = &CHARACTERISTICS[usize::from(*pick) % CHARACTERISTICS.len()];
    let lenient = gatt::decode(row.uuid, &[octets], &Context::default(), false);
    let strict = gatt::decode(row.uuid, &[octets], &Context::default(), true);
    if let Some(observed) = gatt::observe(row.uuid, octets) {
        assert_eq!(observed.is_ok(), lenient.is_ok(), "{}: shown and observed by the same reading", row.name);
    }
    let Ok(decoded) = lenient else {
        assert!(strict.is_err(), "{}: strict is never the milder one", row.name);
        return;
    };
    assert!(decoded.warnings.len() <= Warning::ALL.len());
    assert_eq!(strict.is_ok(), decoded.warnings.is_empty());
    serde_json::to_string(&decoded).expect("plain data");
    let _ = gatt::device_clock(row.uuid, octets);
});
