//! Retention at the library's level: exact by octets, settled before owed, and every record that goes while somebody owed it
//! is in a gap record of the same commit.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use bedrail::collect::{Pass, Retain, RetainSettings};
use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Identity, OPEN, RouteChange, RouteRow, Store, prepare};

const BOOT: BootId = BootId([9; 16]);
const NOW: BootMillis = BootMillis(400 * 86_400_000);
const MIB: u64 = 1 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    anchors: Anchors,
    route: RouteRow,
}

impl Fixture {
    fn new(quality: ClockQuality) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = DataKey::new([7; 32]);
        prepare(dir.path(), &key, &DataKey::new([8; 32])).unwrap();
        let mut store = Store::open(dir.path(), &key, SiteKey::new(&[1; 32]), "gw-1").unwrap();
        let anchor = Anchor { boot: BOOT, at: BootMillis(0), wall: Timestamp(1_700_000_000_000), quality, uncertainty_ms: 50 };
        store.add_anchor(&anchor).unwrap();
        let route = store.register_routes(&[("live", "mqtt", true)], 0).unwrap().remove(0);
        Self { dir, anchors: store.anchors().unwrap(), store, route }
    }

    /// Frames of 32 heart rates each, all at one time.
    fn fill(&mut self, frames: u64, at: BootMillis) {
        for frame in 0..frames {
            self.store.append((0..32).map(|n| heart_rate(at, frame * 32 + n)).collect()).unwrap();
        }
    }

    fn settle_to(&mut self, seq: Seq) {
        let mut change = RouteChange { lanes: self.store.lanes(self.route.n).unwrap(), ..RouteChange::default() };
        change.lanes.live.remove(Seq(1), seq);
        self.store.apply(self.route.n, &change).unwrap();
    }

    fn retain(&self, keep_days: u64, max_bytes: u64) -> Retain {
        Retain::new(RetainSettings {
            state_dir: self.dir.path().to_owned(),
            horizon: Duration::from_secs(72 * 3_600),
            keep: Duration::from_secs(keep_days * 86_400),
            max_bytes,
            free_floor: 0,
            condensed: BTreeSet::from([Metric::HeartRate]),
            longest_window: Duration::from_secs(900),
        })
    }

    /// Passes until there is nothing more to do.
    fn run(&mut self, retain: &mut Retain) -> (u64, u64, Pass) {
        let (mut records, mut unsettled) = (0, 0);
        for _ in 0..10_000 {
            let pass = retain.pass(&mut self.store, &self.anchors, BOOT, NOW).unwrap();
            records += pass.evicted.records;
            unsettled += pass.evicted.unsettled;
            if !pass.unfinished {
                return (records, unsettled, pass);
            }
        }
        panic!("retention never came to an end");
    }

    fn all(&self) -> Vec<(Seq, Record)> {
        let (mut all, mut next) = (Vec::new(), Seq(1));
        loop {
            let page = self.store.read(next, OPEN, 1_000).unwrap();
            let Some((last, _)) = page.last() else { return all };
            next = last.next();
            all.extend(page);
        }
    }

    fn gaps(&self) -> Vec<Gap> {
        let gap = |(_, record): (Seq, Record)| match record.body {
            Body::Gap(gap) => Some(gap),
            _ => None,
        };
        self.all().into_iter().filter_map(gap).collect()
    }
}

fn stream(device: DeviceId, metric: Metric, modality: Modality) -> StreamKey {
    StreamKey { device, user: None, metric, site: None, modality }
}

fn draft(stream: StreamKey, at: BootMillis, value: i64) -> Draft {
    let reading = Reading {
        value: Value::Number { value: Decimal::new(value, 0), unit: Unit::PerMinute },
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::Unknown,
    };
    let stamp = Stamp { boot: BOOT, arrived: at, device_time: None, device_clock: None, stored: false };
    Draft {
        identity: Identity::Arrival,
        device: stream.device,
        stream: Some(stream),
        stamp,
        body: Body::Reading(reading),
        nameplate: None,
    }
}

fn heart_rate(at: BootMillis, n: u64) -> Draft {
    // No pattern a compressor could make nothing of.
    let value = 40 + (n.wrapping_mul(2_654_435_761) >> 7) % 160;
    let device = DeviceId::new([1, 2, 3, 4, 5, (n % 8) as u8]);
    draft(stream(device, Metric::HeartRate, Modality::Continuous), at, value as i64)
}

fn cuff(at: BootMillis, n: u64) -> Draft {
    let device = DeviceId::new([9; 6]);
    draft(stream(device, Metric::PulseRateCuff, Modality::Spot), at, n as i64)
}

const fn days_ago(days: u64) -> BootMillis {
    BootMillis(NOW.0 - days * 86_400_000)
}

#[test]
fn the_log_is_kept_within_max_bytes_to_a_hundredth() {
    let mut fixture = Fixture::new(ClockQuality::Ntp);
    let mut retain = fixture.retain(300, 2 * MIB);
    for _ in 0..7 {
        fixture.fill(400, days_ago(10));
        let head = fixture.store.head().unwrap();
        fixture.settle_to(head);
        let (_, unsettled, pass) = fixture.run(&mut retain);
        assert_eq!(unsettled, 0);
        assert!(pass.room.live() <= 2 * MIB, "{:?}", pass.room);
    }
    let pass = retain.pass(&mut fixture.store, &fixture.anchors, BOOT, NOW).unwrap();
    assert!(pass.room.live() > 2 * MIB * 99 / 100, "more went than had to: {:?}", pass.room);
    assert!(fixture.gaps().is_empty(), "what is settled and beyond correction goes without a word");
    let records = fixture.all();
    let head = fixture.store.head().unwrap();
    assert_eq!(records.last().map(|(seq, _)| *seq), Some(head));
    let (first, count) = (records[0].0, records.len() as u64);
    assert!(first > Seq(1) && count == head.0 - first.0 + 1, "the oldest went, and nothing else");
}

#[test]
fn what_is_old_and_settled_goes_and_what_is_owed_stays_however_old() {
    let mut fixture = Fixture::new(ClockQuality::Ntp);
    fixture.fill(20, days_ago(100));
    fixture.settle_to(Seq(10 * 32));
    fixture.fill(20, days_ago(1));
    let mut retain = fixture.retain(30, 64 * MIB);
    let (records, unsettled, _) = fixture.run(&mut retain);
    assert_eq!((records, unsettled), (10 * 32, 0));
    fixture.settle_to(Seq(40 * 32));
    assert_eq!(fixture.run(&mut retain).0, 10 * 32, "settled meanwhile");
    assert!(fixture.gaps().is_empty());
    assert_eq!(fixture.store.register_routes(&[("new", "mqtt", true)], 0).unwrap().len(), 1);
    let row = fixture.store.route("new").unwrap().unwrap();
    let first = fixture.store.lanes(row.n).unwrap().live.iter().next().unwrap().0;
    assert_eq!(first, Seq(20 * 32 + 1), "a new route begins at what there is");
}

#[test]
fn nothing_goes_by_age_while_the_clock_is_unsynced() {
    let mut fixture = Fixture::new(ClockQuality::Unsynced);
    fixture.fill(20, days_ago(300));
    fixture.settle_to(Seq(20 * 32));
    let mut retain = fixture.retain(30, 64 * MIB);
    assert_eq!(fixture.run(&mut retain).0, 0);
    let synced = Anchor {
        boot: BOOT,
        at: days_ago(1),
        wall: Timestamp(1_795_000_000_000),
        quality: ClockQuality::Ntp,
        uncertainty_ms: 50,
    };
    fixture.store.add_anchor(&synced).unwrap();
    fixture.anchors = fixture.store.anchors().unwrap();
    assert_eq!(fixture.run(&mut retain).0, 19 * 32, "all but the newest frame");
    assert_eq!(fixture.store.head().unwrap(), Seq(20 * 32), "numbers go on");
}

#[test]
fn under_pressure_streams_go_before_what_was_measured_one_by_one_and_gaps_account_for_all() {
    let mut fixture = Fixture::new(ClockQuality::Ntp);
    for n in 0..200 {
        fixture.store.append(vec![cuff(days_ago(2), n)]).unwrap();
        fixture.fill(5, days_ago(2));
    }
    let head = fixture.store.head().unwrap();
    // Windows are made up to yesterday: these values are condensed.
    let until = fixture.anchors.wall(BOOT, days_ago(1)).unwrap().at.0 as u64;
    fixture.store.append_and_mark(vec![], &[("windows_until", until)]).unwrap();
    let mut retain = fixture.retain(300, 500 << 10);
    let (records, unsettled, pass) = fixture.run(&mut retain);
    assert!(pass.room.live() <= 500 << 10 && records > 0, "{pass:?}");
    assert_eq!(records, unsettled, "nothing was settled");
    let left = fixture.all();
    let cuffs = left.iter().filter(|(_, record)| record.device == DeviceId::new([9; 6]) && record.body.kind() == "reading");
    assert_eq!(cuffs.count(), 200, "values measured one by one are worth more");
    let gaps = fixture.gaps();
    assert!(
        gaps.iter().all(|gap| gap.reason == GapReason::Thinned && gap.routes == ["live"] && gap.from.is_some()),
        "{:?}",
        gaps[0]
    );
    let left_of_old = left.iter().filter(|(seq, _)| *seq <= head).count() as u64;
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), head.0 - left_of_old, "every record is there or accounted for");
    for (seq, _) in left.iter().filter(|(seq, _)| *seq <= head) {
        assert_eq!(fixture.store.next_present(*seq).unwrap(), Some(*seq));
    }
}

#[test]
fn a_gap_that_must_go_hands_its_count_on() {
    let mut fixture = Fixture::new(ClockQuality::Ntp);
    fixture.fill(1_200, days_ago(2));
    let head = fixture.store.head().unwrap();
    for max_bytes in [700 << 10, 500 << 10, 300 << 10] {
        let mut retain = fixture.retain(300, max_bytes);
        fixture.run(&mut retain);
    }
    let left = fixture.all().into_iter().filter(|(seq, _)| *seq <= head).count() as u64;
    let gaps = fixture.gaps();
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::Evicted), "no windows were made");
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), head.0 - left);
}

#[test]
fn a_route_gone_from_the_config_pins_nothing_after_a_week() {
    let mut fixture = Fixture::new(ClockQuality::Ntp);
    fixture.fill(20, days_ago(100));
    let now = fixture.anchors.wall(BOOT, NOW).unwrap().at.0;
    fixture.store.register_routes(&[], now - 6 * 86_400_000).unwrap();
    let mut retain = fixture.retain(30, 64 * MIB);
    assert_eq!(fixture.run(&mut retain).0, 0, "six days are no week");
    fixture.store.register_routes(&[("live", "mqtt", true)], now).unwrap();
    fixture.store.register_routes(&[], now - 8 * 86_400_000).unwrap();
    assert_eq!(fixture.run(&mut retain).0, 19 * 32);
}

#[test]
fn what_went_within_the_correction_horizon_is_said_and_what_a_device_named_is_forgotten() {
    let mut fixture = Fixture::new(ClockQuality::Ntp);
    let key = SiteKey::new(&[1; 32]);
    let id = key.sent_id(DeviceId::new([9; 6]), None, 0x2A35, Some(1), None, Metric::PulseRateCuff, 0);
    let sent = || Draft {
        identity: Identity::Sent { id, digest: [1; 8], conflict: key.conflict_id(id, b"x") },
        ..cuff(days_ago(2), 60)
    };
    fixture.store.append(vec![sent()]).unwrap();
    assert_eq!(fixture.store.append(vec![sent()]).unwrap().duplicates, 1);
    fixture.fill(800, days_ago(2));
    let head = fixture.store.head().unwrap();
    fixture.settle_to(head);
    let mut retain = fixture.retain(300, 500 << 10);
    let (records, unsettled, _) = fixture.run(&mut retain);
    assert!(records > 0 && unsettled == 0);
    let gaps = fixture.gaps();
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::CorrectionHorizon && gap.routes.is_empty()));
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), records);
    assert_eq!(fixture.store.append(vec![sent()]).unwrap().duplicates, 0, "what is gone is a new record when it comes again");
}
