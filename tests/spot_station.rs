//! A spot station: a device that goes from patient to patient. Only a scan says whose its values are, only the first few
//! within its time, and of a stream the one that was stable.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::chart::*;
use support::devices::{CONTINUOUS, Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

fn rig(devices: &[VirtualDevice], rest: &str) -> Rig {
    with_a_chart(env!("CARGO_BIN_EXE_bedrail"), devices, rest)
}

#[test]
fn a_shared_cuff_measures_whoever_was_scanned_and_never_the_last_patient() {
    let shared = cuff().with_config("use = \"shared\"\nspot = { for = \"12 s\", readings = 2, max_uncertainty = \"20 s\" }");
    let mut rig = rig(&[shared], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let guests = measure(&mut rig, "cuff", 1);
    wait_until_held(&rig, json!({ "outside_spot": guests }));
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let said = rig.refused(&["assign", "--device", "cuff", "p-anna"], 1);
    assert!(said.contains("`bedrail assign --device cuff PATIENT --spot`"), "{said}");

    rig.ask(&["assign", "--device", "cuff", "p-anna", "--spot"]);
    let listed = rig.ask_json(&["ward"]);
    assert_eq!((&listed["spots"][0]["patient"], &listed["spots"][0]["readings"]), (&json!("p-anna"), &json!(2)), "{listed}");
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let three = measure(&mut rig, "cuff", 3);
    let annas = three / 3 * 2;
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= annas);
    wait_until_held(&rig, json!({ "outside_spot": guests + three - annas }));
    assert_eq!((chart.len(), subjects(&chart)), (annas, only("p-anna")));

    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    rig.ask(&["assign", "--device", "cuff", "p-bert", "--spot"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let berts = measure(&mut rig, "cuff", 1);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= annas + berts);
    assert_eq!(subjects(&chart[annas..]), only("p-bert"), "the scan before it ended");

    assert!(wait_until(SOON, || rig.ask_json(&["ward"])["spots"] == json!([])), "its time is over");
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let after = measure(&mut rig, "cuff", 1);
    wait_until_held(&rig, json!({ "outside_spot": guests + three - annas + after }));
    assert_eq!(rig.records_under(CHART).len(), annas + berts);
    assert!(rig.audit_trail().contains(&("assign".to_owned(), "device cuff".to_owned())));
    rig.stop();
}

#[test]
fn a_shared_oximeter_gives_one_value_of_a_scan_when_it_was_stable() {
    let oximeter = VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oxi")
        .with_config("use = \"shared\"\nspot = { for = \"1 min\", readings = 1, stable_for = \"1 s\" }");
    let mut rig = rig(&[oximeter], PATIENTS);
    let episodic = rig.route("chart", &format!("{CHART_KEYS}\ncarry = [\"episodic\", \"windows:1m\"]"));
    rig.configure(&episodic, PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let tell = |rig: &Rig, spo2: u8| {
        assert!(rig.bluez.notify(&rig.workers[0].device.address, CONTINUOUS, &[0, spo2, 0, 70 + spo2 % 2, 0]));
        std::thread::sleep(Duration::from_millis(150));
    };
    (0..10).for_each(|_| tell(&rig, 96));
    rig.wait_for_route("chart", SOON, |route| route["held"] == json!({ "outside_spot": 20 }));
    rig.ask(&["assign", "--device", "oxi", "p-anna", "--spot"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    [82, 88, 92, 90].into_iter().for_each(|spo2| tell(&rig, spo2));
    (0..24).for_each(|n| tell(&rig, 97 + n % 2));
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= 2);
    rig.wait_for_route("chart", SOON, |route| route["live"] == 0 && route["backlog"] == 0 && route["tally"]["not_chosen"] == 54);
    assert_eq!(rig.records_under(CHART).len(), 2, "one of each metric");
    assert_eq!(subjects(&chart), only("p-anna"));
    let spo2 = chart.iter().find(|message| message.payload["metric"] == "spo2").unwrap();
    assert!(["97", "98"].contains(&spo2.payload["value"].to_string().as_str()), "{}", spo2.raw);
    assert_eq!(rig.route_status("chart")["held"], json!({ "outside_spot": 20 }));
    rig.stop();
}

#[test]
fn only_a_shared_device_takes_a_scan_and_it_has_no_user_slots() {
    let shared = cuff().with_config("use = \"shared\"");
    let mut rig = rig(&[shared, strap()], &format!("{PATIENTS}[[bed]]\nid = \"7\"\n"));
    rig.start(Shape::OneProcess);
    let said = rig.refused(&["assign", "--device", "strap", "p-anna", "--spot"], 1);
    assert!(said.contains("write use = \"shared\""), "{said}");
    let said = rig.refused(&["assign", "--device", "cuff", "p-berta", "--spot"], 1);
    assert!(said.contains("nobody is known as"), "{said}");
    rig.refused(&["assign", "--device", "cuff", "--user", "1", "p-anna", "--spot"], 2);
    rig.refused(&["assign", "--bed", "7", "p-anna", "--spot"], 1);
    assert_eq!(rig.ask_json(&["ward"])["spots"], json!([]));
    rig.stop();
}
