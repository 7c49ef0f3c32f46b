//! No text makes the reader of profiles panic, and no octets a profile that was read: bedrail's own, picked by the first octet,
//! or whatever the text came to.

#![no_main]

use std::sync::LazyLock;

use bedrail::profile::{Profile, SHIPPED};
use libfuzzer_sys::fuzz_target;

static OWN: LazyLock<Vec<Profile>> =
    LazyLock::new(|| SHIPPED.iter().map(|(file, text)| Profile::read(text, file).expect("it is right")).collect());

fuzz_target!(|input: &[u8]| {
    let Some((pick, octets)) = input.split_first() else { return };
    let read = std::str::from_utf8(octets).ok().and_then(|text| Profile::read(text, "fuzz.toml").ok());
    let profile = read.as_ref().unwrap_or(&OWN[usize::from(*pick) % OWN.len()]);
    for frame in &profile.frames {
        if let Some(Ok((records, _))) = profile.observe(&frame.source, octets) {
            let most = profile.frames.iter().map(|frame| frame.fields.len()).max().unwrap_or(0);
            assert!(records.iter().all(|record| record.values.len() <= most));
        }
    }
});
