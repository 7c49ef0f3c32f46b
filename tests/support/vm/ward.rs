//! A whole small ward with the gateway in the guest: the real binary under its own user, beside the real bluetoothd; virtual
//! devices and the broker on this machine, and the ledger that compares what they sent with what arrived.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::broker::{Broker, BrokerOptions, BrokerTls};
use super::super::daemon::{Site, mqtt_route_to};
use super::super::devices::{Clock, MadeValue, VirtualDevice, Worker};
use super::super::ledger::{self, Report};
use super::super::pki::{Pki, install_credential, run_quietly};
use super::super::process::wait_until;
use super::super::subscriber::{Message, Receiver, Subscriber};
use super::guest::{HOST, Ran, make_disk};
use super::{Air, Guest};

const GATEWAY: &str = "gw-vm";
/// Binary, keys, a log, and room to write.
const DISK_MIB: u64 = 160;
/// Emulated, a debug build is some twenty times slower than here.
pub const START: Duration = Duration::from_secs(60);
/// From advertising to subscribed, one device after the other.
pub const CONNECT: Duration = Duration::from_secs(60);

pub struct VmWard {
    pub air: Air,
    pub broker: Broker,
    pub subscriber: Subscriber,
    pub workers: Vec<Worker>,
    guest: Option<Guest>,
    disk: PathBuf,
    _site: Site,
    _pki: Pki,
}

impl VmWard {
    /// Booted, with bluetoothd and a powered adapter, its devices in the room but silent, the gateway not started.
    /// `binary` is `env!("CARGO_BIN_EXE_bedrail")` in a test; `credentials` are the devices' passkeys by name.
    pub fn new(binary: &str, devices: &[VirtualDevice], credentials: &[(&str, &[u8])]) -> Self {
        let (air, pki, site) = (Air::start(), Pki::new(), Site::seen_at("/gateway"));
        for device in devices {
            air.place(&device.spec());
            match device.clock {
                Clock::None => {}
                Clock::CurrentTime => air.set_clock(&device.address, super::super::devices::CURRENT_TIME, device.clock_offset_s),
                Clock::DateTime => air.set_clock(&device.address, super::super::devices::DATE_TIME, device.clock_offset_s),
            }
        }
        let tls = BrokerTls { ca: pki.ca(), server: pki.server_at(HOST), require_certificate: true };
        let broker = Broker::start(&BrokerOptions { tls: Some(tls), ..BrokerOptions::default() });
        let receiver = Receiver {
            port: broker.port(),
            client_id: "ledger".to_owned(),
            topic: "bedrail/#".to_owned(),
            tls: Some((pki.ca(), Some(pki.client("reader")))),
            login: None,
        };
        for (name, octets) in credentials {
            site.credential(name, octets);
        }
        let identity = pki.client("gateway");
        install_credential(&identity.key, &site.path("credentials/tls-key"));
        for (from, name) in [(pki.ca(), "ca.pem"), (identity.cert, "gateway.pem")] {
            std::fs::copy(from, site.path(name)).expect("a certificate is copied");
        }
        // The symbols are half of a debug build, and the guest reads it all under emulation.
        run_quietly(Command::new("strip").arg("-o").arg(site.path("bedrail")).arg(binary));
        let (ca, cert) = (site.seen("ca.pem"), site.seen("gateway.pem"));
        let keys = "carry = [\"readings\", \"events\"]\nstart = \"oldest\"";
        let route = mqtt_route_to(HOST, "live", broker.port(), Some((&ca, Some(&cert))), keys);
        let all: Vec<&VirtualDevice> = devices.iter().collect();
        site.config(GATEWAY, &all, &route);
        let disk = make_disk(&site.path(""), &broker.directory().join("gateway.disk"), DISK_MIB);
        let mut ward = Self {
            subscriber: Subscriber::start(receiver),
            workers: devices.iter().cloned().map(Worker::new).collect(),
            guest: None,
            air,
            broker,
            disk,
            _site: site,
            _pki: pki,
        };
        ward.boot();
        ward.guest().must("cd /gateway && chown -R bedrail:bedrail bedrail.toml credentials state run");
        // Fails where the config has a key that is not built yet; what starts the gateway will say so.
        ward.try_bedrail(&["key", "init"]);
        ward
    }

    pub fn guest(&self) -> &Guest {
        self.guest.as_ref().expect("it is booted")
    }

    pub fn boot(&mut self) {
        let guest = Guest::boot(&self.air, Some(&self.disk));
        guest.plug_adapter();
        guest.start_bluetoothd();
        guest.set_powered(true);
        self.guest = Some(guest);
    }

    pub fn cut_power(&mut self) {
        self.guest.take().expect("it is booted").cut_power();
    }

    /// As systemd would: again after an end, as the user `bedrail`.
    pub fn start_gateway(&self) {
        let command = "exec /gateway/bedrail run --config /gateway/bedrail.toml";
        let script = format!("#!/bin/sh\nexport RUST_LOG=info,bedrail=debug\nexec su -s /bin/sh bedrail -c '{command}'\n");
        self.guest().must(&format!("cat >/usr/bin/gateway <<'END'\n{script}END\nchmod 755 /usr/bin/gateway"));
        self.guest().keep("bedrail", "gateway");
        self.guest().wait_for("the gateway", START, "grep -q -e started -e 'bedrail ended' /run/log/bedrail");
        assert_eq!(self.gateway_ended(), 0, "{}", self.told());
    }

    /// Every device is in range and advertises, and is waited for until the gateway listens to it.
    pub fn advertise(&self) {
        self.workers.iter().for_each(|worker| self.air.advertise(&worker.device.address));
        self.wait_until_heard(CONNECT);
    }

    pub fn wait_until_heard(&self, limit: Duration) {
        for worker in &self.workers {
            self.wait_until_device_is_heard(&worker.device.address, limit);
        }
    }

    pub fn wait_until_device_is_heard(&self, address: &str, limit: Duration) {
        let worker = self.worker(address);
        let heard = wait_until(limit, || self.air.is_listening(address, worker.device.characteristic()));
        assert!(heard, "{address} is not listened to within {limit:?}:\n{}", self.told());
    }

    pub fn worker(&self, address: &str) -> &Worker {
        self.workers.iter().find(|worker| worker.device.address == address).expect("a device of this ward")
    }

    /// Every device that takes part measures once.
    pub fn measure(&mut self, takes_part: impl Fn(&VirtualDevice) -> bool) {
        for worker in self.workers.iter_mut().filter(|worker| takes_part(&worker.device)) {
            worker.measure(&self.air);
        }
    }

    /// All measure so often, a pause between.
    pub fn measure_rounds(&mut self, rounds: usize, pause: Duration) {
        for _ in 0..rounds {
            self.measure(|_| true);
            std::thread::sleep(pause);
        }
    }

    /// What the devices kept is sent as soon as they are listened to.
    pub fn empty_devices(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.workers.iter_mut().map(|worker| worker.send_waiting(&self.air)).sum::<usize>() > 0 {
            assert!(Instant::now() < end, "a device is not listened to:\n{}", self.told());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn made(&self) -> Vec<MadeValue> {
        self.workers.iter().flat_map(|worker| worker.made().to_vec()).collect()
    }

    pub fn records(&self) -> Vec<Message> {
        self.subscriber.messages().into_iter().filter(|message| !message.topic.ends_with("/status")).collect()
    }

    /// Waits until everything sent has arrived, and compares; fails where something is lost, invented or out of order.
    pub fn settle(&self, limit: Duration) -> Report {
        let made = self.made();
        let mut report = Report::default();
        wait_until(limit, || {
            std::thread::sleep(Duration::from_millis(200));
            report = ledger::compare(&made, &self.records());
            report.sent_but_missing(&made) == 0
        });
        println!("{}", report.line(None));
        report.assert_sound();
        report
    }

    /// Settles, and nothing that was sent may be missing.
    pub fn settle_with_all_sent(&self, limit: Duration) -> Report {
        let report = self.settle(limit);
        let made = self.made();
        let missing: Vec<&MadeValue> = report.missing.iter().map(|&index| &made[index]).filter(|made| made.sent).collect();
        assert!(missing.is_empty(), "sent and not arrived: {missing:#?}\n{}", self.told());
        report
    }

    pub fn try_bedrail(&self, arguments: &[&str]) -> Ran {
        let command = format!("/gateway/bedrail {} --config /gateway/bedrail.toml", arguments.join(" "));
        self.guest().run(&format!("su -s /bin/sh bedrail -c '{command}'"))
    }

    pub fn bedrail(&self, arguments: &[&str]) -> Ran {
        let ran = self.try_bedrail(arguments);
        assert!(ran.status == 0, "{arguments:?}: {}\n{}", ran.output, self.told());
        ran
    }

    pub fn status(&self) -> serde_json::Value {
        let said = self.bedrail(&["status", "--json"]).output;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// What the gateway says of a device.
    pub fn device_status(&self, address: &str) -> serde_json::Value {
        let status = self.status();
        let mut devices = status["collect"]["devices"].as_array().into_iter().flatten();
        devices.find(|device| device["address"] == address).cloned().unwrap_or_else(|| panic!("{status:#}"))
    }

    pub fn wait_for_status(
        &self,
        address: &str,
        limit: Duration,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let mut status = serde_json::Value::Null;
        let came = wait_until(limit, || {
            status = self.device_status(address);
            is_it(&status)
        });
        assert!(came, "{address} is {status:#}\n{}", self.told());
        status
    }

    /// Last record number in the log.
    pub fn head(&self) -> u64 {
        self.status()["collect"]["head"].as_u64().expect("a number")
    }

    /// An orderly end of everything in the guest, and a start of everything.
    pub fn reboot(&mut self) {
        for (name, limit) in [("bedrail", 20), ("bluetoothd", 10)] {
            self.guest().leave(name, "TERM");
            self.guest().wait_for("an end", Duration::from_secs(limit), &format!("! pidof {name} >/dev/null"));
        }
        self.guest().must("sync; umount /var/lib/bluetooth; mount -o remount,ro /gateway");
        self.cut_power();
        self.boot();
        self.start_gateway();
    }

    /// The gateway's log since this boot.
    pub fn log(&self) -> String {
        self.guest().must("cat /run/log/bedrail")
    }

    /// Waits for a line of the gateway's log beyond the first `from` octets.
    pub fn wait_for_line(&self, from: usize, text: &str, limit: Duration) {
        let script = format!("tail -c +{} /run/log/bedrail | grep -q -F '{text}'", from + 1);
        self.guest().wait_for(text, limit, &script);
    }

    pub fn gateway_ended(&self) -> usize {
        self.log().matches("[bedrail ended").count()
    }

    pub fn told(&self) -> String {
        let events = self.air.events();
        let lines: Vec<&str> = events.lines().collect();
        format!("{}\n--- air\n{}", self.guest().logs(), lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}
