//! What people have the radio of a running gateway do: `bedrail pair`, `bedrail forget` and `bedrail scan`, the real binary on a
//! fake bluetoothd.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bedrail::store::AuditEntry;
use serde_json::Value as Json;

use support::bluez::{Forgot, uuid16};
use support::devices::{Kind, Security, VirtualDevice};
use support::faults::Tracer;
use support::process::wait_until;
use support::rig::{Rig, Shape};

const SOON: Duration = Duration::from_secs(20);
/// For a bond to be taken for lost: three links in a row, with pauses between.
const LONG: Duration = Duration::from_secs(60);
const CUFF: &str = "C0:FF:EE:00:00:41";
const STRAP: &str = "C0:FF:EE:00:00:42";
const OXIMETER: &str = "C0:FF:EE:00:00:43";
const PHONE: &str = "48:FF:EE:00:00:44";

fn rig(devices: &[VirtualDevice]) -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_bedrail"), devices, "carry = [\"readings\", \"events\"]", "")
}

fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap").with_config("bond = \"just-works\"")
}

/// As the kernel names whoever runs this.
fn me() -> String {
    let ran = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

fn bond(rig: &Rig, name: &str) -> Json {
    let devices = rig.ask_json(&["devices"]);
    let found = devices.as_array().unwrap().iter().find(|device| device["name"] == name);
    found.unwrap()["bond"].clone()
}

#[test]
fn a_device_is_paired_and_forgotten_by_command_and_the_trail_names_who_asked() {
    let mut rig = rig(&[strap(), VirtualDevice::new(Kind::Cuff, CUFF, "cuff")]);
    for command in [&["pair", "strap"][..], &["forget", "strap", "--yes"], &["scan"]] {
        let stopped = rig.refused(command, 1);
        assert!(stopped.contains("unreachable") && stopped.contains("systemctl status bedrail.target"), "{stopped}");
    }
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    assert!(!rig.bluez.is_paired(STRAP), "it needs no bond and makes none by itself");

    let paired = rig.bedrail(&["pair", "strap"]);
    assert_eq!((paired.status, paired.stdout.as_str()), (Some(0), "device \"strap\" is bonded\n"), "{paired:?}");
    assert!(paired.stderr.contains("put device \"strap\" into pairing mode"), "{paired:?}");
    assert!(rig.bluez.is_paired(STRAP));
    assert_eq!(bond(&rig, "strap"), "bonded");

    let again = rig.refused(&["pair", "strap"], 1);
    assert!(again.contains("\"strap\" is bonded already; `bedrail forget strap`"), "{again}");
    let without = rig.refused(&["pair", "cuff"], 1);
    assert!(without.contains("\"cuff\" has bond = \"none\"") && without.contains("restart bedrail"), "{without}");
    let nobody = rig.refused(&["pair", "straps"], 1);
    assert!(nobody.contains("no device \"straps\"") && nobody.contains("bedrail devices"), "{nobody}");

    let unsure = rig.refused(&["forget", "strap"], 2);
    assert!(unsure.contains("--yes") && rig.bluez.is_paired(STRAP), "{unsure}");
    let forgotten = rig.ask(&["forget", "strap", "--yes"]);
    assert!(forgotten.contains("pairing mode") && forgotten.contains("`bedrail pair strap`"), "{forgotten}");
    assert!(!rig.bluez.is_paired(STRAP));
    assert_eq!(bond(&rig, "strap"), "none");
    let nothing = rig.refused(&["forget", "strap", "--yes"], 1);
    assert!(nothing.contains("has no bond that could be forgotten"), "{nothing}");
    // And back to work.
    rig.ask(&["pair", "strap"]);
    rig.wait_until_heard(SOON);
    rig.stop();

    let trail: Vec<AuditEntry> = rig.store().verify_audit().unwrap().unwrap();
    let trail: Vec<&AuditEntry> = trail.iter().filter(|row| ["pair", "forget"].contains(&row.action.as_str())).collect();
    assert!(trail.iter().all(|row| row.actor == me()), "{trail:#?}");
    let done: Vec<(&str, &str, bool)> =
        trail.iter().map(|row| (row.action.as_str(), row.object.as_str(), row.detail.starts_with("refused: device"))).collect();
    let asked = |action, device| (action, device, false);
    let refused = |action, device| (action, device, true);
    assert_eq!(
        done,
        [
            asked("pair", "strap"),
            asked("pair", "strap"),
            refused("pair", "strap"),
            asked("pair", "cuff"),
            refused("pair", "cuff"),
            asked("forget", "strap"),
            asked("forget", "strap"),
            refused("forget", "strap"),
            asked("pair", "strap"),
        ]
    );
}

#[test]
fn a_pairing_of_a_device_nobody_hears_ends_with_what_to_do_and_leaves_no_trace_in_the_status() {
    let mut rig = rig(&[strap()]);
    rig.bluez.out_of_range(STRAP);
    rig.start(Shape::OneProcess);
    let came = wait_until(SOON, || rig.ask_json(&["status"])["collect"]["adapter"]["usable"] == Json::Bool(true));
    assert!(came, "{}", rig.logs());
    let ended = rig.refused(&["pair", "strap", "--seconds", "2"], 1);
    assert!(ended.contains("\"strap\" was not paired within 2 s: it was not heard"), "{ended}");
    assert!(ended.contains("pairing mode") && ended.contains("`bedrail pair strap` again"), "{ended}");
    assert_eq!(bond(&rig, "strap"), "none");
    rig.stop();
}

#[test]
fn a_pairing_that_is_refused_is_told_with_the_remedy_each_time_it_is_asked_for() {
    let cuff = VirtualDevice::new(Kind::Cuff, CUFF, "cuff").with_security(Security::Passkey(111_222));
    let cuff = cuff.with_config("bond = \"passkey\"\npasskey = { credential = \"cuff-passkey\" }");
    let mut rig = rig(&[cuff]);
    rig.site.credential("cuff-passkey", b"654321");
    rig.start(Shape::OneProcess);
    assert!(wait_until(SOON, || bond(&rig, "cuff") == "refused"), "{}", rig.logs());
    for _ in 0..2 {
        let before = rig.bluez.count(CUFF, "Pair");
        let why = rig.refused(&["pair", "cuff"], 1);
        assert!(why.contains("\"cuff\" does not take the passkey") && why.contains("then `bedrail pair cuff`"), "{why}");
        assert_eq!(rig.bluez.count(CUFF, "Pair"), before + 1, "it was tried, once");
        assert!(!why.contains("654321"), "{why}");
    }
    rig.bluez.with_behaviour(CUFF, |behaviour| behaviour.passkey = Some(654_321));
    assert_eq!(rig.ask(&["pair", "cuff"]), "device \"cuff\" is bonded\n");
    rig.stop();
}

#[test]
fn scan_shows_what_is_heard_and_what_to_write_in_the_config_for_it() {
    let mut rig = rig(&[strap()]);
    let oximeter = VirtualDevice::new(Kind::OximeterContinuous, OXIMETER, "Oxi \u{1B}[31;1m\u{202E}07\r\n");
    oximeter.place(&rig.bluez, "hci0");
    rig.bluez.advertise(OXIMETER, -71);
    let mut phone = VirtualDevice::new(Kind::Thermometer, PHONE, "Telephone of Mrs Example").spec();
    (phone.advertised, phone.random_address) = (vec![uuid16(0x1805)], true);
    rig.bluez.add_device("hci0", phone);
    rig.bluez.advertise(PHONE, -50);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);

    let listed = rig.ask_json(&["scan", "--seconds", "2"]);
    let row = |address: &str| listed.as_array().unwrap().iter().find(|row| row["address"] == address).unwrap().clone();
    let oxi = row(OXIMETER);
    assert_eq!(
        (&oxi["name"], &oxi["rssi"], &oxi["kind"]),
        (&"Oxi 07".into(), &(-71).into(), &"pulse-oximeter".into()),
        "{oxi:#}"
    );
    assert_eq!((&row(STRAP)["configured"], &row(STRAP)["section"]), (&"strap".into(), &Json::Null));
    assert_eq!((&row(PHONE)["kind"], &row(PHONE)["section"]), (&Json::Null, &Json::Null));

    let text = rig.ask(&["scan", "--seconds", "1"]);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202E}'), "{text:?}");
    let line = text.lines().find(|line| line.starts_with(OXIMETER)).unwrap();
    assert!(line.contains("Oxi 07") && line.contains("-71") && line.contains("pulse-oximeter"), "{text}");
    assert!(text.contains("Telephone of Mrs Example") && text.contains("(1805)"), "{text}");
    let all_logs: String = rig.daemons.iter().map(support::daemon::Daemon::log).collect();
    assert!(!all_logs.contains("Mrs Example") && !all_logs.contains(PHONE), "the neighbours are nobody's business");
    rig.stop();

    // What it printed is a right config.
    let (_, pasted) = text.split_once("\n# For the config").unwrap();
    assert_eq!(pasted.matches("[[device]]").count(), 1, "{pasted}");
    rig.configure(&rig.route("live", ""), &format!("# {pasted}"));
    let checked = rig.ask(&["check"]);
    assert!(checked.contains("2 devices") && checked.contains("no errors"), "{checked}");
}

#[test]
fn the_first_device_of_a_gateway_can_be_found_by_scan() {
    let mut rig = rig(&[]);
    let strap = VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap");
    strap.place(&rig.bluez, "hci0");
    rig.bluez.advertise(STRAP, -60);
    rig.start(Shape::OneProcess);
    assert!(wait_until(SOON, || rig.bluez.is_discovering("hci0")), "{}", rig.logs());
    let text = rig.ask(&["scan", "--seconds", "1"]);
    assert!(text.contains(&format!("address = \"{STRAP}\"")), "{text}");
    rig.stop();
}

#[test]
fn without_bluetoothd_everybody_is_told_what_to_start_and_sending_goes_on() {
    let mut rig = rig(&[strap()]);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.bluez.stop();
    let mut status = Json::Null;
    let told = wait_until(SOON, || {
        status = rig.ask_json(&["status"]);
        let adapter = &status["collect"]["adapter"];
        adapter["usable"] == Json::Bool(false) && adapter["detail"] == "bluetoothd does not run; start bluetooth.service"
    });
    assert!(told, "{status:#}");
    for command in [&["scan"][..], &["pair", "strap"], &["forget", "strap", "--yes"]] {
        let refused = rig.refused(command, 1);
        assert!(refused.contains("no device can be heard: bluetoothd does not run; start bluetooth.service"), "{refused}");
    }
    let devices = rig.ask(&["devices"]);
    assert!(devices.contains("strap") && devices.contains("lost"), "{devices}");
    // What was heard before still goes out, and what is heard after does too.
    rig.bluez.restart();
    rig.bluez.advertise(STRAP, -60);
    rig.wait_until_heard(SOON);
    rig.measure(|_| true);
    rig.empty_devices(SOON);
    let report = rig.settle(SOON);
    assert!(report.missing_seqs(rig.head()).is_empty());
    rig.stop();
}

#[test]
fn what_cant_be_audited_is_not_done() {
    let mut rig = rig(&[strap()]);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let full = Tracer::attach(rig.daemons[0].pid(), "pwrite64", "ENOSPC");
    let refused = rig.refused(&["pair", "strap"], 1);
    assert!(refused.contains("it can't be audited, so it was not done") && refused.contains("full"), "{refused}");
    assert!(!rig.bluez.is_paired(STRAP) && rig.bluez.count(STRAP, "Disconnect") == 0, "it goes on as it was");
    drop(full);
    assert!(wait_until(SOON, || rig.bedrail(&["pair", "strap"]).status == Some(0)), "{}", rig.logs());
    rig.stop();
}

#[test]
fn a_lost_bond_reaches_the_broker_as_an_event_and_ends_with_the_device_paired_anew() {
    let mut rig = rig(&[strap().with_security(Security::JustWorks)]);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    assert!(wait_until(SOON, || bond(&rig, "strap") == "bonded"), "{}", rig.logs());
    rig.bluez.with_behaviour(STRAP, |behaviour| behaviour.forgot_bond = Some(Forgot::Drops));
    rig.bluez.drop_link(STRAP);
    let told = |raised: bool| {
        let records = rig.records_under("bedrail/gw-test/").into_iter().map(|message| message.payload);
        let mut events = records.map(|payload| payload["event"].clone()).filter(|event| event["name"] == "bond_lost");
        events.any(|event| event["raised"] == raised)
    };
    assert!(wait_until(LONG, || told(true)), "{}", rig.logs());
    let devices = rig.ask(&["devices"]);
    assert!(devices.contains("`bedrail forget strap`, then `bedrail pair strap`"), "{devices}");
    assert!(!told(false));

    rig.ask(&["forget", "strap", "--yes"]);
    rig.ask(&["pair", "strap"]);
    assert!(wait_until(LONG, || told(false)), "{}", rig.logs());
    rig.wait_until_heard(SOON);
    rig.stop();
}
