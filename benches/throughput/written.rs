//! Octets written for a record over its life so far: appended, and settled on one route. (Deletion comes with retention.)
//!
//! Half an hour of 64 streams at 1 Hz with a commit and an acknowledgement a second, without the waiting. `wchar` counts
//! what is handed to the kernel, so a page written to the WAL and again to the database counts twice, as it does on a card.

use std::collections::BTreeMap;
use std::path::Path;

use bedrail::store::RouteChange;
use rusqlite::params;

use crate::table::{Table, grouped};
use crate::world::{Noise, ROW_OCTETS, bare, drafts, insert_bare, open, site_key, store};

const SECONDS: u64 = 1_800;
const STREAMS: usize = 64;

/// By a record: handed to the kernel, to the disk, and how much longer the files are.
struct Written {
    handed: f64,
    disk: f64,
    kept: f64,
}

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let ours = ours(directory.path());
    let rows = row_a_record(directory.path());
    let what = format!("octets written a record, {STREAMS} x 1/s, 1 s commits / rows of {ROW_OCTETS} B, marked");
    let show = |written: &Written| {
        format!("{} B (disk {}, kept {})", grouped(written.handed), grouped(written.disk), grouped(written.kept))
    };
    table.row(&what, show(&ours), show(&rows), Some(ours.handed / rows.handed), "<= 300 B");
}

fn ours(directory: &Path) -> Written {
    let mut collect = store(directory);
    let mut deliver = open(directory);
    let route = deliver.register_routes(&[("live", "mqtt", false)], 0).expect("registered").remove(0);
    let mut lanes = deliver.lanes(route.n).expect("lanes");
    let key = site_key();
    measured(directory, "bedrail.db", || {
        for second in 0..SECONDS {
            let appended = collect.append(drafts(&key, second)).expect("appended");
            appended.records.iter().flatten().for_each(|(seq, _)| lanes.settle(*seq));
            let tally = BTreeMap::from([("sent".to_owned(), STREAMS as u64)]);
            let change = RouteChange { lanes: lanes.clone(), tally, ..RouteChange::default() };
            deliver.apply(route.n, &change).expect("applied");
        }
    })
}

/// What a table of readings with a flag costs: the same commits, a row inserted and marked for each.
fn row_a_record(directory: &Path) -> Written {
    let mut rows = bare(directory);
    let mut noise = Noise::new();
    measured(directory, "bare.db", || {
        for second in 0..SECONDS {
            insert_bare(&mut rows, STREAMS, &mut noise);
            let (first, streams) = (second as i64 * STREAMS as i64, STREAMS as i64);
            rows.execute("UPDATE record SET sent = 1 WHERE n > ? AND n <= ?", params![first, first + streams]).expect("marked");
        }
    })
}

fn measured(directory: &Path, file: &str, work: impl FnOnce()) -> Written {
    let records = SECONDS as f64 * STREAMS as f64;
    let size = || std::fs::metadata(directory.join(file)).map_or(0, |meta| meta.len());
    let (before, length) = (io(), size());
    work();
    let (after, grown) = (io(), size() - length);
    let of = |name: &str| (after[name] - before[name]) as f64 / records;
    Written { handed: of("wchar"), disk: of("write_bytes"), kept: grown as f64 / records }
}

fn io() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string("/proc/self/io").expect("the kernel counts a process's I/O");
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a count"))).collect()
}
