//! The air, run by tests/vm/air.py: devices by their address, as in the fake's room, and the guest's controller.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::super::bluez::{DeviceSpec, uuid16};
use super::super::process::wait_until;
use super::leash::Leashed;

/// The octets a write begins with, and what is told then.
pub type Answers<'a> = (&'a [u8], &'a [(Uuid, Vec<u8>)]);

pub struct Air {
    directory: TempDir,
    control: Mutex<BufReader<UnixStream>>,
    _process: Leashed,
}

/// How a device is at this moment.
#[derive(Debug)]
pub struct DeviceNow {
    pub connected: bool,
    pub encrypted: bool,
    pub bonded: bool,
    /// What it has in its advertisements.
    pub address: String,
    listening: Vec<String>,
}

impl Air {
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a directory for the air");
        let mut command = Command::new(super::prepared("python/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/air.py")).arg(directory.path());
        let output = directory.path().join("log");
        let process = Leashed::start(&command, &output, true);
        let path = directory.path().join("control");
        let mut control = None;
        wait_until(Duration::from_secs(20), || {
            control = UnixStream::connect(&path).ok();
            control.is_some()
        });
        let said = || std::fs::read_to_string(&output).unwrap_or_default();
        let control = control.unwrap_or_else(|| panic!("the air does not start:\n{}", said()));
        Self { directory, control: Mutex::new(BufReader::new(control)), _process: process }
    }

    /// Where QEMU finds the guest's controller.
    pub fn hci(&self) -> PathBuf {
        self.directory.path().join("hci")
    }

    pub fn place(&self, spec: &DeviceSpec) {
        let characteristic = |c: &super::super::bluez::CharacteristicSpec| json!({ "uuid": short(c.uuid), "flags": c.flags, "value": hex(&c.value), "encrypted": c.encrypted });
        let services: Vec<Value> = spec
            .services
            .iter()
            .map(|service| {
                let characteristics: Vec<Value> = service.characteristics.iter().map(characteristic).collect();
                json!({ "uuid": short(service.uuid), "characteristics": characteristics })
            })
            .collect();
        let advertised: Vec<String> = spec.advertised.iter().map(|uuid| short(*uuid)).collect();
        self.ask(json!({ "do": "place", "device": {
            "address": spec.address, "random_address": spec.random_address, "name": spec.name, "privacy": spec.privacy,
            "advertised": advertised, "services": services, "passkey": spec.behaviour.passkey,
        }}));
    }

    pub fn advertise(&self, address: &str) {
        self.tell(address, "advertise");
    }

    pub fn away(&self, address: &str) {
        self.tell(address, "away");
    }

    pub fn drop_link(&self, address: &str) {
        self.tell(address, "drop");
    }

    pub fn move_handles(&self, address: &str) {
        self.tell(address, "move");
    }

    pub fn lose_bond(&self, address: &str) {
        self.tell(address, "forget");
    }

    /// A new private address, while it has no link.
    pub fn rotate(&self, address: &str) {
        self.tell(address, "rotate");
    }

    /// Service data that its advertisements hold from now on, ten a second.
    pub fn broadcast(&self, address: &str, service: Uuid, octets: &[u8]) {
        self.ask(json!({ "do": "broadcast", "address": address, "uuid": short(service), "value": hex(octets) }));
    }

    /// A characteristic shows the time, so many seconds ahead.
    pub fn set_clock(&self, address: &str, characteristic: Uuid, offset: i64) {
        self.ask(json!({ "do": "clock", "address": address, "uuid": short(characteristic), "offset": offset }));
    }

    /// What the device tells when something that begins so is written to a characteristic of it.
    pub fn set_answers(&self, address: &str, characteristic: Uuid, answers: &[Answers]) {
        let told =
            |told: &[(Uuid, Vec<u8>)]| told.iter().map(|(uuid, octets)| json!([short(*uuid), hex(octets)])).collect::<Vec<_>>();
        let answers: Vec<Value> = answers.iter().map(|(begins, tells)| json!([hex(begins), told(tells)])).collect();
        self.ask(json!({ "do": "answers", "address": address, "uuid": short(characteristic), "answers": answers }));
    }

    /// What the device has stored: number and octets of each, to be asked for; it hangs up once after so many.
    pub fn set_memory(&self, address: &str, characteristic: Uuid, records: &[(u16, Vec<u8>)], drops_after: Option<usize>) {
        let uuid = short(characteristic);
        let records: Vec<Value> = records.iter().map(|(n, octets)| json!([n, uuid, hex(octets)])).collect();
        self.ask(json!({ "do": "memory", "address": address, "records": records, "drops_after": drops_after }));
    }

    /// What was written to a characteristic of the device, oldest first, as hexadecimal digits.
    pub fn written(&self, address: &str, characteristic: Uuid) -> Vec<String> {
        let events = self.events();
        let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_it = |event: &Value| {
            event["who"] == address && event["what"] == "written" && event["uuid"] == short(characteristic).as_str()
        };
        events.filter(is_it).filter_map(|event| event["value"].as_str().map(str::to_owned)).collect()
    }

    /// The gateway's controller is pulled out or put in.
    pub fn set_plugged(&self, plugged: bool) {
        self.ask(json!({ "do": "gateway", "plugged": plugged }));
    }

    /// True once the stack took it: a notification has left, an indication is confirmed.
    pub fn notify(&self, address: &str, characteristic: Uuid, octets: &[u8]) -> bool {
        let request = json!({ "do": "notify", "address": address, "uuid": short(characteristic), "value": hex(octets) });
        self.ask(request)["sent"] == true
    }

    pub fn is_listening(&self, address: &str, characteristic: Uuid) -> bool {
        self.state(address).listening.contains(&short(characteristic))
    }

    pub fn state(&self, address: &str) -> DeviceNow {
        let said = self.ask(json!({ "do": "state", "address": address }));
        let is = |name: &str| said[name] == true;
        let texts = said["listening"].as_array().into_iter().flatten().filter_map(Value::as_str);
        DeviceNow {
            connected: is("connected"),
            encrypted: is("encrypted"),
            bonded: is("bonded"),
            address: said["address"].as_str().unwrap_or_default().to_owned(),
            listening: texts.map(str::to_owned).collect(),
        }
    }

    /// How often this happened to the device.
    pub fn count(&self, address: &str, what: &str) -> usize {
        let is_it = |line: &&str| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            event["who"] == address && event["what"] == what
        };
        self.events().lines().filter(is_it).count()
    }

    /// All that happened, an object a line.
    pub fn events(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("events") + &read("log")
    }

    fn tell(&self, address: &str, what: &str) {
        self.ask(json!({ "do": what, "address": address }));
    }

    fn ask(&self, request: Value) -> Value {
        let mut control = self.control.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut line = String::new();
        let asked = writeln!(control.get_mut(), "{request}").and_then(|()| control.read_line(&mut line));
        let answer: Value = serde_json::from_str(&line).unwrap_or_default();
        assert!(
            asked.is_ok() && answer.is_object() && answer.get("error").is_none(),
            "the air answers {request} with {line:?}:\n{}",
            self.events()
        );
        answer
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The 16-bit form of a UUID of the SIG: an advertisement has no room for more.
fn short(uuid: Uuid) -> String {
    let short = u16::try_from(uuid.as_u128() >> 96).ok().filter(|short| uuid16(*short) == uuid);
    short.map_or_else(|| uuid.to_string(), |short| format!("{short:04X}"))
}
