//! A backlog through a real mosquitto over TLS at QoS 1, one record a message: the route as the daemon runs it (its thread,
//! its log, its link) beside a client of the same library that publishes the same payloads, made beforehand.
//!
//! Nobody subscribes: what is measured is the way to the broker's acknowledgement. Both sides have the same window; of
//! bedrail's, a quarter stays free for live values.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedrail::config::{Bind, History, Order, Unheard, When};
use bedrail::deliver::mqtt::{
    AckReason, Link, LinkEvent, LinkSettings, Message, MqttDestination, MqttOptions as Options, NotTaken, Rendered,
    TopicTemplate, connect, render,
};
use bedrail::deliver::{Carry, DeviceLabel, Item, Lane, Route, RouteDevice, RouteInputs, RouteSettings, RouteStatus, Rules};
use bedrail::net::{ClientIdentity, TlsSettings, client_config};
use bedrail::reading::{ChartId, Op, Seq};
use bedrail::store::Store;
use bedrail::ward::Ward;
use jiff::tz::TimeZone;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use rustix::time::{ClockId, clock_gettime};
use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::ingest::per_second;
use crate::support::broker::{Broker, BrokerOptions};
use crate::support::pki::Pki;
use crate::table::{Table, alternate, grouped, median, seconds};
use crate::world::{GATEWAY, OXIMETERS, boot, fill, open, oximeter, store};

const BACKLOG: usize = 50_000;
const WINDOW: u16 = LinkSettings::WINDOW;
const TOPIC: &str = "bedrail/{gateway}/{device}/{metric}";
/// mosquitto announces a receive maximum of 20 by itself, and its full log would be what is measured.
pub const BROKER: &str = "max_inflight_messages 0\nlog_type none\nlog_type error";
/// Far longer than a round takes.
const LIMIT: Duration = Duration::from_secs(120);

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut log = store(directory.path());
    fill(&mut log, BACKLOG);
    let rendered = rendered(&log, table);
    let pki = Pki::new();
    let broker = Broker::start(&BrokerOptions { extra: BROKER.to_owned(), ..BrokerOptions::mutual_tls(&pki) });
    let gateway = pki.client("gateway");
    let key = std::fs::read(&gateway.key).expect("its key");
    let client = Some(ClientIdentity { cert: gateway.cert, key: key.into() });
    let tls = client_config(&TlsSettings { route: "live".into(), ca: Some(pki.ca()), client, alpn: Vec::new() }).expect("TLS");
    // As the daemon's: two workers, and a thread a route.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut number = 0;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let rate = alternate(
        || {
            let before = cpu_us();
            number += 1;
            let name = format!("route-{number}");
            let row = log.register_routes(&[(&name, "mqtt", true)], 0).expect("registered").remove(0);
            let mut link = LinkSettings::new("localhost", broker.port(), Some(tls.clone()), name);
            link.window = WINDOW;
            let mine = open(directory.path());
            let time = runtime.block_on(drained(mine, row, link));
            ours.push((cpu_us() - before) / BACKLOG as f64);
            BACKLOG as f64 / time.as_secs_f64()
        },
        || {
            let before = cpu_us();
            let time = bare(&runtime, broker.port(), &tls, &rendered);
            theirs.push((cpu_us() - before) / BACKLOG as f64);
            BACKLOG as f64 / time.as_secs_f64()
        },
    );
    let what = format!("drain: backlog over TLS, QoS 1, window {WINDOW}, one a message / bare client");
    table.row(&what, per_second(rate.bedrail), per_second(rate.control), Some(rate.ratio), ">= 0.9");
    let (ours, theirs) = (median(ours), median(theirs));
    let show = |us: f64| format!("{us:.1} µs");
    table.row("drain: CPU a record, the broker's left out", show(ours), show(theirs), Some(ours / theirs), "-");
}

/// What this process has computed so far, all its threads together.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The payloads of the whole backlog, and what making them costs.
fn rendered(log: &Store, table: &mut Table) -> Vec<Rendered> {
    let anchors = log.anchors().expect("anchors");
    let topic: TopicTemplate = TOPIC.parse().expect("a topic");
    let (devices, boot) = (devices(), boot());
    let mut items = Vec::new();
    while items.len() < BACKLOG {
        let from = Seq(items.len() as u64 + 1);
        for (seq, record) in log.read(from, Seq(BACKLOG as u64), 1_000).expect("reads") {
            let placement = log.site_key().placement(None, 0);
            items.push(Item {
                seq,
                lane: Lane::Backlog,
                op: Op::Put,
                placement,
                chart: ChartId::of(record.id, placement),
                subject: None,
                gateway: GATEWAY.to_owned(),
                device: devices.get(&record.device).map(|device| device.label.clone()),
                measured: anchors.measured(&record.stamp, &TimeZone::UTC),
                received: anchors.wall(record.stamp.boot, record.stamp.arrived),
                sent: anchors.wall(boot.id(), boot.now()).map(|wall| wall.at),
                choice: None,
                record,
            });
        }
    }
    let mut rendered = Vec::new();
    let time = seconds(|| rendered = items.iter().map(|item| render(item, &topic)).collect());
    let values: Vec<serde_json::Value> =
        rendered.iter().map(|r: &Rendered| serde_json::from_slice(&r.payload).expect("JSON")).collect();
    let plain = seconds(|| values.iter().for_each(|value| drop(black_box(serde_json::to_vec(value)))));
    let nanos = |time: f64| format!("{} ns", grouped(time * 1e9 / BACKLOG as f64));
    table.row("render, a record / serde_json writing the same tree", nanos(time), nanos(plain), Some(time / plain), "-");
    let octets: usize = rendered.iter().map(|r| r.payload.len()).sum();
    table.row("JSON, a record", format!("{} B", octets / BACKLOG), "-".into(), None, "-");
    rendered
}

fn devices() -> BTreeMap<bedrail::reading::DeviceId, RouteDevice> {
    let device = |n| {
        let device = oximeter(n);
        let label = DeviceLabel { name: device.name.clone(), kind: device.config_kind().to_owned() };
        let id = device.address.parse().expect("an address");
        (id, RouteDevice { label, zone: TimeZone::UTC, history: History::New })
    };
    (0..OXIMETERS).map(device).collect()
}

/// What a counted link has seen: when it was connected, and how many acknowledgements came.
#[derive(Default)]
struct Seen {
    connected: Mutex<Option<Instant>>,
    acked: AtomicU64,
    all: Notify,
}

struct Counted<L> {
    link: L,
    seen: Arc<Seen>,
}

impl<L: Link> Link for Counted<L> {
    fn publish(&mut self, token: u64, message: Message) -> Result<(), NotTaken> {
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
            LinkEvent::Acked { .. } => {
                if self.seen.acked.fetch_add(1, Ordering::Relaxed) + 1 == BACKLOG as u64 {
                    self.seen.all.notify_one();
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

/// From the link's being up to the last acknowledgement.
async fn drained(store: Store, row: bedrail::store::RouteRow, link: LinkSettings) -> Duration {
    let seen = Arc::new(Seen::default());
    let stop = CancellationToken::new();
    // Whoever holds the other ends is quiet here.
    let (_ward, ward) = watch::channel(Arc::new(Ward::default()));
    let (_bell, bell) = watch::channel(0);
    let (_commands, commands) = mpsc::channel(1);
    let (_status, gateway_status) = watch::channel(None);
    let (publish, _state) = watch::channel(RouteStatus::default());
    let inputs = RouteInputs { ward, bell, commands, gateway_status, publish, stop: stop.clone() };
    let counted = seen.clone();
    let connector = move || Counted { link: connect(&link), seen: counted.clone() };
    let topic = TOPIC.parse().expect("a topic");
    let options = Options { topic, topic_text: TOPIC.into(), gateway: GATEWAY.into(), unheard: Unheard::Wait, batch: None };
    let destination = MqttDestination::new(connector, options);
    let route = Route::new(settings(), store, row, boot(), inputs, destination).expect("a route");
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::spawn(move || runtime.block_on(route.run()));
    tokio::time::timeout(LIMIT, seen.all.notified()).await.expect("the backlog drains");
    let connected = seen.connected.lock().expect("not poisoned").expect("connected");
    let time = connected.elapsed();
    stop.cancel();
    tokio::task::spawn_blocking(|| thread.join()).await.expect("joined").expect("no panic").expect("no error");
    time
}

fn settings() -> RouteSettings {
    let carry = Carry { readings: true, episodic: true, events: true, windows: BTreeSet::new() };
    RouteSettings {
        name: "live".into(),
        gateway: GATEWAY.into(),
        rules: Rules { bind: Bind::Device, carry, metrics: None, devices: None, hold_questionable: false, per_patient: false },
        order: Order::LiveFirst,
        window: usize::from(WINDOW),
        ack_interval: Duration::from_secs(1),
        max_rate: None,
        when: When::AtOnce,
        daily_bytes: None,
        receipt_within: None,
        devices: devices(),
        default_zone: TimeZone::UTC,
        preferences: BTreeMap::new(),
        min_coverage_permille: 500,
    }
}

/// The library with nothing around it: one task publishes, the loop is polled, acknowledgements are counted.
fn bare(runtime: &Runtime, port: u16, tls: &Arc<ClientConfig>, messages: &[Rendered]) -> Duration {
    let messages = messages.to_vec();
    let mut options = MqttOptions::new("bare", "localhost", port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(tls.clone())))
        .set_network_options(network)
        .set_clean_start(true)
        .set_keep_alive(Duration::from_secs(30))
        .set_outgoing_inflight_upper_limit(WINDOW);
    let (client, mut event_loop) = AsyncClient::new(options, usize::from(WINDOW));
    let run = async move {
        while !matches!(event_loop.poll().await.expect("connects"), Event::Incoming(Packet::ConnAck(_))) {}
        let started = Instant::now();
        tokio::spawn(async move {
            for Rendered { topic, payload } in messages {
                client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("published");
            }
            // It ends the loop when it is dropped.
            std::future::pending::<()>().await;
        });
        let mut acked = 0;
        while acked < BACKLOG {
            acked += usize::from(matches!(event_loop.poll().await.expect("holds"), Event::Incoming(Packet::PubAck(_))));
        }
        started.elapsed()
    };
    runtime
        .block_on(async { tokio::spawn(async { tokio::time::timeout(LIMIT, run).await }).await.expect("joined") })
        .expect("drains")
}
