//! What is done with a device besides listening: a sensor's session, users' consent, the clock. With the real binary.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::devices::{
    BODY_COMPOSITION, CURRENT_TIME, Kind, RECORD_ACCESS, SENSOR, SENSOR_FEATURE, SENSOR_STATUS, SESSION_START, USER_CONTROL,
    VirtualDevice, composition, date_time, seconds,
};
use support::pki::install_credential;
use support::process::wait_until;
use support::rig::{Rig, Shape};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);
const WORN: &str = "A4:C1:38:00:00:1F";
const SCALE: &str = "A4:C1:38:00:00:1B";
const CUFF: &str = "A4:C1:38:00:00:04";

fn rig(device: &VirtualDevice) -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_bedrail"), std::slice::from_ref(device), "carry = [\"readings\", \"events\"]", "")
}

/// What arrived of a metric, each record once.
fn arrived(rig: &Rig, metric: &str) -> Vec<Value> {
    let mut records = BTreeSet::new();
    let payloads = rig.records().into_iter().map(|message| message.payload).filter(|payload| payload["metric"] == metric);
    payloads.filter(|payload| records.insert(payload["record"].to_string())).collect()
}

fn until_there_are(rig: &Rig, metric: &str, count: usize) -> Vec<Value> {
    assert!(wait_until(SOON, || arrived(rig, metric).len() >= count), "{:#?}\n{}", arrived(rig, metric), rig.logs());
    arrived(rig, metric)
}

/// What was written to the device, oldest first.
fn written(rig: &Rig) -> Vec<String> {
    let calls = rig.bluez.calls();
    calls.iter().filter(|call| call.member == "WriteValue").map(|call| call.detail.clone()).collect()
}

fn of_device(rig: &Rig, field: &str) -> Value {
    rig.ask_json(&["status"])["collect"]["devices"][0][field].clone()
}

fn until_told(rig: &Rig, field: &str, what: &Value) {
    assert!(wait_until(SOON, || of_device(rig, field) == *what), "{:#}\n{}", of_device(rig, field), rig.logs());
}

fn link_anew(rig: &Rig, address: &str) {
    rig.bluez.drop_link(address);
    rig.bluez.advertise(address, -60);
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

/// A sensor by the CGM Profile, without checksums.
struct Worn {
    device: VirtualDevice,
    /// When its session began, and the minutes of its records.
    session: Mutex<(i64, Vec<u16>)>,
}

impl Worn {
    fn new(device: &VirtualDevice, began: i64, minutes: std::ops::RangeInclusive<u16>) -> Arc<Self> {
        Arc::new(Self { device: device.clone(), session: Mutex::new((began, minutes.collect())) })
    }

    fn place(self: &Arc<Self>, rig: &Rig) {
        rig.bluez.set_value(WORN, SENSOR_FEATURE, &[0, 0, 0, 0x11, 0xFF, 0xFF]);
        let started = self.clone();
        let start = move || [&date_time(started.session.lock().unwrap().0)[..], &[0, 0]].concat();
        rig.bluez.set_live_value(WORN, SESSION_START, Arc::new(start));
        let status = self.clone();
        let status = move || {
            let minutes = u16::try_from((now() - status.session.lock().unwrap().0) / 60).unwrap();
            [&minutes.to_le_bytes()[..], &[0, 0, 0]].concat()
        };
        rig.bluez.set_live_value(WORN, SENSOR_STATUS, Arc::new(status));
        let answers = self.clone();
        rig.bluez.set_answering(WORN, RECORD_ACCESS, Arc::new(move |request| answers.answer(request)));
    }

    fn answer(&self, request: &[u8]) -> Vec<(Uuid, Vec<u8>)> {
        let (_, stored) = &*self.session.lock().unwrap();
        let found: Vec<u16> = match request {
            [1, 1] => stored.clone(),
            [1, 6] => stored.last().copied().into_iter().collect(),
            [1, 3, 1, low, high] => stored.iter().copied().filter(|n| *n >= u16::from_le_bytes([*low, *high])).collect(),
            other => panic!("nobody may write {other:02x?}"),
        };
        // Two records a value, as a sensor with room for them does.
        let record = |minute: &u16| self.device.value(u64::from(*minute), 0).octets;
        let mut told: Vec<_> = found.chunks(2).map(|two| (SENSOR, two.iter().flat_map(record).collect())).collect();
        told.push((RECORD_ACCESS, vec![6, 0, 1, if found.is_empty() { 6 } else { 1 }]));
        told
    }
}

#[test]
fn a_sensors_records_have_the_times_of_their_session_and_each_comes_once() {
    let device = VirtualDevice::new(Kind::Sensor, WORN, "sensor");
    let mut rig = rig(&device);
    let began = (now() - 7_200) / 60 * 60;
    let worn = Worn::new(&device, began, 100..=110);
    worn.place(&rig);
    rig.start(Shape::OneProcess);
    let glucose = "glucose.interstitial";
    for reading in until_there_are(&rig, glucose, 11) {
        let minute = reading["sequence"].as_i64().unwrap();
        let measured: jiff::Timestamp = reading["measured_at"].as_str().unwrap().parse().unwrap();
        let off = measured.as_second() - (began + minute * 60);
        assert!(off.abs() <= 61, "its clock counts minutes: {off} s off, {reading}");
        assert_eq!((&reading["measured_by"], &reading["lane"]), (&json!("device_clock"), &json!("backlog")));
        assert!(reading["measured_uncertainty_ms"].as_u64().unwrap() >= 60_000, "and says so: {reading}");
    }
    until_told(&rig, "retrieved", &json!({ "outcome": "complete", "records": 11 }));

    // It measures on, and what is told live is not told again.
    let live = u16::try_from((now() - began) / 60).unwrap();
    assert!(rig.bluez.notify(WORN, SENSOR, &device.value(u64::from(live), 0).octets));
    let of_now = until_there_are(&rig, glucose, 12).pop().unwrap();
    assert_eq!((&of_now["lane"], &of_now["sequence"]), (&json!("live"), &json!(live)));
    worn.session.lock().unwrap().1.push(live);
    link_anew(&rig, WORN);
    until_told(&rig, "retrieved", &json!({ "outcome": "complete", "records": 0 }));
    assert_eq!(written(&rig)[1..], [format!("010301{}00", hex(live + 1)), "0106".to_owned()]);

    // Another sensor on the same arm counts anew, and further than the first had counted.
    *worn.session.lock().unwrap() = (began + 60, (80..=119).collect());
    link_anew(&rig, WORN);
    until_there_are(&rig, glucose, 52);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(arrived(&rig, glucose).len(), 52, "the same minutes of two sessions are two records");
    assert_eq!(written(&rig).last().unwrap(), "0101");
    rig.stop();
}

/// The low octet; what is counted here is below 256.
fn hex(number: u16) -> String {
    format!("{number:02x}")
}

#[test]
fn a_sensor_without_the_time_is_told_it_only_where_that_is_wanted() {
    let waits = |config: &str| {
        let device = VirtualDevice::new(Kind::Sensor, WORN, "sensor").with_config(config);
        let mut rig = rig(&device);
        let worn = Worn::new(&device, now(), 0..=0);
        worn.place(&rig);
        let told: Arc<Mutex<Vec<u8>>> = Arc::new(Mutex::new(vec![0; 9]));
        let (shown, takes) = (told.clone(), told.clone());
        rig.bluez.set_live_value(WORN, SESSION_START, Arc::new(move || shown.lock().unwrap().clone()));
        let take = move |octets: &[u8]| {
            *takes.lock().unwrap() = octets.to_vec();
            vec![]
        };
        rig.bluez.set_answering(WORN, SESSION_START, Arc::new(take));
        rig.start(Shape::OneProcess);
        rig.wait_until_heard(SOON);
        (rig, told)
    };
    let (mut rig, told) = waits("set_clock = true");
    assert!(wait_until(SOON, || of_device(&rig, "retrieved").is_object()), "{}", rig.logs());
    let octets = told.lock().unwrap().clone();
    assert!(octets[..4] == date_time(now())[..4] && octets.len() == 9, "today: {octets:?}");
    until_there_are(&rig, "glucose.interstitial", 1);
    rig.stop();

    let (mut rig, told) = waits("");
    assert!(wait_until(SOON, || rig.logs().contains("the sensor has no time")), "{}", rig.logs());
    assert!(rig.bluez.notify(WORN, SENSOR, &rig.workers[0].device.value(0, 0).octets));
    let reading = until_there_are(&rig, "glucose.interstitial", 1).pop().unwrap();
    assert_eq!(reading["measured_by"], "ambiguous", "it may be of now, and nobody knows");
    assert_eq!((told.lock().unwrap().clone(), written(&rig)), (vec![0; 9], vec![]), "and it is asked for nothing");
    rig.stop();
}

#[test]
fn a_users_slot_is_opened_by_consent_and_a_wrong_code_is_named_and_not_tried_again() {
    let device = VirtualDevice::new(Kind::BodyScale, SCALE, "scale").with_config("consent = { credential = \"scale-consent\" }");
    let mut rig = rig(&device);
    let codes = rig.site.path("codes");
    std::fs::write(&codes, "1 4711\n2 4242\n").unwrap();
    install_credential(&codes, &rig.site.path("credentials/scale-consent"));
    // Each user's slot holds a value; the second one has another code.
    let answer = |request: &[u8]| match request {
        [2, 1, 0x67, 0x12] => vec![(USER_CONTROL, vec![0x20, 2, 1]), (BODY_COMPOSITION, composition(7, date_time(now()), 1).0)],
        [2, 2, ..] => vec![(USER_CONTROL, vec![0x20, 2, 5])],
        other => panic!("nobody may write {other:02x?}"),
    };
    rig.bluez.set_answering(SCALE, USER_CONTROL, Arc::new(answer));
    rig.start(Shape::OneProcess);
    let fat = until_there_are(&rig, "body_fat_percent", 1).pop().unwrap();
    assert_eq!((&fat["user"], &fat["value"]), (&json!(1), &json!(14.9)), "{fat}");
    until_told(&rig, "consent", &json!({ "1": "granted", "2": "refused" }));
    let named = || rig.ask(&["status"]).contains("consent_refused");
    assert!(wait_until(SOON, named), "{}", rig.ask(&["status"]));
    assert_eq!(written(&rig), ["02016712", "02029210"]);

    link_anew(&rig, SCALE);
    assert!(wait_until(SOON, || written(&rig).len() > 2), "{}", rig.logs());
    rig.measure(|_| true);
    until_there_are(&rig, "body_fat_percent", 2);
    assert_eq!(written(&rig)[2..], ["02016712"], "a device may lock a slot whose code is tried again");
    let logs = std::fs::read_to_string(rig.site.path("daemon-0.log")).unwrap();
    assert!(!logs.contains("4711") && !logs.contains("4242"), "a code stands in the log");
    rig.stop();
}

/// A clock that can be set: how far it is from the true time, in seconds.
fn settable_clock(rig: &Rig, address: &str, offset: i64) -> Arc<AtomicI64> {
    let offset = Arc::new(AtomicI64::new(offset));
    let (shows, takes) = (offset.clone(), offset.clone());
    let show = move || [&date_time(now() + shows.load(Ordering::SeqCst))[..], &[0, 0, 0]].concat();
    rig.bluez.set_live_value(address, CURRENT_TIME, Arc::new(show));
    let take = move |octets: &[u8]| {
        assert_eq!(octets.len(), 10);
        assert!(octets[..4] == date_time(now())[..4], "it is told another day: {octets:?}");
        takes.store(0, Ordering::SeqCst);
        vec![]
    };
    rig.bluez.set_answering(address, CURRENT_TIME, Arc::new(take));
    offset
}

#[test]
fn a_wrong_clock_is_set_only_after_what_was_stored_under_it_has_come_and_what_came_has_the_right_time() {
    let device = VirtualDevice::new(Kind::Cuff, CUFF, "cuff").with_config("set_clock = true");
    let mut rig = rig(&device);
    let offset = settable_clock(&rig, CUFF, -5_400);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    // It empties its memory: measured half an hour ago, on a clock an hour and a half behind.
    let measured_at = now() - 1_800;
    let value = device.value(1, measured_at - 5_400);
    assert!(rig.bluez.notify(CUFF, value.characteristic, &value.octets));
    until_told(&rig, "clock_set", &json!("set"));
    assert_eq!((offset.load(Ordering::SeqCst), written(&rig).len()), (0, 1));
    let value = device.value(2, now());
    assert!(rig.bluez.notify(CUFF, value.characteristic, &value.octets));
    let readings = until_there_are(&rig, "blood_pressure", 2);
    for (reading, expected, lane) in [(&readings[0], measured_at, "backlog"), (&readings[1], now(), "live")] {
        let measured: jiff::Timestamp = reading["measured_at"].as_str().unwrap().parse().unwrap();
        assert!((measured.as_second() - expected).abs() <= 3, "{reading}");
        assert_eq!((&reading["measured_by"], &reading["lane"]), (&json!("device_clock"), &json!(lane)));
    }
    link_anew(&rig, CUFF);
    until_told(&rig, "clock_set", &json!("right"));
    assert_eq!(written(&rig).len(), 1, "a clock that is right is left alone");
    rig.stop();
}

#[test]
fn a_clock_is_not_set_by_one_that_nobody_vouches_for() {
    let device = VirtualDevice::new(Kind::Cuff, CUFF, "cuff").with_config("set_clock = true");
    let mut rig = rig(&device);
    rig.clock.change(|clock| (clock.synchronized, clock.rtc_offset_us) = (false, None));
    settable_clock(&rig, CUFF, -5_400);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.measure(|_| true);
    assert!(wait_until(SOON, || rig.logs().contains("its clock is not set: ours is not synchronised")), "{}", rig.logs());
    assert_eq!(written(&rig), Vec::<String>::new());
    rig.stop();
}

#[test]
fn what_a_clock_that_was_set_could_mean_twice_is_ambiguous_also_after_a_restart() {
    let device = VirtualDevice::new(Kind::Cuff, CUFF, "cuff");
    let mut rig = rig(&device);
    let offset = settable_clock(&rig, CUFF, 0);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let tell = |rig: &Rig, n: u64, shown: i64| {
        let value = device.value(n, shown);
        assert!(rig.bluez.notify(CUFF, value.characteristic, &value.octets));
    };
    tell(&rig, 1, now());
    until_there_are(&rig, "blood_pressure", 1);
    rig.restart();

    // Somebody sets it back by two hours, between two connections and two runs.
    offset.store(-7_200, Ordering::SeqCst);
    link_anew(&rig, CUFF);
    rig.wait_until_heard(SOON);
    // Three hours ago by a clock that was right; and now, or two hours ago by the clock as it was.
    tell(&rig, 2, now() - 10_800);
    tell(&rig, 3, now() - 7_200);
    let readings = until_there_are(&rig, "blood_pressure", 3);
    let how = |n: usize| readings[n]["measured_by"].as_str().unwrap();
    assert_eq!([how(0), how(1), how(2)], ["device_clock", "device_clock", "ambiguous"], "{readings:#?}");
    let measured = |n: usize| readings[n]["measured_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    assert!((measured(1) - (now() - 10_800)).abs() < 30, "{readings:#?}");
    let moved = |rig: &Rig| -> Vec<Value> {
        let events = rig.records().into_iter().map(|message| message.payload["event"].clone());
        events.filter(|event| event["type"] == "clock_moved").collect()
    };
    assert!(wait_until(SOON, || !moved(&rig).is_empty()), "{}", rig.logs());
    let [event] = &moved(&rig)[..] else { panic!("{:#?}", moved(&rig)) };
    assert!(event["by_bedrail"] == false && (event["by_s"].as_i64().unwrap() + 7_200).abs() <= 2, "{event}");
    rig.stop();
}

#[test]
fn before_the_last_change_of_summer_time_a_clock_of_local_time_that_nobody_knew_is_ambiguous() {
    let zone = jiff::tz::TimeZone::get("Europe/Vienna").unwrap();
    let changed = zone.preceding(jiff::Timestamp::now()).next().unwrap().timestamp().as_second();
    let local = i64::from(zone.to_offset(jiff::Timestamp::now()).seconds());
    let device = VirtualDevice { clock_offset_s: local, ..VirtualDevice::new(Kind::Cuff, CUFF, "cuff") };
    let device = device.with_config("timezone = \"Europe/Vienna\"");
    let mut rig = rig(&device);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    for (n, at) in [(1, changed - 86_400), (2, changed + 60), (3, now())] {
        let value = device.value(n, at);
        assert!(rig.bluez.notify(CUFF, value.characteristic, &value.octets));
    }
    let mut readings = until_there_are(&rig, "blood_pressure", 3);
    readings.sort_by_key(|reading| reading["seq"].as_u64());
    let how: Vec<_> = readings.iter().map(|reading| reading["measured_by"].as_str().unwrap()).collect();
    assert_eq!(how, ["ambiguous", "device_clock", "device_clock"], "it may have followed the change, or not: {readings:#?}");
    rig.stop();
}
