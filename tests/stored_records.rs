//! What a device stored while nobody was near is fetched once it is connected: none lost, none twice, and nothing deleted.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use support::bluez::CharacteristicSpec;
use support::devices::{Clock, GLUCOSE, GLUCOSE_CONTEXT, Kind, RECORD_ACCESS, SPOT_CHECK, VirtualDevice, seconds};
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

/// Puts further characteristics into the device's first service, before anybody has heard it.
fn with_more(rig: &Rig, device: &VirtualDevice, more: &[(u16, &[&'static str], &[u8])]) {
    let mut spec = device.spec();
    let more = more.iter().map(|(short, flags, value)| CharacteristicSpec::new(*short, flags, value));
    spec.services[0].characteristics.extend(more);
    rig.bluez.add_device("hci0", spec);
    rig.bluez.advertise(&device.address, -60);
}

/// What arrived of a metric: how many records, and how many messages.
fn of_metric(rig: &Rig, metric: &str) -> (usize, usize) {
    let messages = rig.records();
    let records = messages.iter().filter(|message| message.payload["metric"] == metric);
    let ids: Vec<String> = records.map(|message| message.payload["record"].to_string()).collect();
    (ids.iter().collect::<BTreeSet<_>>().len(), ids.len())
}

#[test]
fn an_oximeter_is_asked_for_its_spot_checks_where_it_says_that_it_dates_them() {
    const OXIMETER: &str = "00:1C:05:00:00:22";
    // Storage and time stamps; storage alone.
    for (features, asked) in [([0b1100u8, 0], true), ([0b0100, 0], false)] {
        let device = VirtualDevice { clock: Clock::None, ..VirtualDevice::new(Kind::OximeterSpot, OXIMETER, "oximeter") };
        let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), std::slice::from_ref(&device), "carry = [\"readings\"]", "");
        with_more(&rig, &device, &[(0x2A60, &["read"], &features), (0x2A52, &["write", "indicate"], &[])]);
        let began = seconds(SystemTime::now()) - 86_400;
        let stored = (0..4).map(|n| (SPOT_CHECK, device.value(n, began + i64::try_from(n).unwrap() * 60).octets));
        let told: Vec<_> = stored.chain([(RECORD_ACCESS, vec![6, 0, 1, 1])]).collect();
        rig.bluez.set_answering(OXIMETER, RECORD_ACCESS, Arc::new(move |_| told.clone()));
        rig.start(Shape::OneProcess);
        rig.wait_until_heard(SOON);
        if !asked {
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(written(&rig), Vec::<String>::new(), "one without a time would come again and again");
            rig.stop();
            continue;
        }
        assert!(wait_until(SOON, || of_metric(&rig, "spo2").0 == 4), "{}", rig.logs());
        rig.bluez.drop_link(OXIMETER);
        rig.bluez.advertise(OXIMETER, -60);
        assert!(wait_until(SOON, || written(&rig).len() == 2), "{}", rig.logs());
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(written(&rig), ["0101", "0101"], "it can't count: all of it, each time");
        assert_eq!(of_metric(&rig, "spo2").0, 4, "and each is one record");
        rig.stop();
    }
}

#[test]
fn a_blood_pressure_told_live_and_read_again_from_the_memory_is_one() {
    const CUFF: &str = "A4:C1:38:00:00:24";
    const RECORD: Uuid = Uuid::from_u128(0x0000_2B36_0000_1000_8000_0080_5F9B_34FB);
    let device = VirtualDevice::new(Kind::Cuff, CUFF, "cuff");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), std::slice::from_ref(&device), "carry = [\"readings\"]", "");
    with_more(&rig, &device, &[(0x2B36, &["notify"], &[]), (0x2A52, &["write", "indicate"], &[])]);
    let began = seconds(SystemTime::now()) - 3_600;
    let measured: Vec<Vec<u8>> = (0..3).map(|n| device.value(n, began + i64::try_from(n).unwrap() * 60).octets).collect();
    // Each of 19 octets, in two segments with number and UUID.
    let segments = |n: u8, octets: &[u8]| {
        let of = |header: u8, piece: &[u8]| (RECORD, [&[header, n, 0, 0x35, 0x2A][..], piece].concat());
        [of(0b01, &octets[..10]), of(0b110, &octets[10..])]
    };
    let numbered = measured.iter().zip(1u8..).flat_map(|(octets, n)| segments(n, octets));
    let told: Vec<_> = numbered.chain([(RECORD_ACCESS, vec![6, 0, 1, 1])]).collect();
    rig.bluez.set_answering(CUFF, RECORD_ACCESS, Arc::new(move |_| told.clone()));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let complete = serde_json::json!({ "outcome": "complete", "records": 3 });
    let all = || rig.ask_json(&["status"])["collect"]["devices"][0]["retrieved"] == complete;
    assert!(wait_until(SOON, all), "{:#}", rig.ask_json(&["status"]));
    // It tells one of them as if it had just been measured, too.
    assert!(rig.bluez.notify(CUFF, device.characteristic(), &measured[1]));
    let twice = || rig.ask_json(&["status"])["collect"]["devices"][0]["duplicates"] == 2;
    assert!(wait_until(SOON, twice), "pressure and pulse: {:#}", rig.ask_json(&["status"]));
    assert!(wait_until(SOON, || of_metric(&rig, "blood_pressure").0 == 3), "{}", rig.logs());
    rig.stop();
}
