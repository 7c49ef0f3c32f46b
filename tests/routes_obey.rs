//! A route does what it is told and says what it does: it pauses, resumes, sends again and is dropped, and what waited is
//! never taken for what is new.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::devices::{Kind, VirtualDevice};
use support::ledger::compare;
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::subscriber::Message;

const SOON: Duration = Duration::from_secs(30);
const LIVE: &str = "bedrail/gw-test/";
/// Long enough for a value to arrive that is on its way.
const A_WHILE: Duration = Duration::from_secs(2);

fn devices() -> [VirtualDevice; 2] {
    [
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
        VirtualDevice::new(Kind::Thermometer, "A4:C1:38:00:00:03", "thermometer"),
    ]
}

fn started(shape: Shape) -> Rig {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices(), "start = \"oldest\"", "");
    rig.start(shape);
    rig.wait_until_heard(SOON);
    rig
}

fn measure(rig: &mut Rig, times: usize) {
    for _ in 0..times {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(20));
    }
}

const APART: Duration = Duration::from_millis(200);

fn now() -> String {
    jiff::Timestamp::try_from(SystemTime::now()).unwrap().to_string()
}

fn wait_until_arrived(rig: &Rig, values: usize) {
    let came = wait_until(SOON, || compare(&rig.made(), &rig.records_under(LIVE)).arrived == values);
    let report = compare(&rig.made(), &rig.records_under(LIVE));
    assert!(came, "{values} values were to arrive: {}\n{}", report.line(None), rig.logs());
}

/// Lanes of the readings from the `from`th message on.
fn lanes(messages: &[Message], from: usize) -> BTreeSet<&str> {
    messages[from..].iter().filter_map(|message| message.payload["lane"].as_str()).collect()
}

fn state(route: &Value) -> &str {
    route["state"].as_str().unwrap_or_default()
}

/// What a route owes, in both lanes.
fn waiting(route: &Value) -> u64 {
    ["live", "backlog"].iter().filter_map(|lane| route[lane].as_u64()).sum()
}

#[test]
fn a_route_pauses_resumes_sends_again_and_is_dropped() {
    let mut rig = started(Shape::TwoProcesses);
    // The gateway's clock is known to some milliseconds.
    let begin = now();
    std::thread::sleep(APART);
    measure(&mut rig, 3);
    wait_until_arrived(&rig, rig.made().len());
    std::thread::sleep(APART);
    let end = now();

    rig.ask(&["route", "pause", "live", "--reason", "the broker moves house"]);
    rig.wait_for_route("live", SOON, |route| state(route) == "paused" && route["detail"] == "the broker moves house");
    let before = rig.records_under(LIVE).len();
    measure(&mut rig, 3);
    rig.restart();
    rig.wait_until_heard(SOON);
    measure(&mut rig, 2);
    rig.wait_for_route("live", SOON, |route| state(route) == "paused" && waiting(route) >= 15);
    std::thread::sleep(A_WHILE);
    assert_eq!(rig.records_under(LIVE).len(), before, "a paused route sends nothing, before or after a restart");
    rig.ask(&["route", "resume", "live"]);
    wait_until_arrived(&rig, rig.made().len());
    assert_eq!(lanes(&rig.records_under(LIVE), before), BTreeSet::from(["backlog"]));
    rig.wait_for_route("live", SOON, |route| state(route) == "up" && route["backlog"] == 0);

    replay(&rig, &begin, &end);
    drop_it(&mut rig);
    let actions: BTreeSet<String> = rig.audit_trail().into_iter().map(|(action, _)| action).collect();
    for action in ["route pause", "route resume", "route replay", "route drop"] {
        assert!(actions.contains(action), "{action} left no trace: {actions:?}");
    }
    rig.stop();
}

/// The same deliveries again, octet by octet but for when and how they went.
fn replay(rig: &Rig, begin: &str, end: &str) {
    let before = rig.records_under(LIVE);
    let said = rig.ask(&["route", "replay", "live", "--from", begin, "--to", end]);
    let inside: Vec<&Message> = before
        .iter()
        .filter(|message| message.payload["received_at"].as_str().is_some_and(|at| begin <= at && at < end))
        .collect();
    assert!(inside.len() >= 9, "three rounds of an oximeter and a thermometer");
    assert!(said.contains(&format!("{} records go again", inside.len())), "{said} and not {}", inside.len());
    let all = rig.wait_for_records(LIVE, SOON, |all| all.len() >= before.len() + inside.len());
    assert_eq!(all.len(), before.len() + inside.len());
    assert_eq!(lanes(&all, before.len()), BTreeSet::from(["backlog"]));
    let report = compare(&rig.made(), &all);
    report.assert_sound();
    assert_eq!(report.duplicated, inside.len(), "a replay has the delivery ids of the first time");
}

fn drop_it(rig: &mut Rig) {
    let said = rig.refused(&["route", "drop", "live"], 1);
    assert!(said.contains("is in the config; take it out and restart"), "{said}");
    rig.stop();
    rig.configure(&rig.route("other", ""), "");
    rig.start(Shape::TwoProcesses);
    assert_eq!(state(&rig.route_status("live")), "orphaned");
    rig.ask(&["route", "drop", "live"]);
    let routes = rig.ask_json(&["route", "list"]);
    let names: Vec<&Value> = routes.as_array().unwrap().iter().map(|route| &route["name"]).collect();
    assert_eq!(names, ["other"]);
    rig.refused(&["route", "drop", "live"], 1);
}

#[test]
fn what_was_made_while_the_broker_was_away_is_backlog_and_what_follows_is_live() {
    let mut rig = started(Shape::OneProcess);
    measure(&mut rig, 3);
    wait_until_arrived(&rig, rig.made().len());
    rig.proxy.refuse(true);
    rig.proxy.reset_all();
    rig.wait_for_route("live", SOON, |route| state(route) == "down" && route["detail"].is_string());
    let arrived = rig.records_under(LIVE).len();
    measure(&mut rig, 5);
    let made = rig.made().len();
    rig.wait_for_route("live", SOON, |route| waiting(route) >= 15);
    rig.proxy.pass();
    rig.wait_for_route("live", SOON, |route| state(route) == "up" && route["backlog"] == 0);
    wait_until_arrived(&rig, made);
    assert_eq!(lanes(&rig.records_under(LIVE), arrived), BTreeSet::from(["backlog"]));
    let arrived = rig.records_under(LIVE).len();
    measure(&mut rig, 3);
    wait_until_arrived(&rig, rig.made().len());
    assert_eq!(lanes(&rig.records_under(LIVE), arrived), BTreeSet::from(["live"]));
    compare(&rig.made(), &rig.records_under(LIVE)).assert_sound();

    status_of_both_halves(&rig);
    new_routes_begin_where_they_are_told(&mut rig);
    rig.stop();
}

#[test]
fn what_waited_comes_in_batches_and_nothing_of_it_differs() {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices(), "start = \"oldest\"\ncompression = \"zstd\"", "");
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    let begin = now();
    measure(&mut rig, 3);
    wait_until_arrived(&rig, rig.made().len());
    let batches = |rig: &Rig| rig.records_under("bedrail/gw-test/batch");
    let alone = rig.records_under(LIVE).len();
    rig.proxy.refuse(true);
    rig.proxy.reset_all();
    rig.wait_for_route("live", SOON, |route| state(route) == "down");
    measure(&mut rig, 30);
    rig.wait_for_route("live", SOON, |route| waiting(route) >= 90);
    rig.proxy.pass();
    wait_until_arrived(&rig, rig.made().len());
    assert!(batches(&rig).len() >= 90, "{} records came in batches, {alone} had come alone", batches(&rig).len());
    measure(&mut rig, 1);
    wait_until_arrived(&rig, rig.made().len());
    assert_eq!(lanes(&batches(&rig), 0), BTreeSet::from(["backlog"]), "what is live goes alone");

    // Sent again, batched otherwise: the same deliveries, field by field.
    rig.wait_for_route("live", SOON, |route| waiting(route) == 0);
    replay(&rig, &begin, &now());
    rig.stop();
}

fn status_of_both_halves(rig: &Rig) {
    let heard_all = |status: &Value| {
        let devices = status["collect"]["devices"].as_array().unwrap();
        let sent = status["routes"][0]["tally"]["sent"].as_u64();
        sent >= Some(rig.made().len() as u64)
            && devices.len() == 2
            && devices.iter().all(|device| device["readings"].as_u64() >= Some(11))
    };
    let came = wait_until(SOON, || heard_all(&rig.ask_json(&["status"])));
    let status = rig.ask_json(&["status"]);
    assert!(came, "{status:#}");
    let collect = &status["collect"];
    assert_eq!((&collect["gateway"], &collect["clock"]), (&json!("gw-test"), &json!("ntp")));
    assert_eq!(collect["adapter"]["usable"], true);
    for device in collect["devices"].as_array().unwrap() {
        assert!(device["state"] == "connected" && device["last_reading_at"].is_string(), "{device}");
    }
    assert_eq!((&status["routes"][0]["name"], &status["routes"][0]["state"]), (&json!("live"), &json!("up")));
    assert!(rig.ask(&["status"]).contains("oximeter"));
}

fn new_routes_begin_where_they_are_told(rig: &mut Rig) {
    let old = rig.made().len();
    rig.stop();
    let routes = rig.route("live", "start = \"oldest\"")
        + &rig.route("from-now", "start = \"now\"\ntopic = \"bedrail/now/{device}/{metric}\"")
        + &rig.route("from-oldest", "start = \"oldest\"\ntopic = \"bedrail/oldest/{device}/{metric}\"");
    rig.configure(&routes, "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    for route in ["from-now", "from-oldest"] {
        rig.wait_for_route(route, SOON, |route| state(route) == "up" && route["backlog"] == 0);
    }
    measure(rig, 2);
    let made = rig.made();
    let arrived = |rig: &Rig, prefix: &str| compare(&made, &rig.records_under(prefix)).arrived;
    let came =
        wait_until(SOON, || arrived(rig, "bedrail/oldest/") == made.len() && arrived(rig, "bedrail/now/") >= made.len() - old);
    assert!(came, "oldest {}, now {}\n{}", arrived(rig, "bedrail/oldest/"), arrived(rig, "bedrail/now/"), rig.logs());
    assert_eq!(arrived(rig, "bedrail/now/"), made.len() - old, "it began in the past");
}
