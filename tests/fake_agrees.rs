//! The fake bluetoothd says what the real one says: scripts of what happens to devices, adapter and daemon, each step with
//! all that a client is told of it, in order. Every script runs on the fake with every `cargo test`, and on the real daemon
//! in the virtual machine with `make test-vm`.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::bluez::{FakeBluez, DeviceSpec};
use support::bus::PrivateBus;
use support::devices::{HEART_RATE, Kind, Security, TEMPERATURE, VirtualDevice};
use support::probe::Probe;
use support::room::Room;
use support::vm::{self, RealBluez};

#[derive(Clone, Copy, Debug)]
enum Step {
    Scan,
    StopScan,
    Advertise(&'static str),
    Away(&'static str),
    Drop(&'static str),
    Move(&'static str),
    Connect(&'static str),
    Disconnect(&'static str),
    Pair(&'static str),
    Remove(&'static str),
    Subscribe(&'static str),
    Unsubscribe(&'static str),
    Read(&'static str),
    /// The device tells a value, whether anybody listens or not.
    Tell(&'static str, &'static [u8]),
    Agent,
    Kill,
    Start,
    Unplug,
    Plug,
    Power(bool),
}

use Step::*;

/// A step, and what is told of it.
type Told = (Step, &'static [&'static str]);

const FOUND: [Told; 2] = [
    (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok"]),
    (Advertise("strap"), &["strap added"]),
];

const CONNECTED: [Told; 2] = [
    (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
    (Connect("strap"), &["strap Connected=true", "Connect strap: ok", "strap services added", "strap ServicesResolved=true"]),
];
const HEARD: [Told; 2] = [
    (Subscribe("strap"), &["strap Notifying=true", "StartNotify strap: ok"]),
    (Tell("strap", &[0, 61]), &["strap Value=003d"]),
];
const LOST: &[&str] = &["strap ServicesResolved=false", "strap Connected=false"];

/// What is done first, then what the script is about.
fn scripts() -> Vec<(&'static str, Vec<Told>)> {
    let found = FOUND.to_vec();
    let connected = [&FOUND[..], &CONNECTED].concat();
    let heard = [&connected[..], &HEARD].concat();
    let after = |first: &[Told], steps: &[Told]| [first, steps].concat();
    vec![
        ("a_device_is_found_by_a_scan", after(&found, &[
            (Scan, &["SetDiscoveryFilter: ok", "StartDiscovery: InProgress (Operation already in progress)"]),
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (StopScan, &["StopDiscovery: Failed (No discovery started)"]),
        ])),
        ("a_device_is_connected_heard_and_left", after(&heard, &[
            (Tell("strap", &[0, 61]), &["strap Value=003d"]),
            (Tell("strap", &[]), &["strap Value=nothing"]),
            (Unsubscribe("strap"), &["strap Notifying=false", "StopNotify strap: ok"]),
            (Tell("strap", &[0, 62]), &[]),
            (Disconnect("strap"), &["strap ServicesResolved=false", "strap Connected=false", "Disconnect strap: ok"]),
        ])),
        ("a_device_that_hung_up_is_heard_again_without_a_new_subscription", after(&heard, &[
            (Drop("strap"), LOST),
            (Connect("strap"), &["strap Connected=true", "Connect strap: ok", "strap ServicesResolved=true"]),
            (Tell("strap", &[0, 62]), &["strap Value=003e"]),
        ])),
        ("a_device_that_went_away_is_lost_and_connected_when_it_returns", after(&heard, &[
            (Away("strap"), LOST),
            (Connect("strap"), &[]),
            (Advertise("strap"), &["strap Connected=true", "Connect strap: ok", "strap ServicesResolved=true"]),
        ])),
        ("a_connect_is_called_off_by_disconnect", after(&found, &[
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (Away("strap"), &[]),
            (Connect("strap"), &[]),
            (Connect("strap"), &["Connect strap: InProgress (In Progress)"]),
            (Disconnect("strap"), &["Connect strap: Failed (br-connection-canceled)", "Disconnect strap: ok"]),
        ])),
        ("what_cannot_be_done_is_refused", after(&connected, &[
            (Connect("strap"), &["Connect strap: ok"]),
            (Read("strap"), &["ReadValue strap: NotPermitted (Read not permitted)"]),
            (Unsubscribe("strap"), &["StopNotify strap: Failed (No notify session started)"]),
            (Subscribe("strap"), &["strap Notifying=true", "StartNotify strap: ok"]),
            (Subscribe("strap"), &["StartNotify strap: ok"]),
            (Drop("strap"), LOST),
            (Disconnect("strap"), &["Disconnect strap: NotConnected (Not Connected)"]),
            (Read("strap"), &["ReadValue strap: Failed (Not connected)"]),
            (Subscribe("strap"), &["StartNotify strap: InProgress (In Progress)"]),
            (Remove("strap"), &["strap services removed", "strap removed", "RemoveDevice strap: ok"]),
            (Remove("strap"), &["RemoveDevice strap: DoesNotExist (Does Not Exist)"]),
            (Connect("strap"), &[
                "Connect strap: UnknownObject (Method \"Connect\" with signature \"\" on interface \"org.bluez.Device1\" doesn't exist\n)",
            ]),
        ])),
        ("attributes_that_moved_are_told_anew", after(&heard, &[
            (Move("strap"), LOST),
            (Connect("strap"), &[
                "strap Connected=true",
                "Connect strap: ok",
                "strap services removed",
                "strap services added",
                "strap ServicesResolved=true",
            ]),
            (Tell("strap", &[0, 62]), &[]),
            (Subscribe("strap"), &["strap Notifying=true", "StartNotify strap: ok"]),
            (Tell("strap", &[0, 63]), &["strap Value=003f"]),
        ])),
        ("a_device_is_removed_while_it_is_heard", after(&heard, &[
            (Remove("strap"), &["strap services removed", "strap removed", "RemoveDevice strap: ok"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok", "strap added"]),
        ])),
        ("a_killed_bluetoothd_takes_all_along_without_a_word", after(&heard, &[
            (Kill, &["bluetoothd is gone"]),
            (Connect("strap"), &["Connect strap: ServiceUnknown (The name org.bluez was not provided by any .service files)"]),
            (Start, &["bluetoothd is there", "adapter added", "adapter Powered=true"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok", "strap added"]),
        ])),
        ("an_adapter_is_pulled_out_and_put_in", after(&heard, &[
            (Unplug, &["strap services removed", "strap removed", "adapter removed"]),
            (Plug, &["adapter added", "adapter Powered=true"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok", "strap added"]),
        ])),
        ("an_adapter_is_switched_off_and_on", after(&heard, &[
            (Power(false), &["strap ServicesResolved=false", "strap Connected=false", "adapter Powered=false", "Powered=false: ok"]),
            (Scan, &["SetDiscoveryFilter: ok", "StartDiscovery: NotReady (Resource Not Ready)"]),
            (Connect("strap"), &["Connect strap: NotReady (Resource Not Ready)"]),
            (Power(true), &["adapter Powered=true", "Powered=true: ok"]),
            (Connect("strap"), &["strap Connected=true", "Connect strap: ok", "strap ServicesResolved=true"]),
            (Tell("strap", &[0, 62]), &["strap Value=003e"]),
        ])),
        ("a_scan_does_not_outlive_the_power", after(&found, &[
            (Power(false), &["adapter Discovering=false", "adapter Powered=false", "Powered=false: ok"]),
            (Power(true), &["adapter Powered=true", "Powered=true: ok"]),
            (StopScan, &["StopDiscovery: Failed (No discovery started)"]),
        ])),
        ("a_subscription_bonds_through_the_agent", vec![
            (Agent, &["RegisterAgent: ok", "RequestDefaultAgent: ok"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok"]),
            (Advertise("cuff"), &["cuff added"]),
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (Connect("cuff"), &["cuff Connected=true", "Connect cuff: ok", "cuff services added", "cuff ServicesResolved=true"]),
            (Subscribe("cuff"), &[
                "RequestAuthorization cuff?",
                "cuff Paired=true",
                "cuff Bonded=true",
                "cuff Notifying=true",
                "StartNotify cuff: ok",
            ]),
            (Tell("cuff", &[0, 63]), &["cuff Value=003f"]),
            (Drop("cuff"), &["cuff ServicesResolved=false", "cuff Connected=false"]),
            (Kill, &["bluetoothd is gone"]),
            (Start, &["bluetoothd is there", "adapter added", "cuff added", "adapter Powered=true"]),
        ]),
        ("without_an_agent_a_subscription_that_needs_a_bond_has_no_answer", vec![
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok"]),
            (Advertise("cuff"), &["cuff added"]),
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (Connect("cuff"), &["cuff Connected=true", "Connect cuff: ok", "cuff services added", "cuff ServicesResolved=true"]),
            (Subscribe("cuff"), &[]),
        ]),
        ("pairing_by_just_works_asks_nobody", vec![
            (Agent, &["RegisterAgent: ok", "RequestDefaultAgent: ok"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok"]),
            (Advertise("cuff"), &["cuff added"]),
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (Pair("cuff"), &[
                "cuff Connected=true",
                "cuff Paired=true",
                "cuff Bonded=true",
                "cuff services added",
                "cuff ServicesResolved=true",
                "Pair cuff: ok",
            ]),
            (Pair("cuff"), &["Pair cuff: AlreadyExists (Already Exists)"]),
        ]),
        ("pairing_with_a_passkey_asks_the_agent", vec![
            (Agent, &["RegisterAgent: ok", "RequestDefaultAgent: ok"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok"]),
            (Advertise("scale"), &["scale added"]),
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (Pair("scale"), &[
                "scale Connected=true",
                "RequestPasskey scale?",
                "scale Paired=true",
                "scale Bonded=true",
                "scale services added",
                "scale ServicesResolved=true",
                "Pair scale: ok",
            ]),
        ]),
        ("a_wrong_passkey_bonds_nobody_and_costs_the_link", vec![
            (Agent, &["RegisterAgent: ok", "RequestDefaultAgent: ok"]),
            (Scan, &["SetDiscoveryFilter: ok", "adapter Discovering=true", "StartDiscovery: ok"]),
            (Advertise("stranger"), &["stranger added"]),
            (StopScan, &["adapter Discovering=false", "StopDiscovery: ok"]),
            (Pair("stranger"), &[
                "stranger Connected=true",
                "RequestPasskey stranger?",
                "stranger Connected=false",
                "Pair stranger: AuthenticationFailed (Authentication Failed)",
            ]),
        ]),
    ]
}

/// The devices of a script, under addresses of its own, so that nothing of the one before is known of them.
fn devices(script: usize) -> Vec<(&'static str, VirtualDevice)> {
    let kinds = [
        ("strap", Kind::HeartRateStrap, Security::Open),
        ("cuff", Kind::Thermometer, Security::JustWorks),
        ("scale", Kind::Thermometer, Security::Passkey(123_456)),
        ("stranger", Kind::Thermometer, Security::Passkey(654_321)),
    ];
    let device = |(n, (name, kind, security)): (usize, (&'static str, Kind, Security))| {
        let address = format!("00:1C:05:{script:02X}:00:{n:02X}");
        (name, VirtualDevice::new(kind, &address, name).with_security(security))
    };
    kinds.into_iter().enumerate().map(device).collect()
}

/// How long a step may take to be told, and how long nothing more must be told after it.
#[derive(Clone, Copy)]
struct Patience {
    limit: Duration,
    quiet: Duration,
}

const FAKE: Patience = Patience { limit: Duration::from_secs(5), quiet: Duration::from_millis(60) };
/// Emulated; a link that dies in silence takes seconds to be missed.
const REAL: Patience = Patience { limit: Duration::from_secs(15), quiet: Duration::from_millis(400) };

/// Runs one script; every step that was told otherwise than it says.
fn run(number: usize, steps: &[Told], room: &dyn Room, bus: &str, patience: Patience) -> Vec<String> {
    let devices = devices(number);
    for (_, device) in &devices {
        room.devices().add(DeviceSpec { battery: None, ..device.spec() });
    }
    let address = |name: &str| devices.iter().find(|(held, _)| *held == name).unwrap().1.address.clone();
    let value = |name: &str| if name == "strap" { HEART_RATE } else { TEMPERATURE };
    let names: Vec<(&str, &str)> = devices.iter().map(|(name, device)| (*name, device.address.as_str())).collect();
    let probe = Probe::connect(bus, &names);
    // What comes of starting it.
    probe.lines(&[], Duration::ZERO, patience.quiet);
    let mut differences = Vec::new();
    for (step, told) in steps {
        match *step {
            Scan => {
                probe.set_filter();
                probe.adapter("StartDiscovery");
            }
            StopScan => probe.adapter("StopDiscovery"),
            Advertise(name) => room.devices().advertise(&address(name)),
            Away(name) => room.devices().away(&address(name)),
            Drop(name) => room.devices().drop_link(&address(name)),
            Move(name) => room.devices().move_handles(&address(name)),
            Connect(name) => probe.device(name, "Connect"),
            Disconnect(name) => probe.device(name, "Disconnect"),
            Pair(name) => probe.device(name, "Pair"),
            Remove(name) => probe.remove(name),
            Subscribe(name) => probe.characteristic(name, value(name), "StartNotify"),
            Unsubscribe(name) => probe.characteristic(name, value(name), "StopNotify"),
            Read(name) => probe.characteristic(name, value(name), "ReadValue"),
            Tell(name, octets) => drop(room.devices().notify(&address(name), value(name), octets)),
            Agent => probe.register_agent("KeyboardDisplay"),
            Kill => room.kill_bluetoothd(),
            Start => room.start_bluetoothd(),
            Unplug => room.unplug_adapter(),
            Plug => room.plug_adapter(),
            Power(on) => probe.set_powered(on),
        }
        let lines = probe.lines(told, patience.limit, patience.quiet);
        if lines != *told {
            differences.push(format!("{step:?}\n    expected {told:?}\n    told     {lines:?}"));
        }
    }
    for (name, device) in &devices {
        room.devices().away(&device.address);
        probe.remove(name);
    }
    probe.lines(&[], Duration::from_secs(2), patience.quiet);
    differences
}

#[test]
fn every_script_on_the_fake() {
    let chosen = std::env::var("BEDRAIL_SCRIPT").unwrap_or_default();
    let outcomes: Vec<(&str, Vec<String>)> = std::thread::scope(|scope| {
        let runs = scripts().into_iter().enumerate().filter(|(_, (name, _))| name.contains(&chosen)).map(|(number, (name, steps))| {
            scope.spawn(move || {
                let bus = PrivateBus::start();
                let fake = FakeBluez::start(&bus.address());
                fake.plug_adapter();
                (name, run(number, &steps, &fake, &bus.address(), FAKE))
            })
        });
        runs.collect::<Vec<_>>().into_iter().map(|run| run.join().unwrap()).collect()
    });
    judge(outcomes);
}

#[test]
fn every_script_on_a_real_bluetoothd() {
    if !vm::wanted("every_script_on_a_real_bluetoothd") {
        return;
    }
    let chosen = std::env::var("BEDRAIL_SCRIPT").unwrap_or_default();
    let real = RealBluez::boot();
    let bus = real.guest.bus();
    let mut outcomes = Vec::new();
    for (number, (name, steps)) in scripts().into_iter().enumerate().filter(|(_, (name, _))| name.contains(&chosen)) {
        outcomes.push((name, run(number, &steps, &real, &bus, REAL)));
        println!("{name}: {}", if outcomes.last().unwrap().1.is_empty() { "agrees" } else { "differs" });
    }
    judge(outcomes);
}

fn judge(outcomes: Vec<(&str, Vec<String>)>) {
    let agreeing = outcomes.iter().filter(|(_, differences)| differences.is_empty()).count();
    println!("{agreeing} of {} scripts told as they say", outcomes.len());
    let differing: Vec<String> = outcomes
        .iter()
        .filter(|(_, differences)| !differences.is_empty())
        .map(|(name, differences)| format!("{name}\n  {}", differences.join("\n  ")))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
