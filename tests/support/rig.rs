//! A whole small ward around the real binary: private bus, fake bluetoothd and clock, devices at work, a broker with TLS
//! behind a misbehaving proxy, and an independent receiver.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bluez::{AdapterSpec, FakeBluez};
use super::broker::{Broker, BrokerOptions};
use super::bus::PrivateBus;
use super::chaos::ChaosProxy;
use super::daemon::{Daemon, Ran, START, Site, mqtt_route, run_with_input};
use super::devices::{MadeValue, VirtualDevice, Worker};
use super::ledger::{self, Report};
use super::pki::{Identity, Pki, install_credential};
use super::process::wait_until;
use super::subscriber::{Message, Receiver, Subscriber};
use super::timedate::FakeTimedate;
use bedrail::reading::SiteKey;
use bedrail::store::{LOG_FILE, Store, key};

/// How the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `bedrail run`
    OneProcess,
    /// `bedrail store prepare`, `bedrail run collect`, `bedrail run deliver`
    TwoProcesses,
}

pub struct Rig {
    pub binary: PathBuf,
    pub site: Site,
    pub bus: PrivateBus,
    pub bluez: FakeBluez,
    pub clock: FakeTimedate,
    pub pki: Pki,
    pub broker: Broker,
    pub proxy: ChaosProxy,
    pub subscriber: Subscriber,
    pub daemons: Vec<Daemon>,
    pub workers: Vec<Worker>,
    /// The gateway's own certificate.
    pub identity: Identity,
    /// What the daemon logs.
    pub log_filter: &'static str,
    /// What else is in the daemon's environment.
    pub environment: Vec<(String, String)>,
    shape: Shape,
}

pub const GATEWAY: &str = "gw-test";
const ADAPTER: &str = "hci0";

/// Of the gateway, a device or a route; no record.
fn is_state(message: &Message) -> bool {
    message.topic.starts_with(&format!("bedrail/{GATEWAY}/status")) || message.topic.starts_with("homeassistant/")
}

impl Rig {
    /// Everything but the daemon. `route` holds further keys of the one route, `rest` further sections of the config.
    pub fn new(binary: &str, devices: &[VirtualDevice], route: &str, rest: &str) -> Self {
        let (bus, site, pki) = (PrivateBus::start(), Site::new(), Pki::new());
        let clock = FakeTimedate::start(&bus.address());
        let bluez = FakeBluez::start(&bus.address());
        bluez.add_adapter(AdapterSpec::new(ADAPTER, "00:1A:7D:DA:71:13"));
        for device in devices {
            device.place(&bluez, ADAPTER);
            bluez.advertise(&device.address, -60);
        }
        let broker = Broker::start(&BrokerOptions::mutual_tls(&pki));
        let proxy = ChaosProxy::start(broker.port());
        let gateway = pki.client("gateway");
        install_credential(&gateway.key, &site.path("credentials/tls-key"));
        let receiver = Receiver {
            port: broker.port(),
            client_id: "ledger".to_owned(),
            topic: "bedrail/#".to_owned(),
            tls: Some((pki.ca(), Some(pki.client("reader")))),
            login: None,
        };
        let rig = Self {
            binary: PathBuf::from(binary),
            subscriber: Subscriber::start(receiver),
            daemons: Vec::new(),
            workers: devices.iter().cloned().map(Worker::new).collect(),
            identity: gateway,
            log_filter: "info,bedrail=debug",
            environment: Vec::new(),
            shape: Shape::OneProcess,
            site,
            bus,
            bluez,
            clock,
            pki,
            broker,
            proxy,
        };
        rig.configure(&rig.route("live", route), rest);
        let made = rig.bedrail(&["key", "init"]);
        assert!(made.status == Some(0), "{made:?}");
        rig
    }

    /// A route through the proxy to the broker, as TOML; `keys` are further lines of it.
    pub fn route(&self, name: &str, keys: &str) -> String {
        mqtt_route(name, self.proxy.port(), Some((&self.pki.ca(), Some(&self.identity.cert))), keys)
    }

    /// Writes the config anew, for the next start.
    pub fn configure(&self, routes: &str, rest: &str) {
        let devices: Vec<&VirtualDevice> = self.workers.iter().map(|worker| &worker.device).collect();
        self.site.config(GATEWAY, &devices, &format!("{routes}\n{rest}"));
    }

    /// An orderly end, and the same shape again.
    pub fn restart(&mut self) {
        self.stop();
        self.start(self.shape);
    }

    pub fn start(&mut self, shape: Shape) {
        if shape == Shape::TwoProcesses {
            let prepared = self.bedrail(&["store", "prepare"]);
            assert!(prepared.status == Some(0), "{prepared:?}");
        }
        self.launch(shape);
        for daemon in &mut self.daemons {
            daemon.wait_for_line("started", START);
        }
    }

    /// Starts the processes and waits for nothing.
    pub fn launch(&mut self, shape: Shape) {
        self.shape = shape;
        let halves: &[&[&str]] = match shape {
            Shape::OneProcess => &[&["run"]],
            Shape::TwoProcesses => &[&["run", "collect"], &["run", "deliver"]],
        };
        let config = self.site.config_file().display().to_string();
        for (number, half) in halves.iter().enumerate() {
            let arguments = [half, &["--config", &config][..]].concat();
            let log = self.site.path(format!("daemon-{number}.log"));
            let further = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let environment: Vec<(&str, &str)> = [("RUST_LOG", self.log_filter)].into_iter().chain(further).collect();
            self.daemons.push(Daemon::start(&self.binary, &arguments, &log, &self.bus.address(), &environment));
        }
    }

    /// Waits until every device is listened to.
    pub fn wait_until_heard(&self, limit: Duration) {
        let heard = wait_until(limit, || self.workers.iter().all(|worker| worker.is_heard(&self.bluez)));
        assert!(heard, "not every device is listened to:\n{}", self.logs());
    }

    /// Every device that takes part measures once.
    pub fn measure(&mut self, takes_part: impl Fn(&VirtualDevice) -> bool) {
        for worker in self.workers.iter_mut().filter(|worker| takes_part(&worker.device)) {
            worker.measure(&self.bluez);
        }
    }

    /// What the devices kept is sent as soon as they are listened to.
    pub fn empty_devices(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.workers.iter_mut().map(|worker| worker.send_waiting(&self.bluez)).sum::<usize>() > 0 {
            assert!(Instant::now() < end, "a device is not listened to:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn made(&self) -> Vec<MadeValue> {
        self.workers.iter().flat_map(|worker| worker.made().to_vec()).collect()
    }

    /// The last record number in the log, asked of the store itself.
    pub fn head(&self) -> u64 {
        let ran = self.bedrail(&["store", "stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
        stats["head"].as_u64().expect("a number")
    }

    /// Waits until everything in the log has arrived, and compares.
    pub fn settle(&self, limit: Duration) -> Report {
        self.settle_without(limit, |_| false)
    }

    /// The same where damage took some of it: what arrived gap records name may be missing.
    pub fn settle_but_gaps(&self, limit: Duration) -> Report {
        let named = |seq: u64| {
            let gaps = ledger::gaps(&self.records(), "damaged");
            gaps.iter().any(|gap| gap["run"][0].as_u64() <= Some(seq) && Some(seq) <= gap["run"][1].as_u64())
        };
        self.settle_without(limit, named)
    }

    fn settle_without(&self, limit: Duration, excused: impl Fn(u64) -> bool) -> Report {
        let made = self.made();
        let end = Instant::now() + limit;
        loop {
            let head = self.head();
            let report = ledger::compare(&made, &self.records());
            let missing: Vec<u64> = report.missing_seqs(head).into_iter().filter(|seq| !excused(*seq)).collect();
            if missing.is_empty() {
                return report;
            }
            assert!(
                Instant::now() < end,
                "of {head} durable records {} did not arrive, the first is {}:\n{}",
                missing.len(),
                missing[0],
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What arrived, the gateway's status left out.
    pub fn records(&self) -> Vec<Message> {
        self.subscriber.messages().into_iter().filter(|message| !is_state(message)).collect()
    }

    /// What arrived under a topic prefix, the gateway's status left out.
    pub fn records_under(&self, prefix: &str) -> Vec<Message> {
        self.records().into_iter().filter(|message| message.topic.starts_with(prefix)).collect()
    }

    /// Runs a command of the binary with this site's config.
    pub fn bedrail(&self, arguments: &[&str]) -> Ran {
        self.bedrail_with_input(arguments, b"")
    }

    pub fn bedrail_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let config = self.site.config_file().display().to_string();
        let arguments = [arguments, &["--config", &config][..]].concat();
        run_with_input(&self.binary, &arguments, &[], input, Duration::from_secs(30))
    }

    /// A command that must succeed; what it printed.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let ran = self.bedrail(arguments);
        assert!(ran.status == Some(0), "{arguments:?}: {ran:?}\n{}", self.logs());
        ran.stdout
    }

    pub fn ask_json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.ask(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// A command that must fail with this exit code; what it said on standard error.
    pub fn refused(&self, arguments: &[&str], code: i32) -> String {
        let ran = self.bedrail(arguments);
        assert!(ran.status == Some(code), "{arguments:?}: {ran:?}\n{}", self.logs());
        ran.stderr
    }

    /// What `route list` says of a route.
    pub fn route_status(&self, name: &str) -> serde_json::Value {
        let routes = self.ask_json(&["route", "list"]);
        let found = routes.as_array().into_iter().flatten().find(|route| route["name"] == name);
        found.unwrap_or_else(|| panic!("no route {name} in {routes:#}")).clone()
    }

    /// Waits until `route list` says so of a route.
    pub fn wait_for_route(&self, name: &str, limit: Duration, condition: impl Fn(&serde_json::Value) -> bool) {
        let mut status = serde_json::Value::Null;
        let came = wait_until(limit, || {
            status = self.route_status(name);
            condition(&status)
        });
        assert!(came, "route {name} is {status:#}\n{}", self.logs());
    }

    /// Waits for a condition on everything that arrived under a topic prefix.
    pub fn wait_for_records(&self, prefix: &str, limit: Duration, condition: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let mut records = Vec::new();
        let came = wait_until(limit, || {
            records = self.records_under(prefix);
            condition(&records)
        });
        let raw: Vec<&str> = records.iter().map(|message| message.raw.as_str()).collect();
        assert!(came, "what is under {prefix} is not what is waited for: {raw:#?}\n{}", self.logs());
        records
    }

    /// The log, opened beside the daemon.
    pub fn store(&self) -> Store {
        let credential = |name: &str| std::fs::read(self.site.path("credentials").join(name)).expect("a credential");
        let log = self.site.path("state").join(LOG_FILE);
        let data_key = key::data_key(&log, "store-key", &credential("store-key")).expect("its own key");
        let site_key = key::key_material(&credential("site-key")).expect("32 octets");
        Store::open(&self.site.path("state"), &data_key, SiteKey::new(&site_key), GATEWAY).expect("the log opens")
    }

    /// The audit trail as (action, object), its chain checked.
    pub fn audit_trail(&self) -> Vec<(String, String)> {
        let rows = self.store().verify_audit().expect("it can be read").expect("an unbroken chain");
        rows.into_iter().map(|row| (row.action, row.object)).collect()
    }

    pub fn logs(&self) -> String {
        let tail = |daemon: &Daemon| {
            let log = daemon.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        self.daemons.iter().map(tail).collect::<Vec<_>>().join("\n---\n")
    }

    pub fn stop(&mut self) {
        for daemon in &mut self.daemons {
            let status = daemon.terminate(Duration::from_secs(10));
            assert!(status.success(), "{status}: {}", daemon.log());
        }
        self.daemons.clear();
    }
}
