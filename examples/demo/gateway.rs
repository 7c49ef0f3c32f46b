//! One gateway: the real binary with a config of its own, a private bus with the fake BlueZ and its devices at work, and a
//! receiver for each of its two routes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::script::{BEDS, Command, PATIENTS, WardDevice};
use super::support::bluez::{AdapterSpec, FakeBluez};
use super::support::broker::{Broker, BrokerOptions};
use super::support::bus::PrivateBus;
use super::support::daemon::{Daemon, Ran, START, Site, mqtt_route, run};
use super::support::devices::{MadeValue, Worker};
use super::support::pki::{Identity, Pki, install_credential};
use super::support::process::wait_until;
use super::support::subscriber::{Receiver, Subscriber};
use super::support::timedate::FakeTimedate;

const ADAPTER: &str = "hci0";
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Discovery, connection and subscription of six devices on a busy machine.
const HEARD: Duration = Duration::from_secs(40);
/// Everything in the log, so that what is durable can be compared with what arrived.
const LIVE: &str = "bind = \"device\"\ncarry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]\nstart = \"oldest\"";
/// Only what surely is one patient's, whenever it is sent.
const CHART: &str =
    "bind = \"patient\"\ncarry = [\"readings\"]\nstart = \"oldest\"\ntopic = \"chart/{gateway}/{device}/{metric}\"";

/// The hospital's side: a broker that asks for certificates, and who may show one.
pub struct Hospital {
    pub broker: Broker,
    ca: PathBuf,
    gateway: Identity,
    reader: Identity,
    // Holds the files.
    _pki: Pki,
}

impl Hospital {
    pub fn open() -> Self {
        let pki = Pki::new();
        let broker = Broker::start(&BrokerOptions::mutual_tls(&pki));
        Self { broker, ca: pki.ca(), gateway: pki.client("gateway"), reader: pki.client("reader"), _pki: pki }
    }

    fn receiver(&self, client_id: String, topic: String) -> Subscriber {
        let tls = Some((self.ca.clone(), Some(self.reader.clone())));
        Subscriber::start(Receiver { port: self.broker.port(), client_id, topic, tls, login: None })
    }
}

pub struct Gateway {
    // What is first here ends first.
    daemon: Daemon,
    pub live: Subscriber,
    pub chart: Subscriber,
    workers: Vec<(Worker, Duration, Duration)>,
    bluez: FakeBluez,
    _clock: FakeTimedate,
    _bus: PrivateBus,
    pub site: Site,
    binary: PathBuf,
}

impl Gateway {
    /// Starts all of it and waits until each device is listened to. `port` is where it finds the broker.
    pub fn start(binary: &Path, hospital: &Hospital, port: u16, id: &str, devices: &[WardDevice]) -> Result<Self> {
        let (bus, site) = (PrivateBus::start(), Site::new());
        let clock = FakeTimedate::start(&bus.address());
        let bluez = FakeBluez::start(&bus.address());
        bluez.add_adapter(AdapterSpec::new(ADAPTER, "00:1A:7D:DA:71:13"));
        for WardDevice { device, .. } in devices {
            device.place(&bluez, ADAPTER);
            bluez.advertise(&device.address, -60);
        }
        install_credential(&hospital.gateway.key, &site.path("credentials/tls-key"));
        std::fs::write(site.config_file(), config(&site, hospital, port, id, devices)).context("the config is not written")?;
        bedrail(binary, &site, &["key", "init"])?;
        let live = hospital.receiver(format!("live-of-{id}"), format!("bedrail/{id}/+/+"));
        let chart = hospital.receiver(format!("chart-of-{id}"), format!("chart/{id}/+/+"));
        let file = site.config_file().display().to_string();
        let log = site.path("bedrail.log");
        let mut daemon = Daemon::start(binary, &["run", "--config", &file], &log, &bus.address(), &[("RUST_LOG", "info")]);
        daemon.wait_for_line("started", START);
        let workers = devices.iter().map(|d| (Worker::new(d.device.clone()), d.first, d.every)).collect();
        let gateway = Self { daemon, live, chart, workers, bluez, _clock: clock, _bus: bus, site, binary: binary.to_owned() };
        gateway.wait_until_ready(devices)?;
        Ok(gateway)
    }

    fn wait_until_ready(&self, devices: &[WardDevice]) -> Result<()> {
        let heard = || self.workers.iter().all(|(worker, ..)| worker.is_heard(&self.bluez));
        ensure!(wait_until(HEARD, heard), "not every device is listened to:\n{}", self.log_tail());
        // The config's own assignments begin when the clock is known; before that nothing is measured.
        let count = |word: &str| devices.iter().filter(|device| device.config.contains(word)).count();
        let end = Instant::now() + START;
        loop {
            let known: Value = serde_json::from_str(&self.command(&["ward", "--json"])?.stdout).unwrap_or_default();
            let of = |list: &str| known[list].as_array().map_or(0, Vec::len);
            if (of("devices"), of("places")) == (count("patient ="), count("bed =")) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the assignments of the config do not begin: {known}\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn carry_out(&self, commands: &[Command]) -> Result<()> {
        commands.iter().try_for_each(|command| self.command(command).map(|_| ()))
    }

    pub fn command(&self, arguments: &[&str]) -> Result<Ran> {
        bedrail(&self.binary, &self.site, arguments)
    }

    /// Devices whose time has come measure; `elapsed` since the start of the script.
    pub fn measure(&mut self, elapsed: Duration) {
        for (worker, due, every) in self.workers.iter_mut().filter(|(_, due, _)| *due <= elapsed) {
            worker.measure(&self.bluez);
            *due += *every;
        }
    }

    pub fn made(&self) -> Vec<MadeValue> {
        self.workers.iter().flat_map(|(worker, ..)| worker.made().to_vec()).collect()
    }

    /// The last record number in the log, asked of the store itself.
    pub fn head(&self) -> Result<u64> {
        let stats: Value = serde_json::from_str(&self.command(&["store", "stats", "--json"])?.stdout)?;
        stats["head"].as_u64().context("`bedrail store stats` names no head")
    }

    /// What `bedrail route list` says of one route.
    pub fn route(&self, name: &str) -> Result<Value> {
        let routes: Value = serde_json::from_str(&self.command(&["route", "list", "--json"])?.stdout)?;
        let route = routes.as_array().into_iter().flatten().find(|route| route["name"] == name);
        route.cloned().with_context(|| format!("`bedrail route list` does not name route {name}"))
    }

    pub fn stop(&mut self) -> Result<()> {
        let status = self.daemon.terminate(Duration::from_secs(10));
        ensure!(status.success(), "bedrail ended with {status}:\n{}", self.log_tail());
        Ok(())
    }

    pub fn log_tail(&self) -> String {
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn bedrail(binary: &Path, site: &Site, arguments: &[&str]) -> Result<Ran> {
    let config = site.config_file().display().to_string();
    let ran = run(binary, &[arguments, &["--config", &config]].concat(), &[], COMMAND_LIMIT);
    if ran.status != Some(0) {
        bail!("`bedrail {}` failed: {}{}", arguments.join(" "), ran.stdout, ran.stderr);
    }
    Ok(ran)
}

fn config(site: &Site, hospital: &Hospital, port: u16, id: &str, devices: &[WardDevice]) -> String {
    let mut text = site.gateway_section(id);
    for bed in BEDS {
        let _ = writeln!(text, "\n[[bed]]\nid = {bed:?}");
    }
    for patient in PATIENTS {
        let _ = writeln!(text, "\n[[patient]]\nkey = {patient:?}");
    }
    for WardDevice { device, config, .. } in devices {
        let (name, kind, address) = (&device.name, device.config_kind(), &device.address);
        let _ = writeln!(text, "\n[[device]]\nname = {name:?}\nkind = {kind:?}\naddress = {address:?}\n{config}");
    }
    for (name, keys) in [("live", LIVE), ("chart", CHART)] {
        let tls = Some((hospital.ca.as_path(), Some(hospital.gateway.cert.as_path())));
        let _ = writeln!(text, "\n{}", mqtt_route(name, port, tls, keys));
    }
    text
}
