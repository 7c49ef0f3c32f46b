//! The schemas of both files. A migration goes forward, in one transaction, under the exclusive lock of `store prepare`.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{StoreError, db, frame, key};

/// The schema this bedrail reads and writes; an older one is migrated, a newer one refused.
pub const VERSION: i64 = 3;

/// `bedrail.db`: the log and what each route still has to do with it. No patient is named in it.
const LOG: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- One commit, one frame: immutable, and deleted whole. `body` is a zstd of the records, `directory` their streams.
CREATE TABLE frame(
    first INTEGER PRIMARY KEY, n INTEGER NOT NULL, boot BLOB NOT NULL, arrived_from INTEGER NOT NULL,
    arrived_to INTEGER NOT NULL, format INTEGER NOT NULL, directory BLOB NOT NULL, body BLOB NOT NULL,
    checksum BLOB NOT NULL);
-- Small numbers for streams, so that a directory and a held run stay a few octets.
CREATE TABLE stream(n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE);
-- Only records a device can send again: what it sent under an identity, by the digest of its octets.
CREATE TABLE seen(id BLOB PRIMARY KEY, digest BLOB NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX seen_by_seq ON seen(seq);
-- The newest version of a record that has more than one; `side` 1 counts windows cut at an assignment edge too.
CREATE TABLE amended(id BLOB NOT NULL, side INTEGER NOT NULL, version INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(id, side)) WITHOUT ROWID;
CREATE TABLE anchor(boot BLOB NOT NULL, at INTEGER NOT NULL, wall INTEGER NOT NULL, quality INTEGER NOT NULL,
    uncertainty_ms INTEGER NOT NULL, PRIMARY KEY(boot, at)) WITHOUT ROWID;
-- How far a reader of the log has come, by name: a record number or a time.
CREATE TABLE mark(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE route(n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, paused TEXT, orphaned INTEGER);
CREATE TABLE tally(route INTEGER NOT NULL, what TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(route, what)) WITHOUT ROWID;
CREATE TABLE pending(route INTEGER NOT NULL, lane INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, PRIMARY KEY(route, lane, stream, first)) WITHOUT ROWID;
CREATE TABLE held(route INTEGER NOT NULL, stream INTEGER NOT NULL, reason TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(route, stream, reason, first)) WITHOUT ROWID;
CREATE TABLE attempt(route INTEGER NOT NULL, message TEXT NOT NULL, runs BLOB NOT NULL, hash BLOB NOT NULL,
    tries INTEGER NOT NULL, not_before INTEGER NOT NULL, PRIMARY KEY(route, message)) WITHOUT ROWID;
CREATE TABLE bound(route INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER,
    subject TEXT, rule TEXT NOT NULL, evidence BLOB NOT NULL, placement BLOB NOT NULL, past BLOB NOT NULL,
    PRIMARY KEY(route, stream, first)) WITHOUT ROWID;
CREATE TABLE dead(route INTEGER NOT NULL, seq INTEGER NOT NULL, record BLOB NOT NULL, version INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY(route, seq)) WITHOUT ROWID;

-- Append-only, each row chained to the one before it.
CREATE TABLE audit(n INTEGER PRIMARY KEY, boot BLOB NOT NULL, at INTEGER NOT NULL, wall INTEGER, actor TEXT NOT NULL,
    action TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL, link BLOB NOT NULL);
";

/// `ward.db`: who is who and who was where. Only the deliver half opens it.
const WARD: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE event(n INTEGER PRIMARY KEY, at INTEGER NOT NULL, learned INTEGER NOT NULL, source TEXT NOT NULL,
    operator TEXT NOT NULL, change TEXT NOT NULL);
CREATE TABLE patient(key TEXT PRIMARY KEY, test INTEGER NOT NULL, forgotten INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE identity(key TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Log,
    Ward,
}

/// What to do with a file of that schema to make it one of the next.
type Migration = fn(&Transaction<'_>, Database) -> Result<(), StoreError>;

/// Forward only, each in one transaction: a crash leaves the old schema or the new one.
const MIGRATIONS: &[(i64, Migration)] =
    &[(0, frames_get_checksums_and_pending_gets_lanes), (1, bindings_get_a_past), (2, frames_may_have_nameplates)];

/// Creates the schema in an empty file or brings an older one up; `true` when it created.
pub fn bring_up(connection: &mut Connection, which: Database, path: &Path) -> Result<bool, StoreError> {
    let mut found = version(connection)?;
    if found > VERSION {
        return Err(StoreError::NewerSchema { path: path.into(), found, known: VERSION });
    }
    if found == 0 && is_empty(connection)? {
        create(connection, which)?;
        return Ok(true);
    }
    while found < VERSION {
        let Some((_, migrate)) = MIGRATIONS.iter().find(|(from, _)| *from == found) else {
            return Err(StoreError::OlderSchema { path: path.into(), found, known: VERSION });
        };
        let tx = db::begin(connection)?;
        migrate(&tx, which)?;
        found += 1;
        tx.pragma_update(None, "user_version", found)?;
        tx.commit()?;
    }
    Ok(false)
}

/// Nothing was ever committed to it: a file that was being created when the power went.
pub fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0)
}

fn create(connection: &mut Connection, which: Database) -> Result<(), StoreError> {
    let tx = db::begin(connection)?;
    tx.execute_batch(which.ddl())?;
    tx.execute("INSERT INTO meta VALUES('log', ?)", [key::random::<16>()?])?;
    tx.pragma_update(None, "user_version", VERSION)?;
    Ok(tx.commit()?)
}

/// Schema 0 is that of the first experiments: frames without a checksum, and one lane. It is kept so that there is a
/// migration to test, of a table of records and of one of a route.
fn frames_get_checksums_and_pending_gets_lanes(tx: &Transaction<'_>, which: Database) -> Result<(), StoreError> {
    if which == Database::Ward {
        return Ok(());
    }
    tx.execute_batch(
        "ALTER TABLE frame ADD COLUMN checksum BLOB NOT NULL DEFAULT x'';
         ALTER TABLE pending RENAME TO pending_0;
         CREATE TABLE pending(route INTEGER NOT NULL, lane INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL,
             last INTEGER NOT NULL, PRIMARY KEY(route, lane, stream, first)) WITHOUT ROWID;
         INSERT INTO pending SELECT route, 0, stream, first, last FROM pending_0;
         DROP TABLE pending_0;",
    )?;
    let mut next = tx.prepare("SELECT first, body FROM frame WHERE first > ? ORDER BY first LIMIT 1")?;
    let mut write = tx.prepare("UPDATE frame SET checksum = ? WHERE first = ?")?;
    let mut done = 0i64;
    while let Some((first, body)) =
        next.query_row([done], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).optional()?
    {
        write.execute(params![frame::checksum(&body), first])?;
        done = first;
    }
    Ok(())
}

/// Schema 1 knew only where a record went last.
fn bindings_get_a_past(tx: &Transaction<'_>, which: Database) -> Result<(), StoreError> {
    if which == Database::Log {
        tx.execute_batch("ALTER TABLE bound ADD COLUMN past BLOB NOT NULL DEFAULT x''")?;
    }
    Ok(())
}

/// Frames of schema 3 may be of a format that a bedrail of schema 2 would take for damage: it is to refuse the file instead.
#[allow(clippy::unnecessary_wraps, reason = "it is a migration like the others")]
fn frames_may_have_nameplates(_: &Transaction<'_>, _: Database) -> Result<(), StoreError> {
    Ok(())
}

/// A row as a salvage finds it in a file of an older schema, as the migrations would have made it.
pub fn bring_up_row(table: &str, columns: &mut Vec<Value>) {
    match (table, columns.as_slice()) {
        ("frame", [.., Value::Blob(_), Value::Blob(body)]) if columns.len() == 8 => {
            columns.push(Value::Blob(frame::checksum(body).to_vec()));
        }
        ("bound", [_, _, _, _, _, _, _, _]) => columns.push(Value::Blob(Vec::new())),
        ("pending", [_, _, _, _]) => columns.insert(1, Value::Integer(0)),
        _ => {}
    }
}

impl Database {
    pub const fn ddl(self) -> &'static str {
        match self {
            Database::Log => LOG,
            Database::Ward => WARD,
        }
    }

    /// Tables by name, with the kinds of their columns: `r` the row's own number, `i` a number, `t` text, `b` octets, and in
    /// capitals what may be absent. No two are alike in one file but those of the ward that salvage tells apart by their root.
    pub const fn shapes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Database::Log => &[
                ("meta", "tb"),
                ("stream", "rb"),
                ("frame", "ribiiibbb"),
                ("seen", "bbi"),
                ("amended", "biii"),
                ("anchor", "biiii"),
                ("mark", "ti"),
                ("route", "rttTI"),
                ("tally", "iti"),
                ("pending", "iiiii"),
                ("held", "iitiii"),
                ("attempt", "itbbii"),
                ("bound", "iiiITtbbb"),
                ("dead", "iibitt"),
                ("audit", "rbiIttttb"),
            ],
            Database::Ward => &[("meta", "tb"), ("event", "riittt"), ("patient", "tii"), ("identity", "tb")],
        }
    }
}

/// A half never changes a schema; it refuses a foreign one.
pub fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    match version(connection)? {
        VERSION => Ok(()),
        found if found > VERSION => Err(StoreError::NewerSchema { path: path.into(), found, known: VERSION }),
        found => Err(StoreError::OlderSchema { path: path.into(), found, known: VERSION }),
    }
}

pub fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
