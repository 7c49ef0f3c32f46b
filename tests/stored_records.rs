//! What a device stored while nobody was near is fetched once it is connected: none lost, none twice, and nothing deleted.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use support::devices::{GLUCOSE, GLUCOSE_CONTEXT, Kind, RECORD_ACCESS, VirtualDevice, seconds};
use support::process::wait_until;
use support::rig::{Rig, Shape};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);
const METER: &str = "A4:C1:38:00:00:18";

/// A meter by the Glucose Profile, from its octets alone.
struct Meter {
    /// Number and octets of each record.
    stored: Mutex<Vec<(u16, Vec<u8>)>>,
    /// It stops in the middle after so many records, without a word.
    stops_after: AtomicUsize,
    /// Each record is followed by what the person noted: measured fasting.
    notes: AtomicBool,
}

impl Meter {
    fn new(device: &VirtualDevice, numbers: std::ops::RangeInclusive<u16>) -> Arc<Self> {
        let meter = Self { stored: Mutex::default(), stops_after: AtomicUsize::new(usize::MAX), notes: AtomicBool::new(false) };
        meter.measures(device, numbers);
        Arc::new(meter)
    }

    fn measures(&self, device: &VirtualDevice, numbers: std::ops::RangeInclusive<u16>) {
        let now = seconds(SystemTime::now());
        let record = |n: u16| (n, device.value(n.into(), now - 86_400 + i64::from(n) * 60).octets);
        self.stored.lock().unwrap().extend(numbers.map(record));
    }

    fn tell(&self, n: u16, octets: &[u8]) -> Vec<(Uuid, Vec<u8>)> {
        const CONTEXT_FOLLOWS: u8 = 1 << 4;
        if !self.notes.load(Ordering::SeqCst) {
            return vec![(GLUCOSE, octets.to_vec())];
        }
        let measurement = [&[octets[0] | CONTEXT_FOLLOWS][..], &octets[1..]].concat();
        let context = [&[0b10][..], &n.to_le_bytes(), &[3]].concat();
        vec![(GLUCOSE, measurement), (GLUCOSE_CONTEXT, context)]
    }

    fn answer(&self, request: &[u8]) -> Vec<(Uuid, Vec<u8>)> {
        let stored = self.stored.lock().unwrap();
        let found: Vec<&(u16, Vec<u8>)> = match request {
            [1, 1] => stored.iter().collect(),
            [1, 6] => stored.last().into_iter().collect(),
            [1, 3, 1, low, high] => stored.iter().filter(|(n, _)| *n >= u16::from_le_bytes([*low, *high])).collect(),
            [3, 0] => return vec![(RECORD_ACCESS, vec![6, 0, 3, 1])],
            other => panic!("nobody may write {other:02x?}"),
        };
        let stops = self.stops_after.load(Ordering::SeqCst);
        let mut told: Vec<_> = found.iter().take(stops).flat_map(|(n, octets)| self.tell(*n, octets)).collect();
        if found.len() <= stops {
            told.push((RECORD_ACCESS, vec![6, 0, 1, if found.is_empty() { 6 } else { 1 }]));
        }
        told
    }
}

/// The numbers of the glucose values that arrived, each record once.
fn arrived(rig: &Rig) -> Vec<u64> {
    let mut records = BTreeSet::new();
    let messages = rig.records();
    let readings = messages.iter().map(|message| &message.payload).filter(|payload| payload["metric"] == "glucose");
    let once = readings.filter(|payload| records.insert(payload["record"].to_string()));
    once.map(|payload| payload["sequence"].as_u64().expect("a number")).collect()
}

fn until_there_are(rig: &Rig, count: usize) {
    assert!(wait_until(SOON, || arrived(rig).len() >= count), "{:?}\n{}", arrived(rig), rig.logs());
}

/// What was written to the control point, oldest first.
fn written(rig: &Rig) -> Vec<String> {
    let calls = rig.bluez.calls();
    calls.iter().filter(|call| call.member == "WriteValue").map(|call| call.detail.clone()).collect()
}

#[test]
fn what_a_meter_stored_is_fetched_once_through_broken_links_and_kills() {
    let device = VirtualDevice::new(Kind::GlucoseMeter, METER, "meter");
    let meter = Meter::new(&device, 1..=40);
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), std::slice::from_ref(&device), "carry = [\"readings\"]", "");
    let answers = meter.clone();
    rig.bluez.set_answering(METER, RECORD_ACCESS, Arc::new(move |request| answers.answer(request)));

    // The link breaks in the middle of the transfer.
    meter.stops_after.store(15, Ordering::SeqCst);
    rig.start(Shape::OneProcess);
    until_there_are(&rig, 15);
    meter.stops_after.store(10, Ordering::SeqCst);
    rig.bluez.drop_link(METER);
    rig.bluez.advertise(METER, -60);
    until_there_are(&rig, 25);
    assert_eq!(written(&rig), ["0101", "0103011000"], "it goes on behind what is durable");

    // Killed in the middle of the next one: a new process knows nothing and asks for everything.
    rig.daemons[0].kill9();
    meter.stops_after.store(usize::MAX, Ordering::SeqCst);
    rig.daemons[0].restart();
    rig.bluez.advertise(METER, -60);
    until_there_are(&rig, 40);
    assert_eq!(written(&rig).last().unwrap(), "0101");

    // Later it has measured again.
    meter.measures(&device, 41..=43);
    rig.bluez.drop_link(METER);
    rig.bluez.advertise(METER, -60);
    until_there_are(&rig, 43);
    assert_eq!(written(&rig).last().unwrap(), "0103012900");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(arrived(&rig), (1..=43).collect::<Vec<u64>>(), "each once, in the order of its number");
    let complete = serde_json::json!({ "outcome": "complete", "records": 3 });
    let told = || rig.ask_json(&["status"])["collect"]["devices"][0]["retrieved"] == complete;
    assert!(wait_until(SOON, told), "{:#}", rig.ask_json(&["status"]));

    // What was complete is known over a restart.
    rig.restart();
    meter.measures(&device, 44..=44);
    rig.bluez.advertise(METER, -60);
    until_there_are(&rig, 44);
    assert_eq!(written(&rig).last().unwrap(), "0103012c00");
    rig.stop();
}

#[test]
fn a_meter_whose_memory_was_cleared_is_asked_for_everything() {
    let device = VirtualDevice::new(Kind::GlucoseMeter, METER, "meter");
    let meter = Meter::new(&device, 100..=102);
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), std::slice::from_ref(&device), "carry = [\"readings\"]", "");
    let answers = meter.clone();
    rig.bluez.set_answering(METER, RECORD_ACCESS, Arc::new(move |request| answers.answer(request)));
    rig.start(Shape::OneProcess);
    until_there_are(&rig, 3);
    meter.stored.lock().unwrap().clear();
    meter.measures(&device, 0..=1);
    rig.bluez.drop_link(METER);
    rig.bluez.advertise(METER, -60);
    until_there_are(&rig, 5);
    assert_eq!(written(&rig), ["0101", "0103016700", "0106", "0101"]);
    rig.stop();
}

#[test]
fn a_glucose_and_what_the_meter_noted_of_it_are_one_record() {
    let device = VirtualDevice::new(Kind::GlucoseMeter, METER, "meter");
    let meter = Meter::new(&device, 1..=5);
    meter.notes.store(true, Ordering::SeqCst);
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), std::slice::from_ref(&device), "carry = [\"readings\"]", "");
    let answers = meter.clone();
    rig.bluez.set_answering(METER, RECORD_ACCESS, Arc::new(move |request| answers.answer(request)));
    rig.start(Shape::OneProcess);
    until_there_are(&rig, 5);
    let complete = serde_json::json!({ "outcome": "complete", "records": 5 });
    let told = || rig.ask_json(&["status"])["collect"]["devices"][0]["retrieved"] == complete;
    assert!(wait_until(SOON, told), "what belongs to a record is none: {:#}", rig.ask_json(&["status"]));
    let messages = rig.records();
    let of_meter = messages.iter().map(|message| &message.payload).filter(|payload| payload["metric"] == "glucose");
    let flags: Vec<_> = of_meter.map(|payload| payload["flags"].clone()).collect();
    assert_eq!(flags, vec![serde_json::json!(["fasting"]); 5], "each once, with its note");
    rig.stop();
}
