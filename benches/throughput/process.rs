//! The real process: memory with and without a backlog, with and without devices, and how soon it is there again after a
//! kill.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bedrail::config;
use bedrail::daemon::Keys;
use bedrail::store::{Store, prepare};

use crate::support::broker::{Broker, BrokerOptions};
use crate::support::daemon::{Daemon, START, Site, mqtt_route, run};
use crate::support::devices::VirtualDevice;
use crate::support::pki::{Identity, Pki, install_credential};
use crate::support::process::wait_until;
use crate::support::rig::{Rig, Shape};
use crate::table::{Table, grouped, median};
use crate::world::{GATEWAY, OXIMETERS, ROUNDS, anchor, fill, oximeter};
use crate::{BINARY, upstream};

/// In the environment of this same program: the config file of a site whose log it fills, to die without a word.
pub const FILL: &str = "BEDRAIL_BENCH_FILL";
const BACKLOG: usize = 100_000;
const DEVICES: u8 = 16;
/// What a process allocates at its start has come and gone by then.
const SETTLED: Duration = Duration::from_secs(2);
const DRAINED: Duration = Duration::from_secs(120);

pub fn measure(table: &mut Table) {
    let pki = Pki::new();
    let options = BrokerOptions { extra: upstream::BROKER.to_owned(), ..BrokerOptions::mutual_tls(&pki) };
    let mut broker = Broker::start(&options);
    let gateway = pki.client("gateway");
    let (empty, full) = (site(&pki, &gateway, broker.port()), site(&pki, &gateway, broker.port()));
    fill_by_a_process_that_dies(&empty, 0);
    fill_by_a_process_that_dies(&full, BACKLOG);

    broker.kill9();
    let (with, without) = (starts(&full), starts(&empty));
    let show = |ms: f64| format!("{ms:.0} ms");
    let what = format!("start after kill -9 to \"started\", {} behind / empty", grouped(BACKLOG as f64));
    table.row(&what, show(with), show(without), Some(with / without), "<= 200 ms");
    broker.resume();

    let (idle, _) = resident(&empty, |_| std::thread::sleep(SETTLED));
    let (after, most) = resident(&full, |site| {
        let (settings, keys) = keys(site);
        let store = open(&settings, &keys);
        assert!(wait_until(DRAINED, || owed(&store) == 0), "the backlog does not drain");
    });
    let what = format!("memory of run deliver: {} drained (most at any time) / nothing to do", grouped(BACKLOG as f64));
    let text = format!("{} ({})", mib(after), mib(most));
    table.row(&what, text, mib(idle), Some(most as f64 / idle as f64), "+ 3 MiB at most");

    let (many, one) = (ward(DEVICES), ward(1));
    let what = format!("memory of run, {DEVICES} devices connected / 1");
    table.row(&what, mib(many), mib(one), Some(many as f64 / one as f64), "<= 15 MiB");
}

/// A gateway with an MQTT route and keys.
fn site(pki: &Pki, gateway: &Identity, port: u16) -> Site {
    let site = Site::new();
    install_credential(&gateway.key, &site.path("credentials/tls-key"));
    let route = mqtt_route("live", port, Some((&pki.ca(), Some(&gateway.cert))), "carry = [\"readings\"]\nstart = \"oldest\"");
    let devices: Vec<VirtualDevice> = (0..OXIMETERS).map(oximeter).collect();
    site.config(GATEWAY, &devices.iter().collect::<Vec<_>>(), &route);
    let config = site.config_file().display().to_string();
    let made = run(Path::new(BINARY), &["key", "init", "--config", &config], &[], START);
    assert!(made.status == Some(0), "{made:?}");
    site
}

fn keys(site: &Site) -> (config::Settings, Keys) {
    keys_of(&site.config_file())
}

fn keys_of(config: &Path) -> (config::Settings, Keys) {
    let settings = config::load(config).expect("a config").settings;
    let keys = Keys::read(&settings).expect("keys");
    (settings, keys)
}

fn open(settings: &config::Settings, keys: &Keys) -> Store {
    Store::open(&settings.gateway.state_dir, &keys.log, keys.site.clone(), GATEWAY).expect("opens")
}

/// So the WAL stays behind as it does when a daemon is killed.
fn fill_by_a_process_that_dies(site: &Site, records: usize) {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.env(FILL, site.config_file()).env("BEDRAIL_BENCH_RECORDS", records.to_string());
    let status = command.status().expect("it starts");
    assert!(!status.success() && status.code().is_none(), "the filler did not die as it should: {status}");
}

pub fn fill_and_die(config: &Path) -> ! {
    let records = std::env::var("BEDRAIL_BENCH_RECORDS").ok().and_then(|text| text.parse().ok()).expect("how many");
    let (settings, keys) = keys_of(config);
    prepare(&settings.gateway.state_dir, &keys.log, &keys.ward().expect("a key")).expect("prepared");
    let mut store = open(&settings, &keys);
    anchor(&mut store);
    store.register_routes(&[("live", "mqtt", true)], 0).expect("registered");
    fill(&mut store, records);
    std::process::abort()
}

fn deliver(site: &Site) -> Daemon {
    let config = site.config_file().display().to_string();
    // No bus: the deliver half needs none.
    Daemon::start(Path::new(BINARY), &["run", "deliver", "--config", &config], &site.path("daemon.log"), "", &[])
}

/// Milliseconds from the start of the process to its word that it is there; each time it is killed.
fn starts(site: &Site) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        let mut daemon = deliver(site);
        let there = || daemon.log_since_start().contains("started");
        while !there() {
            assert!(started.elapsed() < START, "it does not start:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        let time = started.elapsed();
        daemon.kill9();
        time.as_secs_f64() * 1e3
    });
    median(times.collect())
}

/// Memory in KiB when `work` is done, and the most there ever was.
fn resident(site: &Site, work: impl FnOnce(&Site)) -> (u64, u64) {
    let mut daemon = deliver(site);
    daemon.wait_for_line("link up", START);
    work(site);
    std::thread::sleep(SETTLED);
    let now = daemon.resident_kib().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next());
    daemon.terminate(START);
    (now, most.and_then(|text| text.parse().ok()).expect("the kernel knows the most"))
}

fn owed(store: &Store) -> u64 {
    let route = store.route("live").expect("reads").expect("registered");
    let lanes = store.lanes(route.n).expect("lanes");
    let head = store.head().expect("a head");
    lanes.live.count_to(head) + lanes.backlog.count_to(head)
}

/// The whole daemon with so many oximeters connected and nothing measured.
fn ward(devices: u8) -> u64 {
    let devices: Vec<VirtualDevice> = (0..devices).map(oximeter).collect();
    let mut rig = Rig::new(BINARY, &devices, "carry = [\"readings\"]", "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(Duration::from_secs(120));
    std::thread::sleep(SETTLED);
    let resident = rig.daemons[0].resident_kib().expect("it runs");
    rig.stop();
    resident
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
