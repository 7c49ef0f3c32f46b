//! Salvage: what can be read of a damaged file goes into a new one, what can't is counted and becomes gap records, and the
//! damaged file is set aside as it was. Runs under the exclusive lock, inside `store prepare`.
//!
//! Two renames carry it over a crash at any point. The new file is built as `….salvage` and is worth nothing until it is
//! complete; then it is called `….salvaged-N`, and from there on [`finish`] sets aside what still lies in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::key::{self, DataKey};
use super::rescue::pages::{PAGE, Pages, beside};
use super::rescue::tree::{self, Lost, Reader, Row};
use super::runs::Runs;
use super::schema::{self, Database};
use super::{StoreError, db, frame, log, missing};
use crate::reading::{Body, Record, Seq};

/// The newest acknowledged-or-not reports a store keeps.
const MAX_REPORTS: usize = 16;
/// Runs of missing records a report lists; the gap records name all of them.
const MAX_RUNS: usize = 32;

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

/// Reads what is left of `path` into a new file and puts that into its place.
pub(super) fn salvage(path: &Path, key: &DataKey, which: Database) -> Result<Damage, StoreError> {
    let pages = Pages::open(path, key)?;
    if pages.is_none() && has_content(path) {
        // Not one page bears this key's code: that is another file's key sooner than rot.
        return Err(StoreError::Foreign { path: path.into() });
    }
    let number = free_number(path);
    let working = beside(path, ".salvage");
    discard(path)?;
    let mut new = db::create(&working, key)?;
    // It counts only when it is complete, so nothing protects it on the way there.
    new.pragma_update(None, "journal_mode", "OFF")?;
    new.pragma_update(None, "synchronous", "OFF")?;
    schema::bring_up(&mut new, which, &working)?;
    let mut damage = Damage {
        file: name_of(path),
        at: jiff::Timestamp::now().to_string(),
        set_aside: name_of(&beside(path, &format!(".damaged-{number}"))),
        ..Damage::default()
    };
    let mut rescue = Rescue { new: &mut new, which, lost: BTreeMap::new(), frames: Vec::new(), kept: 0 };
    rescue.tables(pages.as_ref())?;
    match which {
        Database::Log => rescue.log(pages.as_ref().is_none_or(|pages| pages.stale), &mut damage)?,
        Database::Ward => rescue.ward(&mut damage)?,
    }
    damage.tables = rescue.lost.keys().map(|table| (*table).to_owned()).collect();
    damage.kept = rescue.kept;
    add_report(&new, DAMAGED, &damage)?;
    new.close().map_err(|(_, error)| error)?;
    let sync = || -> std::io::Result<()> {
        File::open(&working)?.sync_all()?;
        std::fs::rename(&working, beside(path, &format!(".salvaged-{number}")))?;
        sync_directory(path)
    };
    sync().map_err(StoreError::io(&working))?;
    finish(path)?;
    Ok(damage)
}

/// Puts a salvaged file that is complete into its place, whatever a crash left half done.
pub(super) fn finish(path: &Path) -> Result<(), StoreError> {
    let Some((number, ready)) = siblings(path, ".salvaged-").into_iter().max() else { return Ok(()) };
    let step = || -> std::io::Result<()> {
        for suffix in ["-wal", "-shm", ""] {
            let (from, to) = (beside(path, suffix), beside(path, &format!(".damaged-{number}{suffix}")));
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        sync_directory(path)?;
        std::fs::rename(&ready, path)?;
        sync_directory(path)
    };
    step().map_err(StoreError::io(path))
}

/// Removes what an interrupted salvage had begun to build; nothing else knows of it.
pub(super) fn discard(path: &Path) -> Result<(), StoreError> {
    for suffix in [".salvage", ".salvage-wal", ".salvage-shm", ".salvage-journal"] {
        match std::fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::io(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

struct Rescue<'a> {
    new: &'a mut Connection,
    which: Database,
    /// What of which table could not be read.
    lost: BTreeMap<&'static str, Vec<Lost>>,
    /// First number and count of every frame that was read.
    frames: Vec<(u64, u64)>,
    kept: u64,
}

impl Rescue<'_> {
    fn tables(&mut self, pages: Option<&Pages>) -> Result<(), StoreError> {
        let shapes = self.which.shapes();
        let Some(pages) = pages else {
            self.lost = shapes.iter().map(|(table, _)| (*table, vec![(i64::MIN, i64::MAX)])).collect();
            return Ok(());
        };
        let mut reader = Reader::new(pages);
        let known = tree::roots(&mut reader);
        // A new file has its tables at the same roots: both were made by the same statements.
        let usual = self.roots_of_new()?;
        let tx = db::begin(self.new)?;
        for (table, shape) in shapes {
            let Some(root) = known.get(*table).or_else(|| usual.get(*table)) else { continue };
            let mut taker = Taker { tx: &tx, frames: &mut self.frames, bad: Vec::new(), failed: None };
            let mut lost = reader.walk(*root, &mut |row| taker.take(table, shape, row));
            lost.append(&mut taker.bad);
            if let Some(error) = taker.failed {
                return Err(error);
            }
            if !lost.is_empty() {
                self.lost.insert(table, lost);
            }
        }
        let wanted: Vec<_> =
            shapes.iter().filter(|(table, _)| self.lost.contains_key(table) && grows_only(self.which, table)).collect();
        if !wanted.is_empty() {
            let mut taker = Taker { tx: &tx, frames: &mut self.frames, bad: Vec::new(), failed: None };
            reader.strays(&mut |row| {
                if let Some((table, shape)) = wanted.iter().find(|(_, shape)| fits(shape, &row.1)) {
                    taker.take(table, shape, row);
                }
            });
            if let Some(error) = taker.failed {
                return Err(error);
            }
        }
        Ok(tx.commit()?)
    }

    fn roots_of_new(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        let mut statement = self.new.prepare("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn log(&mut self, stale: bool, damage: &mut Damage) -> Result<(), StoreError> {
        self.frames.sort_unstable();
        self.kept = self.frames.iter().map(|(_, n)| n).sum();
        let tx = db::begin(self.new)?;
        if self.lost.contains_key("stream") || self.lost.contains_key("amended") || stale {
            rebuild_from_frames(&tx)?;
        }
        let last = self.frames.last().map_or(0, |(first, n)| first + n - 1);
        let head = missing::mentioned(&tx)?.max(last);
        let missing = missing::missing(&self.frames, self.lost.get("frame").map_or(&[][..], Vec::as_slice), head, stale);
        let end_is_lost = stale || self.lost.get("frame").is_some_and(|lost| lost.iter().any(|(_, high)| *high == i64::MAX));
        if end_is_lost {
            // The last numbers may have been given to values nobody knows of any more: no id is minted from them again.
            tx.execute("INSERT OR REPLACE INTO meta VALUES('log', ?)", [key::random::<16>()?])?;
        }
        if stale || ["route", "pending", "held", "dead"].iter().any(|table| self.lost.contains_key(table)) {
            damage.sends_again = true;
            missing::owe_everything(&tx, head)?;
        }
        if self.lost.contains_key("route") {
            tx.execute("INSERT OR REPLACE INTO meta VALUES(?, x'01')", [ROUTES_LOST])?;
        }
        damage.end_unknown = end_is_lost;
        missing::note_missing(&tx, &self.frames, &missing, Seq(head + 1), end_is_lost)?;
        damage.missing = missing.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
        damage.runs = missing.iter().map(|(first, last)| (first.0, last.0)).take(MAX_RUNS).collect();
        Ok(tx.commit()?)
    }

    fn ward(&mut self, damage: &mut Damage) -> Result<(), StoreError> {
        let mut numbers = BTreeSet::new();
        let mut statement = self.new.prepare("SELECT n FROM event")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            numbers.insert(row.get::<_, i64>(0)? as u64);
        }
        drop(rows);
        drop(statement);
        self.kept = numbers.len() as u64;
        if !self.lost.contains_key("event") {
            return Ok(());
        }
        let mut runs = Runs::default();
        runs.insert(Seq(1), Seq(numbers.last().copied().unwrap_or(0)));
        numbers.iter().for_each(|n| runs.remove(Seq(*n), Seq(*n)));
        damage.missing = runs.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
        damage.runs = runs.iter().map(|(first, last)| (first.0, last.0)).take(MAX_RUNS).collect();
        self.new.execute("INSERT OR REPLACE INTO meta VALUES(?, x'01')", [INCOMPLETE])?;
        Ok(())
    }
}

/// Writes rows that are what their table holds.
struct Taker<'a> {
    tx: &'a Transaction<'a>,
    frames: &'a mut Vec<(u64, u64)>,
    bad: Vec<Lost>,
    failed: Option<StoreError>,
}

impl Taker<'_> {
    fn take(&mut self, table: &str, shape: &str, (number, mut columns): Row) {
        if self.failed.is_some() {
            return;
        }
        if !fits(shape, &columns) {
            self.bad.push((i64::MIN, i64::MAX));
            return;
        }
        if shape.starts_with('r') {
            columns[0] = Value::Integer(number);
        }
        if table == "frame" {
            match sound_frame(&columns) {
                Some(n) => self.frames.push((number as u64, n)),
                None => return self.bad.push((number - 1, number)),
            }
        }
        let marks = vec!["?"; columns.len()].join(", ");
        // What the log's id is, the damaged file knows; of a mark that is there twice, the older leads to more work, not to less.
        let verb = if table == "meta" { "REPLACE" } else { "IGNORE" };
        let insert = || {
            self.tx.prepare_cached(&format!("INSERT OR {verb} INTO {table} VALUES({marks})"))?.execute(params_from_iter(columns))
        };
        match insert() {
            Ok(0) if table == "frame" => drop(self.frames.pop()),
            Ok(_) => {}
            Err(error) => self.failed = Some(error.into()),
        }
    }
}

/// The number of records in it, if its checksum and every one of them is right.
fn sound_frame(columns: &[Value]) -> Option<u64> {
    let [Value::Integer(first), Value::Integer(n), _, _, _, Value::Integer(format), _, Value::Blob(body), Value::Blob(sum)] =
        columns
    else {
        return None;
    };
    let first = u64::try_from(*first).ok().filter(|first| *first > 0)?;
    if frame::checksum(body)[..] != sum[..] {
        return None;
    }
    let records = frame::decode(first, *format, body).ok()?;
    (!records.is_empty() && i64::try_from(records.len()) == Ok(*n)).then_some(*n as u64)
}

fn fits(shape: &str, columns: &[Value]) -> bool {
    shape.len() == columns.len()
        && shape.bytes().zip(columns).all(|(kind, value)| {
            matches!(
                (kind, value),
                (b'r' | b'T' | b'I', Value::Null)
                    | (b'i' | b'I', Value::Integer(_))
                    | (b't' | b'T', Value::Text(_))
                    | (b'b', Value::Blob(_))
            )
        })
}

/// Rows found outside of any tree may be old ones. That does no harm where rows are only ever added; of what a route still
/// owes, an old row would be a false statement.
fn grows_only(which: Database, table: &str) -> bool {
    match which {
        Database::Log => !["meta", "tally", "pending", "held", "attempt", "dead", "mark"].contains(&table),
        Database::Ward => table == "event",
    }
}

/// The numbers of streams and the newest versions of windows follow from the frames.
fn rebuild_from_frames(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let mut statement = tx.prepare("SELECT first, format, body, directory FROM frame ORDER BY first")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let first = row.get::<_, i64>(0)? as u64;
        let records = frame::decode(first, row.get(1)?, &row.get::<_, Vec<u8>>(2)?)?;
        let directory: Vec<u32> = postcard::from_bytes(&row.get::<_, Vec<u8>>(3)?).unwrap_or_default();
        for (number, key) in directory.iter().zip(in_order(&records)) {
            tx.prepare_cached("INSERT OR IGNORE INTO stream VALUES(?, ?)")?.execute(params![number, key])?;
        }
        for (offset, record) in records.iter().enumerate() {
            let Body::Window(window) = &record.body else { continue };
            let whole = window.from == window.start && window.to == window.start.plus_ms(i64::from(window.length_s) * 1000);
            tx.prepare_cached(
                "INSERT INTO amended VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET version = ?3, seq = ?4 WHERE version < ?3",
            )?
            .execute(params![record.id.0, !whole, record.version, (first + offset as u64) as i64])?;
        }
    }
    Ok(())
}

/// The streams of a frame's records, each once, in the order a directory lists them.
pub(super) fn in_order(records: &[Record]) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for record in records {
        let key = log::stream_key(record.device, record.stream.as_ref());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

pub(super) fn routes_were_lost(connection: &Connection) -> Result<bool, StoreError> {
    Ok(meta(connection, ROUTES_LOST)?.is_some())
}

pub(super) fn routes_are_known(connection: &Connection) -> Result<(), StoreError> {
    remove_meta(connection, ROUTES_LOST)
}

/// Events of the ward are missing and nobody has seen to it yet.
pub(super) fn ward_is_incomplete(connection: &Connection) -> Result<bool, StoreError> {
    Ok(meta(connection, INCOMPLETE)?.is_some())
}

pub(super) fn ward_is_seen_to(connection: &Connection) -> Result<(), StoreError> {
    remove_meta(connection, INCOMPLETE)
}

pub(super) fn damage(connection: &Connection) -> Result<Vec<Damage>, StoreError> {
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
    connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", params![name, text])?;
    Ok(())
}

fn meta(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

fn remove_meta(connection: &Connection, name: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM meta WHERE name = ?", [name])?;
    Ok(())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Anything but zeros in its first pages: an all-zero or cut-off file says nothing about the key.
fn has_content(path: &Path) -> bool {
    use std::io::Read as _;
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16 * PAGE as u64).read_to_end(&mut octets));
    read.is_ok() && octets.len() >= PAGE && octets.iter().any(|octet| *octet != 0)
}

fn free_number(path: &Path) -> u64 {
    let taken = siblings(path, ".damaged-").into_iter().chain(siblings(path, ".salvaged-"));
    taken.map(|(number, _)| number).max().unwrap_or(0) + 1
}

/// Files beside `path` that are called like it, then `infix` and a number (and perhaps `-wal` or `-shm`).
fn siblings(path: &Path, infix: &str) -> Vec<(u64, PathBuf)> {
    let prefix = format!("{}{infix}", name_of(path));
    let entries = path.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let numbered = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(&prefix)?.split('-').next()?.parse().ok()?;
        Some((number, entry.path()))
    };
    entries.into_iter().flatten().filter_map(Result::ok).filter_map(numbered).collect()
}

pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
