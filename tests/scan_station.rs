//! A scan station with the real binary: a scanner on a pseudo-terminal, a wristband, a label, and the value that follows.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::scanner::Station;

const SOON: Duration = Duration::from_secs(30);
/// A clock synchronised by NTP may be off by 50 ms, and a value that near to a change of patient is held.
const CLEAR_OF_THE_EDGE: Duration = Duration::from_millis(400);

const CHART: &str = "bedrail/chart/";
const CHART_KEYS: &str = "bind = \"patient\"\ntopic = \"bedrail/chart/{device}/{metric}\"";
/// As the site's wristbands and labels look; a wristband waits as short as it may.
const SCAN: &str = "[scan]\npatient = '^(?<visit>V[0-9]{8}-[0-9]+)$'\ndevice = '^(?<asset>BME-[0-9]{5})$'\nwithin = \"5 s\"\n[[bed]]\nid = \"7\"\n";
/// A visit's number is an identifier.
const WRISTBAND: &str = "V26004711-1";

fn rig() -> Rig {
    let device = |kind, address, name, config: &str| {
        let mut device = VirtualDevice::new(kind, address, name);
        device.config = config.to_owned();
        device
    };
    let devices = [
        device(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap", "use = \"shared\"\nasset = \"BME-00731\""),
        device(Kind::Cuff, "A4:C1:38:00:00:04", "cuff", "asset = \"BME-00732\""),
    ];
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "", SCAN);
    rig.configure(&rig.route("chart", CHART_KEYS), SCAN);
    rig.log_filter = "info,bedrail=trace";
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    rig
}

/// What a station says to a code.
fn scan(station: &mut Station, code: &str) -> Value {
    serde_json::from_str(&station.scan(code)).unwrap()
}

fn measure(rig: &mut Rig, device: &str) {
    rig.measure(|it| it.name == device);
}

#[test]
fn a_wristband_and_a_label_make_the_next_value_this_patients_and_no_other() {
    let mut rig = rig();
    let mut station = Station::start(&rig, &["--json"]);
    let answer = scan(&mut station, WRISTBAND);
    assert_eq!(
        (&answer["done"], &answer["say"]),
        (&json!("refused"), &json!("nobody known here has this wristband; nothing was done"))
    );
    let list = format!("bed,visit\n7,{WRISTBAND}\n");
    let imported = rig.bedrail_with_input(&["ward", "import", "-", "--yes"], list.as_bytes());
    assert_eq!(imported.status, Some(0), "{imported:?}");
    let patient = rig.ask_json(&["ward"])["beds"][0]["patient"].as_str().unwrap().to_owned();

    let answer = scan(&mut station, "BME-00731");
    assert_eq!(
        (&answer["done"], answer["say"].as_str().unwrap()),
        (&json!("refused"), "scan the wristband first, then the device")
    );
    assert_eq!(scan(&mut station, WRISTBAND)["done"], "waits");
    assert_eq!(scan(&mut station, "4006381333931")["done"], "refused", "a code of something else");
    assert_eq!(scan(&mut station, "BME-99999")["say"], "no device of this gateway has this label; nothing was done");
    let answer = scan(&mut station, "BME-00731");
    assert_eq!((&answer["done"], &answer["device"]), (&json!("tied"), &json!("strap")), "{answer}");
    assert_eq!(scan(&mut station, "BME-00731")["done"], "again", "the trigger was held");
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    measure(&mut rig, "strap");
    let chart = rig.wait_for_records(CHART, SOON, |chart| !chart.is_empty());
    assert!(chart.iter().all(|message| message.payload["subject"] == *patient), "{chart:?}");
    let seq = chart[0].payload["record"].as_str().unwrap();
    let why = rig.ask_json(&["why", seq]);
    let event = &why["routes"][0]["stands"]["events"][0];
    assert_eq!((&why["routes"][0]["stands"]["rule"], &event["source"]), (&json!("spot"), &json!("scan")), "{why:#}");

    // Whoever scans the device alone is not the one before.
    std::thread::sleep(Duration::from_secs(3));
    let answer = scan(&mut station, "BME-00731");
    assert_eq!(answer["done"], "released", "{answer}");
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let before = rig.records_under(CHART).len();
    measure(&mut rig, "strap");
    let held = |rig: &Rig| {
        rig.route_status("chart")["held"].as_object().map_or(0, |held| held.values().filter_map(Value::as_u64).sum::<u64>())
    };
    assert!(wait_until(SOON, || held(&rig) > 0), "{}", rig.route_status("chart"));
    assert_eq!(rig.records_under(CHART).len(), before);

    // A device with a place of its own keeps the patient.
    scan(&mut station, WRISTBAND);
    assert_eq!(scan(&mut station, "BME-00732")["say"], "cuff measures this patient from now on");
    let ward = rig.ask_json(&["ward"]);
    assert_eq!((&ward["devices"][0]["device"], &ward["devices"][0]["source"]), (&json!("cuff"), &json!("scan")));
    let trail = rig.audit_trail();
    let scans = trail.iter().filter(|(action, _)| action == "scan").map(|(_, object)| object.as_str());
    assert_eq!(scans.collect::<Vec<_>>(), ["device strap", "device strap", "device cuff"]);
    rig.stop();
    let said = station.all.join("\n") + &rig.logs() + &rig.broker.log() + &imported.stdout;
    assert!(!said.contains(WRISTBAND), "{said}");
    assert!(rig.subscriber.messages().iter().all(|message| !message.raw.contains(WRISTBAND)));
}

#[test]
fn a_wristband_that_waits_too_long_ties_nothing_and_the_station_says_so() {
    let mut rig = rig();
    let mut station = Station::start(&rig, &["--json"]);
    let list = format!("bed,visit\n7,{WRISTBAND}\n");
    rig.bedrail_with_input(&["ward", "import", "-", "--yes"], list.as_bytes());
    assert_eq!(scan(&mut station, WRISTBAND)["done"], "waits");
    assert!(station.hears().contains("lapsed"));
    let answer = scan(&mut station, "BME-00731");
    assert_eq!(answer["say"], "too late: scan the wristband again, then the device");
    assert_eq!(rig.ask_json(&["ward"])["spots"], json!([]));

    let said = rig.refused(&["scan-station"], 2);
    assert!(said.contains("give --input PATH, or write scan.input"), "{said}");
    let said = rig.refused(&["scan-station", "--input", "/dev/null"], 1);
    assert!(said.contains("it is no serial line; set the scanner to its serial mode"), "{said}");
    // The gateway goes and comes: the station says so and goes on.
    rig.stop();
    assert_eq!(scan(&mut station, WRISTBAND)["done"], "failed");
    rig.start(Shape::TwoProcesses);
    assert_eq!(scan(&mut station, WRISTBAND)["done"], "waits");
    assert!(!station.all.join("\n").contains(WRISTBAND));
}
