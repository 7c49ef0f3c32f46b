//! Servers nobody should send a patient's values to, one of each kind: each is refused, each for its own reason, and the
//! gateway keeps what it could not send.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bedrail::config::Protocol;
use bedrail::deliver::mqtt::{Link, LinkEvent, LinkSettings, connect};
use bedrail::net::{ClientIdentity, TlsSettings, client_config};
use support::broker::free_port;
use support::daemon::mqtt_route;
use support::devices::{Kind, VirtualDevice};
use support::ledger::compare;
use support::pki::{Identity, Pki};
use support::process::wait_until;
use support::rig::{Rig, Shape};

const BINARY: &str = env!("CARGO_BIN_EXE_bedrail");
const SOON: Duration = Duration::from_secs(30);

/// One server, and what is to be said about it.
struct Case {
    name: &'static str,
    server: TlsServer,
    /// Whether we show our certificate.
    client: Option<Identity>,
    class: &'static str,
    remedy: &'static str,
}

fn cases(pki: &Pki, stranger: &Pki) -> Vec<Case> {
    let good = pki.server();
    let weak = "-cipher ALL:@SECLEVEL=0";
    let case = |name, identity: &Identity, options: &str, class, remedy| {
        let server = TlsServer::start(identity, options);
        Case { name, server, client: None, class, remedy }
    };
    let wants_one = format!("-Verify 1 -verify_return_error -CAfile {}", pki.ca().display());
    let refuses_ours = Case {
        client: Some(pki.expired_client("gateway")),
        ..case(
            "expired-client",
            &good,
            &wants_one,
            "tls_client_certificate",
            "refuses this gateway's certificate (tls.cert); renew it",
        )
    };
    vec![
        case("tls10", &good, &format!("-tls1 {weak}"), "tls_version", "speaks only a TLS older than 1.2; upgrade it"),
        case("tls11", &good, &format!("-tls1_1 {weak}"), "tls_version", "speaks only a TLS older than 1.2; upgrade it"),
        case("rsa-exchange", &pki.rsa_server(), "-tls1_2 -cipher AES128-SHA:@SECLEVEL=0", "tls_cipher", "allow it ECDHE ciphers"),
        case("other-host", &pki.server_of_another_host(), "", "tls_name", "put a name it carries into url"),
        case("expired", &pki.expired_server(), "", "tls_expired", "renew it on the server"),
        case("early", &pki.server_not_valid_yet(), "", "clock", "check time synchronisation"),
        case("stranger", &stranger.server(), "", "tls_untrusted", "give the authority that did sign it"),
        case("no-client", &good, &wants_one, "tls_client_certificate", "set tls.cert and tls.key"),
        refuses_ours,
    ]
}

#[tokio::test]
async fn each_kind_of_bad_server_is_refused_for_its_own_reason_under_both_protocols() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    for case in cases(&pki, &stranger) {
        for protocol in [Protocol::V5, Protocol::V311] {
            let client = case.client.as_ref().map(|client| ClientIdentity {
                cert: client.cert.clone(),
                key: std::fs::read(&client.key).expect("a key").into(),
            });
            let tls = TlsSettings { route: "live".into(), ca: Some(pki.ca()), client, alpn: Vec::new() };
            let tls = client_config(&tls).expect("good files");
            let settings = LinkSettings { protocol, ..LinkSettings::new("127.0.0.1", case.server.port, Some(tls), "gw") };
            let mut link = connect(&settings);
            let event = tokio::time::timeout(SOON, link.event()).await.expect("an event");
            let LinkEvent::Lost(reason) = event else { panic!("{}: {event:?}", case.name) };
            assert_eq!(reason.class().name(), case.class, "{}: {reason}", case.name);
            assert!(reason.to_string().contains(case.remedy), "{}: {reason}", case.name);
        }
    }
}

/// The gateway itself, with a route to every bad server and one to a good one.
#[test]
fn a_gateway_keeps_what_a_bad_server_may_not_have_and_its_status_names_the_remedy() {
    let mut rig = Rig::new(BINARY, &[thermometer()], "", "");
    let stranger = Pki::new();
    let cases = cases(&rig.pki, &stranger);
    let mut routes = rig.route("live", "start = \"oldest\"");
    for case in &cases {
        let cert = case.client.as_ref().map(|client| client.cert.as_path());
        if let Some(client) = &case.client {
            // Its key is another than the good route's.
            rig.site.credential("expired-key", &std::fs::read(&client.key).expect("a key"));
        }
        let keys = "start = \"oldest\"\ntopic = \"bedrail/bad/{device}/{metric}\"";
        let route = mqtt_route(case.name, case.server.port, Some((&rig.pki.ca(), cert)), keys);
        routes += &route.replace("credential = \"tls-key\"", "credential = \"expired-key\"");
    }
    rig.configure(&routes, "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    for _ in 0..3 {
        rig.measure(|_| true);
    }
    rig.empty_devices(SOON);
    let made = rig.made().len();
    assert!(wait_until(SOON, || compare(&rig.made(), &rig.records_under("bedrail/gw-test/")).arrived == made), "{}", rig.logs());
    for case in &cases {
        rig.wait_for_route(case.name, SOON, |route| {
            let kept: u64 = ["live", "backlog"].iter().filter_map(|lane| route[lane].as_u64()).sum();
            let says = route["detail"].as_str().is_some_and(|detail| detail.contains(case.remedy));
            route["state"] != "up" && route["last_fault"] == case.class && says && kept >= made as u64
        });
    }
    let table = rig.ask(&["status"]);
    for case in &cases {
        let line = table.lines().find(|line| line.starts_with(case.name)).expect("its line");
        assert!(line.contains(case.class) && line.contains(case.remedy), "{line}");
    }
    rig.stop();
}

fn thermometer() -> VirtualDevice {
    VirtualDevice::new(Kind::Thermometer, "A4:C1:38:00:00:03", "thermometer")
}

/// `openssl s_server`, which speaks what no broker of today would.
struct TlsServer {
    port: u16,
    child: Child,
}

impl TlsServer {
    fn start(identity: &Identity, options: &str) -> Self {
        let (port, log) = (free_port(), tempfile::NamedTempFile::new().expect("a file for its log"));
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert"]).arg(&identity.cert);
        command.arg("-key").arg(&identity.key).args(options.split_whitespace());
        // It ends when its standard input does.
        command.stdin(Stdio::piped()).stdout(log.reopen().expect("the file")).stderr(log.reopen().expect("the file"));
        let child = command.spawn().expect("openssl starts");
        let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
        assert!(wait_until(SOON, || said().contains("ACCEPT")), "s_server {options}: {}", said());
        Self { port, child }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}
