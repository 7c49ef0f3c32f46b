//! Salvage: what can be read of a damaged file goes into a new one, what can't is counted and becomes gap records, and the
//! damaged file is set aside as it was. Runs under the exclusive lock, inside `store prepare`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, params, params_from_iter};

use super::damage::{self, Damage};
use super::key::{self, DataKey};
use super::rescue::pages::{PAGE, Pages};
use super::rescue::tree::{self, Lost, Reader, Row};
use super::runs::Runs;
use super::schema::{self, Database};
use super::{STORED_MARKS, StoreError, aside, db, frame, log, missing};
use crate::reading::{Body, Record, Seq};

/// Runs of missing records a report lists; the gap records name all of them.
const MAX_RUNS: usize = 32;

/// Reads what is left of `path` into a new file and puts that into its place.
pub(super) fn salvage(path: &Path, key: &DataKey, which: Database) -> Result<Damage, StoreError> {
    let pages = Pages::open(path, key)?;
    if pages.is_none() && has_content(path) {
        // Not one page bears this key's code: that is another file's key sooner than rot.
        return Err(StoreError::Foreign { path: path.into() });
    }
    let number = aside::free_number(path);
    let working = aside::working(path);
    aside::discard(path)?;
    let mut new = db::create(&working, key)?;
    // It counts only when it is complete, so nothing protects it on the way there.
    new.pragma_update(None, "journal_mode", "OFF")?;
    new.pragma_update(None, "synchronous", "OFF")?;
    schema::bring_up(&mut new, which, &working)?;
    let mut report = Damage {
        file: aside::name_of(path),
        at: jiff::Timestamp::now().to_string(),
        set_aside: aside::name_of(&aside::damaged(path, number)),
        ..Damage::default()
    };
    let mut rescue = Rescue { new: &mut new, which, lost: BTreeMap::new(), frames: Vec::new(), kept: 0 };
    rescue.tables(pages.as_ref())?;
    match which {
        Database::Log => rescue.log(pages.as_ref().is_none_or(|pages| pages.stale), &mut report)?,
        Database::Ward => rescue.ward(&mut report)?,
    }
    report.tables = rescue.lost.keys().map(|table| (*table).to_owned()).collect();
    report.kept = rescue.kept;
    damage::report(&new, &report)?;
    new.close().map_err(|(_, error)| error)?;
    aside::complete(path, number)?;
    Ok(report)
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
                let is_of = |table: &str, shape: &str| {
                    let mut columns = row.1.clone();
                    schema::bring_up_row(table, &mut columns);
                    fits(shape, &columns)
                };
                if let Some((table, shape)) = wanted.iter().find(|(table, shape)| is_of(table, shape)) {
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
            damage::routes_are_lost(&tx)?;
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
        damage::ward_lost_events(self.new)?;
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
        schema::bring_up_row(table, &mut columns);
        if !fits(shape, &columns) {
            self.bad.push((i64::MIN, i64::MAX));
            return;
        }
        if shape.starts_with('r') {
            columns[0] = Value::Integer(number);
        }
        // What is gone may still be in the devices, and is asked for again.
        if table == "mark" && matches!(&columns[0], Value::Text(name) if name.starts_with(STORED_MARKS)) {
            return;
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

/// Anything but zeros in its first pages: an all-zero or cut-off file says nothing about the key.
fn has_content(path: &Path) -> bool {
    use std::io::Read as _;
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16 * PAGE as u64).read_to_end(&mut octets));
    read.is_ok() && octets.len() >= PAGE && octets.iter().any(|octet| *octet != 0)
}
