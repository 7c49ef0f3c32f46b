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
        let report = rig.settle(SOON);
        assert!(report.sent >= rounds, "{report:?}\n{}", rig.logs());
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
