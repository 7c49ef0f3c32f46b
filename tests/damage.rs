//! What a bad card, a cut-off file or a lost one does to the store: it opens again by itself, everything that can be read is
//! there, what can't be is counted, and the damaged file lies beside it as it was. `BEDRAIL_LONG=1` (`make long-damage`)
//! damages every page, the short form every few.

#![allow(clippy::unwrap_used)]

#[path = "support/exerciser.rs"]
mod exerciser;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{
    AuditEntry, Draft, Identity, OPEN, RouteChange, Store, StoreError, WardStore, check, prepare, prepare_thoroughly, suspect,
};
use bedrail::ward::{Change, EventSource, Phi};
use exerciser::{long, scratch};

const PAGE: usize = 1_024;
const WAL_FRAME: usize = PAGE + 24;
const BOOT: BootId = BootId([9; 16]);
const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
const RECORDS_A_COMMIT: u64 = 4;
const COMMITS: u64 = 120;
/// What the route had settled before the damage.
const SETTLED: u64 = 60;

fn log_key() -> DataKey {
    DataKey::new([7; 32])
}

fn ward_key() -> DataKey {
    DataKey::new([8; 32])
}

/// Of `count` pages all in the long form, else every few and those at both ends, where what is no record lies.
fn some(count: usize, stride: usize) -> Vec<usize> {
    (0..count).filter(|page| long() || page % stride == 0 || *page < 3 || page + 3 >= count).collect()
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, &log_key(), SiteKey::new(&[1; 32]), "gw-1")
}

/// Noise, so that a few records fill a page: what costs time here is the number of them.
fn draft(n: u64) -> Draft {
    let metric = [Metric::PulseRateCuff, Metric::HeartRate, Metric::Spo2][(n % 3) as usize];
    Draft {
        identity: Identity::Arrival,
        device: CUFF,
        stream: Some(StreamKey { device: CUFF, user: None, metric, site: None, modality: Modality::Spot }),
        stamp: Stamp { boot: BOOT, arrived: BootMillis(n), device_time: None, device_clock: None, stored: false },
        body: Body::Waveform(Waveform {
            origin: Decimal::new(0, 0),
            scale: Decimal::new(1, 0),
            unit: Unit::PerMinute,
            period_us: 1,
            samples: (0..16u64).map(|i| ((n * 16 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as i32).collect(),
        }),
        nameplate: None,
    }
}

fn entry(n: u64) -> AuditEntry {
    let text = |text: &str| text.to_owned();
    AuditEntry {
        boot: BOOT,
        at: BootMillis(n),
        wall: None,
        actor: text("root"),
        action: text("assign"),
        object: format!("device {n}"),
        detail: text(""),
    }
}

/// A store with a route that has settled some of it, files as they lie while it is in use: part of it in the write-ahead log.
struct Original {
    files: BTreeMap<&'static str, Vec<u8>>,
    records: BTreeMap<Seq, Record>,
}

impl Original {
    fn new(checkpointed: bool) -> Self {
        let dir = scratch();
        prepare(dir.path(), &log_key(), &ward_key()).unwrap();
        let mut store = open(dir.path()).unwrap();
        let route = store.register_routes(&[("r", "mqtt", true)], 0).unwrap().remove(0).n;
        let mut n = 0;
        for commit in 0..COMMITS {
            store.append((0..RECORDS_A_COMMIT).map(|i| draft(n + i)).collect()).unwrap();
            n += RECORDS_A_COMMIT;
            if commit % 10 == 0 {
                store.audit(&entry(n)).unwrap();
            }
            if commit == COMMITS / 2 {
                let anchor = Anchor {
                    boot: BOOT,
                    at: BootMillis(0),
                    wall: Timestamp(1_700_000_000_000),
                    quality: ClockQuality::Ntp,
                    uncertainty_ms: 10,
                };
                store.add_anchor(&anchor).unwrap();
                store.append_and_mark(vec![], &[("stored.cuff.last", 40), ("clock.cuff.offset", 7)]).unwrap();
                let mut lanes = store.lanes(route).unwrap();
                (1..=SETTLED).for_each(|seq| lanes.settle(Seq(seq)));
                store.apply(route, &RouteChange { lanes, ..RouteChange::default() }).unwrap();
                // The write-ahead log goes into the database when the last connection closes.
                drop(store);
                store = open(dir.path()).unwrap();
            }
        }
        if checkpointed {
            drop(store);
            store = open(dir.path()).unwrap();
        }
        let records = all(&store).unwrap();
        let read = |name| (name, std::fs::read(dir.path().join(name)).unwrap_or_default());
        let files = [read("bedrail.db"), read("bedrail.db-wal"), read("ward.db")].into();
        Self { files, records }
    }

    /// The files in a directory of their own, `name` changed by `damage`.
    fn damaged(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
        let dir = scratch();
        for (file, octets) in &self.files {
            std::fs::write(dir.path().join(file), octets).unwrap();
        }
        for made in ["bedrail.db.made", "ward.db.made"] {
            std::fs::write(dir.path().join(made), b"").unwrap();
        }
        let path = dir.path().join(name);
        let mut octets = std::fs::read(&path).unwrap();
        damage(&mut octets);
        std::fs::write(path, octets).unwrap();
        dir
    }

    fn pages(&self) -> usize {
        self.files["bedrail.db"].len() / PAGE
    }
}

fn all(store: &Store) -> Result<BTreeMap<Seq, Record>, StoreError> {
    let (mut records, mut next) = (BTreeMap::new(), Seq(1));
    loop {
        let some = store.read(next, OPEN, 1_000)?;
        let Some((last, _)) = some.last() else { return Ok(records) };
        next = last.next();
        records.extend(some);
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Flipped,
    Zeroed,
    CutOff,
}

impl Fault {
    const ALL: [Fault; 3] = [Fault::Flipped, Fault::Zeroed, Fault::CutOff];

    fn strike(self, octets: &mut Vec<u8>, at: usize, length: usize) {
        match self {
            Fault::Flipped => octets[at + (at / PAGE * 37) % length] ^= 0x10,
            Fault::Zeroed => octets[at..at + length].fill(0),
            Fault::CutOff => octets.truncate(at),
        }
    }
}

struct Outcome {
    found: u64,
    missing: u64,
    salvaged: bool,
    /// A gap record says that more may be missing than could be counted.
    end_unknown: bool,
}

/// Prepares a damaged store as `bedrail store salvage` does, and holds it against what was in it.
fn recover(original: &Original, dir: &Path, what: &str) -> Outcome {
    let before: Vec<Vec<u8>> =
        ["bedrail.db", "bedrail.db-wal"].iter().map(|name| std::fs::read(dir.join(name)).unwrap_or_default()).collect();
    let prepared = prepare_thoroughly(dir, &log_key(), &ward_key()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let salvaged = !prepared.salvaged.is_empty();
    if salvaged {
        let aside = |suffix: &str| std::fs::read(dir.join(format!("bedrail.db.damaged-1{suffix}"))).unwrap_or_default();
        assert!(aside("") == before[0] && aside("-wal") == before[1], "{what}: the damaged files are not as they were");
    }
    let mut store = open(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let records = all(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (mut found, mut counted, mut head, mut end_unknown) = (0, 0, 0, false);
    for (seq, record) in &records {
        head = seq.0;
        if let Body::Gap(gap) = &record.body {
            assert_eq!(gap.reason, GapReason::Damaged);
            let Some((first, last)) = gap.run else {
                end_unknown = true;
                continue;
            };
            assert_eq!(gap.count, last.0 - first.0 + 1, "{what}");
            assert!((first.0..=last.0).all(|n| !records.contains_key(&Seq(n))), "{what}: a gap over records that are there");
            counted += gap.count;
            continue;
        }
        assert_eq!(original.records.get(seq), Some(record), "{what}: {seq} was not so");
        found += 1;
    }
    let route = store.routes().unwrap();
    let owed = match route.first() {
        Some(route) => store.lanes(route.n).unwrap(),
        // A route that is lost is registered anew, and owes everything.
        None => {
            let row = store.register_routes(&[("r", "mqtt", false)], 0).unwrap().remove(0);
            store.lanes(row.n).unwrap()
        }
    };
    let due = |seq: &Seq| owed.live.contains(*seq) || owed.backlog.contains(*seq);
    assert!(records.keys().filter(|seq| seq.0 > SETTLED).all(due), "{what}: a record nobody owes any more");
    let next = store.append(vec![draft(1)]).unwrap().records[0].unwrap().0;
    assert!(next.0 > head, "{what}: {next} was given before");
    assert_eq!(store.damage().unwrap().len(), usize::from(salvaged), "{what}");
    let damage = check(dir, &log_key(), &ward_key(), &SiteKey::new(&[1; 32]), &mut |_| {}).unwrap();
    // A row of the audit trail that is gone breaks the chain, and is told.
    let mut bad = damage.iter().filter(|finding| finding.is_damage() && !finding.what.contains("audit"));
    assert_eq!(bad.next(), None, "{what}");
    assert_eq!(prepared.salvaged.iter().map(|damage| damage.missing).sum::<u64>(), counted, "{what}");
    Outcome { found, missing: counted, salvaged, end_unknown }
}

#[test]
fn whichever_page_is_bad_all_that_can_be_read_is_there_and_the_rest_is_counted() {
    let original = Original::new(true);
    let total = original.records.len() as u64;
    assert!(original.pages() >= 40, "{} pages", original.pages());
    let (mut lost_some, mut end_unknown_in) = (0, 0);
    let pages = some(original.pages(), 8);
    for page in &pages {
        for fault in Fault::ALL {
            let what = format!("page {} {fault:?}", page + 1);
            let dir = original.damaged("bedrail.db", |octets| fault.strike(octets, page * PAGE, PAGE));
            let Outcome { found, missing, salvaged, end_unknown } = recover(&original, dir.path(), &what);
            if matches!(fault, Fault::CutOff) {
                // What was given a number after the last one that anything readable mentions can't be counted.
                assert!(found + missing <= total, "{what}");
                continue;
            }
            let uncounted = total - found - missing;
            assert!(uncounted == 0 || end_unknown, "{what}: {found} found, {missing} counted as missing");
            // One page holds a few frames; a page of pointers holds none, and takes none with it.
            assert!(missing + uncounted <= 8 * RECORDS_A_COMMIT, "{what}: {missing} missing");
            assert!(salvaged || missing == 0, "{what}");
            lost_some += usize::from(missing > 0);
            end_unknown_in += u64::from(uncounted > 0);
        }
    }
    println!("{} of {} pages damaged, {lost_some} times records were lost and counted", pages.len(), original.pages());
    assert!(lost_some > pages.len() / 2, "the faults did not bite: {lost_some}");
    assert!(end_unknown_in <= 4, "only the page that ends the log may hold what nothing else mentions: {end_unknown_in}");
}

#[test]
fn whichever_page_of_the_write_ahead_log_is_bad_only_what_was_on_it_is_gone() {
    let original = Original::new(false);
    let total = original.records.len() as u64;
    let frames = original.files["bedrail.db-wal"].len() / WAL_FRAME;
    assert!(frames >= 20, "{frames} pages in the log");
    let chosen = some(frames, 6);
    println!("{} of {frames} pages of the log damaged", chosen.len());
    for number in chosen {
        // In the short form each of these flipped; zeroed or cut off, some stand for their neighbours.
        for fault in Fault::ALL.into_iter().take(if long() || number % 4 == 0 { 3 } else { 1 }) {
            let what = format!("page {number} of the log {fault:?}");
            let dir = original.damaged("bedrail.db-wal", |octets| fault.strike(octets, 32 + number * WAL_FRAME, WAL_FRAME));
            let Outcome { found, missing, .. } = recover(&original, dir.path(), &what);
            // A log that was cut off, or whose last commit is torn, is what a power cut leaves: nothing tells them apart.
            let at_the_end = number + 16 >= frames;
            if matches!(fault, Fault::CutOff) || at_the_end {
                assert!(found + missing <= total, "{what}");
            } else {
                assert_eq!(found + missing, total, "{what}: {found} found, {missing} counted as missing");
                assert!(missing <= 8 * RECORDS_A_COMMIT, "{what}: {missing} missing");
            }
        }
    }
    for at in (0..32).step_by(5) {
        let what = format!("octet {at} of the log's header");
        let dir = original.damaged("bedrail.db-wal", |octets| octets[at] ^= 0x01);
        let Outcome { found, missing, .. } = recover(&original, dir.path(), &what);
        assert_eq!((found, missing), (total, 0), "{what}");
    }
}

#[test]
fn damage_that_shows_while_it_runs_is_salvaged_at_the_next_start() {
    let original = Original::new(true);
    let page = original.pages() - 4;
    let dir = original.damaged("bedrail.db", |octets| octets[page * PAGE + 99] ^= 1);
    prepare(dir.path(), &log_key(), &ward_key()).unwrap();
    let store = open(dir.path()).unwrap();
    let error = all(&store).unwrap_err();
    assert!(error.is_damage(), "{error}");
    drop(store);
    suspect(dir.path());
    let prepared = prepare(dir.path(), &log_key(), &ward_key()).unwrap();
    assert_eq!(prepared.salvaged.len(), 1);
    let mut store = open(dir.path()).unwrap();
    assert!(all(&store).unwrap().len() as u64 > COMMITS * RECORDS_A_COMMIT * 9 / 10);
    assert_eq!(store.damage().unwrap(), prepared.salvaged);
    let marks = ["stored.cuff.last", "clock.cuff.offset"].map(|mark| store.mark(mark).unwrap());
    assert_eq!(marks, [None, Some(7)], "what is gone may still be in the devices: they are asked for everything");
    store.acknowledge_damage(&entry(1)).unwrap();
    assert!(store.damage().unwrap().is_empty(), "somebody has seen it");
    drop(store);
    assert!(prepare(dir.path(), &log_key(), &ward_key()).unwrap().salvaged.is_empty(), "once is enough");
}

#[test]
fn a_salvage_that_was_cut_short_is_finished_or_begun_again() {
    let original = Original::new(true);
    let total = original.records.len() as u64;
    let damage = |octets: &mut Vec<u8>| octets[20 * PAGE + 5] ^= 1;
    // Half built: thrown away.
    let dir = original.damaged("bedrail.db", damage);
    std::fs::write(dir.path().join("bedrail.db.salvage"), b"half of it").unwrap();
    let outcome = recover(&original, dir.path(), "half built");
    assert_eq!(outcome.found + outcome.missing, total);
    assert!(!dir.path().join("bedrail.db.salvage").exists());
    // Complete, and killed before, between and after the renames.
    let names = |dir: &Path| -> Vec<PathBuf> { std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect() };
    for renamed in 0..3 {
        let dir = original.damaged("bedrail.db", damage);
        for suffix in ["-wal", "-journal"] {
            std::fs::write(dir.path().join(format!("bedrail.db{suffix}")), b"of the damaged file").unwrap();
        }
        let done = original.damaged("bedrail.db", damage);
        prepare_thoroughly(done.path(), &log_key(), &ward_key()).unwrap();
        std::fs::copy(done.path().join("bedrail.db"), dir.path().join("bedrail.db.salvaged-1")).unwrap();
        for suffix in ["-wal", ""].iter().take(renamed) {
            let from = dir.path().join(format!("bedrail.db{suffix}"));
            std::fs::rename(from, dir.path().join(format!("bedrail.db.damaged-1{suffix}"))).unwrap();
        }
        let opened = open(dir.path()).map(drop);
        assert!(matches!(opened, Err(StoreError::Unfinished { .. })), "what is promised in it now would be lost: {opened:?}");
        if renamed == 1 {
            // Somebody looked at it meanwhile.
            std::fs::write(dir.path().join("bedrail.db-wal"), b"").unwrap();
        }
        prepare(dir.path(), &log_key(), &ward_key()).unwrap();
        let store = open(dir.path()).unwrap();
        assert_eq!(store.damage().unwrap().len(), 1);
        assert!(all(&store).unwrap().len() as u64 >= total - 8 * RECORDS_A_COMMIT);
        for suffix in ["-wal", "-journal"] {
            let aside = std::fs::read(dir.path().join(format!("bedrail.db.damaged-1{suffix}"))).unwrap();
            assert!(aside == b"of the damaged file", "{suffix}, {renamed} renamed");
        }
        assert!(names(dir.path()).iter().all(|path| !path.to_string_lossy().contains("salvaged")));
    }
}

#[test]
fn a_key_that_opens_no_page_changes_nothing() {
    let original = Original::new(false);
    let dir = original.damaged("bedrail.db", |_| {});
    let result = prepare_thoroughly(dir.path(), &DataKey::new([9; 32]), &ward_key());
    assert!(matches!(result, Err(StoreError::Foreign { .. })), "{result:?}");
    for name in ["bedrail.db", "bedrail.db-wal"] {
        assert!(std::fs::read(dir.path().join(name)).unwrap() == original.files[name], "{name} was touched");
    }
    assert!(!dir.path().join("bedrail.db.damaged-1").exists());
}

#[test]
fn a_file_that_is_empty_or_gone_is_not_taken_for_a_first_start() {
    let original = Original::new(true);
    let dir = original.damaged("bedrail.db", Vec::clear);
    let prepared = prepare(dir.path(), &log_key(), &ward_key()).unwrap();
    assert_eq!((prepared.salvaged.len(), prepared.created_log), (1, false), "{prepared:?}");
    assert!(!open(dir.path()).unwrap().damage().unwrap().is_empty());
    let dir = original.damaged("bedrail.db", |_| {});
    std::fs::remove_file(dir.path().join("bedrail.db")).unwrap();
    let result = prepare(dir.path(), &log_key(), &ward_key());
    assert!(matches!(result, Err(StoreError::Gone { .. })), "{result:?}");
    assert!(!dir.path().join("bedrail.db").exists(), "nothing was made in its place");
    std::fs::remove_file(dir.path().join("bedrail.db.made")).unwrap();
    assert!(prepare(dir.path(), &log_key(), &ward_key()).unwrap().created_log, "somebody said so");
}

#[test]
fn a_ward_that_can_not_be_read_wholly_says_so_and_keeps_what_it_can() {
    let dir = scratch();
    prepare(dir.path(), &log_key(), &ward_key()).unwrap();
    let path = dir.path().join("ward.db");
    let mut ward = WardStore::open(&path, &ward_key()).unwrap();
    let events = (0..400).map(|n| {
        let change = Change::Occupy { bed: format!("bed {n}"), subject: format!("p-{n:04}").parse().unwrap() };
        (Timestamp(n), Timestamp(n), EventSource::Command, "root".to_owned(), change)
    });
    ward.append(events.collect()).unwrap();
    ward.set_identity(&"p-0001".parse().unwrap(), &Phi::new(b"{\"name\":\"x\"}".to_vec())).unwrap();
    let original = ward.events().unwrap();
    drop(ward);
    let whole = std::fs::read(&path).unwrap();
    let mut incomplete = 0;
    let pages = some(whole.len() / PAGE, 3);
    for page in &pages {
        let dir = scratch();
        prepare(dir.path(), &log_key(), &ward_key()).unwrap();
        let path = dir.path().join("ward.db");
        let mut octets = whole.clone();
        octets[page * PAGE + 1_000] ^= 1;
        std::fs::write(&path, &octets).unwrap();
        let prepared = prepare_thoroughly(dir.path(), &log_key(), &ward_key()).unwrap();
        assert_eq!(prepared.salvaged.len(), 1, "page {page}");
        let ward = WardStore::open(&path, &ward_key()).unwrap();
        let kept = ward.events().unwrap();
        assert!(kept.iter().all(|event| original.contains(event)), "page {page}: an event that never was");
        let all = kept.len() == original.len();
        assert!(all || ward.is_incomplete().unwrap(), "page {page}: events are missing and nothing says so");
        assert!(kept.len() >= original.len() * 3 / 4, "page {page}: {} of {}", kept.len(), original.len());
        incomplete += usize::from(!all);
        assert_eq!(open(dir.path()).unwrap().damage().unwrap(), prepared.salvaged, "told where both halves can read it");
        assert!(std::fs::read(dir.path().join("ward.db.damaged-1")).unwrap() == octets);
    }
    println!(
        "{} of {} pages of the ward damaged, {incomplete} times events were missing and told",
        pages.len(),
        whole.len() / PAGE
    );
    assert!(incomplete > pages.len() / 4, "{incomplete} of {}", pages.len());
}
