//! A route with a log of its own and a destination that is played: a script says what becomes of each record.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedrail::config::{Bind, Order, When};
use bedrail::deliver::{
    Announcements, Capabilities, Carry, Destination, Fault, FaultClass, Happened, Item, Lane, NotSent, Route, RouteCommand,
    RouteInputs, RouteSettings, RouteStatus, Rules, Sent, Token, Verdict, Why,
};
use bedrail::monitor::{Notice, Notices};
use bedrail::radio::BootClock;
use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{Draft, Identity, Store, StoreError, prepare};
use bedrail::ward::Ward;
use jiff::tz::TimeZone;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

const GATEWAY: &str = "gw-played";
/// From a message to its answer.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// Of simulated time; nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(6 * 3_600);

/// A record as the destination saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub seq: u64,
    /// Which of the devices, from 0.
    pub device: usize,
    pub lane: Lane,
    /// How many the destination saw before.
    pub number: usize,
    pub at: Duration,
}

pub fn waits(why: Why) -> Verdict {
    Verdict::Waits { why, detail: "as played".into() }
}

/// Devices take turns in the log.
pub fn device_of(seq: u64, devices: usize) -> usize {
    (seq as usize - 1) % devices
}

type Answer = Box<dyn FnMut(&Seen) -> Verdict + Send>;
type HangUp = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

struct Stage {
    answer: Answer,
    hang_up: HangUp,
    sent: Vec<Seen>,
    taken: Vec<(u64, Lane)>,
    connections: usize,
    announced: usize,
    cut: bool,
    began: Moment,
    deliveries: HashMap<u64, DeliveryId>,
    said: VecDeque<Happened>,
    says: Arc<Notify>,
}

pub struct Play {
    pub settings: RouteSettings,
    devices: usize,
    dir: tempfile::TempDir,
    stage: Arc<Mutex<Stage>>,
    running: Option<Running>,
    appended: u64,
}

struct Running {
    status: watch::Receiver<RouteStatus>,
    commands: mpsc::Sender<RouteCommand>,
    bell: watch::Sender<u64>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), StoreError>>,
    notices: watch::Sender<Arc<Notices>>,
    _ward: watch::Sender<Arc<Ward>>,
}

impl Play {
    pub fn new(devices: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), &key(), &key()).unwrap();
        let carry = Carry { readings: true, windows: [60].into(), ..Carry::default() };
        let settings = RouteSettings {
            name: "live".into(),
            gateway: GATEWAY.into(),
            rules: Rules {
                bind: Bind::Device,
                carry,
                metrics: None,
                devices: None,
                hold_questionable: false,
                per_patient: false,
                spots: BTreeMap::new(),
            },
            order: Order::LiveFirst,
            window: 16,
            ack_interval: Duration::from_secs(1),
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
        let stage = Stage {
            answer: Box::new(|_| Verdict::Settled),
            hang_up: Box::new(|_| None),
            sent: Vec::new(),
            taken: Vec::new(),
            connections: 0,
            announced: 0,
            cut: false,
            began: Moment::now(),
            deliveries: HashMap::new(),
            said: VecDeque::new(),
            says: Arc::default(),
        };
        let play = Self { settings, devices, dir, stage: Arc::new(Mutex::new(stage)), running: None, appended: 0 };
        let wall = Timestamp(jiff::Timestamp::now().as_millisecond());
        let clock = boot();
        let anchor = Anchor { boot: clock.id(), at: clock.now(), wall, quality: ClockQuality::Ntp, uncertainty_ms: 50 };
        play.store().add_anchor(&anchor).unwrap();
        play
    }

    fn store(&self) -> Store {
        Store::open(self.dir.path(), &key(), SiteKey::new(&[1; 32]), GATEWAY).unwrap()
    }

    /// One reading of each device, so many times.
    pub fn append(&mut self, rounds: u64) {
        let clock = boot();
        let stamp = Stamp { boot: clock.id(), arrived: clock.now(), device_time: None, device_clock: None, stored: false };
        let drafts = (0..rounds).flat_map(|_| 0..self.devices).map(|n| Draft {
            identity: Identity::Arrival,
            device: device(n),
            stream: Some(stream(n)),
            stamp,
            body: body(),
            nameplate: None,
        });
        let drafts: Vec<Draft> = drafts.collect();
        self.appended += drafts.len() as u64;
        let mut store = self.store();
        for chunk in drafts.chunks(256) {
            store.append(chunk.to_vec()).unwrap();
        }
        if let Some(running) = &self.running {
            running.bell.send_modify(|n| *n += 1);
        }
    }

    /// The next version of one window.
    pub fn append_window(&mut self) {
        let clock = boot();
        let stamp = Stamp { boot: clock.id(), arrived: clock.now(), device_time: None, device_clock: None, stored: false };
        let start = Timestamp(1_795_435_200_000);
        let window = Window {
            start,
            length_s: 60,
            from: start,
            to: start.plus_ms(60_000),
            n: 0,
            unit: Unit::Percent,
            summary: None,
            coverage_permille: 0,
            excluded: vec![(Exclusion::NoValue, 1)],
            source: (Seq(1), Seq(1)),
        };
        let identity = Identity::Window { id: RecordId([7; 16]), side: false };
        let draft =
            Draft { identity, device: device(0), stream: Some(stream(0)), stamp, body: Body::Window(window), nameplate: None };
        self.store().append(vec![draft]).unwrap();
        self.appended += 1;
        if let Some(running) = &self.running {
            running.bell.send_modify(|n| *n += 1);
        }
    }

    pub fn answer(&self, answer: impl FnMut(&Seen) -> Verdict + Send + 'static) {
        self.stage.lock().unwrap().answer = Box::new(answer);
    }

    pub fn hang_up(&self, hang_up: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.stage.lock().unwrap().hang_up = Box::new(hang_up);
    }

    /// The delivery id a record was last sent under.
    pub fn delivery(&self, seq: u64) -> DeliveryId {
        self.stage.lock().unwrap().deliveries[&seq]
    }

    /// The receiver says something.
    pub fn say(&self, happened: Happened) {
        let mut stage = self.stage.lock().unwrap();
        stage.said.push_back(happened);
        stage.says.notify_one();
    }

    /// The receiver confirms these records, as far as they were sent.
    pub fn confirm(&self, seqs: impl IntoIterator<Item = u64>) {
        let deliveries = {
            let stage = self.stage.lock().unwrap();
            seqs.into_iter().filter_map(|seq| stage.deliveries.get(&seq).copied()).collect()
        };
        self.say(Happened::Received { deliveries, unreadable: 0 });
    }

    pub fn start(&mut self) {
        let mut store = self.store();
        let row = store.register_routes(&[("live", "mqtt", true)], 0).unwrap().remove(0);
        let (ward_out, ward) = watch::channel(Arc::new(Ward::default()));
        let (bell_out, bell) = watch::channel(0);
        let (commands, from_us) = mpsc::channel(4);
        let (publish, status) = watch::channel(RouteStatus::default());
        let stop = CancellationToken::new();
        let notice = |text: &str| Notice { topic: "gw/status".into(), payload: text.as_bytes().into(), stamp: 0 };
        let (notices_out, notices) = watch::channel(Arc::new(Notices::new()));
        let announce = Some(Announcements { notices, standing: [].into(), stopped: notice("stopped") });
        let inputs = RouteInputs { ward, bell, commands: from_us, announce, publish, stop: stop.clone() };
        let destination = Played::new(self.stage.clone(), self.devices, self.settings.window);
        let route = Route::new(self.settings.clone(), store, row, boot(), inputs, destination).unwrap();
        let task = tokio::spawn(route.run());
        self.running = Some(Running { status, commands, bell: bell_out, stop, task, notices: notices_out, _ward: ward_out });
    }

    /// Waits until the route says so.
    pub async fn until(&mut self, condition: impl Fn(&RouteStatus) -> bool) {
        let running = self.running.as_mut().expect("it runs");
        let came = tokio::time::timeout(PATIENCE, running.status.wait_for(|status| condition(status))).await.is_ok();
        assert!(came, "it never came to that: {:#?}", self.status());
    }

    pub fn status(&self) -> RouteStatus {
        self.running.as_ref().expect("it runs").status.borrow().clone()
    }

    pub async fn command(&self, command: RouteCommand) {
        self.running.as_ref().expect("it runs").commands.send(command).await.expect("it runs");
    }

    /// The gateway's state changed; answers how often the destination was told so far.
    pub fn announce(&self) -> usize {
        let running = self.running.as_ref().expect("it runs");
        running.notices.send_modify(|notices| {
            let stamp = notices.values().next().map_or(1, |notice| notice.stamp + 1);
            let notice = Notice { topic: "gw/status".into(), payload: [].into(), stamp };
            *notices = Arc::new(Notices::from([("gw/status".into(), notice)]));
        });
        self.stage.lock().unwrap().announced
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        running.stop.cancel();
        running.task.await.unwrap().unwrap();
    }

    /// Everything the destination saw.
    pub fn sent(&self) -> Vec<Seen> {
        self.stage.lock().unwrap().sent.clone()
    }

    /// What it took, in order.
    pub fn taken(&self) -> Vec<u64> {
        self.stage.lock().unwrap().taken.iter().map(|(seq, _)| *seq).collect()
    }

    /// No connection stands or comes to be until [`Play::mend`].
    pub fn cut(&self) {
        let mut stage = self.stage.lock().unwrap();
        stage.cut = true;
        stage.said.push_back(Happened::Down(broken()));
        stage.says.notify_one();
    }

    pub fn mend(&self) {
        self.stage.lock().unwrap().cut = false;
    }

    pub fn connections(&self) -> usize {
        self.stage.lock().unwrap().connections
    }

    /// What was appended and not taken.
    pub fn missing(&self) -> Vec<u64> {
        let taken: BTreeSet<u64> = self.taken().into_iter().collect();
        (1..=self.appended).filter(|seq| !taken.contains(seq)).collect()
    }

    /// Each stream in its lane came in order.
    pub fn assert_order(&self) {
        let mut last: HashMap<(usize, Lane), u64> = HashMap::new();
        for (seq, lane) in &self.stage.lock().unwrap().taken {
            let before = last.insert((device_of(*seq, self.devices), *lane), *seq);
            assert!(before.is_none_or(|before| before < *seq), "{seq} after {before:?} in {lane:?}");
        }
    }
}

struct Played {
    stage: Arc<Mutex<Stage>>,
    devices: usize,
    window: usize,
    up: bool,
    answers: VecDeque<(Moment, Happened)>,
}

impl Played {
    fn new(stage: Arc<Mutex<Stage>>, devices: usize, window: usize) -> Self {
        Self { stage, devices, window, up: false, answers: VecDeque::new() }
    }
}

impl Destination for Played {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: true, retract: true, order: true, batch: 1 }
    }

    fn connect(&mut self) {
        let mut stage = self.stage.lock().unwrap();
        stage.connections += 1;
        self.up = false;
        let outcome = if stage.cut { Happened::Down(broken()) } else { Happened::Up };
        self.answers = VecDeque::from([(Moment::now() + ROUND_TRIP, outcome)]);
    }

    fn room(&self) -> usize {
        if self.up { self.window - self.answers.len().min(self.window) } else { 0 }
    }

    fn room_for(&self, _: Lane) -> usize {
        self.room()
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        if self.room() == 0 {
            return Err(NotSent::NoRoom);
        }
        let mut stage = self.stage.lock().unwrap();
        let (seq, lane, number) = (item.seq.0, item.lane, stage.sent.len());
        let seen = Seen { seq, device: device_of(seq, self.devices), lane, number, at: stage.began.elapsed() };
        stage.sent.push(seen);
        stage.deliveries.insert(seq, item.delivery());
        let happened = match (stage.hang_up)(&seen) {
            Some(fault) => Happened::Down(fault),
            None => Happened::Answered { token, verdict: (stage.answer)(&seen) },
        };
        if matches!(&happened, Happened::Answered { verdict: Verdict::Settled | Verdict::SettledUnheard, .. }) {
            stage.taken.push((seq, lane));
        }
        self.answers.push_back((Moment::now() + ROUND_TRIP, happened));
        Ok(Sent { messages: 1, octets: 100 })
    }

    fn flush(&mut self) -> Sent {
        Sent::default()
    }

    fn preview(&self, item: &Item) -> (String, String) {
        (String::new(), item.seq.to_string())
    }

    fn announce(&mut self, _: &Notice) -> bool {
        self.stage.lock().unwrap().announced += 1;
        true
    }

    async fn event(&mut self) -> Happened {
        let says = self.stage.lock().unwrap().says.clone();
        loop {
            let said = self.stage.lock().unwrap().said.pop_front();
            if let Some(said) = said {
                return said;
            }
            let answer = async {
                match self.answers.front() {
                    Some((at, _)) => tokio::time::sleep_until(*at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = says.notified() => {}
                () = answer => break,
            }
        }
        let (_, happened) = self.answers.pop_front().expect("it was there");
        match happened {
            Happened::Up => self.up = true,
            Happened::Down(_) => {
                self.up = false;
                self.answers.clear();
            }
            _ => {}
        }
        happened
    }

    async fn close(&mut self, _: Option<&Notice>) {
        self.up = false;
    }
}

fn broken() -> Fault {
    Fault { class: FaultClass::Broken, text: "cut".into() }
}

fn key() -> DataKey {
    DataKey::new([7; 32])
}

fn boot() -> BootClock {
    BootClock::read().expect("the kernel's boot id")
}

fn device(n: usize) -> DeviceId {
    DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, n as u8])
}

fn stream(n: usize) -> StreamKey {
    StreamKey { device: device(n), user: None, metric: Metric::Spo2, site: None, modality: Modality::Continuous }
}

fn body() -> Body {
    Body::Reading(Reading {
        value: Value::Number { value: Decimal::new(97, 0), unit: Unit::Percent },
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::None,
    })
}
