//! Tables of facts that tests hold the code against, read from this directory.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use bedrail::reading::Site;

/// Every site there is.
pub const SITES: &[Site] = &[
    Site::Armpit,
    Site::Body,
    Site::Ear,
    Site::Finger,
    Site::GastroIntestinalTract,
    Site::Mouth,
    Site::Rectum,
    Site::Toe,
    Site::Tympanum,
    Site::CapillaryWholeBlood,
    Site::CapillaryPlasma,
    Site::VenousWholeBlood,
    Site::VenousPlasma,
    Site::ArterialWholeBlood,
    Site::ArterialPlasma,
    Site::UndeterminedWholeBlood,
    Site::UndeterminedPlasma,
];

pub type Fact = BTreeMap<String, String>;

/// The rows of a CSV file, by the names of its columns.
pub fn table(name: &str) -> Vec<Fact> {
    let text = file(name);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a table of facts")
}

pub fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/facts").join(name)).expect("a table of facts")
}
