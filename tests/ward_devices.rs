//! What becomes of a device between patients: another takes its place, it goes out of service, it is cleaned. None of it
//! brings a value into the chart of somebody it was not measured on.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::chart::*;
use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

fn rig(devices: &[VirtualDevice], rest: &str) -> Rig {
    with_a_chart(env!("CARGO_BIN_EXE_bedrail"), devices, rest)
}

fn spare() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:02", "spare")
}

/// What the config says of assignments holds from when the clock was known.
fn wait_for_the_config(rig: &Rig, list: &str) {
    assert!(wait_until(SOON, || rig.ask_json(&["ward"])[list] != json!([])), "{}", rig.logs());
}

#[test]
fn a_replaced_device_hands_its_patient_on_and_measures_nobody_any_more() {
    let strap = strap().with_config("patient = \"p-anna\"");
    let mut rig = rig(&[strap, spare()], PATIENTS);
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    wait_for_the_config(&rig, "devices");
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let before = measure(&mut rig, "strap", 2);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == before);
    let said = rig.refused(&["devices", "replace", "strap", "strop"], 1);
    assert!(said.contains("no device is called \"strop\""), "{said}");
    let said = rig.refused(&["devices", "replace", "spare", "strap"], 1);
    assert!(said.contains("\"strap\" is somebody's already"), "{said}");

    std::thread::sleep(CLEAR_OF_THE_EDGE);
    rig.ask(&["devices", "replace", "strap", "spare"]);
    let listed = rig.ask_json(&["ward"]);
    assert_eq!(
        (&listed["devices"][0]["device"], &listed["devices"][0]["patient"]),
        (&json!("spare"), &json!("p-anna")),
        "{listed}"
    );
    assert_eq!(listed["devices"].as_array().unwrap().len(), 1);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let old = measure(&mut rig, "strap", 2);
    let new = measure(&mut rig, "spare", 3);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() == before + new);
    assert_eq!(subjects(&chart), only("p-anna"));
    wait_until_held(&rig, json!({ "no_assignment": old }));

    rig.restart();
    rig.wait_until_heard(SOON);
    let listed = rig.ask_json(&["ward"]);
    assert_eq!(listed["devices"][0]["device"], "spare", "the config's line does not bring the old one back: {listed}");
    let said = rig.refused(&["assign", "--device", "strap", "p-bert"], 1);
    assert!(said.contains("`bedrail devices clean strap`"), "{said}");
    assert!(rig.audit_trail().contains(&("devices replace".to_owned(), "device strap".to_owned())));
    rig.stop();
}

#[test]
fn a_retired_device_is_nobodys_even_at_a_bed_until_it_is_cleaned() {
    let strap = strap().with_config("bed = \"7\"");
    let mut rig = rig(&[strap], &format!("{PATIENTS}[[bed]]\nid = \"7\"\n"));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--bed", "7", "p-anna"]);
    wait_for_the_config(&rig, "places");
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let annas = measure(&mut rig, "strap", 2);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == annas);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    rig.ask(&["devices", "retire", "strap"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let nobodys = measure(&mut rig, "strap", 3);
    wait_until_held(&rig, json!({ "no_assignment": nobodys }));
    rig.refused(&["devices", "retire", "strap"], 1);
    rig.ask(&["devices", "clean", "strap"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let since = measure(&mut rig, "strap", 1);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == annas + since);
    wait_until_held(&rig, json!({ "no_assignment": nobodys }));
    let trail = rig.audit_trail();
    for action in ["devices retire", "devices clean"] {
        assert!(trail.contains(&(action.to_owned(), "device strap".to_owned())), "{trail:?}");
    }
    rig.stop();
}

#[test]
fn what_a_cleaned_device_still_keeps_is_nobodys_and_what_it_told_before_stays() {
    let mut rig = rig(&[cuff()], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--device", "cuff", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let told = measure(&mut rig, "cuff", 1);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == told);
    rig.stop();
    let kept = measure(&mut rig, "cuff", 2);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    rig.ask(&["devices", "clean", "cuff"]);
    assert_eq!(rig.ask_json(&["ward"])["devices"], json!([]));
    rig.ask(&["assign", "--device", "cuff", "p-bert"]);
    rig.empty_devices(SOON);
    rig.wait_for_route("chart", SOON, |route| route["tally"]["history"] == kept && route["live"] == 0);
    let chart = rig.records_under(CHART);
    assert_eq!((chart.len(), subjects(&chart)), (told, only("p-anna")));
    rig.stop();
}

#[test]
fn a_guest_on_the_cuff_waits_for_a_person_and_goes_to_nobody_by_itself() {
    let mut rig = rig(&[cuff().with_config("patient = \"p-anna\"\nuser = 2")], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    wait_for_the_config(&rig, "devices");
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let guests = measure(&mut rig, "cuff", 1);
    wait_until_held(&rig, json!({ "unknown_user": guests }));
    assert_eq!(rig.records_under(CHART).len(), 0, "the cuff is Anna's, user 1 is not");
    rig.stop();
}
