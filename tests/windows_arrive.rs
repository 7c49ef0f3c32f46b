//! Windows at the receiver, through a kill in the middle of a slot and a change of patient in the middle of another: each is
//! there once, and says what the values it was made of say.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::devices::{Kind, VirtualDevice};
use support::ledger::compare;
use support::rig::{Rig, Shape};
use support::subscriber::Message;

const SLOT_MS: i64 = 10_000;
const SOON: Duration = Duration::from_secs(40);
const LIVE: &str = "bedrail/gw-test/";
const CHART: &str = "bedrail/chart/";
/// Between a value on the air and its time stamp lie milliseconds, on a busy machine many: none is made so near to an edge.
const CLEAR_OF_AN_EDGE_MS: i64 = 700;
/// A patient's edge is unsure by what the clock is.
const CLEAR_OF_A_PATIENT: Duration = Duration::from_millis(800);

#[test]
fn each_window_arrives_once_and_right_through_a_kill_and_a_change_of_patient_in_one_process() {
    each_window_arrives_once_and_right(Shape::OneProcess);
}

#[test]
fn each_window_arrives_once_and_right_through_a_kill_and_a_change_of_patient_in_two_processes() {
    each_window_arrives_once_and_right(Shape::TwoProcesses);
}

/// An oximeter at a bed in which p-anna lies, a route to topics and one to charts.
fn at_a_bed(shape: Shape) -> Rig {
    let device = || VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter").with_config("bed = \"7\"");
    let ward = "[[bed]]\nid = \"7\"\n[[patient]]\nkey = \"p-anna\"\n[[patient]]\nkey = \"p-bert\"\n";
    let carry = "carry = [\"readings\", \"windows:10s\"]\nstart = \"oldest\"";
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[device()], carry, ward);
    let keys = "carry = [\"windows:10s\"]\nbind = \"patient\"\nper_patient = true\nmin_coverage = \"0 %\"\n\
                topic = \"bedrail/chart/{device}/{metric}\"";
    rig.configure(&(rig.route("live", carry) + &rig.route("chart", keys)), ward);
    rig.start(shape);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--bed", "7", "p-anna"]);
    rig
}

#[test]
fn an_edge_learned_after_a_window_went_leaves_its_first_side_there_and_sends_the_other_where_it_belongs() {
    let mut rig = at_a_bed(Shape::OneProcess);
    let slot = next_slot();
    measure_until(&mut rig, slot + SLOT_MS / 2);
    std::thread::sleep(CLEAR_OF_A_PATIENT);
    let edge = now_ms();
    std::thread::sleep(CLEAR_OF_A_PATIENT);
    measure_until(&mut rig, slot + SLOT_MS);
    let metrics = ["spo2", "pulse_rate.oximeter"];
    let there = |records: &[Message], from: i64, version: i64| {
        let windows = windows(records);
        let is_it = |w: &&Value| millis_of(w, "from") == from && w["version"] == version;
        metrics.iter().all(|metric| windows.iter().filter(is_it).any(|w| w["metric"] == *metric))
    };
    rig.wait_for_records(CHART, SOON, |chart| there(chart, slot, 1));
    let since = jiff::Timestamp::from_millisecond(edge).unwrap().to_string();
    let assign = ["assign", "--bed", "7", "p-bert", "--from", &since];
    let said = rig.refused(&assign, 1);
    let count = said.trim().rsplit(' ').next().unwrap().to_owned();
    rig.ask(&[&assign[..], &["--yes", &count]].concat());
    let chart = rig.wait_for_records(CHART, SOON, |chart| there(chart, slot, 2) && there(chart, edge, 1));
    let made = values(&rig, &rig.records_under(LIVE));
    for metric in metrics {
        let of: Vec<Value> =
            windows(&chart).into_iter().filter(|w| w["metric"] == metric && millis_of(w, "from") >= slot).collect();
        let [whole, first, second] = &of[..] else { panic!("a window, and its two sides: {of:#?}") };
        let (first, second) = if millis_of(first, "from") == slot { (first, second) } else { (second, first) };
        for field in ["record", "placement", "subject"] {
            assert_eq!(first[field], whole[field], "the first side is the next version of what stands");
        }
        assert_eq!((&first["subject"], &second["subject"]), (&"p-anna".into(), &"p-bert".into()));
        compare_by_hand(first, &made[metric], slot, edge);
        compare_by_hand(second, &made[metric], edge, slot + SLOT_MS);
    }
    assert!(chart.iter().all(|message| message.payload["op"] == "put"), "nothing that stays is taken back");
    rig.stop();
}

fn each_window_arrives_once_and_right(shape: Shape) {
    let mut rig = at_a_bed(shape);

    // In the middle of a slot everything is killed and comes back.
    let first = next_slot();
    measure_until(&mut rig, first + SLOT_MS / 2);
    std::thread::sleep(Duration::from_millis(1_200)); // what was heard is durable by then
    rig.daemons.iter_mut().for_each(|daemon| daemon.kill9());
    rig.daemons.iter_mut().for_each(|daemon| daemon.restart());
    rig.wait_until_heard(SOON);
    // In the middle of another one the bed gets a new patient.
    let second = next_slot();
    measure_until(&mut rig, second + SLOT_MS / 2);
    std::thread::sleep(CLEAR_OF_A_PATIENT);
    let said = rig.ask(&["assign", "--bed", "7", "p-bert"]);
    let edge = millis(said.trim().rsplit(' ').next().unwrap());
    std::thread::sleep(CLEAR_OF_A_PATIENT);
    measure_until(&mut rig, second + SLOT_MS);

    let metrics = ["spo2", "pulse_rate.oximeter"];
    let is_there = |records: &[Message], from: i64| {
        metrics.iter().all(|metric| windows(records).iter().any(|w| w["metric"] == *metric && millis_of(w, "from") == from))
    };
    let live = rig.wait_for_records(LIVE, SOON, |live| is_there(live, second));
    let chart = rig.wait_for_records(CHART, SOON, |chart| is_there(chart, second) && is_there(chart, edge));
    assert!(edge > second && edge < second + SLOT_MS, "the change of patient was to be inside a slot");
    let made = values(&rig, &live);
    for metric in metrics {
        for slot in [first, second] {
            let window = only_one(&live, metric, slot);
            assert!(window["subject"].is_null() || window["subject"] == "p-anna", "{window}");
            compare_by_hand(&window, &made[metric], slot, slot + SLOT_MS);
        }
        let (before, after) = (only_one(&chart, metric, second), only_one(&chart, metric, edge));
        assert_eq!((&before["subject"], &after["subject"]), (&"p-anna".into(), &"p-bert".into()));
        assert_ne!(before["placement"], after["placement"]);
        assert_eq!(before["record"], only_one(&live, metric, second)["record"], "the side at the start is the window itself");
        assert_ne!(after["record"], before["record"]);
        compare_by_hand(&before, &made[metric], second, edge);
        compare_by_hand(&after, &made[metric], edge, second + SLOT_MS);
    }
    let versions: BTreeSet<i64> = windows(&live).iter().map(|window| window["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, BTreeSet::from([1]), "nothing was late, so nothing was made again");
    compare(&rig.made(), &live).assert_sound();
    rig.stop();
}

/// The start of the next slot that leaves time to get ready.
fn next_slot() -> i64 {
    let now = now_ms();
    let next = now - now % SLOT_MS + SLOT_MS;
    if next - now < 1_000 { next + SLOT_MS } else { next }
}

/// Measures four times a second up to `end`, never near the edge of a slot.
fn measure_until(rig: &mut Rig, end: i64) {
    let begin = end - 1 - (end - 1) % SLOT_MS;
    while now_ms() < end - CLEAR_OF_AN_EDGE_MS {
        if now_ms() >= begin + CLEAR_OF_AN_EDGE_MS {
            rig.measure(|_| true);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// What the devices made and the gateway heard, by metric: time, value in tenths.
fn values(rig: &Rig, live: &[Message]) -> BTreeMap<&'static str, Vec<(i64, i64)>> {
    let made = rig.made();
    let mut values: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for (index, _) in compare(&made, live).matched {
        let value = &made[index];
        let at = i64::try_from(value.at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
        values.entry(value.metric).or_default().push((at, tenths(&value.value)));
    }
    values
}

/// Number, extremes and lower median, worked out from what was made.
fn compare_by_hand(window: &Value, made: &[(i64, i64)], from: i64, to: i64) {
    let mut inside: Vec<i64> = made.iter().filter(|(at, _)| from <= *at && *at < to).map(|(_, value)| *value).collect();
    inside.sort_unstable();
    assert!(inside.len() >= 4, "only {} values from {from} to {to}", inside.len());
    assert_eq!((millis_of(window, "from"), millis_of(window, "to")), (from, to), "{window}");
    let said = &window["window"];
    assert_eq!(said["n"].as_u64(), Some(inside.len() as u64), "{window}");
    let value = |name: &str| tenths(&said[name]["value"].to_string());
    let by_hand = (inside[0], inside[(inside.len() - 1) / 2], inside[inside.len() - 1]);
    assert_eq!((value("min"), value("median"), value("max")), by_hand, "{window}");
}

fn windows(records: &[Message]) -> Vec<Value> {
    records.iter().map(|message| message.payload.clone()).filter(|payload| payload["kind"] == "window").collect()
}

/// The window of a metric that begins there: there must be one, in one version, sent once.
fn only_one(records: &[Message], metric: &str, from: i64) -> Value {
    let found = windows(records).into_iter().filter(|w| w["metric"] == metric && millis_of(w, "from") == from);
    let mut found: Vec<Value> = found.collect();
    assert_eq!(found.len(), 1, "windows of {metric} from {from}: {found:#?}");
    found.remove(0)
}

fn millis_of(payload: &Value, end: &str) -> i64 {
    millis(payload["window"][end].as_str().unwrap())
}

fn millis(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// `97.5` and `97.50` as 975.
fn tenths(text: &str) -> i64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = format!("{fraction:0<1}");
    assert!(fraction[1..].bytes().all(|digit| digit == b'0'), "{text} has no such resolution");
    whole.parse::<i64>().unwrap() * 10 + fraction[..1].parse::<i64>().unwrap()
}
