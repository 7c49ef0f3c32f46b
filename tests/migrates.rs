//! A store of an older schema is brought up and loses nothing; one of a newer schema is left alone.
//!
//! `tests/fixtures/schema-0` is made by `BEDRAIL_WRITE_FIXTURES=1 cargo test --test migrates`, and made again only on purpose.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Identity, OPEN, RouteChange, Store, StoreError, check, prepare, prepare_thoroughly};
use rusqlite::Connection;

const COMMITS: u64 = 12;
const RECORDS: u64 = 10;
const SETTLED: u64 = 40;

fn key() -> DataKey {
    DataKey::new([7; 32])
}

fn site() -> SiteKey {
    SiteKey::new(&[1; 32])
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-0/bedrail.db")
}

fn raw(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "key", format!("x'{}'", "07".repeat(32))).unwrap();
    connection.pragma_update(None, "cipher_page_size", 1_024).unwrap();
    connection
}

fn body(n: u64) -> Body {
    Body::Reading(Reading {
        value: Value::Number { value: Decimal::new(n as i64, 0), unit: Unit::PerMinute },
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::Unknown,
    })
}

fn draft(n: u64) -> Draft {
    let device = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
    Draft {
        identity: Identity::Arrival,
        device,
        stream: Some(StreamKey { device, user: None, metric: Metric::HeartRate, site: None, modality: Modality::Spot }),
        stamp: Stamp { boot: BootId([9; 16]), arrived: BootMillis(n), device_time: None, device_clock: None, stored: false },
        body: body(n),
        nameplate: None,
    }
}

/// What the first experiments wrote: frames without a checksum, routes without lanes.
fn write_fixture(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &key(), &key()).unwrap();
    let mut store = Store::open(dir.path(), &key(), site(), "gw-1").unwrap();
    let route = store.register_routes(&[("r", "mqtt", true)], 0).unwrap().remove(0).n;
    for commit in 0..COMMITS {
        store.append((0..RECORDS).map(|i| draft(commit * RECORDS + i + 1)).collect()).unwrap();
    }
    let mut lanes = store.lanes(route).unwrap();
    (1..=SETTLED).for_each(|seq| lanes.settle(Seq(seq)));
    store.apply(route, &RouteChange { lanes, ..RouteChange::default() }).unwrap();
    drop(store);
    let connection = raw(&dir.path().join("bedrail.db"));
    connection
        .execute_batch(
            "ALTER TABLE frame DROP COLUMN checksum;
             ALTER TABLE pending RENAME TO newer;
             CREATE TABLE pending(route INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL,
                 last INTEGER NOT NULL, PRIMARY KEY(route, stream, first)) WITHOUT ROWID;
             INSERT INTO pending SELECT route, stream, first, last FROM newer;
             DROP TABLE newer;
             PRAGMA user_version = 0;
             VACUUM;",
        )
        .unwrap();
    drop(connection);
    std::fs::copy(dir.path().join("bedrail.db"), path).unwrap();
}

#[test]
fn a_store_of_an_older_schema_is_brought_up_and_loses_nothing() {
    if std::env::var_os("BEDRAIL_WRITE_FIXTURES").is_some() {
        write_fixture(&fixture());
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(), dir.path().join("bedrail.db")).unwrap();
    let half = Store::open(dir.path(), &key(), site(), "gw-1");
    assert!(matches!(half, Err(StoreError::OlderSchema { found: 0, .. })), "a half does not migrate");
    let prepared = prepare(dir.path(), &key(), &key()).unwrap();
    assert!(!prepared.created_log && prepared.salvaged.is_empty(), "{prepared:?}");
    let mut store = Store::open(dir.path(), &key(), site(), "gw-1").unwrap();
    let records = store.read(Seq(1), OPEN, 1_000).unwrap();
    assert_eq!(records.len() as u64, COMMITS * RECORDS);
    assert!(records.iter().all(|(seq, record)| record.body == body(seq.0)));
    let route = store.route("r").unwrap().unwrap();
    let lanes = store.lanes(route.n).unwrap();
    assert_eq!(lanes.live.iter().collect::<Vec<_>>(), [(Seq(SETTLED + 1), OPEN)]);
    assert_eq!(store.append(vec![draft(1)]).unwrap().records[0].unwrap().0, Seq(COMMITS * RECORDS + 1));
    drop(store);
    let findings = check(dir.path(), &key(), &key(), &site(), &mut |_| {}).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn a_damaged_store_of_an_older_schema_is_salvaged_into_the_newest() {
    const PAGE: usize = 1_024;
    let whole = std::fs::read(fixture()).unwrap();
    let mut lost_some = 0;
    for page in 0..whole.len() / PAGE {
        let dir = tempfile::tempdir().unwrap();
        let mut octets = whole.clone();
        octets[page * PAGE + 99] ^= 1;
        std::fs::write(dir.path().join("bedrail.db"), &octets).unwrap();
        let prepared = prepare_thoroughly(dir.path(), &key(), &key()).unwrap();
        let [damage] = prepared.salvaged.as_slice() else { panic!("page {page}: {prepared:?}") };
        let mut store = Store::open(dir.path(), &key(), site(), "gw-1").unwrap();
        let records = store.read(Seq(1), OPEN, 1_000).unwrap();
        let kept = records.iter().filter(|(seq, record)| record.body == body(seq.0)).count() as u64;
        assert_eq!(kept, damage.kept, "page {page}: {damage:?}");
        let all = kept == COMMITS * RECORDS;
        assert!(
            all || (kept.is_multiple_of(RECORDS) && damage.tables == ["frame"]),
            "page {page}: a frame is whole or gone: {damage:?}"
        );
        lost_some += u32::from(!all);
        let route = store.register_routes(&[("r", "mqtt", true)], 0).unwrap().remove(0);
        let live: Vec<_> = store.lanes(route.n).unwrap().live.iter().collect();
        if !damage.sends_again && all {
            assert_eq!(live, [(Seq(SETTLED + 1), OPEN)], "page {page}");
        }
    }
    assert!(lost_some > 0);
}

#[test]
fn a_store_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &key(), &key()).unwrap();
    let path = dir.path().join("bedrail.db");
    raw(&path).execute_batch("PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(&path).unwrap();
    let result = prepare(dir.path(), &key(), &key());
    assert!(matches!(result, Err(StoreError::NewerSchema { found: 99, .. })), "{result:?}");
    assert!(result.unwrap_err().to_string().contains("newer"));
    assert!(std::fs::read(&path).unwrap() == before);
    assert!(!dir.path().join("bedrail.db.damaged-1").exists());
}
