//! What a consumer at the broker may rely on: the schema, the device's digits, the identity, and nothing about a patient but
//! an opaque key.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod items;

use std::io::Write;
use std::process::{Command, Stdio};

use bedrail::deliver::mqtt::{TopicTemplate, batch, render};
use bedrail::deliver::{DeviceLabel, Item, Lane};
use bedrail::reading::*;
use items::*;
use proptest::prelude::*;
use serde_json::Value as Json;

#[test]
fn a_reading_is_rendered_key_by_key_in_the_documented_order() {
    let expected = concat!(
        r#"{"schema":"bedrail.record/1","record":"01010101010101010101010101010101","placement":"02020202020202020202020202020202","#,
        r#""version":1,"op":"put","chart":"03030303030303030303030303030303","lane":"live","seq":42,"kind":"reading","#,
        r#""gateway":"3w-gw-01","device":{"id":"00:1C:05:AB:CD:EF","name":"oxi-07","kind":"thermometer"},"user":1,"#,
        r#""metric":"body_temperature","mdc":188424,"loinc":["8310-5"],"site":"mouth","modality":"spot","class":"questionable","#,
        r#""value":36.60,"unit":"Cel","flags":["implausible"],"sequence":7,"part":0,"parts":1,"#,
        r#""measured_at":"2026-11-23T12:00:00.000Z","measured_by":"device_clock","measured_uncertainty_ms":2010,"#,
        r#""received_at":"2026-11-23T12:00:01.500Z","clock":"ntp","device_time":"2026-11-23T13:00:00","stored":true,"#,
        r#""sent_at":"2026-11-23T12:00:02.000Z","subject":"p-017","security":"encrypted"}"#
    );
    let rendered = render(&temperature(), &topic());
    assert_eq!(String::from_utf8(rendered.payload).unwrap(), expected);
    assert_eq!(rendered.topic, "bedrail/3w-gw-01/oxi-07/body_temperature");
}

#[test]
fn every_kind_of_record_is_rendered_as_the_schema_says() {
    let schema = schema();
    let mut kinds = std::collections::BTreeSet::new();
    for item in every_kind() {
        let json = json(&item);
        let faults: Vec<_> = schema.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert!(faults.is_empty(), "{json:#}\n{faults:#?}");
        kinds.insert(item.record.body.kind());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["event", "gap", "reading", "retraction", "waveform", "window"]);
}

#[test]
fn the_schema_refuses_what_is_not_in_it() {
    let schema = schema();
    let good = json(&temperature());
    assert!(schema.is_valid(&good));
    for (key, value) in [
        ("patient_name", Json::from("Canary")),
        ("subject", Json::from("4711-001122")),
        ("subject", Json::from("p-12345")),
        ("value", Json::from("36.60")),
        ("range", Json::from("low")),
        ("version", Json::from(0)),
        ("op", Json::from("retract")),
        ("kind", Json::from("window")),
        ("measured_at", Json::from("2026-11-23 12:00")),
        ("schema", Json::from("bedrail.record/2")),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!schema.is_valid(&bad), "{key}: {}", bad[key]);
    }
    for key in
        ["record", "placement", "version", "op", "lane", "measured_at", "received_at", "sent_at", "subject", "user", "class"]
    {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(key);
        assert!(!schema.is_valid(&bad), "without {key}");
    }
}

#[test]
fn every_field_of_the_schema_is_documented() {
    let schema: Json = serde_json::from_str(include_str!("../docs/schema/record-v1.schema.json")).unwrap();
    let docs = include_str!("../docs/mqtt.md");
    for field in schema["properties"].as_object().unwrap().keys() {
        assert!(docs.contains(&format!("| `{field}`")) || docs.contains(&format!("`, `{field}` |")), "{field}");
    }
    for field in schema["properties"]["window"]["properties"].as_object().unwrap().keys() {
        assert!(docs.contains(&format!("`{field}`")), "window.{field}");
    }
}

#[test]
fn the_resolution_of_a_device_reaches_the_consumer() {
    for (value, text) in [
        (Decimal::new(3660, -2), "\"value\":36.60,"),
        (Decimal::new(97, 0), "\"value\":97,"),
        (Decimal::new(5, 1), "\"value\":50,"),
        (Decimal::new(0, -1), "\"value\":0.0,"),
        (Decimal::new(-5, -1), "\"value\":-0.5,"),
    ] {
        let body = Body::Reading(reading(Value::Number { value, unit: Unit::DegreeCelsius }, Class::Measured));
        let payload = text_of(&item(Some(stream(Metric::BodyTemperature, Modality::Spot)), body));
        assert!(payload.contains(text), "{payload}");
    }
    let window = text_of(&item(Some(stream(Metric::Spo2, Modality::Continuous)), Body::Window(stats())));
    for part in [r#""median":{"at":"2026-11-23T12:00:00.000Z","value":97.0}"#, r#""mean":96.85"#, r#""coverage":0.950"#] {
        assert!(window.contains(part), "{part} in {window}");
    }
}

#[test]
fn a_value_out_of_the_devices_range_and_an_absent_component_are_said_and_not_made_up() {
    let high = Body::Reading(reading(Value::NoNumber { unit: Unit::MilligramPerDecilitre }, Class::OutOfRange(OutOfRange::High)));
    let high = json(&item(Some(stream(Metric::Glucose, Modality::Spot)), high));
    assert_eq!((&high["class"], &high["range"], high.get("value")), (&"out_of_range".into(), &"high".into(), None));
    let pressure = json(&item(Some(stream(Metric::BloodPressure, Modality::Spot)), blood_pressure()));
    let expected = serde_json::json!({
        "systolic": {"value": 120, "mdc": 150021, "loinc": "8480-6"},
        "diastolic": {"value": 80, "mdc": 150022, "loinc": "8462-4"},
        "mean": null,
    });
    assert_eq!(pressure["components"], expected);
    assert_eq!(pressure.get("value"), None);
}

#[test]
fn a_retraction_speaks_of_what_it_takes_back_and_carries_no_value() {
    let of_a_reading = json(&Item { op: Op::Retract, ..temperature() });
    assert_eq!(of_a_reading["record"], "01".repeat(16));
    for gone in ["value", "class", "unit", "flags", "components", "window", "sequence", "security"] {
        assert_eq!(of_a_reading.get(gone), None, "{gone}");
    }
    let body =
        Body::Retraction(Retraction { of: RecordId([7; 16]), version: 3, placement: Placement([8; 16]), route: "live".into() });
    let by_record = json(&item(Some(stream(Metric::Spo2, Modality::Spot)), body));
    assert_eq!((&by_record["record"], &by_record["placement"]), (&"07".repeat(16).into(), &"08".repeat(16).into()));
    assert_eq!((&by_record["version"], &by_record["op"]), (&3.into(), &"retract".into()));
}

#[test]
fn a_record_without_a_clock_says_so_and_is_sent_all_the_same() {
    let unknown = Item { measured: Instant::Unknown, received: None, sent: None, subject: None, ..temperature() };
    let json = json(&unknown);
    for key in ["measured_at", "received_at", "sent_at", "subject"] {
        assert_eq!(json.get(key), Some(&Json::Null), "{key}");
    }
    assert_eq!((&json["measured_by"], &json["clock"]), (&"unknown".into(), &"unsynced".into()));
    assert!(schema().is_valid(&json));
}

#[test]
fn a_topic_names_the_device_by_name_else_by_address_and_a_record_without_a_metric_by_its_kind() {
    let topic_of = |item: &Item| render(item, &topic()).topic;
    let nameless = Item { device: None, ..temperature() };
    assert_eq!(topic_of(&nameless), "bedrail/3w-gw-01/001C05ABCDEF/body_temperature");
    assert_eq!(topic_of(&gap()), "bedrail/3w-gw-01/gateway/gap");
    let awkward = Some(DeviceLabel { name: "oxi/07+#\u{0}".into(), kind: "x".into() });
    assert_eq!(topic_of(&Item { device: awkward, ..temperature() }), "bedrail/3w-gw-01/oxi_07___/body_temperature");
}

/// Azure IoT Hub takes properties for what they are only when they are encoded (and then decodes them).
#[test]
fn what_is_filled_into_a_list_of_properties_is_percent_encoded_and_elsewhere_it_is_not() {
    let template = "devices/{gateway}/messages/events/$.ct=application%2Fjson&$.ce=utf-8&device={device}&metric={metric}";
    let template: TopicTemplate = template.parse().expect("a topic");
    let awkward = Some(DeviceLabel { name: "Öl & 50 %/+#=".into(), kind: "x".into() });
    let expected = "devices/3w-gw-01/messages/events/$.ct=application%2Fjson&$.ce=utf-8\
                    &device=%C3%96l%20%26%2050%20%25%2F%2B%23%3D&metric=body_temperature";
    assert_eq!(render(&Item { device: awkward, ..temperature() }, &template).topic, expected);
}

proptest! {
    #[test]
    fn two_attempts_differ_only_in_lane_and_sending_time(
        mantissa in any::<i64>(), exponent in -9i8..=9, flag in any::<bool>(), second in 0i64..100_000_000_000, which in 0usize..14,
    ) {
        let mut first = every_kind().swap_remove(which);
        if let Body::Reading(reading) = &mut first.record.body {
            reading.value = Value::Number { value: Decimal::new(mantissa, exponent), unit: Unit::Percent };
            reading.flags = if flag { vec![Flag::LowPerfusion, Flag::PoorSignal] } else { vec![] };
        }
        let again = Item { lane: Lane::Backlog, sent: Some(Timestamp(second)), ..first.clone() };
        let (a, b) = (text_of(&first), text_of(&again));
        let a = a.replacen("\"lane\":\"live\"", "\"lane\":\"backlog\"", 1);
        let a = a.replacen("\"sent_at\":\"2026-11-23T12:00:02.000Z\"", &format!("\"sent_at\":\"{}\"", Timestamp(second)), 1);
        prop_assert_eq!(a, b);
    }
}

#[test]
fn the_example_consumer_files_every_value_once_and_at_its_last_version() {
    let stream = include_str!("fixtures/mqtt_stream.jsonl");
    let schema = schema();
    for line in stream.lines() {
        let message: Json = serde_json::from_str(line).unwrap();
        assert!(schema.is_valid(&message), "{line}");
    }
    // By hand: a repeat, a window amended and repeated late, a chart corrected, a retraction before its record.
    let expected = "add spo2 97 %\n\
                    add body_temperature 36.60 Cel\n\
                    add spo2 97 %\n\
                    amend spo2 96 %\n\
                    add blood_pressure 120/80/? mm[Hg]\n\
                    remove blood_pressure\n\
                    add blood_pressure 120/80/? mm[Hg]\n\
                    add heart_rate 72 /min\n\
                    add glucose high mg/dL\n";
    assert_eq!(consume(stream), expected);
    // Everything once more, as after a lost connection: nothing new.
    assert_eq!(consume(&format!("{stream}{stream}")), expected);
}

#[test]
fn the_example_consumer_understands_what_is_rendered() {
    let retracted = Item { op: Op::Retract, ..temperature() };
    let status = r#"{"schema":"bedrail.gateway/1","gateway":"3w-gw-01","version":"0.1.0","state":"online"}"#;
    let lines = [text_of(&temperature()), text_of(&gap()), status.to_owned(), text_of(&retracted), text_of(&temperature())];
    assert_eq!(consume(&(lines.join("\n") + "\n")), "add body_temperature 36.60 Cel\nremove body_temperature\n");
}

/// Everything as a broker hands it to a shell, in hexadecimal digits, in batches and alone: the same.
#[test]
fn the_example_consumer_reads_batches_and_files_what_is_in_them_once() {
    let items: Vec<Item> = every_kind().into_iter().enumerate().map(|(n, item)| numbered(item, n as u8)).collect();
    let alone: String = items.iter().map(|item| text_of(item) + "\n").collect();
    let batch = batch::render(&items.iter().collect::<Vec<_>>()).unwrap();
    let expected = consume(&alone);
    assert!(expected.lines().count() >= 5, "{expected}");
    assert_eq!(consume(&(hex(&batch) + "\n")), expected);
    assert_eq!(consume(&format!("{alone}{}\n{}\n", hex(&batch), hex(&batch))), expected, "repeats, batched otherwise");
}

#[test]
fn the_example_consumer_confirms_what_is_on_disk_and_nothing_else() {
    let schema: Json = serde_json::from_str(include_str!("../docs/schema/receipt-v1.schema.json")).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (filed, receipts) = (directory.path().join("filed"), directory.path().join("receipts"));
    let options = ["--filed", filed.to_str().unwrap(), "--receipts", receipts.to_str().unwrap()];
    let items: Vec<Item> = every_kind().into_iter().enumerate().map(|(n, item)| numbered(item, n as u8)).collect();
    let batch = hex(&batch::render(&items.iter().collect::<Vec<_>>()).unwrap()) + "\n";
    let said = consume_with(&options, &batch);
    assert!(said.lines().count() >= 5, "{said}");

    // Every message is confirmed, in the gateway's own words, and a restart files nothing twice and confirms again.
    let confirmed = |text: &str| -> Vec<String> {
        let receipt: Json = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(schema.is_valid(&receipt), "{receipt}");
        serde_json::from_value(receipt["received"].clone()).unwrap()
    };
    let deliveries: Vec<String> = items.iter().map(|item| as_sent(item).to_string()).collect();
    assert_eq!(confirmed(&std::fs::read_to_string(&receipts).unwrap()), deliveries);
    assert_eq!(consume_with(&options, &batch), "");
    assert_eq!(confirmed(&std::fs::read_to_string(&receipts).unwrap()), deliveries);

    let output = Command::new("python3").arg(CONSUMER).args(["--receipts", "x"]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("needs --filed"));
}

/// What a payload's four fields say: a retraction speaks of what it takes back.
fn as_sent(item: &Item) -> DeliveryId {
    match &item.record.body {
        Body::Retraction(of) => DeliveryId { record: of.of, placement: of.placement, version: of.version, op: Op::Retract },
        _ => item.delivery(),
    }
}

fn numbered(mut item: Item, n: u8) -> Item {
    item.record.id = RecordId([n + 1; 16]);
    item.chart = ChartId::of(item.record.id, item.placement);
    item
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

const CONSUMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/consumer.py");

fn consume(lines: &str) -> String {
    consume_with(&[], lines)
}

fn consume_with(options: &[&str], lines: &str) -> String {
    let mut command = Command::new("python3");
    command.arg(CONSUMER).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3 is installed");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn schema() -> jsonschema::Validator {
    let schema: Json = serde_json::from_str(include_str!("../docs/schema/record-v1.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).expect("a valid schema");
    jsonschema::draft202012::new(&schema).expect("a valid schema")
}

fn topic() -> TopicTemplate {
    "bedrail/{gateway}/{device}/{metric}".parse().unwrap()
}

fn text_of(item: &Item) -> String {
    String::from_utf8(render(item, &topic()).payload).unwrap()
}

fn json(item: &Item) -> Json {
    serde_json::from_slice(&render(item, &topic()).payload).unwrap()
}
