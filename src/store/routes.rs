//! What each route still has to do. Per route a record is in exactly one of pending, held, dead and settled, and settled is
//! what is in none of the others.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::letters::{self, DeadRow};
use super::runs::{OPEN, Runs};
use super::{AuditEntry, Draft, StoreError, damage, log::Streams};
use crate::deliver::Lane;
use crate::reading::{DeviceId, Placement, Seq, StreamKey, SubjectKey};
use crate::ward::HoldReason;

/// A route as the store knows it, whether or not the config still names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    pub n: i64,
    pub name: String,
    pub kind: String,
    /// Why it may not send, in words; `None` while it may.
    pub paused: Option<String>,
    /// Boot-independent mark: it left the config.
    pub orphaned: bool,
}

/// A route's two lanes. Live always ends in a run that is open: what is appended later is in it without a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    pub live: Runs,
    pub backlog: Runs,
}

impl Lanes {
    /// At link up: what is appended from now on is live, what lies below is backlog.
    pub fn split_at(&mut self, head: Seq) {
        let below: Vec<_> =
            self.live.iter().filter(|(first, _)| *first <= head).map(|(first, last)| (first, last.min(head))).collect();
        for (first, last) in below {
            self.live.remove(first, last);
            self.backlog.insert(first, last);
        }
    }

    pub fn settle(&mut self, seq: Seq) {
        self.live.remove(seq, seq);
        self.backlog.remove(seq, seq);
    }
}

/// What a route found out since it last wrote: applied in one transaction.
#[derive(Clone, Debug, Default)]
pub struct RouteChange {
    pub lanes: Lanes,
    /// Rows that are gone; applied before `hold`.
    pub release: Vec<Held>,
    /// Rows as they are now; a longer run replaces the one with the same beginning.
    pub hold: Vec<Held>,
    /// Rows of bindings that are gone; applied before `bind`.
    pub unbind: Vec<(StreamKey, Seq)>,
    pub bind: Vec<BoundRow>,
    /// What may be under way to the destination from now on, where that changed.
    pub under_way: Option<Runs>,
    /// Records that come into being with it: retractions.
    pub append: Vec<Draft>,
    /// Dead letters that are pending again.
    pub retry: Vec<Seq>,
    /// Dead letters, or such as were pending again, whose rows are no longer wanted; applied before `dead`.
    pub forget: Vec<Seq>,
    pub dead: Vec<DeadRow>,
    /// Counters by what was counted: `sent`, `filtered`, `superseded`, `history`, …
    pub tally: BTreeMap<String, u64>,
    /// What people did of it, to be in the trail together with it.
    pub audit: Vec<AuditEntry>,
    /// Numbers the route wants to know after a restart, by name.
    pub marks: BTreeMap<&'static str, u64>,
}

impl RouteChange {
    /// Whether nothing but the lanes may have changed.
    pub fn is_empty(&self) -> bool {
        let Self { lanes: _, release, hold, unbind, bind, under_way, append, retry, forget, dead, tally, audit, marks } = self;
        let rows = release.is_empty() && hold.is_empty() && unbind.is_empty() && bind.is_empty() && append.is_empty();
        rows && retry.is_empty()
            && forget.is_empty()
            && dead.is_empty()
            && tally.is_empty()
            && audit.is_empty()
            && marks.is_empty()
            && under_way.is_none()
    }

    /// Adds what became of held runs since; what was to be written and is gone again is not written.
    pub fn hold_on(&mut self, release: Vec<Held>, hold: Vec<Held>) {
        let same = |a: &Held, b: &Held| (a.device, a.stream, a.reason, a.first) == (b.device, b.stream, b.reason, b.first);
        self.hold.retain(|old| !release.iter().chain(&hold).any(|new| same(old, new)));
        self.release.extend(release);
        self.hold.extend(hold);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub device: DeviceId,
    pub stream: Option<StreamKey>,
    pub reason: HoldReason,
    pub first: Seq,
    pub last: Seq,
    /// Records of the stream in it.
    pub count: u64,
}

/// From `first` to `last` this stream's records went to this subject: written only when the subject changes, before the first
/// send. Records that were never sent may lie between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundRow {
    pub stream: StreamKey,
    pub first: Seq,
    /// [`OPEN`] while it goes on.
    pub last: Seq,
    /// `None`: taken back, and nowhere now.
    pub subject: Option<SubjectKey>,
    pub rule: String,
    /// Numbers of the ward events it rests on.
    pub evidence: Vec<u64>,
    pub placement: Placement,
    /// To whom they went before, and were taken back from.
    pub past: Vec<SubjectKey>,
}

/// Registers a route; a new one owns what is appended after `head`, or everything there is when `oldest`.
pub(super) fn register(tx: &Transaction<'_>, name: &str, kind: &str, head: Seq, oldest: bool) -> Result<RouteRow, StoreError> {
    if let Some(row) = find(tx, name)? {
        tx.execute("UPDATE route SET orphaned = NULL, kind = ? WHERE n = ?", params![kind, row.n])?;
        return Ok(RouteRow { orphaned: false, kind: kind.to_owned(), ..row });
    }
    tx.execute("INSERT INTO route(name, kind) VALUES(?, ?)", [name, kind])?;
    let n = tx.last_insert_rowid();
    // What retention took before it came was never its own. After a salvage that lost the routes, one that seems new may not
    // be: it begins at the oldest, since a value that comes twice is recognised and one that never comes is not.
    let first: Option<i64> = tx.query_row("SELECT min(first) FROM frame", [], |row| row.get(0))?;
    let oldest = oldest || damage::routes_were_lost(tx)?;
    let from = if oldest { Seq(first.unwrap_or(1) as u64) } else { head.next() };
    tx.execute("INSERT INTO pending VALUES(?, ?, 0, ?, ?)", params![n, lane_number(Lane::Live), from.0 as i64, OPEN.0 as i64])?;
    Ok(RouteRow { n, name: name.to_owned(), kind: kind.to_owned(), paused: None, orphaned: false })
}

pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<RouteRow>, StoreError> {
    Ok(all(connection)?.into_iter().find(|row| row.name == name))
}

pub(super) fn all(connection: &Connection) -> Result<Vec<RouteRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT n, name, kind, paused, orphaned FROM route ORDER BY n")?;
    let rows = statement.query_map([], |row| {
        Ok(RouteRow {
            n: row.get(0)?,
            name: row.get(1)?,
            kind: row.get(2)?,
            paused: row.get(3)?,
            orphaned: row.get::<_, Option<i64>>(4)?.is_some(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Routes the config no longer names are marked; they pin nothing once the mark is old.
pub(super) fn mark_orphans(tx: &Transaction<'_>, configured: &BTreeSet<&str>, now: i64) -> Result<(), StoreError> {
    for row in all(tx)? {
        if !configured.contains(row.name.as_str()) && !row.orphaned {
            tx.execute("UPDATE route SET orphaned = ? WHERE n = ?", params![now, row.n])?;
        }
    }
    Ok(())
}

pub(super) fn set_paused(connection: &Connection, route: i64, paused: Option<&str>) -> Result<(), StoreError> {
    connection.execute("UPDATE route SET paused = ? WHERE n = ?", params![paused, route])?;
    Ok(())
}

/// Removes a route and all it still owned.
pub(super) fn drop_route(tx: &Transaction<'_>, route: i64) -> Result<(), StoreError> {
    for table in ["pending", "held", "attempt", "bound", "dead", "tally"] {
        tx.execute(&format!("DELETE FROM {table} WHERE route = ?"), [route])?;
    }
    tx.execute("DELETE FROM mark WHERE name GLOB ?", [mark_name(route, "*")])?;
    tx.execute("DELETE FROM route WHERE n = ?", [route])?;
    Ok(())
}

pub(super) fn lanes(connection: &Connection, route: i64) -> Result<Lanes, StoreError> {
    let mut lanes = Lanes::default();
    let mut statement = connection.prepare_cached("SELECT lane, first, last FROM pending WHERE route = ?")?;
    let mut rows = statement.query([route])?;
    while let Some(row) = rows.next()? {
        let runs = if row.get::<_, i64>(0)? == lane_number(Lane::Live) { &mut lanes.live } else { &mut lanes.backlog };
        runs.insert(seq(row, 1)?, seq(row, 2)?);
    }
    Ok(lanes)
}

pub(super) fn apply(tx: &Transaction<'_>, streams: &mut Streams, route: i64, change: &RouteChange) -> Result<(), StoreError> {
    write_lane(tx, route, Lane::Live, &change.lanes.live)?;
    write_lane(tx, route, Lane::Backlog, &change.lanes.backlog)?;
    for held in &change.release {
        delete_held(tx, streams, route, held)?;
    }
    for held in &change.hold {
        write_held(tx, streams, route, held)?;
    }
    for (stream, first) in &change.unbind {
        let stream = streams.number(tx, stream.device, Some(stream))?;
        tx.prepare_cached("DELETE FROM bound WHERE route = ? AND stream = ? AND first = ?")?.execute(params![
            route,
            stream,
            first.0 as i64
        ])?;
    }
    for bound in &change.bind {
        write_bound(tx, streams, route, bound)?;
    }
    if let Some(runs) = &change.under_way {
        let runs: Vec<(Seq, Seq)> = runs.iter().collect();
        let runs = postcard::to_stdvec(&runs).expect("numbers encode");
        tx.prepare_cached("INSERT OR REPLACE INTO attempt VALUES(?, ?, ?, x'', 0, 0)")?
            .execute(params![route, UNDER_WAY, runs])?;
    }
    for seq in &change.retry {
        letters::mark_retried(tx, route, *seq)?;
    }
    for seq in &change.forget {
        letters::forget(tx, route, *seq)?;
    }
    for dead in &change.dead {
        letters::bury(tx, route, dead)?;
    }
    for (what, n) in &change.tally {
        tx.prepare_cached("INSERT INTO tally VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n")?
            .execute(params![route, what, *n as i64])?;
    }
    for (name, value) in &change.marks {
        write_mark(tx, &mark_name(route, name), *value)?;
    }
    Ok(())
}

/// The one row of a route whose messages have no identity of their own.
const UNDER_WAY: &str = "under way";

/// What may have been under way when the process ended.
pub(super) fn under_way(connection: &Connection, route: i64) -> Result<Runs, StoreError> {
    let mut statement = connection.prepare_cached("SELECT runs FROM attempt WHERE route = ? AND message = ?")?;
    let runs: Option<Vec<u8>> = statement.query_row(params![route, UNDER_WAY], |row| row.get(0)).optional()?;
    let Some(runs) = runs else { return Ok(Runs::default()) };
    let runs: Vec<(Seq, Seq)> =
        postcard::from_bytes(&runs).map_err(|_| StoreError::Refused("what was under way does not decode".into()))?;
    Ok(runs.into_iter().collect())
}

/// A route's own marks stand among those of other readers of the log.
pub(super) fn mark_name(route: i64, name: &str) -> String {
    format!("route/{route}/{name}")
}

/// Writes only the rows that differ: a settled run costs one changed row, however many it was.
pub(super) fn write_lane(tx: &Transaction<'_>, route: i64, lane: Lane, runs: &Runs) -> Result<(), StoreError> {
    let lane = lane_number(lane);
    let stored: BTreeSet<(i64, i64)> = tx
        .prepare_cached("SELECT first, last FROM pending WHERE route = ? AND lane = ?")?
        .query_map(params![route, lane], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let wanted: BTreeSet<(i64, i64)> = runs.iter().map(|(first, last)| (first.0 as i64, last.0 as i64)).collect();
    for (first, _) in stored.difference(&wanted) {
        tx.prepare_cached("DELETE FROM pending WHERE route = ? AND lane = ? AND stream = 0 AND first = ?")?
            .execute(params![route, lane, first])?;
    }
    for (first, last) in wanted.difference(&stored) {
        tx.prepare_cached("INSERT OR REPLACE INTO pending VALUES(?, ?, 0, ?, ?)")?.execute(params![route, lane, first, last])?;
    }
    Ok(())
}

/// A held run covers the records of one stream between its ends, however many of other streams lie between them.
fn write_held(tx: &Transaction<'_>, streams: &mut Streams, route: i64, held: &Held) -> Result<(), StoreError> {
    let stream = streams.number(tx, held.device, held.stream.as_ref())?;
    tx.prepare_cached("INSERT OR REPLACE INTO held VALUES(?, ?, ?, ?, ?, ?)")?.execute(params![
        route,
        stream,
        held.reason.name(),
        held.first.0 as i64,
        held.last.0 as i64,
        held.count as i64
    ])?;
    Ok(())
}

fn delete_held(tx: &Transaction<'_>, streams: &mut Streams, route: i64, held: &Held) -> Result<(), StoreError> {
    let stream = streams.number(tx, held.device, held.stream.as_ref())?;
    tx.prepare_cached("DELETE FROM held WHERE route = ? AND stream = ? AND reason = ? AND first = ?")?.execute(params![
        route,
        stream,
        held.reason.name(),
        held.first.0 as i64
    ])?;
    Ok(())
}

pub(super) fn held(connection: &Connection, route: i64) -> Result<Vec<Held>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT stream.key, reason, first, last, held.n FROM held JOIN stream ON stream.n = held.stream WHERE route = ? ORDER BY first",
    )?;
    let mut rows = statement.query([route])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (device, stream) = decode_stream(row.get_ref(0)?)?;
        let reason: String = row.get(1)?;
        let reason = HoldReason::from_name(&reason)
            .ok_or_else(|| StoreError::Refused(format!("a record is held for `{reason}`, which this bedrail does not know")))?;
        let count = row.get::<_, i64>(4)? as u64;
        all.push(Held { device, stream, reason, first: seq(row, 2)?, last: seq(row, 3)?, count });
    }
    Ok(all)
}

fn write_bound(tx: &Transaction<'_>, streams: &mut Streams, route: i64, bound: &BoundRow) -> Result<(), StoreError> {
    let stream = streams.number(tx, bound.stream.device, Some(&bound.stream))?;
    tx.prepare_cached("INSERT OR REPLACE INTO bound VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        route,
        stream,
        bound.first.0 as i64,
        (bound.last != OPEN).then_some(bound.last.0 as i64),
        bound.subject.as_ref().map(SubjectKey::as_str),
        bound.rule,
        postcard::to_stdvec(&bound.evidence).expect("numbers encode"),
        bound.placement.0,
        postcard::to_stdvec(&bound.past).expect("keys encode"),
    ])?;
    Ok(())
}

/// To whom the records of a route went.
pub(super) fn bound(connection: &Connection, route: i64) -> Result<Vec<BoundRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT stream.key, first, subject, rule, evidence, placement, last, past FROM bound
         JOIN stream ON stream.n = bound.stream WHERE route = ?",
    )?;
    let mut rows = statement.query([route])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (_, Some(stream)) = decode_stream(row.get_ref(0)?)? else { continue };
        let subject: Option<String> = row.get(2)?;
        all.push(BoundRow {
            stream,
            first: seq(row, 1)?,
            subject: subject.and_then(|key| key.parse().ok()),
            rule: row.get(3)?,
            evidence: postcard::from_bytes(row.get_ref(4)?.as_blob().unwrap_or_default()).unwrap_or_default(),
            placement: Placement(row.get(5)?),
            last: row.get::<_, Option<i64>>(6)?.map_or(OPEN, |last| Seq(last as u64)),
            past: postcard::from_bytes(row.get_ref(7)?.as_blob().unwrap_or_default()).unwrap_or_default(),
        });
    }
    Ok(all)
}

pub(super) fn tally(connection: &Connection, route: i64) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT what, n FROM tally WHERE route = ?")?;
    let rows = statement.query_map([route], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How far a reader of the log has come.
pub(super) fn read_mark(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM mark WHERE name = ?")?;
    Ok(statement.query_row([name], |row| row.get::<_, i64>(0)).optional()?.map(|value| value as u64))
}

pub(super) fn read_marks(connection: &Connection, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT name, value FROM mark WHERE name >= ?1 AND name < ?1 || char(127) ORDER BY name")?;
    let rows = statement.query_map([prefix], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn write_mark(connection: &Connection, name: &str, value: u64) -> Result<(), StoreError> {
    connection.prepare_cached("INSERT OR REPLACE INTO mark VALUES(?, ?)")?.execute(params![name, value as i64])?;
    Ok(())
}

fn seq(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    Ok(Seq(row.get::<_, i64>(column)? as u64))
}

fn decode_stream(key: rusqlite::types::ValueRef<'_>) -> Result<(DeviceId, Option<StreamKey>), StoreError> {
    let octets = key.as_blob().map_err(|_| StoreError::Refused("the stream table holds no key".into()))?;
    postcard::from_bytes(octets).map_err(|_| StoreError::Refused("the stream table holds a key that does not decode".into()))
}

pub(super) const fn lane_number(lane: Lane) -> i64 {
    match lane {
        Lane::Live => 0,
        Lane::Backlog => 1,
    }
}
