//! Tests of a profile, written from what a device told: its octets, and what the profile reads in them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::packets::{Assembled, Assembly};
use super::{Profile, Shown, Source, Trial};
use crate::hex;
use crate::reading::BootMillis;

/// Different values are worth a test each; a stream soon repeats what can be learned from it.
const MAX_TESTS: usize = 64;
/// Of a stream whose frames seldom end with a packet, a test would have no end.
const MAX_PACKETS: usize = 16;
/// Half a frame, as when the recording began in the middle of one, shows nothing.
const HALF: &str = "segment_error";

/// Takes in what a device tells, packet by packet.
pub struct Draft<'p> {
    profile: &'p Profile,
    assembly: Assembly,
    /// Packets of a frame that is not complete.
    open: Vec<(Source, Vec<Vec<u8>>)>,
    known: BTreeSet<Vec<Vec<u8>>>,
    blocks: Vec<String>,
    /// Of what came there is no test.
    pub left_out: usize,
    /// Values of characteristics without a frame.
    pub foreign: BTreeSet<String>,
}

impl<'p> Draft<'p> {
    pub fn new(profile: &'p Profile) -> Self {
        let (assembly, known) = (Assembly::new(profile), BTreeSet::new());
        Self { profile, assembly, open: Vec::new(), known, blocks: Vec::new(), left_out: 0, foreign: BTreeSet::new() }
    }

    pub fn take(&mut self, at: BootMillis, source: &Source, packet: Vec<u8>) {
        if !self.profile.frames.iter().any(|frame| frame.source == *source) {
            self.foreign.insert(source.to_string());
            return;
        }
        let Some(Assembled { .. }) = self.assembly.push(at, source, &packet) else {
            return self.test(source, vec![packet]);
        };
        let mut packets = self.take_open(source);
        packets.push(packet);
        if packets.len() > MAX_PACKETS {
            self.left_out += 1;
            self.assembly = Assembly::new(self.profile);
        } else if self.assembly.is_open(source) {
            self.open.push((source.clone(), packets));
        } else {
            self.test(source, packets);
        }
    }

    /// The tests as TOML, oldest first.
    pub fn text(&self) -> String {
        self.blocks.join("\n")
    }

    pub fn tests(&self) -> usize {
        self.blocks.len()
    }

    fn take_open(&mut self, source: &Source) -> Vec<Vec<u8>> {
        let at = self.open.iter().position(|(of, _)| of == source);
        at.map(|at| self.open.swap_remove(at).1).unwrap_or_default()
    }

    fn test(&mut self, source: &Source, packets: Vec<Vec<u8>>) {
        if self.known.contains(&packets) {
            return;
        }
        if self.blocks.len() >= MAX_TESTS {
            self.left_out += 1;
            return;
        }
        self.known.insert(packets.clone());
        let trial = Trial { line: 0, source: source.clone(), packets, expect: None, error: None };
        match trial.said(self.profile) {
            Err(HALF) => self.left_out += 1,
            said => self.blocks.push(block(&trial, &said)),
        }
    }
}

fn block(trial: &Trial, said: &Result<Vec<Shown>, &str>) -> String {
    let encoded: Vec<String> = trial.packets.iter().map(|packet| format!("\"{}\"", hex::encode(packet))).collect();
    let octets = match &encoded[..] {
        [one] => format!("hex = {one}"),
        several => format!("segments = [{}]", several.join(", ")),
    };
    let mut text = format!("[[test]]\nsource = \"{}\"\n{octets}\n", trial.source);
    let _ = match said {
        Err(error) => writeln!(text, "error = \"{error}\""),
        Ok(said) if said.is_empty() => writeln!(text, "expect = {{}}"),
        Ok(said) => {
            let pairs: Vec<String> = said.iter().map(|shown| format!("\"{}\" = \"{}\"", shown.code, shown.value)).collect();
            writeln!(text, "expect = {{ {} }}", pairs.join(", "))
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_told_becomes_tests_that_the_profile_passes() {
        let text = include_str!("../../config/profiles/viatom-o2ring.toml");
        let profile = Profile::read(text, "p").unwrap();
        let source = profile.frames[0].source.clone();
        let mut draft = Draft::new(&profile);
        let mut told = |hex: &str| draft.take(BootMillis(0), &source, hex::decode(hex).unwrap());
        told("5500ff00000d00613f0000000000580003000000");
        told("32");
        told("5500ff00000d000000ff0000000058000000000072");
        told("5500ff00000d000000ff0000000058000000000072");
        told("5500ff00000d000000ff0000000058000000000073");
        draft.take(BootMillis(0), &source, vec![0x63; 8]);
        draft.take(BootMillis(0), &Source::Manufacturer(1), vec![1]);
        assert_eq!((draft.tests(), draft.left_out, draft.foreign.len()), (3, 1, 1));
        let tests = draft.text();
        assert!(
            tests.contains("segments = [\"5500ff00000d00613f0000000000580003000000\", \"32\"]\nexpect = { \"spo2\" = \"97\",")
        );
        assert!(tests.contains("error = \"crc_mismatch\""));
        let with = Profile::read(&format!("{text}\n{tests}"), "p").unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(with.trials.len(), profile.trials.len() + 3);
    }
}
