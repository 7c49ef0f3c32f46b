//! An address can be imitated, and a device swapped. Where the config says which serial number or model a device has, what
//! another one measures under its address reaches nobody, is shown, and goes on its way once the config is put right.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bedrail::radio::RadioDevice;
use bedrail::reading::Nameplate;
use serde_json::Value as Json;

use support::bluez::{FakeBluez, uuid16};
use support::bus::on_a_bus_of_its_own;
use support::devices::{Kind, TEMPERATURE, VirtualDevice};
use support::process::wait_until;
use support::radio::{Radio, adapter, wanted};
use support::rig::{Rig, Shape};
use support::subscriber::Message;

const SOON: Duration = Duration::from_secs(30);
/// Long enough for a value to arrive that is on its way.
const A_WHILE: Duration = Duration::from_secs(2);

const THERMOMETER: &str = "A4:C1:38:00:00:41";
const CUFF: &str = "C0:FF:EE:00:00:42";
const SCALE: &str = "C0:FF:EE:00:00:43";
const OXIMETER: &str = "00:1C:05:00:00:44";
/// What [`VirtualDevice`] tells of itself: its address without colons, and its kind as the config names it.
const OWN: &str = "A4C138000041";
const IMPOSTOR: &str = "666";

const BATTERY: &str = "battery_level";
const PATIENT: &str = "[[patient]]\nkey = \"p-1\"";

/// A route that sends whosever it is and one to charts, with these further keys.
fn configure(rig: &Rig, keys: &str) {
    let live = rig.route("live", &format!("start = \"oldest\"\n{keys}"));
    let topic = "topic = \"bedrail/chart/{device}/{metric}\"";
    let chart = rig.route("chart", &format!("start = \"oldest\"\nbind = \"patient\"\n{topic}\n{keys}"));
    rig.configure(&(live + &chart), PATIENT);
}

fn on_a_patient(kind: Kind, address: &str, name: &str, wanted: &str) -> VirtualDevice {
    let config = format!("use = \"personal\"\npatient = \"p-1\"\nfrom = 2020-01-01T00:00:00Z\n{wanted}");
    VirtualDevice::new(kind, address, name).with_config(&config)
}

/// Values of a device that arrived under a topic; what is read of its battery at each connection is left out.
fn arrived(rig: &Rig, root: &str, device: &str) -> Vec<Message> {
    let of_device = |message: &Message| message.topic.split('/').nth(2) == Some(device) && !message.topic.ends_with(BATTERY);
    rig.subscriber.messages().into_iter().filter(|m| m.topic.starts_with(root) && of_device(m)).collect()
}

/// The next link to it is to a device that tells this serial number, and that is known by now.
fn swap(rig: &Rig, address: &str, serial: &str) {
    rig.bluez.set_value(address, uuid16(0x2A25), serial.as_bytes());
    rig.bluez.drop_link(address);
    let is_gone = || !rig.workers[0].is_heard(&rig.bluez);
    assert!(wait_until(SOON, is_gone), "its link ends");
    rig.bluez.advertise(address, -60);
    rig.wait_until_heard(SOON);
    let wanted = if serial == IMPOSTOR { "differs" } else { "fits" };
    let name = &rig.workers[0].device.name;
    assert!(wait_until(SOON, || status_of(rig, name)["nameplate"] == wanted), "{:#}\n{}", status_of(rig, name), rig.logs());
}

fn measure(rig: &mut Rig, address: &str, times: usize) {
    for _ in 0..times {
        rig.measure(|device| device.address == address);
    }
}

/// Held records of a device, by route, all for being of another one.
fn held(rig: &Rig, device: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let list = rig.ask_json(&["held", "list"]);
    for row in list.as_array().unwrap().iter().filter(|row| row["device"] == device && row["metric"] != BATTERY) {
        assert_eq!(row["reason"], "device_mismatch", "{row}");
        *counts.entry(row["route"].as_str().unwrap().to_owned()).or_default() += row["records"].as_u64().unwrap();
    }
    counts
}

fn wait_until_held(rig: &Rig, device: &str, wanted: &[(&str, u64)]) {
    let wanted: BTreeMap<String, u64> = wanted.iter().map(|(route, count)| ((*route).to_owned(), *count)).collect();
    let came = wait_until(SOON, || held(rig, device) == wanted);
    assert!(came, "{device}: {:?} and not {wanted:?}\n{}", held(rig, device), rig.logs());
}

fn status_of(rig: &Rig, name: &str) -> Json {
    let devices = rig.ask_json(&["devices"]);
    devices.as_array().unwrap().iter().find(|device| device["name"] == name).unwrap().clone()
}

fn is_raised(rig: &Rig, device: &str) -> bool {
    let conditions = rig.ask_json(&["status"])["conditions"].clone();
    conditions.as_array().into_iter().flatten().any(|one| one["name"] == "device_mismatch" && one["device"] == device)
}

#[test]
fn what_an_impostor_measures_under_a_devices_address_reaches_nobody_and_the_device_goes_on() {
    let thermometer = on_a_patient(Kind::Thermometer, THERMOMETER, "thermometer", &format!("serial = {OWN:?}"));
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[thermometer], "", PATIENT);
    configure(&rig, "");
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    measure(&mut rig, THERMOMETER, 2);
    let count = |rig: &Rig| ["bedrail/gw-test/", "bedrail/chart/"].map(|root| arrived(rig, root, "thermometer").len());
    assert!(wait_until(SOON, || count(&rig) == [2, 2]), "{:?}\n{}", count(&rig), rig.logs());
    assert!(wait_until(SOON, || status_of(&rig, "thermometer")["nameplate"] == "fits"));

    swap(&rig, THERMOMETER, IMPOSTOR);
    measure(&mut rig, THERMOMETER, 3);
    wait_until_held(&rig, "thermometer", &[("chart", 3), ("live", 3)]);
    assert!(wait_until(SOON, || status_of(&rig, "thermometer")["nameplate"] == "differs"));
    let status = status_of(&rig, "thermometer");
    let told = status["mismatch"].as_str().unwrap_or_default();
    assert!(told.contains(IMPOSTOR) && told.contains(OWN) && told.contains("bedrail held list"), "{status:#}");
    assert!(rig.ask(&["devices"]).contains(told) && rig.ask(&["status"]).contains(told));
    assert!(wait_until(SOON, || is_raised(&rig, "thermometer")), "{:#}", rig.ask_json(&["status"])["conditions"]);
    std::thread::sleep(A_WHILE);
    assert_eq!(count(&rig), [2, 2], "nothing of the impostor arrives anywhere");

    swap(&rig, THERMOMETER, OWN);
    measure(&mut rig, THERMOMETER, 1);
    assert!(wait_until(SOON, || count(&rig) == [3, 3]), "{:?}\n{}", count(&rig), rig.logs());
    wait_until_held(&rig, "thermometer", &[("chart", 3), ("live", 3)]);
    assert!(wait_until(SOON, || !is_raised(&rig, "thermometer")), "the device is back");

    // Whose they are is no question; that they are nobody's can be said.
    let list = rig.ask_json(&["held", "list"]);
    let of_chart = list.as_array().unwrap().iter().find(|row| row["route"] == "chart").unwrap();
    let first = of_chart["first"].to_string();
    rig.refused(&["held", "assign", "chart", &first, "p-1"], 1);
    rig.ask(&["held", "discard", "chart", &first]);
    wait_until_held(&rig, "thermometer", &[]);
    std::thread::sleep(A_WHILE);
    assert_eq!(count(&rig), [3, 3]);
    rig.stop();
}

#[test]
fn a_serial_number_or_model_that_is_put_right_in_the_config_releases_what_was_held_once() {
    let cuff = |model: &str| on_a_patient(Kind::Cuff, CUFF, "cuff", &format!("model = {model:?}"));
    let scale = |wanted: &str| on_a_patient(Kind::Scale, SCALE, "scale", wanted);
    let devices = [cuff("BM 93"), scale("serial = \"C0FFEE000043\"")];
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "", PATIENT);
    // The scale has no Device Information.
    let mut spec = rig.workers[1].device.spec();
    spec.services.retain(|service| service.uuid != uuid16(0x180A));
    rig.bluez.remove_device(SCALE);
    rig.bluez.add_device("hci0", spec);
    rig.bluez.advertise(SCALE, -60);
    configure(&rig, "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    measure(&mut rig, CUFF, 2);
    measure(&mut rig, SCALE, 1);
    wait_until_held(&rig, "cuff", &[("chart", 4), ("live", 4)]);
    wait_until_held(&rig, "scale", &[("chart", 3), ("live", 3)]);
    let told = |rig: &Rig, name: &str| status_of(rig, name)["mismatch"].as_str().unwrap_or_default().to_owned();
    assert!(told(&rig, "cuff").contains("model \"blood-pressure\" where the config says \"BM 93\""), "{}", told(&rig, "cuff"));
    assert!(told(&rig, "scale").contains("no serial number"), "{}", told(&rig, "scale"));
    std::thread::sleep(A_WHILE);
    let arrivals = |rig: &Rig| {
        let of = |root, device| arrived(rig, root, device).len();
        ["bedrail/gw-test/", "bedrail/chart/"].map(|root| (of(root, "cuff"), of(root, "scale")))
    };
    assert_eq!(arrivals(&rig), [(0, 0), (0, 0)]);

    rig.stop();
    (rig.workers[0].device, rig.workers[1].device) = (cuff("blood-pressure"), scale(""));
    configure(&rig, "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    assert!(wait_until(SOON, || arrivals(&rig) == [(4, 3), (4, 3)]), "{:?}\n{}", arrivals(&rig), rig.logs());
    measure(&mut rig, CUFF, 1);
    assert!(wait_until(SOON, || arrivals(&rig) == [(6, 3), (6, 3)]), "{:?}\n{}", arrivals(&rig), rig.logs());
    assert_eq!(rig.ask_json(&["held", "list"]), Json::Array(vec![]), "the battery's too");
    std::thread::sleep(A_WHILE);
    assert_eq!(arrivals(&rig), [(6, 3), (6, 3)], "once");
    rig.stop();
}

/// What the windows of a metric say in the end: values that took part, and those of another device.
fn windows(rig: &Rig, root: &str) -> (u64, u64) {
    let mut newest: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for message in arrived(rig, root, "oximeter") {
        let payload = &message.payload;
        if payload["kind"] != "window" || payload["metric"] != "spo2" {
            continue;
        }
        let version = payload["version"].as_u64().unwrap();
        let excluded = payload["window"]["excluded"]["device_mismatch"].as_u64().unwrap_or(0);
        let known = newest.entry(payload["record"].as_str().unwrap().to_owned()).or_default();
        if version > known.0 {
            *known = (version, payload["window"]["n"].as_u64().unwrap(), excluded);
        }
    }
    newest.values().fold((0, 0), |(n, excluded), window| (n + window.1, excluded + window.2))
}

#[test]
fn a_window_counts_what_another_device_sent_takes_nothing_of_it_and_is_made_again_for_another_config() {
    let wanted = |serial: &str| {
        let line = if serial.is_empty() { String::new() } else { format!("serial = {serial:?}") };
        on_a_patient(Kind::OximeterContinuous, OXIMETER, "oximeter", &line)
    };
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[wanted("001C05000044")], "", PATIENT);
    configure(&rig, "carry = [\"windows:10s\"]");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    measure(&mut rig, OXIMETER, 5);
    swap(&rig, OXIMETER, IMPOSTOR);
    measure(&mut rig, OXIMETER, 3);
    swap(&rig, OXIMETER, "001C05000044");
    measure(&mut rig, OXIMETER, 4);
    let both = |rig: &Rig| ["bedrail/gw-test/", "bedrail/chart/"].map(|root| windows(rig, root));
    assert!(wait_until(SOON, || both(&rig) == [(9, 3); 2]), "{:?}\n{}", both(&rig), rig.logs());

    // The config is put right, or wrong: what was closed is made again.
    for (serial, says) in [(IMPOSTOR, (3, 9)), ("", (12, 0))] {
        rig.stop();
        rig.workers[0].device = wanted(serial);
        configure(&rig, "carry = [\"windows:10s\"]");
        rig.start(Shape::OneProcess);
        assert!(wait_until(SOON, || both(&rig) == [says; 2]), "{serial}: {:?}\n{}", both(&rig), rig.logs());
    }
    rig.stop();
}

/// BlueZ renews subscriptions by itself when a device is back, so that values may come before anybody could ask who it is.
#[test]
fn a_value_that_comes_before_the_device_told_who_it_is_waits_for_it_and_never_takes_the_word_of_another_link() {
    let name = "a_value_that_comes_before_the_device_told_who_it_is_waits_for_it_and_never_takes_the_word_of_another_link";
    on_a_bus_of_its_own(name, Duration::from_secs(60), |bus| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(comes_early(&bus));
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
}

async fn comes_early(bus: &str) {
    let device = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
    let bluez = FakeBluez::start(bus);
    bluez.add_adapter(adapter("hci0"));
    device.place(&bluez, "hci0");
    bluez.advertise(THERMOMETER, -60);
    let mut radio = Radio::start(vec![RadioDevice { ask_nameplate: true, read: vec![], ..wanted(&device) }]);
    radio.ready(THERMOMETER).await;
    let told = Nameplate { serial: Some(OWN.to_owned()), model: Some("thermometer".to_owned()) };
    assert!(bluez.notify(THERMOMETER, TEMPERATURE, &[0, 1, 0, 0, 0]));
    assert_eq!(radio.hears(&[0, 1, 0, 0, 0]).await.nameplate, Some(told.clone()));

    // It is back, and does not come to say who it is.
    bluez.with_behaviour(THERMOMETER, |behaviour| {
        behaviour.never_answers.insert("ReadValue");
    });
    bluez.drop_link(THERMOMETER);
    radio.lost(THERMOMETER).await;
    bluez.advertise(THERMOMETER, -60);
    let early = || bluez.notify(THERMOMETER, TEMPERATURE, &[0, 2, 0, 0, 0]);
    assert!(wait_until(SOON, early), "the fake renews what was subscribed");
    radio.drain(Duration::from_millis(500)).await;
    assert!(radio.heard.iter().all(|heard| heard.octets[1] != 2), "it waits: {:?}", radio.heard);
    bluez.with_behaviour(THERMOMETER, |behaviour| behaviour.never_answers.clear());
    bluez.drop_link(THERMOMETER);
    assert_eq!(radio.hears(&[0, 2, 0, 0, 0]).await.nameplate, Some(Nameplate::default()), "of nobody known");

    bluez.advertise(THERMOMETER, -60);
    let early = || bluez.notify(THERMOMETER, TEMPERATURE, &[0, 3, 0, 0, 0]);
    assert!(wait_until(SOON, early), "as soon as it is back");
    assert_eq!(radio.hears(&[0, 3, 0, 0, 0]).await.nameplate, Some(told));
    radio.end().await;
}
