//! Octets written for a record over its whole life: appended, settled on one route, deleted by retention.
//!
//! Half an hour of 64 streams at 1 Hz, a commit and an acknowledgement a second, without the waiting; retention looks every
//! ten seconds and keeps what is younger than ten minutes, so that as much goes as comes. `wchar` counts what is handed to
//! the kernel, `write_bytes` the whole pages the kernel has to write for it: that is what wears a card.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bedrail::collect::{Retain, RetainSettings, Windows, take};
use bedrail::reading::{Anchor, BootMillis, ClockQuality, METRICS, Seq, Timestamp};
use bedrail::store::{Draft, Lanes, RouteChange, Store};
use jiff::tz::TimeZone;
use rusqlite::{Connection, params};

use crate::table::{Table, grouped};
use crate::world::{GATEWAY, Noise, ROW_OCTETS, bare, boot, heard_at, insert_bare, open, prepared, site_key};

/// Kept, before anything is counted and all the time after.
const KEEP: u64 = 600;
const SECONDS: u64 = 1_800;
const STREAMS: usize = 64;
/// As the daemon looks at retention.
const RETAIN_EVERY: u64 = 10;

/// By a record: handed to the kernel, and to the disk.
struct Written {
    handed: f64,
    disk: f64,
}

pub fn measure(table: &mut Table) {
    let tuned = ward_for_half_an_hour(1, false);
    let default = ward_for_half_an_hour(2, true);
    let rows = row_a_record();
    let show = |written: &Written| format!("{} B (disk {})", grouped(written.handed), grouped(written.disk));
    let what = format!("octets written a record in its life, {STREAMS} x 1/s, 1 s, no windows / rows of {ROW_OCTETS} B");
    table.row(&what, show(&tuned), show(&rows), Some(tuned.handed / rows.handed), "<= 300 B");
    let what = "octets written a record, default: 500 ms commits, windows of 1 and 15 min / rows";
    table.row(what, show(&default), show(&rows), Some(default.handed / rows.handed), "-");
}

/// What the two halves do with the store, each on its own connection.
struct Halves {
    collect: Store,
    deliver: Store,
    route: i64,
    lanes: Lanes,
    retain: Retain,
    windows: Option<Windows>,
    commits_a_second: usize,
    began: BootMillis,
}

fn ward_for_half_an_hour(commits_a_second: usize, windows: bool) -> Written {
    let directory = tempfile::tempdir().expect("a directory");
    let mut halves = Halves::new(directory.path(), commits_a_second, windows);
    (0..KEEP).for_each(|second| halves.second(second));
    measured(|| (KEEP..KEEP + SECONDS).for_each(|second| halves.second(second)))
}

impl Halves {
    fn new(directory: &Path, commits_a_second: usize, windows: bool) -> Self {
        prepared(directory);
        let (mut collect, mut deliver) = (open(directory), open(directory));
        let began = boot().now();
        let wall = Timestamp(jiff::Timestamp::now().as_millisecond());
        let anchor = Anchor { boot: boot().id(), at: began, wall, quality: ClockQuality::Ntp, uncertainty_ms: 50 };
        collect.add_anchor(&anchor).expect("anchored");
        let route = deliver.register_routes(&[("live", "mqtt", false)], 0).expect("registered").remove(0).n;
        let lanes = deliver.lanes(route).expect("lanes");
        let lengths = METRICS.iter().map(|row| (row.metric, vec![60, 900])).collect();
        let windows = windows.then(|| {
            let horizon = Duration::from_secs(KEEP / 2);
            Windows::new(GATEWAY.to_owned(), lengths, BTreeMap::new(), TimeZone::UTC, horizon, &collect).expect("windows")
        });
        let retain = Retain::new(RetainSettings {
            state_dir: directory.to_owned(),
            horizon: Duration::from_secs(KEEP / 2),
            keep: Duration::from_secs(KEEP),
            max_bytes: 2 << 30,
            free_floor: 0,
            condensed: METRICS.iter().map(|row| row.metric).collect(),
            longest_window: Duration::from_secs(900),
        });
        Self { collect, deliver, route, lanes, retain, windows, commits_a_second, began }
    }

    fn second(&mut self, second: u64) {
        let at = BootMillis(self.began.0 + second * 1_000);
        let (key, boot) = (site_key(), boot().id());
        let taken =
            heard_at(second, at).flat_map(|heard| take(&key, boot, None, &heard).expect("known").expect("decodes").drafts);
        let drafts: Vec<Draft> = taken.collect();
        for commit in drafts.chunks(STREAMS / self.commits_a_second) {
            self.collect.append(commit.to_vec()).expect("appended");
        }
        if let Some(windows) = &mut self.windows {
            let anchors = self.collect.anchors().expect("anchors");
            windows.advance(&mut self.collect, &anchors, boot, at).expect("windows");
        }
        self.acknowledge();
        if second.is_multiple_of(RETAIN_EVERY) {
            let anchors = self.collect.anchors().expect("anchors");
            self.retain.pass(&mut self.collect, &anchors, boot, at).expect("retained");
        }
    }

    /// All that came in this second.
    fn acknowledge(&mut self) {
        let head = self.deliver.head().expect("a head");
        self.lanes.live.remove(Seq(1), head);
        let tally = BTreeMap::from([("sent".to_owned(), STREAMS as u64)]);
        let change = RouteChange { lanes: self.lanes.clone(), tally, ..RouteChange::default() };
        self.deliver.apply(self.route, &change).expect("applied");
    }
}

/// What a table of readings with a flag costs: the same commits, a row inserted, marked and deleted for each.
fn row_a_record() -> Written {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rows = bare(directory.path());
    let mut noise = Noise::new();
    (0..KEEP).for_each(|second| a_second_of_rows(&mut rows, &mut noise, second));
    measured(|| {
        (KEEP..KEEP + SECONDS).for_each(|second| a_second_of_rows(&mut rows, &mut noise, second));
    })
}

fn a_second_of_rows(rows: &mut Connection, noise: &mut Noise, second: u64) {
    insert_bare(rows, STREAMS, noise);
    let n = |second: u64| second as i64 * STREAMS as i64;
    rows.execute("UPDATE record SET sent = 1 WHERE n > ? AND n <= ?", params![n(second), n(second + 1)]).expect("marked");
    if second >= KEEP && second.is_multiple_of(RETAIN_EVERY) {
        rows.execute("DELETE FROM record WHERE n <= ? AND sent = 1", [n(second - KEEP)]).expect("deleted");
    }
}

fn measured(work: impl FnOnce()) -> Written {
    let records = SECONDS as f64 * STREAMS as f64;
    let before = io();
    work();
    let after = io();
    let of = |name: &str| (after[name] - before[name]) as f64 / records;
    Written { handed: of("wchar"), disk: of("write_bytes") }
}

fn io() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string("/proc/self/io").expect("the kernel counts a process's I/O");
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a count"))).collect()
}
