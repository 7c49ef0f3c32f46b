//! What the measurements share: a log of its own, the octets of a ward, and the bare SQLCipher they are held against.

use std::path::Path;

use bedrail::collect::take;
use bedrail::radio::{BootClock, Heard};
use bedrail::reading::{Anchor, BootMillis, ClockQuality, DeviceId, SecurityLevel, SiteKey, Timestamp};
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Store, prepare};
use rusqlite::{Connection, params};

use crate::support::devices::{Kind, VirtualDevice};

/// Fewer say little, more take long.
pub const ROUNDS: usize = 5;
/// More than is drained while a round lasts, on a machine five times as fast.
pub const BACKLOG: usize = 1_000_000;
/// Of one commit: what comes of 64 streams within the default commit interval.
pub const RECORDS: usize = 32;
/// Acknowledged before anything is timed: the drain is in its stride.
pub const STRIDE: u64 = 2_000;
/// Records of one commit wherever the batch is not itself what is measured.
pub const BATCH: usize = 256;
/// What a row of the control holds: about a record as JSON without what all of a stream have in common.
pub const ROW_OCTETS: usize = 200;
/// A full ward. An oximeter sends two readings a value.
pub const OXIMETERS: u8 = 32;
pub const GATEWAY: &str = "gw-bench";

pub fn site_key() -> SiteKey {
    SiteKey::new(&[1; 32])
}

pub fn boot() -> BootClock {
    BootClock::read().expect("the kernel's boot id")
}

/// A fresh log with a clock, so that records have times.
pub fn store(directory: &Path) -> Store {
    prepared(directory);
    let mut store = open(directory);
    anchor(&mut store);
    store
}

pub fn prepared(directory: &Path) {
    prepare(directory, &key(), &key()).expect("prepared");
}

/// One more connection to it, as the other half has.
pub fn open(directory: &Path) -> Store {
    Store::open(directory, &key(), site_key(), GATEWAY).expect("opens")
}

pub fn anchor(store: &mut Store) {
    let wall = Timestamp(jiff::Timestamp::now().as_millisecond());
    let anchor = Anchor { boot: boot().id(), at: boot().now(), wall, quality: ClockQuality::Ntp, uncertainty_ms: 50 };
    store.add_anchor(&anchor).expect("anchored");
}

fn key() -> DataKey {
    DataKey::new([7; 32])
}

pub fn oximeter(n: u8) -> VirtualDevice {
    VirtualDevice::new(Kind::OximeterContinuous, &format!("00:1C:05:00:00:{n:02X}"), &format!("oximeter-{n}"))
}

/// Round `round` of all the oximeters, as it comes from the radio.
pub fn heard(round: u64) -> impl Iterator<Item = Heard> {
    heard_at(round, boot().now())
}

pub fn heard_at(round: u64, arrived: BootMillis) -> impl Iterator<Item = Heard> {
    (0..OXIMETERS).map(move |n| {
        let device = oximeter(n);
        let emission = device.value(round * 7 + u64::from(n), 1_700_000_000);
        let id: DeviceId = device.address.parse().expect("an address");
        Heard {
            device: id,
            characteristic: emission.characteristic,
            octets: emission.octets,
            arrived,
            indicated: false,
            device_clock: None,
            security: SecurityLevel::Encrypted,
            nameplate: None,
        }
    })
}

/// The same, taken in: 64 records.
pub fn drafts(key: &SiteKey, round: u64) -> Vec<Draft> {
    let boot = boot().id();
    heard(round).flat_map(|heard| take(key, boot, None, &heard).expect("known").expect("decodes").drafts).collect()
}

/// Appends `records` of them, a batch a commit.
pub fn fill(store: &mut Store, records: usize) {
    let key = store.site_key().clone();
    let mut buffer = Vec::new();
    let mut round = 0;
    let mut left = records;
    while left > 0 {
        buffer.extend(drafts(&key, round));
        round += 1;
        if buffer.len() >= BATCH.min(left) {
            let rest = buffer.split_off(BATCH.min(left));
            left -= buffer.len();
            store.append(std::mem::replace(&mut buffer, rest)).expect("appended");
        }
    }
}

/// SQLCipher with the pragmas of bedrail's own connections, and a table of a row a record.
pub fn bare(directory: &Path) -> Connection {
    let connection = Connection::open(directory.join("bare.db")).expect("opens");
    let key = "07".repeat(32);
    connection
        .execute_batch(&format!(
            "PRAGMA key = \"x'{key}'\"; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;
             PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 8388608;
             CREATE TABLE record(n INTEGER PRIMARY KEY, sent INTEGER NOT NULL, body BLOB NOT NULL);"
        ))
        .expect("a bare database");
    connection
}

/// One commit of `rows` rows.
pub fn insert_bare(connection: &mut Connection, rows: usize, noise: &mut Noise) {
    let tx = connection.transaction().expect("begins");
    {
        let mut insert = tx.prepare_cached("INSERT INTO record(sent, body) VALUES(0, ?)").expect("prepared");
        for _ in 0..rows {
            insert.execute(params![noise.row()]).expect("inserted");
        }
    }
    tx.commit().expect("committed");
}

/// Rows that differ, at the cost of nothing.
pub struct Noise(u64);

impl Noise {
    pub const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn row(&mut self) -> [u8; ROW_OCTETS] {
        let mut row = [0; ROW_OCTETS];
        for word in row.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
        row
    }
}
