//! A backlog at QoS 1, one record a message: the route beside rumqttc that serialises the same payload for each message and
//! publishes it, both in the clear, since rumqttc's TLS is not in the tree. What a client does that has its payloads ready is
//! shown too, and the route over TLS as it is in use.
//!
//! All have the same window; of bedrail's, a quarter stays free for live values.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bedrail::deliver::mqtt::{Rendered, TopicTemplate, batch, render};
use bedrail::deliver::{Item, Lane};
use bedrail::reading::{ChartId, Op, Seq};
use bedrail::store::Store;
use jiff::tz::TimeZone;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::ingest::per_second;
use crate::table::{Rounds, Table, grouped, median, rounds, seconds};
use crate::upstream::{BATCH_TOPIC, Draining, LIMIT, TOPIC, Upstream, WINDOW, devices};
use crate::world::{GATEWAY, boot, fill, store};

const BACKLOG: usize = 50_000;

pub fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut log = store(directory.path());
    fill(&mut log, BACKLOG);
    let rendered = rendered(&log);
    let trees: Vec<(String, Value)> = rendered.iter().map(|r| (r.topic.clone(), tree(&r.payload))).collect();
    rendering(&log, &trees, table);
    let mut upstream = Upstream::start();
    let mut cpu = [const { Vec::new() }; 4];
    let rates: Rounds<4> = rounds(|side| {
        let before = cpu_us();
        let drained = |upstream: &Upstream, draining: Draining| {
            let time = draining.wait_for(&upstream.runtime, BACKLOG as u64);
            draining.stop();
            time
        };
        let time = match side {
            0 => {
                let draining = upstream.drain_in_the_clear(directory.path());
                drained(&upstream, draining)
            }
            1 => {
                let serialised = |(topic, tree): (String, Value)| (topic, serde_json::to_vec(&tree).expect("it serialises"));
                bare(&upstream, trees.clone(), serialised)
            }
            2 => bare(&upstream, rendered.clone(), |message| (message.topic, message.payload)),
            _ => {
                let draining = upstream.drain(directory.path());
                drained(&upstream, draining)
            }
        };
        cpu[side].push((cpu_us() - before) / BACKLOG as f64);
        BACKLOG as f64 / time.as_secs_f64()
    });
    let [ours, serialising, ready, over_tls] = cpu.map(median);
    let show = |us: f64| format!("{us:.1} µs");
    let what = format!("drain: backlog, QoS 1, window {WINDOW}, one a message / rumqttc that serialises it");
    table.row(&what, per_second(rates.of(0)), per_second(rates.of(1)), Some(rates.ratio(0, 1)), ">= 0.9");
    let what = "drain: the same / rumqttc that has the payloads ready";
    table.row(what, per_second(rates.of(0)), per_second(rates.of(2)), Some(rates.ratio(0, 2)), "-");
    let what = "drain: CPU a record, the broker's left out / rumqttc that serialises it";
    table.row(what, show(ours), show(serialising), Some(ours / serialising), "-");
    table.row("drain: the same / rumqttc that has the payloads ready", show(ours), show(ready), Some(ours / ready), "-");
    let what = "drain: over TLS, a certificate on both sides / in the clear";
    table.row(what, per_second(rates.of(3)), per_second(rates.of(0)), Some(rates.ratio(3, 0)), "-");
    table.row("drain: CPU a record over TLS / in the clear", show(over_tls), show(ours), Some(over_tls / ours), "-");
    batched(&items(&log), &trees, directory.path(), &mut upstream, table);
}

/// The same backlog as compressed batches, beside rumqttc that serialises and compresses as many records a message: their
/// trees as they are, and what is left when somebody has already taken out what they have in common.
fn batched(items: &[Item], trees: &[(String, Value)], directory: &Path, upstream: &mut Upstream, table: &mut Table) {
    let records = |batch: &[(String, Value)]| batch.iter().map(|(_, tree)| tree.clone()).collect();
    let whole: Vec<Value> = trees.chunks(batch::MAX_RECORDS).map(|batch| Value::Array(records(batch))).collect();
    let compact: Vec<Value> = items.chunks(batch::MAX_RECORDS).map(|batch| tree(batch::text(&refs(batch)).as_bytes())).collect();
    let mut cpu = [const { Vec::new() }; 3];
    let rates: Rounds<3> = rounds(|side| {
        let before = cpu_us();
        let time = match side {
            0 => {
                let draining = upstream.drain_batches_in_the_clear(directory);
                let time = draining.wait_for(&upstream.runtime, compact.len() as u64);
                draining.assert_all_settled();
                time
            }
            1 => bare(upstream, whole.clone(), compressed),
            _ => bare(upstream, compact.clone(), compressed),
        };
        cpu[side].push((cpu_us() - before) / BACKLOG as f64);
        BACKLOG as f64 / time.as_secs_f64()
    });
    let what =
        format!("drain: backlog, QoS 1, batches of {} / rumqttc that serialises and compresses as many", batch::MAX_RECORDS);
    table.row(&what, per_second(rates.of(0)), per_second(rates.of(1)), Some(rates.ratio(0, 1)), ">= 0.5");
    let what = "drain: the same / rumqttc that has what they have in common taken out already";
    table.row(what, per_second(rates.of(0)), per_second(rates.of(2)), Some(rates.ratio(0, 2)), "-");
    let [ours, control, _] = cpu.map(median);
    let show = |us: f64| format!("{us:.1} µs");
    let what = "drain: CPU a record in batches / rumqttc that serialises and compresses as many";
    table.row(what, show(ours), show(control), Some(ours / control), "-");
    let octets =
        |trees: &[Value]| trees.iter().map(|tree| compressed(tree.clone()).1.len()).sum::<usize>() as f64 / BACKLOG as f64;
    let ours: usize = items.chunks(batch::MAX_RECORDS).map(|batch| batch::render(&refs(batch)).map_or(0, |b| b.len())).sum();
    let (ours, control) = (ours as f64 / BACKLOG as f64, octets(&whole));
    let what = "octets a record in batches / as it is, compressed";
    table.row(what, format!("{ours:.1} B"), format!("{control:.1} B"), Some(ours / control), "<= 40 B");
}

fn compressed(tree: Value) -> (String, Vec<u8>) {
    let text = serde_json::to_vec(&tree).expect("it serialises");
    (BATCH_TOPIC.to_owned(), zstd::bulk::compress(&text, 3).expect("it compresses"))
}

fn refs(items: &[Item]) -> Vec<&Item> {
    items.iter().collect()
}

/// What this process has computed so far, all its threads together.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn tree(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).expect("JSON")
}

fn rendered(log: &Store) -> Vec<Rendered> {
    let topic: TopicTemplate = TOPIC.parse().expect("a topic");
    items(log).iter().map(|item| render(item, &topic)).collect()
}

fn rendering(log: &Store, trees: &[(String, Value)], table: &mut Table) {
    let topic: TopicTemplate = TOPIC.parse().expect("a topic");
    let items = items(log);
    let cost: Rounds<2> = rounds(|side| match side {
        0 => seconds(|| items.iter().for_each(|item| drop(black_box(render(item, &topic))))),
        _ => seconds(|| trees.iter().for_each(|(_, tree)| drop(black_box(serde_json::to_vec(tree))))),
    });
    let nanos = |time: f64| format!("{} ns", grouped(time * 1e9 / BACKLOG as f64));
    let what = "render, a record / serde_json writing the same tree";
    table.row(what, nanos(cost.of(0)), nanos(cost.of(1)), Some(cost.ratio(0, 1)), "-");
    let octets: usize = items.iter().map(|item| render(item, &topic).payload.len()).sum();
    table.row("JSON, a record", format!("{} B", octets / BACKLOG), "-".into(), None, "-");
}

/// The whole backlog as the route sees it.
fn items(log: &Store) -> Vec<Item> {
    let anchors = log.anchors().expect("anchors");
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
                measured: anchors.of(&record.stamp, record.stream, &TimeZone::UTC),
                received: anchors.wall(record.stamp.boot, record.stamp.arrived),
                sent: anchors.wall(boot.id(), boot.now()).map(|wall| wall.at),
                choice: None,
                record,
            });
        }
    }
    items
}

/// The library with nothing around it: one task publishes, the loop is polled, acknowledgements are counted.
fn bare<M: Send + 'static>(
    upstream: &Upstream,
    messages: Vec<M>,
    message: impl Fn(M) -> (String, Vec<u8>) + Send + 'static,
) -> Duration {
    let mut options = MqttOptions::new("bare", "localhost", upstream.plain.port());
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_clean_start(true)
        .set_keep_alive(Duration::from_secs(30))
        .set_outgoing_inflight_upper_limit(WINDOW);
    let (client, mut event_loop) = AsyncClient::new(options, usize::from(WINDOW));
    let count = messages.len();
    let run = async move {
        while !matches!(event_loop.poll().await.expect("connects"), Event::Incoming(Packet::ConnAck(_))) {}
        let started = Instant::now();
        tokio::spawn(async move {
            for (topic, payload) in messages.into_iter().map(message) {
                client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("published");
            }
            // It ends the loop when it is dropped.
            std::future::pending::<()>().await;
        });
        let mut acked = 0;
        while acked < count {
            acked += usize::from(matches!(event_loop.poll().await.expect("holds"), Event::Incoming(Packet::PubAck(_))));
        }
        started.elapsed()
    };
    upstream
        .runtime
        .block_on(async { tokio::spawn(async { tokio::time::timeout(LIMIT, run).await }).await.expect("joined") })
        .expect("drains")
}
