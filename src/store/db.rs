//! Opening an encrypted database the one way bedrail's promises allow: WAL with `synchronous=FULL`, read back at open,
//! because WAL with NORMAL loses acknowledged commits at a power cut.

use std::fs::File;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::StoreError;
use super::error::is_damage;
use super::key::DataKey;
use super::rescue::pages::salt_for;
use crate::hex;

/// A writer holds the lock for one commit (20 ms and one fsync); a card that is collecting garbage may take seconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Octets of a page. A commit rewrites whole pages, most of them for a few octets (a route's runs, the free list), so small
/// ones wear a card less: of 4 KiB, twice as much was written for a record (docs/evidence/bench.md). Smaller ones than this
/// hold too little beside their 80 octets of vector and code.
pub const PAGE: u32 = 1_024;
/// The log is written back every 4 MiB, so the WAL stays near that and far under 16 MiB.
const AUTOCHECKPOINT_PAGES: u32 = (4 << 20) / PAGE;
/// After a burst the WAL file is cut back to this and re-used; in steady state it is never truncated.
const JOURNAL_SIZE_LIMIT: u32 = 8 << 20;

/// Pages one connection keeps. Frames are read once, in order, and a commit touches a dozen pages, so SQLite's 2 MiB would
/// only fill up with what is not needed again; there are four connections and one more a route.
const CACHE_KIB: i64 = 512;

/// Opens a file that exists; [`create`] makes one.
pub fn open(path: &Path, key: &DataKey) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing { path: path.into() });
    }
    connect(path, key, OpenFlags::SQLITE_OPEN_READ_WRITE, "")
}

/// Opens a file that exists and cannot be written through this connection.
pub fn open_to_read(path: &Path, key: &DataKey) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing { path: path.into() });
    }
    connect(path, key, OpenFlags::SQLITE_OPEN_READ_ONLY, "")
}

/// Makes a file. Its salt follows from its key, so that salvage does not depend on the first octets of the file.
pub fn create(path: &Path, key: &DataKey) -> Result<Connection, StoreError> {
    let salt = hex::encode(&salt_for(key));
    connect(path, key, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE, &salt)
}

/// A write transaction takes its lock at once: a reader that upgrades later can fail with "busy" whatever the time-out.
pub fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Puts all that is in the write-ahead log into the database and begins the log from its first octet.
pub fn begin_log_anew(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(StoreError::Locked { path: path.into() }) }
}

/// SQLite calls itself initialised before SQLCipher is: of two threads that open the first databases of a process at once,
/// the second would be refused its key.
static LIBRARY_IS_UP: Once = Once::new();

fn connect(path: &Path, key: &DataKey, flags: OpenFlags, salt: &str) -> Result<Connection, StoreError> {
    // A full or read-only disk is not the file's fault.
    let damaged = |source| match StoreError::Sql(source) {
        StoreError::Sql(source) if is_damage(&source) => StoreError::Damaged { path: path.into(), source },
        error => error,
    };
    LIBRARY_IS_UP.call_once(|| drop(Connection::open_in_memory()));
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // A file that turns out to be damaged, or another's, is left as it is: closing must not write the log back into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // SQLCipher prints its complaints to stderr by itself; they come back as errors and are told once, in our words.
    connection.pragma_update(None, "cipher_log_level", "NONE")?;
    let pragma = zeroize::Zeroizing::new(format!("x'{}{salt}'", hex::encode(&key[..])));
    connection.pragma_update(None, "key", &*pragma)?;
    connection.pragma_update(None, "cipher_page_size", PAGE)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The first read is where a wrong key or a damaged first page shows.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(damaged)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT)?;
    assert_mode(&connection, path)?;
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        keep_log_name(&connection, path)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// Puts the write-ahead log's name on the card before anything is promised in it. SQLite syncs the directory as well, and
/// ignores a failure: a power cut would then take the whole log with every commit in it.
fn keep_log_name(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    // A read makes the log; as long as this connection is open, nobody removes it.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(StoreError::io(directory))
}

fn assert_mode(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrong = |what: String| Err(StoreError::WrongMode { path: path.into(), what });
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if journal != "wal" {
        return wrong(format!("journal_mode={journal}"));
    }
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if synchronous != 2 {
        return wrong(format!("synchronous={synchronous}"));
    }
    let cipher: String = connection.pragma_query_value(None, "cipher_version", |row| row.get(0)).unwrap_or_default();
    if cipher.is_empty() {
        return wrong("no SQLCipher in it".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_opens_only_with_its_key_and_shows_nothing_on_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        let key = DataKey::new([7; 32]);
        assert!(matches!(open(&path, &key), Err(StoreError::Missing { .. })));
        let connection = create(&path, &key).expect("created");
        connection.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES('canary-canary')").expect("written");
        for file in [path.clone(), dir.path().join("a.db-wal")] {
            let octets = std::fs::read(&file).expect("read");
            assert!(!octets.windows(6).any(|w| w == b"canary" || w == b"SQLite"), "{}", file.display());
        }
        drop(connection);
        assert!(matches!(open(&path, &DataKey::new([8; 32])), Err(StoreError::Damaged { .. })));
        let connection = open(&path, &key).expect("opens");
        assert_eq!(connection.query_row("SELECT a FROM t", [], |r| r.get::<_, String>(0)).expect("row"), "canary-canary");
    }
}
