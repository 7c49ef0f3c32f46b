//! The log: append frames, read them back by sequence number. Identity is decided here, inside the write transaction,
//! because only there is it known what was seen before and which number comes next.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{StoreError, db, frame};
use crate::reading::{Body, BootId, BootMillis, DeviceId, Flag, Nameplate, Record, RecordId, Seq, SiteKey, Stamp, StreamKey};

/// A record on its way into the log.
#[derive(Clone, Debug)]
pub struct Draft {
    pub identity: Identity,
    pub device: DeviceId,
    pub stream: Option<StreamKey>,
    pub stamp: Stamp,
    pub body: Body,
    pub nameplate: Option<Nameplate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The device names it itself and may send it again. `digest` is of the octets it came in; `conflict` is its id if the
    /// name turns out to be taken by other octets.
    Sent { id: RecordId, digest: [u8; 8], conflict: RecordId },
    /// Nothing names it but its place in this log.
    Arrival,
    /// A window, whose id follows from what it is of; `side` when an assignment edge cut it. Its version is the next one.
    Window { id: RecordId, side: bool },
}

/// What became of the drafts, in their order; `None` was a duplicate.
#[derive(Clone, Debug, Default)]
pub struct Appended {
    pub records: Vec<Option<(Seq, RecordId)>>,
    pub duplicates: u32,
    pub conflicts: u32,
}

/// The numbers streams go by in directories and runs. 0 means "all streams".
#[derive(Debug, Default)]
pub(super) struct Streams {
    numbers: HashMap<Vec<u8>, u32>,
}

/// Who minted the ids of a log.
#[derive(Clone, Debug)]
pub struct Minter {
    pub site_key: SiteKey,
    pub gateway: String,
    pub log: [u8; 16],
}

pub(super) fn append(
    tx: &Transaction<'_>,
    minter: &Minter,
    streams: &mut Streams,
    drafts: Vec<Draft>,
) -> Result<Appended, StoreError> {
    let first = head(tx)?.next();
    append_from(tx, minter, streams, drafts, first)
}

/// As [`append`], beginning at a number that may leave a gap behind: what salvage does, so that no number is given twice.
pub(super) fn append_from(
    tx: &Transaction<'_>,
    minter: &Minter,
    streams: &mut Streams,
    drafts: Vec<Draft>,
    first: Seq,
) -> Result<Appended, StoreError> {
    let mut appended = Appended::default();
    let mut records: Vec<Record> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let seq = Seq(first.0 + records.len() as u64);
        let Some(record) = admit(tx, minter, draft, seq, &mut appended)? else {
            appended.records.push(None);
            continue;
        };
        appended.records.push(Some((seq, record.id)));
        records.push(record);
        if records.len() > frame::MAX_RECORDS {
            return Err(StoreError::Refused(format!("a commit holds at most {} records", frame::MAX_RECORDS)));
        }
    }
    if !records.is_empty() {
        insert_frame(tx, streams, first, &records)?;
    }
    Ok(appended)
}

/// Decides the identity of one draft; `None` for a duplicate.
fn admit(
    tx: &Transaction<'_>,
    minter: &Minter,
    draft: Draft,
    seq: Seq,
    appended: &mut Appended,
) -> Result<Option<Record>, StoreError> {
    let Draft { identity, device, stream, stamp, mut body, nameplate } = draft;
    let (id, version) = match identity {
        Identity::Arrival => (minter.site_key.arrival_id(&minter.gateway, device, minter.log, stamp.boot, seq), 1),
        Identity::Window { id, side } => (id, next_version(tx, id, side, seq)?),
        Identity::Sent { id, digest, conflict } => match seen(tx, id)? {
            None => {
                remember(tx, id, digest, seq)?;
                (id, 1)
            }
            Some(known) if known == digest => {
                appended.duplicates += 1;
                return Ok(None);
            }
            Some(_) if seen(tx, conflict)?.is_some() => {
                appended.duplicates += 1;
                return Ok(None);
            }
            Some(_) => {
                remember(tx, conflict, digest, seq)?;
                appended.conflicts += 1;
                if let Body::Reading(reading) = &mut body {
                    reading.flags.push(Flag::Conflict);
                }
                (conflict, 1)
            }
        },
    };
    Ok(Some(Record { id, version, device, stream, stamp, body, nameplate }))
}

fn seen(tx: &Transaction<'_>, id: RecordId) -> Result<Option<[u8; 8]>, StoreError> {
    Ok(tx.prepare_cached("SELECT digest FROM seen WHERE id = ?")?.query_row([id.0], |row| row.get(0)).optional()?)
}

fn remember(tx: &Transaction<'_>, id: RecordId, digest: [u8; 8], seq: Seq) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO seen VALUES(?, ?, ?)")?.execute(params![id.0, digest, seq.0 as i64])?;
    Ok(())
}

/// Versions of a window count over cut and uncut ones together, so that a side always comes after what it replaces.
fn next_version(tx: &Transaction<'_>, id: RecordId, side: bool, seq: Seq) -> Result<u32, StoreError> {
    let newest: Option<u32> =
        tx.prepare_cached("SELECT max(version) FROM amended WHERE id = ?")?.query_row([id.0], |row| row.get(0))?;
    let version = newest.unwrap_or(0) + 1;
    tx.prepare_cached("INSERT OR REPLACE INTO amended VALUES(?, ?, ?, ?)")?.execute(params![
        id.0,
        side,
        version,
        seq.0 as i64
    ])?;
    Ok(version)
}

fn insert_frame(tx: &Transaction<'_>, streams: &mut Streams, first: Seq, records: &[Record]) -> Result<(), StoreError> {
    let mut directory: Vec<u32> = Vec::new();
    for record in records {
        let n = streams.number(tx, record.device, record.stream.as_ref())?;
        if !directory.contains(&n) {
            directory.push(n);
        }
    }
    let (format, body) = frame::encode(records);
    let arrived = records.iter().map(|record| record.stamp.arrived.0 as i64);
    tx.prepare_cached("INSERT INTO frame VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        first.0 as i64,
        records.len() as i64,
        records[0].stamp.boot.0,
        arrived.clone().min(),
        arrived.max(),
        format,
        postcard::to_stdvec(&directory).expect("numbers encode"),
        body,
        frame::checksum(&body),
    ])?;
    Ok(())
}

/// The last number given; 0 in an empty log. The newest frame is never deleted, so numbers are never given twice.
pub(super) fn head(connection: &Connection) -> Result<Seq, StoreError> {
    let mut statement = connection.prepare_cached("SELECT first + n - 1 FROM frame ORDER BY first DESC LIMIT 1")?;
    Ok(Seq(statement.query_row([], |row| row.get::<_, i64>(0)).optional()?.unwrap_or(0) as u64))
}

/// Records with numbers in `first..=last`, in order, `limit` at most (rounded up to a whole frame's end or less).
pub(super) fn read(connection: &Connection, first: Seq, last: Seq, limit: usize) -> Result<Vec<(Seq, Record)>, StoreError> {
    let mut records = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT first, n, format, body, checksum FROM frame
         WHERE first >= coalesce((SELECT first FROM frame WHERE first <= ?1 ORDER BY first DESC LIMIT 1), 0) AND first <= ?2
         ORDER BY first",
    )?;
    let mut rows = statement.query(params![first.0 as i64, last.0.min(i64::MAX as u64) as i64])?;
    while let Some(row) = rows.next()? {
        let (start, n): (i64, i64) = (row.get(0)?, row.get(1)?);
        if start + n <= first.0 as i64 {
            continue;
        }
        for (offset, record) in open_frame(start, row.get(2)?, row.get_ref(3)?, row.get_ref(4)?)?.into_iter().enumerate() {
            let seq = Seq(start as u64 + offset as u64);
            if seq > last || records.len() >= limit {
                return Ok(records);
            }
            if seq >= first {
                records.push((seq, record));
            }
        }
    }
    Ok(records)
}

fn open_frame(
    first: i64,
    format: i64,
    body: rusqlite::types::ValueRef<'_>,
    sum: rusqlite::types::ValueRef<'_>,
) -> Result<Vec<Record>, StoreError> {
    let bad = |what| StoreError::BadFrame { first: first as u64, what };
    let body = body.as_blob().map_err(|_| bad("has no body"))?;
    if sum.as_blob().ok() != Some(&frame::checksum(body)[..]) {
        return Err(bad("checksum does not match"));
    }
    frame::decode(first as u64, format, body)
}

/// The records of one stream, newest frames first, while `more` says so by the boot and last arrival of a frame.
pub(super) fn read_stream_back(
    connection: &Connection,
    streams: &Streams,
    stream: &StreamKey,
    mut more: impl FnMut(BootId, BootMillis) -> bool,
    mut each: impl FnMut(Seq, Record),
) -> Result<(), StoreError> {
    let Some(wanted) = streams.known(connection, stream.device, Some(stream))? else { return Ok(()) };
    let mut statement = connection
        .prepare_cached("SELECT first, n, format, body, checksum, directory, boot, arrived_to FROM frame ORDER BY first DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !more(BootId(row.get(6)?), BootMillis(row.get::<_, i64>(7)? as u64)) {
            return Ok(());
        }
        let directory: Vec<u32> = postcard::from_bytes(row.get_ref(5)?.as_blob().unwrap_or_default()).unwrap_or_default();
        if !directory.contains(&wanted) {
            continue;
        }
        let first: i64 = row.get(0)?;
        for (offset, record) in open_frame(first, row.get(2)?, row.get_ref(3)?, row.get_ref(4)?)?.into_iter().enumerate() {
            if record.stream.as_ref() == Some(stream) {
                each(Seq(first as u64 + offset as u64), record);
            }
        }
    }
    Ok(())
}

/// The first record of the frames that end the log and whose boot and last arrival are not yet `before`.
pub(super) fn first_after(
    connection: &Connection,
    mut before: impl FnMut(BootId, BootMillis) -> bool,
) -> Result<Seq, StoreError> {
    let mut statement = connection.prepare_cached("SELECT first, boot, arrived_to FROM frame ORDER BY first DESC")?;
    let mut rows = statement.query([])?;
    let mut first = head(connection)?.next();
    while let Some(row) = rows.next()? {
        if before(BootId(row.get(1)?), BootMillis(row.get::<_, i64>(2)? as u64)) {
            break;
        }
        first = Seq(row.get::<_, i64>(0)? as u64);
    }
    Ok(first)
}

/// The newest version of each of `ids` that has one above 1; `sides` says whether cut windows count.
pub(super) fn newest_versions(
    connection: &Connection,
    ids: impl Iterator<Item = RecordId>,
    sides: bool,
) -> Result<BTreeMap<RecordId, u32>, StoreError> {
    let mut newest = BTreeMap::new();
    let mut statement = connection.prepare_cached("SELECT max(version) FROM amended WHERE id = ? AND side <= ?")?;
    for id in ids {
        if let Some(version) = statement.query_row(params![id.0, sides], |row| row.get(0))? {
            newest.insert(id, version);
        }
    }
    Ok(newest)
}

/// As far as ids are indexed.
pub(super) fn seq_of(connection: &Connection, id: RecordId) -> Result<Option<Seq>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT max(seq) FROM (SELECT seq FROM seen WHERE id = ?1 UNION ALL SELECT seq FROM amended WHERE id = ?1)",
    )?;
    Ok(statement.query_row([id.0], |row| row.get::<_, Option<i64>>(0))?.map(|seq| Seq(seq as u64)))
}

impl Streams {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut statement = connection.prepare("SELECT n, key FROM stream")?;
        let numbers = statement.query_map([], |row| Ok((row.get(1)?, row.get(0)?)))?.collect::<Result<_, _>>()?;
        Ok(Self { numbers })
    }

    /// The number of a stream, given on first use. The other process may have given it: the table decides, not the cache.
    pub(super) fn number(&mut self, tx: &Connection, device: DeviceId, stream: Option<&StreamKey>) -> Result<u32, StoreError> {
        let key = stream_key(device, stream);
        if let Some(n) = self.numbers.get(&key) {
            return Ok(*n);
        }
        tx.execute("INSERT OR IGNORE INTO stream(key) VALUES(?)", [&key])?;
        let n = tx.query_row("SELECT n FROM stream WHERE key = ?", [&key], |row| row.get(0))?;
        self.numbers.insert(key, n);
        Ok(n)
    }

    /// The number of a stream if it has one; as in [`Self::number`], others may have given it.
    fn known(&self, connection: &Connection, device: DeviceId, stream: Option<&StreamKey>) -> Result<Option<u32>, StoreError> {
        let key = stream_key(device, stream);
        if let Some(n) = self.numbers.get(&key) {
            return Ok(Some(*n));
        }
        let mut statement = connection.prepare_cached("SELECT n FROM stream WHERE key = ?")?;
        Ok(statement.query_row([&key], |row| row.get(0)).optional()?)
    }

    /// A transaction that was rolled back may have given numbers that nobody else knows of.
    pub(super) fn forget(&mut self) {
        self.numbers.clear();
    }
}

pub(super) fn stream_key(device: DeviceId, stream: Option<&StreamKey>) -> Vec<u8> {
    postcard::to_stdvec(&(device, stream)).expect("a stream key is plain data")
}

/// Opens the write transaction for [`append`] and whatever belongs with it.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    db::begin(connection)
}
