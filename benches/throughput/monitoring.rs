//! What monitoring costs a full ward: processor time of the daemon with and without publishing, and the share of the thread
//! that looks and judges, which always runs.

use std::time::{Duration, Instant};

use crate::BINARY;
use crate::support::devices::VirtualDevice;
use crate::support::rig::{Rig, Shape};
use crate::table::{Table, median};
use crate::world::oximeter;

const DEVICES: u8 = 64;
/// Long enough for a heartbeat to be in it.
const SECONDS: u64 = 65;
/// Each takes minutes, so fewer than elsewhere.
const ROUNDS: usize = 3;
const HEARD: Duration = Duration::from_secs(180);

pub fn measure(table: &mut Table) {
    let rounds: Vec<(Used, Used)> = (0..ROUNDS).map(|_| (ward("true"), ward("false"))).collect();
    let of = |pick: fn(&(Used, Used)) -> f64| median(rounds.iter().map(pick).collect());
    let show = |ms: f64| format!("{ms:.1} ms/min");
    let what = format!("processor time of run, {DEVICES} devices with a value a second: state published / not ({ROUNDS} rounds)");
    table.row(&what, show(of(|r| r.0.all)), show(of(|r| r.1.all)), Some(of(|r| r.0.all / r.1.all)), "<= 1.10");
    let what = "of it the thread that looks at the halves and judges / all".to_owned();
    let share = of(|r| r.0.looking / r.0.all);
    table.row(&what, show(of(|r| r.0.looking)), show(of(|r| r.0.all)), Some(share), "<= 0.10 with the above");
}

/// Milliseconds of processor time a minute.
#[derive(Clone, Copy)]
struct Used {
    all: f64,
    looking: f64,
}

fn ward(announce: &str) -> Used {
    let devices: Vec<VirtualDevice> = (0..DEVICES).map(oximeter).collect();
    let mut rig = Rig::new(BINARY, &devices, &format!("carry = [\"readings\"]\nannounce = {announce}"), "");
    rig.log_filter = "info";
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(HEARD);
    let pid = rig.daemons[0].pid();
    let before = used(pid);
    let started = Instant::now();
    for second in 1..=SECONDS {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_secs(second).saturating_sub(started.elapsed()));
    }
    let (after, minutes) = (used(pid), started.elapsed().as_secs_f64() / 60.0);
    let (durable, sent) = (u64::from(DEVICES) * SECONDS, rig.ask_json(&["status"])["collect"]["durable"].as_u64());
    assert!(sent >= Some(durable), "{sent:?} of {durable} values were made durable");
    rig.stop();
    Used { all: (after.all - before.all) / minutes, looking: (after.looking - before.looking) / minutes }
}

/// By the scheduler's own account, which knows nanoseconds (proc(5), schedstat). Threads that end meanwhile are few and idle.
fn used(pid: u32) -> Used {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").filter_map(Result::ok);
    let mut used = Used { all: 0.0, looking: 0.0 };
    for task in tasks {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ns: f64 = read("schedstat").split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        used.all += ns / 1e6;
        used.looking += if read("comm").trim() == "bedrail-monitor" { ns / 1e6 } else { 0.0 };
    }
    assert!(used.all > 0.0, "the kernel keeps no account of threads");
    used
}
