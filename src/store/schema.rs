//! The schemas of both files. A migration goes forward, in one transaction, under the exclusive lock of `store prepare`.

use std::path::Path;

use rusqlite::Connection;

use super::{StoreError, db, key};

/// The schema this bedrail reads and writes; an older one is migrated, a newer one refused.
pub const VERSION: i64 = 1;

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
    subject TEXT, rule TEXT NOT NULL, evidence BLOB NOT NULL, placement BLOB NOT NULL,
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

/// Creates the schema in an empty file or brings an older one up; tells what it did.
pub fn bring_up(connection: &mut Connection, which: Database, path: &Path) -> Result<bool, StoreError> {
    let found = version(connection)?;
    if found > VERSION {
        return Err(StoreError::NewerSchema { path: path.into(), found, known: VERSION });
    }
    if found == VERSION {
        return Ok(false);
    }
    let tx = db::begin(connection)?;
    tx.execute_batch(match which {
        Database::Log => LOG,
        Database::Ward => WARD,
    })?;
    tx.execute("INSERT INTO meta VALUES('log', ?)", [key::random::<16>()?])?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(true)
}

/// A half never changes a schema; it refuses a foreign one.
pub fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    match version(connection)? {
        VERSION => Ok(()),
        found if found > VERSION => Err(StoreError::NewerSchema { path: path.into(), found, known: VERSION }),
        found => Err(StoreError::OlderSchema { path: path.into(), found, known: VERSION }),
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
