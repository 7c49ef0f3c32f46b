//! The real daemon seen from afar: birth, will and last word, and a condition that reaches whoever listens, once.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::time::Duration;

use bedrail::monitor::certificate::{authorities_end, chain_ends};
use bedrail::reading::Timestamp;
use serde_json::{Value, json};
use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::subscriber::{Receiver, Subscriber};

const SOON: Duration = Duration::from_secs(30);
const GATEWAY: &str = "bedrail/gw-test/status";

fn rig(keys: &str, rest: &str) -> Rig {
    let devices = [
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:01", "oximeter"),
        VirtualDevice::new(Kind::Thermometer, "00:1C:05:00:00:02", "thermometer"),
    ];
    Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, keys, rest)
}

/// Everything published at a topic, in order.
fn states(rig: &Rig, topic: &str) -> Vec<Value> {
    let messages = rig.subscriber.messages().into_iter().filter(|message| message.topic == topic);
    messages.map(|message| message.payload).collect()
}

fn wait_for(rig: &Rig, topic: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let came = wait_until(SOON, || states(rig, topic).last().is_some_and(&is_so));
    assert!(came, "{topic}: not {what}: {:#?}\n{}", states(rig, topic), rig.logs());
    states(rig, topic).pop().unwrap()
}

fn validator(name: &str) -> jsonschema::Validator {
    let path = format!("{}/docs/schema/{name}-v1.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

#[test]
fn the_retained_state_tells_online_from_lost_from_stopped_and_goes_on_while_paused() {
    let mut rig = rig("", "");
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    rig.measure(|_| true);
    let online = wait_for(&rig, GATEWAY, "online with a clock and an adapter", |state| {
        state["clock"] == "ntp" && state["adapter"] == "usable" && state["updated_at"].is_string()
    });
    assert_eq!(online["disk"]["state"], "ok");
    assert_eq!(online["certificates"].as_array().unwrap().len(), 2, "{online:#}");
    for device in ["oximeter", "thermometer"] {
        wait_for(&rig, &format!("{GATEWAY}/device/{device}"), "heard", |state| {
            state["state"] == "connected" && state["last_reading_at"].is_string()
        });
    }
    wait_for(&rig, &format!("{GATEWAY}/route/live"), "up", |state| state["state"] == "up");

    rig.daemons[1].kill9();
    wait_for(&rig, GATEWAY, "lost", |state| state["reason"] == "lost");
    rig.daemons[1].restart();
    wait_for(&rig, GATEWAY, "online", |state| state["state"] == "online");
    rig.ask(&["route", "pause", "live", "--reason", "Mrs Canary moves"]);
    wait_for(&rig, &format!("{GATEWAY}/route/live"), "paused", |state| state["state"] == "paused");
    rig.ask(&["route", "resume", "live"]);
    wait_for(&rig, &format!("{GATEWAY}/route/live"), "up again", |state| state["state"] == "up");
    rig.stop();
    let offline = wait_for(&rig, GATEWAY, "stopped", |state| state["reason"] == "stopped");
    assert!(offline.get("conditions").is_none() && offline.get("disk").is_none(), "{offline}");

    let late = Subscriber::start(Receiver {
        port: rig.broker.port(),
        client_id: "latecomer".to_owned(),
        topic: "bedrail/+/status/#".to_owned(),
        tls: Some((rig.pki.ca(), Some(rig.pki.client("reader")))),
        login: None,
    });
    assert!(late.wait_until(SOON, |messages| messages.iter().filter(|message| message.retained).count() == 4));
    let all = rig.subscriber.messages();
    let states = all.iter().filter(|message| message.topic.starts_with(GATEWAY));
    let schemas = ["gateway", "device", "route"].map(|name| (format!("bedrail.{name}/1"), validator(name)));
    for message in states {
        assert!(!message.raw.contains("Canary"), "{}", message.raw);
        let (_, schema) = schemas.iter().find(|(name, _)| message.payload["schema"] == **name).unwrap();
        let faults: Vec<_> = schema.iter_errors(&message.payload).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", message.raw);
    }
}

#[test]
fn a_condition_reaches_whoever_carries_events_and_a_restart_does_not_double_it() {
    let mut rig = rig("carry = [\"readings\", \"events\"]", "");
    let nowhere =
        support::daemon::mqtt_route("nowhere", support::broker::free_port(), None, "carry = [\"readings\"]\nannounce = false");
    let live = rig.route("live", "carry = [\"readings\", \"events\"]");
    rig.configure(&(live + &nowhere), "[monitor]\nroute_down_after = \"10 s\"\n");
    rig.start(Shape::OneProcess);
    let told = |rig: &Rig| -> Vec<Value> {
        let records = rig.records_under("bedrail/gw-test/gateway/event").into_iter();
        records.filter(|message| message.payload["event"]["name"] == "route_down").map(|message| message.payload).collect()
    };
    assert!(wait_until(SOON, || !told(&rig).is_empty()), "nothing is told:\n{}", rig.logs());
    let event = told(&rig).pop().unwrap();
    assert_eq!((&event["event"]["raised"], &event["event"]["detail"]), (&json!(true), &json!("route nowhere: not connected")));
    assert_eq!((&event["device"], &event["subject"]), (&Value::Null, &Value::Null));
    let listed = wait_for(&rig, GATEWAY, "listed", |state| state["conditions"][0]["route"] == "nowhere");
    assert_eq!(listed["conditions"][0]["name"], "route_down");
    wait_for(&rig, &format!("{GATEWAY}/route/nowhere"), "down", |state| state["conditions"] == json!(["route_down"]));

    rig.daemons[0].kill9();
    rig.daemons[0].restart();
    rig.daemons[0].wait_for_line("link up", SOON);
    let again = wait_for(&rig, GATEWAY, "listed after the restart", |state| {
        state["uptime_s"].as_u64().is_some_and(|s| s < 8) && state["conditions"][0]["name"] == "route_down"
    });
    assert_eq!(again["conditions"][0]["since"], listed["conditions"][0]["since"]);
    std::thread::sleep(Duration::from_secs(12));
    let status = rig.ask_json(&["status"]);
    assert_eq!(status["conditions"][0]["route"], "nowhere", "{status:#}");
    assert!(rig.ask(&["status"]).contains("route_down  nowhere"), "{}", rig.ask(&["status"]));
    let ids: std::collections::BTreeSet<String> = told(&rig).iter().map(|event| event["record"].to_string()).collect();
    assert_eq!(ids.len(), 1, "told twice: {:#?}", told(&rig));
    rig.stop();
}

#[test]
fn a_chain_ends_with_its_first_certificate_and_authorities_with_their_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut both = String::new();
    for days in ["50", "5"] {
        let (key, cert) = (path("key"), path(days));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=x",
            "-days",
            days,
        ]);
        assert!(
            openssl
                .arg("-keyout")
                .arg(key)
                .arg("-out")
                .arg(&cert)
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        both += &std::fs::read_to_string(cert).unwrap();
    }
    std::fs::write(path("both"), both).unwrap();
    let days = |at: Option<Timestamp>| at.map(|at| (at.0 - jiff::Timestamp::now().as_millisecond() + 3_600_000) / 86_400_000);
    assert_eq!((days(chain_ends(&path("both"))), days(authorities_end(&path("both")))), (Some(5), Some(50)));
    std::fs::write(path("none"), "no certificate").unwrap();
    assert_eq!((chain_ends(&path("none")), authorities_end(&path("absent"))), (None, None));
}
