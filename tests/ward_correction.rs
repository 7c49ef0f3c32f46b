//! One correction of the ward's history that touches everything a route has sent: how long it takes to look at all of it
//! again, in how much memory, and that what is live goes on meanwhile, on that route and on another. A million readings with
//! BEDRAIL_LONG, a few without.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Moment};

use bedrail::config::{Bind, Order, Retract, When};
use bedrail::deliver::{
    Capabilities, Carry, Destination, Happened, Item, Lane, NotSent, Route, RouteInputs, RouteSettings, RouteStatus, Rules, Sent,
    Token, Verdict,
};
use bedrail::monitor::Notice;
use bedrail::radio::BootClock;
use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Identity, READ_LIMIT, Store, prepare};
use bedrail::ward::{Change, EventSource, HoldReason, Ward, WardEvent};
use jiff::tz::TimeZone;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

const DEVICES: u8 = 20;
/// Of another patient, and measured while the others are looked at again.
const LIVE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 0xFF]);
const FRAME: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

/// Takes everything at once, and says when it took what is live.
struct Taker {
    said: VecDeque<Happened>,
    bell: Arc<Notify>,
    live: Arc<Mutex<BTreeMap<Seq, Moment>>>,
}

impl Destination for Taker {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: true, retract: true, order: true, batch: 1 }
    }

    fn connect(&mut self) {
        self.said = VecDeque::from([Happened::Up]);
        self.bell.notify_one();
    }

    fn room(&self) -> usize {
        1_024
    }

    fn room_for(&self, _: Lane) -> usize {
        self.room()
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        if item.record.device == LIVE {
            self.live.lock().unwrap().insert(item.seq, Moment::now());
        }
        self.said.push_back(Happened::Answered { token, verdict: Verdict::Settled });
        self.bell.notify_one();
        Ok(Sent::default())
    }

    fn flush(&mut self) -> Sent {
        Sent::default()
    }

    fn preview(&self, item: &Item) -> (String, String) {
        (String::new(), item.record.id.to_string())
    }

    fn announce(&mut self, _: &Notice) -> bool {
        true
    }

    async fn event(&mut self) -> Happened {
        loop {
            if let Some(happened) = self.said.pop_front() {
                return happened;
            }
            self.bell.notified().await;
        }
    }

    async fn close(&mut self, _: Option<&Notice>) {}
}

struct Running {
    route: i64,
    ward: watch::Sender<Arc<Ward>>,
    bell: watch::Sender<u64>,
    stop: CancellationToken,
    live: Arc<Mutex<BTreeMap<Seq, Moment>>>,
    thread: std::thread::JoinHandle<()>,
}

/// A route on a thread of its own, as the daemon has them.
fn start(dir: &Path, name: &'static str, bind: Bind, ward: Ward) -> Running {
    let mut store = open(dir);
    let row = store.register_routes(&[(name, "mqtt", bind == Bind::Patient)], 0).unwrap().remove(0);
    let route = row.n;
    let (ward, ward_now) = watch::channel(Arc::new(ward));
    let (bell, rings) = watch::channel(0);
    let (_commands, from_desk) = mpsc::channel(4);
    let (publish, _status) = watch::channel(RouteStatus::default());
    let stop = CancellationToken::new();
    let live: Arc<Mutex<BTreeMap<Seq, Moment>>> = Arc::default();
    let taker = Taker { said: VecDeque::new(), bell: Arc::default(), live: live.clone() };
    let inputs = RouteInputs { ward: ward_now, bell: rings, commands: from_desk, announce: None, publish, stop: stop.clone() };
    let settings = settings(name, bind);
    let thread = std::thread::spawn(move || {
        let _held_open = _commands;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Route::new(settings, store, row, boot(), inputs, taker).unwrap().run()).unwrap();
    });
    Running { route, ward, bell, stop, live, thread }
}

impl Running {
    fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

#[test]
fn a_correction_of_everything_is_found_in_bounded_memory_while_what_is_live_goes_on() {
    let count: u64 = if std::env::var_os("BEDRAIL_LONG").is_some() { 1_000_000 } else { 20_000 };
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &key(), &key()).unwrap();
    let (mut store, began) = (open(dir.path()), clock(dir.path()));
    for first in (0..count).step_by(FRAME as usize) {
        let drafts = (first..first + FRAME).map(|n| draft(device(n), began.0.0 + n * began.2 / count));
        store.append(drafts.collect()).unwrap();
    }
    let mut events: Vec<Change> = (0..DEVICES).map(|n| Change::Place { device: device(u64::from(n)), bed: "7".into() }).collect();
    events.push(Change::Occupy { bed: "7".into(), subject: "p-anna".parse().unwrap() });
    events.push(Change::Place { device: LIVE, bed: "9".into() });
    events.push(Change::Occupy { bed: "9".into(), subject: "p-cleo".parse().unwrap() });
    let chart = start(dir.path(), "chart", Bind::Patient, ward(&events, began.1));
    let began_sending = Moment::now();
    wait(|| owed(&store, chart.route) == 0);
    let sent_in = began_sending.elapsed();

    let other = start(dir.path(), "live", Bind::Device, Ward::default());
    let [other_before, chart_before] = feed(&mut store, [&other, &chart], 50, || false);
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (resident, corrected_at) = (kib("VmRSS"), Moment::now());
    events.push(Change::Occupy { bed: "7".into(), subject: "p-bert".parse().unwrap() });
    chart.ward.send_replace(Arc::new(ward(&events, began.1)));
    let reader = open(dir.path());
    let mut found_in = None;
    let is_found = || {
        let held = reader.held(chart.route).unwrap();
        let waiting = held.iter().filter(|run| run.reason == HoldReason::AwaitingDecision).map(|run| run.count).sum::<u64>();
        waiting == count
    };
    let [other_during, chart_during] = feed(&mut store, [&other, &chart], 100_000, || {
        let found = is_found();
        if found {
            found_in.get_or_insert(corrected_at.elapsed());
        }
        found
    });
    let (found_in, peak) = (found_in.expect("all of it is found"), kib("VmHWM"));
    println!(
        "{count} readings: sent in {:.1} s; after one correction all looked at again and held in {:.1} s ({:.0} a second), \
         {resident} KiB resident before, {peak} KiB at most",
        sent_in.as_secs_f64(),
        found_in.as_secs_f64(),
        count as f64 / found_in.as_secs_f64(),
    );
    println!("from log to destination, the same route: before {}; meanwhile {}", spread(&chart_before), spread(&chart_during));
    println!("another route: before {}; meanwhile {}", spread(&other_before), spread(&other_during));
    let pages = count as usize / READ_LIMIT;
    assert!(chart_during.len() > pages / 4, "{} live readings went in the time of {pages} pages", chart_during.len());
    let rows = reader.held(chart.route).unwrap();
    let rows = rows.iter().filter(|run| run.reason == HoldReason::AwaitingDecision).count();
    assert_eq!(rows, usize::from(DEVICES), "one entry a device to decide, whatever the number of its readings");
    assert!(peak < resident + 64 * 1_024, "looking at {count} readings took {} KiB more", peak - resident);
    chart.stop();
    other.stop();
}

/// One reading after the other, each as soon as the one before has arrived on both routes; how long each took from the log to
/// the other end.
fn feed(store: &mut Store, routes: [&Running; 2], most: usize, mut enough: impl FnMut() -> bool) -> [Vec<Duration>; 2] {
    let mut took = [Vec::new(), Vec::new()];
    while took[0].len() < most && !enough() {
        let seq = store.append(vec![draft(LIVE, boot().now().0)]).unwrap().records[0].unwrap().0;
        let appended = Moment::now();
        routes.iter().for_each(|route| route.bell.send_modify(|rings| *rings += 1));
        for (took, route) in took.iter_mut().zip(routes) {
            let mut arrived = None;
            wait(|| {
                arrived = route.live.lock().unwrap().get(&seq).copied();
                arrived.is_some()
            });
            took.push(arrived.unwrap().saturating_duration_since(appended));
        }
    }
    assert!(!took[0].is_empty());
    took
}

fn spread(took: &[Duration]) -> String {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = |part: usize| sorted[(sorted.len() - 1) * part / 100].as_secs_f64() * 1_000.0;
    format!(
        "{} readings, half within {:.1} ms, 99 of 100 within {:.1} ms, the slowest {:.1} ms",
        sorted.len(),
        at(50),
        at(99),
        at(100)
    )
}

fn wait(mut done: impl FnMut() -> bool) {
    let end = Moment::now() + PATIENCE;
    while !done() {
        assert!(Moment::now() < end, "it never comes to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn owed(store: &Store, route: i64) -> u64 {
    let (lanes, head) = (store.lanes(route).unwrap(), store.head().unwrap());
    lanes.live.count_to(head) + lanes.backlog.count_to(head)
}

fn kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Since boot and on the wall when the history begins, and how long ago that was: what the machine has been up for, an hour at
/// most.
fn clock(dir: &Path) -> (BootMillis, Timestamp, u64) {
    let now = boot().now();
    let span = now.0.min(3_600_000);
    let (began, wall) = (BootMillis(now.0 - span), jiff::Timestamp::now().as_millisecond() - span as i64);
    let anchor = Anchor { boot: boot().id(), at: began, wall: Timestamp(wall), quality: ClockQuality::Ntp, uncertainty_ms: 0 };
    open(dir).add_anchor(&anchor).unwrap();
    (began, Timestamp(wall), span)
}

fn ward(changes: &[Change], at: Timestamp) -> Ward {
    let event = |(n, change): (u64, &Change)| WardEvent {
        n,
        at,
        learned: at,
        source: EventSource::Command,
        operator: "nurse".into(),
        change: change.clone(),
    };
    Ward::fold(&(1..).zip(changes).map(event).collect::<Vec<_>>())
}

fn device(n: u64) -> DeviceId {
    DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, (n % u64::from(DEVICES)) as u8])
}

fn draft(device: DeviceId, arrived: u64) -> Draft {
    let stamp = Stamp { boot: boot().id(), arrived: BootMillis(arrived), device_time: None, device_clock: None, stored: false };
    let stream = StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Continuous };
    let reading = Reading {
        value: Value::Number { value: Decimal::new(97, 0), unit: Unit::Percent },
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::None,
    };
    Draft { identity: Identity::Arrival, device, stream: Some(stream), stamp, body: Body::Reading(reading), nameplate: None }
}

fn settings(name: &str, bind: Bind) -> RouteSettings {
    let carry = Carry { readings: true, ..Carry::default() };
    let rules =
        Rules { bind, carry, metrics: None, devices: None, hold_questionable: false, per_patient: false, spots: BTreeMap::new() };
    RouteSettings {
        name: name.into(),
        gateway: "gw-1".into(),
        rules,
        order: Order::LiveFirst,
        window: 1_024,
        ack_interval: Duration::from_secs(1),
        max_rate: None,
        when: When::AtOnce,
        daily_bytes: None,
        receipt_within: None,
        retract: Retract::Auto,
        devices: BTreeMap::new(),
        default_zone: TimeZone::UTC,
        preferences: BTreeMap::new(),
        min_coverage_permille: 500,
    }
}

fn key() -> DataKey {
    DataKey::new([7; 32])
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &key(), SiteKey::new(&[1; 32]), "gw-1").unwrap()
}

fn boot() -> BootClock {
    BootClock::read().unwrap()
}
