//! The test world itself keeps its promises: what another test would otherwise believe without seeing.

mod support;

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use btleplug::api::{Central, CentralEvent, CharPropFlags, Manager as _, Peripheral as _, ScanFilter};
use btleplug::platform::{Adapter, Manager, Peripheral};
use futures::StreamExt;
use support::bluez::{AdapterSpec, Behaviour, CharacteristicSpec, DeviceSpec, FakeBluez, ServiceSpec, abort_by_local, uuid16};
use support::broker::{Broker, BrokerOptions, BrokerTls};
use support::bus::{PrivateBus, on_a_bus_of_its_own};
use support::chaos::ChaosProxy;
use support::devices::{Kind, MadeValue, VirtualDevice, Worker, date_time};
use support::ledger;
use support::pki::{Identity, Pki};
use support::process::wait_until;
use support::subscriber::{Message, Receiver, Subscriber};
use support::timedate::FakeTimedate;
use tokio::time::timeout;
use uuid::Uuid;

const STRAP: &str = "C0:FF:EE:00:00:01";
const HEART_RATE: Uuid = uuid16(0x2a37);
const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);
/// How long nothing has to come before it counts as nothing.
const QUIET: Duration = Duration::from_millis(150);

fn strap() -> DeviceSpec {
    DeviceSpec {
        address: STRAP.to_owned(),
        random_address: true,
        name: "Strap".to_owned(),
        advertised: vec![uuid16(0x180d)],
        services: vec![
            ServiceSpec { uuid: uuid16(0x180d), characteristics: vec![CharacteristicSpec::new(0x2a37, &["notify"], &[])] },
            ServiceSpec { uuid: uuid16(0x180a), characteristics: vec![CharacteristicSpec::new(0x2a29, &["read"], b"Maker")] },
        ],
        battery: None,
        behaviour: Behaviour { handle_base: 0x10, ..Default::default() },
    }
}

fn run(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime").block_on(body);
}

fn bluez(bus: &str) -> FakeBluez {
    let bluez = FakeBluez::start(bus);
    bluez.add_adapter(AdapterSpec::new("hci0", "00:11:22:33:44:55"));
    bluez.add_device("hci0", strap());
    bluez
}

async fn adapter() -> Adapter {
    let manager = Manager::new().await.unwrap();
    manager.adapters().await.unwrap().into_iter().next().expect("btleplug sees the adapter")
}

async fn discovered(bluez: &FakeBluez, adapter: &Adapter) -> Peripheral {
    let mut events = adapter.events().await.unwrap();
    adapter.start_scan(ScanFilter::default()).await.unwrap();
    bluez.advertise(STRAP, -61);
    loop {
        match timeout(SOON, events.next()).await.expect("an event in time") {
            Some(CentralEvent::DeviceDiscovered(id)) => break adapter.peripheral(&id).await.unwrap(),
            Some(_) => {}
            None => panic!("the events ended"),
        }
    }
}

async fn subscribed(strap: &Peripheral) {
    strap.discover_services().await.unwrap();
    let all = strap.characteristics();
    let heart_rate = all.iter().find(|c| c.uuid == HEART_RATE).expect("its heart rate");
    assert!(heart_rate.properties.contains(CharPropFlags::NOTIFY));
    strap.subscribe(heart_rate).await.unwrap();
}

#[test]
fn btleplug_finds_connects_reads_and_hears_a_device_of_the_fake() {
    on_a_bus_of_its_own("btleplug_finds_connects_reads_and_hears_a_device_of_the_fake", LIMIT, |bus| {
        run(async {
            let bluez = bluez(&bus);
            let adapter = adapter().await;
            assert!(!bluez.is_known(STRAP), "a device nobody heard is unknown");
            let strap = discovered(&bluez, &adapter).await;
            adapter.stop_scan().await.unwrap();
            assert!(!bluez.is_discovering("hci0"));

            strap.connect().await.unwrap();
            let mut values = strap.notifications().await.unwrap();
            assert!(!bluez.notify(STRAP, HEART_RATE, &[0, 1]), "nobody listens yet");
            subscribed(&strap).await;
            for beat in 60..65 {
                assert!(bluez.notify(STRAP, HEART_RATE, &[0, beat]));
            }
            for beat in 60..65 {
                let value = timeout(SOON, values.next()).await.expect("a value in time").expect("a value");
                assert_eq!((value.uuid, value.value), (HEART_RATE, vec![0, beat]));
            }
            let maker = strap.characteristics().into_iter().find(|c| c.uuid == uuid16(0x2a29)).expect("its maker");
            assert_eq!(strap.read(&maker).await.unwrap(), b"Maker");
            assert_eq!(bluez.count(STRAP, "StartNotify"), 1);

            strap.disconnect().await.unwrap();
            assert!(!bluez.is_connected(STRAP));
            assert!(!bluez.notify(STRAP, HEART_RATE, &[0, 2]), "no link, no value");
        });
    });
}

#[test]
fn a_lost_link_keeps_the_notify_session_and_the_stream() {
    on_a_bus_of_its_own("a_lost_link_keeps_the_notify_session_and_the_stream", LIMIT, |bus| {
        run(async {
            let bluez = bluez(&bus);
            let adapter = adapter().await;
            let strap = discovered(&bluez, &adapter).await;
            strap.connect().await.unwrap();
            let mut values = strap.notifications().await.unwrap();
            subscribed(&strap).await;
            let mut events = adapter.events().await.unwrap();
            bluez.drop_link(STRAP);
            let lost = async {
                while let Some(event) = events.next().await {
                    if matches!(event, CentralEvent::DeviceDisconnected(_)) {
                        return;
                    }
                }
            };
            timeout(SOON, lost).await.expect("btleplug hears of the loss");
            assert!(timeout(QUIET, values.next()).await.is_err(), "the stream neither ends nor speaks");

            bluez.with_behaviour(STRAP, |b| b.connect_errors.push_back(abort_by_local()));
            assert!(strap.connect().await.is_err());
            strap.connect().await.unwrap();
            assert!(wait_until(SOON, || bluez.notify(STRAP, HEART_RATE, &[0, 70])), "re-armed without a new subscribe");
            let value = timeout(SOON, values.next()).await.expect("in time").expect("a value");
            assert_eq!(value.value, [0, 70]);
        });
    });
}

#[test]
fn a_crash_is_silent_and_the_next_daemon_has_forgotten() {
    on_a_bus_of_its_own("a_crash_is_silent_and_the_next_daemon_has_forgotten", LIMIT, |bus| {
        run(async {
            let bluez = bluez(&bus);
            let adapter = adapter().await;
            let strap = discovered(&bluez, &adapter).await;
            strap.connect().await.unwrap();
            let mut values = strap.notifications().await.unwrap();
            subscribed(&strap).await;
            let mut events = adapter.events().await.unwrap();
            // The stream begins with what is already known.
            while timeout(QUIET, events.next()).await.is_ok() {}
            bluez.crash();
            assert!(!bluez.notify(STRAP, HEART_RATE, &[0, 1]));
            assert!(timeout(QUIET, events.next()).await.is_err(), "no event tells of the crash");
            assert!(strap.is_connected().await.is_err());
            bluez.restart();
            assert!(!bluez.is_discovering("hci0") && !bluez.is_known(STRAP));
            adapter.start_scan(ScanFilter::default()).await.unwrap();
            assert!(bluez.is_known(STRAP), "it still advertises");
            strap.connect().await.unwrap();
            subscribed(&strap).await;
            assert!(bluez.notify(STRAP, HEART_RATE, &[0, 80]));
            let value = timeout(SOON, values.next()).await.expect("in time").expect("a value");
            assert_eq!(value.value, [0, 80], "the old stream of the old session goes on");
        });
    });
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Octets written by hand from the layouts in the GATT Specification Supplement.
#[test]
fn the_encoders_write_what_the_specification_says() {
    let at = 1_795_429_827; // 2026-11-23T10:30:27Z
    let octets = |kind, n| hex(&VirtualDevice::new(kind, "A4:C1:38:00:00:01", "x").value(n, at).octets);
    assert_eq!(hex(&date_time(at)), "ea070b170a1e1b");
    assert_eq!(octets(Kind::HeartRateStrap, 0), "0632");
    assert_eq!(octets(Kind::HeartRateStrap, 1), "167fe301", "127/min, one interval of 483/1024 s");
    assert_eq!(octets(Kind::Thermometer, 0), "06ac0d00feea070b170a1e1b02", "35.00 Cel");
    assert_eq!(octets(Kind::Cuff, 0), "1e5f0032004100ea070b170a1e1b3700010000", "95/50/65, pulse 55");
    assert_eq!(octets(Kind::OximeterContinuous, 0), "0084f3f4f1", "90.0 %, 50.0/min");
    assert_eq!(octets(Kind::OximeterSpot, 0), "0184f3f4f1ea070b170a1e1b");
}

#[test]
fn a_value_and_its_text_say_the_same() {
    let device = |kind| VirtualDevice::new(kind, "A4:C1:38:00:00:01", "x");
    let interval = [("heart_rate", "127".to_owned()), ("rr_interval", "471.6796875".to_owned())];
    assert_eq!(device(Kind::HeartRateStrap).value(1, 0).values, interval);
    assert_eq!(device(Kind::Thermometer).value(1, 0).values, [("body_temperature", "35.37".to_owned())]);
}

#[test]
fn a_value_does_not_repeat_within_a_hundred() {
    for kind in [Kind::HeartRateStrap, Kind::Thermometer, Kind::Cuff, Kind::OximeterContinuous] {
        let device = VirtualDevice::new(kind, "A4:C1:38:00:00:01", "x");
        let first: HashSet<String> = (0..100).map(|n| device.value(n, 0).values[0].1.clone()).collect();
        assert_eq!(first.len(), 100, "{kind:?}");
    }
}

fn publish(port: u16, ca: &Pki, identity: Option<&Identity>, topic: &str, payload: &str) -> bool {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-V", "mqttv5", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-m", payload]);
    command.arg("--cafile").arg(ca.ca());
    if let Some(identity) = identity {
        command.arg("--cert").arg(&identity.cert).arg("--key").arg(&identity.key);
    }
    command.output().expect("mosquitto_pub runs").status.success()
}

#[test]
fn the_broker_takes_only_clients_of_its_ca_and_shows_only_a_certificate_that_fits() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let gateway = pki.client("gateway");
    let acl = Some("user gateway\ntopic write bedrail/#\nuser reader\ntopic read #\n".to_owned());
    let mut broker = Broker::start(&BrokerOptions { acl, ..BrokerOptions::mutual_tls(&pki) });
    assert!(publish(broker.port(), &pki, Some(&gateway), "bedrail/x", "1"));
    assert!(!publish(broker.port(), &pki, None, "bedrail/x", "1"), "no certificate");
    assert!(!publish(broker.port(), &pki, Some(&foreign.client("gateway")), "bedrail/x", "1"), "a foreign CA's client");
    assert!(!publish(broker.port(), &foreign, Some(&gateway), "bedrail/x", "1"), "a foreign CA's broker");
    assert!(!publish(broker.port(), &pki, Some(&pki.expired_client("gateway")), "bedrail/x", "1"), "expired");
    for server in [pki.expired_server(), pki.server_of_another_host()] {
        broker.stop();
        broker.configure(&BrokerOptions {
            tls: Some(BrokerTls { ca: pki.ca(), server, require_certificate: false }),
            ..BrokerOptions::default()
        });
        broker.resume();
        assert!(!publish(broker.port(), &pki, None, "bedrail/x", "1"), "a broker whose certificate does not fit");
    }
}

#[test]
fn a_receiver_gets_what_was_sent_while_it_was_away_and_what_a_stopped_broker_kept() {
    let pki = Pki::new();
    let mut broker = Broker::start(&BrokerOptions { persistence: true, ..BrokerOptions::mutual_tls(&pki) });
    let (port, identity) = (broker.port(), pki.client("reader"));
    let tls = Some((pki.ca(), Some(identity.clone())));
    let receiver = Receiver { port, client_id: "reader".into(), topic: "bedrail/#".into(), tls, login: None };
    let mut subscriber = Subscriber::start(receiver);
    let send = |payload: &str| assert!(publish(port, &pki, Some(&identity), "bedrail/a/b", payload));
    send(r#"{"value":36.60}"#);
    assert!(subscriber.wait_until(Duration::from_secs(5), |messages| messages.len() == 1));
    subscriber.stop();
    send("2");
    broker.stop();
    broker.resume();
    subscriber.resume();
    assert!(subscriber.wait_until(Duration::from_secs(5), |messages| messages.len() == 2), "{:?}", subscriber.messages());
    let first = &subscriber.messages()[0];
    assert_eq!((first.topic.as_str(), first.raw.as_str(), first.retained), ("bedrail/a/b", r#"{"value":36.60}"#, false));
    assert_eq!(first.payload["value"], 36.6);
}

#[test]
fn the_proxy_passes_refuses_swallows_and_resets() {
    use std::io::{ErrorKind, Read, Write};
    let echo = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = ChaosProxy::start(echo.local_addr().expect("bound").port());
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let connect = || std::net::TcpStream::connect(("127.0.0.1", proxy.port()));
    let ask = |stream: &mut std::net::TcpStream, octets: &[u8; 4]| {
        let mut buffer = [0; 4];
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        stream.write_all(octets).and_then(|()| stream.read_exact(&mut buffer)).map(|()| buffer).map_err(|e| e.kind())
    };
    let (mut first, mut second) = (connect().expect("it accepts"), connect().expect("it accepts"));
    assert_eq!(ask(&mut first, b"pass"), Ok(*b"pass"));
    proxy.black_hole(true);
    assert_eq!(ask(&mut first, b"hole"), Err(ErrorKind::WouldBlock), "nothing comes back and nothing ends");
    proxy.black_hole(false);
    assert_eq!(ask(&mut first, b"late"), Ok(*b"hole"), "what was held passes on");
    assert!(wait_until(SOON, || proxy.counters().bytes_down == 12));
    proxy.drop_replies(true);
    assert_eq!(ask(&mut second, b"lost"), Err(ErrorKind::WouldBlock));
    let counted = proxy.counters();
    assert_eq!((counted.bytes_up, counted.bytes_dropped), (16, 4), "sent on, the answer thrown away");
    assert_eq!(proxy.reset_all(), 2);
    let is_reset = |result| matches!(result, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    assert!(wait_until(SOON, || is_reset(ask(&mut second, b"gone"))));
    proxy.refuse(true);
    assert_eq!(connect().map_err(|e| e.kind()).err(), Some(ErrorKind::ConnectionRefused));
    proxy.pass();
    assert!(connect().is_ok());
}

#[test]
fn a_clock_that_nobody_synchronises_says_so() {
    let bus = PrivateBus::start();
    let timedate = FakeTimedate::start(&bus.address());
    run(async {
        let connection = zbus::connection::Builder::address(bus.address().as_str()).build().await.expect("on the bus");
        let (name, path) = ("org.freedesktop.timedate1", "/org/freedesktop/timedate1");
        let ask = async |property: &str| {
            let body = (name, property);
            let interface = Some("org.freedesktop.DBus.Properties");
            let answer = connection.call_method(Some(name), path, interface, "Get", &body).await.expect("an answer");
            answer.body().deserialize::<zbus::OwnedVariant>().expect("a value")
        };
        assert_eq!(bool::try_from(ask("NTPSynchronized").await), Ok(true));
        timedate.change(|clock| (clock.synchronized, clock.rtc_offset_us) = (false, None));
        assert_eq!(bool::try_from(ask("NTPSynchronized").await), Ok(false));
        assert_eq!(u64::try_from(ask("RTCTimeUSec").await), Ok(0));
    });
}

fn message(raw: String) -> Message {
    Message { topic: String::new(), retained: false, payload: serde_json::Value::Null, raw, at: Instant::now() }
}

fn payload(record: u32, seq: u32, lane: &str, value: &str, sent: &str) -> Message {
    message(format!(
        r#"{{"record":"{record:032x}","placement":"00","version":1,"op":"put","lane":"{lane}","kind":"reading","seq":{seq},"device":{{"id":"T"}},"metric":"body_temperature","value":{value},"sent_at":"{sent}"}}"#
    ))
}

fn made(values: &[&str]) -> Vec<MadeValue> {
    let one = |(n, value): (usize, &&str)| MadeValue {
        device: "T".to_owned(),
        metric: "body_temperature",
        value: (*value).to_owned(),
        sequence: n as u64,
        at: SystemTime::UNIX_EPOCH,
        sent: n != 3,
    };
    values.iter().enumerate().map(one).collect()
}

#[test]
fn the_ledger_counts_what_arrived_what_came_twice_and_what_did_not_come() {
    let made = made(&["36.60", "36.61", "36.62", "36.63", "36.60"]);
    let messages = [
        payload(1, 1, "live", "36.60", "10:00"),
        payload(3, 4, "live", "36.62", "10:01"),
        payload(1, 1, "backlog", "36.60", "10:02"),
        payload(2, 2, "backlog", "36.61", "10:03"),
        message(r#"{"schema":"bedrail.status/1"}"#.to_owned()),
    ];
    let report = ledger::compare(&made, &messages);
    report.assert_sound();
    assert_eq!((report.made, report.sent, report.arrived, report.duplicated, report.other), (5, 4, 3, 1, 1));
    assert_eq!((&report.missing[..], report.sent_but_missing(&made)), (&[3, 4][..], 1));
    assert_eq!(report.missing_seqs(4), [3]);
    assert_eq!(report.matched, [(0, 0), (1, 3), (2, 1)]);
}

#[test]
fn the_ledger_sees_inventions_changed_repeats_lost_digits_and_disorder() {
    let made = made(&["36.60", "36.61", "36.62"]);
    let messages = [
        payload(2, 2, "live", "36.61", "10:00"),
        payload(1, 1, "live", "36.6", "10:01"),
        payload(2, 2, "live", "36.62", "10:02"),
        payload(9, 9, "live", "41.00", "10:03"),
    ];
    let report = ledger::compare(&made, &messages);
    assert_eq!((report.not_made.len(), report.changed_repeats.len(), report.out_of_order.len()), (1, 1, 1));
    assert_eq!((report.resolution_changed, report.arrived), (1, 2));
    let swapped_in_the_log = [payload(1, 1, "live", "36.61", ""), payload(2, 2, "live", "36.60", "")];
    assert_eq!(ledger::compare(&made, &swapped_in_the_log).out_of_order.len(), 1);
}

#[test]
fn a_cuff_keeps_what_nobody_took_and_a_strap_does_not() {
    on_a_bus_of_its_own("a_cuff_keeps_what_nobody_took_and_a_strap_does_not", LIMIT, |bus| {
        run(async {
            let bluez = FakeBluez::start(&bus);
            bluez.add_adapter(AdapterSpec::new("hci0", "00:11:22:33:44:55"));
            let mut cuff = Worker::new(VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:02", "cuff"));
            let mut strap = Worker::new(VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap"));
            for worker in [&mut cuff, &mut strap] {
                worker.device.place(&bluez, "hci0");
                worker.measure(&bluez);
                bluez.advertise(&worker.device.address, -50);
            }
            let adapter = adapter().await;
            adapter.start_scan(ScanFilter::default()).await.unwrap();
            for peripheral in adapter.peripherals().await.unwrap() {
                peripheral.connect().await.unwrap();
                peripheral.discover_services().await.unwrap();
                for characteristic in peripheral.characteristics() {
                    if characteristic.properties.intersects(CharPropFlags::NOTIFY | CharPropFlags::INDICATE) {
                        peripheral.subscribe(&characteristic).await.unwrap();
                    }
                }
            }
            assert!(cuff.is_heard(&bluez) && strap.is_heard(&bluez));
            assert_eq!((cuff.send_waiting(&bluez), strap.send_waiting(&bluez)), (0, 0));
            assert!(cuff.made().iter().all(|made| made.sent) && strap.made().iter().all(|made| !made.sent));
        });
    });
}
