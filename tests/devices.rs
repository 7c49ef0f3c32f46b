//! The real daemon asked by `bedrail devices` what it knows of each device.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use serde_json::Value as Json;

use support::devices::{Kind, Security, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

const SOON: Duration = Duration::from_secs(20);
const CUFF: &str = "C0:FF:EE:00:00:31";
const STRAP: &str = "C0:FF:EE:00:00:32";

#[test]
fn devices_tells_state_bond_and_last_reading_of_each_and_a_stopped_gateway_is_named() {
    let devices = [VirtualDevice::new(Kind::Cuff, CUFF, "cuff"), VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap")];
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "", "");
    let stopped = rig.refused(&["devices"], 1);
    assert!(stopped.contains("unreachable") && stopped.contains("systemctl status bedrail.target"), "{stopped}");

    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.measure(|device| device.address == STRAP);
    let mut told = Json::Null;
    let came = wait_until(SOON, || {
        told = rig.ask_json(&["devices"]);
        told[1]["last_reading_at"].is_string()
    });
    assert!(came, "{told:#}\n{}", rig.logs());
    assert_eq!((&told[0]["name"], &told[0]["address"], &told[0]["bond"]), (&"cuff".into(), &CUFF.into(), &"none".into()));
    assert_eq!((&told[1]["state"], &told[1]["security"]), (&"connected".into(), &"none".into()));
    let text = rig.ask(&["devices"]);
    let strap = text.lines().find(|line| line.starts_with("strap")).unwrap();
    assert!(text.starts_with("DEVICE") && strap.contains(STRAP) && strap.contains("connected"), "{text}");
    rig.stop();
}

#[test]
fn a_device_with_private_addresses_is_known_by_its_own_from_its_bond_on() {
    let private = VirtualDevice { privacy: true, ..VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap") };
    let private = private.with_security(Security::JustWorks).with_config("bond = \"just-works\"");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[private], "", "");
    rig.start(Shape::OneProcess);
    assert!(wait_until(SOON, || rig.bluez.is_known(STRAP)), "{}", rig.logs());
    assert_eq!(rig.bluez.count(STRAP, "Connect"), 0, "nobody can know it by a private address");

    // The link of the pairing is there before the device says who it is: that it is connected is told by nobody any more.
    rig.bluez.pair_by_hand(STRAP);
    let mut rounds = 0;
    let mut measure = |rig: &mut Rig| {
        rig.wait_until_heard(SOON);
        (0..5).for_each(|_| rig.measure(|_| true));
        rounds += 5;
        let made = rig.made();
        let mut report = rig.settle(SOON);
        let arrived = wait_until(SOON, || {
            report = rig.settle(SOON);
            report.sent >= rounds && report.sent_but_missing(&made) == 0
        });
        assert!(arrived, "{report:?}\n{}", rig.logs());
    };
    measure(&mut rig);
    for again in 0..3 {
        rig.bluez.out_of_range(STRAP);
        rig.bluez.rotate(STRAP);
        // Its object then has its own address, from which it was stored.
        if again == 1 {
            rig.bluez.restart();
        }
        rig.bluez.advertise(STRAP, -60);
        measure(&mut rig);
    }
    let told = rig.ask_json(&["devices"]);
    assert_eq!((&told[0]["address"], &told[0]["bond"]), (&STRAP.into(), &"bonded".into()), "{told:#}");
    assert_eq!((told[0]["security"].as_str(), rig.bluez.count(STRAP, "Pair")), (Some("encrypted"), 0), "{told:#}");
    rig.stop();
}

#[test]
fn what_is_wrong_with_bluetooth_and_with_a_device_is_named_with_the_remedy_and_the_rest_goes_on() {
    const LONELY: &str = "C0:FF:EE:00:00:33";
    let cuff = VirtualDevice::new(Kind::Cuff, CUFF, "cuff").with_security(Security::Passkey(111_222));
    let devices = [
        cuff.with_config("bond = \"passkey\"\npasskey = { credential = \"cuff-passkey\" }"),
        VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap"),
        VirtualDevice::new(Kind::Thermometer, LONELY, "lonely").with_config("adapter = \"66:66:66:66:66:66\""),
    ];
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "", "");
    rig.site.credential("cuff-passkey", b"654321\n");
    rig.bluez.stop();
    rig.start(Shape::OneProcess);
    let wait_for = |rig: &Rig, texts: &[&str]| {
        let mut said = String::new();
        let came = wait_until(SOON, || {
            said = rig.ask(&["status"]) + &rig.ask(&["devices"]);
            texts.iter().all(|text| said.contains(text))
        });
        assert!(came, "{texts:?} in {said}\n{}", rig.logs());
    };
    wait_for(&rig, &["bluetoothd does not run; start bluetooth.service"]);
    rig.bluez.restart();
    devices.iter().for_each(|device| rig.bluez.advertise(&device.address, -60));
    wait_for(&rig, &["66:66:66:66:66:66 of device \"lonely\" is not plugged in (there are: hci0"]);
    wait_for(&rig, &["\"cuff\"", "passkey", "bedrail pair cuff"]);
    assert!(wait_until(SOON, || rig.workers[1].is_heard(&rig.bluez)), "{}", rig.logs());
    (0..5).for_each(|_| rig.measure(|device| device.address == STRAP));
    let made = rig.made();
    let mut report = rig.settle(SOON);
    let arrived = wait_until(SOON, || {
        report = rig.settle(SOON);
        report.sent > 0 && report.sent_but_missing(&made) == 0
    });
    assert!(arrived, "{report:?}\n{}", rig.logs());
    assert!(!rig.logs().contains("654321"), "a passkey is told to nobody");
    rig.stop();
}
