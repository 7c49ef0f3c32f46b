//! Deleting frames, and saying so in the same commit. What may go is decided in [`super::retention`].
//!
//! Only the log is trimmed here; what a route owes is written by that route alone. A run that names a record without a frame
//! *is* the mark "evicted": the route meets it, settles it under that name and writes its runs as always. So no kill between
//! the two leaves them in disagreement, and nobody overwrites anybody.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::log::{self, Draft, Identity, Minter, Streams};
use super::retention::{Frame, Open, OpenRoute, Turn, Worth};
use super::{Room, StoreError, frame, routes};
use crate::reading::{
    Anchors, Body, BootId, BootMillis, DeviceId, Gap, GapReason, Record, RecordId, Seq, Stamp, StreamKey, Summary, Timestamp,
};

/// Frames deleted in one transaction, and octets of them: together with the gap records under 20 ms on a Pi.
pub const EVICT_FRAMES: usize = 64;
pub const EVICT_OCTETS: u64 = 1 << 20;
/// A route gone from the config pins nothing after this.
const ORPHAN_MS: i64 = 7 * 86_400_000;
/// Moved by every eviction: routes look at what they hold again when it changes.
pub const EVICTIONS: &str = "evictions";

/// What one eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    pub frames: u64,
    pub records: u64,
    /// Of the records, what somebody still owed.
    pub unsettled: u64,
}

/// Frames that begin at `from` or later, in order, without their bodies.
pub(super) fn frames(connection: &Connection, anchors: &Anchors, from: Seq, limit: usize) -> Result<Vec<Frame>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT first, n, boot, arrived_to, length(body), directory FROM frame WHERE first >= ? ORDER BY first LIMIT ?",
    )?;
    let mut rows = statement.query(params![from.0 as i64, limit as i64])?;
    let mut frames = Vec::new();
    while let Some(row) = rows.next()? {
        let (boot, arrived) = (BootId(row.get(2)?), BootMillis(row.get::<_, i64>(3)? as u64));
        let directory = row.get_ref(5)?.as_blob().unwrap_or_default();
        frames.push(Frame {
            first: Seq(row.get::<_, i64>(0)? as u64),
            n: row.get::<_, i64>(1)? as u64,
            arrived: anchors.wall(boot, arrived).map(|wall| wall.at),
            // The other columns and the row's own header.
            octets: row.get::<_, i64>(4)? as u64 + directory.len() as u64 + 60,
            streams: postcard::from_bytes(directory).unwrap_or_default(),
        });
    }
    Ok(frames)
}

/// What all routes owe; those gone from the config for long are left out.
pub(super) fn open(connection: &Connection, now: Option<Timestamp>) -> Result<Open, StoreError> {
    let mut orphans = connection.prepare_cached("SELECT n, name, orphaned FROM route ORDER BY n")?;
    let mut rows = orphans.query([])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        let (n, orphaned): (i64, Option<i64>) = (row.get(0)?, row.get(2)?);
        if now.zip(orphaned).is_some_and(|(now, since)| now.0 - since > ORPHAN_MS) {
            continue;
        }
        let lanes = routes::lanes(connection, n)?;
        let pending = lanes.live.iter().chain(lanes.backlog.iter()).collect();
        let mut statement = connection.prepare_cached("SELECT stream, first, last FROM held WHERE route = ?")?;
        let held = statement
            .query_map([n], |row| Ok((row.get(0)?, Seq(row.get::<_, i64>(1)? as u64), Seq(row.get::<_, i64>(2)? as u64))))?;
        open.push(OpenRoute { name: row.get(1)?, pending, held: held.collect::<Result<_, _>>()? });
    }
    Ok(Open(open))
}

/// What a frame is worth: the most of its records. `is_condensed` says whether a value's windows are in the log.
pub(super) fn worth(
    connection: &Connection,
    first: Seq,
    is_condensed: impl Fn(&Record) -> bool,
) -> Result<Option<Worth>, StoreError> {
    let Some(records) = body(connection, first)? else { return Ok(None) };
    let worth = |record: &Record| match &record.body {
        Body::Gap(_) | Body::Retraction(_) => Worth::Account,
        Body::Window(_) => Worth::Windows,
        _ if !is_continuous(record) => Worth::Episodic,
        _ if is_condensed(record) => Worth::Condensed,
        _ => Worth::Streamed,
    };
    Ok(records.iter().map(worth).max())
}

fn is_continuous(record: &Record) -> bool {
    record.stream.is_some_and(|stream| stream.metric.summary(stream.modality) != Summary::None)
}

/// Deletes frames and writes what is lost by it, in the caller's transaction. A frame planned as settled that a route has come
/// to owe again meanwhile stays.
pub(super) fn evict(
    tx: &Transaction<'_>,
    minter: &Minter,
    streams: &mut Streams,
    planned: &[(Frame, Turn)],
    now: Option<Timestamp>,
    stamp: Stamp,
) -> Result<Evicted, StoreError> {
    let open = open(tx, now)?;
    let head = log::head(tx)?;
    let (mut evicted, mut losses) = (Evicted::default(), Losses::default());
    for (frame, turn) in planned.iter().filter(|(frame, _)| frame.last() < head) {
        match turn {
            Turn::Unsettled(worth) => {
                let reason = if *worth == Worth::Condensed { GapReason::Thinned } else { GapReason::Evicted };
                for (offset, record) in body(tx, frame.first)?.unwrap_or_default().into_iter().enumerate() {
                    evicted.unsettled += losses.owed(tx, streams, &open, frame, offset as u64, &record, reason)?;
                }
            }
            _ if open.owes_any(frame) => continue,
            Turn::Settled => losses.uncorrectable(frame),
            Turn::Final | Turn::Aged => {}
        }
        let deleted = tx.prepare_cached("DELETE FROM frame WHERE first = ?")?.execute([frame.first.0 as i64])? as u64;
        tx.prepare_cached("DELETE FROM seen WHERE seq BETWEEN ? AND ?")?
            .execute(params![frame.first.0 as i64, frame.last().0 as i64])?;
        evicted.frames += deleted;
        evicted.records += deleted * frame.n;
    }
    if evicted.frames > 0 {
        log::append(tx, minter, streams, losses.drafts(stamp))?;
        let evictions = routes::read_mark(tx, EVICTIONS)?.unwrap_or(0);
        routes::write_mark(tx, EVICTIONS, evictions + 1)?;
    }
    Ok(evicted)
}

/// Forgets which versions there were of windows whose frames are gone, `limit` rows from `after` on and none from `below` on;
/// answers where to go on, `None` at the end.
pub(super) fn forget_versions(
    tx: &Transaction<'_>,
    after: RecordId,
    below: Seq,
    limit: usize,
) -> Result<Option<RecordId>, StoreError> {
    let rows: Vec<([u8; 16], i64, bool)> = tx
        .prepare_cached(
            "SELECT id, side, seq < ?2 AND coalesce((SELECT first + n <= seq FROM frame WHERE first <= seq ORDER BY first DESC LIMIT 1), 1)
             FROM amended WHERE id > ?1 ORDER BY id, side LIMIT ?3",
        )?
        .query_map(params![after.0, below.0 as i64, limit as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (id, side, _) in rows.iter().filter(|(_, _, gone)| *gone) {
        tx.prepare_cached("DELETE FROM amended WHERE id = ? AND side = ?")?.execute(params![id, side])?;
    }
    Ok(rows.last().filter(|_| rows.len() == limit).map(|(id, _, _)| RecordId(*id)))
}

/// The first number at or after `seq` that has a frame.
pub(super) fn next_present(connection: &Connection, seq: Seq) -> Result<Option<Seq>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT first + n - 1 FROM frame WHERE first <= ? ORDER BY first DESC LIMIT 1")?;
    let last: Option<i64> = statement.query_row([seq.0 as i64], |row| row.get(0)).optional()?;
    if last.is_some_and(|last| last as u64 >= seq.0) {
        return Ok(Some(seq));
    }
    let mut statement = connection.prepare_cached("SELECT first FROM frame WHERE first > ? ORDER BY first LIMIT 1")?;
    Ok(statement.query_row([seq.0 as i64], |row| row.get::<_, i64>(0)).optional()?.map(|first| Seq(first as u64)))
}

/// File and unused pages; the disk is the caller's.
pub(super) fn room(connection: &Connection) -> Result<Room, StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    // SQLCipher answers this one itself, as text.
    let page: String = connection.pragma_query_value(None, "cipher_page_size", |row| row.get(0))?;
    let page: u64 = page.parse().map_err(|_| StoreError::Refused(format!("the page size is `{page}`")))?;
    Ok(Room { file: pragma("page_count")? as u64 * page, unused: pragma("freelist_count")? as u64 * page, disk_free: 0 })
}

fn body(connection: &Connection, first: Seq) -> Result<Option<Vec<Record>>, StoreError> {
    let row = connection
        .prepare_cached("SELECT format, body FROM frame WHERE first = ?")?
        .query_row([first.0 as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    row.map(|(format, body)| frame::decode(first.0, format, &body)).transpose()
}

/// What an eviction takes, by source and reason.
#[derive(Default)]
struct Losses {
    gaps: BTreeMap<(DeviceId, Option<StreamKey>, GapReason), Loss>,
}

struct Loss {
    run: (Seq, Seq),
    span: Option<(Timestamp, Timestamp)>,
    count: u64,
    routes: BTreeSet<String>,
}

impl Losses {
    /// Counts a record if a route owes it. A gap that goes hands its own count on.
    #[allow(clippy::too_many_arguments)]
    fn owed(
        &mut self,
        tx: &Transaction<'_>,
        streams: &mut Streams,
        open: &Open,
        frame: &Frame,
        offset: u64,
        record: &Record,
        reason: GapReason,
    ) -> Result<u64, StoreError> {
        let seq = Seq(frame.first.0 + offset);
        let stream = streams.number(tx, record.device, record.stream.as_ref())?;
        let routes: Vec<&str> = open.0.iter().filter(|route| route.owes(seq, stream)).map(|route| route.name.as_str()).collect();
        if routes.is_empty() {
            return Ok(0);
        }
        let (run, count, span) = match &record.body {
            Body::Gap(gap) => (gap.run.unwrap_or((seq, seq)), gap.count, gap.from.zip(gap.to)),
            _ => ((seq, seq), 1, frame.arrived.map(|at| (at, at))),
        };
        self.add((record.device, record.stream, reason), run, span, count, &routes);
        Ok(1)
    }

    fn uncorrectable(&mut self, frame: &Frame) {
        let key = (DeviceId::GATEWAY, None, GapReason::CorrectionHorizon);
        self.add(key, (frame.first, frame.last()), frame.arrived.map(|at| (at, at)), frame.n, &[]);
    }

    fn add(
        &mut self,
        key: (DeviceId, Option<StreamKey>, GapReason),
        run: (Seq, Seq),
        span: Option<(Timestamp, Timestamp)>,
        count: u64,
        routes: &[&str],
    ) {
        let loss = self.gaps.entry(key).or_insert_with(|| Loss { run, span, count: 0, routes: BTreeSet::new() });
        loss.run = (loss.run.0.min(run.0), loss.run.1.max(run.1));
        loss.span = match (loss.span, span) {
            (Some(all), Some(one)) => Some((all.0.min(one.0), all.1.max(one.1))),
            (all, one) => all.or(one),
        };
        loss.count += count;
        loss.routes.extend(routes.iter().map(|&route| route.to_owned()));
    }

    fn drafts(self, stamp: Stamp) -> Vec<Draft> {
        let draft = |((device, stream, reason), loss): ((DeviceId, Option<StreamKey>, GapReason), Loss)| Draft {
            identity: Identity::Arrival,
            device,
            stream,
            stamp,
            body: Body::Gap(Gap {
                reason,
                run: Some(loss.run),
                from: loss.span.map(|span| span.0),
                to: loss.span.map(|span| span.1),
                count: loss.count,
                routes: loss.routes.into_iter().collect(),
            }),
            nameplate: None,
        };
        self.gaps.into_iter().map(draft).collect()
    }
}
