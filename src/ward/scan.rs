//! A scan station: a patient's wristband, then the label of a device, and the device measures that patient. Pure: codes and
//! times come in, what is to be done goes out. A wristband speaks for one device and not for long: whoever comes next scans
//! their own patient first.

use std::time::Duration;

use regex::Regex;

use super::Phi;
use crate::reading::SubjectKey;

/// No code of a wristband or a label is longer.
pub const MAX_CODE: usize = 128;
/// A scanner may read one label twice before the hand is off the trigger.
const REPEATED: Duration = Duration::from_secs(3);

/// How the codes of this site look.
#[derive(Clone, Debug)]
pub struct CodeFormats {
    /// With a group `visit` (a visit's number, of which the key is made) or `key` (the patient's key itself).
    pub patient: Regex,
    /// With a group `asset` or `name`: what the label of a device says of it.
    pub device: Regex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    Visit(Phi<String>),
    Key(Phi<String>),
    /// The label of a device: its inventory number, or its name.
    Asset(String),
    Name(String),
    Other,
}

impl CodeFormats {
    pub fn read(&self, code: &str) -> Code {
        let code = code.trim();
        if code.len() > MAX_CODE {
            return Code::Other;
        }
        if let Some(found) = self.patient.captures(code) {
            let group = |name| found.name(name).map(|group| Phi::new(group.as_str().to_owned()));
            return group("visit").map(Code::Visit).or_else(|| group("key").map(Code::Key)).unwrap_or(Code::Other);
        }
        let found = self.device.captures(code);
        let group = |name| Some(found.as_ref()?.name(name)?.as_str().to_owned());
        group("asset").map(Code::Asset).or_else(|| group("name").map(Code::Name)).unwrap_or(Code::Other)
    }
}

/// What was scanned, as far as the ward knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    Patient(SubjectKey),
    /// A wristband of nobody here.
    Stranger,
    /// By its name.
    Device(String),
    /// A label of no device here.
    StrangeDevice,
    /// Neither a wristband nor a label.
    Other,
}

/// What a scan does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The wristband was read; the device is next.
    Waits,
    /// From now on the device measures this patient.
    Tie {
        device: String,
        patient: SubjectKey,
    },
    /// A device without a wristband before it: whoever it measured by a scan, it no longer does. `late`: there was a
    /// wristband, too long ago.
    Release {
        device: String,
        late: bool,
    },
    /// The same label again at once: nothing.
    Again,
    Refused(Scanned),
}

#[derive(Clone, Debug, Default)]
pub struct Station {
    wristband: Option<(SubjectKey, Duration)>,
    last_tied: Option<(String, Duration)>,
}

impl Station {
    /// `now` counts from any moment; a wristband waits for its device as long as `within`.
    pub fn scan(&mut self, scanned: Scanned, now: Duration, within: Duration) -> Step {
        match scanned {
            Scanned::Patient(patient) => {
                self.wristband = Some((patient, now));
                Step::Waits
            }
            Scanned::Stranger => {
                // Whoever is scanned next is not the one before.
                self.wristband = None;
                Step::Refused(Scanned::Stranger)
            }
            Scanned::Device(device) => self.device(device, now, within),
            other @ (Scanned::StrangeDevice | Scanned::Other) => Step::Refused(other),
        }
    }

    fn device(&mut self, device: String, now: Duration, within: Duration) -> Step {
        let wristband = self.wristband.take();
        let late = wristband.is_some();
        match wristband.filter(|(_, read)| now.saturating_sub(*read) <= within) {
            Some((patient, _)) => {
                self.last_tied = Some((device.clone(), now));
                Step::Tie { device, patient }
            }
            None => match &self.last_tied {
                Some((last, at)) if !late && *last == device && now.saturating_sub(*at) <= REPEATED => Step::Again,
                _ => Step::Release { device, late },
            },
        }
    }

    /// Nothing would be lost by forgetting it.
    pub fn is_idle(&self, now: Duration, within: Duration) -> bool {
        let waits = |(_, at): &(SubjectKey, Duration)| now.saturating_sub(*at) <= within;
        let repeats = |(_, at): &(String, Duration)| now.saturating_sub(*at) <= REPEATED;
        !self.wristband.as_ref().is_some_and(waits) && !self.last_tied.as_ref().is_some_and(repeats)
    }
}

/// Codes out of what a scanner on a serial line sends: each ends with CR, LF or both.
#[derive(Debug, Default)]
pub struct CodeReader {
    code: Vec<u8>,
    too_long: bool,
}

impl CodeReader {
    /// The codes that these octets end. One that is too long or no text is `None`.
    pub fn take(&mut self, octets: &[u8]) -> Vec<Option<Phi<String>>> {
        let mut codes = Vec::new();
        for octet in octets {
            match octet {
                b'\r' | b'\n' | 0x03 => {
                    let (code, too_long) = (std::mem::take(&mut self.code), std::mem::take(&mut self.too_long));
                    if too_long {
                        codes.push(None);
                    } else if !code.is_empty() {
                        codes.push(String::from_utf8(code).ok().map(Phi::new));
                    }
                }
                // STX, and what a line sends when it is opened.
                0x00 | 0x02 => {}
                _ if self.code.len() >= MAX_CODE => self.too_long = true,
                octet => self.code.push(*octet),
            }
        }
        codes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    fn formats() -> CodeFormats {
        let pattern = |text| Regex::new(text).expect("a pattern");
        CodeFormats {
            patient: pattern("^(?<visit>V[0-9]{8}-[0-9]+)$|^PAT:(?<key>.+)$"),
            device: pattern("^(?<asset>BME-[0-9]{5})$|^dev:(?<name>.+)$"),
        }
    }

    fn patient(key: &str) -> Scanned {
        Scanned::Patient(key.parse().expect("a key"))
    }

    fn device(name: &str) -> Scanned {
        Scanned::Device(name.to_owned())
    }

    fn tie(name: &str, key: &str) -> Step {
        Step::Tie { device: name.to_owned(), patient: key.parse().expect("a key") }
    }

    fn release(name: &str, late: bool) -> Step {
        Step::Release { device: name.to_owned(), late }
    }

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn codes_are_told_apart_by_the_formats_of_the_site() {
        let read = |code: &str| formats().read(code);
        assert_eq!(read(" V26004711-1\t"), Code::Visit(Phi::new("V26004711-1".into())));
        assert_eq!(read("PAT:p-017"), Code::Key(Phi::new("p-017".into())));
        assert_eq!(read("BME-00731"), Code::Asset("BME-00731".into()));
        assert_eq!(read("dev:cuff"), Code::Name("cuff".into()));
        assert_eq!([read("BME-731"), read(""), read(&"V".repeat(MAX_CODE + 1))], [Code::Other, Code::Other, Code::Other]);
    }

    #[test]
    fn a_wristband_then_a_device_ties_them_and_a_wristband_speaks_once() {
        let mut station = Station::default();
        assert_eq!(station.scan(patient("p-a"), at(0), WITHIN), Step::Waits);
        assert_eq!(station.scan(Scanned::Other, at(1), WITHIN), Step::Refused(Scanned::Other));
        assert_eq!(station.scan(device("cuff"), at(30), WITHIN), tie("cuff", "p-a"));
        assert_eq!(station.scan(device("cuff"), at(32), WITHIN), Step::Again, "the trigger was held");
        assert_eq!(station.scan(device("oxi"), at(33), WITHIN), release("oxi", false), "never the last patient");
        assert_eq!(station.scan(device("cuff"), at(40), WITHIN), release("cuff", false));
    }

    #[test]
    fn a_wristband_too_long_ago_or_of_a_stranger_ties_nothing() {
        let mut station = Station::default();
        station.scan(patient("p-a"), at(0), WITHIN);
        assert_eq!(station.scan(device("cuff"), at(31), WITHIN), release("cuff", true));
        station.scan(patient("p-a"), at(40), WITHIN);
        station.scan(patient("p-b"), at(41), WITHIN);
        assert_eq!(station.scan(device("cuff"), at(42), WITHIN), tie("cuff", "p-b"), "the last wristband counts");
        station.scan(patient("p-a"), at(50), WITHIN);
        assert_eq!(station.scan(Scanned::Stranger, at(51), WITHIN), Step::Refused(Scanned::Stranger));
        assert_eq!(station.scan(device("cuff"), at(55), WITHIN), release("cuff", false), "not of the one before the stranger");
        assert!(station.is_idle(at(55), WITHIN));
    }

    #[test]
    fn codes_come_out_of_a_line_however_it_is_cut() {
        let mut reader = CodeReader::default();
        let mut codes = reader.take(b"\x02V26004");
        codes.extend(reader.take(b"711-1\r"));
        codes.extend(reader.take(b"\nBME-00731\r\n\r\n"));
        codes.extend(reader.take(&[b'x'; MAX_CODE + 1]));
        codes.extend(reader.take(b"x\r\xFF\xFE\rok\r"));
        let codes: Vec<_> = codes.iter().map(|code| code.as_ref().map(|code| code.expose().as_str())).collect();
        assert_eq!(codes, [Some("V26004711-1"), Some("BME-00731"), None, None, Some("ok")]);
    }

    proptest! {
        /// Whatever is scanned in whatever order: a device is tied only to the last wristband before it, read in time, with no
        /// other device in between.
        #[test]
        fn a_device_is_tied_only_to_the_wristband_right_before_it(scans in prop::collection::vec((0u8..7, 0u64..25), 0..60)) {
            let mut station = Station::default();
            let (mut now, mut wristband) = (0, None);
            for (what, later) in scans {
                now += later;
                let scanned = match what {
                    0 | 1 => patient(["p-a", "p-b"][usize::from(what)]),
                    2 | 3 => device(["cuff", "oxi"][usize::from(what) - 2]),
                    4 => Scanned::Stranger,
                    5 => Scanned::StrangeDevice,
                    _ => Scanned::Other,
                };
                let step = station.scan(scanned.clone(), at(now), WITHIN);
                let expected = match &scanned {
                    Scanned::Device(_) => wristband.take().filter(|(_, read)| now - read <= 30).map(|(key, _)| key),
                    _ => None,
                };
                let tied = match &step { Step::Tie { patient, .. } => Some(patient.clone()), _ => None };
                prop_assert_eq!(tied, expected);
                match scanned {
                    Scanned::Patient(key) => wristband = Some((key, now)),
                    Scanned::Stranger => wristband = None,
                    _ => {}
                }
            }
        }

        #[test]
        fn no_octets_make_the_reader_panic_or_grow(octets in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut reader = CodeReader::default();
            for code in octets.chunks(7).flat_map(|part| reader.take(part)).flatten() {
                prop_assert!(code.expose().len() <= MAX_CODE);
            }
            prop_assert!(reader.code.len() <= MAX_CODE);
        }
    }
}
