//! A real mosquitto over TLS and in the clear, and a route to it as the daemon runs one: its thread, its log, its link.
//!
//! Nobody subscribes: what is measured is the way to the broker's acknowledgement.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bedrail::config::{Bind, History, Order, Unheard, When};
use bedrail::deliver::mqtt::{
    AckReason, BatchOptions, Link, LinkEvent, LinkSettings, Message, MqttDestination, MqttOptions, NotTaken, connect,
};
use bedrail::deliver::{Carry, DeviceLabel, Route, RouteCommand, RouteDevice, RouteInputs, RouteSettings, RouteStatus, Rules};
use bedrail::net::{ClientIdentity, TlsSettings, client_config};
use bedrail::reading::{DeviceId, Nameplate};
use bedrail::store::{RouteRow, Store, StoreError};
use bedrail::ward::Ward;
use jiff::tz::TimeZone;
use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::broker::{Broker, BrokerOptions};
use crate::support::pki::Pki;
use crate::world::{GATEWAY, OXIMETERS, boot, open, oximeter};

pub const WINDOW: u16 = LinkSettings::WINDOW;
pub const TOPIC: &str = "bedrail/{gateway}/{device}/{metric}";
pub const BATCH_TOPIC: &str = "bedrail/batch";
/// Records, as the config gives a route that sends batches.
const BATCH_WINDOW: usize = 4_096;
/// mosquitto announces a receive maximum of 20 by itself, and its full log would be what is measured.
pub const BROKER: &str = "max_inflight_messages 0\nlog_type none\nlog_type error";
/// Far longer than a round takes.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Upstream {
    pub broker: Broker,
    /// For comparison with rumqttc, whose TLS is not in the tree.
    pub plain: Broker,
    pub tls: Arc<ClientConfig>,
    pub runtime: Runtime,
    routes: usize,
}

impl Upstream {
    pub fn start() -> Self {
        let pki = Pki::new();
        let broker = Broker::start(&BrokerOptions { extra: BROKER.to_owned(), ..BrokerOptions::mutual_tls(&pki) });
        let plain = Broker::start(&BrokerOptions { extra: BROKER.to_owned(), ..BrokerOptions::default() });
        let gateway = pki.client("gateway");
        let key = std::fs::read(&gateway.key).expect("its key");
        let client = Some(ClientIdentity { cert: gateway.cert, key: key.into() });
        let settings = TlsSettings { route: "live".into(), ca: Some(pki.ca()), client, alpn: Vec::new() };
        let tls = client_config(&settings).expect("TLS");
        // As the daemon's: two workers, and a thread a route.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        Self { broker, plain, tls, runtime, routes: 0 }
    }

    /// A new route that owes all there is in the log of `directory`, at work.
    pub fn drain(&mut self, directory: &Path) -> Draining {
        self.start_route(directory, self.broker.port(), Some(self.tls.clone()), Owes::Everything)
    }

    pub fn drain_in_the_clear(&mut self, directory: &Path) -> Draining {
        self.start_route(directory, self.plain.port(), None, Owes::Everything)
    }

    /// The same as compressed batches: acknowledgements are of batches then.
    pub fn drain_batches_in_the_clear(&mut self, directory: &Path) -> Draining {
        self.start_route(directory, self.plain.port(), None, Owes::EverythingInBatches)
    }

    /// A new route that owes what comes from now on.
    pub fn follow(&mut self, directory: &Path) -> Draining {
        self.start_route(directory, self.broker.port(), Some(self.tls.clone()), Owes::WhatComes)
    }

    fn start_route(&mut self, directory: &Path, port: u16, tls: Option<Arc<ClientConfig>>, owes: Owes) -> Draining {
        self.routes += 1;
        let name = format!("route-{}", self.routes);
        let mut store = open(directory);
        let oldest = owes != Owes::WhatComes;
        let row = store.register_routes(&[(&name, "mqtt", oldest)], 0).expect("registered").remove(0);
        let mut link = LinkSettings::new("localhost", port, tls, name);
        link.window = WINDOW;
        Draining::start(&self.runtime, store, row, link, owes == Owes::EverythingInBatches)
    }
}

/// What a route begins with, and how it sends that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owes {
    WhatComes,
    Everything,
    EverythingInBatches,
}

/// What a counted link has seen: when it was connected, and how many acknowledgements came.
#[derive(Default)]
struct Seen {
    connected: Mutex<Option<Instant>>,
    acked: AtomicU64,
    wanted: AtomicU64,
    enough: Notify,
    /// Whether it is looked into the messages.
    watching: AtomicBool,
    live: Mutex<Live>,
}

/// Live values by the token they went under, and when each record was acknowledged.
#[derive(Default)]
struct Live {
    sent: HashMap<u64, u64>,
    acked: BTreeMap<u64, Instant>,
}

/// A route at work.
pub struct Draining {
    seen: Arc<Seen>,
    stop: CancellationToken,
    thread: JoinHandle<Result<(), StoreError>>,
    quiet: Quiet,
}

/// The other ends of what a route listens to: nothing comes from them here but the bell.
struct Quiet {
    _ward: watch::Sender<Arc<Ward>>,
    bell: watch::Sender<u64>,
    _commands: mpsc::Sender<RouteCommand>,
    state: watch::Receiver<RouteStatus>,
}

impl Draining {
    fn start(runtime: &Runtime, store: Store, row: RouteRow, link: LinkSettings, batches: bool) -> Self {
        let seen = Arc::new(Seen::default());
        let stop = CancellationToken::new();
        let (_ward, ward) = watch::channel(Arc::new(Ward::default()));
        let (rings, bell) = watch::channel(0);
        let (_commands, commands) = mpsc::channel(1);
        let (publish, state) = watch::channel(RouteStatus::default());
        let inputs = RouteInputs { ward, bell, commands, announce: None, publish, stop: stop.clone() };
        let counted = seen.clone();
        let connector = move || Counted { link: connect(&link), seen: counted.clone() };
        let topic = TOPIC.parse().expect("a topic");
        let batch = batches.then(|| BatchOptions { topic: BATCH_TOPIC.to_owned(), all_lanes: false });
        let window = if batches { BATCH_WINDOW } else { usize::from(WINDOW) };
        let options = MqttOptions { topic, topic_text: TOPIC.into(), unheard: Unheard::Wait, batch };
        let destination = MqttDestination::new(connector, options);
        let route = Route::new(settings(window), store, row, boot(), inputs, destination).expect("a route");
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || handle.block_on(route.run()));
        Self { seen, stop, thread, quiet: Quiet { _ward, bell: rings, _commands, state } }
    }

    /// Something was appended, as the other half says it.
    pub fn ring(&self) {
        self.quiet.bell.send_modify(|rings| *rings += 1);
    }

    /// From now on live values are looked for.
    pub fn watch_live(&self) {
        self.seen.watching.store(true, Ordering::Relaxed);
    }

    /// When each live record was acknowledged.
    pub fn live_acked(&self) -> BTreeMap<u64, Instant> {
        self.seen.live.lock().expect("not poisoned").acked.clone()
    }

    pub fn acked(&self) -> u64 {
        self.seen.acked.load(Ordering::Relaxed)
    }

    /// The time from the link's being up to the acknowledgement number `count`.
    pub fn wait_for(&self, runtime: &Runtime, count: u64) -> Duration {
        self.seen.wanted.store(count, Ordering::Relaxed);
        let enough = async {
            while self.acked() < count {
                // It is looked at now and then, too: it may have come before it was wanted.
                let _ = tokio::time::timeout(Duration::from_millis(100), self.seen.enough.notified()).await;
            }
        };
        runtime.block_on(async { tokio::time::timeout(LIMIT, enough).await }).expect("the backlog drains");
        self.seen.connected.lock().expect("not poisoned").expect("connected").elapsed()
    }

    /// Ends it; nothing may be owed any more, so that acknowledgements of batches were of all records.
    pub fn assert_all_settled(self) {
        let end = Instant::now() + LIMIT;
        let owed = |status: &RouteStatus| status.live + status.backlog + status.in_flight;
        while owed(&self.quiet.state.borrow()) > 0 {
            assert!(Instant::now() < end, "{} records are owed", owed(&self.quiet.state.borrow()));
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop();
    }

    pub fn stop(self) {
        self.stop.cancel();
        self.thread.join().expect("no panic").expect("no error");
    }
}

struct Counted<L> {
    link: L,
    seen: Arc<Seen>,
}

impl<L: Link> Link for Counted<L> {
    fn publish(&mut self, token: u64, message: Message) -> Result<usize, NotTaken> {
        let live = self.seen.watching.load(Ordering::Relaxed).then(|| seq_of_live(&message.payload)).flatten();
        if let Some(seq) = live {
            self.seen.live.lock().expect("not poisoned").sent.insert(token, seq);
        }
        self.link.publish(token, message)
    }

    fn room(&self) -> usize {
        self.link.room()
    }

    async fn event(&mut self) -> LinkEvent {
        let mut event = self.link.event().await;
        // Nobody subscribes here, which a route rightly takes for no delivery.
        if let LinkEvent::Acked { reason, .. } = &mut event {
            *reason = AckReason::Success;
        }
        match &event {
            LinkEvent::Connected { .. } => *self.seen.connected.lock().expect("not poisoned") = Some(Instant::now()),
            LinkEvent::Acked { token, .. } => {
                if self.seen.watching.load(Ordering::Relaxed) {
                    let mut live = self.seen.live.lock().expect("not poisoned");
                    let seq = live.sent.remove(token);
                    live.acked.extend(seq.map(|seq| (seq, Instant::now())));
                }
                let acked = self.seen.acked.fetch_add(1, Ordering::Relaxed) + 1;
                if acked == self.seen.wanted.load(Ordering::Relaxed) {
                    self.seen.enough.notify_one();
                }
            }
            LinkEvent::Lost(reason) => panic!("the link was lost: {reason}"),
        }
        event
    }

    async fn close(self) {
        self.link.close().await;
    }
}

fn seq_of_live(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("\"lane\":\"live\",\"seq\":")?;
    rest.split(',').next()?.parse().ok()
}

fn settings(window: usize) -> RouteSettings {
    let carry = Carry { readings: true, episodic: true, events: true, windows: BTreeSet::new() };
    RouteSettings {
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
        window,
        ack_interval: Duration::from_secs(1),
        max_rate: None,
        when: When::AtOnce,
        daily_bytes: None,
        receipt_within: None,
        retract: bedrail::config::Retract::Auto,
        devices: devices(),
        default_zone: TimeZone::UTC,
        preferences: BTreeMap::new(),
        min_coverage_permille: 500,
    }
}

pub fn devices() -> BTreeMap<DeviceId, RouteDevice> {
    let device = |n| {
        let device = oximeter(n);
        let label = DeviceLabel { name: device.name.clone(), kind: device.config_kind().to_owned() };
        let id = device.address.parse().expect("an address");
        (id, RouteDevice { label, zone: TimeZone::UTC, history: History::New, nameplate: Nameplate::default() })
    };
    (0..OXIMETERS).map(device).collect()
}
