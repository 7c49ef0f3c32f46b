//! No text makes the reader of profiles panic, and no octets a profile that was read: what the text came to, or one of bedrail's
//! own, picked by the first octet. The octets come as a frame, and cut into packets.

#![no_main]

use std::sync::LazyLock;

use bedrail::profile::{Assembly, MAX_FRAME, Profile, SHIPPED, Source};
use bedrail::reading::BootMillis;
use libfuzzer_sys::fuzz_target;

static OWN: LazyLock<Vec<Profile>> =
    LazyLock::new(|| SHIPPED.iter().map(|(file, text)| Profile::read(text, file).expect("it is right")).collect());

fuzz_target!(|input: &[u8]| {
    let Some((pick, octets)) = input.split_first() else { return };
    let read = std::str::from_utf8(input).ok().and_then(|text| Profile::read(text, "fuzz.toml").ok());
    let profile = read.as_ref().unwrap_or(&OWN[usize::from(*pick) % OWN.len()]);
    let mut assembly = Assembly::new(profile);
    for frame in &profile.frames {
        says_no_more_than_its_fields(profile, &frame.source, octets);
        for packet in octets.chunks(1 + usize::from(*pick) / OWN.len()) {
            let Some(assembled) = assembly.push(BootMillis(0), &frame.source, packet) else { break };
            for whole in assembled.frames {
                assert!(whole.len() <= MAX_FRAME);
                says_no_more_than_its_fields(profile, &frame.source, &whole);
            }
        }
    }
});

fn says_no_more_than_its_fields(profile: &Profile, source: &Source, octets: &[u8]) {
    if let Some(Ok((records, _))) = profile.observe(source, octets) {
        let most = profile.frames.iter().map(|frame| frame.fields.len()).max().unwrap_or(0);
        assert!(records.iter().all(|record| record.values.len() <= most));
    }
}
