//! A profile's own tests: octets of a device, and what they say.

use std::collections::BTreeMap;

use super::Profile;
use super::frame::Source;
use super::packets::{Assembled, Assembly};
use crate::clean::{Outcome, classify};
use crate::gatt::{DecodeError, Observed, Read, SegmentFault};
use crate::reading::{BootMillis, Class, OutOfRange, Value};

#[derive(Clone, Debug)]
pub struct Trial {
    /// In the file.
    pub line: usize,
    pub source: Source,
    /// In the order in which they came.
    pub packets: Vec<Vec<u8>>,
    /// By code; `none` for a value that is none. Everything that is said must be here.
    pub expect: Option<BTreeMap<String, String>>,
    /// The name of the error there must be.
    pub error: Option<String>,
}

/// What a test showed.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub said: Vec<Shown>,
    /// Why it fails.
    pub outcome: Result<(), String>,
}

/// One value as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    pub code: String,
    pub value: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
}

impl Trial {
    /// What its octets say, or the name of the error they end in.
    pub fn said(&self, profile: &Profile) -> Result<Vec<Shown>, &'static str> {
        let mut said = Vec::new();
        for read in self.read(profile).into_iter().flatten() {
            match read {
                Ok((records, _)) => said.extend(shown(&records)),
                Err(error) => return Err(error.name()),
            }
        }
        Ok(said)
    }

    pub fn run(&self, profile: &Profile) -> Verdict {
        let mut said = Vec::new();
        for read in self.read(profile) {
            match read {
                None => return Verdict { said, outcome: Err(format!("no frame is of {}; mend `source`", self.source)) },
                Some(Ok((records, _))) => said.extend(shown(&records)),
                Some(Err(error)) => return Verdict { said, outcome: self.refused(&error) },
            }
        }
        let outcome = match (&self.expect, &self.error) {
            (Some(expect), _) => compare(&said, expect),
            (None, error) => Err(format!("it can be read; expected was the error `{}`", error.as_deref().unwrap_or_default())),
        };
        Verdict { said, outcome }
    }

    /// As a daemon reads it that hears nothing else of the device.
    fn read(&self, profile: &Profile) -> Vec<Option<Read<Vec<Observed>>>> {
        let mut assembly = Assembly::new(profile);
        let mut reads = Vec::new();
        for packet in &self.packets {
            let Some(Assembled { frames, fault }) = assembly.push(BootMillis(0), &self.source, packet) else {
                reads.push(profile.observe(&self.source, packet));
                continue;
            };
            reads.extend(fault.map(|fault| Some(Err(DecodeError::Segment(fault)))));
            reads.extend(frames.iter().map(|frame| profile.observe(&self.source, frame)));
        }
        if assembly.finish() > 0 {
            reads.push(Some(Err(DecodeError::Segment(SegmentFault::NoLast))));
        }
        reads
    }

    fn refused(&self, error: &DecodeError) -> Result<(), String> {
        if self.error.as_deref() == Some(error.name()) {
            return Ok(());
        }
        Err(format!("it ends in the error `{}`: {error}", error.name()))
    }
}

fn compare(said: &[Shown], expect: &BTreeMap<String, String>) -> Result<(), String> {
    for shown in said {
        match expect.get(&shown.code) {
            None => return Err(format!("it also says {} = \"{}\"; write that, or mend the frame", shown.code, shown.value)),
            Some(expected) if *expected != shown.value => {
                return Err(format!("{} is \"{}\", expected was \"{expected}\"", shown.code, shown.value));
            }
            Some(_) => {}
        }
    }
    match expect.keys().find(|code| !said.iter().any(|shown| shown.code == **code)) {
        Some(code) => Err(format!("it says nothing of {code}")),
        None => Ok(()),
    }
}

/// Everything that is said, in the order of the fields.
pub fn shown(records: &[Observed]) -> Vec<Shown> {
    records.iter().flat_map(of_record).collect()
}

fn of_record(observed: &Observed) -> Vec<Shown> {
    let mut said = Vec::new();
    let mut say = |code: String, value: String, unit, flags| said.push(Shown { code, value, unit, flags });
    for measured in &observed.values {
        let code = measured.metric.name();
        match classify(measured) {
            Outcome::Discard(reason) => say(code.to_owned(), reason.name().to_owned(), "", Vec::new()),
            Outcome::NoValue(_) => say(code.to_owned(), "none".to_owned(), "", Vec::new()),
            Outcome::Reading { value, class, flags } => {
                let flags: Vec<&'static str> = flags.iter().map(|flag| flag.name()).collect();
                match value {
                    Value::Number { value, unit } => say(code.to_owned(), value.to_string(), unit.ucum(), flags),
                    Value::NoNumber { unit } => {
                        let Class::OutOfRange(range) = class else { continue };
                        let range = if range == OutOfRange::Low { "low" } else { "high" };
                        say(code.to_owned(), range.to_owned(), unit.ucum(), flags);
                    }
                    Value::Compound { parts, unit } => {
                        let rows = measured.metric.row().components;
                        for (component, value) in parts {
                            let name = rows.iter().find(|row| row.component == component).map_or("", |row| row.name);
                            let value = value.map_or_else(|| "none".to_owned(), |value| value.to_string());
                            say(format!("{code}.{name}"), value, unit.ucum(), flags.clone());
                        }
                    }
                }
            }
        }
    }
    if let Some(time) = observed.device_time {
        say("time".to_owned(), time.to_string(), "", Vec::new());
    }
    if let Some(sequence) = observed.sequence {
        say("sequence".to_owned(), sequence.to_string(), "", Vec::new());
    }
    if let Some(user) = observed.user {
        say("user".to_owned(), user.to_string(), "", Vec::new());
    }
    said
}
