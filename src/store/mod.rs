//! The encrypted log, route state, anchors and ward.db: everything that must survive. It keeps; it decides nothing.
//!
//! One [`Store`] is one connection: a half gives it to the thread that writes and opens another to read. Every write is one
//! short transaction, and nothing it returned `Ok` for is lost by a crash or a power cut.

mod anchors;
mod aside;
mod audit;
pub mod ballast;
mod check;
mod damage;
mod db;
mod error;
mod evict;
mod frame;
pub mod key;
mod letters;
pub mod lock;
mod log;
mod missing;
mod prepare;
mod rescue;
pub mod retention;
mod routes;
mod runs;
mod salvage;
mod schema;
mod ward;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

pub use audit::AuditEntry;
pub use check::{Finding, check};
pub use damage::Damage;
pub use error::{DiskFault, StoreError};
pub use evict::{EVICT_FRAMES, EVICT_OCTETS, EVICTIONS, Evicted};
pub use frame::MAX_RECORDS;
pub use letters::DeadRow;
pub use log::{Appended, Draft, Identity};
pub use prepare::{Prepared, prepare, prepare_thoroughly, suspect};
pub use retention::Room;
pub use routes::{BoundRow, Held, Lanes, RouteChange, RouteRow};
pub use runs::{OPEN, Runs};
pub use ward::{PatientRow, WardStore};

use crate::reading::{Anchor, Anchors, BootId, BootMillis, Record, RecordId, Seq, SiteKey, Stamp, StreamKey, Timestamp};
use key::DataKey;
use lock::StoreLock;
use log::{Minter, Streams};
use retention::{Frame, Open, Turn, Worth};

/// File names in the state directory.
pub const LOG_FILE: &str = "bedrail.db";
pub const WARD_FILE: &str = "ward.db";

/// Most records one read hands out: what a half holds in memory of the log at once.
pub const READ_LIMIT: usize = 1_000;

pub struct Store {
    connection: Connection,
    path: PathBuf,
    streams: Streams,
    minter: Minter,
    /// Last, so that the connection is closed before it is let go.
    _shared: StoreLock,
}

/// Size and shape, cheap enough to ask every second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    pub oldest: Seq,
    pub head: Seq,
    pub database_octets: u64,
    pub wal_octets: u64,
}

/// Marks under this prefix say up to where devices have told what they stored; a store that was salvaged knows no more.
pub const STORED_MARKS: &str = "stored.";

impl Store {
    /// Opens a log that `store prepare` has made; never creates, migrates or repairs one. As long as it is open, whichever
    /// thread has it, nobody prepares the store.
    pub fn open(state_dir: &Path, key: &DataKey, site_key: SiteKey, gateway: &str) -> Result<Self, StoreError> {
        let path = state_dir.join(LOG_FILE);
        let _shared = lock::shared_of(&path)?;
        let connection = db::open(&path, key)?;
        schema::check(&connection, &path)?;
        let log = connection.query_row("SELECT value FROM meta WHERE name = 'log'", [], |row| row.get(0))?;
        let streams = Streams::load(&connection)?;
        Ok(Self { connection, path, streams, minter: Minter { site_key, gateway: gateway.to_owned(), log }, _shared })
    }

    pub fn site_key(&self) -> &SiteKey {
        &self.minter.site_key
    }

    /// Appends one frame. When it returns, the records are on the card.
    pub fn append(&mut self, drafts: Vec<Draft>) -> Result<Appended, StoreError> {
        self.append_and_mark(drafts, &[])
    }

    /// Appends one frame, and moves marks in the same commit.
    pub fn append_and_mark(&mut self, drafts: Vec<Draft>, marks: &[(&str, u64)]) -> Result<Appended, StoreError> {
        self.write(|tx, streams, minter| {
            for (name, value) in marks {
                routes::write_mark(tx, name, *value)?;
            }
            log::append(tx, minter, streams, drafts)
        })
    }

    pub fn mark(&self, name: &str) -> Result<Option<u64>, StoreError> {
        routes::read_mark(&self.connection, name)
    }

    /// All marks whose names begin with `prefix`, which is ASCII.
    pub fn marks(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        routes::read_marks(&self.connection, prefix)
    }

    pub fn head(&self) -> Result<Seq, StoreError> {
        log::head(&self.connection)
    }

    /// Up to `limit` (and never more than [`READ_LIMIT`]) records with numbers in `first..=last`, in order.
    pub fn read(&self, first: Seq, last: Seq, limit: usize) -> Result<Vec<(Seq, Record)>, StoreError> {
        log::read(&self.connection, first, last, limit.min(READ_LIMIT))
    }

    /// Where to begin reading for what arrived late: the first record after the last frame that is `before`, which is told
    /// a frame's boot and last arrival.
    pub fn first_after(&self, before: impl FnMut(BootId, BootMillis) -> bool) -> Result<Seq, StoreError> {
        log::first_after(&self.connection, before)
    }

    /// One stream's records from the newest frame back, as long as `more` says so of a frame's boot and last arrival.
    pub fn read_stream_back(
        &self,
        stream: &StreamKey,
        more: impl FnMut(BootId, BootMillis) -> bool,
        each: impl FnMut(Seq, Record),
    ) -> Result<(), StoreError> {
        log::read_stream_back(&self.connection, &self.streams, stream, more, each)
    }

    /// The newest version there is of each of `ids`; `sides` says whether windows cut at an assignment edge count.
    pub fn newest_versions(
        &self,
        ids: impl Iterator<Item = RecordId>,
        sides: bool,
    ) -> Result<BTreeMap<RecordId, u32>, StoreError> {
        log::newest_versions(&self.connection, ids, sides)
    }

    /// Where the record of this id is, or its newest version: of what a device can send again and of windows alone.
    pub fn seq_of(&self, id: RecordId) -> Result<Option<Seq>, StoreError> {
        log::seq_of(&self.connection, id)
    }

    /// The first number at or after `seq` that is in the log: what lies between was evicted.
    pub fn next_present(&self, seq: Seq) -> Result<Option<Seq>, StoreError> {
        evict::next_present(&self.connection, seq)
    }

    /// Frames that begin at `from` or later, `limit` of them and no bodies.
    pub fn frames(&self, anchors: &Anchors, from: Seq, limit: usize) -> Result<Vec<Frame>, StoreError> {
        evict::frames(&self.connection, anchors, from, limit)
    }

    /// What keeps frames from being settled.
    pub fn open_runs(&self, now: Option<Timestamp>) -> Result<Open, StoreError> {
        evict::open(&self.connection, now)
    }

    /// What the frame that begins at `first` is worth; `None` if it is gone.
    pub fn worth(&self, first: Seq, is_condensed: impl Fn(&Record) -> bool) -> Result<Option<Worth>, StoreError> {
        evict::worth(&self.connection, first, is_condensed)
    }

    /// Deletes planned frames, in one transaction with the gap records that say what was lost by it. Give it no more than
    /// [`EVICT_FRAMES`] and [`EVICT_OCTETS`] at once.
    pub fn evict(&mut self, planned: &[(Frame, Turn)], now: Option<Timestamp>, stamp: Stamp) -> Result<Evicted, StoreError> {
        self.write(|tx, streams, minter| evict::evict(tx, minter, streams, planned, now, stamp))
    }

    /// Forgets versions of what was evicted below `below`, a few rows at a time: see where it goes on in the answer.
    pub fn forget_versions(&mut self, after: RecordId, below: Seq, limit: usize) -> Result<Option<RecordId>, StoreError> {
        self.write(|tx, _, _| evict::forget_versions(tx, after, below, limit))
    }

    /// Writes the write-ahead log back, so that it is used again from its beginning and needs no new room; `false` when
    /// somebody is still reading from it.
    pub fn checkpoint(&self) -> Result<bool, StoreError> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (busy, log, done) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], row)?;
        Ok(busy == 0 && log == done)
    }

    /// Writes the write-ahead log back and begins it anew: after a failed fsync what is in it may be in memory only, and what
    /// follows must not depend on it.
    pub fn begin_log_anew(&self) -> Result<(), StoreError> {
        db::begin_log_anew(&self.connection, &self.path)
    }

    /// How large the file is and how much of it is unused; `disk_free` is left to the caller.
    pub fn room(&self) -> Result<Room, StoreError> {
        evict::room(&self.connection)
    }

    pub fn add_anchor(&mut self, anchor: &Anchor) -> Result<(), StoreError> {
        anchors::add(&self.connection, anchor)
    }

    pub fn anchors(&self) -> Result<Anchors, StoreError> {
        anchors::all(&self.connection)
    }

    /// Makes the configured routes known and marks those that left the config.
    pub fn register_routes(&mut self, routes: &[(&str, &str, bool)], now_ms: i64) -> Result<Vec<RouteRow>, StoreError> {
        self.write(|tx, _, _| {
            let head = log::head(tx)?;
            let configured: BTreeSet<&str> = routes.iter().map(|(name, _, _)| *name).collect();
            routes::mark_orphans(tx, &configured, now_ms)?;
            let rows = routes
                .iter()
                .map(|(name, kind, oldest)| routes::register(tx, name, kind, head, *oldest))
                .collect::<Result<_, _>>()?;
            damage::routes_are_known(tx)?;
            Ok(rows)
        })
    }

    pub fn routes(&self) -> Result<Vec<RouteRow>, StoreError> {
        routes::all(&self.connection)
    }

    pub fn route(&self, name: &str) -> Result<Option<RouteRow>, StoreError> {
        routes::find(&self.connection, name)
    }

    pub fn set_paused(&mut self, route: i64, reason: Option<&str>, entry: &AuditEntry) -> Result<(), StoreError> {
        self.audited(entry, |tx, _| routes::set_paused(tx, route, reason))
    }

    pub fn drop_route(&mut self, route: i64, entry: &AuditEntry) -> Result<(), StoreError> {
        self.audited(entry, |tx, _| routes::drop_route(tx, route))
    }

    pub fn lanes(&self, route: i64) -> Result<Lanes, StoreError> {
        routes::lanes(&self.connection, route)
    }

    pub fn held(&self, route: i64) -> Result<Vec<Held>, StoreError> {
        routes::held(&self.connection, route)
    }

    pub fn bound(&self, route: i64) -> Result<Vec<BoundRow>, StoreError> {
        routes::bound(&self.connection, route)
    }

    /// Records that may have been under way when the process ended, settled ones among them.
    pub fn under_way(&self, route: i64) -> Result<Runs, StoreError> {
        routes::under_way(&self.connection, route)
    }

    pub fn tally(&self, route: i64) -> Result<BTreeMap<String, u64>, StoreError> {
        routes::tally(&self.connection, route)
    }

    /// What a route marked for itself.
    pub fn route_mark(&self, route: i64, name: &str) -> Result<Option<u64>, StoreError> {
        self.mark(&routes::mark_name(route, name))
    }

    pub fn dead_count(&self, route: i64) -> Result<u64, StoreError> {
        letters::count(&self.connection, route)
    }

    /// Dead letters of a route with numbers from `first` on, `limit` of them (and never more than [`READ_LIMIT`]).
    pub fn dead_letters(&self, route: i64, first: Seq, limit: usize) -> Result<Vec<DeadRow>, StoreError> {
        letters::page(&self.connection, route, first, limit.min(READ_LIMIT))
    }

    /// Which records from `first` to `last` are dead letters of a route.
    pub fn dead_among(&self, route: i64, first: Seq, last: Seq) -> Result<BTreeSet<Seq>, StoreError> {
        letters::among(&self.connection, route, first, last)
    }

    /// Which were dead letters of a route and are pending again.
    pub fn retried(&self, route: i64) -> Result<BTreeSet<Seq>, StoreError> {
        letters::retried(&self.connection, route)
    }

    /// The record of a dead letter, or of what was one and is pending again, whatever became of it in the log.
    pub fn kept_record(&self, route: i64, seq: Seq) -> Result<Option<Record>, StoreError> {
        letters::record(&self.connection, route, seq)
    }

    /// Everything a route found out, in one commit.
    pub fn apply(&mut self, route: i64, change: &RouteChange) -> Result<(), StoreError> {
        self.write(|tx, streams, minter| {
            for entry in &change.audit {
                audit::audit(tx, &minter.site_key, entry)?;
            }
            if !change.append.is_empty() {
                log::append(tx, minter, streams, change.append.clone())?;
            }
            routes::apply(tx, streams, route, change)
        })
    }

    /// The one door to the audit trail, for actions that change nothing else in this file.
    pub fn audit(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.audited(entry, |_, _| Ok(()))
    }

    /// The audit trail, or the number of its first bad row.
    pub fn verify_audit(&self) -> Result<Result<Vec<AuditEntry>, i64>, StoreError> {
        audit::verify(&self.connection, &self.minter.site_key)
    }

    /// Changes whenever another connection has committed.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        Ok(self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// What was salvaged and is not acknowledged yet; empty when the store is sound.
    pub fn damage(&self) -> Result<Vec<Damage>, StoreError> {
        damage::all(&self.connection)
    }

    /// Somebody has read what the damage was.
    pub fn acknowledge_damage(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.audited(entry, |tx, _| damage::acknowledge(tx))
    }

    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let oldest: Option<i64> =
            self.connection.query_row("SELECT first FROM frame ORDER BY first LIMIT 1", [], |row| row.get(0)).optional()?;
        let size = |suffix: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |meta| meta.len())
        };
        Ok(StoreStats {
            oldest: Seq(oldest.unwrap_or(1) as u64),
            head: self.head()?,
            database_octets: size(""),
            wal_octets: size("-wal"),
        })
    }

    fn audited<T>(
        &mut self,
        entry: &AuditEntry,
        change: impl FnOnce(&rusqlite::Transaction<'_>, &mut Streams) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write(|tx, streams, minter| {
            audit::audit(tx, &minter.site_key, entry)?;
            change(tx, streams)
        })
    }

    fn write<T>(
        &mut self,
        change: impl FnOnce(&rusqlite::Transaction<'_>, &mut Streams, &Minter) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let tx = log::begin(&mut self.connection)?;
        let result = change(&tx, &mut self.streams, &self.minter).and_then(|value| {
            tx.commit()?;
            Ok(value)
        });
        if result.is_err() {
            self.streams.forget();
        }
        result
    }
}
