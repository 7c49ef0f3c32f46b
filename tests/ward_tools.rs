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

/// How many readings that makes.
fn measure(rig: &mut Rig, device: &str, times: usize) -> usize {
    let before = rig.made().len();
    for _ in 0..times {
        rig.measure(|it| it.name == device);
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.made().len() - before
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

/// The newest of what arrived in charts with this patient.
fn charted(rig: &Rig, patient: &str) -> Vec<support::subscriber::Message> {
    let chart = rig.records_under(CHART);
    chart.into_iter().filter(|message| message.payload["subject"] == patient && message.payload["op"] == "put").collect()
}

#[test]
fn anyone_can_ask_why_a_value_is_in_a_chart_and_where_it_has_been() {
    let mut rig = running(&[strap("bed = \"301-B\"")]);
    assert!(wait_until(SOON, || rig.ask_json(&["ward"])["measures"][0]["bed"] == "301-B"));
    rig.ask(&["assign", "--bed", "301-B", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let begin = time(Duration::ZERO);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let count = measure(&mut rig, "strap", 3);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == count);
    let sent = charted(&rig, "p-anna").remove(0).payload;
    let id = sent["record"].as_str().unwrap().to_owned();
    // What is settled is known on the route at once; its id is found in the log, without an index.
    let why = rig.ask_json(&["why", &id]);
    let route = &why["routes"][0];
    assert_eq!((&why["record"], &route["state"]), (&json!(id), &json!("settled")), "{why:#}");
    let stands = &route["stands"];
    assert_eq!((&stands["patient"], &stands["rule"]), (&json!("p-anna"), &json!("bed")));
    assert_eq!((&stands["placement"], &stands["chart"]), (&sent["placement"], &sent["chart"]));
    let says: Vec<&str> = stands["events"].as_array().unwrap().iter().map(|event| event["says"].as_str().unwrap()).collect();
    assert_eq!(says, ["strap stands at bed 301-B", "p-anna is in bed 301-B, and nobody else"]);
    let delivery = |payload: &Value| {
        let text = |field: &str| payload[field].as_str().unwrap().to_owned();
        format!("{}.{}.{}.{}", text("record"), text("placement"), payload["version"], text("op"))
    };
    let trace = rig.ask_json(&["trace", &id, "--route", "chart"]);
    let ids = |trace: &Value| -> Vec<String> {
        let deliveries = trace["routes"][0]["deliveries"].as_array().unwrap();
        deliveries.iter().map(|of| of["delivery"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&trace), [delivery(&sent)], "the id by which the receiver knows it");

    // Told late that it was another's: it stands there now, and has been here.
    std::thread::sleep(NEARLY_NOW);
    rig.ask(&["assign", "--bed", "301-B", "p-bert", "--from", &begin, "--yes", &count.to_string()]);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == 3 * count);
    let of_record: Vec<Value> =
        rig.records_under(CHART).into_iter().map(|message| message.payload).filter(|p| p["record"] == *id).collect();
    assert!(wait_until(SOON, || rig.ask_json(&["trace", &id])["routes"][0]["stands"]["patient"] == "p-bert"));
    let trace = rig.ask_json(&["trace", &id]);
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(sorted(ids(&trace)), sorted(of_record.iter().map(delivery).collect()), "put, retract, put: {trace:#}");
    let retractions = trace["retractions"].as_array().unwrap();
    assert_eq!(retractions.len(), 1, "{trace:#}");
    assert_eq!((&retractions[0]["placement"], &trace["all_found"]), (&sent["placement"], &json!(true)));
    let number = trace["seq"].to_string();
    assert_eq!(rig.ask_json(&["why", &number])["record"], json!(id), "a number in the log names it as well");
    let shown = rig.ask(&["why", &number]);
    assert!(shown.contains("it stands with p-bert, by the rule bed") && shown.contains("p-bert is in bed 301-B"), "{shown}");
    let shown = rig.ask(&["trace", &number]);
    assert!(
        shown.contains("retract")
            && shown.contains("TAKEN BACK ON")
            && shown.contains(of_record[2]["placement"].as_str().unwrap()),
        "{shown}"
    );

    let said = rig.refused(&["why", "999999"], 1);
    assert!(said.contains("record 999999 is not in the log"), "{said}");
    let said = rig.refused(&["trace", &"0".repeat(32)], 1);
    assert!(said.contains("no record of the log has the id"), "{said}");
    let said = rig.refused(&["trace", &number, "--route", "chert"], 1);
    assert!(said.contains("no route is called \"chert\""), "{said}");
    assert!(rig.refused(&["why", "strap"], 2).contains("32 hexadecimal digits"));
    rig.stop();
}

#[test]
fn a_held_run_says_in_ward_words_why_it_waits_and_what_would_let_it_go() {
    let mut rig = running(&[strap("bed = \"301-B\"")]);
    assert!(wait_until(SOON, || rig.ask_json(&["ward"])["measures"][0]["bed"] == "301-B"));
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    measure(&mut rig, "strap", 3);
    let listed = || rig.ask_json(&["held", "list"]).as_array().unwrap().first().cloned().unwrap_or_default();
    assert!(wait_until(SOON, || listed()["records"] == 3), "{}", listed());
    let first = listed()["first"].to_string();
    let run = rig.ask_json(&["held", "show", "chart", &first]);
    assert_eq!((&run["reason"], &run["why"]), (&json!("no_assignment"), &json!("nobody is in bed 301-B")));
    assert_eq!((&run["records"], &run["asks_whose"]), (&json!(3), &json!(true)));
    assert!(run["since"].as_str().unwrap() < run["until"].as_str().unwrap(), "{run}");
    let shown = rig.ask(&["held", "show", "chart", &first]);
    assert!(shown.contains("nobody is in bed 301-B") && shown.contains("`bedrail assign` with --from"), "{shown}");
    let why = rig.ask_json(&["why", &first]);
    let route = &why["routes"][0];
    assert_eq!((&route["state"], &route["why"]), (&json!("held"), &json!("nobody is in bed 301-B")));
    assert_eq!((&route["deliveries"], &route["stands"]), (&json!([]), &Value::Null), "it was never anywhere");
    let said = rig.refused(&["held", "show", "chart", "999999"], 1);
    assert!(said.contains("`bedrail held list`"), "{said}");
    rig.stop();
}

/// A name, a number and a birth date as a hospital writes them.
const CANARY: &str = "Quastenflosser-47110815-19471103";

#[test]
fn a_census_is_shown_before_it_is_taken_over_and_a_second_time_it_changes_nothing() {
    let mut rig = running(&[strap("bed = \"301-B\"")]);
    assert!(wait_until(SOON, || rig.ask_json(&["ward"])["measures"][0]["bed"] == "301-B"));
    rig.ask(&["assign", "--bed", "301-A", "p-bert"]);
    let since = time(Duration::ZERO);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let count = measure(&mut rig, "strap", 3);
    assert!(wait_until(SOON, || rig.route_status("chart")["held"]["no_assignment"] == json!(count)));
    std::thread::sleep(CLEAR_OF_THE_EDGE);

    let file = rig.site.path("census.csv");
    let list = format!("bed,patient,visit,since,identifiers.name\n301-B,,{CANARY},{since},{CANARY}\n301-A,,,,\n");
    std::fs::write(&file, &list).unwrap();
    let file = file.display().to_string();
    let ran = rig.bedrail(&["ward", "import", &file]);
    let mut printed = vec![ran.stdout.clone(), ran.stderr.clone()];
    assert!(ran.status == Some(1) && ran.stderr.contains("nothing was changed; repeat it with --yes"), "{ran:?}");
    assert!(
        ran.stdout.contains(&format!("identifiers of 1 patients are new; {count} readings of the past change hands")),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("(new)") && ran.stdout.contains("p-bert"), "{ran:?}");
    assert_eq!(rig.ask_json(&["ward"])["beds"][0]["patient"], "p-bert", "what was only shown changed something");
    // More is measured while somebody reads; what was shown is what is confirmed.
    let more = measure(&mut rig, "strap", 1);
    let said = rig.refused(&["ward", "import", &file, "--yes"], 1);
    assert!(said.contains(&format!("--yes {count}")), "{said}");
    let done = rig.bedrail(&["ward", "import", &file, "--yes", &count.to_string(), "--json"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    printed.extend([said, done.stdout.clone(), done.stderr]);
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&done["done"], done["changes"].as_array().unwrap().len()), (&json!(true), 2), "{done:#}");

    let ward = rig.ask_json(&["ward"]);
    let of = |bed: &str| ward["beds"].as_array().unwrap().iter().find(|entry| entry["bed"] == bed).unwrap().clone();
    let patient = of("301-B")["patient"].as_str().unwrap().to_owned();
    assert!(patient.starts_with("v-") && patient.len() == 26, "{patient}");
    assert_eq!((&of("301-B")["source"], &of("301-A")["patient"]), (&json!("import"), &Value::Null));
    assert_eq!(of("301-B")["from"].as_str().unwrap()[..23], since[..23]);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() == count + more);
    assert!(chart.iter().all(|message| message.payload["subject"] == *patient));
    let identified = |rig: &Rig| {
        let patients = rig.ask_json(&["patient", "list"]);
        patients.as_array().unwrap().iter().find(|row| row["key"] == *patient).unwrap()["identified"].clone()
    };
    assert_eq!(identified(&rig), json!(true));

    let events =
        |rig: &Rig| rig.ask_json(&["ward"])["beds"].as_array().unwrap().iter().filter_map(|bed| bed["event"].as_u64()).max();
    let before = events(&rig);
    let again = rig.ask(&["ward", "import", &file, "--yes"]);
    assert!(again.contains("the ward agrees with the list: 2 beds"), "{again}");
    assert_eq!((events(&rig), rig.records_under(CHART).len()), (before, count + more));
    let trail = rig.store().verify_audit().unwrap().unwrap();
    let imports: Vec<&str> = trail.iter().filter(|row| row.action == "ward import").map(|row| row.detail.as_str()).collect();
    assert_eq!(imports, ["2 events, identifiers of 1 patients"], "what changed nothing leaves no trace in the trail");
    printed.push(again);

    for (list, where_) in [
        (format!("bed,patient\n301-A,p-anna\n{CANARY},p-bert\n"), "line 3, column bed"),
        (format!("bed,patient\n301-A,{CANARY}\n"), "line 2, column patient"),
        (format!("{CANARY},301-A\n"), "column 1 of the first line"),
        (format!("bed,patient\n301-A,p-anna,{CANARY}\n"), "line 2: it has another number of cells"),
        (format!("bed,patient,since\n301-A,p-anna,{CANARY}\n"), "line 2, column since"),
        (format!("bed,patient\n{}", "301-A,p-anna\n".repeat(100_000)), "octets; one of at most 1048576 is read"),
    ] {
        let ran = rig.bedrail_with_input(&["ward", "import", "-", "--yes"], list.as_bytes());
        assert!(ran.status == Some(1) && ran.stderr.contains(where_), "{where_}: {ran:?}");
        printed.extend([ran.stdout, ran.stderr]);
    }
    rig.stop();
    printed.push(rig.logs());
    assert!(printed.iter().all(|text| !text.contains(CANARY)), "a cell of the list was repeated: {printed:?}");
    assert!(rig.subscriber.messages().iter().all(|message| !message.raw.contains(CANARY)));
}

#[test]
fn what_is_measured_within_the_guard_of_a_command_waits_for_a_person() {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[strap("")], "", WARD);
    rig.configure(&rig.route("chart", CHART_KEYS), &format!("{WARD}[ward]\nguard.command = \"1 h\"\n"));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.ask(&["assign", "--device", "strap", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let count = measure(&mut rig, "strap", 2);
    assert!(wait_until(SOON, || rig.route_status("chart")["held"] == json!({ "edge": count })), "{}", rig.route_status("chart"));
    // A hold is listed once it is on the card.
    assert!(wait_until(SOON, || rig.ask_json(&["held", "list"]) != json!([])));
    let first = rig.ask_json(&["held", "list"])[0]["first"].to_string();
    let why = rig.ask_json(&["held", "show", "chart", &first])["why"].as_str().unwrap().to_owned();
    assert!(why.contains("it goes from nobody to p-anna"), "{why}");
    assert_eq!(rig.records_under(CHART).len(), 0);
    rig.stop();
}

#[test]
fn what_rests_on_a_census_waits_when_none_comes_any_more_and_goes_with_the_next() {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[strap("bed = \"301-B\"")], "", WARD);
    rig.configure(&rig.route("chart", CHART_KEYS), &format!("{WARD}[ward]\nstale_after = \"10 s\"\n"));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    assert!(wait_until(SOON, || rig.ask_json(&["ward"])["measures"][0]["bed"] == "301-B"));
    let import = |rig: &Rig, list: &str| {
        let ran = rig.bedrail_with_input(&["ward", "import", "-", "--yes"], list.as_bytes());
        assert_eq!(ran.status, Some(0), "{ran:?}");
    };
    let all = "bed,patient\n301-A,\n301-B,p-anna\n";
    import(&rig, all);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let fresh = measure(&mut rig, "strap", 1);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == fresh);
    std::thread::sleep(Duration::from_secs(10));
    let stale = measure(&mut rig, "strap", 1);
    let held = |rig: &Rig| rig.route_status("chart")["held"].clone();
    assert!(wait_until(SOON, || held(&rig) == json!({ "stale_feed": stale })), "{}", held(&rig));
    assert_eq!(rig.ask_json(&["ward"])["measures"][0]["held"], "stale_feed");
    import(&rig, "bed,patient\n301-B,p-anna\n");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(held(&rig), json!({ "stale_feed": stale }), "a list of a few beds is no news of the ward");
    import(&rig, all);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == fresh + stale);
    rig.stop();
}
