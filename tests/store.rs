//! What the store promises: identity, one place per record and route, wrong keys told from damage, a chained audit trail.

use std::path::Path;

use bedrail::deliver::Lane;
use bedrail::reading::*;
use bedrail::store::key::{self, DataKey};
use bedrail::store::{AuditEntry, Draft, Held, Identity, OPEN, RouteChange, Store, StoreError, WardStore, check, lock, prepare};
use bedrail::ward::HoldReason;

const BOOT: BootId = BootId([9; 16]);
const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
const BP: u128 = 0x2A35;

struct Fixture {
    dir: tempfile::TempDir,
    key: DataKey,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap(), key: DataKey::new([7; 32]) };
        prepare(fixture.dir.path(), &fixture.key, &DataKey::new([8; 32])).unwrap();
        fixture
    }

    fn open(&self) -> Store {
        self.open_as("gw-1")
    }

    fn open_as(&self, gateway: &str) -> Store {
        Store::open(self.dir.path(), &self.key, SiteKey::new(&[1; 32]), gateway).unwrap()
    }
}

fn stamp(arrived: u64) -> Stamp {
    Stamp { boot: BOOT, arrived: BootMillis(arrived), device_time: None, device_clock: None, stored: false }
}

fn stream(metric: Metric) -> StreamKey {
    StreamKey { device: CUFF, user: None, metric, site: None, modality: Modality::Spot }
}

fn reading(value: i64) -> Body {
    Body::Reading(Reading {
        value: Value::Number { value: Decimal::new(value, 0), unit: Unit::PerMinute },
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::Unknown,
    })
}

fn arrival(value: i64) -> Draft {
    Draft {
        identity: Identity::Arrival,
        device: CUFF,
        stream: Some(stream(Metric::PulseRateCuff)),
        stamp: stamp(value as u64),
        body: reading(value),
        nameplate: None,
    }
}

/// A draft as the collect half makes it from a value under a sequence number and a base time.
fn sent(sequence: u32, base_time: &[u8], octets: &[u8]) -> Draft {
    let key = SiteKey::new(&[1; 32]);
    let id = key.sent_id(CUFF, None, BP, Some(sequence), Some(base_time), Metric::PulseRateCuff, 0);
    let digest = octets.iter().chain([0; 8].iter()).copied().take(8).collect::<Vec<_>>().try_into().unwrap();
    Draft { identity: Identity::Sent { id, digest, conflict: key.conflict_id(id, octets) }, ..arrival(i64::from(octets[0])) }
}

fn all(store: &Store) -> Vec<(Seq, Record)> {
    store.read(Seq(1), OPEN, usize::MAX).unwrap()
}

#[test]
fn records_come_back_in_order_over_frames_and_after_reopening() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.append((0..5).map(arrival).collect()).unwrap();
    store.append((5..6).map(arrival).collect()).unwrap();
    store.append((6..20).map(arrival).collect()).unwrap();
    drop(store);
    let store = fixture.open();
    let records = all(&store);
    assert_eq!(store.head().unwrap(), Seq(20));
    assert_eq!(records.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert!(records.iter().enumerate().all(|(i, (_, record))| record.body == reading(i as i64)));
    let middle = store.read(Seq(4), Seq(8), 3).unwrap();
    assert_eq!(middle.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(store.read(Seq(21), OPEN, 10).unwrap().is_empty());
}

#[test]
fn a_stream_that_another_has_begun_is_read_as_well() {
    let fixture = Fixture::new();
    let reader = fixture.open();
    fixture.open().append(vec![arrival(60), arrival(61)]).unwrap();
    let mut read = Vec::new();
    reader.read_stream_back(&stream(Metric::PulseRateCuff), |_, _| true, |seq, _| read.push(seq.0)).unwrap();
    assert_eq!(read, [1, 2]);
}

#[test]
fn the_same_octets_under_the_same_identity_are_one_record() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let first = store.append(vec![sent(1, b"t0", b"aaa"), sent(2, b"t0", b"bbb")]).unwrap();
    let again = store.append(vec![sent(1, b"t0", b"aaa"), sent(2, b"t0", b"bbb"), sent(3, b"t0", b"ccc")]).unwrap();
    assert_eq!((first.duplicates, again.duplicates), (0, 2));
    assert_eq!(again.records.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(all(&store).len(), 3);
}

#[test]
fn a_meter_whose_clock_and_sequence_restart_loses_nothing() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    // Before and after a battery change: the same sequence numbers, the same base times, other values; and each sent twice.
    for _ in 0..2 {
        store.append(vec![sent(1, b"2000-01-01", b"100"), sent(2, b"2000-01-01", b"101")]).unwrap();
        store
            .append(vec![sent(1, b"2000-01-01", b"200"), sent(2, b"2000-01-02", b"101"), sent(1, b"2000-01-01", b"300")])
            .unwrap();
    }
    let records = all(&store);
    assert_eq!(records.len(), 5, "three values under one identity, two under others");
    let ids: std::collections::BTreeSet<_> = records.iter().map(|(_, record)| record.id).collect();
    assert_eq!(ids.len(), 5, "no two records share an id");
    let conflicts = records.iter().filter(|(_, r)| matches!(&r.body, Body::Reading(r) if r.flags == [Flag::Conflict])).count();
    assert_eq!(conflicts, 2, "the second and third value under one identity say so");
}

#[test]
fn two_gateways_with_one_site_key_mint_one_id_for_what_the_device_names() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let id = |fixture: &Fixture, gateway: &str, draft: Draft| {
        fixture.open_as(gateway).append(vec![draft]).unwrap().records[0].unwrap().1
    };
    assert_eq!(id(&here, "gw-1", sent(7, b"t", b"x")), id(&there, "gw-2", sent(7, b"t", b"x")));
    assert_ne!(id(&here, "gw-1", arrival(1)), id(&there, "gw-2", arrival(1)), "nothing names these but the log they are in");
}

#[test]
fn a_rebuilt_store_of_the_same_boot_does_not_mint_the_ids_of_the_old_one() {
    let (old, rebuilt) = (Fixture::new(), Fixture::new());
    let id = |fixture: &Fixture| fixture.open().append(vec![arrival(1)]).unwrap().records[0].unwrap().1;
    assert_ne!(id(&old), id(&rebuilt));
}

#[test]
fn what_a_device_told_of_itself_stays_with_each_of_its_records() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let told = |serial: &str| Some(Nameplate { serial: Some(serial.to_owned()), model: Some("3230".to_owned()) });
    let drafts = [None, told("501"), told("666"), Some(Nameplate::default())];
    let drafts: Vec<Draft> =
        drafts.into_iter().enumerate().map(|(n, nameplate)| Draft { nameplate, ..arrival(n as i64) }).collect();
    store.append(drafts.clone()).unwrap();
    store.append(vec![arrival(9)]).unwrap();
    let kept: Vec<Option<Nameplate>> = all(&store).into_iter().map(|(_, record)| record.nameplate).collect();
    assert_eq!(kept, drafts.into_iter().map(|draft| draft.nameplate).chain([None]).collect::<Vec<_>>());
    drop(store);
    let findings = check(fixture.dir.path(), &fixture.key, &DataKey::new([8; 32]), &SiteKey::new(&[1; 32]), &mut |_| {}).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn a_window_made_again_is_the_next_version_of_itself() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let id = RecordId([5; 16]);
    let window = |side| Draft { identity: Identity::Window { id, side }, ..arrival(1) };
    for draft in [window(false), window(false), window(true), window(false)] {
        store.append(vec![draft]).unwrap();
    }
    assert_eq!(all(&store).iter().map(|(_, r)| r.version).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(store.newest_versions([id].into_iter(), false).unwrap()[&id], 4);
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.append(vec![window(false), window(true)]).unwrap();
    assert_eq!(store.newest_versions([id].into_iter(), false).unwrap()[&id], 1, "a side does not replace it for who takes none");
    assert_eq!(store.newest_versions([id].into_iter(), true).unwrap()[&id], 2);
}

#[test]
fn a_route_starts_at_the_head_or_at_the_oldest_and_owns_what_comes() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.append((0..10).map(arrival).collect()).unwrap();
    let routes = store.register_routes(&[("now", "mqtt", false), ("oldest", "mqtt", true)], 0).unwrap();
    store.append((10..13).map(arrival).collect()).unwrap();
    let head = store.head().unwrap();
    assert_eq!(store.lanes(routes[0].n).unwrap().live.count_to(head), 3);
    assert_eq!(store.lanes(routes[1].n).unwrap().live.count_to(head), 13);
    let again = store.register_routes(&[("now", "mqtt", true)], 1).unwrap();
    assert_eq!(again[0].n, routes[0].n, "a restart changes nothing");
    assert_eq!(store.lanes(routes[0].n).unwrap().live.count_to(head), 3);
    assert!(store.route("oldest").unwrap().unwrap().orphaned, "it left the config and is shown as such");
}

#[test]
fn per_route_a_record_is_in_exactly_one_place() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let route = store.register_routes(&[("r", "mqtt", true)], 0).unwrap().remove(0).n;
    store.append((0..10).map(arrival).collect()).unwrap();
    let mut lanes = store.lanes(route).unwrap();
    lanes.split_at(Seq(6));
    let held = Held {
        device: CUFF,
        stream: Some(stream(Metric::PulseRateCuff)),
        reason: HoldReason::NoAssignment,
        first: Seq(3),
        last: Seq(4),
        count: 2,
    };
    (1..=4).for_each(|seq| lanes.settle(Seq(seq)));
    let change = RouteChange { lanes, hold: vec![held], tally: [("sent".to_owned(), 2)].into(), ..RouteChange::default() };
    store.apply(route, &change).unwrap();
    drop(store);
    let mut store = fixture.open();
    let lanes = store.lanes(route).unwrap();
    assert_eq!(lanes.backlog.iter().collect::<Vec<_>>(), [(Seq(5), Seq(6))]);
    assert_eq!(lanes.live.iter().collect::<Vec<_>>(), [(Seq(7), OPEN)]);
    assert_eq!(store.held(route).unwrap(), [held]);
    let mut lanes = lanes;
    lanes.backlog.insert(Seq(3), Seq(3));
    let rest = Held { first: Seq(4), count: 1, ..held };
    let release = RouteChange { lanes, release: vec![held], hold: vec![rest], ..RouteChange::default() };
    store.apply(route, &release).unwrap();
    assert_eq!(store.held(route).unwrap(), [rest]);
    assert!(store.lanes(route).unwrap().backlog.contains(Seq(3)));
    assert_eq!(store.tally(route).unwrap()["sent"], 2);
    assert_eq!((Lane::Live.name(), Lane::Backlog.name()), ("live", "backlog"));
}

#[test]
fn a_wrong_credential_is_told_from_damage_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("bedrail.db");
    key::create_envelope(&database, "store-key", &[1; 32]).unwrap();
    let data_key = key::data_key(&database, "store-key", &[1; 32]).unwrap();
    prepare(dir.path(), &data_key, &data_key).unwrap();
    let before = std::fs::read(&database).unwrap();
    assert!(matches!(key::data_key(&database, "store-key", &[2; 32]), Err(StoreError::WrongKey { .. })));
    assert_eq!(std::fs::read(&database).unwrap(), before, "a wrong credential changes nothing");
    let mut damaged = before;
    damaged[100..200].fill(0);
    std::fs::write(&database, &damaged).unwrap();
    assert_eq!(prepare(dir.path(), &data_key, &data_key).unwrap().salvaged.len(), 1);
    let aside = dir.path().join("bedrail.db.damaged-1");
    assert_eq!(std::fs::read(aside).unwrap(), damaged, "a file that does not open is left as it is");
}

#[test]
fn a_half_neither_creates_nor_migrates() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &Path| Store::open(dir, &DataKey::new([7; 32]), SiteKey::new(&[1; 32]), "gw");
    assert!(matches!(open(dir.path()), Err(StoreError::Missing { .. })));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was created");
}

#[test]
fn preparing_waits_for_nobody_while_a_half_holds_the_store() {
    let fixture = Fixture::new();
    let half = lock::shared(fixture.dir.path()).unwrap();
    let _other_half = lock::shared(fixture.dir.path()).unwrap();
    let again = prepare(fixture.dir.path(), &fixture.key, &DataKey::new([8; 32]));
    assert!(matches!(again, Err(StoreError::Locked { .. })));
    drop((half, _other_half));
    assert!(prepare(fixture.dir.path(), &fixture.key, &DataKey::new([8; 32])).is_ok());
}

/// What a half leaves behind when it is not waited for any longer: a thread in the middle of a slow fsync.
#[test]
fn nobody_prepares_the_store_while_a_thread_still_has_it_open() {
    let fixture = Fixture::new();
    let ward_key = DataKey::new([8; 32]);
    let prepare = || prepare(fixture.dir.path(), &fixture.key, &ward_key);
    let ward = WardStore::open(&fixture.dir.path().join("ward.db"), &ward_key).unwrap();
    for open in [Box::new(fixture.open()) as Box<dyn std::any::Any + Send>, Box::new(ward)] {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let left_behind = std::thread::spawn(move || {
            let _ = ended.recv();
            drop(open);
        });
        assert!(matches!(prepare(), Err(StoreError::Locked { .. })));
        drop(end);
        left_behind.join().unwrap();
    }
    assert!(prepare().is_ok());
}

#[test]
fn a_changed_audit_row_is_named() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..4 {
        let entry = AuditEntry {
            boot: BOOT,
            at: BootMillis(n),
            wall: None,
            actor: "root".into(),
            action: "assign".into(),
            object: format!("device {n}"),
            detail: String::new(),
        };
        store.audit(&entry).unwrap();
    }
    assert_eq!(store.verify_audit().unwrap().map(|entries| entries.len()), Ok(4));
    drop(store);
    // The chain is keyed by the site key: rows forged under another do not continue it.
    let store = Store::open(fixture.dir.path(), &fixture.key, SiteKey::new(&[2; 32]), "gw-1").unwrap();
    assert_eq!(store.verify_audit().unwrap(), Err(1));
}
