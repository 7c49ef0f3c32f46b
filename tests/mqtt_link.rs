//! The MQTT connection against Debian's mosquitto over TLS: what it acknowledges, what it refuses, and how each end is told.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bedrail::deliver::mqtt::{
    AckReason, Link, LinkEvent, LinkSettings, Login, LostReason, Message, MqttLink, RefusalCode, Will, connect,
};
use bedrail::monitor::{Absence, offline};
use bedrail::net::{ClientIdentity, TlsFault, TlsSettings, classify, client_config};
use zeroize::Zeroizing;

/// Far above what any step takes, so that a hang fails a test and does not stop the run.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn five_hundred_messages_are_acknowledged_within_the_brokers_window_and_arrive_in_order() {
    let broker = Broker::start("");
    let mut subscriber = broker.subscribe("bedrail/gw/#");
    let mut link = connect(&broker.settings("gw"));
    assert_eq!(link.room(), 0, "nothing goes before the broker says so");
    let LinkEvent::Connected { window, .. } = next(&mut link).await else { panic!("not connected") };
    assert_eq!(window, 20, "mosquitto's receive maximum is below our 64");
    broker.until_subscribed(&mut link).await;

    let (mut sent, mut acked) = (0u64, Vec::new());
    while acked.len() < 500 {
        while sent < 500 && link.room() > 0 {
            link.publish(sent, Message::new("bedrail/gw/oxi/spo2", format!("{sent}").into_bytes())).expect("there is room");
            sent += 1;
        }
        match next(&mut link).await {
            LinkEvent::Acked { token, reason: AckReason::Success } => acked.push(token),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acked, (0..500).collect::<Vec<_>>());
    link.close().await;
    let arrived = subscriber.lines_until("499");
    let numbers: Vec<_> = arrived.iter().filter(|line| *line != "probe").cloned().collect();
    assert_eq!(numbers, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_acknowledgement_tells_whether_anybody_listened_and_whether_it_was_allowed() {
    let broker = Broker::start("");
    let mut link = connect(&broker.settings("gw"));
    connected(&mut link).await;
    link.publish(1, Message::new("bedrail/gw/x", b"1".to_vec())).expect("room");
    assert_eq!(next(&mut link).await, LinkEvent::Acked { token: 1, reason: AckReason::NoMatchingSubscribers });
    link.publish(2, Message::new("elsewhere", b"2".to_vec())).expect("room");
    let LinkEvent::Acked { token: 2, reason: AckReason::Refused(code) } = next(&mut link).await else { panic!("not refused") };
    assert_eq!(code, RefusalCode::NOT_AUTHORIZED);
    assert!(code.to_string().starts_with("0x87: not authorized; allow"), "{code}");
    link.publish(3, Message::new("bedrail/gw/x", b"3".to_vec())).expect("a refusal does not end the connection");
    assert!(matches!(next(&mut link).await, LinkEvent::Acked { token: 3, .. }));
}

#[tokio::test]
async fn a_foreign_authority_a_wrong_name_and_a_missing_certificate_are_told_apart() {
    let broker = Broker::start("");
    let tls_fault = async |settings: LinkSettings| {
        let LinkEvent::Lost(LostReason::Tls { fault, .. }) = next(&mut connect(&settings)).await else { panic!("no TLS fault") };
        fault
    };
    let foreign = Authority::new(broker.path("foreign"), "Bedrail Test CA");
    assert_eq!(tls_fault(broker.settings_with("gw", &foreign.cert(), None)).await, TlsFault::UnknownIssuer);
    assert_eq!(tls_fault(LinkSettings { host: "127.0.0.2".into(), ..broker.settings("gw") }).await, TlsFault::WrongHost);
    let mutual = LinkSettings { port: broker.mutual_port, ..broker.settings("gw") };
    assert_eq!(tls_fault(mutual).await, TlsFault::ClientCertificateRequired);

    let (cert, key) = broker.authority.issue("gw", "DNS:gw");
    let identity = ClientIdentity { cert, key: Zeroizing::new(fs::read(key).unwrap()) };
    let with_certificate = broker.settings_with("gw", &broker.authority.cert(), Some(identity));
    connected(&mut connect(&LinkSettings { port: broker.mutual_port, ..with_certificate })).await;
}

/// The other tests say 127.0.0.1: a machine without /etc/hosts does not know `localhost`.
#[test]
fn a_certificate_is_good_for_the_names_it_carries_and_no_other() {
    let broker = Broker::start("");
    let tls = broker.settings("gw").tls.unwrap();
    let shake_hands = |name: &'static str| {
        let mut line = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        let mut client = rustls::ClientConnection::new(tls.clone(), name.try_into().unwrap()).unwrap();
        let outcome = client.complete_io(&mut line);
        outcome.map(drop).map_err(|error| classify(error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap()))
    };
    assert_eq!(shake_hands("localhost"), Ok(()));
    assert_eq!(shake_hands("elsewhere.example"), Err(TlsFault::WrongHost));
}

#[tokio::test]
async fn an_odd_certificate_in_a_bundle_does_not_spoil_the_good_one() {
    let broker = Broker::start("");
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let good = fs::read_to_string(broker.authority.cert()).unwrap();
    for (name, bundle) in [("first.pem", format!("{odd}{good}")), ("last.pem", format!("{good}{odd}"))] {
        fs::write(broker.path(name), bundle).unwrap();
        connected(&mut connect(&broker.settings_with("gw", &broker.path(name), None))).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_as_that_and_not_as_a_broken_line() {
    let broker = Broker::start("");
    let login = Some(Login { username: "gw".into(), password: Zeroizing::new("canary-wrong".into()) });
    let settings = LinkSettings { login, ..broker.settings("gw") };
    let mut link = connect(&settings);
    let LinkEvent::Lost(reason) = next(&mut link).await else { panic!("let in") };
    assert!(matches!(reason, LostReason::NotAuthorized | LostReason::BadLogin), "{reason:?}");
    assert!(reason.to_string().contains("check username"), "{reason}");
    assert!(!format!("{reason} {reason:?} {:?}", settings.login).contains("canary"));
    assert_eq!(next(&mut link).await, LinkEvent::Lost(reason), "an end stays an end");
}

#[tokio::test]
async fn a_port_that_accepts_and_stays_silent_is_given_up_at_the_connect_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = Broker::start("");
    let deadline = Duration::from_millis(700);
    let port = silent.local_addr().unwrap().port();
    let settings = LinkSettings { port, connect_deadline: deadline, ..broker.settings("gw") };
    assert_eq!(next(&mut connect(&settings)).await, LinkEvent::Lost(LostReason::ConnectDeadline(deadline)));
    drop(silent);
    let event = next(&mut connect(&settings)).await;
    assert!(matches!(event, LinkEvent::Lost(LostReason::Unreachable(_))), "{event:?}");
}

#[tokio::test]
async fn without_tls_no_other_machine_is_spoken_to() {
    let settings = LinkSettings::new("192.0.2.1", 1883, None, "gw");
    assert_eq!(next(&mut connect(&settings)).await, LinkEvent::Lost(LostReason::PlainText));
    let settings = LinkSettings::new("127.0.0.1", free_port(), None, "gw");
    let event = next(&mut connect(&settings)).await;
    assert!(matches!(event, LinkEvent::Lost(LostReason::Unreachable(_))), "{event:?}");
}

#[tokio::test]
async fn a_message_the_broker_would_hang_up_over_is_not_sent() {
    let broker = Broker::start("max_packet_size 1000");
    let mut link = connect(&broker.settings("gw"));
    let LinkEvent::Connected { max_packet, .. } = next(&mut link).await else { panic!("not connected") };
    assert_eq!(max_packet, 1000, "the broker's limit is below ours");
    let fits = 1000 - "bedrail/gw/x".len() - 8;
    assert!(link.publish(1, Message::new("bedrail/gw/x", vec![b'x'; fits + 1])).is_err());
    link.publish(2, Message::new("bedrail/gw/x", vec![b'x'; fits])).expect("it fits exactly");
    assert!(matches!(next(&mut link).await, LinkEvent::Acked { token: 2, .. }));
}

#[tokio::test(flavor = "multi_thread")] // what waits for the subscriber must not stop the dropped connection from closing
async fn the_last_will_is_published_only_for_a_gateway_that_left_without_a_word() {
    let broker = Broker::start("");
    let topic = "bedrail/gw/status".to_owned();
    let will = Some(Will { topic: topic.clone(), payload: offline("gw", Absence::Lost) });
    let settings = LinkSettings { will, ..broker.settings("gw") };

    let mut link = connect(&settings);
    connected(&mut link).await;
    link.publish(1, Message::new(&topic, b"online".to_vec()).retained()).expect("room");
    assert!(matches!(next(&mut link).await, LinkEvent::Acked { token: 1, .. }));
    link.close().await;
    assert_eq!(broker.subscribe(&topic).lines_until("online"), ["online"], "an orderly end leaves what was said last");

    let mut link = connect(&settings);
    connected(&mut link).await;
    drop(link);
    let offline = String::from_utf8(offline("gw", Absence::Lost)).unwrap();
    assert!(broker.subscribe(&topic).lines_until(&offline).contains(&offline));
}

async fn next(link: &mut MqttLink) -> LinkEvent {
    tokio::time::timeout(PATIENCE, link.event()).await.expect("the link said nothing")
}

async fn connected(link: &mut MqttLink) {
    let event = next(link).await;
    assert!(matches!(event, LinkEvent::Connected { .. }), "{event:?}");
}

/// A certificate authority made with openssl, in a folder of its own.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn new(dir: PathBuf, name: &str) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let subject = format!("/CN={name}");
        let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let files = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", &subject];
        openssl(&dir, &[&request[..], &files[..]].concat());
        Self { dir }
    }

    fn cert(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn issue(&self, name: &str, alt_names: &str) -> (PathBuf, PathBuf) {
        let file = |ext: &str| format!("{name}.{ext}");
        let (key, csr, pem, ext, subject) = (file("key"), file("csr"), file("pem"), file("ext"), format!("/CN={name}"));
        fs::write(self.dir.join(&ext), format!("subjectAltName={alt_names}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        openssl(&self.dir, &[&request[..], &["-keyout", &key, "-out", &csr, "-subj", &subject]].concat());
        let sign = ["x509", "-req", "-in", &csr, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&self.dir, &[&sign[..], &["-days", "2", "-extfile", &ext, "-out", &pem]].concat());
        (self.dir.join(pem), self.dir.join(key))
    }
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Debian's mosquitto with TLS, a password and access rules; it ends with the test.
struct Broker {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    /// Wants a client certificate.
    mutual_port: u16,
    authority: Authority,
}

impl Broker {
    fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path().join("ca"), "Bedrail Test CA");
        let (cert, key) = authority.issue("broker", "DNS:localhost,IP:127.0.0.1");
        let (port, mutual_port) = (free_port(), free_port());
        let tls = format!("cafile {}\ncertfile {}\nkeyfile {}", authority.cert().display(), cert.display(), key.display());
        let file = |name: &str| dir.path().join(name);
        fs::write(file("acl"), "user gw\ntopic readwrite bedrail/#\n").unwrap();
        let made = Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(file("passwd")).args(["gw", "secret"]).output();
        assert!(made.expect("mosquitto_passwd is installed").status.success());
        let config = format!(
            "user root\npersistence false\nallow_anonymous false\npassword_file {}\nacl_file {}\n{extra}\n\
             listener {port} 127.0.0.1\n{tls}\nlistener {port} 127.0.0.2\n{tls}\n\
             listener {mutual_port} 127.0.0.1\n{tls}\nrequire_certificate true\n",
            file("passwd").display(),
            file("acl").display(),
        );
        fs::File::create(file("mosquitto.conf")).unwrap().write_all(config.as_bytes()).unwrap();
        let log = fs::File::create(file("log")).unwrap();
        let binary = ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|b| Path::new(b).exists()).unwrap_or("mosquitto");
        let child = Command::new(binary)
            .arg("-c")
            .arg(file("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed");
        let broker = Self { child, dir, port, mutual_port, authority };
        wait_for("mosquitto to listen", || [port, mutual_port].iter().all(|p| TcpStream::connect(("127.0.0.1", *p)).is_ok()));
        broker
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self, client_id: &str) -> LinkSettings {
        self.settings_with(client_id, &self.authority.cert(), None)
    }

    fn settings_with(&self, client_id: &str, ca: &Path, client: Option<ClientIdentity>) -> LinkSettings {
        let tls = TlsSettings { route: "live".into(), ca: Some(ca.to_owned()), client, alpn: Vec::new() };
        let login = Some(Login { username: "gw".into(), password: Zeroizing::new("secret".into()) });
        LinkSettings {
            login,
            ..LinkSettings::new("127.0.0.1", self.port, Some(client_config(&tls).expect("good files")), client_id)
        }
    }

    fn subscribe(&self, topic: &str) -> Subscriber {
        let out = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        let child = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-u",
                "gw",
                "-P",
                "secret",
                "-q",
                "1",
                "-F",
                "%p",
                "-t",
                topic,
            ])
            .arg("--cafile")
            .arg(self.authority.cert())
            .stdout(out.reopen().unwrap())
            .spawn()
            .expect("mosquitto_sub is installed");
        Subscriber { child, out }
    }

    /// Publishes until somebody hears it.
    async fn until_subscribed(&self, link: &mut MqttLink) {
        let begun = Instant::now();
        loop {
            link.publish(u64::MAX, Message::new("bedrail/gw/probe", b"probe".to_vec())).expect("room");
            match next(link).await {
                LinkEvent::Acked { reason: AckReason::Success, .. } => return,
                LinkEvent::Acked { .. } if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

struct Subscriber {
    child: Child,
    out: tempfile::NamedTempFile,
}

impl Subscriber {
    fn lines_until(&mut self, last: &str) -> Vec<String> {
        let read = || fs::read_to_string(self.out.path()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        wait_for("the last message to arrive", || read().iter().any(|line| line == last));
        read()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
