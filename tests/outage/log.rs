//! A ward's log as numbers: which record stands at which position, without any record being made.

use bedrail::config::{Bind, History};
use bedrail::deliver::{Carry, Decision, Known, Lane, Rules, decide};
use bedrail::reading::*;
use bedrail::ward::Ward;
use jiff::tz::TimeZone;

/// Every device measures once a second; its windows of a minute and a quarter of an hour follow their last second.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    pub devices: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Reading,
    Minute,
    Quarter,
}

const QUARTER_S: u64 = 900;

impl Log {
    /// Records of a minute: its seconds, and a window for each device.
    const fn minute(self) -> u64 {
        self.devices * 61
    }

    const fn quarter(self) -> u64 {
        self.minute() * 15 + self.devices
    }

    /// The last number there is at this millisecond. Within a second the devices measure one after the other.
    pub const fn head(self, ms: u64) -> u64 {
        let (s, part) = (ms / 1_000, ms % 1_000);
        let (quarters, rest) = (s / QUARTER_S, s % QUARTER_S);
        let within = (rest / 60) * self.minute() + (rest % 60) * self.devices;
        quarters * self.quarter() + within + part * self.devices / 1_000
    }

    /// What stands at a position, of which device, and when it came.
    pub const fn at(self, seq: u64) -> (Kind, u64, u64) {
        let (quarter, rest) = ((seq - 1) / self.quarter(), (seq - 1) % self.quarter());
        if rest >= self.minute() * 15 {
            return (Kind::Quarter, rest - self.minute() * 15, (quarter + 1) * QUARTER_S * 1_000);
        }
        let (minute, rest) = (rest / self.minute(), rest % self.minute());
        if rest >= self.devices * 60 {
            return (Kind::Minute, rest - self.devices * 60, (quarter * QUARTER_S + (minute + 1) * 60) * 1_000);
        }
        let (second, device) = (quarter * QUARTER_S + minute * 60 + rest / self.devices, rest % self.devices);
        (Kind::Reading, device, second * 1_000 + ((device + 1) * 1_000).div_ceil(self.devices))
    }
}

/// Which kinds a route sends, by its own decision; it settles the others.
pub fn sent(carry: Carry) -> impl Fn(Kind) -> bool {
    let rules = Rules {
        bind: Bind::Device,
        carry,
        metrics: None,
        devices: None,
        hold_questionable: false,
        per_patient: false,
        spots: std::collections::BTreeMap::new(),
    };
    let (ward, anchors) = (Ward::default(), Anchors::default());
    let known = Known {
        ward: &ward,
        anchors: &anchors,
        zone: &TimeZone::UTC,
        history: History::New,
        nameplate: None,
        newest: 1,
        share: None,
    };
    let sends = |record: &Record| {
        let [live, backlog] = [Lane::Live, Lane::Backlog].map(|lane| decide(record, lane, &rules, &known));
        assert_eq!(live, backlog, "nothing here was stored by a device");
        match live {
            Decision::Send { .. } => true,
            Decision::Settle(_) => false,
            other => panic!("a device-bound route has no reason for {other:?}"),
        }
    };
    let [reading, minute, quarter] = [reading(), window(60), window(900)].map(|record| sends(&record));
    move |kind| match kind {
        Kind::Reading => reading,
        Kind::Minute => minute,
        Kind::Quarter => quarter,
    }
}

const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);

fn record(body: Body) -> Record {
    let stamp = Stamp { boot: BootId([1; 16]), arrived: BootMillis(0), device_time: None, device_clock: None, stored: false };
    let stream = StreamKey { device: DEVICE, user: None, metric: Metric::Spo2, site: None, modality: Modality::Continuous };
    Record { id: RecordId([2; 16]), version: 1, device: DEVICE, stream: Some(stream), stamp, body, nameplate: None }
}

fn reading() -> Record {
    record(Body::Reading(Reading {
        value: Value::Number { value: Decimal::new(97, 0), unit: Unit::Percent },
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::Unknown,
    }))
}

fn window(length_s: u32) -> Record {
    let to = Timestamp(i64::from(length_s) * 1_000);
    record(Body::Window(Window {
        start: Timestamp(0),
        length_s,
        from: Timestamp(0),
        to,
        n: 0,
        unit: Unit::Percent,
        summary: None,
        coverage_permille: 0,
        excluded: vec![(Exclusion::NoValue, 1)],
        source: (Seq(1), Seq(1)),
    }))
}
