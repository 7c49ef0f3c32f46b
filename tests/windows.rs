//! Windows and the choice of one stream per patient, against values worked out by hand. Every window here is made by the
//! path a reading takes: record, point, windower, and for what came late or was cut, the same function over the log.

use std::collections::BTreeMap;

use bedrail::clean::{Candidate, Choice, Late, Point, Preference, Slot, Windower, choose, cut, make_window};
use bedrail::reading::{
    Body, BootId, BootMillis, Class, Component, Decimal, DeviceId, Event, Exclusion, Metric, Modality, Nameplate, NoValue,
    Reading, Record, RecordId, Sample, SecurityLevel, Seq, SiteKey, Stamp, StreamKey, Timestamp, Unit, Value, Window,
    WindowSummary,
};
use bedrail::ward::{Change, EventSource, Ward, WardEvent};

/// 2026-11-23T12:00:00Z.
const NOON: Timestamp = Timestamp(1_795_435_200_000);
const MINUTE: Slot = Slot { start: NOON, length_s: 60 };
const OXI_1: DeviceId = DeviceId::new([0x00, 0x1C, 0x05, 0xAB, 0xCD, 0x01]);
const OXI_7: DeviceId = DeviceId::new([0x00, 0x1C, 0x05, 0xAB, 0xCD, 0x07]);

/// One value every five seconds from noon on, at a tenth of a percent.
const EVERY_FIVE_SECONDS: [&str; 12] =
    ["97.5", "97.5", "97.0", "96.5", "96.0", "97.0", "98.0", "98.5", "94.0", "94.5", "95.0", "95.5"];

#[test]
fn two_oximeters_on_one_patient_make_two_windows_whatever_their_rate() {
    let mut log = Log::default();
    oximeter_at_1_hz(&mut log, 36);
    oximeter_at_a_fifth_of_a_hz(&mut log);
    let windows = log.on_time();
    // 36 values: six of 91, ten each of 96, 97, 98. The 18th in order is the second 97. Sum 3456. It speaks for 36 of 60 s.
    let fast = Window {
        start: NOON,
        length_s: 60,
        from: NOON,
        to: after_noon(60),
        n: 36,
        unit: Unit::Percent,
        summary: Some(WindowSummary::Stats {
            median: sample(1, "97"),
            min: sample(30, "91"),
            max: sample(20, "98"),
            mean: d("96.0"),
        }),
        coverage_permille: 600,
        excluded: vec![(Exclusion::NoValue, 24)],
        source: (Seq(1), Seq(60)),
    };
    // 94.0 94.5 95.0 95.5 96.0 [96.5] 97.0 97.0 97.5 97.5 98.0 98.5: the 6th of 12. Sum 1157.0, over 12: 96.41666.
    let slow = Window {
        n: 12,
        summary: Some(WindowSummary::Stats {
            median: sample(15, "96.5"),
            min: sample(40, "94.0"),
            max: sample(35, "98.5"),
            mean: d("96.42"),
        }),
        coverage_permille: 1000,
        excluded: vec![],
        source: (Seq(61), Seq(72)),
        ..fast.clone()
    };
    assert_eq!(windows[&OXI_7], fast);
    assert_eq!(windows[&OXI_1], slow);
}

#[test]
fn one_of_two_oximeters_speaks_for_the_patient_and_the_other_is_named() {
    let prefer = ["oxi-07".to_owned(), "pulse-oximeter".to_owned()];
    let choice = |falls_off: i64, prefer: &[String], within: &str| {
        let mut log = Log::default();
        oximeter_at_1_hz(&mut log, falls_off);
        oximeter_at_a_fifth_of_a_hz(&mut log);
        let windows = log.on_time();
        let candidates = [(OXI_1, "oxi-01"), (OXI_7, "oxi-07")].map(|(device, device_name)| Candidate {
            device,
            device_name,
            device_kind: "pulse-oximeter",
            window: &windows[&device],
        });
        choose(&candidates, &Preference { prefer, agree_within: Some((d(within), Unit::Percent)), ..Default::default() })
    };
    let seven = |sources_disagree| Choice { chosen: Some(1), others: vec![OXI_1], sources_disagree };
    let one = |sources_disagree| Choice { chosen: Some(0), others: vec![OXI_7], sources_disagree };
    // 97 against 96.5.
    assert_eq!(choice(36, &prefer, "4"), seven(false));
    assert_eq!(choice(36, &prefer, "0.5"), seven(false));
    assert_eq!(choice(36, &prefer, "0.4"), seven(true));
    assert_eq!(choice(36, &[], "4"), one(false), "without preference the better covered one");
    assert_eq!(choice(30, &prefer, "4"), seven(false), "30 of 60 s are just enough");
    assert_eq!(choice(29, &prefer, "4"), one(false), "29 of 60 s are not");
}

#[test]
fn a_bed_change_in_mid_window_gives_each_patient_a_side() {
    let mut log = Log::default();
    oximeter_at_a_fifth_of_a_hz(&mut log);
    let ward = two_patients_in_one_bed(42);
    let (spo2, key) = (stream(OXI_1, Metric::Spo2), SiteKey::new(&[7; 32]));
    let uncut = key.window_id("3w-gw-01", &spo2, 60, NOON);
    let edges = ward.edges(OXI_1, None, MINUTE.start, MINUTE.end());
    let side = |(from, to)| {
        let id = if from == MINUTE.start { uncut } else { key.side_id(uncut, from) };
        let subject = ward.bind_span(OXI_1, None, from, to).expect("one patient").subject;
        let window = make_window(&spo2, MINUTE, from, to, &log.points(spo2)).expect("values on both sides");
        (id, subject.to_string(), window)
    };
    let sides: Vec<_> = cut(MINUTE, &edges).into_iter().map(side).collect();
    // 94.0 96.0 96.5 97.0 [97.0] 97.5 97.5 98.0 98.5: the later 97.0. Sum 872.0, over 9: 96.888.
    let first = Window {
        start: NOON,
        length_s: 60,
        from: NOON,
        to: after_noon(42),
        n: 9,
        unit: Unit::Percent,
        summary: Some(WindowSummary::Stats {
            median: sample(25, "97.0"),
            min: sample(40, "94.0"),
            max: sample(35, "98.5"),
            mean: d("96.89"),
        }),
        coverage_permille: 1000,
        excluded: vec![],
        source: (Seq(1), Seq(9)),
    };
    // 94.5 [95.0] 95.5. The 94.0 of two seconds before the edge speaks for nothing here: 15 of 18 s.
    let second = Window {
        from: after_noon(42),
        to: after_noon(60),
        n: 3,
        summary: Some(WindowSummary::Stats {
            median: sample(50, "95.0"),
            min: sample(45, "94.5"),
            max: sample(55, "95.5"),
            mean: d("95.00"),
        }),
        coverage_permille: 833,
        source: (Seq(10), Seq(12)),
        ..first.clone()
    };
    let side_id = key.side_id(uncut, after_noon(42));
    assert_ne!(side_id, uncut);
    assert_eq!(sides, [(uncut, "p-017".to_owned(), first), (side_id, "p-018".to_owned(), second)]);
}

#[test]
fn what_another_device_sent_takes_no_part_in_a_window_and_is_counted() {
    let spo2 = stream(OXI_1, Metric::Spo2);
    let told = |serial: &str| Some(Nameplate { serial: Some(serial.to_owned()), model: None });
    let wanted = told("501").expect("a nameplate");
    let value = |text: &str| reading(spo2, Value::Number { value: d(text), unit: Unit::Percent });
    let off = record(spo2, Body::Event(Event::NoValue(NoValue::SensorOff)));
    let heard = [
        Record { nameplate: told("501"), ..value("97") },
        Record { nameplate: told("666"), ..value("60") },
        Record { nameplate: Some(Nameplate::default()), ..value("61") },
        Record { nameplate: told("666"), ..off },
        Record { nameplate: told("501"), ..value("95") },
    ];
    let points = |wanted: Option<&Nameplate>| -> Vec<Point> {
        let point = |(n, record): (usize, &Record)| Point::of(record, Seq(n as u64 + 1), after_noon(n as i64), wanted);
        heard.iter().enumerate().filter_map(point).collect()
    };
    let slot = Slot::containing(NOON, 60);
    let window = |wanted| make_window(&spo2, slot, slot.start, slot.end(), &points(wanted)).expect("a window");
    let mixed = window(Some(&wanted));
    assert_eq!((mixed.n, mixed.excluded), (2, vec![(Exclusion::DeviceMismatch, 3)]));
    let Some(WindowSummary::Stats { min, max, .. }) = mixed.summary else { panic!("no numbers") };
    assert_eq!((min.value, max.value), (d("95"), d("97")));
    let all = window(None);
    assert_eq!((all.n, all.excluded), (4, vec![(Exclusion::NoValue, 1)]), "where the config wants nothing");
}

#[test]
fn two_cuff_readings_in_one_slot_pass_one_by_one() {
    let cuff = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
    let pressure = StreamKey { modality: Modality::Spot, ..stream(cuff, Metric::BloodPressure) };
    for (seconds, systolic, diastolic) in [(5, "121", "79"), (50, "118", "77")] {
        let parts = vec![(Component::Systolic, Some(d(systolic))), (Component::Diastolic, Some(d(diastolic)))];
        let value = Value::Compound { parts, unit: Unit::MillimetreOfMercury };
        assert_eq!(Point::of(&reading(pressure, value), Seq(1), after_noon(seconds), None), None);
    }
    // Nor is a window made of spot values of a metric that has windows otherwise.
    let spot = StreamKey { modality: Modality::Spot, ..stream(OXI_1, Metric::Spo2) };
    let value = Value::Number { value: d("97"), unit: Unit::Percent };
    assert_eq!(Point::of(&reading(spot, value), Seq(1), NOON, None), None);
}

#[test]
fn a_late_batch_makes_the_window_that_would_have_been_made_on_time() {
    let mut log = Log::default();
    oximeter_at_a_fifth_of_a_hz(&mut log);
    let (early, late) = log.0.split_at(6);
    let mut windower = minutes();
    for (stream, point) in early {
        assert_eq!(windower.push(*stream, *point), []);
    }
    let version_1 = windower.close(after_noon(65)).windows.pop().expect("a window").1;
    // 0 to 25 s, the last of them speaking to 35 s. 96.0 96.5 [97.0] 97.0 97.5 97.5; sum 581.5, over 6: 96.91666.
    let summary =
        WindowSummary::Stats { median: sample(10, "97.0"), min: sample(20, "96.0"), max: sample(0, "97.5"), mean: d("96.92") };
    assert_eq!((version_1.n, version_1.coverage_permille, version_1.summary.as_ref()), (6, 583, Some(&summary)));

    let spo2 = stream(OXI_1, Metric::Spo2);
    for (stream, point) in late {
        assert_eq!(windower.push(*stream, *point), [Late { stream: spo2, slot: MINUTE }], "at {}", point.at);
    }
    let version_2 = make_window(&spo2, MINUTE, MINUTE.start, MINUTE.end(), &log.points(spo2)).expect("a window");
    assert_eq!(version_2, log.on_time()[&OXI_1]);
    assert_ne!(version_2, version_1);
}

#[test]
fn a_counter_that_resets_counts_from_zero_again() {
    let mut log = Log::default();
    let energy = stream(OXI_1, Metric::EnergyExpended);
    for (seconds, value) in [(-5, "100"), (10, "110"), (20, "125"), (30, "5"), (40, "12"), (50, "12")] {
        log.value(energy, seconds, value);
    }
    let mut windower = minutes();
    for (stream, point) in &log.0 {
        windower.push(*stream, *point);
    }
    let closed = windower.close(after_noon(65)).windows;
    let window = &closed.iter().find(|(_, window)| window.start == NOON).expect("the minute after noon").1;
    // 10 from 100 to 110, 15 to 125, 5 after the restart, 7 to 12, 0.
    let summary = WindowSummary::Counter { increase: d("37"), resets: 1, last: sample(50, "12") };
    assert_eq!((window.n, window.unit, window.coverage_permille), (5, Unit::Kilojoule, 1000));
    assert_eq!((window.summary.as_ref(), window.source), (Some(&summary), (Seq(2), Seq(6))));
    // With nothing known from before noon the first value is where counting begins.
    let alone = make_window(&energy, MINUTE, NOON, MINUTE.end(), &log.points(energy)[1..]).expect("a window");
    let summary = WindowSummary::Counter { increase: d("27"), resets: 1, last: sample(50, "12") };
    assert_eq!((alone.summary, alone.coverage_permille), (Some(summary), 833));
}

/// The log of one test: what its devices sent, as points, numbered as they came.
#[derive(Default)]
struct Log(Vec<(StreamKey, Point)>);

impl Log {
    fn value(&mut self, stream: StreamKey, seconds: i64, value: &str) {
        let value = Value::Number { value: d(value), unit: stream.metric.row().units[0] };
        self.append(stream, seconds, &reading(stream, value));
    }

    fn sensor_off(&mut self, stream: StreamKey, seconds: i64) {
        self.append(stream, seconds, &record(stream, Body::Event(Event::NoValue(NoValue::SensorOff))));
    }

    fn append(&mut self, stream: StreamKey, seconds: i64, record: &Record) {
        let seq = Seq(self.0.len() as u64 + 1);
        let point = Point::of(record, seq, after_noon(seconds), None).expect("a point");
        self.0.push((stream, point));
    }

    fn points(&self, stream: StreamKey) -> Vec<Point> {
        self.0.iter().filter(|(of, _)| *of == stream).map(|(_, point)| *point).collect()
    }

    /// The one-minute windows of a gateway that heard everything on time.
    fn on_time(&self) -> BTreeMap<DeviceId, Window> {
        let mut windower = minutes();
        for (stream, point) in &self.0 {
            assert_eq!(windower.push(*stream, *point), []);
        }
        let closed = windower.close(after_noon(65));
        assert_eq!(closed.late, []);
        closed.windows.into_iter().map(|(stream, window)| (stream.device, window)).collect()
    }
}

fn minutes() -> Windower {
    let metrics = [Metric::Spo2, Metric::EnergyExpended];
    Windower::new(metrics.map(|metric| (metric, vec![60])).into(), after_noon(-60))
}

/// 97 for ten seconds, then 96, then 98, then 91; off the finger from `falls_off` to the end of the minute.
fn oximeter_at_1_hz(log: &mut Log, falls_off: i64) {
    let spo2 = stream(OXI_7, Metric::Spo2);
    for second in 0..60 {
        match second {
            _ if second >= falls_off => log.sensor_off(spo2, second),
            0..10 => log.value(spo2, second, "97"),
            10..20 => log.value(spo2, second, "96"),
            20..30 => log.value(spo2, second, "98"),
            _ => log.value(spo2, second, "91"),
        }
    }
}

fn oximeter_at_a_fifth_of_a_hz(log: &mut Log) {
    for (i, value) in EVERY_FIVE_SECONDS.iter().enumerate() {
        log.value(stream(OXI_1, Metric::Spo2), 5 * i as i64, value);
    }
}

/// The oximeter stands at a bed in which p-018 follows p-017.
fn two_patients_in_one_bed(changes_at: i64) -> Ward {
    let occupy = |who: &str| Change::Occupy { bed: "3W-301-B".into(), subject: who.parse().expect("a patient key") };
    let place = Change::Place { device: OXI_1, bed: "3W-301-B".into() };
    let history = [(-3600, place), (-1800, occupy("p-017")), (changes_at, occupy("p-018"))];
    let events = history.into_iter().enumerate().map(|(i, (seconds, change))| {
        let at = after_noon(seconds);
        let operator = "nurse".to_owned();
        WardEvent { n: i as u64 + 1, at, learned: at, source: EventSource::Command, operator, change }
    });
    Ward::fold(&events.collect::<Vec<_>>())
}

fn stream(device: DeviceId, metric: Metric) -> StreamKey {
    StreamKey { device, user: None, metric, site: None, modality: Modality::Continuous }
}

fn reading(stream: StreamKey, value: Value) -> Record {
    let security = SecurityLevel::Encrypted;
    let reading = Reading { value, class: Class::Measured, flags: vec![], sequence: None, part: 0, parts: 1, security };
    record(stream, Body::Reading(reading))
}

fn record(stream: StreamKey, body: Body) -> Record {
    let stamp = Stamp { boot: BootId([1; 16]), arrived: BootMillis(0), device_time: None, device_clock: None, stored: false };
    Record { id: RecordId([0; 16]), version: 1, device: stream.device, stream: Some(stream), stamp, body, nameplate: None }
}

fn sample(seconds: i64, value: &str) -> Sample {
    Sample { at: after_noon(seconds), value: d(value) }
}

fn after_noon(seconds: i64) -> Timestamp {
    NOON.plus_ms(seconds * 1000)
}

fn d(text: &str) -> Decimal {
    text.parse().expect("a decimal in a test")
}
