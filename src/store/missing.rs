//! What a salvage could not read: which numbers it had, what the routes owe now, and the gap records that say so.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::log::{Draft, Identity, Minter, Streams};
use super::rescue::tree::Lost;
use super::runs::{OPEN, Runs};
use super::{StoreError, frame, key, log, routes};
use crate::deliver::Lane;
use crate::reading::{Anchors, Body, BootId, BootMillis, DeviceId, Gap, GapReason, Seq, SiteKey, Stamp, Timestamp};

/// The highest number any table speaks of.
pub(super) fn mentioned(tx: &Transaction<'_>) -> Result<u64, StoreError> {
    let mut highest = 0;
    for query in [
        "SELECT max(seq) FROM seen",
        "SELECT max(seq) FROM amended",
        "SELECT max(first) - 1 FROM pending",
        "SELECT max(last) FROM pending WHERE last < 9223372036854775807",
        "SELECT max(last) FROM held",
        "SELECT max(seq) FROM dead",
        "SELECT max(first) FROM bound",
        "SELECT max(value) - 1 FROM mark WHERE name IN ('windows_from', 'windows_seen')",
    ] {
        let value: Option<i64> = tx.query_row(query, [], |row| row.get(0))?;
        highest = highest.max(u64::try_from(value.unwrap_or(0)).unwrap_or(0));
    }
    Ok(highest)
}

/// Numbers that were given, are in no frame, and lie where something could not be read. Others went by retention.
pub(super) fn missing(frames: &[(u64, u64)], lost: &[Lost], head: u64, stale: bool) -> Vec<(Seq, Seq)> {
    let mut holes = Runs::default();
    holes.insert(Seq(1), Seq(head));
    frames.iter().for_each(|(first, n)| holes.remove(Seq(*first), Seq(first + n - 1)));
    let last = frames.last().map_or(0, |(first, n)| first + n - 1);
    let damaged =
        |first: u64, end: u64| stale || end > last || lost.iter().any(|(low, high)| *low < end as i64 && *high >= first as i64);
    holes.iter().filter(|(first, end)| damaged(first.0, end.0)).collect()
}

/// What a route had settled is not known: it owes everything there is. A value that comes twice is recognised by its id.
pub(super) fn owe_everything(tx: &Transaction<'_>, head: u64) -> Result<(), StoreError> {
    for table in ["pending", "held", "dead"] {
        tx.execute(&format!("DELETE FROM {table}"), [])?;
    }
    for route in routes::all(tx)? {
        let mut backlog = Runs::default();
        backlog.insert(Seq(1), Seq(head));
        routes::write_lane(tx, route.n, Lane::Backlog, &backlog)?;
        routes::write_lane(tx, route.n, Lane::Live, &[(Seq(head + 1), OPEN)].into_iter().collect())?;
    }
    Ok(())
}

/// Takes missing records out of what the routes owe, and says so in the log, one gap record for each run.
pub(super) fn note_missing(
    tx: &Transaction<'_>,
    frames: &[(u64, u64)],
    missing: &[(Seq, Seq)],
    next: Seq,
    end_unknown: bool,
) -> Result<(), StoreError> {
    let mut owed: Vec<(String, Runs)> = Vec::new();
    for route in routes::all(tx)? {
        let mut lanes = routes::lanes(tx, route.n)?;
        let mut runs: Runs = lanes.live.iter().chain(lanes.backlog.iter()).collect();
        let mut statement = tx.prepare("SELECT first, last FROM held WHERE route = ?")?;
        let mut rows = statement.query([route.n])?;
        while let Some(row) = rows.next()? {
            runs.insert(Seq(row.get::<_, i64>(0)? as u64), Seq(row.get::<_, i64>(1)? as u64));
        }
        owed.push((route.name, runs));
        for (first, last) in missing {
            lanes.live.remove(*first, *last);
            lanes.backlog.remove(*first, *last);
        }
        routes::write_lane(tx, route.n, Lane::Live, &lanes.live)?;
        routes::write_lane(tx, route.n, Lane::Backlog, &lanes.backlog)?;
    }
    recount_held(tx, missing)?;
    let anchors = super::anchors::all(tx)?;
    let stamp = last_stamp(tx)?;
    let gap = |run: Option<(Seq, Seq)>, from, to| Gap {
        reason: GapReason::Damaged,
        run,
        from,
        to,
        count: run.map_or(0, |(first, last)| last.0 - first.0 + 1),
        routes: owed
            .iter()
            .filter(|(_, runs)| run.is_none_or(|(first, last)| runs.next_from(first).is_some_and(|next| next <= last)))
            .map(|(name, _)| name.clone())
            .collect(),
    };
    let mut gaps: Vec<Gap> = missing
        .iter()
        .map(|(first, last)| {
            let (from, to) = (time_beside(tx, &anchors, frames, *first, false), time_beside(tx, &anchors, frames, *last, true));
            gap(Some((*first, *last)), from, to)
        })
        .collect();
    if end_unknown {
        gaps.push(gap(None, time_beside(tx, &anchors, frames, next, false), None));
    }
    let drafts: Vec<Draft> = gaps
        .into_iter()
        .map(|gap| Draft {
            identity: Identity::Arrival,
            device: DeviceId::GATEWAY,
            stream: None,
            stamp,
            body: Body::Gap(gap),
            nameplate: None,
        })
        .collect();
    // The site key is not at hand here; these ids have to differ from all others, not to agree with another gateway's.
    let minter = Minter {
        site_key: SiteKey::new(&key::random::<32>()?),
        gateway: String::new(),
        log: tx.query_row("SELECT value FROM meta WHERE name = 'log'", [], |row| row.get(0))?,
    };
    let (mut streams, mut next) = (Streams::load(tx)?, next);
    let mut drafts = drafts.into_iter().peekable();
    while drafts.peek().is_some() {
        let some: Vec<Draft> = drafts.by_ref().take(frame::MAX_RECORDS).collect();
        let count = some.len() as u64;
        log::append_from(tx, &minter, &mut streams, some, next)?;
        next = Seq(next.0 + count);
    }
    Ok(())
}

/// A held run counts the records of its stream; some of them may be gone.
fn recount_held(tx: &Transaction<'_>, missing: &[(Seq, Seq)]) -> Result<(), StoreError> {
    let mut statement = tx.prepare("SELECT rowid_of.key, held.route, held.stream, held.reason, held.first, held.last FROM held JOIN stream AS rowid_of ON rowid_of.n = held.stream")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, i64>(4)?, row.get::<_, i64>(5)?))
    })?;
    let held: Vec<(Vec<u8>, i64, i64, String, i64, i64)> = rows.collect::<Result<_, _>>()?;
    for (key, route, stream, reason, first, last) in held {
        if !missing.iter().any(|(a, b)| a.0 <= last as u64 && b.0 >= first as u64) {
            continue;
        }
        let (mut count, mut from) = (0i64, Seq(first as u64));
        loop {
            let records = log::read(tx, from, Seq(last as u64), super::READ_LIMIT)?;
            let Some((end, _)) = records.last() else { break };
            from = end.next();
            count += records.iter().filter(|(_, r)| log::stream_key(r.device, r.stream.as_ref()) == key).count() as i64;
        }
        let place = params![route, stream, reason, first];
        if count == 0 {
            tx.execute("DELETE FROM held WHERE route = ? AND stream = ? AND reason = ? AND first = ?", place)?;
        } else {
            tx.execute(
                "UPDATE held SET n = ?5 WHERE route = ?1 AND stream = ?2 AND reason = ?3 AND first = ?4",
                params![route, stream, reason, first, count],
            )?;
        }
    }
    Ok(())
}

/// Salvage has no clock of the boot; what it writes is stamped like the last record it read.
fn last_stamp(tx: &Transaction<'_>) -> Result<Stamp, StoreError> {
    let last: Option<([u8; 16], i64)> = tx
        .query_row("SELECT boot, arrived_to FROM frame ORDER BY first DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (boot, arrived) = last.unwrap_or_default();
    Ok(Stamp { boot: BootId(boot), arrived: BootMillis(arrived as u64), device_time: None, device_clock: None, stored: false })
}

/// Wall time of the nearest record before (or after) a missing one.
fn time_beside(tx: &Transaction<'_>, anchors: &Anchors, frames: &[(u64, u64)], seq: Seq, after: bool) -> Option<Timestamp> {
    let at = frames.partition_point(|(first, _)| *first <= seq.0);
    let (first, _) = if after { frames.get(at)? } else { frames.get(at.checked_sub(1)?)? };
    let column = if after { "arrived_from" } else { "arrived_to" };
    let (boot, arrived): ([u8; 16], i64) = tx
        .query_row(&format!("SELECT boot, {column} FROM frame WHERE first = ?"), [*first as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .ok()?;
    anchors.wall(BootId(boot), BootMillis(arrived as u64)).map(|wall| wall.at)
}
