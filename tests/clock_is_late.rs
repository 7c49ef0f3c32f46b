//! A gateway that does not know the time yet loses nothing, guesses nothing, and says when things were measured as soon as
//! it can. A clock that is set again renames nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bedrail::collect::{
    Audit, ClockReport, CollectSettings, CollectStatus, CollectedDevice, Collector, Overhearing, RetainSettings, Windows,
};
use bedrail::gatt::sig_uuid;
use bedrail::radio::{Bonds, BootClock, Durable, Heard, RadioEvent, TrueTime};
use bedrail::reading::{
    Anchors, Body, BootMillis, ClockQuality, DeviceId, Nameplate, Record, SecurityLevel, Seq, SiteKey, Timestamp,
};
use bedrail::store::key::DataKey;
use bedrail::store::{OPEN, READ_LIMIT, Store, prepare};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use support::devices::{Kind, VirtualDevice};
use support::ledger::compare;
use support::rig::{Rig, Shape};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(30);
const LIVE: &str = "bedrail/gw-test/";
const CHART: &str = "bedrail/chart/";
const PATIENTS: &str = "[[patient]]\nkey = \"p-anna\"\n";

#[test]
fn values_wait_for_the_clock_and_are_then_told_with_the_right_time() {
    let an_hour_ago = jiff::Timestamp::try_from(SystemTime::now() - Duration::from_secs(3_600)).unwrap();
    let strap = VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap")
        .with_config(&format!("patient = \"p-anna\"\nfrom = {an_hour_ago:.0}"));
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[strap], "", PATIENTS);
    let chart = rig.route("chart", "bind = \"patient\"\ntopic = \"bedrail/chart/{device}/{metric}\"");
    rig.configure(&(rig.route("live", "") + &chart), PATIENTS);
    rig.clock.change(|clock| (clock.synchronized, clock.rtc_offset_us) = (false, None));
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    for _ in 0..4 {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(100));
    }
    let made = rig.made();
    let live = rig.wait_for_records(LIVE, SOON, |live| compare(&made, live).arrived == made.len());
    for message in &live {
        let payload = &message.payload;
        assert_eq!((&payload["measured_at"], &payload["received_at"]), (&Value::Null, &Value::Null), "{payload}");
        assert_eq!((&payload["measured_by"], &payload["subject"]), (&json!("unknown"), &Value::Null), "{payload}");
    }
    rig.wait_for_route("chart", SOON, |route| route["held"] == json!({ "no_clock": made.len() }));
    assert_eq!(rig.records_under(CHART).len(), 0);
    assert_eq!(rig.ask_json(&["status"])["collect"]["clock"], "unsynced");
    let refused = rig.refused(&["assign", "--device", "strap", "p-anna"], 1);
    assert!(refused.contains("does not know the time yet"), "{refused}");

    rig.clock.change(|clock| clock.synchronized = true);
    let chart = rig.wait_for_records(CHART, SOON, |chart| chart.len() >= made.len());
    let report = compare(&made, &chart);
    report.assert_sound();
    assert_eq!((report.arrived, report.duplicated), (made.len(), 0));
    for (index, message) in &report.matched {
        let payload = &chart[*message].payload;
        assert_eq!((&payload["lane"], &payload["subject"]), (&json!("backlog"), &json!("p-anna")));
        let told: jiff::Timestamp = payload["measured_at"].as_str().unwrap().parse().unwrap();
        let apart = told.duration_since(jiff::Timestamp::try_from(made[*index].at).unwrap()).abs();
        assert!(apart.as_millis() < 1_500, "{apart:?} off: {payload}");
    }
    rig.wait_for_route("chart", SOON, |route| route.get("held").is_none());
    assert_eq!(compare(&made, &rig.records_under(LIVE)).duplicated, 0, "what went without a time does not go again");
    rig.stop();
}

const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 1]);
const MINUTE_MS: i64 = 60_000;

/// A collect half with nothing around it: what the radio and the clock say is this test's.
struct Bench {
    _directory: tempfile::TempDir,
    store: Store,
    boot: BootClock,
    radio: mpsc::Sender<RadioEvent>,
    clock: mpsc::Sender<ClockReport>,
    stop: CancellationToken,
    half: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, site) = (DataKey::new([1; 32]), SiteKey::new(&[2; 32]));
        prepare(directory.path(), &key, &key).unwrap();
        let open = || Store::open(directory.path(), &key, site.clone(), "gw-test").unwrap();
        let (store, boot) = (open(), BootClock::read().unwrap());
        let device = CollectedDevice {
            id: DEVICE,
            name: "strap".to_owned(),
            kind: "heart-rate".to_owned(),
            zone: jiff::tz::TimeZone::UTC,
            profile: None,
            advert: None,
            nameplate: Nameplate::default(),
            fault: None,
        };
        let settings = CollectSettings {
            gateway: "gw-test".to_owned(),
            commit_interval: Duration::from_millis(10),
            commit_records: 256,
            devices: vec![device],
            retain: RetainSettings {
                state_dir: directory.path().to_owned(),
                horizon: Duration::from_secs(72 * 3_600),
                keep: Duration::from_secs(30 * 86_400),
                max_bytes: 1 << 30,
                free_floor: 0,
                condensed: [].into(),
                longest_window: Duration::ZERO,
            },
            durable: Durable::default(),
            bonds: Bonds::default(),
            time: TrueTime::default(),
            overhearing: Overhearing::default(),
        };
        let windows = Windows::new(
            "gw-test".to_owned(),
            BTreeMap::new(),
            BTreeMap::new(),
            TimeZone::UTC,
            Duration::from_secs(72 * 3_600),
            &store,
        )
        .unwrap();
        let (publish, _) = watch::channel(CollectStatus::default());
        let collector = Collector::new(settings, open(), windows, boot, publish, Box::new(|| {})).unwrap();
        let (radio, heard) = mpsc::channel(64);
        let (clock, reports) = mpsc::channel(4);
        let (_, to_audit) = Audit::channel();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let half = tokio::spawn(async move { collector.run(heard, reports, to_audit, until).await.unwrap() });
        Self { _directory: directory, store, boot, radio, clock, stop, half }
    }

    /// A heart rate heard this long ago.
    async fn hear(&self, rate: u8, ago_ms: u64) {
        let heard = Heard {
            device: DEVICE,
            characteristic: sig_uuid(0x2A37),
            octets: vec![0b110, rate],
            arrived: BootMillis(self.boot.now().0 - ago_ms),
            indicated: false,
            device_clock: None,
            security: SecurityLevel::None,
            nameplate: None,
        };
        self.radio.send(RadioEvent::Heard(heard)).await.unwrap();
    }

    async fn tell(&self, wall: Timestamp, quality: ClockQuality) {
        self.clock.send(ClockReport { at: self.boot.now(), wall, quality, uncertainty_ms: 50 }).await.unwrap();
    }

    async fn wait_for(&self, what: &str, condition: impl Fn(&[(Seq, Record)], &Anchors) -> bool) -> Vec<(Seq, Record)> {
        let end = std::time::Instant::now() + SOON;
        loop {
            let records = self.store.read(Seq(1), OPEN, READ_LIMIT).unwrap();
            if condition(&records, &self.store.anchors().unwrap()) {
                return records;
            }
            assert!(std::time::Instant::now() < end, "{what} did not come: {records:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Start, length in seconds, values and version of each window.
fn windows(records: &[(Seq, Record)]) -> Vec<(i64, u32, u32, u32)> {
    let window = |(_, record): &(Seq, Record)| match &record.body {
        Body::Window(window) => Some((window.start.0, window.length_s, window.n, record.version)),
        _ => None,
    };
    records.iter().filter_map(window).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_made_once_the_clock_is_known_and_a_step_renames_nothing() {
    let bench = Bench::start();
    for (rate, ago_ms) in [(70, 90_000), (72, 80_000), (74, 70_000)] {
        bench.hear(rate, ago_ms).await;
    }
    bench.tell(Timestamp(0), ClockQuality::Unsynced).await;
    bench.wait_for("three readings", |records, anchors| records.len() == 3 && anchors.iter().count() == 1).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(windows(&bench.store.read(Seq(1), OPEN, READ_LIMIT).unwrap()), [], "a window without a clock");

    // It is now 10:01:30, so the three were heard from 10:00:00 on, give or take; a minute later or earlier is all the same.
    let now = "2026-11-23T10:01:32Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    bench.tell(Timestamp(now), ClockQuality::Ntp).await;
    let minutes = |records: &[(Seq, Record)]| windows(records).into_iter().filter(|window| window.1 == 60).collect::<Vec<_>>();
    let all = bench.wait_for("a window", |records, _| minutes(records).iter().map(|window| window.2).sum::<u32>() == 3).await;
    let start = minutes(&all)[0].0;
    assert!(minutes(&all).iter().all(|window| window.3 == 1), "{:?}", minutes(&all));
    assert!(start % MINUTE_MS == 0 && now - start < 3 * MINUTE_MS, "{:?}", minutes(&all));

    // Somebody sets the clock ahead by an hour.
    let before = bench.store.anchors().unwrap().iter().count();
    bench.tell(Timestamp(now + 60 * MINUTE_MS), ClockQuality::Ntp).await;
    bench.wait_for("an anchor", |_, anchors| anchors.iter().count() == before + 1).await;
    bench.hear(80, 0).await;
    bench.tell(Timestamp(now + 62 * MINUTE_MS), ClockQuality::Ntp).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let after = bench.store.read(Seq(1), OPEN, READ_LIMIT).unwrap();
    assert_eq!(after[..all.len()], all[..], "what was in the log changed");
    let mut ids: Vec<_> = after.iter().map(|(_, record)| (record.id, record.version)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), after.len());
    let of_the_first = minutes(&after).iter().filter(|window| window.0 < now + 30 * MINUTE_MS).count();
    assert_eq!(of_the_first, minutes(&all).len(), "the step made windows of what was condensed before: {:?}", minutes(&after));
    bench.stop.cancel();
    bench.half.await.unwrap();
}
