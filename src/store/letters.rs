//! Dead letters: records a destination refused, each kept with its reason and the record itself, so that it can be shown and
//! sent again after the log has let it go.
//!
//! One that goes again leaves its row until the destination has taken it, marked as such: it is pending then and no dead
//! letter, and the row only lends the record.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::reading::{BootId, BootMillis, Nameplate, Record, Seq};

/// The reason of a row whose record is pending again.
const RETRIED: &str = "retry";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    pub seq: Seq,
    pub record: Record,
    pub reason: String,
    pub detail: String,
    /// When it was refused; wall time is bound late, as for records.
    pub since: Option<(BootId, BootMillis)>,
}

/// What the column `record` holds. Rows of the first bedrails end after the record, those of later ones after `since`.
#[derive(Serialize, Deserialize)]
struct Kept<R> {
    record: R,
    since: Option<(BootId, BootMillis)>,
    nameplate: Option<Nameplate>,
}

pub(super) fn bury(tx: &Transaction<'_>, route: i64, dead: &DeadRow) -> Result<(), StoreError> {
    let kept = Kept { record: &dead.record, since: dead.since, nameplate: dead.record.nameplate.clone() };
    tx.prepare_cached("INSERT OR REPLACE INTO dead VALUES(?, ?, ?, ?, ?, ?)")?.execute(params![
        route,
        dead.seq.0 as i64,
        postcard::to_stdvec(&kept).expect("a record is plain data"),
        dead.record.version,
        dead.reason,
        dead.detail
    ])?;
    Ok(())
}

pub(super) fn mark_retried(tx: &Transaction<'_>, route: i64, seq: Seq) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE dead SET reason = ? WHERE route = ? AND seq = ?")?.execute(params![
        RETRIED,
        route,
        seq.0 as i64
    ])?;
    Ok(())
}

pub(super) fn forget(tx: &Transaction<'_>, route: i64, seq: Seq) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM dead WHERE route = ? AND seq = ?")?.execute(params![route, seq.0 as i64])?;
    Ok(())
}

/// Dead letters of a route from `first` on, `limit` of them.
pub(super) fn page(connection: &Connection, route: i64, first: Seq, limit: usize) -> Result<Vec<DeadRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, record, reason, detail FROM dead WHERE route = ? AND seq >= ? AND reason <> ? ORDER BY seq LIMIT ?",
    )?;
    let mut rows = statement.query(params![route, first.0 as i64, RETRIED, limit as i64])?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(decode(row)?);
    }
    Ok(page)
}

/// Which records from `first` to `last` are dead letters of a route.
pub(super) fn among(connection: &Connection, route: i64, first: Seq, last: Seq) -> Result<BTreeSet<Seq>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT seq FROM dead WHERE route = ? AND seq BETWEEN ? AND ? AND reason <> ?")?;
    let seqs = statement.query_map(params![route, first.0 as i64, last.0 as i64, RETRIED], seq)?;
    Ok(seqs.collect::<Result<_, _>>()?)
}

pub(super) fn count(connection: &Connection, route: i64) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM dead WHERE route = ? AND reason <> ?")?;
    Ok(statement.query_row(params![route, RETRIED], |row| row.get::<_, i64>(0))? as u64)
}

/// What is pending again.
pub(super) fn retried(connection: &Connection, route: i64) -> Result<BTreeSet<Seq>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq FROM dead WHERE route = ? AND reason = ?")?;
    let seqs = statement.query_map(params![route, RETRIED], seq)?;
    Ok(seqs.collect::<Result<_, _>>()?)
}

/// The record a row lends, dead letter or pending again.
pub(super) fn record(connection: &Connection, route: i64, seq: Seq) -> Result<Option<Record>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq, record, reason, detail FROM dead WHERE route = ? AND seq = ?")?;
    let row = statement.query_row(params![route, seq.0 as i64], |row| Ok(decode(row))).optional()?;
    Ok(row.transpose()?.map(|dead| dead.record))
}

fn seq(row: &Row<'_>) -> rusqlite::Result<Seq> {
    Ok(Seq(row.get::<_, i64>(0)? as u64))
}

fn decode(row: &Row<'_>) -> Result<DeadRow, StoreError> {
    let seq = seq(row)?;
    let octets = row.get_ref(1)?.as_blob().unwrap_or_default();
    let kept: Result<Kept<Record>, _> = postcard::from_bytes(octets)
        .or_else(|_| postcard::from_bytes(octets).map(|(record, since)| Kept { record, since, nameplate: None }))
        .or_else(|_| postcard::from_bytes(octets).map(|record| Kept { record, since: None, nameplate: None }));
    let Kept { record, since, nameplate } =
        kept.map_err(|_| StoreError::Refused(format!("dead letter {seq} holds a record that does not decode")))?;
    let record = Record { nameplate, ..record };
    Ok(DeadRow { seq, record, reason: row.get(2)?, detail: row.get(3)?, since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Body, DeviceId, Event, NoValue, RecordId, Stamp};

    fn record() -> Record {
        Record {
            id: RecordId([3; 16]),
            version: 1,
            device: DeviceId::new([1; 6]),
            stream: None,
            stamp: Stamp { boot: BootId([0; 16]), arrived: BootMillis(0), device_time: None, device_clock: None, stored: false },
            body: Body::Event(Event::NoValue(NoValue::SensorOff)),
            nameplate: None,
        }
    }

    #[test]
    fn a_dead_letter_of_an_older_bedrail_is_read_without_what_it_did_not_keep() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE dead(route, seq, record, version, reason, detail, PRIMARY KEY(route, seq))")
            .unwrap();
        let oldest = postcard::to_stdvec(&record()).unwrap();
        connection.execute("INSERT INTO dead VALUES(1, 4, ?, 1, 'refused', '0x99')", [oldest]).unwrap();
        let since = Some((BootId([9; 16]), BootMillis(70)));
        let older = postcard::to_stdvec(&(record(), since)).unwrap();
        connection.execute("INSERT INTO dead VALUES(1, 5, ?, 1, 'refused', '0x99')", [older]).unwrap();
        let told = Nameplate { serial: Some("501".into()), model: None };
        let new = DeadRow {
            seq: Seq(6),
            record: Record { nameplate: Some(told), ..record() },
            reason: "too_large".into(),
            detail: String::new(),
            since,
        };
        let tx = connection.transaction().unwrap();
        bury(&tx, 1, &new).unwrap();
        let rows = page(&tx, 1, Seq(0), 10).unwrap();
        let before = DeadRow { seq: Seq(4), record: record(), reason: "refused".into(), detail: "0x99".into(), since: None };
        assert_eq!(rows[..2], [before.clone(), DeadRow { seq: Seq(5), since, ..before }]);
        assert_eq!(rows[2], new);
    }

    #[test]
    fn what_goes_again_lends_its_record_and_is_no_dead_letter() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE dead(route, seq, record, version, reason, detail, PRIMARY KEY(route, seq))")
            .unwrap();
        let tx = connection.transaction().unwrap();
        for seq in [4, 5] {
            let dead = DeadRow { seq: Seq(seq), record: record(), reason: "r".into(), detail: String::new(), since: None };
            bury(&tx, 1, &dead).unwrap();
        }
        mark_retried(&tx, 1, Seq(4)).unwrap();
        assert_eq!((count(&tx, 1).unwrap(), among(&tx, 1, Seq(0), Seq(9)).unwrap()), (1, BTreeSet::from([Seq(5)])));
        assert_eq!(
            (retried(&tx, 1).unwrap(), super::record(&tx, 1, Seq(4)).unwrap()),
            (BTreeSet::from([Seq(4)]), Some(record()))
        );
        forget(&tx, 1, Seq(4)).unwrap();
        assert_eq!(super::record(&tx, 1, Seq(4)).unwrap(), None);
    }
}
