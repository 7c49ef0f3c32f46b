//! How long a commit of readings takes while a route drains a large backlog and writes down what was acknowledged, beside
//! the same commits with the route at rest: in one process, as `bedrail run` has it.

use std::path::Path;
use std::time::{Duration, Instant};

use bedrail::store::{Draft, Store};

use crate::machine::micros;
use crate::table::{Table, grouped, tails};
use crate::upstream::Upstream;
use crate::world::{BACKLOG, RECORDS, STRIDE, drafts, fill, site_key, store};

const COMMITS: usize = 400;
/// Nearer together than in a ward (500 ms), so that there are enough of them for a p99.
const PACE: Duration = Duration::from_millis(10);

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut log = store(directory.path());
    fill(&mut log, BACKLOG);
    let mut upstream = Upstream::start();
    let tail =
        tails(|side| if side == 0 { while_draining(&mut upstream, directory.path(), &mut log) } else { commits(&mut log) });
    let show = |p99: f64, p50: f64| format!("{} µs (p50 {})", grouped(p99), grouped(p50));
    let what = format!("commit of {RECORDS} records, p99, while {} drain / alone", grouped(BACKLOG as f64));
    let (ours, alone) = (show(tail.p99.of(0), tail.p50[0]), show(tail.p99.of(1), tail.p50[1]));
    table.row(&what, ours, alone, Some(tail.p99.ratio(0, 1)), "<= 3");
}

fn while_draining(upstream: &mut Upstream, directory: &Path, log: &mut Store) -> Vec<f64> {
    let draining = upstream.drain(directory);
    draining.wait_for(&upstream.runtime, STRIDE);
    let times = commits(log);
    assert!(draining.acked() < BACKLOG as u64, "the backlog was drained before the commits were done");
    draining.stop();
    times
}

/// Microseconds of each, in order of size.
fn commits(log: &mut Store) -> Vec<f64> {
    let drafts: Vec<Draft> = drafts(&site_key(), 0).into_iter().take(RECORDS).collect();
    let mut due = Instant::now();
    let commit = |_| {
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let started = Instant::now();
        log.append(drafts.clone()).expect("appended");
        micros(started.elapsed())
    };
    let mut times: Vec<f64> = (0..COMMITS).map(commit).collect();
    times.sort_by(f64::total_cmp);
    times
}
