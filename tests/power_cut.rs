//! A power cut loses nothing that was promised: every moment of the store's scripts is cut, what the disk could then hold is
//! rebuilt, and each image is opened as the daemon opens it. `BEDRAIL_LONG=1` (`make long-powercut`) cuts at every event.

#![allow(clippy::unwrap_used)]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/exercise/mod.rs"]
mod exercise;
#[path = "support/exerciser.rs"]
mod exerciser;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use disk::{Disk, Event, Image, Random};
use exercise::{Given, Script};
use exerciser::{long, scratch};

const SEED: u64 = 0xBED_5A11;
/// In the short form every so many events are cut: chosen for a few hundred images.
const SHORT_STRIDE: usize = 11;

#[test]
fn no_power_cut_takes_a_record_that_was_promised() {
    let given = Given::new(Script::Day);
    let outcome = examine(&given, &record(&given, None), if long() { 1 } else { SHORT_STRIDE });
    println!("power cut, synchronous=FULL: {}", outcome.line());
    assert!(outcome.images >= if long() { 1_000 } else { 150 }, "only {} images", outcome.images);
    outcome.lost_nothing();
}

/// The older schema or the newest, with all that was in it; and what is committed after it stands.
#[test]
fn no_power_cut_leaves_a_migration_half_done() {
    for script in [Script::Migration, Script::MigrationWithLog] {
        let given = Given::new(script);
        let outcome = examine(&given, &record(&given, None), if long() { 1 } else { SHORT_STRIDE });
        println!("power cut, {script:?}: {}", outcome.line());
        assert!(outcome.images >= if long() { 200 } else { 20 }, "only {} images", outcome.images);
        outcome.lost_nothing();
    }
}

/// What could be read is there, what could not is counted once, and the damaged files are there as they were.
#[test]
fn no_power_cut_in_a_salvage_takes_what_can_be_read_or_counts_a_gap_twice() {
    let given = Given::new(Script::Salvage);
    let outcome = examine(&given, &record(&given, None), if long() { 1 } else { 2 * SHORT_STRIDE });
    println!("power cut, {:?}: {}", given.script, outcome.line());
    assert!(outcome.images >= if long() { 400 } else { 20 }, "only {} images", outcome.images);
    outcome.lost_nothing();
}

/// The control: the same script, images and checks must show what goes missing where commits are not synced.
#[test]
fn without_a_sync_at_each_commit_power_cuts_take_records() {
    let given = Given::new(Script::Day);
    let events = disk::without_commit_syncs(&record(&given, None));
    let outcome = examine(&given, &events, if long() { 1 } else { 2 * SHORT_STRIDE });
    println!("power cut, synchronous=NORMAL (control): {}", outcome.line());
    assert!(!outcome.lost.is_empty(), "commits without a sync lost nothing: this check cannot fail");
}

/// After an fsync that failed, the kernel may have dropped what it was for and call the file clean: the next one succeeds
/// and proves nothing. Nothing that was promised may rest on it.
#[test]
fn an_fsync_that_failed_is_not_believed_later() {
    let all = Script::ALL.into_iter().filter(|script| long() || matches!(script, Script::Day | Script::Salvage));
    all.for_each(|script| fail_syncs(&Given::new(script)));
}

fn fail_syncs(given: &Given) {
    let is_sync = |event: &&Event| matches!(event, Event::Sync { .. } | Event::SyncDirectory);
    let syncs: Vec<Event> = record(given, None).iter().filter(is_sync).cloned().collect();
    // SQLite does not tell of a directory's sync that failed, so the short form has all of a day's.
    let day = given.script == Script::Day;
    let stride = if long() { 1 } else { 7 };
    let chosen = (1..=syncs.len()).filter(|n| n % stride == 1 % stride || (day && syncs[n - 1] == Event::SyncDirectory));
    let (mut failures, mut commits, mut silent, mut images) = (0, 0, 0, 0);
    for fail_at in chosen {
        let events = record(given, Some(fail_at));
        let failed = |event: &Event| matches!(event, Event::FailedSync { .. } | Event::FailedSyncDirectory);
        let at = events.iter().position(failed).expect("the same syncs in every run");
        let went_on = events[at..].iter().any(|event| matches!(event, Event::Promise(_)));
        assert!(!(went_on && disk::failed_a_commit(&events, at)), "fsync {fail_at} of a commit failed and it was promised");
        failures += 1;
        commits += u32::from(disk::failed_a_commit(&events, at));
        silent += u32::from(went_on);
        let outcome = examine(
            given,
            &events,
            match (long(), day) {
                (false, _) => 101,
                (true, true) => 7,
                (true, false) => 21,
            },
        );
        images += outcome.images;
        assert!(outcome.lost.is_empty(), "fsync {fail_at} failed: {:#?}", &outcome.lost[..outcome.lost.len().min(3)]);
    }
    println!(
        "power cut after a failed fsync, {:?}: {failures} failures ({commits} of a commit, all told; {silent} that no caller \
         hears of), {images} images, 0 lost",
        given.script
    );
    assert!(commits > 0, "no commit's fsync was made to fail");
}

#[test]
fn what_is_not_synced_may_be_lost_and_what_is_synced_may_not() {
    let create = Event::Create { file: 1, name: "a".into() };
    let write = |at, octet| Event::Write { file: 1, at, data: vec![octet; 1_024] };
    let mut disk = Disk::default();
    [create, Event::SyncDirectory, write(0, 1), Event::Sync { file: 1 }, write(1_024, 2)].iter().for_each(|e| disk.apply(e));
    let images: HashSet<Vec<u8>> = disk.images(&mut Random(SEED)).into_iter().map(|(_, image)| image["a"].clone()).collect();
    assert!(images.iter().all(|content| content[..1_024] == [1; 1_024]), "a synced write is in every image");
    assert!(images.iter().any(|content| content.len() == 1_024), "an un-synced write may be gone");
    assert!(images.iter().any(|content| content.len() == 1_536), "or torn at a sector");
    assert_eq!(disk.whole()["a"].len(), 2_048);
    disk.apply(&Event::Unlink { name: "a".into() });
    let present: HashSet<bool> = disk.images(&mut Random(SEED)).iter().map(|(_, image)| image.contains_key("a")).collect();
    assert_eq!(present.len(), 2, "a removed name may come back until the directory is synced");
}

/// Runs the exerciser under the recorder, which must have seen all that it left.
fn record(given: &Given, fail_sync: Option<usize>) -> Vec<Event> {
    let dir = scratch();
    let (store, trace) = (dir.path().join("store"), dir.path().join("trace"));
    std::fs::create_dir(&store).unwrap();
    given.write_to(&store);
    let mut command = Command::new(exerciser::binary());
    command
        .args(["run", &format!("{:?}", given.script)])
        .arg(&store)
        .env("LD_PRELOAD", recorder())
        .env("RECORD_DIR", &store)
        .env("RECORD_TO", &trace);
    if let Some(n) = fail_sync {
        command.env("FAIL_SYNC", n.to_string());
    }
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!((output.status.code(), fail_sync), (Some(0), _) | (Some(3), Some(_))), "{:?} {said}", output.status);
    let events = disk::parse(&std::fs::read(&trace).unwrap());
    if fail_sync.is_none() {
        let promises = events.iter().filter(|event| matches!(event, Event::Promise(_))).count();
        assert_eq!(promises, given.script.steps().len(), "{said}");
        let mut disk = Disk::holding(&given.files);
        events.iter().for_each(|event| disk.apply(event));
        let mut left = exercise::read(&store);
        left.retain(|name, _| !name.ends_with("-shm"));
        assert!(disk.whole() == left, "the recorder missed a write");
    }
    events
}

fn recorder() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let library = dir.path().join("recorder.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/recorder.c");
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .args(["-ldl", "-lpthread"]);
        let built = cc.output().expect("a C compiler: apt-get install gcc libc6-dev");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (dir, library)
    });
    library
}

#[derive(Default)]
struct Outcome {
    cuts: usize,
    /// Different ones: what two cuts leave alike is opened once.
    images: usize,
    lost: Vec<String>,
}

impl Outcome {
    fn line(&self) -> String {
        format!("{} cuts, {} images, {} lost", self.cuts, self.images, self.lost.len())
    }

    fn lost_nothing(&self) {
        assert!(self.lost.is_empty(), "{:#?}", &self.lost[..self.lost.len().min(5)]);
    }
}

/// Cuts after every `stride`th event, and after the last, and opens what could be left.
fn examine(given: &Given, events: &[Event], stride: usize) -> Outcome {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (seen, outcome) = (Mutex::new(HashSet::new()), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (seen, outcome) = (&seen, &outcome);
            scope.spawn(move || examine_part(given, events, stride, (worker, workers), seen, outcome));
        }
    });
    outcome.into_inner().unwrap()
}

fn examine_part(
    given: &Given,
    events: &[Event],
    stride: usize,
    (worker, workers): (usize, usize),
    seen: &Mutex<HashSet<u64>>,
    outcome: &Mutex<Outcome>,
) {
    let dir = scratch();
    let (mut disk, mut promised) = (Disk::holding(&given.files), Vec::new());
    for (at, event) in events.iter().enumerate() {
        disk.apply(event);
        if let Event::Promise(line) = event {
            promised.extend(exercise::promises(line));
        }
        let is_chosen = at % stride == 0 || at + 1 == events.len();
        if !is_chosen || (at / stride) % workers != worker {
            continue;
        }
        outcome.lock().unwrap().cuts += 1;
        for (what, image) in disk.images(&mut Random(SEED ^ at as u64)) {
            if !seen.lock().unwrap().insert(fingerprint(&image, promised.len())) {
                continue;
            }
            let result = open_image(dir.path(), given, &image, &promised);
            let mut outcome = outcome.lock().unwrap();
            outcome.images += 1;
            if let Err(reason) = result {
                outcome.lost.push(format!("cut after event {at}, {what}: {reason}"));
            }
        }
    }
}

fn fingerprint(image: &Image, promised: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (image, promised).hash(&mut hasher);
    hasher.finish()
}

fn open_image(dir: &Path, given: &Given, image: &Image, promised: &[exercise::Promise]) -> Result<(), String> {
    for name in exercise::read(dir).keys() {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    exercise::write(dir, image);
    exercise::verify(dir, given, promised)
}
