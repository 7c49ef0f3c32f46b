//! How long a live value takes from its commit to the broker's acknowledgement while a million records wait behind it, beside
//! the same with nothing behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bedrail::reading::Seq;
use bedrail::store::{Draft, Store};

use crate::table::{Table, grouped, tails};
use crate::upstream::{Draining, LIMIT, Upstream};
use crate::world::{BACKLOG, RECORDS, STRIDE, drafts, fill, site_key, store};

const COMMITS: usize = 40;
/// Nearer together than in a ward (500 ms), so that there are enough of them for a p99.
const PACE: Duration = Duration::from_millis(100);

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut log = store(directory.path());
    fill(&mut log, BACKLOG);
    let mut upstream = Upstream::start();
    let tail = tails(|side| {
        if side == 0 {
            before_a_backlog(&mut upstream, directory.path(), &mut log)
        } else {
            alone(&mut upstream, directory.path(), &mut log)
        }
    });
    let show = |p99: f64, p50: f64| format!("{p99:.1} ms (p50 {p50:.1})");
    let what = format!("live, commit to PUBACK, p99, before {} of backlog / none", grouped(BACKLOG as f64));
    table.row(
        &what,
        show(tail.p99.of(0), tail.p50[0]),
        show(tail.p99.of(1), tail.p50[1]),
        Some(tail.p99.ratio(0, 1)),
        "<= 200 ms",
    );
}

fn before_a_backlog(upstream: &mut Upstream, directory: &Path, log: &mut Store) -> Vec<f64> {
    let draining = upstream.drain(directory);
    draining.wait_for(&upstream.runtime, STRIDE);
    let times = live(&draining, log);
    assert!(draining.acked() < BACKLOG as u64, "the backlog was drained before the live values were done");
    draining.stop();
    times
}

fn alone(upstream: &mut Upstream, directory: &Path, log: &mut Store) -> Vec<f64> {
    let following = upstream.follow(directory);
    // The first values tell that it is up, and become backlog with it.
    while following.acked() == 0 {
        commit(log);
        following.ring();
        std::thread::sleep(PACE);
    }
    let times = live(&following, log);
    following.stop();
    times
}

/// Milliseconds of each value, in order of size.
fn live(route: &Draining, log: &mut Store) -> Vec<f64> {
    route.watch_live();
    let (mut due, mut committed) = (Instant::now(), BTreeMap::new());
    for _ in 0..COMMITS {
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let seqs = commit(log);
        let at = Instant::now();
        route.ring();
        committed.extend(seqs.into_iter().map(|seq| (seq.0, at)));
    }
    let end = Instant::now() + LIMIT;
    loop {
        let acked = route.live_acked();
        let times = committed.iter().map(|(seq, at)| acked.get(seq).map(|acked| acked.saturating_duration_since(*at)));
        if let Some(times) = times.collect::<Option<Vec<Duration>>>() {
            let mut times: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect();
            times.sort_by(f64::total_cmp);
            return times;
        }
        assert!(Instant::now() < end, "live values were never acknowledged");
        std::thread::sleep(PACE);
    }
}

fn commit(log: &mut Store) -> Vec<Seq> {
    let drafts: Vec<Draft> = drafts(&site_key(), 0).into_iter().take(RECORDS).collect();
    log.append(drafts).expect("appended").records.into_iter().flatten().map(|(seq, _)| seq).collect()
}
