//! The rules of docs/mqtt.md for a receiver of batches, once more and by other means than examples/consumer.py.

use std::collections::BTreeMap;

use ring::digest;
use serde_json::value::RawValue;

pub type Fields = BTreeMap<String, Box<RawValue>>;

/// The records of a batch, field by field as text.
pub fn expand(batch: &str) -> Vec<BTreeMap<String, String>> {
    let batch: Fields = serde_json::from_str(batch).unwrap();
    let common: Vec<Fields> = serde_json::from_str(batch["common"].get()).unwrap();
    let rows: Vec<Vec<Box<RawValue>>> = serde_json::from_str(batch["rows"].get()).unwrap();
    let number = |cell: &RawValue| cell.get().parse::<i64>().ok();
    let mut seq = number(&batch["seq"]).unwrap();
    let mut received: Option<jiff::Timestamp> =
        serde_json::from_str::<Option<String>>(batch["received_at"].get()).unwrap().map(|at| at.parse().unwrap());
    let after = |at: jiff::Timestamp, ms: i64| at + jiff::SignedDuration::from_millis(ms);
    let time = |at: Option<jiff::Timestamp>| at.map_or("null".to_owned(), |at| format!("\"{at:.3}\""));
    let mut records = Vec::new();
    for row in rows {
        seq += number(&row[2]).unwrap();
        let received_at = number(&row[3]).map(|ms| after(received.unwrap(), ms));
        received = received_at.or(received);
        let measured_at = number(&row[4]).map(|ms| after(received_at.unwrap(), ms));
        let mut record: BTreeMap<String, String> = BTreeMap::from([
            ("schema".into(), "\"bedrail.record/1\"".into()),
            ("record".into(), row[1].get().into()),
            ("seq".into(), seq.to_string()),
            ("received_at".into(), time(received_at)),
            ("measured_at".into(), time(measured_at)),
        ]);
        for name in ["gateway", "lane", "sent_at"] {
            record.insert(name.into(), batch[name].get().into());
        }
        let shared = &common[number(&row[0]).unwrap() as usize];
        record.extend(shared.iter().map(|(name, value)| (name.clone(), value.get().to_owned())));
        if let Some(value) = row.get(5).filter(|value| value.get() != "null") {
            record.insert("value".into(), value.get().into());
        }
        if let Some(rest) = row.get(6) {
            let rest: Fields = serde_json::from_str(rest.get()).unwrap();
            record.extend(rest.iter().map(|(name, value)| (name.clone(), value.get().to_owned())));
        }
        let id = |name: &str| {
            (0..32).step_by(2).map(|n| u8::from_str_radix(&record[name][n + 1..n + 3], 16).unwrap()).collect::<Vec<_>>()
        };
        let octets = [b"bedrail chart".to_vec(), id("record"), id("placement")].concat();
        let chart =
            &digest::digest(&digest::SHA256, &octets).as_ref()[..16].iter().map(|o| format!("{o:02x}")).collect::<String>();
        record.insert("chart".into(), format!("\"{chart}\""));
        records.push(record);
    }
    records
}

/// As the single messages would have been, but for the order of fields.
pub fn records(octets: &[u8]) -> Vec<String> {
    let text = zstd::decode_all(octets).expect("a zstd frame");
    let object = |fields: BTreeMap<String, String>| {
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    expand(std::str::from_utf8(&text).expect("JSON")).into_iter().map(object).collect()
}
