//! A store that is damaged under the real gateway, while it runs and while it is stopped: it mends itself, says what is gone and
//! goes on; and what a person types about it does what it says.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::daemon::{KEYS, Site, run};
use support::devices::{Kind, VirtualDevice};
use support::ledger::gaps;
use support::process::wait_until;
use support::rig::{Rig, Shape};

const BINARY: &str = env!("CARGO_BIN_EXE_bedrail");
const LIMIT: Duration = Duration::from_secs(60);
const PAGE: u64 = 1_024;
const STORE: i32 = 75;
/// A frame a value, so that the log has pages to damage.
const FRAME_A_VALUE: &str = "[store]\ncommit_records = 1\n";
/// Mends in an hour, after which a card is left to a person.
const MENDS: usize = 3;

#[test]
fn a_page_that_goes_bad_while_it_runs_is_mended_told_and_counted() {
    let mut rig = gateway();
    a_log(&mut rig, Shape::OneProcess);
    let before = rig.head();
    let pid = rig.daemons[0].pid();
    damage(&rig, "bedrail.db");
    rig.proxy.pass();
    rig.daemons[0].wait_for_line("preparing the store again and starting over", LIMIT);
    let mended = wait_until(LIMIT, || status(&rig)["store"]["state"] == "damaged");
    assert!(mended, "{}\n{}", status(&rig), rig.logs());
    assert!(rig.daemons[0].ended().is_none() && rig.daemons[0].pid() == pid);

    let stats = rig.ask_json(&["store", "stats"]);
    let missing = stats["damage"][0]["missing"].as_u64().unwrap();
    assert!(missing > 0 && missing < 100, "one page is gone, and only that: {stats}");
    let told = rig.ask(&["status"]);
    let line = told.lines().find(|line| line.starts_with("store damaged: bedrail.db was damaged")).unwrap_or(&told);
    assert!(line.contains(&format!(", {missing} missing")) && line.contains("bedrail store acknowledge"), "{line}");
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 20);
    all_but_gaps_arrived(&rig, missing);
    assert!(rig.head() > before + missing);
    rig.ask(&["store", "acknowledge"]);
    assert!(wait_until(LIMIT, || status(&rig)["store"]["state"] == "ok"), "{}", status(&rig));
    assert!(rig.audit_trail().contains(&("store acknowledge".to_owned(), "store".to_owned())));
    assert!(rig.ask(&["store", "check"]).ends_with("the store is sound\n"), "beside the running gateway");
    rig.stop();
}

#[test]
fn what_a_person_types_about_a_damaged_store_says_what_is_wrong_and_mends_it() {
    let mut rig = gateway();
    a_log(&mut rig, Shape::OneProcess);
    rig.stop();
    let sound = rig.ask(&["store", "check"]);
    assert_eq!(sound, "the store is sound\n");
    let page = damage(&rig, "bedrail.db");
    let damaged = std::fs::read(rig.site.path("state/bedrail.db")).unwrap();
    let checked = rig.bedrail(&["store", "check"]);
    assert!(checked.status == Some(STORE), "{checked:?}");
    assert!(checked.stdout.contains(&format!("bedrail.db: damage: page {page} does not bear its code")), "{checked:?}");
    assert!(checked.stdout.contains("`bedrail store salvage` mends it"), "{checked:?}");
    let as_json = rig.bedrail(&["store", "check", "--json"]);
    let findings: Value = serde_json::from_str(&as_json.stdout).unwrap();
    assert!(
        as_json.status == Some(STORE) && findings["ok"] == false && findings["findings"][0]["kind"] == "damage",
        "{findings}"
    );

    let salvaged = rig.ask(&["store", "salvage"]);
    assert!(salvaged.contains("bedrail.db was damaged") && salvaged.contains("missing: "), "{salvaged}");
    assert!(salvaged.ends_with("bedrail.db ready, ward.db ready\n"), "{salvaged}");
    assert!(std::fs::read(rig.site.path("state/bedrail.db.damaged-1")).unwrap() == damaged, "it is set aside as it was");
    let stats = rig.ask(&["store", "stats"]);
    assert!(stats.contains("bedrail.db was damaged"), "{stats}");
    let checked = rig.ask(&["store", "check"]);
    assert!(checked.contains("bedrail.db: note: ") && checked.ends_with("the store is sound\n"), "{checked}");
    let missing = rig.ask_json(&["store", "stats"])["damage"][0]["missing"].as_u64().unwrap();
    let again = rig.ask(&["store", "salvage"]);
    assert_eq!(again, "bedrail.db ready, ward.db ready\n", "once is enough");

    rig.proxy.pass();
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 10);
    all_but_gaps_arrived(&rig, missing);
    let told = rig.ask(&["store", "acknowledge"]);
    assert_eq!(told, "acknowledged; the damaged files stay where they are: bedrail.db.damaged-1\n");
    assert_eq!(rig.ask(&["store", "acknowledge"]), "nothing to acknowledge\n");
    rig.stop();
}

#[test]
fn a_card_that_goes_on_damaging_the_store_is_left_to_a_person() {
    let mut rig = gateway();
    a_log(&mut rig, Shape::OneProcess);
    rig.proxy.pass();
    rig.settle(LIMIT);
    let from = jiff::Timestamp::try_from(SystemTime::now() - Duration::from_secs(3_600)).unwrap().to_string();
    let to = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(3_600)).unwrap().to_string();
    for round in 0..=MENDS {
        assert!(rig.daemons[0].ended().is_none(), "after {round} mends:\n{}", rig.logs());
        damage(&rig, "bedrail.db");
        // What another connection has written makes each look at the file itself again, and not at what it remembers.
        let head = rig.head();
        rounds(&mut rig, 2);
        assert!(wait_until(LIMIT, || rig.head() > head), "{}", rig.logs());
        let seen = wait_until(LIMIT, || {
            // It may meet the damage before it answers, or not be back yet from the last time.
            let _ = rig.bedrail(&["route", "replay", "live", "--from", &from, "--to", &to]);
            std::thread::sleep(Duration::from_millis(100));
            let log = rig.daemons[0].log();
            let mended = log.matches("starting over").count() > round && log.matches(" started ").count() > round + 2;
            rig.daemons[0].ended().is_some() || mended
        });
        assert!(seen, "round {round}:\n{}", rig.logs());
    }
    let status = rig.daemons[0].wait(LIMIT);
    assert_eq!(status.code(), Some(STORE), "{}", rig.logs());
    assert_eq!(rig.daemons[0].log().matches("starting over").count(), MENDS);
    // A person puts in a new card, or is content with what can be read.
    rig.daemons[0].restart();
    rig.daemons[0].wait_for_line(" started ", LIMIT);
    assert_eq!(rig.ask_json(&["store", "stats"])["damage"].as_array().unwrap().len(), MENDS + 1);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 10);
    std::thread::sleep(Duration::from_secs(1));
    assert!(rig.settle_but_gaps(LIMIT).not_made.is_empty());
    rig.stop();
}

#[test]
fn two_processes_that_meet_damage_end_with_75_and_prepare_mends_it() {
    let mut rig = gateway();
    a_log(&mut rig, Shape::TwoProcesses);
    damage(&rig, "bedrail.db");
    rig.proxy.pass();
    // Deliver reads it to send it, collect when it makes its windows anew after a restart.
    let deliver = rig.daemons[1].wait(LIMIT);
    assert_eq!(deliver.code(), Some(STORE), "{}", rig.logs());
    assert!(rig.site.path("state/bedrail.db.suspect").exists());
    let busy = rig.refused(&["store", "prepare"], 1);
    assert!(busy.contains("another bedrail holds the store"), "{busy}");
    rig.daemons[0].restart();
    let collect = rig.daemons[0].wait(LIMIT);
    assert_eq!(collect.code(), Some(STORE), "{}", rig.logs());
    for daemon in &rig.daemons {
        assert!(!daemon.log().contains("starting over"), "a half mends nothing: {}", daemon.log());
    }

    let prepared = rig.ask(&["store", "prepare"]);
    assert!(prepared.contains("bedrail.db was damaged"), "{prepared}");
    assert!(!rig.site.path("state/bedrail.db.suspect").exists());
    let missing = rig.ask_json(&["store", "stats"])["damage"][0]["missing"].as_u64().unwrap();
    rig.daemons.clear();
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 10);
    all_but_gaps_arrived(&rig, missing);
    assert_eq!(status(&rig)["store"]["state"], "damaged");
    rig.stop();
}

#[test]
fn a_damaged_ward_pauses_what_goes_to_patients_until_a_person_resumes_it() {
    let an_hour_ago = jiff::Timestamp::try_from(SystemTime::now() - Duration::from_secs(3_600)).unwrap();
    let strap = VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap")
        .with_config(&format!("patient = \"p-anna\"\nfrom = {an_hour_ago:.0}"));
    let patients = "[[patient]]\nkey = \"p-anna\"\n";
    let mut rig = Rig::new(BINARY, &[strap], "", patients);
    let chart = rig.route("chart", "bind = \"patient\"\ntopic = \"bedrail/chart/{device}/{metric}\"");
    rig.configure(&(rig.route("live", "") + &chart), patients);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 5);
    let charted = |rig: &Rig| rig.records_under("bedrail/chart/").len();
    let live = |rig: &Rig| rig.records_under("bedrail/gw-test/").len();
    assert!(wait_until(LIMIT, || charted(&rig) >= 5), "{}", rig.logs());
    rig.stop();
    let before = charted(&rig);

    let ward = rig.site.path("state/ward.db");
    let pages = std::fs::metadata(&ward).unwrap().len() / PAGE;
    (2..=pages).for_each(|page| flip(&ward, page));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    let lost = "assignments were lost when ward.db was damaged; check `bedrail ward`, then resume";
    rig.wait_for_route("chart", LIMIT, |route| route["state"] == "paused" && route["detail"] == lost);
    let told = rig.ask(&["status"]);
    assert!(told.contains("store damaged: ward.db was damaged") && told.contains(lost), "{told}");
    let live_before = live(&rig);
    rounds(&mut rig, 5);
    assert!(wait_until(LIMIT, || live(&rig) >= live_before + 5), "what goes to no patient goes on: {}", rig.logs());
    rig.wait_for_route("chart", LIMIT, |route| route["live"].as_u64().unwrap_or(0) + route["backlog"].as_u64().unwrap_or(0) >= 5);
    assert_eq!(charted(&rig), before, "something went to a patient");
    // A restart is not a person.
    rig.restart();
    rig.wait_for_route("chart", LIMIT, |route| route["state"] == "paused" && route["detail"] == lost);
    assert!(rig.audit_trail().contains(&("route pause".to_owned(), "chart".to_owned())));

    let assignments = rig.ask(&["ward"]);
    assert!(assignments.contains("p-anna"), "the config says it again: {assignments}");
    rig.ask(&["route", "resume", "chart"]);
    assert!(wait_until(LIMIT, || charted(&rig) >= before + 5), "{}", rig.logs());
    let subjects: BTreeSet<String> =
        rig.records_under("bedrail/chart/").iter().map(|message| message.payload["subject"].to_string()).collect();
    assert_eq!(subjects, ["\"p-anna\"".to_owned()].into());
    rig.stop();
}

/// A credential and an envelope that fit each other, beside the databases of another gateway.
#[test]
fn a_key_of_another_gateway_is_named_and_changes_nothing() {
    let mut rig = gateway();
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 5);
    rig.stop();
    let head = rig.head();
    let other = Site::new();
    other.config("gw-other", &[], "");
    let made = run(Path::new(BINARY), &["key", "init", "--config", &other.config_file().display().to_string()], &[], LIMIT);
    assert_eq!(made.status, Some(0), "{made:?}");
    let state = rig.site.path("state");
    for (database, credential) in [("bedrail.db", KEYS[1]), ("ward.db", KEYS[2])] {
        let [own_envelope, own_key] = [state.join(format!("{database}.key")), rig.site.path("credentials").join(credential)]
            .map(|path| std::fs::read(path).unwrap());
        replace(&state.join(format!("{database}.key")), &std::fs::read(other.path(format!("state/{database}.key"))).unwrap());
        rig.site.credential(credential, &std::fs::read(other.path(format!("credentials/{credential}"))).unwrap());
        let before = octets(&state);
        for arguments in [&["run"][..], &["store", "prepare"], &["store", "salvage"]] {
            let ran = rig.bedrail(arguments);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(
                ran.status == Some(STORE) && said.contains(&format!("{database}: no page of it bears this key")),
                "{arguments:?}: {ran:?}"
            );
            assert!(said.contains("nothing was changed"), "{said}");
        }
        assert!(octets(&state) == before, "a file was changed");
        replace(&state.join(format!("{database}.key")), &own_envelope);
        rig.site.credential(credential, &own_key);
    }
    assert_eq!(rig.head(), head);
    rig.start(Shape::OneProcess);
    rig.stop();
}

fn gateway() -> Rig {
    let devices = [
        VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap"),
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
    ];
    let carry = "carry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]\nstart = \"oldest\"";
    Rig::new(BINARY, &devices, carry, FRAME_A_VALUE)
}

fn rounds(rig: &mut Rig, rounds: u64) {
    for _ in 0..rounds {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A gateway at work whose log is in the database file and not sent yet: some dozen pages of frames.
fn a_log(rig: &mut Rig, shape: Shape) {
    rig.proxy.refuse(true);
    rig.start(shape);
    rig.wait_until_heard(LIMIT);
    rounds(rig, 250);
    let made = rig.made().len() as u64;
    assert!(wait_until(LIMIT, || rig.head() >= made), "{} of {made}", rig.head());
    // Closing writes the write-ahead log back.
    rig.restart();
    rig.wait_until_heard(LIMIT);
    // The windows of the last minutes have been made anew from the log.
    std::thread::sleep(Duration::from_millis(1_500));
}

/// Flips a bit of one of the last pages, where the frames are; its number.
fn damage(rig: &Rig, file: &str) -> u64 {
    let path = rig.site.path("state").join(file);
    let page = std::fs::metadata(&path).unwrap().len() / PAGE - 24;
    flip(&path, page);
    page
}

fn flip(path: &Path, page: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (at, mut octet) = ((page - 1) * PAGE + 234, [0]);
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[octet[0] ^ 0x10], at).unwrap();
}

fn status(rig: &Rig) -> Value {
    let ran = rig.bedrail(&["status", "--json"]);
    serde_json::from_str::<Value>(&ran.stdout).unwrap_or_default()["collect"].clone()
}

/// Every record of the log arrived, but for those that gap records name, and these are as many as the store says.
fn all_but_gaps_arrived(rig: &Rig, missing: u64) {
    std::thread::sleep(Duration::from_secs(1));
    let report = rig.settle_but_gaps(LIMIT);
    report.assert_sound();
    let gaps = gaps(&rig.records(), "damaged");
    assert_eq!(gaps.iter().map(|gap| gap["count"].as_u64().unwrap()).sum::<u64>(), missing, "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap["routes"] == serde_json::json!(["live"])), "who still owed it: {gaps:?}");
    let lost = report.sent_but_missing(&rig.made()) as u64;
    assert!(lost <= missing, "{lost} readings did not arrive, and gaps name {missing}");
}

fn replace(path: &Path, octets: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, octets).unwrap();
}

fn octets(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}
