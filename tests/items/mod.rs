//! One record of each shape, as a renderer gets it.

// Each test file uses a part of it.
#![allow(dead_code)]

use bedrail::deliver::{DeviceLabel, Item, Lane};
use bedrail::reading::*;

pub const OXIMETER: DeviceId = DeviceId::new([0x00, 0x1C, 0x05, 0xAB, 0xCD, 0xEF]);
pub const NOON: Timestamp = Timestamp(1_795_435_200_000);

pub fn stream(metric: Metric, modality: Modality) -> StreamKey {
    StreamKey { device: OXIMETER, user: None, metric, site: None, modality }
}

pub fn reading(value: Value, class: Class) -> Reading {
    Reading { value, class, flags: vec![], sequence: None, part: 0, parts: 1, security: SecurityLevel::None }
}

pub fn item(stream: Option<StreamKey>, body: Body) -> Item {
    let stamp = Stamp { boot: BootId([9; 16]), arrived: BootMillis(5_000), device_time: None, device_clock: None, stored: false };
    let wall = WallTime { at: NOON, quality: ClockQuality::Ntp, uncertainty_ms: 10 };
    Item {
        seq: Seq(42),
        record: Record { id: RecordId([1; 16]), version: 1, device: OXIMETER, stream, stamp, body, nameplate: None },
        lane: Lane::Live,
        op: Op::Put,
        placement: Placement([2; 16]),
        chart: ChartId([3; 16]),
        subject: None,
        gateway: "3w-gw-01".into(),
        device: Some(DeviceLabel { name: "oxi-07".into(), kind: "thermometer".into() }),
        measured: Instant::Arrival(wall),
        received: Some(wall),
        sent: Some(NOON.plus_ms(2_000)),
        choice: None,
    }
}

pub fn temperature() -> Item {
    let value = Value::Number { value: Decimal::new(3660, -2), unit: Unit::DegreeCelsius };
    let body = Body::Reading(Reading {
        flags: vec![Flag::Implausible],
        sequence: Some(7),
        security: SecurityLevel::Encrypted,
        ..reading(value, Class::Questionable)
    });
    let key = StreamKey { user: Some(1), site: Some(Site::Mouth), ..stream(Metric::BodyTemperature, Modality::Spot) };
    let mut item = item(Some(key), body);
    let device_time = DeviceTime { year: Some(2026), month: Some(11), day: Some(23), hour: 13, minute: 0, second: 0 };
    item.record.stamp = Stamp { device_time: Some(device_time), stored: true, ..item.record.stamp };
    item.measured = Instant::DeviceClock(WallTime { at: NOON, quality: ClockQuality::Ntp, uncertainty_ms: 2_010 });
    item.received = Some(WallTime { at: NOON.plus_ms(1_500), quality: ClockQuality::Ntp, uncertainty_ms: 10 });
    item.subject = Some("p-017".parse().unwrap());
    item
}

pub fn blood_pressure() -> Body {
    let parts = vec![
        (Component::Systolic, Some(Decimal::new(120, 0))),
        (Component::Diastolic, Some(Decimal::new(80, 0))),
        (Component::Mean, None),
    ];
    Body::Reading(reading(Value::Compound { parts, unit: Unit::MillimetreOfMercury }, Class::Measured))
}

pub fn sample(mantissa: i64) -> Sample {
    Sample { at: NOON, value: Decimal::new(mantissa, -1) }
}

pub fn stats() -> Window {
    let summary = WindowSummary::Stats { median: sample(970), min: sample(940), max: sample(990), mean: Decimal::new(9685, -2) };
    window(Some(summary))
}

pub fn window(summary: Option<WindowSummary>) -> Window {
    Window {
        start: NOON,
        length_s: 60,
        from: NOON,
        to: NOON.plus_ms(60_000),
        n: 58,
        unit: Unit::Percent,
        summary,
        coverage_permille: 950,
        excluded: vec![(Exclusion::NoValue, 2), (Exclusion::Questionable, 1)],
        source: (Seq(1), Seq(61)),
    }
}

pub fn gap() -> Item {
    let body = Body::Gap(Gap {
        reason: GapReason::Evicted,
        run: Some((Seq(1), Seq(900))),
        from: Some(NOON),
        to: Some(NOON.plus_ms(900_000)),
        count: 900,
        routes: vec!["live".into()],
    });
    let mut gap = item(None, body);
    gap.record.device = DeviceId::GATEWAY;
    gap.device = None;
    gap
}

/// Fourteen, one of each shape a body can have.
pub fn every_kind() -> Vec<Item> {
    let spo2 = Some(stream(Metric::Spo2, Modality::Continuous));
    let last = WindowSummary::Last { last: sample(970) };
    let counter = WindowSummary::Counter { increase: Decimal::new(12, 0), resets: 1, last: sample(970) };
    let out = reading(Value::NoNumber { unit: Unit::MilligramPerDecilitre }, Class::OutOfRange(OutOfRange::Low));
    let retraction = Retraction { of: RecordId([7; 16]), version: 1, placement: Placement([8; 16]), route: "live".into() };
    let waveform = Waveform {
        origin: Decimal::ZERO,
        scale: Decimal::new(5, -3),
        unit: Unit::One,
        period_us: 4_000,
        samples: vec![0, -7, 12],
    };
    let condition = Event::Condition { name: "clock_unsynced".into(), raised: true, detail: "no NTP since boot".into() };
    vec![
        temperature(),
        item(Some(stream(Metric::Glucose, Modality::Spot)), Body::Reading(out)),
        item(Some(stream(Metric::BloodPressure, Modality::Spot)), blood_pressure()),
        item(spo2, Body::Window(stats())),
        item(Some(stream(Metric::GlucoseInterstitial, Modality::Continuous)), Body::Window(window(Some(last)))),
        item(Some(stream(Metric::EnergyExpended, Modality::Continuous)), Body::Window(window(Some(counter)))),
        item(spo2, Body::Window(window(None))),
        item(spo2, Body::Waveform(waveform)),
        item(spo2, Body::Event(Event::NoValue(NoValue::SensorOff))),
        item(None, Body::Event(condition)),
        gap(),
        item(spo2, Body::Retraction(retraction)),
        item(None, Body::Event(Event::Discarded { reason: "demo".into(), count: 3 })),
        item(None, Body::Event(Event::ClockMoved { by_s: -3_600, by_bedrail: true })),
        Item { op: Op::Retract, ..temperature() },
    ]
}
