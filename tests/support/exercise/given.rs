//! What a script begins with: files, and what a sound start makes of them.

use std::collections::BTreeMap;
use std::path::Path;

use bedrail::hex;
use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{Damage, Lanes, OPEN, RouteChange, Store, WardStore, prepare};
use rusqlite::Connection;

use super::state::{State, look, without_id};
use super::values::*;
use super::{Script, open};

pub type Files = BTreeMap<String, Vec<u8>>;

const PAGE: usize = 1_024;
/// What `tests/migrates.rs` wrote with the older schema: so many heart rates, of which the route had settled some.
const OLDER_RECORDS: u64 = 120;
const OLDER_SETTLED: u64 = 40;
/// Commits of four that fill a page of the worn store, in its file and in its write-ahead log, and what the route had settled.
const WORN_COMMITS: u64 = 20;
const WORN_COMMITS_IN_LOG: u64 = 5;
const WORN_SETTLED: u64 = 30;
const WORN_EVENTS: u64 = 100;
/// Files that must be found again, octet for octet, wherever a salvage is cut short: by their names or set aside.
const DAMAGED: [&str; 3] = ["bedrail.db", "bedrail.db-wal", "ward.db"];

pub struct Given {
    pub script: Script,
    pub files: Files,
    pub state: State,
    /// What must stay as it was, with its ids.
    pub records: Vec<(Seq, Record)>,
}

impl Given {
    pub fn new(script: Script) -> Self {
        match script {
            Script::Day => Self { script, files: Files::new(), state: State::default(), records: Vec::new() },
            Script::Migration => older(script, older_file()),
            Script::MigrationWithLog => older(script, older_with_log()),
            Script::Salvage => worn(script),
        }
    }

    pub fn write_to(&self, dir: &Path) {
        write(dir, &self.files);
    }

    /// Before a start: what was damaged is there, whatever a salvage had done with it when it was cut short.
    pub fn is_somewhere_in(&self, dir: &Path) -> Result<(), String> {
        if self.script != Script::Salvage {
            return Ok(());
        }
        let there = read(dir);
        let is_there = |name: &str| [name.to_owned(), aside(name)].iter().any(|now| there.get(now) == self.files.get(name));
        match DAMAGED.iter().find(|name| !is_there(name)) {
            Some(name) => Err(format!("{name}, as it was damaged, is gone: {:?}", there.keys())),
            None => Ok(()),
        }
    }

    /// After a start: set aside as it was, once, and nothing half done is left.
    pub fn is_set_aside_in(&self, dir: &Path) -> Result<(), String> {
        if self.script != Script::Salvage {
            return Ok(());
        }
        let there = read(dir);
        let is_aside = |name: &str| there.get(&aside(name)) == self.files.get(name);
        if let Some(name) = DAMAGED.iter().find(|name| !is_aside(name)) {
            return Err(format!("{name} is not set aside as it was: {:?}", there.keys()));
        }
        let stray = |name: &&String| [".salvage", ".damaged-2", ".suspect"].iter().any(|stray| name.contains(stray));
        there.keys().find(stray).map_or(Ok(()), |name| Err(format!("{name} is left")))
    }
}

/// A file of the older schema holds the same as one of the newest.
fn older(script: Script, files: Files) -> Given {
    let live = [(Seq(OLDER_SETTLED + 1), OPEN)].into_iter().collect();
    let state = State {
        records: (1..=OLDER_RECORDS).map(|n| (Seq(n), older_record(n))).collect(),
        route: Some("r".into()),
        lanes: Lanes { live, ..Lanes::default() },
        ..State::default()
    };
    let (found, records) = started(&files);
    assert!(found == state, "the fixture is not what it was: {}", state.difference(&found));
    Given { script, files, state, records }
}

fn older_record(n: u64) -> Record {
    let (stream, draft) = (StreamKey { metric: Metric::HeartRate, ..stream(CUFF) }, arrival(CUFF, n as i64));
    Record {
        id: RecordId([0; 16]),
        version: 1,
        device: CUFF,
        stream: Some(stream),
        stamp: draft.stamp,
        body: draft.body,
        nameplate: None,
    }
}

fn older_file() -> Files {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-0/bedrail.db");
    [("bedrail.db".to_owned(), std::fs::read(fixture).expect("the fixture"))].into()
}

/// The last commits are taken out of the file and made again, and not written back.
fn older_with_log() -> Files {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &older_file());
    let connection = Connection::open(dir.path().join("bedrail.db")).expect("the fixture opens");
    connection.pragma_update(None, "key", format!("x'{}'", hex::encode(&LOG_KEY))).expect("a key");
    connection.pragma_update(None, "cipher_page_size", 1_024).expect("its page size");
    connection
        .execute_batch(
            "CREATE TEMP TABLE last AS SELECT * FROM frame WHERE first > 90;
             DELETE FROM frame WHERE first > 90;
             UPDATE pending SET first = 21;
             PRAGMA wal_checkpoint(TRUNCATE);
             INSERT INTO frame SELECT * FROM last WHERE first = 91;
             INSERT INTO frame SELECT * FROM last WHERE first = 101;
             UPDATE pending SET first = 41;
             INSERT INTO frame SELECT * FROM last WHERE first = 111;",
        )
        .expect("the older schema");
    let mut files = read(dir.path());
    files.retain(|name, _| !name.ends_with("-shm"));
    assert!(files["bedrail.db-wal"].len() > 4 * PAGE, "the commits are in the log");
    files
}

/// A page of frames and a page of events are bad, which no start notices by itself; a half did.
fn worn(script: Script) -> Given {
    let (sound, original) = worn_files();
    let mut files = sound.clone();
    let is_taken = |damage: &Damage| {
        let events = damage.file == "ward.db" && damage.tables == ["event"];
        damage.missing > 0 && !damage.end_unknown && (events || damage.tables == ["frame"])
    };
    for name in ["bedrail.db", "ward.db"] {
        let bad = |page: &usize| {
            let mut files = sound.clone();
            files.get_mut(name).expect("it is there")[page * PAGE + 99] ^= 1;
            let (state, _) = started(&files);
            matches!(state.damage.as_slice(), [damage] if is_taken(damage)).then_some(files[name].clone())
        };
        let pages = sound[name].len() / PAGE;
        files.insert(name.into(), (1..pages).rev().find_map(|page| bad(&page)).expect("a page of records, not the last of them"));
    }
    let (state, _) = started(&files);
    assert_eq!(state.damage.iter().map(|damage| damage.file.as_str()).collect::<Vec<_>>(), ["bedrail.db", "ward.db"]);
    each_is_kept_or_counted_once(&original, &state);
    // Each salvage draws its own ids for the gap records.
    let records = original.into_iter().filter(|(seq, _)| state.holds(*seq)).collect();
    Given { script, files, state, records }
}

/// As they lie while the store is in use.
fn worn_files() -> (Files, Vec<(Seq, Record)>) {
    let dir = tempfile::tempdir().expect("a directory");
    prepare(dir.path(), &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY)).expect("prepared");
    let (mut store, mut ward) = open(dir.path()).expect("opens");
    let route = store.register_routes(&[(ROUTE, "mqtt", true)], 0).expect("registered")[0].n;
    store.add_anchor(&anchor()).expect("anchored");
    store.audit(&entry("assign")).expect("audited");
    append(&mut store, 0..WORN_COMMITS);
    let mut change =
        RouteChange { lanes: store.lanes(route).expect("lanes"), hold: vec![held(40, 10)], ..RouteChange::default() };
    (1..=WORN_SETTLED).chain(40..50).for_each(|seq| change.lanes.settle(Seq(seq)));
    store.apply(route, &change).expect("applied");
    let events = (0..WORN_EVENTS).map(|n| {
        let change = bedrail::ward::Change::Occupy { bed: format!("bed {n}"), subject: subject() };
        (NOW, NOW, bedrail::ward::EventSource::Command, "root".to_owned(), change)
    });
    ward.append(events.collect()).expect("appended");
    // The write-ahead logs go into the databases when the last connection closes.
    drop((store, ward));
    let (mut store, _) = open(dir.path()).expect("opens");
    append(&mut store, WORN_COMMITS..WORN_COMMITS + WORN_COMMITS_IN_LOG);
    let original = store.read(Seq(1), OPEN, 1_000).expect("read");
    let mut files = read(dir.path());
    files.retain(|name, _| !name.ends_with("-shm") && !name.ends_with(".lock"));
    assert!(files["bedrail.db-wal"].len() > 4 * PAGE, "commits are in the log");
    for name in ["bedrail.db.suspect", "ward.db.suspect"] {
        files.insert(name.into(), Vec::new());
    }
    (files, original)
}

/// Commits of four that no compressor makes small.
fn append(store: &mut Store, commits: std::ops::Range<u64>) {
    for commit in commits {
        let noise = |i: u64| ((commit * 997 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as i32;
        let body = |n: u64| {
            Body::Waveform(Waveform {
                origin: Decimal::new(0, 0),
                scale: Decimal::new(1, 0),
                unit: Unit::PerMinute,
                period_us: 1,
                samples: (0..64).map(|i| noise(n * 64 + i)).collect(),
            })
        };
        let drafts = (0..4).map(|n| bedrail::store::Draft { body: body(n), ..arrival(STRAP, (commit * 4 + n) as i64) });
        store.append(drafts.collect()).expect("appended");
    }
}

/// What every cut is held against is itself held against what was there: nothing changed, nothing counted twice or not at all.
fn each_is_kept_or_counted_once(original: &[(Seq, Record)], state: &State) {
    let gaps: Vec<&Gap> = state
        .records
        .iter()
        .filter_map(|(_, record)| match &record.body {
            Body::Gap(gap) => Some(gap),
            _ => None,
        })
        .collect();
    for (seq, record) in original {
        let kept = state.records.contains(&(*seq, without_id(record)));
        let counted = gaps.iter().filter(|gap| gap.run.is_some_and(|(first, last)| first <= *seq && *seq <= last)).count();
        assert_eq!(usize::from(kept) + counted, 1, "record {seq}");
    }
    let kept = state.records.len() - gaps.len();
    assert_eq!(kept as u64 + gaps.iter().map(|gap| gap.count).sum::<u64>(), original.len() as u64);
    assert!(!gaps.is_empty() && kept > original.len() / 2);
    assert!(state.ward_is_incomplete && state.events.len() > WORN_EVENTS as usize / 3);
}

/// What an undisturbed start makes of these files.
fn started(files: &Files) -> (State, Vec<(Seq, Record)>) {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), files);
    prepare(dir.path(), &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY)).expect("prepared");
    let (store, ward): (Store, WardStore) = open(dir.path()).expect("opens");
    look(&store, &ward).expect("read").expect("sound")
}

fn aside(name: &str) -> String {
    let (base, suffix) = name.split_at(name.find("-wal").unwrap_or(name.len()));
    format!("{base}.damaged-1{suffix}")
}

pub fn write(dir: &Path, files: &Files) {
    files.iter().for_each(|(name, content)| std::fs::write(dir.join(name), content).expect("written"));
}

pub fn read(dir: &Path) -> Files {
    let entries = std::fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry"));
    entries.map(|e| (e.file_name().into_string().expect("a plain name"), std::fs::read(e.path()).expect("read"))).collect()
}
