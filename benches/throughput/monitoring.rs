//! What monitoring costs a full ward: processor time of the daemon with and without publishing, and the share of the thread
//! that looks and judges, which always runs.

use std::time::{Duration, Instant};

use crate::BINARY;
use crate::support::devices::VirtualDevice;
use crate::support::rig::{Rig, Shape};
use crate::table::{Table, median};
use crate::world::oximeter;

const DEVICES: u8 = 64;
/// Long enough for a heartbeat to be in it, with its processor time counted in hundredths of a second.
const SECONDS: u64 = 65;
const ROUNDS: usize = 3;
const HEARD: Duration = Duration::from_secs(180);

pub fn measure(table: &mut Table) {
    let rounds: Vec<(Used, Used)> = (0..ROUNDS).map(|_| (ward("true"), ward("false"))).collect();
    let of = |pick: fn(&(Used, Used)) -> f64| median(rounds.iter().map(pick).collect());
    let show = |ms: f64| format!("{ms:.0} ms/min");
    let what = format!("processor time of run, {DEVICES} devices with a value a second: state published / not");
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
    rig.stop();
    Used { all: (after.all - before.all) / minutes, looking: (after.looking - before.looking) / minutes }
}

fn used(pid: u32) -> Used {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").filter_map(Result::ok);
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let looking = stats.filter(|stat| stat.contains("(bedrail-monitor)")).map(|stat| cpu_ms(&stat)).sum();
    Used { all: cpu_ms(&std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs")), looking }
}

/// User and system time: fields 14 and 15 of proc(5), in hundredths of a second on every Linux there is.
fn cpu_ms(stat: &str) -> f64 {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<f64>().ok()).expect("a number of ticks");
    (ticks(11) + ticks(12)) * 10.0
}
