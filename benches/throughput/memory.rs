//! Memory of the real process: with and without a backlog, with and without a broker, with and without devices.
//!
//! What counts is the resident set. Most of it is the program's own file and the libraries', which the kernel can drop and
//! read again, so what the process allocated is shown apart.

use std::fmt;
use std::time::Duration;

use crate::BINARY;
use crate::process::{BACKLOG, Hospital, deliver, fill_by_a_process_that_dies};
use crate::support::daemon::{Daemon, START, Site};
use crate::support::devices::VirtualDevice;
use crate::support::rig::{Rig, Shape};
use crate::table::{Table, grouped, median};
use crate::world::{ROUNDS, oximeter};

/// `make long-backlog`.
const LONG: &str = "BEDRAIL_LONG";
const LONG_BACKLOG: usize = 10_000_000;
const DEVICES: u8 = 64;
/// What a process allocates at its start has come and gone by then, and a drain is in its stride.
const SETTLED: Duration = Duration::from_secs(2);
const HEARD: Duration = Duration::from_secs(120);
/// Each device measures so often, once a second.
const VALUES: usize = 5;

/// In KiB.
#[derive(Clone, Copy)]
struct Memory {
    resident: f64,
    allocated: f64,
    /// The most that was resident at any time.
    most: f64,
}

pub fn measure(table: &mut Table) {
    backlogs(table, &[BACKLOG]);
    ward(table, 0);
    ward(table, BACKLOG);
}

pub fn measure_long(table: &mut Table) {
    if std::env::var_os(LONG).is_none() {
        eprintln!("{} records behind: only with {LONG}=1, see `make long-backlog`", grouped(LONG_BACKLOG as f64));
        return;
    }
    backlogs(table, &[BACKLOG, LONG_BACKLOG]);
    ward(table, LONG_BACKLOG);
}

fn backlogs(table: &mut Table, sizes: &[usize]) {
    let (hospital, mut broker) = Hospital::open();
    let empty = hospital.site(0);
    for size in sizes {
        let full = hospital.site(*size);
        let behind = grouped(*size as f64);
        let [mut away, mut idle, mut draining, mut nothing] = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            let route = format!("live-{round}");
            [&empty, &full].into_iter().for_each(|site| hospital.configure(site, &route));
            broker.kill9();
            away.push(without_broker(&full));
            idle.push(without_broker(&empty));
            broker.resume();
            draining.push(with_broker(&full));
            nothing.push(with_broker(&empty));
        }
        row(table, &format!("memory of run deliver, broker away, {behind} behind / none"), &away, &idle, "+ 3 MiB at most");
        row(table, &format!("memory of run deliver, draining {behind} / nothing to do"), &draining, &nothing, "+ 3 MiB at most");
    }
}

fn row(table: &mut Table, what: &str, ours: &[Memory], control: &[Memory], aim: &str) {
    let (ours, control) = (middle(ours), middle(control));
    table.row(what, ours.to_string(), control.to_string(), Some(ours.resident / control.resident), aim);
}

fn without_broker(site: &Site) -> Memory {
    let mut daemon = deliver(site);
    daemon.wait_for_line("link down", START);
    std::thread::sleep(SETTLED);
    end(&mut daemon)
}

fn with_broker(site: &Site) -> Memory {
    let mut daemon = deliver(site);
    daemon.wait_for_line("link up", START);
    std::thread::sleep(SETTLED);
    end(&mut daemon)
}

/// The whole daemon with its devices connected and measuring once a second, and so much behind.
fn ward(table: &mut Table, backlog: usize) {
    let devices: Vec<VirtualDevice> = (0..DEVICES).map(oximeter).collect();
    let mut rig = Rig::new(BINARY, &devices, "carry = [\"readings\"]\nstart = \"oldest\"", "");
    fill_by_a_process_that_dies(&rig.site, backlog);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(HEARD);
    for _ in 0..VALUES {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_secs(1));
    }
    let memory = Memory::of(&rig.daemons[0]);
    rig.stop();
    let what = format!("memory of run, {DEVICES} devices measuring, {} behind", grouped(backlog as f64));
    table.row(&what, memory.to_string(), "-".into(), None, "<= 15 MiB");
}

fn end(daemon: &mut Daemon) -> Memory {
    let memory = Memory::of(daemon);
    daemon.kill9();
    memory
}

impl Memory {
    fn of(daemon: &Daemon) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
            line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
        };
        Self { resident: field("VmRSS:"), allocated: field("RssAnon:"), most: field("VmHWM:") }
    }
}

fn middle(all: &[Memory]) -> Memory {
    let of = |pick: fn(&Memory) -> f64| median(all.iter().map(pick).collect());
    Memory { resident: of(|m| m.resident), allocated: of(|m| m.allocated), most: of(|m| m.most) }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: f64| kib / 1024.0;
        write!(f, "{:.1} MiB ({:.1} allocated, most {:.1})", mib(self.resident), mib(self.allocated), mib(self.most))
    }
}
