//! Whatever is wrong with what bedrail is given, it says what, where and the remedy, with the right exit code, and loses
//! nothing that was durable.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::broker::{Broker, BrokerOptions, BrokerTls};
use support::daemon::{Ran, Site, mqtt_route, run};
use support::devices::{Kind, VirtualDevice};
use support::ledger::compare;
use support::pki::{Pki, install_credential};
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::subscriber::{Receiver, Subscriber};

const BINARY: &str = env!("CARGO_BIN_EXE_bedrail");
const SOON: Duration = Duration::from_secs(30);
const LIVE: &str = "bedrail/gw-test/";

const CONFIG: i32 = 2;
const RUNTIME: i32 = 1;
const STORE: i32 = 75;

fn bedrail(arguments: &[&str], config: &Path) -> Ran {
    let config = config.display().to_string();
    let arguments = [arguments, &["--config", &config][..]].concat();
    run(Path::new(BINARY), &arguments, &[], SOON)
}

fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap")
}

fn thermometer() -> VirtualDevice {
    VirtualDevice::new(Kind::Thermometer, "A4:C1:38:00:00:03", "thermometer")
}

fn measure(rig: &mut Rig, times: usize) {
    for _ in 0..times {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All files of a directory.
fn octets(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_config_that_is_wrong_stops_every_command_with_the_line_and_the_remedy() {
    const CANARY: &str = "Zebulon-19471103";
    let site = Site::new();
    let gateway = site.gateway_section("gw-test");
    let device = "[[device]]\nname = \"cuff\"\nkind = \"blood-pressure\"\n";
    for (text, says) in [
        ("[gateway\n".to_owned(), "bedrail.toml:1: this is not TOML"),
        (format!("{gateway}colour = \"red\"\n"), "gateway: colour: there is no such key"),
        (format!("{gateway}[store]\ncommit_records = \"many\"\n"), "store: commit_records: it is a string; write a whole number"),
        (
            format!("{gateway}{device}address = \"A4-C1\"\n"),
            "is not a Bluetooth device address; write it as \"A4:C1:38:11:22:33\"",
        ),
        (format!("{gateway}[[patient]]\nkey = \"p-1\"\nname = \"{CANARY}\"\n"), "bedrail patient set"),
        (format!("{gateway}[[patient]]\nkey = \"{CANARY}\"\n"), "patient"),
    ] {
        std::fs::write(site.config_file(), &text).unwrap();
        for arguments in [&["run"][..], &["run", "collect"], &["check"], &["store", "prepare"], &["status"], &["key", "init"]] {
            let ran = bedrail(arguments, &site.config_file());
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.status, Some(CONFIG), "{arguments:?} with\n{text}\n{said}");
            assert!(said.contains(says), "{arguments:?} with\n{text}\nsays {said}");
            assert!(!said.contains(CANARY), "{said}");
        }
    }
    assert_eq!(octets(&site.path("state")).len(), 0, "a config that is refused leaves no trace");
}

#[test]
fn what_is_not_built_yet_can_be_checked_and_not_run() {
    for (name, key) in [("ward", "adt: listen"), ("home", "route \"emr\": kind"), ("cart", "route \"flowsheet\": kind")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/examples/{name}.toml"));
        let checked = bedrail(&["check"], &path);
        assert!(checked.status == Some(0) && checked.stdout.contains("not yet"), "{checked:?}");
        for arguments in [&["run"][..], &["run", "collect"], &["run", "deliver"]] {
            let ran = bedrail(arguments, &path);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(ran.status == Some(CONFIG) && said.contains(&format!("{key}: not yet")), "{arguments:?}: {ran:?}");
        }
    }
}

#[test]
fn a_daemon_that_does_not_run_is_unreachable() {
    let site = Site::new();
    site.config("gw-test", &[&strap()], "[[patient]]\nkey = \"p-anna\"\n");
    for arguments in [
        &["route", "list"][..],
        &["route", "pause", "live"],
        &["assign", "--device", "strap", "p-anna"],
        &["ward"],
        &["ward", "import", "/dev/null", "--yes"],
        &["why", "1"],
        &["trace", "0123456789abcdef0123456789abcdef"],
        &["held", "show", "chart", "1"],
        &["patient", "list"],
        &["patient", "forget", "p-anna"],
        &["status"],
    ] {
        let ran = bedrail(arguments, &site.config_file());
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.status == Some(RUNTIME) && said.contains("unreachable") && said.contains("systemctl status"), "{ran:?}");
    }
}

#[test]
fn keys_and_files_that_do_not_fit_change_nothing() {
    let mut rig = Rig::new(BINARY, &[strap(), thermometer()], "start = \"oldest\"", "");
    let unprepared = rig.refused(&["run", "collect"], STORE);
    assert!(unprepared.contains("bedrail store prepare"), "{unprepared}");
    rig.proxy.refuse(true);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    measure(&mut rig, 5);
    rig.wait_for_route("live", SOON, |route| waits_for(route, 14));

    for arguments in [&["run"][..], &["store", "prepare"]] {
        let said = rig.bedrail(arguments);
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(said.status == Some(RUNTIME) && text.contains("another bedrail holds the store"), "{arguments:?}: {said:?}");
    }
    for half in ["collect", "deliver"] {
        let said = rig.bedrail(&["run", half]);
        assert!(said.status == Some(RUNTIME), "a second {half} half: {said:?}");
    }
    rig.wait_for_route("live", SOON, |route| route["state"] == "down");
    rig.stop();
    let head = rig.head();
    let before = octets(&rig.site.path("state"));

    refuse_readable_key(&rig);
    refuse_other_key(&rig, "store-key", "bedrail.db");
    refuse_other_key(&rig, "ward-key", "ward.db");
    refuse_without_envelope(&rig, "bedrail.db.key");
    refuse_without_envelope(&rig, "ward.db.key");
    assert!(before == octets(&rig.site.path("state")), "a refused start changed a file");

    assert_eq!(rig.head(), head);
    rig.proxy.pass();
    rig.start(Shape::OneProcess);
    let report = rig.settle(SOON);
    report.assert_sound();
    assert_eq!((report.arrived, rig.head() >= head), (rig.made().len(), true));
    rig.stop();
}

/// Both what runs alone and what runs together; every start says the same.
fn starts(rig: &Rig, shapes: &[&[&str]], code: i32, says: &str) {
    for arguments in shapes {
        let ran = rig.bedrail(arguments);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.status == Some(code) && said.contains(says), "{arguments:?} should end with {code} and {says:?}: {ran:?}");
        assert!(said.lines().filter(|line| line.contains("ERROR") || line.starts_with("bedrail: ")).count() == 1, "{said}");
    }
}

const ALL: &[&[&str]] = &[&["run"], &["run", "collect"], &["run", "deliver"], &["store", "prepare"]];
/// The collect half never asks for the ward's key.
const WARDS: &[&[&str]] = &[&["run"], &["run", "deliver"], &["store", "prepare"]];

fn refuse_readable_key(rig: &Rig) {
    let key = rig.site.path("credentials/store-key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o444)).unwrap();
    starts(rig, ALL, CONFIG, &format!("may be read by others (mode 0444); run `chmod 0400 {}`", key.display()));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
}

fn refuse_other_key(rig: &Rig, credential: &str, database: &str) {
    let own = std::fs::read(rig.site.path("credentials").join(credential)).unwrap();
    rig.site.credential(credential, &[7; 32]);
    let which = if database == "ward.db" { WARDS } else { ALL };
    starts(rig, which, STORE, &format!("credential \"{credential}\" does not open this envelope"));
    rig.site.credential(credential, &own);
}

fn refuse_without_envelope(rig: &Rig, name: &str) {
    let (envelope, away) = (rig.site.path("state").join(name), rig.site.path(name));
    std::fs::rename(&envelope, &away).unwrap();
    let which = if name.starts_with("ward") { WARDS } else { ALL };
    starts(rig, which, STORE, "no key envelope; run `bedrail key init` once, or restore the envelope from a backup");
    let init = rig.refused(&["key", "init"], STORE);
    assert!(init.contains("restore"), "a new envelope would not open the old database: {init}");
    std::fs::rename(&away, &envelope).unwrap();
}

/// Four brokers' worth of trouble beside one route that is well: the daemon runs on, each route says why it does not get
/// through, and what it could not send comes when the trouble is mended.
#[test]
fn a_route_that_is_turned_away_says_why_and_loses_nothing() {
    let mut rig = Rig::new(BINARY, &[strap(), thermometer()], "", "");
    let acl = |topics: &str| BrokerOptions {
        acl: Some(format!("user reader\ntopic read #\nuser gateway\n{topics}")),
        ..BrokerOptions::mutual_tls(&rig.pki)
    };
    let denying = acl("topic write bedrail/gw-test/#\ntopic write bedrail/foreign/#\n");
    let allowing = acl("topic write bedrail/#\n");
    rig.broker.reload(&denying);
    // A broker with passwords, which asks for no certificate.
    let login = Broker::start(&BrokerOptions {
        tls: Some(BrokerTls { ca: rig.pki.ca(), server: rig.pki.server(), require_certificate: false }),
        users: vec![("gateway".to_owned(), "right".to_owned())],
        ..BrokerOptions::default()
    });
    let behind_login = Subscriber::start(Receiver {
        port: login.port(),
        client_id: "ledger".to_owned(),
        topic: "bedrail/login/#".to_owned(),
        tls: Some((rig.pki.ca(), None)),
        login: Some(("gateway".to_owned(), "right".to_owned())),
    });
    rig.site.credential("password", b"wrong");
    install_credential(&rig.identity.key, &rig.site.path("credentials/tls-key"));
    let stranger = Pki::new();
    rig.configure(&routes(&rig, &login, &stranger.ca()), "");
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    measure(&mut rig, 4);
    let made = rig.made().len();
    let wait_for_live = |rig: &Rig, made: usize| {
        assert!(wait_until(SOON, || compare(&rig.made(), &rig.records_under(LIVE)).arrived == made), "{}", rig.logs());
    };
    wait_for_live(&rig, made);
    for (route, why) in [
        ("foreign", "not signed by the authority in tls.ca"),
        ("login", "did not authorize this gateway; check username, password"),
        ("denied", "0x87: not authorized; allow this client to publish to the topic in the broker's access rules"),
    ] {
        let says = |route: &serde_json::Value| route["detail"].as_str().is_some_and(|detail| detail.contains(why));
        rig.wait_for_route(route, SOON, |it| it["state"] != "up" && says(it) && waits_for(it, made));
    }
    assert_eq!(rig.records_under("bedrail/foreign/").len() + rig.records_under("bedrail/denied/").len(), 0);

    // The broker's rules are mended under the running daemon; what the daemon is told, at its next start.
    rig.broker.reload(&allowing);
    let arrived = |messages: &[support::subscriber::Message]| compare(&rig.made(), messages).arrived;
    assert!(wait_until(SOON, || arrived(&rig.records_under("bedrail/denied/")) == made), "{}", rig.logs());
    rig.site.credential("password", b"right\n");
    rig.configure(&routes(&rig, &login, &rig.pki.ca()), "");
    rig.restart();
    let all = wait_until(SOON, || {
        let foreign = compare(&rig.made(), &rig.records_under("bedrail/foreign/")).arrived;
        foreign == made && compare(&rig.made(), &behind_login.messages()).arrived == made
    });
    assert!(all, "{}", rig.logs());
    for prefix in [LIVE, "bedrail/foreign/", "bedrail/denied/"] {
        compare(&rig.made(), &rig.records_under(prefix)).assert_sound();
    }
    rig.stop();
}

fn waits_for(route: &serde_json::Value, made: usize) -> bool {
    ["live", "backlog"].iter().filter_map(|lane| route[lane].as_u64()).sum::<u64>() >= made as u64
}

fn routes(rig: &Rig, login: &Broker, foreign_ca: &Path) -> String {
    let cert = &rig.identity.cert;
    let keys = |name: &str| format!("start = \"oldest\"\ntopic = \"bedrail/{name}/{{device}}/{{metric}}\"");
    let foreign = mqtt_route("foreign", rig.proxy.port(), Some((foreign_ca, Some(cert))), &keys("foreign"));
    let password = "username = \"gateway\"\npassword = { credential = \"password\" }";
    let login = mqtt_route("login", login.port(), Some((&rig.pki.ca(), None)), &format!("{}\n{password}", keys("login")));
    rig.route("live", "start = \"oldest\"") + &foreign + &login + &rig.route("denied", &keys("denied"))
}
