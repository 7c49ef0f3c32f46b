//! The real process: how soon it is there again after a kill; and the sites that `memory` measures too.

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
use crate::table::{Rounds, Table, grouped, rounds};
use crate::world::{GATEWAY, OXIMETERS, anchor, fill, oximeter};
use crate::{BINARY, upstream};

/// In the environment of this same program: the config file of a site whose log it fills, to die without a word, and with
/// how many records.
pub const FILL: &str = "BEDRAIL_BENCH_FILL";
const RECORDS: &str = "BEDRAIL_BENCH_RECORDS";
pub const BACKLOG: usize = 1_000_000;

pub fn measure(table: &mut Table) {
    let (hospital, mut broker) = Hospital::open();
    let (empty, full) = (hospital.site(0), hospital.site(BACKLOG));
    broker.kill9();
    let times: Rounds<2> = rounds(|side| start(if side == 0 { &full } else { &empty }));
    let show = |ms: f64| format!("{ms:.0} ms");
    let what = format!("start after kill -9 to \"started\", {} behind / empty", grouped(BACKLOG as f64));
    table.row(&what, show(times.of(0)), show(times.of(1)), Some(times.ratio(0, 1)), "<= 200 ms");
}

/// What gateways talk to, and the papers they need for it.
pub struct Hospital {
    pki: Pki,
    gateway: Identity,
    port: u16,
}

impl Hospital {
    pub fn open() -> (Self, Broker) {
        let pki = Pki::new();
        let options = BrokerOptions { extra: upstream::BROKER.to_owned(), ..BrokerOptions::mutual_tls(&pki) };
        let broker = Broker::start(&options);
        let gateway = pki.client("gateway");
        (Self { pki, gateway, port: broker.port() }, broker)
    }

    /// A gateway with keys, and so many records in the log that a killed process left.
    pub fn site(&self, records: usize) -> Site {
        let site = Site::new();
        install_credential(&self.gateway.key, &site.path("credentials/tls-key"));
        self.configure(&site, "live");
        let config = site.config_file().display().to_string();
        let made = run(Path::new(BINARY), &["key", "init", "--config", &config], &[], START);
        assert!(made.status == Some(0), "{made:?}");
        fill_by_a_process_that_dies(&site, records);
        site
    }

    /// One MQTT route; a new name is a new route, which owes everything there is.
    pub fn configure(&self, site: &Site, route: &str) {
        let keys = "carry = [\"readings\"]\nstart = \"oldest\"";
        let route = mqtt_route(route, self.port, Some((&self.pki.ca(), Some(&self.gateway.cert))), keys);
        let devices: Vec<VirtualDevice> = (0..OXIMETERS).map(oximeter).collect();
        site.config(GATEWAY, &devices.iter().collect::<Vec<_>>(), &route);
    }
}

fn open(config: &Path) -> Store {
    let settings = config::load(config).expect("a config").settings;
    let keys = Keys::read(&settings).expect("keys");
    prepare(&settings.gateway.state_dir, &keys.log, &keys.ward().expect("a key")).expect("prepared");
    Store::open(&settings.gateway.state_dir, &keys.log, keys.site, &settings.gateway.id).expect("opens")
}

/// So the WAL stays behind as it does when a daemon is killed.
pub fn fill_by_a_process_that_dies(site: &Site, records: usize) {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.env(FILL, site.config_file()).env(RECORDS, records.to_string());
    let status = command.status().expect("it starts");
    assert!(!status.success() && status.code().is_none(), "the filler did not die as it should: {status}");
}

pub fn fill_and_die(config: &Path) -> ! {
    let records = std::env::var(RECORDS).ok().and_then(|text| text.parse().ok()).expect("how many");
    let mut store = open(config);
    anchor(&mut store);
    fill(&mut store, records);
    windows_are_made(&mut store);
    std::process::abort()
}

/// As after days of work: a first start would make windows of the whole log.
fn windows_are_made(store: &mut Store) {
    let (next, now) = (store.head().expect("a head").next().0, jiff::Timestamp::now().as_millisecond());
    let marks = [("windows_from", next), ("windows_seen", next), ("windows_until", now.unsigned_abs())];
    store.append_and_mark(Vec::new(), &marks).expect("marked");
}

pub fn deliver(site: &Site) -> Daemon {
    let config = site.config_file().display().to_string();
    // No bus: the deliver half needs none.
    Daemon::start(Path::new(BINARY), &["run", "deliver", "--config", &config], &site.path("daemon.log"), "", &[])
}

/// Milliseconds from the start of the process to its word that it is there; it is killed then.
fn start(site: &Site) -> f64 {
    let started = Instant::now();
    let mut daemon = deliver(site);
    while !daemon.log_since_start().contains("started") {
        assert!(started.elapsed() < START, "it does not start:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    let time = started.elapsed();
    daemon.kill9();
    time.as_secs_f64() * 1e3
}
