//! From octets to durable, and what the steps of it cost.

use std::hint::black_box;
use std::time::Instant;

use bedrail::collect::take;
use bedrail::gatt;
use bedrail::radio::Heard;
use bedrail::reading::Seq;
use bedrail::store::Draft;

use crate::machine::micros;
use crate::table::{Table, alternate, grouped, median, seconds};
use crate::world::{self, BATCH, Noise, OXIMETERS, ROW_OCTETS, bare, boot, drafts, insert_bare, site_key, store};

const COMMITS: usize = 100;
const SINGLES: usize = 200;
const VALUES: u64 = 2_000;

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, mut rows) = (store(directory.path()), bare(directory.path()));
    let (key, boot) = (site_key(), boot().id());
    let records = COMMITS * BATCH;
    // Two readings a value.
    let radio: Vec<Heard> = (0..).flat_map(world::heard).take(records / 2).collect();
    let mut noise = Noise::new();
    let rate = alternate(
        || {
            let time = seconds(|| {
                let mut buffer: Vec<Draft> = Vec::with_capacity(BATCH);
                for heard in &radio {
                    buffer.extend(take(&key, boot, None, heard).expect("known").expect("decodes").drafts);
                    if buffer.len() >= BATCH {
                        log.append(std::mem::take(&mut buffer)).expect("appended");
                    }
                }
            });
            records as f64 / time
        },
        || records as f64 / seconds(|| (0..COMMITS).for_each(|_| insert_bare(&mut rows, BATCH, &mut noise))),
    );
    let what = format!("ingest: octets to durable, {BATCH} a commit / rows of {ROW_OCTETS} B");
    table.row(&what, per_second(rate.bedrail), per_second(rate.control), Some(rate.ratio), ">= 0.8");

    let mut singles = drafts(&key, 0).into_iter().cycle();
    let mut one = || vec![singles.next().expect("a cycle has no end")];
    let one =
        alternate(|| p50_us(|| drop(log.append(one()).expect("appended"))), || p50_us(|| insert_bare(&mut rows, 1, &mut noise)));
    let show = |value| format!("{} µs", grouped(value));
    table.row("one reading durable, p50 / one row", show(one.bedrail), show(one.control), Some(one.ratio), "<= 2");

    steps(table, &radio);
    let head = log.head().expect("a head");
    let read = || {
        let mut next = Seq(1);
        while let Some((last, _)) = black_box(log.read(next, head, 1_000).expect("reads")).last() {
            next = last.next();
        }
    };
    let nanos = seconds(read) * 1e9 / head.0 as f64;
    table.row("reading back, a record (SQLCipher, zstd, postcard)", format!("{} ns", grouped(nanos)), "-".into(), None, "-");
}

fn steps(table: &mut Table, radio: &[Heard]) {
    let (key, boot) = (site_key(), boot().id());
    let values = VALUES as usize * usize::from(OXIMETERS);
    let some = || radio.iter().cycle().take(values);
    let decode = || some().for_each(|heard| drop(black_box(gatt::observe(heard.characteristic, &heard.octets))));
    let taken = || some().for_each(|heard| drop(black_box(take(&key, boot, None, heard))));
    let nanos = |time: f64| format!("{} ns", grouped(time * 1e9 / values as f64));
    table.row("decode, a characteristic value", nanos(seconds(decode)), "-".into(), None, "-");
    table.row("decode, class, drafts, a value (2 records)", nanos(seconds(taken)), "-".into(), None, "-");
}

fn p50_us(mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let started = Instant::now();
        work();
        micros(started.elapsed())
    };
    median((0..SINGLES).map(time).collect())
}

pub fn per_second(rate: f64) -> String {
    format!("{}/s", grouped(rate))
}
