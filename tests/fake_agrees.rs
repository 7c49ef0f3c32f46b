//! The fake bluetoothd says what the real one says: scripts of what happens to devices, adapter and daemon, each step with
//! all that a client is told of it, in order. Every script runs on the fake with every `cargo test`, and on the real daemon
//! in the virtual machine with `make test-vm`. `BEDRAIL_SCRIPT=part-of-a-name` runs some of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::bluez::{DeviceSpec, FakeBluez};
use support::bus::PrivateBus;
use support::devices::{HEART_RATE, Kind, Security, TEMPERATURE, VirtualDevice};
use support::probe::Probe;
use support::room::Room;
use support::vm::{self, RealBluez};

const SCRIPTS: &str = include_str!("fake_agrees/scripts.txt");

#[derive(Clone, Debug)]
struct Step {
    what: String,
    told: Vec<String>,
}

impl Step {
    /// What follows a `maybe` need not be told.
    fn is_told_by(&self, lines: &[String]) -> bool {
        let mut lines = lines.iter().peekable();
        let all = self.told.iter().all(|line| match line.strip_prefix("maybe ") {
            Some(line) => {
                lines.next_if(|told| *told == line);
                true
            }
            None => lines.next_if_eq(&line).is_some(),
        });
        all && lines.next().is_none()
    }
}

struct Script {
    /// Its place among all, which makes its devices' addresses.
    number: u8,
    name: String,
    steps: Vec<Step>,
}

fn scripts() -> Vec<Script> {
    let mut parts: Vec<(String, Vec<Step>)> = Vec::new();
    for line in SCRIPTS.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let text = line.trim_start().to_owned();
        match line.len() - text.len() {
            0 => parts.push((text, Vec::new())),
            2 => {
                let first = text.strip_prefix("first ").map(|name| format!("part {name}"));
                let steps = first.map(|name| parts.iter().find(|(held, _)| *held == name).expect("a part before it").1.clone());
                let steps = steps.unwrap_or_else(|| vec![Step { what: text, told: Vec::new() }]);
                parts.last_mut().expect("a name before its steps").1.extend(steps);
            }
            _ => parts.last_mut().and_then(|(_, steps)| steps.last_mut()).expect("a step before what is told").told.push(text),
        }
    }
    let chosen = std::env::var("BEDRAIL_SCRIPT").unwrap_or_default();
    let scripts = parts.into_iter().filter_map(|(name, steps)| Some((name.strip_prefix("script ")?.to_owned(), steps)));
    let numbered = scripts.zip(0u8..).map(|((name, steps), number)| Script { number, name, steps });
    numbered.filter(|script| script.name.contains(&chosen)).collect()
}

/// Under addresses of the script's own, so that nothing is known of them from another.
fn devices(script: &Script) -> Vec<(&'static str, VirtualDevice)> {
    let kinds = [
        ("strap", Kind::HeartRateStrap, Security::Open),
        ("cuff", Kind::Thermometer, Security::JustWorks),
        ("scale", Kind::Thermometer, Security::Passkey(123_456)),
        ("stranger", Kind::Thermometer, Security::Passkey(654_321)),
    ];
    let device = |((name, kind, security), n): ((&'static str, Kind, Security), u8)| {
        let address = format!("00:1C:05:{:02X}:00:{n:02X}", script.number);
        (name, VirtualDevice::new(kind, &address, name).with_security(security))
    };
    kinds.into_iter().zip(1..).map(device).collect()
}

/// How long a step may take to be told, and how long nothing more must be told after it.
#[derive(Clone, Copy)]
struct Patience {
    limit: Duration,
    quiet: Duration,
    /// For how long the kernel keeps a link whose owner died.
    link_dies: Duration,
}

const FAKE: Patience = Patience { limit: Duration::from_secs(2), quiet: Duration::from_millis(60), link_dies: Duration::ZERO };
/// Emulated, and a real disconnect takes 2 s.
const REAL: Patience =
    Patience { limit: Duration::from_secs(5), quiet: Duration::from_millis(400), link_dies: Duration::from_secs(3) };

/// Runs a script; what was told, where that is not what it says.
fn run(script: &Script, room: &dyn Room, bus: &str, patience: Patience) -> Result<(), String> {
    let devices = devices(script);
    for (_, device) in &devices {
        room.devices().add(DeviceSpec { battery: None, ..device.spec() });
    }
    let address = |name: &str| devices.iter().find(|(held, _)| *held == name).expect("a device").1.address.clone();
    let names: Vec<(&str, &str)> = devices.iter().map(|(name, device)| (*name, device.address.as_str())).collect();
    let probe = Probe::connect(bus, &names);
    // What comes of starting it.
    probe.lines(|_| true, Duration::ZERO, patience.quiet);
    let mut told = Vec::new();
    for step in &script.steps {
        take(step, room, &probe, address, patience);
        let lines = probe.lines(|lines| step.is_told_by(lines), patience.limit, patience.quiet);
        let verdict = if step.is_told_by(&lines) { "" } else { "    # told otherwise" };
        told.push(format!("  {}{verdict}", step.what));
        told.extend(lines.iter().map(|line| format!("    {line}")));
    }
    for (name, device) in &devices {
        room.devices().away(&device.address);
        probe.remove(name);
    }
    probe.lines(|_| true, patience.quiet, patience.quiet);
    if told.iter().any(|line| line.ends_with("# told otherwise")) { Err(told.join("\n")) } else { Ok(()) }
}

fn take(step: &Step, room: &dyn Room, probe: &Probe, address: impl Fn(&str) -> String, patience: Patience) {
    let value = |name: &str| if name == "strap" { HEART_RATE } else { TEMPERATURE };
    let words: Vec<&str> = step.what.split(' ').collect();
    match *words.as_slice() {
        ["scan"] => {
            probe.set_filter();
            probe.adapter("StartDiscovery");
        }
        ["stop-scan"] => probe.adapter("StopDiscovery"),
        ["advertise", name] => room.devices().advertise(&address(name)),
        ["away", name] => room.devices().away(&address(name)),
        ["drop", name] => room.devices().drop_link(&address(name)),
        ["move", name] => room.devices().move_handles(&address(name)),
        ["connect", name] => probe.device(name, "Connect"),
        ["disconnect", name] => probe.device(name, "Disconnect"),
        ["pair", name] => probe.device(name, "Pair"),
        ["remove", name] => probe.remove(name),
        ["subscribe", name] => probe.characteristic(name, value(name), "StartNotify"),
        ["unsubscribe", name] => probe.characteristic(name, value(name), "StopNotify"),
        ["read", name] => probe.characteristic(name, value(name), "ReadValue"),
        // Whether anybody listens or not.
        ["tell", name, octets] => drop(room.devices().notify(&address(name), value(name), &from_hex(octets))),
        ["agent"] => probe.register_agent("KeyboardDisplay"),
        ["kill"] => room.kill_bluetoothd(),
        ["stop"] => room.stop_bluetoothd(),
        ["pause"] => std::thread::sleep(patience.link_dies),
        ["start"] => room.start_bluetoothd(),
        ["unplug"] => room.unplug_adapter(),
        ["plug"] => room.plug_adapter(),
        ["power", state] => probe.set_powered(state == "on"),
        _ => panic!("nobody can {:?}", step.what),
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).filter(|_| text != "nothing");
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_script_on_the_fake() {
    let scripts = scripts();
    let outcomes = std::thread::scope(|scope| {
        let on_its_own = |script| {
            move || {
                let bus = PrivateBus::start();
                let fake = FakeBluez::start(&bus.address());
                fake.plug_adapter();
                run(script, &fake, &bus.address(), FAKE)
            }
        };
        let runs: Vec<_> = scripts.iter().map(|script| scope.spawn(on_its_own(script))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    judge(&scripts, outcomes);
}

#[test]
fn every_script_on_a_real_bluetoothd() {
    if !vm::wanted("every_script_on_a_real_bluetoothd") {
        return;
    }
    let scripts = scripts();
    let real = RealBluez::boot();
    let bus = real.guest.bus();
    let outcomes = scripts.iter().map(|script| run(script, &real, &bus, REAL)).collect();
    judge(&scripts, outcomes);
}

fn judge(scripts: &[Script], outcomes: Vec<Result<(), String>>) {
    let (mut agree, mut differ) = (0, Vec::new());
    for (script, outcome) in scripts.iter().zip(outcomes) {
        match outcome {
            Ok(()) => agree += 1,
            Err(told) => differ.push(format!("script {}\n{told}\n", script.name)),
        }
    }
    println!("{agree} of {} scripts are told as they say", scripts.len());
    assert!(differ.is_empty(), "what was told:\n{}", differ.join("\n"));
    assert!(agree > 0, "no script is called so");
}
