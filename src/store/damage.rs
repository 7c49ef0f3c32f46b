//! What a salvage reports, kept in the file it is about until somebody has read it.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// The newest acknowledged-or-not reports a store keeps.
const MAX_REPORTS: usize = 16;
const DAMAGED: &str = "damaged";
const WARD_DAMAGED: &str = "ward_damaged";
const ROUTES_LOST: &str = "routes_lost";
const INCOMPLETE: &str = "incomplete";

/// One salvage, as `status` and `store stats` tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// `bedrail.db` or `ward.db`.
    pub file: String,
    /// Wall time by the gateway's clock then, RFC 3339.
    pub at: String,
    /// Where the damaged file lies now.
    pub set_aside: String,
    /// Records (of the log) or events (of the ward) that were read.
    pub kept: u64,
    /// Those that were given a number and can't be read.
    pub missing: u64,
    /// Their runs, first and last, the first of them.
    pub runs: Vec<(u64, u64)>,
    /// Tables of which something could not be read.
    pub tables: Vec<String>,
    /// More than these may be missing behind the last record: their numbers are mentioned nowhere.
    pub end_unknown: bool,
    /// Every route sends everything again, because what it had settled could not be read.
    pub sends_again: bool,
}

impl Damage {
    /// One line for people.
    pub fn summary(&self) -> String {
        let Self { file, at, set_aside, kept, missing, .. } = self;
        let what = if file == super::WARD_FILE { "events" } else { "records" };
        let least = if self.end_unknown { "at least " } else { "" };
        let again = if self.sends_again { ", every route sends again what there is" } else { "" };
        format!("{file} was damaged ({at}): {kept} {what} kept, {least}{missing} missing{again}; the old file is {set_aside}")
    }
}

pub(super) fn report(connection: &Connection, damage: &Damage) -> Result<(), StoreError> {
    add_report(connection, DAMAGED, damage)
}

pub(super) fn routes_are_lost(connection: &Connection) -> Result<(), StoreError> {
    set_meta(connection, ROUTES_LOST, &[1])
}

pub(super) fn routes_were_lost(connection: &Connection) -> Result<bool, StoreError> {
    Ok(meta(connection, ROUTES_LOST)?.is_some())
}

pub(super) fn routes_are_known(connection: &Connection) -> Result<(), StoreError> {
    remove_meta(connection, ROUTES_LOST)
}

pub(super) fn ward_lost_events(connection: &Connection) -> Result<(), StoreError> {
    set_meta(connection, INCOMPLETE, &[1])
}

/// Events of the ward are missing and nobody has seen to it yet.
pub(super) fn ward_is_incomplete(connection: &Connection) -> Result<bool, StoreError> {
    Ok(meta(connection, INCOMPLETE)?.is_some())
}

pub(super) fn ward_is_seen_to(connection: &Connection) -> Result<(), StoreError> {
    remove_meta(connection, INCOMPLETE)
}

/// All that nobody has acknowledged, of both files.
pub(super) fn all(connection: &Connection) -> Result<Vec<Damage>, StoreError> {
    let mut all = reports(connection, DAMAGED)?;
    all.extend(reports(connection, WARD_DAMAGED)?);
    Ok(all)
}

pub(super) fn acknowledge(connection: &Connection) -> Result<(), StoreError> {
    remove_meta(connection, DAMAGED)?;
    remove_meta(connection, WARD_DAMAGED)
}

/// What befell `ward.db` is told where both halves can read it.
pub(super) fn hand_over(ward: &Connection, log: &Connection) -> Result<(), StoreError> {
    for damage in reports(ward, DAMAGED)? {
        add_report(log, WARD_DAMAGED, &damage)?;
    }
    remove_meta(ward, DAMAGED)
}

fn reports(connection: &Connection, name: &str) -> Result<Vec<Damage>, StoreError> {
    Ok(meta(connection, name)?.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
}

fn add_report(connection: &Connection, name: &str, damage: &Damage) -> Result<(), StoreError> {
    let mut all = reports(connection, name)?;
    if !all.contains(damage) {
        all.push(damage.clone());
    }
    let newest = &all[all.len().saturating_sub(MAX_REPORTS)..];
    let text = serde_json::to_vec(newest).expect("a report is plain data");
    set_meta(connection, name, &text)
}

fn meta(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

fn set_meta(connection: &Connection, name: &str, value: &[u8]) -> Result<(), StoreError> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", params![name, value])?;
    Ok(())
}

fn remove_meta(connection: &Connection, name: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM meta WHERE name = ?", [name])?;
    Ok(())
}
