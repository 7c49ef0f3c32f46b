//! A real route on a real store, and a chart that loses answers: histories told late, out of order and twice, with kills and
//! broken links in between. What stands in the chart in the end is what a second implementation says of the history.

#![allow(clippy::unwrap_used)]

mod histories;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedrail::config::{Bind, Order, Retract, When};
use bedrail::deliver::{
    Capabilities, Carry, Destination, Fault, FaultClass, Happened, Item, Lane, NotSent, Route, RouteCommand, RouteInputs,
    RouteSettings, RouteStatus, Rules, Sent, Token, Verdict,
};
use bedrail::monitor::Notice;
use bedrail::radio::BootClock;
use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Identity, Store, StoreError, prepare};
use bedrail::ward::{EventSource, HoldReason, Ward, WardEvent};
use histories::{Random, SPAN, naive};
use jiff::tz::TimeZone;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// A moment of a history in real milliseconds: even ones are events, odd ones readings.
const MOMENT_MS: i64 = 100;
/// Records a look through the log takes in between two turns: few, so that a history has time to go on meanwhile.
const PAGE: usize = 4;
/// Of simulated time; nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// Files by record and placement, keeps the highest version, and at one version a retraction wins.
#[derive(Default)]
struct Chart {
    filed: BTreeMap<(RecordId, Placement), (u32, bool, SubjectKey)>,
    puts: u64,
    retracts: u64,
}

impl Chart {
    fn take(&mut self, item: &Item) {
        let (at, version, retract) = match &item.record.body {
            Body::Retraction(retraction) => ((retraction.of, retraction.placement), retraction.version, true),
            _ => ((item.record.id, item.placement), item.record.version, false),
        };
        (self.puts, self.retracts) = (self.puts + u64::from(!retract), self.retracts + u64::from(retract));
        let subject = item.subject.clone().unwrap_or_else(|| "nobody".parse().unwrap());
        let known = self.filed.get(&at).map(|(version, retract, _)| (*version, *retract));
        if known.is_none_or(|known| known < (version, retract)) {
            self.filed.insert(at, (version, retract, subject));
        }
    }

    fn standing(&self, record: RecordId) -> Vec<SubjectKey> {
        let of = self.filed.range((record, Placement([0; 16]))..=(record, Placement([0xFF; 16])));
        of.filter(|(_, (_, retracted, _))| !retracted).map(|(_, (_, _, subject))| subject.clone()).collect()
    }
}

/// The other end, and what is known at this one.
struct Far {
    chart: Chart,
    events: Vec<WardEvent>,
    random: Random,
    /// Of so many messages one breaks the link, before or after it was filed; 0: none.
    breaks: u64,
    said: VecDeque<Happened>,
    bell: Arc<Notify>,
    up: bool,
}

#[derive(Clone)]
struct Double(Arc<Mutex<Far>>);

impl Destination for Double {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: true, retract: true, order: true, batch: 1 }
    }

    fn connect(&mut self) {
        let mut far = self.0.lock().unwrap();
        far.said = VecDeque::from([Happened::Up]);
        far.bell.notify_one();
    }

    fn room(&self) -> usize {
        if self.0.lock().unwrap().up { 8 } else { 0 }
    }

    fn room_for(&self, _: Lane) -> usize {
        self.room()
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        let mut far = self.0.lock().unwrap();
        if let (Some(subject), Some(at)) = (&item.subject, item.measured.wall()) {
            let belongs = naive::whose(&far.events, item.record.device, at.at.0).map(|who| naive::person(&far.events, &who));
            let sent_to = naive::person(&far.events, subject);
            assert_eq!(Some(sent_to), belongs, "it was sent against what was known");
        }
        let one_in = far.breaks;
        let (breaks, filed) = (one_in > 0 && far.random.one_in(one_in), far.random.one_in(2));
        if !breaks || filed {
            far.chart.take(item);
        }
        let happened = match breaks {
            true => Happened::Down(Fault { class: FaultClass::Broken, text: "as played".into() }),
            false => Happened::Answered { token, verdict: Verdict::Settled },
        };
        far.said.push_back(happened);
        far.bell.notify_one();
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
            let bell = {
                let mut far = self.0.lock().unwrap();
                if let Some(happened) = far.said.pop_front() {
                    far.up = match happened {
                        Happened::Up => true,
                        Happened::Down(_) => false,
                        _ => far.up,
                    };
                    return happened;
                }
                far.bell.clone()
            };
            bell.notified().await;
        }
    }

    async fn close(&mut self, _: Option<&Notice>) {}
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
    route: i64,
    retract: Retract,
    far: Arc<Mutex<Far>>,
    /// The time of moment 0, since boot and on the wall.
    began: (BootMillis, Timestamp),
    /// Device and moment of each reading, by its number.
    readings: BTreeMap<Seq, (DeviceId, i64)>,
    running: Option<Running>,
    kills: u64,
    decided: u64,
}

struct Running {
    ward: watch::Sender<Arc<Ward>>,
    bell: watch::Sender<u64>,
    commands: mpsc::Sender<RouteCommand>,
    task: JoinHandle<Result<(), StoreError>>,
    _status: watch::Receiver<RouteStatus>,
}

impl World {
    fn new(seed: u64, retract: Retract) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), &key(), &key()).unwrap();
        let mut store = open(dir.path());
        let now = boot().now();
        let span_ms = SPAN as i64 * MOMENT_MS;
        let began = BootMillis(now.0 - span_ms.unsigned_abs());
        let wall = Timestamp(jiff::Timestamp::now().as_millisecond() - span_ms);
        let anchor = Anchor { boot: boot().id(), at: began, wall, quality: ClockQuality::Ntp, uncertainty_ms: 0 };
        store.add_anchor(&anchor).unwrap();
        let route = store.register_routes(&[("chart", "mqtt", true)], 0).unwrap().remove(0).n;
        let far = Far {
            chart: Chart::default(),
            events: Vec::new(),
            random: Random(seed ^ 0xFA12),
            breaks: 12,
            said: VecDeque::new(),
            bell: Arc::default(),
            up: false,
        };
        let far = Arc::new(Mutex::new(far));
        let readings = BTreeMap::new();
        let mut world =
            Self { dir, store, route, retract, far, began: (began, wall), readings, running: None, kills: 0, decided: 0 };
        world.start();
        world
    }

    fn at(&self, moment: i64) -> Timestamp {
        self.began.1.plus_ms(moment * MOMENT_MS)
    }

    fn start(&mut self) {
        let mut store = open(self.dir.path());
        let row = store.register_routes(&[("chart", "mqtt", true)], 0).unwrap().remove(0);
        let (ward, ward_now) = watch::channel(Arc::new(Ward::fold(&self.far.lock().unwrap().events)));
        let (bell, rings) = watch::channel(0);
        let (commands, from_desk) = mpsc::channel(4);
        let (publish, _status) = watch::channel(RouteStatus::default());
        let stop = tokio_util::sync::CancellationToken::new();
        let inputs = RouteInputs { ward: ward_now, bell: rings, commands: from_desk, announce: None, publish, stop };
        let double = Double(self.far.clone());
        let route = Route::new(settings(self.retract), store, row, boot(), inputs, double).unwrap().with_page(PAGE);
        self.running = Some(Running { ward, bell, commands, task: tokio::spawn(route.run()), _status });
    }

    /// What was known and not written is forgotten; everything is as it was on the card.
    async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.task.abort();
        let _ = running.task.await;
        self.far.lock().unwrap().up = false;
        self.kills += 1;
        self.start();
    }

    fn measure(&mut self, random: &mut Random, moment: i64, count: u64) {
        let arrived = BootMillis(self.began.0.0 + (moment * MOMENT_MS).unsigned_abs());
        let stamp = Stamp { boot: boot().id(), arrived, device_time: None, device_clock: None, stored: false };
        let drafts: Vec<Draft> = (0..count).map(|_| draft(random.device(), stamp)).collect();
        let devices: Vec<DeviceId> = drafts.iter().map(|draft| draft.device).collect();
        let appended = self.store.append(drafts).unwrap();
        for ((seq, _), device) in appended.records.into_iter().flatten().zip(devices) {
            self.readings.insert(seq, (device, moment));
        }
        self.running.as_ref().unwrap().bell.send_modify(|rings| *rings += 1);
    }

    fn learn(&self, event: WardEvent) {
        let mut far = self.far.lock().unwrap();
        far.events.push(event);
        self.running.as_ref().unwrap().ward.send_replace(Arc::new(Ward::fold(&far.events)));
    }

    /// Waits until the route has followed all that is known and owes nothing, and that is on the card.
    async fn settle(&self) {
        let last = self.far.lock().unwrap().events.iter().map(|event| event.n).max().unwrap_or(0);
        let is_done = || {
            let (lanes, head) = (self.store.lanes(self.route).unwrap(), self.store.head().unwrap());
            let followed = self.store.route_mark(self.route, "ward").unwrap().unwrap_or(0);
            lanes.live.count_to(head) + lanes.backlog.count_to(head) == 0 && followed >= last
        };
        let done = async {
            while !is_done() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.expect("the route comes to an end");
    }

    /// A person looks through what waits: accepts, or at random leaves it. Answers the records that were left.
    async fn decide(&mut self, random: &mut Random, leave_one_in: u64) -> BTreeSet<Seq> {
        let waiting: Vec<_> =
            self.store.held(self.route).unwrap().into_iter().filter(|run| run.reason == HoldReason::AwaitingDecision).collect();
        let mut left = BTreeSet::new();
        for run in waiting {
            let accept = leave_one_in == 0 || !random.one_in(leave_one_in);
            let (done, answer) = oneshot::channel();
            self.running
                .as_ref()
                .unwrap()
                .commands
                .send(RouteCommand::Decide { first: run.first, last: run.last, accept, done })
                .await
                .unwrap();
            if let Some(count) = answer.await.unwrap() {
                self.decided += count;
            }
            if !accept {
                let of_run = self.readings.range(run.first..=run.last).filter(|(_, (device, _))| *device == run.device);
                left.extend(of_run.map(|(seq, _)| *seq));
            }
        }
        left
    }

    fn record(&self, seq: Seq) -> RecordId {
        self.store.read(seq, seq, 1).unwrap().remove(0).1.id
    }

    /// Of each reading, who stands with it and whose it is.
    fn check(&self, seed: u64, left: &BTreeSet<Seq>) {
        let far = self.far.lock().unwrap();
        let held: Vec<_> =
            self.store.held(self.route).unwrap().into_iter().filter(|run| run.reason == HoldReason::AwaitingDecision).collect();
        assert_eq!(held, [], "seed {seed}: somebody has yet to decide");
        for (seq, (device, moment)) in &self.readings {
            let standing: Vec<SubjectKey> =
                far.chart.standing(self.record(*seq)).iter().map(|who| naive::person(&far.events, who)).collect();
            let belongs: Vec<SubjectKey> = naive::whose(&far.events, *device, self.at(*moment).0).into_iter().collect();
            // One whose answer was lost may have been left where it never arrived.
            let by_a_persons_word = left.contains(seq) && standing.len() <= 1;
            assert!(
                standing == belongs || by_a_persons_word,
                "seed {seed}: {seq} of {device} at {moment}: {standing:?}, not {belongs:?}"
            );
        }
    }
}

/// One ward, told in random order while it is measured; answers how much moved, was decided, killed.
async fn one_history(seed: u64, retract: Retract, leave_one_in: u64) -> [u64; 3] {
    let mut random = Random(seed);
    let mut world = World::new(seed, retract);
    let mut events: Vec<WardEvent> = (0..20 + random.below(25))
        .map(|_| {
            let at = world.at(2 * random.below(SPAN / 2) as i64);
            let source = if random.one_in(2) { EventSource::Command } else { EventSource::Scan };
            WardEvent { n: 0, at, learned: at, source, operator: "nurse".into(), change: moments(random.change()) }
        })
        .collect();
    let again: Vec<WardEvent> = events.iter().filter(|_| random.one_in(8)).cloned().collect();
    events.extend(again);
    random.shuffle(&mut events);
    let mut left = BTreeSet::new();
    let (mut moment, count) = (1, events.len() as i64);
    // The log numbers them as they come.
    for (n, event) in (1..).zip(events) {
        let readings = random.below(4);
        world.measure(&mut random, moment, readings);
        moment = (moment + 2 * (1 + random.below(2 * SPAN / 2 / count.unsigned_abs()) as i64)).min(SPAN as i64 - 1);
        world.learn(WardEvent { n, ..event });
        // A look through the log is somewhere, or over.
        let turns = if random.one_in(4) { random.below(20) } else { 0 };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        match random.below(8) {
            0 => world.kill().await,
            1 => world.settle().await,
            2 => left.extend(world.decide(&mut random, leave_one_in).await),
            // In the middle of whatever it is doing.
            3..6 => tokio::time::sleep(Duration::from_millis(random.below(40))).await,
            _ => {}
        }
    }
    world.far.lock().unwrap().breaks = 0;
    world.settle().await;
    for _ in 0..2 {
        left.extend(world.decide(&mut random, leave_one_in).await);
        world.settle().await;
    }
    world.check(seed, &left);
    let retracts = world.far.lock().unwrap().chart.retracts;
    [retracts, world.decided, world.kills]
}

/// What a change says of how long something lasts is in moments.
fn moments(change: bedrail::ward::Change) -> bedrail::ward::Change {
    match change {
        bedrail::ward::Change::Spot { device, subject, for_ms, readings } => {
            bedrail::ward::Change::Spot { device, subject, for_ms: for_ms * MOMENT_MS, readings }
        }
        other => other,
    }
}

fn many(seeds: std::ops::Range<u64>, retract: Retract, leave_one_in: u64) -> [u64; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let mut all = [0; 3];
    for seed in seeds {
        let one = runtime.block_on(one_history(seed, retract, leave_one_in));
        all = [all[0] + one[0], all[1] + one[1], all[2] + one[2]];
    }
    all
}

fn histories(short: u64, long: u64) -> std::ops::Range<u64> {
    0..if std::env::var_os("BEDRAIL_LONG").is_some() { long } else { short }
}

#[test]
fn a_route_that_corrects_by_itself_ends_with_the_charts_of_the_history_through_kills_and_lost_answers() {
    let seeds = histories(25, 2_000);
    let count = seeds.end;
    let [retracts, decided, kills] = many(seeds, Retract::Auto, 0);
    println!(
        "{count} histories: {retracts} retractions arrived, {decided} records beyond the limits were decided, {kills} kills"
    );
    assert!(retracts > count && kills > count, "the histories move nothing: {retracts}, {kills}");
}

#[test]
fn a_route_that_asks_leaves_what_a_person_leaves_and_moves_what_a_person_accepts_through_kills_and_lost_answers() {
    let seeds = histories(25, 2_000);
    let count = seeds.end;
    let [retracts, decided, kills] = many(seeds, Retract::Ask, 4);
    println!("{count} histories: {decided} records were decided, {retracts} retractions arrived, {kills} kills");
    assert!(decided > count && retracts > count / 2 && kills > count, "nothing is decided: {decided}, {retracts}, {kills}");
}

fn settings(retract: Retract) -> RouteSettings {
    let carry = Carry { readings: true, ..Carry::default() };
    RouteSettings {
        name: "chart".into(),
        gateway: "gw-1".into(),
        rules: Rules {
            bind: Bind::Patient,
            carry,
            metrics: None,
            devices: None,
            hold_questionable: false,
            per_patient: false,
            spots: BTreeMap::new(),
        },
        order: Order::LiveFirst,
        window: 8,
        ack_interval: Duration::from_millis(50),
        max_rate: None,
        when: When::AtOnce,
        daily_bytes: None,
        receipt_within: None,
        retract,
        devices: BTreeMap::new(),
        default_zone: TimeZone::UTC,
        preferences: BTreeMap::new(),
        min_coverage_permille: 500,
    }
}

fn draft(device: DeviceId, stamp: Stamp) -> Draft {
    let stream = StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Spot };
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

fn key() -> DataKey {
    DataKey::new([7; 32])
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(dir, &key(), SiteKey::new(&[1; 32]), "gw-1").unwrap()
}

fn boot() -> BootClock {
    BootClock::read().unwrap()
}
