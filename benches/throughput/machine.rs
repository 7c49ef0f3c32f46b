//! What this machine can do at all: the two figures all others hang on.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use ring::digest;

use crate::table::{Table, grouped, median, seconds};

const SYNCS: usize = 200;
const HASHED: usize = 64 << 20;

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = File::create(directory.path().join("appended")).expect("a file");
    let block = [0x5a; 4096];
    let times = (0..SYNCS).map(|_| {
        let started = Instant::now();
        file.write_all(&block).and_then(|()| file.sync_data()).expect("appended");
        started.elapsed()
    });
    let sync_us = median(times.map(micros).collect());
    table.row("machine: append 4 KiB + fdatasync, p50", "-".into(), format!("{} µs", grouped(sync_us)), None, "-");

    let block = vec![0x5a; 1 << 20];
    let hash = || {
        for _ in 0..HASHED >> 20 {
            black_box(digest::digest(&digest::SHA256, &block));
        }
    };
    let rate = HASHED as f64 / 1e6 / seconds(hash);
    table.row("machine: SHA-256 on one core", "-".into(), format!("{} MB/s", grouped(rate)), None, "-");
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
