//! A whole small ward around the real binary: private bus, fake bluetoothd and clock, devices at work, a broker with TLS
//! behind a misbehaving proxy, and an independent receiver.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bluez::{AdapterSpec, FakeBluez};
use super::broker::{Broker, BrokerOptions};
use super::bus::PrivateBus;
use super::chaos::ChaosProxy;
use super::daemon::{Daemon, Ran, START, Site, mqtt_route, run};
use super::devices::{MadeValue, VirtualDevice, Worker};
use super::ledger::{self, Report};
use super::pki::{Pki, install_credential};
use super::process::wait_until;
use super::subscriber::{Message, Receiver, Subscriber};
use super::timedate::FakeTimedate;

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
}

pub const GATEWAY: &str = "gw-test";
const ADAPTER: &str = "hci0";

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
        let subscriber = Subscriber::start(receiver);
        let route = mqtt_route("live", proxy.port(), Some((&pki.ca(), Some(&gateway.cert))), route);
        site.config(GATEWAY, &devices.iter().collect::<Vec<_>>(), &format!("{route}\n{rest}"));
        let workers = devices.iter().cloned().map(Worker::new).collect();
        let binary = PathBuf::from(binary);
        let rig = Self { binary, site, bus, bluez, clock, pki, broker, proxy, subscriber, daemons: Vec::new(), workers };
        let made = rig.bedrail(&["key", "init"]);
        assert!(made.status == Some(0), "{made:?}");
        rig
    }

    pub fn start(&mut self, shape: Shape) {
        let halves: &[&[&str]] = match shape {
            Shape::OneProcess => &[&["run"]],
            Shape::TwoProcesses => {
                let prepared = self.bedrail(&["store", "prepare"]);
                assert!(prepared.status == Some(0), "{prepared:?}");
                &[&["run", "collect"], &["run", "deliver"]]
            }
        };
        let config = self.site.config_file().display().to_string();
        for (number, half) in halves.iter().enumerate() {
            let arguments = [half, &["--config", &config][..]].concat();
            let log = self.site.path(format!("daemon-{number}.log"));
            let environment = [("RUST_LOG", "info,bedrail=debug")];
            self.daemons.push(Daemon::start(&self.binary, &arguments, &log, &self.bus.address(), &environment));
        }
        for daemon in &mut self.daemons {
            daemon.wait_for_line("started", START);
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
        let made = self.made();
        let end = Instant::now() + limit;
        loop {
            let head = self.head();
            let report = ledger::compare(&made, &self.records());
            let missing = report.missing_seqs(head);
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
        self.subscriber.messages().into_iter().filter(|message| !message.topic.ends_with("/status")).collect()
    }

    /// Runs a command of the binary with this site's config.
    pub fn bedrail(&self, arguments: &[&str]) -> Ran {
        let config = self.site.config_file().display().to_string();
        let arguments = [arguments, &["--config", &config][..]].concat();
        run(&self.binary, &arguments, &[], Duration::from_secs(30))
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
    }
}
