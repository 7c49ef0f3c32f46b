//! A value goes to a chart only under the patient it was measured on, and waits for a person where that is not known.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::chart::*;
use support::devices::{BLOOD_PRESSURE, VirtualDevice};
use support::ledger::compare;
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::subscriber::Message;

fn rig(devices: &[VirtualDevice], rest: &str) -> Rig {
    with_a_chart(env!("CARGO_BIN_EXE_bedrail"), devices, rest)
}

#[test]
fn values_wait_for_their_patient_in_one_process() {
    values_wait_for_their_patient(Shape::OneProcess);
}

#[test]
fn values_wait_for_their_patient_in_two_processes() {
    values_wait_for_their_patient(Shape::TwoProcesses);
}

fn values_wait_for_their_patient(shape: Shape) {
    let mut rig = rig(&[strap()], PATIENTS);
    rig.start(shape);
    rig.wait_until_heard(SOON);
    let begin = time(Duration::ZERO);
    std::thread::sleep(CLEAR_OF_THE_EDGE);

    let nobodys = measure(&mut rig, "strap", 5);
    rig.wait_for_records(LIVE, SOON, |live| readings(live) == nobodys);
    assert_eq!(subjects(&rig.records_under(LIVE)), BTreeSet::from([None]), "a device-bound route waits for nobody");
    wait_until_held(&rig, json!({ "no_assignment": nobodys }));
    assert_eq!(rig.records_under(CHART).len(), 0, "something went to a chart without a patient");

    rig.ask(&["assign", "--device", "strap", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let annas = measure(&mut rig, "strap", 5);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= annas);
    assert_eq!((chart.len(), subjects(&chart)), (annas, only("p-anna")));
    let live = rig.wait_for_records(LIVE, SOON, |live| readings(live) == nobodys + annas);
    assert_eq!(subjects(&live), BTreeSet::from([None, Some("p-anna".to_owned())]));
    let placements = |messages: &[Message]| -> BTreeSet<String> {
        messages.iter().map(|message| message.payload["placement"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(placements(&chart).len(), 1);
    assert_eq!(placements(&live).len(), 1, "a device-bound route knows one place, whoever is measured");
    assert!(placements(&chart).is_disjoint(&placements(&live)));
    wait_until_held(&rig, json!({ "before_assignment": nobodys }));

    std::thread::sleep(CLEAR_OF_THE_EDGE);
    rig.ask(&["unassign", "--device", "strap"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let after = measure(&mut rig, "strap", 3);
    wait_until_held(&rig, json!({ "before_assignment": nobodys, "no_assignment": after }));
    assert_eq!(rig.records_under(CHART).len(), annas);

    std::thread::sleep(NEARLY_NOW);
    back_date(&rig, &begin, nobodys, annas, after);
    let report = compare(&rig.made(), &rig.records_under(CHART));
    report.assert_sound();
    assert_eq!((report.arrived, report.duplicated), (nobodys + annas, 0), "what was held went once");
    let trail = rig.audit_trail();
    let count = |action: &str| trail.iter().filter(|(of, object)| of == action && object == "device strap").count();
    assert_eq!((count("assign"), count("unassign")), (2, 1), "{trail:?}");
    rig.stop();
}

/// The past is changed only as far as it is allowed, confirmed and not sent yet.
fn back_date(rig: &Rig, begin: &str, nobodys: usize, annas: usize, after: usize) {
    let assign = |patient: &'static str, more: &[&str]| {
        let arguments = [&["assign", "--device", "strap", patient], more].concat();
        rig.bedrail(&arguments)
    };
    let refused = |patient: &'static str, more: &[&str], why: &str| {
        let ran = assign(patient, more);
        assert!(ran.status == Some(1) && ran.stderr.contains(why), "{ran:?}");
    };
    refused("p-anna", &["--from", &time(Duration::from_secs(3 * 3_600))], "longer ago than back-dating allows (120 min");
    refused("p-anna", &["--from", &time(Duration::ZERO).replace("Z", "+00:00").replacen("20", "21", 1)], "in the future");
    refused("p-anna", &["--from", "yesterday"], "is not a time");
    refused("p-anna", &["--from", begin], &format!("--yes {nobodys}"));
    refused("p-anna", &["--from", begin, "--yes", &(nobodys + 1).to_string()], &format!("--yes {nobodys}"));
    assert_eq!(rig.records_under(CHART).len(), annas, "an unconfirmed change moved something");
    let done = assign("p-anna", &["--from", begin, "--yes", &nobodys.to_string()]);
    assert_eq!(done.status, Some(0), "{done:?}");
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= annas + nobodys);
    assert_eq!(subjects(&chart), only("p-anna"));
    let lanes: Vec<&str> = chart[annas..].iter().map(|message| message.payload["lane"].as_str().unwrap()).collect();
    assert!(lanes.iter().all(|lane| *lane == "backlog"), "{lanes:?}");
    wait_until_held(rig, json!({ "no_assignment": after }));

    assert_eq!(subjects(&rig.records_under(CHART)), only("p-anna"));
}

#[test]
fn what_went_to_a_wrong_chart_is_taken_back_and_sent_to_the_right_one_and_back_again() {
    let mut rig = rig(&[strap()], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--device", "strap", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let begin = time(Duration::ZERO);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let count = measure(&mut rig, "strap", 5);
    rig.wait_for_records(CHART, SOON, |chart| everything_stands_with(chart, count, "p-anna"));
    std::thread::sleep(NEARLY_NOW);
    let yes = count.to_string();
    rig.ask(&["assign", "--device", "strap", "p-bert", "--from", &begin, "--yes", &yes]);
    rig.wait_for_records(CHART, SOON, |chart| everything_stands_with(chart, count, "p-bert"));
    rig.ask(&["assign", "--device", "strap", "p-anna", "--from", &begin, "--yes", &yes]);
    let chart = rig.wait_for_records(CHART, SOON, |chart| everything_stands_with(chart, count, "p-anna"));
    assert_eq!(chart.len(), 5 * count, "put, retract, put, retract, put of each, and nothing twice");
    let retracts = chart.iter().filter(|message| message.payload["op"] == "retract");
    assert!(retracts.clone().all(|message| message.payload.get("value").is_none()));
    assert_eq!(retracts.count(), 2 * count);
    rig.ask(&["unassign", "--device", "strap", "--at", &begin, "--yes", &yes]);
    rig.wait_for_records(CHART, SOON, |chart| standing(chart).values().all(BTreeSet::is_empty));
    wait_until_held(&rig, json!({ "no_assignment": count }));
    rig.stop();
}

#[test]
fn a_route_that_asks_leaves_a_chart_as_it_is_until_a_person_decides() {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[strap()], "", "");
    let keys = format!("{CHART_KEYS}\nretract = \"ask\"");
    rig.configure(&rig.route("chart", &keys), PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--device", "strap", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let begin = time(Duration::ZERO);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let count = measure(&mut rig, "strap", 4);
    rig.wait_for_records(CHART, SOON, |chart| everything_stands_with(chart, count, "p-anna"));
    std::thread::sleep(NEARLY_NOW);
    rig.ask(&["assign", "--device", "strap", "p-bert", "--from", &begin, "--yes", &count.to_string()]);
    wait_until_held(&rig, json!({ "awaiting_decision": count }));
    let entries = rig.ask_json(&["decide", "list"]);
    let entries = entries.as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["stands_with"] == "p-anna"), "{entries:?}");
    assert_eq!(entries.iter().map(|entry| entry["records"].as_u64().unwrap()).sum::<u64>(), count as u64);
    assert!(everything_stands_with(&rig.records_under(CHART), count, "p-anna"));
    let said = rig.refused(&["decide", "accept", "chart", "999999"], 1);
    assert!(said.contains("`bedrail decide list`"), "{said}");
    for entry in entries {
        rig.ask(&["decide", "accept", "chart", &entry["first"].to_string()]);
    }
    rig.wait_for_records(CHART, SOON, |chart| everything_stands_with(chart, count, "p-bert"));
    assert_eq!(rig.ask_json(&["decide", "list"]), json!([]));
    rig.stop();
}

#[test]
fn a_person_says_whose_held_values_are_or_that_they_are_nobodys() {
    let mut rig = rig(&[cuff()], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let count = measure(&mut rig, "cuff", 1);
    wait_until_held(&rig, json!({ "no_assignment": count }));
    // A hold is listed once it is on the card.
    assert!(wait_until(SOON, || rig.ask_json(&["held", "list"]).as_array().is_some_and(|runs| !runs.is_empty())));
    let held = rig.ask_json(&["held", "list"]);
    let runs = held.as_array().unwrap();
    assert!(runs[0]["why"].as_str().unwrap().starts_with("cuff is assigned to nobody"), "{held}");
    let first = |run: &Value| run["first"].to_string();
    let said = rig.refused(&["held", "assign", "chart", &first(&runs[0]), "p-berta"], 1);
    assert!(said.contains("nobody is known as"), "{said}");
    let said = rig.refused(&["held", "discard", "chart", "999999"], 1);
    assert!(said.contains("`bedrail held list`"), "{said}");
    rig.ask(&["held", "assign", "chart", &first(&runs[0]), "p-bert"]);
    let charted = runs[0]["records"].as_u64().unwrap() as usize;
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() == charted);
    assert_eq!(subjects(&chart), only("p-bert"));
    for run in &runs[1..] {
        rig.ask(&["held", "discard", "chart", &first(run)]);
    }
    rig.wait_for_route("chart", SOON, |route| route.get("held").is_none() && route["tally"]["discarded"].is_u64());
    assert_eq!(rig.route_status("chart")["tally"]["discarded"].as_u64().unwrap_or(0), (count - charted) as u64);
    assert_eq!(rig.records_under(CHART).len(), charted);
    let actions: BTreeSet<String> = rig.audit_trail().into_iter().map(|(action, _)| action).collect();
    assert!(actions.contains("held assign"), "{actions:?}");
    rig.stop();
}

#[test]
fn a_change_of_the_past_can_be_confirmed_while_the_device_goes_on_measuring() {
    let mut rig = rig(&[strap()], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let begin = time(Duration::ZERO);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let before = measure(&mut rig, "strap", 4);
    wait_until_held(&rig, json!({ "no_assignment": before }));
    std::thread::sleep(NEARLY_NOW);
    let said = rig.refused(&["assign", "--device", "strap", "p-anna", "--from", &begin], 1);
    assert!(said.contains(&format!("--yes {before}")), "{said}");
    let since = measure(&mut rig, "strap", 3);
    wait_until_held(&rig, json!({ "no_assignment": before + since }));
    rig.ask(&["assign", "--device", "strap", "p-anna", "--from", &begin, "--yes", &before.to_string()]);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() == before + since);
    assert_eq!(subjects(&chart), only("p-anna"));
    rig.stop();
}

#[test]
fn what_the_config_says_holds_from_its_first_start_until_its_line_is_gone() {
    let beds = "[[bed]]\nid = \"7\"\n";
    let mut rig = rig(&[strap(), cuff()], &format!("{PATIENTS}{beds}"));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let nobodys = measure(&mut rig, "strap", 3);
    wait_until_held(&rig, json!({ "no_assignment": nobodys }));
    rig.stop();

    rig.workers[0].device.config = "patient = \"p-anna\"".to_owned();
    rig.workers[1].device.config = "bed = \"7\"".to_owned();
    rig.configure(&both_routes(&rig), &format!("{PATIENTS}{beds}"));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let who = |rig: &Rig| rig.ask_json(&["ward"]);
    let said = wait_until(SOON, || who(&rig)["devices"][0]["patient"] == "p-anna" && who(&rig)["places"][0]["bed"] == "7");
    assert!(said, "{}", who(&rig));
    let since = who(&rig)["devices"][0]["from"].clone();
    rig.ask(&["assign", "--bed", "7", "p-bert"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let annas = measure(&mut rig, "strap", 3);
    let berts = measure(&mut rig, "cuff", 1);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= annas + berts);
    let raw: Vec<&str> = chart.iter().map(|message| message.raw.as_str()).collect();
    assert_eq!(chart.len(), annas + berts, "what was measured before the line was first applied stays: {raw:#?}");
    let of = |metric: &str| chart.iter().filter(|m| m.payload["metric"] == metric).map(|m| m.payload["subject"].clone()).next();
    assert_eq!((of("heart_rate"), of("blood_pressure")), (Some("p-anna".into()), Some("p-bert".into())), "{}", who(&rig));
    assert_eq!(held(&rig, "before_assignment"), nobodys as u64);

    rig.restart();
    rig.wait_until_heard(SOON);
    assert!(wait_until(SOON, || who(&rig)["devices"][0]["from"] == since), "a restart began it anew: {}", who(&rig));
    assert_eq!(who(&rig)["beds"][0]["patient"], "p-bert");
    rig.stop();

    rig.workers[0].device.config.clear();
    rig.configure(&both_routes(&rig), &format!("{PATIENTS}{beds}"));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    assert!(wait_until(SOON, || who(&rig)["devices"] == json!([])), "{}", who(&rig));
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let after = measure(&mut rig, "strap", 3);
    wait_until_held(&rig, json!({ "before_assignment": nobodys, "no_assignment": after }));
    let report = compare(&rig.made(), &rig.records_under(CHART));
    assert_eq!(report.arrived, annas + berts, "{}", report.line(None));
    rig.stop();
}

#[test]
fn the_user_slots_of_a_shared_cuff_are_different_people() {
    let mut rig = rig(&[cuff()], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--device", "cuff", "--user", "1", "p-anna"]);
    let listed = rig.ask_json(&["ward"]);
    assert_eq!((&listed["devices"][0]["user"], &listed["devices"][0]["patient"]), (&json!(1), &json!("p-anna")));
    std::thread::sleep(CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK);
    let annas = measure(&mut rig, "cuff", 1);
    // The same device, another finger on its user switch: octet 16 is the user index.
    let seconds = support::devices::seconds(SystemTime::now());
    let mut of_user_2 = rig.workers[0].device.value(77, seconds).octets;
    assert_eq!(std::mem::replace(&mut of_user_2[16], 2), 1);
    assert!(rig.bluez.notify(&rig.workers[0].device.address, BLOOD_PRESSURE, &of_user_2));
    wait_until_held(&rig, json!({ "unknown_user": annas }));
    let chart = rig.records_under(CHART);
    assert_eq!((chart.len(), subjects(&chart)), (annas, only("p-anna")));
    assert!(chart.iter().all(|message| message.payload["user"] == 1));
    rig.stop();
}

#[test]
fn who_is_forgotten_gets_nothing_more_and_what_was_not_sent_waits_for_somebody_who_knows() {
    let mut rig = rig(&[strap()], PATIENTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--device", "strap", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let sent = measure(&mut rig, "strap", 3);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == sent);
    rig.ask(&["route", "pause", "chart", "--reason", "moving house"]);
    let unsent = measure(&mut rig, "strap", 4);
    rig.wait_for_route("chart", SOON, |route| route["live"] == unsent);

    let yes = unsent.to_string();
    let said = rig.refused(&["patient", "forget", "p-anna"], 1);
    assert!(said.contains(&format!("--yes {yes}")) && said.contains("patient_unknown"), "{said}");
    rig.refused(&["patient", "forget", "p-anna", "--yes", &(unsent + 1).to_string()], 1);
    let since = measure(&mut rig, "strap", 1);
    rig.wait_for_route("chart", SOON, |route| route["live"] == unsent + since);
    rig.ask(&["patient", "forget", "p-anna", "--yes", &yes]);
    rig.ask(&["route", "resume", "chart"]);
    wait_until_held(&rig, json!({ "patient_unknown": unsent + since }));
    assert_eq!(rig.records_under(CHART).len(), sent, "what was sent is neither taken back nor followed by more");
    let live = rig.records_under(LIVE).len();
    let last = measure(&mut rig, "strap", 1);
    let live_since = rig.wait_for_records(LIVE, SOON, |records| records.len() > live).split_off(live);
    assert_eq!(subjects(&live_since), BTreeSet::from([None]), "the key is named no more");
    let said = rig.refused(&["assign", "--device", "strap", "p-anna"], 1);
    assert!(said.contains("was forgotten"), "{said}");

    rig.restart();
    rig.wait_until_heard(SOON);
    wait_until_held(&rig, json!({ "patient_unknown": unsent + since + last }));
    let known = rig.bedrail_with_input(&["patient", "set", "p-anna", "--identifiers-file", "-"], b"{}");
    assert_eq!(known.status, Some(0), "{known:?}");
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() == sent + unsent + since + last);
    assert_eq!(subjects(&chart), only("p-anna"));
    assert!(rig.audit_trail().contains(&("patient forget".to_owned(), "p-anna".to_owned())));
    rig.stop();
}

#[test]
fn what_nobody_knows_is_refused_by_name() {
    let mut rig = rig(&[strap()], &format!("{PATIENTS}[[bed]]\nid = \"7\"\n"));
    rig.start(Shape::OneProcess);
    for (arguments, remedy) in [
        (&["assign", "--device", "strop", "p-anna"][..], "no device is called \"strop\"; `bedrail status` lists them"),
        (&["assign", "--device", "strap", "p-berta"], "nobody is known as \"p-berta\"; `bedrail patient list`"),
        (&["assign", "--bed", "8", "p-anna"], "no bed is called \"8\"; beds are named in the config as [[bed]]"),
        (&["unassign", "--device", "strop"], "no device is called \"strop\""),
        (&["unassign", "--bed", "8"], "no bed is called \"8\""),
        (&["patient", "forget", "p-nobody"], "nobody is known as \"p-nobody\""),
        (&["route", "pause", "chert"], "no route is called \"chert\"; `bedrail route list` lists them"),
        (&["route", "resume", "chert"], "no route is called \"chert\""),
        (&["route", "drop", "chert"], "no route is called \"chert\""),
    ] {
        let said = rig.refused(arguments, 1);
        assert!(said.contains(remedy) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    let (from, to) = (time(Duration::from_secs(60)), time(Duration::ZERO));
    let said = rig.refused(&["route", "replay", "chert", "--from", &from, "--to", &to], 1);
    assert!(said.contains("no route is called \"chert\""), "{said}");
    assert_eq!(rig.ask_json(&["ward"])["devices"], json!([]));
    rig.stop();
}
