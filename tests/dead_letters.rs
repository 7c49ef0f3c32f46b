//! What a destination refuses for itself is kept, shown, sent again under the same identity or given up by a person: and
//! through all of it a record is in exactly one place.

#![allow(clippy::unwrap_used)]

#[path = "dead_letters/route.rs"]
mod route;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use support::broker::{BrokerOptions, BrokerTls};
use support::devices::{Kind, VirtualDevice};
use support::ledger::compare;
use support::process::wait_until;
use support::rig::{Rig, Shape};

const SOON: Duration = Duration::from_secs(30);
const LIVE: &str = "bedrail/gw-test/";
/// No reading is that short, and the status is.
const TINY: &str = "max_packet_size 480";

fn options(rig: &Rig, extra: &str) -> BrokerOptions {
    let tls = BrokerTls { ca: rig.pki.ca(), server: rig.pki.server(), require_certificate: true };
    BrokerOptions { tls: Some(tls), extra: extra.to_owned(), ..BrokerOptions::default() }
}

/// Another limit takes a new start of the broker.
fn limit_packets(rig: &mut Rig, extra: &str) {
    rig.broker.configure(&options(rig, extra));
    rig.broker.stop();
    rig.broker.resume();
    rig.subscriber.resume();
}

fn letters(rig: &Rig) -> Vec<Value> {
    rig.ask_json(&["dead-letters", "list"])["letters"].as_array().unwrap().clone()
}

fn dead(rig: &Rig) -> u64 {
    rig.route_status("live")["dead"].as_u64().unwrap()
}

#[test]
fn what_a_broker_refuses_is_shown_sent_again_under_its_identity_or_dropped() {
    let device = VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[device], "start = \"oldest\"", "");
    let refused = rig.refused(&["dead-letters", "list"], 1);
    assert!(refused.contains("unreachable") && refused.contains("is bedrail running"), "{refused}");
    limit_packets(&mut rig, TINY);
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    for _ in 0..5 {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(20));
    }
    let made = rig.made();
    rig.wait_for_route("live", SOON, |route| route["dead"].as_u64() >= Some(made.len() as u64) && route["live"] == 0);
    assert!(rig.records_under(LIVE).is_empty());

    let all = listed(&rig);
    let first = &all[0];
    let seq = first["seq"].to_string();
    let shown: Value = rig.ask_json(&["dead-letters", "show", &seq]);
    let payload = shown[0]["payload"].as_str().unwrap().to_owned();
    assert_eq!((&shown[0]["record"], &shown[0]["if_retried"]), (&first["record"], &Value::from("it is sent")));
    assert!(rig.ask(&["dead-letters", "show", first["record"].as_str().unwrap()]).contains(&payload_of(&shown[0])));

    // Too large still: it goes, is refused once more, and is a dead letter again.
    rig.ask(&["dead-letters", "retry", &seq, "--route", "live"]);
    rig.wait_for_route("live", SOON, |route| route["tally"]["retried"] == 1 && route["backlog"] == 0);
    assert_eq!(dead(&rig), all.len() as u64);

    let keep = drop_one(&mut rig, &all);
    limit_packets(&mut rig, "");
    let said = rig.ask(&["dead-letters", "retry", "--all"]);
    assert!(said.contains(&format!("{keep} of {keep} dead letters go again")), "{said}");
    let arrived = rig.wait_for_records(LIVE, SOON, |all| all.len() as u64 >= keep);
    compare(&made, &arrived).assert_sound();
    let again = arrived.iter().find(|message| message.payload["seq"] == seq.parse::<u64>().unwrap()).unwrap();
    for field in ["record", "placement", "version", "op", "chart"] {
        let shown: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(again.payload[field], shown[field], "{field} is not what was shown");
    }
    assert_eq!(again.payload["lane"], "backlog");
    rig.wait_for_route("live", SOON, |route| route["dead"] == 0 && route["backlog"] == 0 && route["tally"]["dropped"] == 1);
    assert!(letters(&rig).is_empty());
    let said = rig.refused(&["dead-letters", "retry", &seq], 1);
    assert!(said.contains(&format!("record {seq} is no dead letter")), "{said}");
    let trail: BTreeSet<(String, String)> = rig.audit_trail().into_iter().collect();
    for action in ["dead-letters retry", "dead-letters drop"] {
        assert!(trail.contains(&(action.to_owned(), "live".to_owned())), "{action} left no trace: {trail:?}");
    }
    rig.stop();
}

/// The list has all there is to know, in the order of the log, and no more than was asked for.
fn listed(rig: &Rig) -> Vec<Value> {
    // It is read from the card, where a route puts what it found out once a second.
    assert!(wait_until(SOON, || letters(rig).len() as u64 == dead(rig)), "{} of {}", letters(rig).len(), dead(rig));
    let all = letters(rig);
    assert!(all.is_sorted_by_key(|letter| letter["seq"].as_u64()));
    for letter in all.iter().filter(|letter| letter["kind"] == "reading") {
        assert_eq!(
            (&letter["route"], &letter["device"], &letter["reason"]),
            (&"live".into(), &"oximeter".into(), &"too_large".into())
        );
        assert!(letter["detail"].as_str().unwrap().contains("at most 480 may go"), "{letter}");
        assert!(letter["metric"].is_string() && letter["measured_at"].is_string(), "{letter}");
        assert!(letter["received_at"].is_string() && letter["since"].is_string() && letter["in_log"] == true, "{letter}");
    }
    let some = rig.ask(&["dead-letters", "list", "--limit", "2"]);
    assert!(some.contains(&format!("2 of {}; --limit", all.len())) && some.lines().count() == 4, "{some}");
    assert!(rig.refused(&["dead-letters", "list", "--route", "nowhere"], 1).contains("no route is called"));
    all
}

/// Giving up needs the number of what is given up; answers how many are left.
fn drop_one(rig: &mut Rig, all: &[Value]) -> u64 {
    let last = all.last().unwrap()["seq"].to_string();
    for wrong in [&["dead-letters", "drop", &last][..], &["dead-letters", "drop", &last, "--yes", "2"]] {
        assert!(rig.refused(wrong, 1).contains("repeat it with --yes 1"));
    }
    assert_eq!(dead(rig), all.len() as u64);
    let said = rig.ask(&["dead-letters", "drop", &last, "--yes", "1"]);
    assert!(said.contains("1 of 1 dead letters dropped"), "{said}");
    // A dead letter stays one through a kill.
    rig.daemons[1].kill9();
    rig.daemons[1].restart();
    assert!(wait_until(SOON, || rig.bedrail(&["dead-letters", "list"]).status == Some(0)));
    let left = letters(rig);
    assert_eq!(left.len(), all.len() - 1);
    left.len() as u64
}

/// Without the moment of the attempt, which differs from one look to the next.
fn payload_of(letter: &Value) -> String {
    let payload = letter["payload"].as_str().unwrap();
    payload[..payload.find("\"sent_at\"").unwrap()].to_owned()
}
