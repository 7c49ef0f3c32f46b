//! A scripted day of the store, for cutting it short anywhere. Each step is one transaction (or none) and has two sides:
//! what it does to a real store, and what it does to a plain model of one. Whatever is left after a kill or a power cut
//! must be the model after the last step that returned `Ok`, or after the one step that was under way: never less, never a
//! mixture.
//!
//! Included by path from the example `exercise_store` and from the tests that cut it.

#![allow(dead_code, reason = "each includer uses a part of it")]

mod program;
mod state;
mod values;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bedrail::reading::{Record, Seq};
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Store, StoreError, WardStore, prepare};
use ring::digest;

use program::Exerciser;
use state::{State, look};
use values::{CUFF, GATEWAY, LOG_KEY, PROBE, STRAP, WARD_KEY, arrival, at_once, site_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare,
    Open,
    Register,
    CommitOne,
    CommitBurst,
    CommitAtOnce,
    Anchor,
    Ack,
    Hold,
    Release,
    Bind,
    Refuse,
    Audit,
    Windows,
    Assign,
    Identify,
    Pause,
    Checkpoint,
    CommitOverOldLog,
    AmendWindow,
    Reopen,
    CommitAfterReopen,
    // A step for retention (frames and the runs they trim, with their gap record) and one for a migration belong here.
    Close,
}

pub const STEPS: [Step; 23] = [
    Step::Prepare,
    Step::Open,
    Step::Register,
    Step::CommitOne,
    Step::CommitBurst,
    Step::CommitAtOnce,
    Step::Anchor,
    Step::Ack,
    Step::Hold,
    Step::Release,
    Step::Bind,
    Step::Refuse,
    Step::Audit,
    Step::Windows,
    Step::Assign,
    Step::Identify,
    Step::Pause,
    Step::Checkpoint,
    Step::CommitOverOldLog,
    Step::AmendWindow,
    Step::Reopen,
    Step::CommitAfterReopen,
    Step::Close,
];

/// What a step that returned `Ok` promised: it stands, and so do these records, to the last octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub step: Step,
    first: u64,
    last: u64,
    digest: String,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DONE {:?} {}..={} {}", self.step, self.first, self.last, self.digest)
    }
}

impl FromStr for Promise {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let bad = || format!("not a promise: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["DONE", step, run, digest] = words.as_slice() else { return Err(bad()) };
        let step = STEPS.into_iter().find(|known| format!("{known:?}") == step).ok_or_else(bad)?;
        let (first, last) = run.split_once("..=").ok_or_else(bad)?;
        let number = |text: &str| text.parse().map_err(|_| bad());
        Ok(Self { step, first: number(first)?, last: number(last)?, digest: digest.to_owned() })
    }
}

/// The promises in what an exerciser printed; a last line that a kill cut short is none.
pub fn promises(output: &str) -> Vec<Promise> {
    output.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(|line| line.parse().ok()).collect()
}

/// Runs the script in an empty directory and tells `done` of each step once it has returned `Ok`.
pub fn run(dir: &Path, mut done: impl FnMut(&Promise)) -> Result<(), (Step, StoreError)> {
    let mut exerciser = Exerciser { dir, open: None, route: 0, model: State::default() };
    for step in STEPS {
        let promise = exerciser.perform(step).map_err(|error| (step, error))?;
        done(&promise);
    }
    Ok(())
}

/// Opens what is left as the daemon would, and holds it against what was promised.
pub fn verify(dir: &Path, promised: &[Promise]) -> Result<(), String> {
    if promised.iter().map(|promise| promise.step).ne(STEPS.into_iter().take(promised.len())) {
        return Err(format!("promises out of order: {promised:?}"));
    }
    let failed = |what: &'static str| move |error: StoreError| format!("{what}: {error}");
    prepare(dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY)).map_err(failed("prepare"))?;
    let (mut store, ward) = open(dir).map_err(failed("open"))?;
    let (found, records) = look(&store, &ward).map_err(failed("read"))??;
    for promise in promised {
        let run = records.iter().filter(|(seq, _)| (promise.first..=promise.last).contains(&seq.0));
        if digest_of(run.map(|(_, record)| record)) != promise.digest {
            return Err(format!("records of {promise} are not there as they were promised"));
        }
    }
    let before = State::after(&STEPS[..promised.len()]);
    let after = State::after(&STEPS[..STEPS.len().min(promised.len() + 1)]);
    if found != before && found != after {
        return Err(format!(
            "neither the state after {:?} nor after the step that followed: {}",
            promised.last().map(|promise| promise.step),
            before.difference(&found)
        ));
    }
    takes_more(&mut store, &found, &records).map_err(failed("append"))?
}

/// A store that opened also goes on: new numbers, and what a device sends again is known.
fn takes_more(store: &mut Store, found: &State, records: &[(Seq, Record)]) -> Result<Result<(), String>, StoreError> {
    let head = store.head()?;
    let appended = store.append(vec![Draft { device: PROBE, stream: None, ..arrival(STRAP, 0) }])?;
    let Some(Some((seq, id))) = appended.records.first().copied() else { return Ok(Err("a new record was refused".into())) };
    if seq <= head || records.iter().any(|(known, record)| *known >= seq || record.id == id) {
        return Ok(Err(format!("number {seq} was given twice")));
    }
    if found.records.iter().any(|record| record.device == CUFF) {
        let again = store.append(at_once())?;
        if again.duplicates as usize != at_once().len() {
            return Ok(Err("what the cuff sends again is taken for new".into()));
        }
    }
    Ok(Ok(()))
}

fn open(dir: &Path) -> Result<(Store, WardStore), StoreError> {
    Ok((
        Store::open(dir, &DataKey::new(LOG_KEY), site_key(), GATEWAY)?,
        WardStore::open(&dir.join(bedrail::store::WARD_FILE), &DataKey::new(WARD_KEY))?,
    ))
}

fn digest_of<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    records.for_each(|record| context.update(&postcard::to_stdvec(record).expect("a record is plain data")));
    bedrail::store::key::hex(&context.finish().as_ref()[..16])
}
