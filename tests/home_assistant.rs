//! What is announced to a Home Assistant is what its MQTT integration takes. Always against the rules below, which are taken
//! from homeassistant.components.mqtt; with `make long-ha` also against its own code, see docs/evidence/home-assistant.md.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use bedrail::monitor::home_assistant::{Announced, discovery};
use bedrail::monitor::{Absence, Notice, Topics, offline};
use bedrail::reading::DeviceId;
use serde_json::{Value as Json, json};

const TOPIC: &str = "bedrail/{gateway}/status";

/// A component: device classes we may use, and keys its schema knows.
type Component = (&'static str, &'static [&'static str], &'static [&'static str]);

const COMMON: [&str; 10] = [
    "unique_id",
    "name",
    "state_topic",
    "value_template",
    "device_class",
    "entity_category",
    "availability",
    "device",
    "origin",
    "json_attributes_topic",
];
const COMPONENTS: [Component; 2] = [
    ("binary_sensor", &["connectivity", "problem"], &["json_attributes_template"]),
    ("sensor", &["battery", "timestamp"], &["state_class", "unit_of_measurement"]),
];

fn announced() -> Vec<Notice> {
    let device =
        |name: &str, n: u8| Announced { name: name.to_owned(), kind: "pulse-oximeter", id: DeviceId::new([0, 0x1C, 5, 0, 0, n]) };
    discovery("homeassistant", &Topics::new(TOPIC), "3w.gw_01", &[device("oxi-07", 1), device("oxi.07", 2)])
}

/// Everything that can be at the topics the configs point to.
fn states() -> BTreeMap<String, Vec<Json>> {
    let gateway = json!({
        "schema": "bedrail.gateway/1", "gateway": "3w.gw_01", "version": "0.1.0", "state": "online", "uptime_s": 5, "rss_octets": 1,
        "updated_at": "2026-11-23T12:00:00.000Z", "conditions": [{ "name": "battery_low", "device": "oxi-07" }],
    });
    let clockless = json!({ "state": "online", "conditions": [] });
    let gone = [Absence::Lost, Absence::Stopped].map(|why| serde_json::from_slice(&offline("3w.gw_01", why)).unwrap());
    let device = json!({
        "state": "connected", "last_reading_at": "2026-11-23T12:00:00.000Z", "battery_percent": 80, "conditions": ["battery_low"],
    });
    let topics = Topics::new(TOPIC);
    let mut states = BTreeMap::from([(topics.gateway("3w.gw_01"), [&[gateway, clockless][..], &gone[..]].concat())]);
    for name in ["oxi-07", "oxi.07"] {
        states.insert(
            topics.device("3w.gw_01", name),
            vec![device.clone(), json!({ "state": "waiting" }), json!({ "state": "unknown" })],
        );
    }
    states
}

#[test]
fn home_assistant_takes_every_config() {
    let (notices, states) = (announced(), states());
    assert_eq!(notices.len(), 3 + 2 * 4);
    let (mut topics, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for notice in &notices {
        let config: Json = serde_json::from_slice(&notice.payload).unwrap();
        let levels: Vec<&str> = notice.topic.split('/').collect();
        let ["homeassistant", component, node, object, "config"] = levels[..] else { panic!("{}", notice.topic) };
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        assert!(plain(node) && plain(object), "{}", notice.topic);
        let (_, classes, more) = COMPONENTS.iter().find(|(name, ..)| *name == component).expect(component);
        for key in config.as_object().unwrap().keys() {
            assert!(COMMON.contains(&key.as_str()) || more.contains(&key.as_str()), "{}: {key} is not known", notice.topic);
        }
        for key in ["unique_id", "name", "state_topic", "value_template", "device", "origin"] {
            assert!(!config[key].is_null(), "{}: {key} is missing", notice.topic);
        }
        assert!(classes.contains(&config["device_class"].as_str().unwrap()), "{config:#}");
        assert_eq!(config["entity_category"], "diagnostic", "nothing here is a value of a patient");
        assert_eq!(config["unit_of_measurement"] == "%", config["device_class"] == "battery");
        assert!(!config["device"]["identifiers"].as_array().unwrap().is_empty());
        let state_topic = config["state_topic"].as_str().unwrap();
        assert!(states.contains_key(state_topic), "nothing is published at {state_topic}");
        for availability in config["availability"].as_array().into_iter().flatten() {
            assert!(states.contains_key(availability["topic"].as_str().unwrap()), "{config:#}");
        }
        assert!(topics.insert(notice.topic.clone()) && ids.insert(config["unique_id"].to_string()), "twice: {config:#}");
    }
    if std::env::var_os("BEDRAIL_LONG").is_some() {
        by_its_own_code(&notices, &states);
    }
}

fn by_its_own_code(notices: &[Notice], states: &BTreeMap<String, Vec<Json>>) {
    let python = std::env::var_os("BEDRAIL_HOME_ASSISTANT").expect("`make long-ha` says where a Python with homeassistant is");
    let configs: Vec<Json> = notices
        .iter()
        .map(|notice| json!({ "topic": &*notice.topic, "config": serde_json::from_slice::<Json>(&notice.payload).unwrap() }))
        .collect();
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/home_assistant.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let given = json!({ "configs": configs, "states": states }).to_string();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}
