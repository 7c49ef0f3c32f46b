//! What a radio meets over years, in minutes: reconnects under chatter, every trouble of bluetoothd and adapter, more devices
//! than links, a receiver that rests, a full ward for as long as it takes to see memory grow. `BEDRAIL_LONG=1`
//! (`make long-radio`) does it at full length and at the deadlines of the product.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bedrail::radio::{Deadlines, EVENT_QUEUE, Pace, RadioDevice, RadioEvent, RadioSettings, Sharing};
use bedrail::reading::DeviceId;
use tokio::time::{sleep, timeout};

use support::bluez::{DeviceSpec, FakeBluez};
use support::bus::on_a_bus_with;
use support::devices::{HEART_RATE, Kind, VirtualDevice, Worker};
use support::process::wait_until;
use support::radio::*;
use support::rig::{Rig, Shape};

/// For the longest of them, which streams for ten minutes.
const LONG_LIMIT: Duration = Duration::from_secs(20 * 60);

fn is_long() -> bool {
    std::env::var_os("BEDRAIL_LONG").is_some()
}

fn pick<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

fn on_a_bus_for_long(name: &str, body: impl AsyncFnOnce(String)) {
    on_a_bus_with(name, "", pick(LIMIT, LONG_LIMIT), |bus| blocking(body(bus)));
}

fn devices(count: u8, kinds: &[Kind]) -> Vec<VirtualDevice> {
    let device = |n: u8| {
        let kind = kinds[usize::from(n) % kinds.len()];
        VirtualDevice::new(kind, &format!("C0:FF:EE:00:01:{n:02X}"), &format!("device-{n:02}"))
    };
    (0..count).map(device).collect()
}

/// As the daemon would, or in the short form fast.
fn in_earnest(devices: Vec<RadioDevice>) -> RadioSettings {
    RadioSettings { deadlines: pick(impatient(), Deadlines::default()), ..settings(devices, Pace::default()) }
}

/// Phones and whatever else there is in a ward's air.
fn phones(bluez: &FakeBluez, count: u8) -> Vec<String> {
    let phone = |n: u8| VirtualDevice::new(Kind::Thermometer, &format!("5A:00:00:00:00:{n:02X}"), "phone");
    let phones: Vec<DeviceSpec> = (0..count).map(|n| phone(n).spec()).collect();
    let addresses = phones.iter().map(|phone| phone.address.clone()).collect();
    phones.into_iter().for_each(|phone| bluez.add_device("hci0", phone));
    addresses
}

struct Chatter {
    stop: Arc<AtomicBool>,
    signals: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Chatter {
    /// About two thousand signals a second, of the device itself and of phones around it.
    fn start(bluez: &Arc<FakeBluez>, device: &'static str) -> Self {
        let (stop, signals) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (bluez, stopped, count) = (bluez.clone(), stop.clone(), signals.clone());
        let phones = phones(&bluez, 50);
        let thread = std::thread::spawn(move || {
            for n in (0u8..100).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                bluez.advertise(device, -50 - i16::from(n % 40));
                bluez.set_battery(device, n);
                bluez.advertise(&phones[usize::from(n) % phones.len()], -90);
                count.fetch_add(3, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(1_200));
            }
        });
        Self { stop, signals, thread: Some(thread) }
    }

    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
        self.signals.load(Ordering::Relaxed)
    }
}

#[test]
fn reconnects_under_chatter_cost_no_match_rule_no_panic_and_no_value() {
    on_a_bus_for_long("reconnects_under_chatter_cost_no_match_rule_no_panic_and_no_value", async |bus| {
        let panics = Arc::new(AtomicUsize::new(0));
        let counter = panics.clone();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            counter.fetch_add(1, Ordering::Relaxed);
            usual(info);
        }));
        let bluez = Arc::new(room(&bus, &[&strap()]));
        let connection = zbus::connection::Builder::address(bus.as_str()).build().await.unwrap();
        let pace = Pace { count_rules_every: SOON / 100, ..Pace::default() };
        let mut radio = Radio::at_pace(vec![wanted(&strap())], EVENT_QUEUE, pace);
        radio.ready(STRAP).await;
        radio.until("a count", |event| matches!(event, RadioEvent::Health(health) if health.match_rules.is_some())).await;
        let counted = radio.health.match_rules;
        assert!(counted >= Some(4), "{counted:?}");
        let before = match_rules(&connection).await;
        assert!(before >= 6, "ours, one stream and the fake's: {before}");
        let chatter = Chatter::start(&bluez, STRAP);
        let rounds = pick(60u16, 1_500);
        let mut took = Vec::new();
        for round in 0..rounds {
            let begun = Instant::now();
            bluez.drop_link(STRAP);
            radio.ready(STRAP).await;
            took.push(begun.elapsed());
            let octets = [&[0][..], &round.to_be_bytes()].concat();
            assert!(bluez.notify(STRAP, HEART_RATE, &octets));
            radio.hears(&octets).await;
        }
        let signals = chatter.end();
        let rules = match_rules(&connection).await;
        assert_eq!(rules, before);
        assert_eq!(radio.health.match_rules, counted, "as it watches itself");
        assert_eq!(panics.load(Ordering::Relaxed), 0);
        let told = radio.heard.iter().filter(|heard| heard.characteristic == HEART_RATE).count();
        assert_eq!(told, usize::from(rounds), "each value once");
        took.sort_unstable();
        println!(
            "measured: {rounds} reconnects under {signals} signals: match rules {before} before, {rules} after; no panic; {told} of {rounds} \
             values; ready again after {} ms (median), {} ms (longest)",
            took[took.len() / 2].as_millis(),
            took[took.len() - 1].as_millis()
        );
        radio.end().await;
    });
}

/// What goes wrong, and how long it takes BlueZ to answer again.
type Trouble = (&'static str, fn(&FakeBluez, &[VirtualDevice]), Duration, fn(&FakeBluez, &[VirtualDevice]));

const NOTHING: fn(&FakeBluez, &[VirtualDevice]) = |_, _| {};

fn hear_all(bluez: &FakeBluez, devices: &[VirtualDevice]) {
    devices.iter().for_each(|device| bluez.advertise(&device.address, -60));
}

fn move_to(bluez: &FakeBluez, devices: &[VirtualDevice], from: &str, to: &str) {
    bluez.remove_adapter(from);
    bluez.add_adapter(adapter(to));
    devices.iter().for_each(|device| device.place(bluez, to));
    hear_all(bluez, devices);
}

const TROUBLES: [Trouble; 9] = [
    ("all links break", |bluez, devices| devices.iter().for_each(|d| bluez.drop_link(&d.address)), Duration::ZERO, hear_all),
    ("bluetoothd crashes", |bluez, _| bluez.crash(), Duration::from_millis(500), |bluez, _| bluez.restart()),
    ("bluetoothd stops in order", |bluez, _| bluez.stop(), Duration::from_millis(500), |bluez, _| bluez.restart()),
    (
        "bluetoothd hangs while links break",
        |bluez, devices| {
            devices.iter().for_each(|d| bluez.drop_link(&d.address));
            bluez.hang(true);
        },
        Duration::from_secs(2),
        |bluez, devices| {
            bluez.hang(false);
            hear_all(bluez, devices);
        },
    ),
    (
        "the adapter is unplugged and plugged in",
        |bluez, devices| move_to(bluez, devices, "hci0", "hci0"),
        Duration::ZERO,
        NOTHING,
    ),
    (
        "the adapter comes back under another name, and again under its own",
        |bluez, devices| move_to(bluez, devices, "hci0", "hci1"),
        Duration::from_millis(500),
        |bluez, devices| move_to(bluez, devices, "hci1", "hci0"),
    ),
    (
        "the adapter is powered off and on",
        |bluez, _| bluez.set_powered("hci0", false),
        Duration::from_millis(500),
        |bluez, devices| {
            bluez.set_powered("hci0", true);
            hear_all(bluez, devices);
        },
    ),
    (
        "the handles move",
        |bluez, devices| devices.iter().for_each(|d| bluez.move_handles(&d.address, 0x80)),
        Duration::from_millis(100),
        |bluez, devices| devices.iter().for_each(|d| bluez.move_handles(&d.address, 0x10)),
    ),
    (
        "BlueZ forgets the devices",
        |bluez, devices| devices.iter().for_each(|d| bluez.remove_device(&d.address)),
        Duration::ZERO,
        hear_all,
    ),
];

#[test]
fn after_every_trouble_each_device_is_heard_again_and_no_value_is_missed() {
    on_a_bus_for_long("after_every_trouble_each_device_is_heard_again_and_no_value_is_missed", async |bus| {
        let kinds = [Kind::HeartRateStrap, Kind::Thermometer, Kind::Cuff, Kind::OximeterContinuous];
        let devices = devices(4, &kinds);
        let bluez = room(&bus, &devices.iter().collect::<Vec<_>>());
        let mut radio = Radio::with(in_earnest(devices.iter().map(wanted).collect()), EVENT_QUEUE);
        let mut workers: Vec<Worker> = devices.iter().cloned().map(Worker::new).collect();
        let mut took: BTreeMap<&str, Duration> = BTreeMap::new();
        for (name, begin, lasts, end) in TROUBLES.iter().cycle().take(TROUBLES.len() * pick(1, 10)) {
            listened_to(&mut radio, &bluez, &workers, "before it").await;
            workers.iter_mut().for_each(|worker| worker.measure(&bluez));
            radio.drain(Duration::from_millis(50)).await;
            begin(&bluez, &devices);
            let _ = timeout(*lasts, radio.drain(LONG_LIMIT)).await;
            end(&bluez, &devices);
            let answers = Instant::now();
            listened_to(&mut radio, &bluez, &workers, name).await;
            let slowest = took.entry(name).or_default();
            *slowest = answers.elapsed().max(*slowest);
            // What was kept meanwhile, and one more.
            workers.iter_mut().for_each(|worker| worker.measure(&bluez));
        }
        radio.drain(Duration::from_millis(500)).await;
        for worker in &workers {
            let (address, own) = (id(&worker.device.address), worker.device.characteristic());
            let sent: BTreeSet<u64> = worker.made().iter().filter(|made| made.sent).map(|made| made.sequence).collect();
            let sent: Vec<_> = sent.iter().map(|n| worker.device.value(*n, 0).octets[..2].to_vec()).collect();
            let of_it = radio.heard.iter().filter(|heard| heard.device == address && heard.characteristic == own);
            assert_eq!(of_it.map(|heard| heard.octets[..2].to_vec()).collect::<Vec<_>>(), sent, "{}", worker.device.name);
        }
        for (name, _, _, _) in TROUBLES {
            println!(
                "measured: {name}: all heard again at most {:.2} s after BlueZ answers (aim: 10 s)",
                took[name].as_secs_f64()
            );
        }
        radio.end().await;
    });
}

/// Takes what comes until each has a listener for its next value.
async fn listened_to(radio: &mut Radio, bluez: &FakeBluez, workers: &[Worker], when: &str) {
    let begun = Instant::now();
    while !workers.iter().all(|worker| worker.is_heard(bluez)) {
        assert!(begun.elapsed() < pick(SOON, 12 * SOON), "{when}: not every device is listened to; lost: {:?}", radio.lost);
        radio.drain(Duration::from_millis(5)).await;
    }
}

#[test]
fn many_devices_share_few_links_and_each_has_its_turn_again_and_again() {
    on_a_bus_for_long("many_devices_share_few_links_and_each_has_its_turn_again_and_again", async |bus| {
        let (count, slots) = pick((12, 3), (64, 10));
        let devices = devices(count, &[Kind::HeartRateStrap]);
        let bluez = room(&bus, &devices.iter().collect::<Vec<_>>());
        let wanted = |device: &VirtualDevice| RadioDevice { read: vec![], ..wanted(device) };
        let sharing = Sharing {
            slots,
            tenure: pick(Duration::from_millis(200), Duration::from_secs(3)),
            patience: Duration::from_millis(100),
            ask_again: Duration::from_secs(1),
            ..Sharing::default()
        };
        let shared = RadioSettings { sharing, ..in_earnest(devices.iter().map(wanted).collect()) };
        let mut radio = Radio::with(shared, EVENT_QUEUE);
        let (mut turns, mut most) = (BTreeMap::<DeviceId, u32>::new(), 0);
        let begun = Instant::now();
        while turns.len() < devices.len() || turns.values().any(|turns| *turns < 3) {
            assert!(begun.elapsed() < pick(LIMIT / 2, LONG_LIMIT / 2), "a device starves: {turns:?}");
            hear_all(&bluez, &devices);
            let linked = devices.iter().filter(|device| bluez.is_connected(&device.address)).count();
            assert!(linked <= slots, "{linked} links");
            most = most.max(linked);
            if let Ok(Some(event)) = timeout(Duration::from_millis(50), radio.events.recv()).await {
                if let RadioEvent::Ready { device } = &event {
                    *turns.entry(*device).or_default() += 1;
                }
                radio.keep(event);
            }
        }
        assert_eq!(most, slots, "none lies idle");
        let (least, greatest) = (turns.values().min().unwrap(), turns.values().max().unwrap());
        println!(
            "measured: {count} devices on {slots} links: each had {least} to {greatest} turns of {:?} in {:.0} s",
            sharing.tenure,
            begun.elapsed().as_secs_f64()
        );
        radio.end().await;
    });
}

#[test]
fn a_receiver_that_rests_while_a_ward_streams_loses_nothing() {
    on_a_bus_for_long("a_receiver_that_rests_while_a_ward_streams_loses_nothing", async |bus| {
        let (count, each) = pick((4, 300u16), (10, 3_000));
        let devices = devices(count, &[Kind::HeartRateStrap]);
        let bluez = room(&bus, &devices.iter().collect::<Vec<_>>());
        let wanted = |device: &VirtualDevice| RadioDevice { read: vec![], ..wanted(device) };
        let mut radio = Radio::with(in_earnest(devices.iter().map(wanted).collect()), EVENT_QUEUE);
        wait_for("all of them", || devices.iter().all(|device| bluez.is_listening(&device.address, HEART_RATE))).await;
        for n in 0..each {
            assert!(devices.iter().all(|device| bluez.notify(&device.address, HEART_RATE, &n.to_be_bytes())));
            if n % 100 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        sleep(pick(Duration::from_millis(500), Duration::from_secs(10))).await;
        radio.drain(Duration::from_secs(1)).await;
        for device in &devices {
            let of_it = radio.heard.iter().filter(|heard| heard.device == id(&device.address));
            let values: Vec<u16> = of_it.map(|heard| u16::from_be_bytes([heard.octets[0], heard.octets[1]])).collect();
            assert_eq!(values, (0..each).collect::<Vec<_>>(), "{}", device.name);
        }
        println!("measured: {count} devices told {each} values each to a receiver that rested: all arrived, in order");
        radio.end().await;
    });
}

#[test]
fn a_ward_that_streams_for_long_starves_nobody_and_does_not_grow() {
    let (count, rounds, pause) = pick((12, 60, Duration::from_millis(100)), (64, 600, Duration::from_secs(1)));
    let devices = devices(count, &[Kind::HeartRateStrap, Kind::OximeterContinuous]);
    // Everything there is in ten minutes, windows too: the ledger asks for each record of the log.
    let carry = "carry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]";
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, carry, "");
    rig.log_filter = "info";
    let phones = phones(&rig.bluez, 100);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON * 6);
    let (begun, cpu) = (Instant::now(), processor_ms(&rig));
    let mut resident = Vec::new();
    for round in 0..rounds {
        let next = Instant::now() + pause;
        phones.iter().for_each(|phone| rig.bluez.advertise(phone, -80 - i16::try_from(round % 10).unwrap()));
        if round % pick(20, 5) == 4 {
            let unlucky = &devices[round / pick(20, 5) % devices.len()].address;
            rig.bluez.drop_link(unlucky);
            rig.bluez.advertise(unlucky, -60);
        }
        rig.measure(|_| true);
        resident.push(resident_kib(&rig));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let (wall, cpu) = (begun.elapsed(), processor_ms(&rig) - cpu);
    rig.wait_until_heard(SOON * 6);
    let made = rig.made();
    let mut report = rig.settle(SOON * 12);
    // The last round is durable half a second after it was sent.
    wait_until(SOON, || {
        report = rig.settle(SOON * 12);
        report.sent_but_missing(&made) == 0
    });
    assert_eq!(report.sent_but_missing(&made), 0, "{:?}\n{}", report.missing, rig.logs());
    assert!(report.not_made.is_empty() && report.out_of_order.is_empty(), "{report:?}");
    let heard = |device: &VirtualDevice| {
        let sequences = made.iter().filter(|made| made.device == device.address && made.sent).map(|made| made.sequence);
        sequences.collect::<BTreeSet<u64>>().len()
    };
    let heard: Vec<usize> = devices.iter().map(heard).collect();
    let (least, most) = (*heard.iter().min().unwrap(), *heard.iter().max().unwrap());
    // The wait before a reconnect, up to 3 s, is half of the short form.
    assert!(least * 10 >= most * pick(3, 8), "a device starves: {heard:?}");
    let quarter = resident.len() / 4;
    let middle = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let (early, late) = (middle(&resident[quarter..2 * quarter]), middle(&resident[3 * quarter..]));
    assert!(late * 100 <= early * pick(150, 120), "resident memory grew from {early} to {late} KiB");
    let minute = resident.chunks(pick(10, 60)).map(|minute| format!("{:.1}", middle(minute) as f64 / 1_024.0));
    println!("measured: resident memory over the run, MiB: {}", minute.collect::<Vec<_>>().join(" "));
    let calm = wait_until(SOON, || rig.ask_json(&["status"])["collect"]["process"]["panics"] == 0);
    assert!(calm, "panics");
    println!(
        "measured: {count} devices for {:.0} s, {} values: {least} to {most} heard of each, none missed; resident {:.1} MiB early, {:.1} MiB late; \
         {:.1} % of one processor",
        wall.as_secs_f64(),
        report.arrived,
        early as f64 / 1_024.0,
        late as f64 / 1_024.0,
        cpu as f64 / wall.as_millis() as f64 * 100.0
    );
    rig.stop();
}

fn resident_kib(rig: &Rig) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.daemons[0].pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// User and system time; the kernel counts in hundredths of a second.
fn processor_ms(rig: &Rig) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", rig.daemons[0].pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
}
