//! The types all values are made of: SFLOAT, FLOAT and Date Time. `cargo +nightly fuzz run number`

#![no_main]

use bedrail::gatt::{self, Context};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    for name in ["medfloat16", "medfloat32", "date_time"] {
        let decoder = gatt::find(name).expect("a name of the table");
        if let Ok(decoded) = decoder.decode(&[octets], &Context::default(), false) {
            serde_json::to_string(&decoded).expect("plain data");
        }
    }
});
