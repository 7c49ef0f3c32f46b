//! docs/ward.md is carried out: its configs, and every command in it in its order, on a gateway with those devices.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::devices::{BLOOD_PRESSURE, Kind, VirtualDevice, seconds};
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::scanner::Station;

const SOON: Duration = Duration::from_secs(30);
const CLEAR_OF_THE_EDGE: Duration = Duration::from_millis(400);
/// A device's own clock shows seconds, and so does the comparison with ours.
const CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK: Duration = Duration::from_millis(4_000);
const NEARLY_NOW: Duration = Duration::from_secs(5);
const CHART: &str = "bedrail/chart/";

/// A gateway as a section of the page sets it up, and the commands of the section that are still to come.
struct Walk {
    rig: Rig,
    commands: VecDeque<String>,
}

impl Walk {
    fn start(section: &str) -> Self {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ward.md")).unwrap();
        let text = page.split("\n## ").find(|text| text.starts_with(section)).unwrap();
        let block = |kind: &str| -> Vec<&str> {
            let fence = format!("```{kind}\n");
            text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
        };
        let [config] = block("toml")[..] else { panic!("{section}: one config") };
        let sections: Vec<&str> = config.split("\n\n").collect();
        let of = |kind: &str| sections.iter().copied().filter(|text| text.trim_start().starts_with(kind)).collect::<Vec<_>>();
        let devices: Vec<VirtualDevice> = of("[[device]]").into_iter().map(device).collect();
        let is_rest = |text: &&str| !text.contains("[[device]]") && !text.contains("[[route]]");
        let rest: Vec<&str> = sections.iter().copied().filter(is_rest).collect();
        let rest = rest.join("\n\n");
        let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "", &rest);
        let routes: String =
            of("[[route]]").into_iter().map(|text| rig.route("chart", &without(text, &["name", "kind", "url"]))).collect();
        rig.configure(&routes, &rest);
        for list in block("csv") {
            std::fs::write(rig.site.path("census.csv"), list).unwrap();
        }
        rig.start(Shape::OneProcess);
        rig.wait_until_heard(SOON);
        let lines = block("console").into_iter().flat_map(str::lines);
        let commands = lines.filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect();
        Self { rig, commands }
    }

    /// Carries out the next command of the page, which is this one, with what is another on this day.
    fn runs(&mut self, documented: &str, instead: &[(&str, &str)], status: i32) -> String {
        assert_eq!(self.commands.pop_front().as_deref(), Some(documented), "the next command of the page");
        let census = self.rig.site.path("census.csv").display().to_string();
        let (command, input) = match documented.split_once(" < ") {
            Some((command, _)) => (command, &br#"{"name": "Anna Lind", "birth_date": "1947-11-03"}"#[..]),
            None => (documented, &b""[..]),
        };
        let replace = |word: &str| {
            let other = instead.iter().find(|(of, _)| *of == word).map(|(_, other)| (*other).to_owned());
            other.unwrap_or_else(|| if word == "census.csv" { census.clone() } else { word.to_owned() })
        };
        let words: Vec<String> = command.strip_prefix("bedrail ").unwrap().split(' ').map(replace).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = self.rig.bedrail_with_input(&words, input);
        assert_eq!(ran.status, Some(status), "{words:?}: {ran:?}");
        ran.stdout + &ran.stderr
    }

    /// What the next runs of a held list are, once they are on the card.
    fn held(&self, metric: &str) -> Value {
        let mut run = Value::Null;
        let came = wait_until(SOON, || {
            let list = self.rig.ask_json(&["held", "list"]);
            run = list.as_array().unwrap().iter().find(|run| run["metric"] == metric).cloned().unwrap_or_default();
            run.is_object()
        });
        assert!(came, "{}", self.rig.ask(&["held", "list"]));
        run
    }

    fn charted(&self, condition: impl Fn(&[support::subscriber::Message]) -> bool) {
        self.rig.wait_for_records(CHART, SOON, condition);
    }

    fn is_over(&self) {
        assert!(self.commands.is_empty(), "these of the page were not tried: {:?}", self.commands);
    }
}

fn device(text: &str) -> VirtualDevice {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
        line.trim_matches('"').to_owned()
    };
    let kind = match value("kind").as_str() {
        "heart-rate" => Kind::HeartRateStrap,
        "blood-pressure" => Kind::Cuff,
        other => panic!("no virtual {other}"),
    };
    let mut device = VirtualDevice::new(kind, &value("address"), &value("name"));
    device.config = without(text, &["name", "kind", "address"]);
    device
}

/// The lines of a section that set none of these keys.
fn without(section: &str, keys: &[&str]) -> String {
    let others =
        section.lines().filter(|line| !line.starts_with("[[") && !keys.iter().any(|key| line.starts_with(&format!("{key} ="))));
    others.map(|line| line.to_owned() + "\n").collect()
}

fn now() -> String {
    jiff::Timestamp::try_from(SystemTime::now()).unwrap().to_string()
}

#[test]
fn the_ward_of_the_page_is_walked_through_as_typed() {
    let mut walk = Walk::start("A ward");
    let measures = |walk: &Walk| walk.rig.ask_json(&["ward"])["measures"][0].clone();
    assert!(wait_until(SOON, || measures(&walk)["bed"] == "3W-301-B"));
    let said = walk.runs("bedrail ward import census.csv --yes", &[], 0);
    assert!(said.contains("identifiers of 1 patients are new; 0 readings of the past change hands"), "{said}");
    assert!(said.contains("done: 1 events, identifiers of 1 patients"), "{said}");
    let patient = measures(&walk)["patient"].as_str().unwrap().to_owned();
    let said = walk.runs("bedrail ward", &[], 0);
    assert!(said.contains(&patient) && said.contains("import"), "{said}");

    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let noon = now();
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let before = walk.rig.made().len();
    for _ in 0..4 {
        walk.rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(20));
    }
    let count = walk.rig.made().len() - before;
    walk.charted(|chart| chart.len() == count);
    std::thread::sleep(NEARLY_NOW);
    let yes = count.to_string();
    let same = [("v-lfdkjcnhmnebbigjkdakhcbp", patient.as_str()), ("2026-11-23T12:00:00+01:00", &noon), ("4", &yes)];
    let assign = "bedrail assign v-lfdkjcnhmnebbigjkdakhcbp --bed 3W-301-A --from 2026-11-23T12:00:00+01:00";
    let said = walk.runs(assign, &same, 1);
    assert!(said.contains(&format!("this changes whose {count} readings are")), "{said}");
    let said = walk.runs(&format!("{assign} --yes 4"), &same, 0);
    assert!(said.contains(&format!("assigned to {patient} from")), "{said}");
    walk.charted(|chart| chart.iter().filter(|message| message.payload["op"] == "retract").count() == count);

    let run = walk.held("heart_rate");
    let first = run["first"].to_string();
    let said = walk.runs("bedrail held list", &[], 0);
    assert!(said.contains("nobody is in bed 3W-301-B"), "{said}");
    let same = [("14", first.as_str()), ("v-lfdkjcnhmnebbigjkdakhcbp", &patient)];
    let said = walk.runs("bedrail held show chart 14", &same, 0);
    assert!(said.contains("nobody is in bed 3W-301-B") && said.contains("released by"), "{said}");
    let said = walk.runs("bedrail why 14", &same, 0);
    assert!(said.contains("nobody is in bed 3W-301-B"), "{said}");
    let said = walk.runs("bedrail trace 14", &same, 0);
    assert!(said.contains("put ") && said.contains("retract") && said.contains("TAKEN BACK ON"), "{said}");
    let said = walk.runs("bedrail held assign chart 14 v-lfdkjcnhmnebbigjkdakhcbp", &same, 0);
    assert_eq!(said, format!("{} records belong to {patient}\n", run["records"]));
    let stands = |walk: &Walk| walk.rig.ask_json(&["why", &first])["routes"][0]["stands"]["rule"].clone();
    assert!(wait_until(SOON, || stands(&walk) == "person"));
    let said = walk.runs("bedrail why 14", &same, 0);
    assert!(said.contains("by the rule person"), "{said}");

    let quarter_past = now();
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    walk.runs("bedrail unassign --bed 3W-301-A", &[], 0);
    let said = walk.runs("bedrail ward --at 2026-11-23T12:15:00+01:00", &[("2026-11-23T12:15:00+01:00", &quarter_past)], 0);
    assert!(said.contains("3W-301-A") && said.contains(&patient), "{said}");
    walk.is_over();
    walk.rig.stop();
}

#[test]
fn the_home_of_the_page_is_walked_through_as_typed() {
    let mut walk = Walk::start("A home");
    assert!(wait_until(SOON, || walk.rig.ask_json(&["ward"])["devices"][0]["patient"] == "p-017"));
    let said = walk.runs("bedrail patient set p-017 --identifiers-file - < identifiers.json", &[], 0);
    assert_eq!(said, "identifiers of p-017 kept\n");
    let said = walk.runs("bedrail patient list", &[], 0);
    assert!(said.contains("PATIENT") && !said.contains("Anna"), "{said}");
    let said = walk.runs("bedrail ward", &[], 0);
    assert!(said.contains("user_pairing") && !said.contains("Anna"), "{said}");

    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    walk.rig.measure(|_| true);
    walk.charted(|chart| chart.iter().any(|message| message.payload["metric"] == "blood_pressure"));
    // The guest: octet 16 is the user index.
    let mut of_user_2 = walk.rig.workers[0].device.value(77, seconds(SystemTime::now())).octets;
    of_user_2[16] = 2;
    assert!(walk.rig.bluez.notify(&walk.rig.workers[0].device.address, BLOOD_PRESSURE, &of_user_2));
    let first = walk.held("blood_pressure")["first"].to_string();
    let said = walk.runs("bedrail held list", &[], 0);
    assert!(said.contains("nobody is assigned to user 2 of cuff"), "{said}");
    let said = walk.runs("bedrail held show chart 9", &[("9", &first)], 0);
    assert!(said.contains("nobody is assigned to user 2 of cuff"), "{said}");
    assert_eq!(walk.runs("bedrail held discard chart 9", &[("9", &first)], 0), "1 records go to no chart\n");
    walk.is_over();
    walk.rig.stop();
}

#[test]
fn the_cart_of_the_page_is_walked_through_as_typed() {
    let mut walk = Walk::start("A cart");
    walk.runs("bedrail ward import census.csv --yes", &[], 0);
    let station = "bedrail scan-station --input /dev/serial/by-id/usb-scanner-if00";
    assert_eq!(walk.commands.pop_front().as_deref(), Some(station), "the next command of the page");
    let mut station = Station::start(&walk.rig, &[]);
    station.scan("V26004711-1");
    station.scan("BME-00731");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ward.md")).unwrap();
    assert!(page.contains(&station.all.join("\n")), "the page shows what the station prints: {:#?}", station.all);
    let said = walk.runs("bedrail ward", &[], 0);
    assert!(said.contains("cart2-pulse") && said.contains("scan") && said.contains("spot"), "{said}");
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    walk.rig.measure(|_| true);
    walk.charted(|chart| chart.len() == 1);
    let record = walk.rig.records_under(CHART)[0].payload["record"].as_str().unwrap().to_owned();
    let said = walk.runs("bedrail why 6", &[("6", &record)], 0);
    assert!(said.contains("by the rule spot") && said.contains("(scan of "), "{said}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(station.scan("BME-00731").ends_with("cart2-pulse is nobody's now"));
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    walk.rig.measure(|_| true);
    walk.held("heart_rate");
    let said = walk.runs("bedrail held list", &[], 0);
    assert!(said.contains("cart2-pulse"), "{said}");
    assert_eq!(walk.rig.ask_json(&["ward"])["spots"], json!([]));
    walk.is_over();
    walk.rig.stop();
}
