//! The test world itself keeps its promises: what another test would otherwise believe without seeing.

#[path = "support_works/radio.rs"]
mod radio;
mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use support::broker::{Broker, BrokerOptions, BrokerTls};
use support::bus::PrivateBus;
use support::chaos::ChaosProxy;
use support::daemon::{Daemon, KEYS, Site, mqtt_route};
use support::devices::{Kind, MadeValue, VirtualDevice, date_time};
use support::ledger;
use support::pki::{Identity, Pki};
use support::process::wait_until;
use support::subscriber::{Message, Receiver, Subscriber};
use support::timedate::FakeTimedate;

const SOON: Duration = Duration::from_secs(5);

fn run(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime").block_on(body);
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
    assert_eq!(octets(Kind::Scale, 0), "0e401fea070b170a1e1b01b400dc05", "40.000 kg, 18.0 kg/m2, 1.500 m");
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
    for kind in [Kind::HeartRateStrap, Kind::Thermometer, Kind::Cuff, Kind::OximeterContinuous, Kind::Scale] {
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
        message(r#"{"schema":"bedrail.gateway/1"}"#.to_owned()),
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
fn a_daemon_is_stopped_killed_and_started_again_with_what_it_had() {
    let site = Site::new();
    let shell = "trap 'echo bye >&2; exit 3' TERM; echo at $DBUS_SYSTEM_BUS_ADDRESS $EXTRA >&2; while :; do sleep 0.01; done";
    let (log, extra) = (site.path("daemon.log"), [("EXTRA", "more")]);
    let mut daemon = Daemon::start(Path::new("/bin/sh"), &["-c", shell], &log, "unix:path=/x", &extra);
    assert_eq!(daemon.wait_for_line("more", SOON), "at unix:path=/x more");
    assert!(daemon.resident_kib().is_some_and(|kib| kib > 0));
    daemon.kill9();
    assert!(!daemon.log().contains("bye"));
    daemon.restart();
    daemon.wait_for_line("more", SOON);
    assert_eq!(daemon.log().matches("at unix").count(), 2, "the log goes on, and the wait was for the new process");
    assert_eq!(daemon.terminate(SOON).code(), Some(3));
    daemon.wait_for_line("bye", SOON);
    daemon.restart();
    let pid = daemon.pid();
    drop(daemon);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it ends with the test");
}

#[test]
fn a_site_has_keys_only_its_owner_reads_and_a_config_that_is_toml() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    for key in KEYS {
        let path = site.path("credentials").join(key);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!((mode & 0o777, std::fs::read(&path).expect("readable").len()), (0o400, 32), "{key}");
    }
    let device = VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:02", "cuff");
    let route = mqtt_route("live", 8883, Some((Path::new("/ca.pem"), Some(Path::new("/gw.pem")))), "settle = \"puback\"");
    let config = std::fs::read_to_string(site.config("gw-1", &[&device], &route)).expect("written");
    let config: toml::Table = config.parse().expect("it is TOML");
    assert_eq!(config["device"][0]["kind"].as_str(), Some("blood-pressure"));
    assert_eq!(config["route"][0]["url"].as_str(), Some("mqtts://127.0.0.1:8883"));
    assert_eq!(config["route"][0]["tls"]["key"]["credential"].as_str(), Some("tls-key"));
}

#[test]
fn what_is_on_file_is_the_newest_version_and_nothing_that_was_taken_back() {
    let first = payload(1, 1, "live", "36.60", "10:00");
    let second = message(first.raw.replace(r#""version":1"#, r#""version":2"#));
    let other = payload(2, 2, "live", "36.61", "10:00");
    let taken_back = message(other.raw.replace(r#""op":"put""#, r#""op":"retract""#));
    let filed = ledger::on_file(&[second, taken_back, first, other]);
    assert_eq!(filed.into_values().collect::<Vec<_>>(), [0]);
}
