//! A batch carries what single messages carry, octet for octet but for `lane` and `sent_at`, in a fraction of the octets.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod items;
#[path = "support/unbatch.rs"]
#[allow(dead_code, reason = "it uses a part of it")]
mod unbatch;

use std::collections::BTreeMap;

use bedrail::deliver::mqtt::{TopicTemplate, batch, render};
use bedrail::deliver::{DeviceLabel, Item, Lane};
use bedrail::reading::*;
use items::*;
use proptest::prelude::*;
use serde_json::Value as Json;
use unbatch::{Fields, expand};

fn single(item: &Item) -> BTreeMap<String, String> {
    let topic: TopicTemplate = "t".parse().unwrap();
    let fields: Fields = serde_json::from_slice(&render(item, &topic).payload).unwrap();
    fields.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}

/// With a chart id that follows from the other two, as the route gives it.
fn charted(mut item: Item) -> Item {
    let (record, placement) = match &item.record.body {
        Body::Retraction(retraction) => (retraction.of, retraction.placement),
        _ => (item.record.id, item.placement),
    };
    item.chart = ChartId::of(record, placement);
    Item { lane: Lane::Backlog, ..item }
}

fn assert_equal(items: &[Item]) {
    let text = batch::text(&items.iter().collect::<Vec<_>>());
    let expanded = expand(&text);
    assert_eq!(expanded.len(), items.len());
    for (item, record) in items.iter().zip(expanded) {
        let mut expected = single(item);
        expected.insert("sent_at".into(), record["sent_at"].clone());
        assert_eq!(record, expected, "{text}");
    }
}

#[test]
fn every_kind_of_record_comes_out_of_a_batch_as_it_went_in() {
    let items: Vec<Item> = every_kind().into_iter().map(charted).collect();
    assert_equal(&items);
    let without_a_clock = Item { measured: Instant::Unknown, received: None, sent: None, ..charted(temperature()) };
    assert_equal(&[without_a_clock.clone(), charted(temperature()), without_a_clock.clone(), charted(gap()), without_a_clock]);
}

#[test]
fn a_batch_is_as_its_schema_says() {
    let schema: Json = serde_json::from_str(include_str!("../docs/schema/batch-v1.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).expect("a valid schema");
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let items: Vec<Item> = every_kind().into_iter().map(charted).collect();
    let good: Json = serde_json::from_str(&batch::text(&items.iter().collect::<Vec<_>>())).unwrap();
    let faults: Vec<_> = schema.iter_errors(&good).map(|e| format!("{}: {e}", e.instance_path)).collect();
    assert!(faults.is_empty(), "{good:#}\n{faults:#?}");
    for (path, value) in [
        ("/schema", Json::from("bedrail.batch/2")),
        ("/rows/0/1", Json::from("x")),
        ("/rows/0/2", Json::Null),
        ("/common/0/patient_name", Json::from("Canary")),
        ("/lane", Json::from("dead")),
    ] {
        let mut bad = good.clone();
        match bad.pointer_mut(path) {
            Some(place) => *place = value,
            None => drop(bad["common"][0].as_object_mut().unwrap().insert("patient_name".into(), value)),
        }
        assert!(!schema.is_valid(&bad), "{path}");
    }
}

proptest! {
    #[test]
    fn whatever_goes_into_a_batch_comes_out_the_same(
        picks in proptest::collection::vec((0usize..14, any::<i64>(), -9i8..=9, 0i64..4_000_000_000, any::<[u8; 16]>(), 0u64..1 << 50), 1..40)
    ) {
        let mut seq = 0;
        let items: Vec<Item> = picks.into_iter().map(|(kind, mantissa, exponent, at, id, skip)| {
            let mut item = every_kind().swap_remove(kind);
            seq += skip;
            item.seq = Seq(seq);
            item.record.id = RecordId(id);
            let wall = WallTime { at: Timestamp(at * 1_000 + 7), quality: ClockQuality::Ntp, uncertainty_ms: 10 };
            item.received = Some(wall);
            item.measured = Instant::Arrival(WallTime { at: wall.at.plus_ms(at % 3), ..wall });
            if let Body::Reading(reading) = &mut item.record.body {
                reading.value = Value::Number { value: Decimal::new(mantissa, exponent), unit: Unit::Percent };
            }
            charted(item)
        }).collect();
        assert_equal(&items);
    }
}

#[test]
fn a_batch_too_long_for_a_receiver_is_not_made() {
    let samples = vec![1_234; 60_000];
    let body =
        Body::Waveform(Waveform { origin: Decimal::ZERO, scale: Decimal::new(1, 0), unit: Unit::One, period_us: 1, samples });
    let long = charted(item(Some(stream(Metric::Spo2, Modality::Continuous)), body));
    assert_eq!(batch::render(&[&long]), None);
    assert!(batch::render(&[&charted(temperature())]).is_some());
}

/// What a record of the backlog of a full ward costs on the wire: 32 oximeters, two values a second each, as they come.
#[test]
fn a_record_of_a_batched_backlog_costs_at_most_forty_octets_on_the_wire() {
    let key = SiteKey::new(&[7; 32]);
    let boot = BootId([3; 16]);
    let placement = key.placement(None, 0);
    let mut noise = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move |below: u64| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise % below
    };
    let (mut items, mut seq) = (Vec::new(), 800_000u64);
    for second in 0..64 {
        for device in 0..32u8 {
            let arrived = second * 1_000 + u64::from(device) * 31 + random(20);
            for (metric, modality, value, unit) in [
                (Metric::Spo2, Modality::Continuous, Decimal::new(930 + random(70) as i64, -1), Unit::Percent),
                (Metric::PulseRateOximeter, Modality::Continuous, Decimal::new(600 + random(400) as i64, -1), Unit::PerMinute),
            ] {
                seq += 1;
                let id = DeviceId::new([0, 0x1C, 5, 0, 0, device]);
                let key_of = StreamKey { device: id, user: None, metric, site: None, modality };
                let at = NOON.plus_ms(arrived as i64);
                let wall = WallTime { at, quality: ClockQuality::Ntp, uncertainty_ms: 50 };
                let stamp = Stamp { boot, arrived: BootMillis(arrived), device_time: None, device_clock: None, stored: false };
                let body = Body::Reading(reading(Value::Number { value, unit }, Class::Measured));
                let record = key.arrival_id("3w-gw-01", id, [4; 16], boot, Seq(seq));
                items.push(Item {
                    seq: Seq(seq),
                    record: Record { id: record, version: 1, device: id, stream: Some(key_of), stamp, body, nameplate: None },
                    lane: Lane::Backlog,
                    op: Op::Put,
                    placement,
                    chart: ChartId::of(record, placement),
                    subject: Some(format!("p-{device:03}").parse().unwrap()),
                    gateway: "3w-gw-01".into(),
                    device: Some(DeviceLabel { name: format!("oxi-{device:02}"), kind: "pulse-oximeter".into() }),
                    measured: Instant::Arrival(wall),
                    received: Some(wall),
                    sent: Some(NOON.plus_ms(600_000)),
                    choice: None,
                });
            }
        }
    }
    let singles: usize = items
        .iter()
        .map(|item| on_the_wire(render(item, &"bedrail/{gateway}/{device}/{metric}".parse().unwrap()).payload.len(), 36, 0))
        .sum();
    let batches: Vec<Vec<u8>> =
        items.chunks(batch::MAX_RECORDS).map(|chunk| batch::render(&chunk.iter().collect::<Vec<_>>()).unwrap()).collect();
    let topic = "bedrail/3w-gw-01/batch".len();
    let octets: usize = batches.iter().map(|batch| on_the_wire(batch.len(), topic, batch::CONTENT_TYPE.len())).sum();
    let (each, alone) = (octets as f64 / items.len() as f64, singles as f64 / items.len() as f64);
    println!(
        "on the wire, all headers included: {each:.1} octets a record in a batch of {}, {alone:.0} alone",
        batch::MAX_RECORDS
    );
    assert!(each <= 40.0, "{each}");
    let text = zstd::decode_all(&batches[0][..]).unwrap();
    assert_eq!(expand(std::str::from_utf8(&text).unwrap()).len(), batch::MAX_RECORDS);
}

/// A PUBLISH of MQTT 5 and its PUBACK, in TLS 1.3 records of their own, in TCP segments over IPv4 with time stamps.
fn on_the_wire(payload: usize, topic: usize, content_type: usize) -> usize {
    const TLS: usize = 5 + 1 + 16;
    const SEGMENT: usize = 1_500 - 20 - 32;
    const TCP_IP: usize = 20 + 32;
    let properties = if content_type > 0 { 3 + content_type } else { 0 };
    let publish = 5 + 2 + topic + 2 + 1 + properties + payload;
    let sealed = publish + publish.div_ceil(16_384) * TLS;
    let segments = sealed.div_ceil(SEGMENT);
    // Half as many pure acknowledgements, and the PUBACK.
    sealed + segments * TCP_IP + segments.div_ceil(2) * TCP_IP + (4 + TLS + TCP_IP)
}
