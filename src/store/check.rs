//! `store check`: what is wrong with the files, in words, without changing them. `store prepare` uses the same eyes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::key::DataKey;
use super::rescue::pages::{PAGE, Pages, wal_is_damaged};
use super::runs::{OPEN, Runs};
use super::schema::{self, Database};
use super::{LOG_FILE, StoreError, WARD_FILE, aside, audit, damage, db, frame, log, salvage};
use crate::reading::{Body, Seq, SiteKey};

/// Long work says how far it is this often.
const PROGRESS: Duration = Duration::from_secs(1);
/// SQLite leaves out the page its locks lie on, in files of more than a gibibyte.
const LOCK_PAGE: u32 = (0x4000_0000 / PAGE + 1) as u32;
/// More findings of one kind say nothing more.
const MAX_FINDINGS: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// `damage`, or `note` for what is worth knowing and no harm.
    pub kind: &'static str,
    pub file: &'static str,
    pub what: String,
}

impl Finding {
    pub fn is_damage(&self) -> bool {
        self.kind == "damage"
    }
}

/// Looks at every page, frame, run and audit row of both files. Beside a running gateway it may be done at any time.
pub fn check(
    state_dir: &Path,
    log_key: &DataKey,
    ward_key: &DataKey,
    site_key: &SiteKey,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Finding>, StoreError> {
    let _shared = super::lock::shared(state_dir)?;
    let mut findings = Vec::new();
    for (name, key, which) in [(LOG_FILE, log_key, Database::Log), (WARD_FILE, ward_key, Database::Ward)] {
        let path = state_dir.join(name);
        let found = file(&path, key, which, site_key, progress);
        match found {
            Ok(some) => findings.extend(some),
            Err(error) if error.is_damage() => findings.push(Finding { kind: "damage", file: name, what: error.to_string() }),
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

fn file(
    path: &Path,
    key: &DataKey,
    which: Database,
    site_key: &SiteKey,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Finding>, StoreError> {
    aside::refuse_unfinished(path)?;
    if path.exists() && wal_is_damaged(path) {
        return Err(StoreError::damaged(path, "commits behind a bad page of the write-ahead log"));
    }
    let connection = db::open_to_read(path, key)?;
    schema::check(&connection, path)?;
    let mut findings = every_page(&connection, path, key, progress)?;
    let mut list = List::new(which);
    if which == Database::Log {
        if let Err(n) = audit::verify(&connection, site_key)? {
            list.damage(format!("the audit trail does not hold from row {n} on"));
        }
        for damage in damage::all(&connection)? {
            list.note(format!("{}; `bedrail store acknowledge` puts this away", damage.summary()));
        }
    }
    findings.extend(list.findings);
    Ok(findings)
}

/// What a start needs and reads anyway: cheap, however long the log is.
pub(super) fn at_start(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut tables = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('seen', 'amended', 'audit', 'identity', 'dead')",
    )?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        let newest = if name == "frame" { "ORDER BY first DESC LIMIT 1" } else { "" };
        let mut statement = connection.prepare(&format!("SELECT * FROM {name} {newest}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                row.get_ref(column)?;
            }
        }
    }
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        return Err(StoreError::damaged(path, "no page is left"));
    }
    Ok(())
}

/// Every page by its code; if all are sound, the structure by SQLite's own check, and in the log every frame and run.
pub(super) fn every_page(
    connection: &Connection,
    path: &Path,
    key: &DataKey,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Finding>, StoreError> {
    let log =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'frame'", [], |row| row.get::<_, i64>(0))? > 0;
    let mut list = List::new(if log { Database::Log } else { Database::Ward });
    let mut ticker = Ticker { last: Instant::now(), progress };
    for page in bad_pages(path, key, &mut ticker)? {
        list.damage(format!("page {page} does not bear its code"));
    }
    // SQLite gives up at the first of them, and from there on calls every other page bad too.
    if list.findings.is_empty() {
        structure(connection, log, &mut list, &mut ticker)?;
    }
    Ok(list.findings)
}

fn structure(connection: &Connection, log: bool, list: &mut List, ticker: &mut Ticker<'_>) -> Result<(), StoreError> {
    let mut statement = connection.prepare("PRAGMA quick_check(20)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        if text != "ok" {
            list.damage(text);
        }
    }
    drop(rows);
    if log && schema::version(connection)? == schema::VERSION {
        frames(connection, list, ticker)?;
    }
    Ok(())
}

/// A gateway at work moves pages from the write-ahead log while they are read: a page is bad when it is bad twice.
fn bad_pages(path: &Path, key: &DataKey, ticker: &mut Ticker<'_>) -> Result<Vec<u32>, StoreError> {
    let open = || Pages::open(path, key)?.ok_or_else(|| StoreError::damaged(path, "no page bears its code"));
    let pages = open()?;
    let mut bad: Vec<u32> = Vec::new();
    for page in (1..=pages.count()).filter(|page| *page != LOCK_PAGE) {
        ticker.tell(|| format!("page {page} of {}", pages.count()));
        if !pages.authentic(page) {
            bad.push(page);
        }
    }
    if bad.is_empty() {
        return Ok(bad);
    }
    let again = open()?;
    Ok(bad.into_iter().filter(|page| !again.authentic(*page)).collect())
}

fn frames(connection: &Connection, list: &mut List, ticker: &mut Ticker<'_>) -> Result<(), StoreError> {
    // One transaction: what is compared belongs together, however the gateway goes on.
    let tx = connection.unchecked_transaction()?;
    let streams: BTreeMap<u32, Vec<u8>> = tx
        .prepare("SELECT n, key FROM stream")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let head = log::head(&tx)?;
    let (mut holes, mut next) = (Runs::default(), None);
    let mut statement = tx.prepare("SELECT first, n, format, directory, body, checksum FROM frame ORDER BY first")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (first, n): (i64, i64) = (row.get(0)?, row.get(1)?);
        ticker.tell(|| format!("record {first} of {head}"));
        let body: Vec<u8> = row.get(4)?;
        match next {
            Some(expected) if first > expected => holes.insert(Seq(expected as u64), Seq(first as u64 - 1)),
            Some(expected) if first < expected => list.damage(format!("frame {first} begins inside the one before it")),
            _ => {}
        }
        next = Some(first + n);
        if frame::checksum(&body)[..] != row.get::<_, Vec<u8>>(5)?[..] {
            list.damage(format!("frame {first}: checksum does not match"));
            continue;
        }
        let records = match frame::decode(first as u64, row.get(2)?, &body) {
            Ok(records) => records,
            Err(error) => {
                list.damage(error.to_string());
                continue;
            }
        };
        if i64::try_from(records.len()) != Ok(n) {
            list.damage(format!("frame {first}: holds {} records and says {n}", records.len()));
        }
        let directory: Vec<u32> = postcard::from_bytes(&row.get::<_, Vec<u8>>(3)?).unwrap_or_default();
        let named: Vec<Option<&Vec<u8>>> = directory.iter().map(|n| streams.get(n)).collect();
        if !named.into_iter().eq(salvage::in_order(&records).iter().map(Some)) {
            list.damage(format!("frame {first}: its directory is not of its records"));
        }
        for record in &records {
            if let Body::Gap(gap) = &record.body
                && let Some((from, to)) = gap.run
            {
                holes.remove(from, to);
            }
        }
    }
    // Gap records come after what they explain, so only what is left here is open. Settled records go by retention without one.
    for (first, last) in holes.iter() {
        list.note(format!("no records {first} to {last}"));
    }
    runs(&tx, head, list)
}

/// A run reaches at most to the head, unless it takes in what is to come.
fn runs(connection: &Connection, head: Seq, list: &mut List) -> Result<(), StoreError> {
    for (table, columns) in [("pending", "first, last"), ("held", "first, last"), ("dead", "seq, seq")] {
        let mut statement = connection.prepare(&format!("SELECT {columns} FROM {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (first, last) = (Seq(row.get::<_, i64>(0)? as u64), Seq(row.get::<_, i64>(1)? as u64));
            let open = table == "pending" && last == OPEN;
            if first > last || first > head.next() || (last > head && !open) {
                list.damage(format!("{table}: records {first} to {last} in a log that ends at {head}"));
            }
        }
    }
    Ok(())
}

struct List {
    file: &'static str,
    findings: Vec<Finding>,
}

impl List {
    fn new(which: Database) -> Self {
        Self { file: if which == Database::Log { LOG_FILE } else { WARD_FILE }, findings: Vec::new() }
    }

    fn damage(&mut self, what: String) {
        self.add("damage", what);
    }

    fn note(&mut self, what: String) {
        self.add("note", what);
    }

    fn add(&mut self, kind: &'static str, what: String) {
        let so_far = self.findings.iter().filter(|finding| finding.kind == kind).count();
        if so_far < MAX_FINDINGS {
            self.findings.push(Finding { kind, file: self.file, what });
        } else if so_far == MAX_FINDINGS {
            self.findings.push(Finding { kind, file: self.file, what: "and more like this".into() });
        }
    }
}

struct Ticker<'a> {
    last: Instant,
    progress: &'a mut dyn FnMut(&str),
}

impl Ticker<'_> {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.last.elapsed() >= PROGRESS {
            self.last = Instant::now();
            (self.progress)(&what());
        }
    }
}
