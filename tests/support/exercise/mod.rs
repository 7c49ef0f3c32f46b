//! Scripts of the store, for cutting them short anywhere. Each step is one transaction (or none) and has two sides: what it
//! does to a real store, and what it does to a plain model of one. Whatever is left after a kill or a power cut must be the
//! model after the last step that returned `Ok`, or after the one step that was under way: never less, never a mixture.
//!
//! Included by path from the example `exercise_store` and from the tests that cut it.

#![allow(dead_code, unused_imports, reason = "each includer uses a part of it")]

mod given;
mod program;
mod promise;
mod state;
mod values;

use std::path::Path;

use bedrail::reading::{Record, Seq};
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Store, StoreError, WardStore, check, prepare};

pub use given::{Given, read, write};
use program::Exerciser;
use promise::digest_of;
pub use promise::{Promise, promises};
use state::{State, look};
use values::{GATEWAY, LOG_KEY, PROBE, STRAP, WARD_KEY, arrival, at_once, site_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// From an empty directory, through everything a store does in a day.
    Day,
    /// From a store of the older schema.
    Migration,
    /// From the same, with its last commits still in its write-ahead log.
    MigrationWithLog,
    /// From a store of which a page of the log and one of the ward are bad, and which a half called suspect.
    Salvage,
}

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
    /// Retention: frames go, settled and owed ones, and their gap records come.
    Evict,
    /// The route meets what it owed and is gone.
    SettleEvicted,
    Reopen,
    CommitAfterReopen,
    /// The route sends the oldest it owes.
    Deliver,
    Close,
}

impl Script {
    pub const ALL: [Self; 4] = [Self::Day, Self::Migration, Self::MigrationWithLog, Self::Salvage];

    pub const fn steps(self) -> &'static [Step] {
        match self {
            Self::Day => &[
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
                Step::Evict,
                Step::SettleEvicted,
                Step::Reopen,
                Step::CommitAfterReopen,
                Step::Deliver,
                Step::Close,
            ],
            // What they begin with is brought up by the first step; the others show that it goes on from there.
            Self::Migration | Self::MigrationWithLog | Self::Salvage => {
                &[Step::Prepare, Step::Open, Step::CommitOne, Step::Deliver, Step::Close]
            }
        }
    }
}

/// Runs a script in a directory that holds what it begins with, and tells `done` of each step once it has returned `Ok`.
pub fn run(script: Script, dir: &Path, mut done: impl FnMut(&Promise)) -> Result<(), (Step, StoreError)> {
    let mut exerciser = Exerciser::new(dir);
    for step in script.steps() {
        let promise = exerciser.perform(*step).map_err(|error| (*step, error))?;
        done(&promise);
    }
    Ok(())
}

/// What a start does after a kill: opens what is left, and goes on.
pub fn recover(dir: &Path) -> Result<(), String> {
    opened(dir)?;
    Ok(())
}

/// Opens what is left as the daemon would, and holds it against what a script began with and what was promised since.
pub fn verify(dir: &Path, given: &Given, promised: &[Promise]) -> Result<(), String> {
    let steps = given.script.steps();
    if promised.iter().map(|promise| &promise.step).ne(steps.iter().take(promised.len())) {
        return Err(format!("promises out of order: {promised:?}"));
    }
    given.is_somewhere_in(dir)?;
    let (found, records) = opened(dir)?;
    given.is_set_aside_in(dir)?;
    let before = given.state.after(&steps[..promised.len()]);
    let after = given.state.after(&steps[..steps.len().min(promised.len() + 1)]);
    if found != before && found != after {
        return Err(format!(
            "neither the state after {:?} nor after the step that followed: {}",
            promised.last().map(|promise| promise.step),
            before.difference(&found)
        ));
    }
    if let Some((seq, _)) =
        given.records.iter().find(|(seq, record)| found.holds(*seq) && !records.contains(&(*seq, record.clone())))
    {
        return Err(format!("record {seq} was there before and is another now"));
    }
    for promise in promised.iter().filter(|promise| found.holds(promise.first)) {
        let run = records.iter().filter(|(seq, _)| promise.first <= *seq && *seq <= promise.last);
        if digest_of(run.map(|(_, record)| record)) != promise.digest {
            return Err(format!("records of {promise} are not there as they were promised"));
        }
    }
    let findings = check(dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY), &site_key(), &mut |_| {});
    match findings.map_err(|error| format!("check: {error}"))?.into_iter().find(|finding| finding.is_damage()) {
        Some(finding) => Err(format!("store check: {finding:?}")),
        None => Ok(()),
    }
}

type Seen = (State, Vec<(Seq, Record)>);

/// Prepares and opens a store, says what it holds, and appends to it.
fn opened(dir: &Path) -> Result<Seen, String> {
    let failed = |what: &'static str| move |error: StoreError| format!("{what}: {error}");
    prepare(dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY)).map_err(failed("prepare"))?;
    let (mut store, ward) = open(dir).map_err(failed("open"))?;
    let seen = look(&store, &ward).map_err(failed("read"))??;
    takes_more(&mut store, &seen.1).map_err(failed("append"))??;
    Ok(seen)
}

/// A store that opened also goes on: new numbers, and what a device sends again is known as long as it is in the log.
fn takes_more(store: &mut Store, records: &[(Seq, Record)]) -> Result<Result<(), String>, StoreError> {
    let head = store.head()?;
    let appended = store.append(vec![Draft { device: PROBE, stream: None, ..arrival(STRAP, 0) }])?;
    let Some(Some((seq, id))) = appended.records.first().copied() else { return Ok(Err("a new record was refused".into())) };
    if seq <= head || records.iter().any(|(known, record)| *known >= seq || record.id == id) {
        return Ok(Err(format!("number {seq} was given twice")));
    }
    let known = at_once().iter().filter(|(id, _)| records.iter().any(|(_, record)| record.id == *id)).count();
    let again = store.append(at_once().into_iter().map(|(_, draft)| Draft { device: PROBE, ..draft }).collect())?;
    if again.duplicates as usize != known {
        return Ok(Err(format!("of what the cuff sends again {known} are in the log and {} are known", again.duplicates)));
    }
    Ok(Ok(()))
}

fn open(dir: &Path) -> Result<(Store, WardStore), StoreError> {
    Ok((
        Store::open(dir, &DataKey::new(LOG_KEY), site_key(), GATEWAY)?,
        WardStore::open(&dir.join(bedrail::store::WARD_FILE), &DataKey::new(WARD_KEY))?,
    ))
}
