//! A real route over a real store, and a destination that refuses on demand: whatever is refused, held, retried, dropped,
//! evicted and killed, every record is pending, held or dead, or settled for a reason, and never two of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedrail::config::{Bind, Order, When};
use bedrail::deliver::{
    Capabilities, Carry, Destination, Happened, Item, Lane, LetterCommand, LettersDone, NotSent, Route, RouteCommand,
    RouteInputs, RouteSettings, RouteStatus, Rules, Sent, Token, Verdict,
};
use bedrail::monitor::Notice;
use bedrail::radio::BootClock;
use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::retention::Turn;
use bedrail::store::{AuditEntry, Draft, Identity, Store, StoreError, prepare};
use bedrail::ward::Ward;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
const WINDOW: usize = 8;
/// Far more than a route takes with a few records.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the destination does with records, and what it took.
#[derive(Default)]
struct Far {
    refusing: bool,
    taken: Vec<(Seq, DeliveryId)>,
    answers: Vec<Happened>,
    bell: Arc<Notify>,
}

struct Scripted(Arc<Mutex<Far>>);

impl Scripted {
    fn far(&self) -> std::sync::MutexGuard<'_, Far> {
        self.0.lock().unwrap()
    }
}

impl Destination for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: true, retract: true, order: true, batch: 1 }
    }

    fn connect(&mut self) {
        self.far().answers = vec![Happened::Up];
    }

    fn room(&self) -> usize {
        WINDOW
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        let mut far = self.far();
        let (refusing, third) = (far.refusing, item.seq.0 % 3);
        if refusing && third == 0 {
            return Err(NotSent::TooLarge("too large".into()));
        }
        let verdict = if refusing && third == 1 {
            Verdict::Dead { reason: "refused", detail: "0x99".into() }
        } else {
            far.taken.push((item.seq, item.delivery()));
            Verdict::Settled
        };
        far.answers.push(Happened::Answered { token, verdict });
        far.bell.notify_one();
        Ok(Sent::default())
    }

    fn room_for(&self, _: Lane) -> usize {
        self.room()
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
                let mut far = self.far();
                if !far.answers.is_empty() {
                    return far.answers.remove(0);
                }
                far.bell.clone()
            };
            bell.notified().await;
        }
    }

    async fn close(&mut self, _: Option<&Notice>) {}
}

struct Running {
    commands: mpsc::Sender<RouteCommand>,
    status: watch::Receiver<RouteStatus>,
    task: JoinHandle<Result<(), StoreError>>,
    bell: watch::Sender<u64>,
    // Whoever holds the other ends is quiet here.
    _quiet: watch::Sender<Arc<Ward>>,
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
    route: i64,
    far: Arc<Mutex<Far>>,
    running: Running,
    made: u64,
    dropped: BTreeSet<Seq>,
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

/// Some are questionable, and the route holds those.
fn is_held(seq: Seq) -> bool {
    seq.0 % 16 == 1
}

fn reading(seq: u64) -> Draft {
    let class = if is_held(Seq(seq)) { Class::Questionable } else { Class::Measured };
    Draft {
        identity: Identity::Arrival,
        device: DEVICE,
        stream: Some(StreamKey {
            device: DEVICE,
            user: None,
            metric: Metric::HeartRate,
            site: None,
            modality: Modality::Continuous,
        }),
        stamp: Stamp { boot: boot().id(), arrived: boot().now(), device_time: None, device_clock: None, stored: false },
        body: Body::Reading(Reading {
            value: Value::Number { value: Decimal::new(seq as i64, 0), unit: Unit::PerMinute },
            class,
            flags: vec![],
            sequence: None,
            part: 0,
            parts: 1,
            security: SecurityLevel::Unknown,
        }),
        nameplate: None,
    }
}

fn start(dir: &std::path::Path, far: &Arc<Mutex<Far>>) -> Running {
    let mut store = open(dir);
    let row = store.register_routes(&[("r", "mqtt", true)], 0).unwrap().remove(0);
    let (ward, ward_now) = watch::channel(Arc::new(Ward::default()));
    let (bell, rings) = watch::channel(0);
    let (commands, from_desk) = mpsc::channel(4);
    let (publish, status) = watch::channel(RouteStatus::default());
    let stop = CancellationToken::new();
    let inputs = RouteInputs { ward: ward_now, bell: rings, commands: from_desk, announce: None, publish, stop };
    let carry = Carry { readings: true, episodic: true, events: true, windows: BTreeSet::new() };
    let settings = RouteSettings {
        name: "r".into(),
        gateway: "gw-1".into(),
        rules: Rules {
            bind: Bind::Device,
            carry,
            metrics: None,
            devices: None,
            hold_questionable: true,
            per_patient: false,
            spots: BTreeMap::new(),
        },
        order: Order::LiveFirst,
        window: WINDOW,
        ack_interval: Duration::from_millis(1),
        max_rate: None,
        when: When::AtOnce,
        daily_bytes: None,
        receipt_within: None,
        retract: bedrail::config::Retract::Auto,
        devices: BTreeMap::new(),
        default_zone: TimeZone::UTC,
        preferences: BTreeMap::new(),
        min_coverage_permille: 500,
    };
    let route = Route::new(settings, store, row, boot(), inputs, Scripted(far.clone())).unwrap();
    Running { commands, status, task: tokio::spawn(route.run()), bell, _quiet: ward }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), &key(), &key()).unwrap();
        let far = Arc::new(Mutex::new(Far::default()));
        let running = start(dir.path(), &far);
        let store = open(dir.path());
        let route = store.route("r").unwrap().unwrap().n;
        Self { store, route, far, running, made: 0, dropped: BTreeSet::new(), dir }
    }

    fn measure(&mut self, count: u64) {
        let first = self.made + 1;
        self.made += count;
        self.store.append((first..=self.made).map(reading).collect()).unwrap();
        self.running.bell.send_modify(|rings| *rings += 1);
    }

    /// Waits until the route has nothing more to do, and that is on the card.
    async fn settle(&self) {
        let owes = || {
            let (lanes, head) = (self.store.lanes(self.route).unwrap(), self.store.head().unwrap());
            lanes.live.count_to(head) + lanes.backlog.count_to(head)
        };
        let done = async {
            while owes() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.expect("the route comes to an end");
    }

    fn records(&self) -> impl Iterator<Item = Seq> + use<> {
        (1..=self.made).map(Seq)
    }

    /// What was known and not written is forgotten; everything is as it was on the card.
    async fn kill(&mut self) {
        self.running.task.abort();
        let _ = (&mut self.running.task).await;
        self.running = start(self.dir.path(), &self.far);
    }

    async fn ask(&self, command: impl FnOnce(AuditEntry, oneshot::Sender<LettersDone>) -> LetterCommand) -> LettersDone {
        let entry = AuditEntry {
            boot: boot().id(),
            at: boot().now(),
            wall: None,
            actor: "operator".into(),
            action: "dead-letters".into(),
            object: "r".into(),
            detail: String::new(),
        };
        let (done, answer) = oneshot::channel();
        self.running.commands.send(RouteCommand::Letters(command(entry, done))).await.unwrap();
        answer.await.unwrap()
    }

    async fn retry(&self, seqs: Vec<Seq>) -> LettersDone {
        self.ask(|entry, done| LetterCommand::Retry { seqs, entry, done }).await
    }

    async fn give_up(&mut self, seqs: Vec<Seq>) {
        let done = self.ask(|entry, done| LetterCommand::Drop { seqs: seqs.clone(), entry, done }).await;
        let unknown: BTreeSet<Seq> = done.unknown.into_iter().collect();
        self.dropped.extend(seqs.into_iter().filter(|seq| !unknown.contains(seq)));
    }

    /// Retention takes every frame that nobody owes, dead letters or not.
    fn evict(&mut self) {
        let frames = self.store.frames(&self.store.anchors().unwrap(), Seq(0), 1_000).unwrap();
        let planned: Vec<_> = frames.into_iter().map(|frame| (frame, Turn::Aged)).collect();
        let stamp = Stamp { boot: boot().id(), arrived: boot().now(), device_time: None, device_clock: None, stored: false };
        self.store.evict(&planned, None, stamp).unwrap();
    }

    fn dead(&self) -> Vec<Seq> {
        self.store.dead_letters(self.route, Seq(0), 1_000).unwrap().into_iter().map(|dead| dead.seq).collect()
    }

    fn taken(&self) -> BTreeSet<Seq> {
        self.far.lock().unwrap().taken.iter().map(|(seq, _)| *seq).collect()
    }

    /// By what is on the card: nothing in two places, and what is in none was taken, or given up by a person.
    fn check(&self) -> Result<(), TestCaseError> {
        let (lanes, held) = (self.store.lanes(self.route).unwrap(), self.store.held(self.route).unwrap());
        let (dead, taken): (BTreeSet<Seq>, _) = (self.dead().into_iter().collect(), self.taken());
        for seq in self.records() {
            let pending = [&lanes.live, &lanes.backlog].iter().filter(|runs| runs.contains(seq)).count();
            let held = held.iter().filter(|run| run.first <= seq && seq <= run.last).count();
            let places = pending + held + usize::from(dead.contains(&seq));
            prop_assert!(places <= 1, "{seq} is pending {pending}, held {held}, dead {}", dead.contains(&seq));
            if places == 0 {
                prop_assert!(taken.contains(&seq) || self.dropped.contains(&seq), "{seq} is nowhere and never arrived");
            }
            if held == 1 {
                prop_assert!(is_held(seq), "{seq} is held");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Op {
    Measure(u64),
    Refuse(bool),
    Retry(u64),
    GiveUp(u64),
    Kill,
    Evict,
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1u64..12).prop_map(Op::Measure),
        2 => any::<bool>().prop_map(Op::Refuse),
        4 => any::<u64>().prop_map(Op::Retry),
        1 => any::<u64>().prop_map(Op::GiveUp),
        2 => Just(Op::Kill),
        2 => Just(Op::Evict),
        3 => Just(Op::Wait),
    ]
}

async fn live_through(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    world.far.lock().unwrap().refusing = true;
    let chosen = |dead: Vec<Seq>, mask: u64| dead.into_iter().filter(|seq| mask >> (seq.0 % 64) & 1 == 1).collect::<Vec<_>>();
    for op in ops {
        match op {
            Op::Measure(count) => world.measure(*count),
            Op::Refuse(refusing) => world.far.lock().unwrap().refusing = *refusing,
            Op::Retry(mask) => drop(world.retry(chosen(world.dead(), *mask)).await),
            Op::GiveUp(mask) => world.give_up(chosen(world.dead(), *mask & mask.rotate_left(7))).await,
            Op::Kill => world.kill().await,
            Op::Evict => world.evict(),
            Op::Wait => world.settle().await,
        }
        world.check()?;
    }
    world.far.lock().unwrap().refusing = false;
    world.settle().await;
    let dead = world.dead();
    let done = world.retry(dead.clone()).await;
    prop_assert_eq!(done, LettersDone { done: dead.len() as u64, ..LettersDone::default() });
    world.settle().await;
    world.check()?;
    prop_assert_eq!((world.dead().len(), world.running.status.borrow().dead), (0, 0));
    prop_assert!(world.store.retried(world.route).unwrap().is_empty(), "a row outlived what it lent its record for");
    let taken = world.taken();
    for seq in world.records() {
        if is_held(seq) {
            prop_assert!(!taken.contains(&seq), "{} was to be held", seq);
        } else {
            prop_assert!(taken.contains(&seq) || world.dropped.contains(&seq), "{} never arrived", seq);
        }
    }
    let mut ids = BTreeMap::new();
    for (seq, id) in &world.far.lock().unwrap().taken {
        prop_assert_eq!(ids.entry(*seq).or_insert(*id), id, "{} came under two identities", seq);
    }
    prop_assert!(world.store.verify_audit().unwrap().is_ok());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_dead_letter_is_in_exactly_one_place_through_retry_drop_eviction_and_kill(ops in proptest::collection::vec(op(), 4..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live_through(&ops))?;
    }
}

#[test]
fn a_dead_letter_goes_again_after_the_log_has_let_its_record_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        world.measure(1); // held, and a frame of its own
        world.far.lock().unwrap().refusing = true;
        world.measure(3);
        world.measure(1); // the newest frame stays
        world.settle().await;
        assert_eq!(world.dead(), [Seq(3), Seq(4)]);
        let before = world.store.kept_record(world.route, Seq(4)).unwrap().unwrap();
        world.evict();
        assert_eq!(world.store.next_present(Seq(2)).unwrap(), Some(Seq(5)), "their frame was to go");

        world.far.lock().unwrap().refusing = false;
        assert_eq!(world.retry(vec![Seq(3), Seq(4)]).await.done, 2);
        world.kill().await;
        world.settle().await;
        let taken = world.far.lock().unwrap().taken.clone();
        let (_, id) = taken.iter().find(|(seq, _)| *seq == Seq(4)).expect("it arrives");
        assert_eq!((id.record, id.version), (before.id, before.version));
        assert!(world.dead().is_empty() && world.store.retried(world.route).unwrap().is_empty());
    });
}

#[test]
fn a_replay_leaves_dead_letters_alone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        let anchor = Anchor {
            boot: boot().id(),
            at: BootMillis(0),
            wall: Timestamp(1_000),
            quality: ClockQuality::Ntp,
            uncertainty_ms: 1,
        };
        world.store.add_anchor(&anchor).unwrap();
        world.kill().await;
        world.far.lock().unwrap().refusing = true;
        world.measure(6);
        world.settle().await;
        assert_eq!(world.dead(), [Seq(3), Seq(4), Seq(6)]);
        let (done, answer) = oneshot::channel();
        let replay = RouteCommand::Replay { from: Timestamp(0), to: Timestamp(i64::MAX), done };
        world.running.commands.send(replay).await.unwrap();
        assert_eq!(answer.await.unwrap(), 2, "2 and 5 were taken, 1 is held");
        world.settle().await;
        world.check().unwrap();
        assert_eq!(world.dead(), [Seq(3), Seq(4), Seq(6)]);
    });
}
