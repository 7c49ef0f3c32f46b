//! What people ask of the ward, with the real binary: who is where, why a value went to a chart or waits, where it has been.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

const SOON: Duration = Duration::from_secs(30);
/// A clock synchronised by NTP may be off by 50 ms, and a value that near to a change of patient is held.
const CLEAR_OF_THE_EDGE: Duration = Duration::from_millis(400);
/// What begins this near to now begins now, and needs no confirmation.
const NEARLY_NOW: Duration = Duration::from_secs(5);

const CHART: &str = "bedrail/chart/";
const CHART_KEYS: &str = "bind = \"patient\"\ntopic = \"bedrail/chart/{device}/{metric}\"";
const WARD: &str =
    "[[patient]]\nkey = \"p-anna\"\n[[patient]]\nkey = \"p-bert\"\n[[bed]]\nid = \"301-A\"\n[[bed]]\nid = \"301-B\"\n";

fn strap(config: &str) -> VirtualDevice {
    let mut strap = VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap");
    strap.config = config.to_owned();
    strap
}

/// A ward of two beds that runs and hears its devices; what it sends goes to charts.
fn running(devices: &[VirtualDevice]) -> Rig {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), devices, "", WARD);
    rig.configure(&rig.route("chart", CHART_KEYS), WARD);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig
}

fn measure(rig: &mut Rig, device: &str, times: usize) {
    for _ in 0..times {
        rig.measure(|it| it.name == device);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn time(ago: Duration) -> String {
    jiff::Timestamp::try_from(SystemTime::now() - ago).unwrap().to_string()
}

#[test]
fn the_ward_says_who_is_where_since_when_and_by_whose_word() {
    let rig = running(&[strap("bed = \"301-B\"")]);
    let measures = || rig.ask_json(&["ward"])["measures"][0].clone();
    assert!(wait_until(SOON, || measures()["bed"] == "301-B"), "{}", rig.ask(&["ward"]));
    assert_eq!((&measures()["patient"], &measures()["why"]), (&Value::Null, &json!("nobody is in bed 301-B")));
    let before = time(Duration::ZERO);
    rig.ask(&["assign", "--bed", "301-B", "p-anna"]);

    let ward = rig.ask_json(&["ward"]);
    let beds = ward["beds"].as_array().unwrap();
    assert_eq!(beds.len(), 2, "an empty bed is a bed: {ward}");
    let of = |bed: &str| beds.iter().find(|entry| entry["bed"] == bed).unwrap();
    let bed = of("301-B");
    assert_eq!((&bed["patient"], &bed["source"]), (&json!("p-anna"), &json!("command")));
    let trail = rig.store().verify_audit().unwrap().unwrap();
    let actor = &trail.iter().rfind(|row| row.action == "assign").unwrap().actor;
    assert_eq!(bed["operator"], json!(actor), "who said it is who is audited");
    assert!(bed["from"].is_string() && bed["learned"].is_string() && bed["event"].is_u64(), "{bed}");
    assert_eq!(of("301-A")["patient"], Value::Null);
    assert_eq!((&ward["places"][0]["device"], &ward["places"][0]["source"]), (&json!("strap"), &json!("config")));
    let measures = &ward["measures"][0];
    assert_eq!((&measures["patient"], &measures["rule"]), (&json!("p-anna"), &json!("bed")));
    assert_eq!(measures["events"].as_array().unwrap().len(), 2, "where the device stands, and who lies there");

    let then = rig.ask_json(&["ward", "--at", &before]);
    assert_eq!(then["at"].as_str().unwrap()[..19], before[..19]);
    assert!(then["beds"].as_array().unwrap().iter().all(|bed| bed["patient"] == Value::Null), "{then}");
    let shown = rig.ask(&["ward"]);
    for word in ["BED", "PATIENT", "SINCE", "LEARNED", "301-B", "p-anna", "command", "MEASURES"] {
        assert!(shown.contains(word), "{word} is not in\n{shown}");
    }
    let said = rig.refused(&["ward", "--at", "yesterday"], 1);
    assert!(said.contains("is not a time"), "{said}");
}
