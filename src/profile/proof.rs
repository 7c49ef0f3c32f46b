//! A profile's own tests: octets of a device, and what they say.

use std::collections::BTreeMap;

use super::frame::{self, Frame, Source};
use crate::clean::{Outcome, classify};
use crate::gatt::Observed;
use crate::reading::{Class, OutOfRange, Value};

#[derive(Clone, Debug)]
pub struct Trial {
    /// In the file.
    pub line: usize,
    pub source: Source,
    pub octets: Vec<u8>,
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
    pub fn run(&self, frames: &[Frame]) -> Verdict {
        let read = match frame::observe(frames, &self.source, &self.octets) {
            None => return Verdict { said: Vec::new(), outcome: Err(format!("no frame is of {}; mend `source`", self.source)) },
            Some(read) => read,
        };
        let said = read.as_ref().map(|(records, _)| shown(records)).unwrap_or_default();
        let outcome = match (read, &self.expect, &self.error) {
            (Ok(_), Some(expect), _) => compare(&said, expect),
            (Ok(_), None, error) => {
                Err(format!("it can be read; expected was the error `{}`", error.as_deref().unwrap_or_default()))
            }
            (Err(error), _, Some(expected)) if error.name() == expected => Ok(()),
            (Err(error), _, _) => Err(format!("it ends in the error `{}`: {error}", error.name())),
        };
        Verdict { said, outcome }
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
