//! A config is refused whole, with every error named, or it means what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bedrail::cli::check::{CheckArgs, report};
use bedrail::config::{
    self, AdvertName, Bind, Carry, ConfigErrors, DeviceKind, Env, History, KEYS, Loaded, Mode, Order, Origin, Preset, SecretRef,
    Settle, Status, Target, Use, When,
};
use bedrail::reading::{Metric, Timestamp};
use proptest::prelude::*;

const GATEWAY: &str = "[gateway]\nid = \"gw-1\"\n";
const DEVICE: &str = "[[device]]\nname = \"cuff\"\nkind = \"blood-pressure\"\naddress = \"A4:C1:38:11:22:33\"\n";
const ROUTE: &str = "[[route]]\nname = \"live\"\nkind = \"mqtt\"\nurl = \"mqtts://broker.example\"\n";

fn parse(text: &str) -> Result<Loaded, ConfigErrors> {
    config::parse(text, "bedrail.toml", &Env::default())
}

fn good(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n--- in\n{text}"))
}

/// The errors of a config that must be refused.
fn refused(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => panic!("it was accepted:\n{text}"),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

/// The one error of a device with one more line.
fn device_error(line: &str) -> String {
    only(refused(&format!("{GATEWAY}{DEVICE}{line}\n")))
}

fn route_error(line: &str) -> String {
    only(refused(&format!("{GATEWAY}{ROUTE}{line}\n")))
}

fn only(mut errors: Vec<String>) -> String {
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

#[test]
fn broken_toml_names_file_and_line() {
    let error = only(refused("[gateway]\nid = \"gw-1\nmode = \"ward\"\n"));
    assert!(error.starts_with("bedrail.toml:2: this is not TOML: "), "{error}");
    let error = only(refused("[gateway]\nid = \"gw-1\"\nid = \"gw-2\"\n"));
    assert!(error.starts_with("bedrail.toml:3: this is not TOML: "), "{error}");
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    assert_eq!(
        device_error("adress = \"A4:C1:38:11:22:33\""),
        "bedrail.toml:7: device \"cuff\": adress: there is no such key; did you mean `address`?"
    );
    assert_eq!(
        only(refused(&format!("{GATEWAY}[[devise]]\nname = \"cuff\"\n"))),
        "bedrail.toml:3: devise: there is no such key; did you mean `device`?"
    );
    assert_eq!(
        only(refused("[gateway]\nid = \"gw-1\"\ntime-zone = \"UTC\"\n")),
        "bedrail.toml:3: gateway: time-zone: there is no such key; did you mean `timezone`?"
    );
    let error = route_error("tls = { cacert = \"/etc/ca.pem\" }");
    assert!(
        error.contains("route \"live\": tls.cacert: there is no such key; there are alpn, ca, cert, key, server_name"),
        "{error}"
    );
}

#[test]
fn a_wrong_type_says_what_to_write() {
    assert_eq!(
        only(refused(&format!("{GATEWAY}[store]\ncommit_records = \"many\"\n"))),
        "bedrail.toml:4: store: commit_records: it is a string; write a whole number of records from 1 to 1000"
    );
    assert_eq!(
        only(refused(&format!("{GATEWAY}[store]\ncommit_interval = 500\n"))),
        "bedrail.toml:4: store: commit_interval: it is an integer; write a duration from \"10 ms\" to \"10 s\""
    );
    assert!(device_error("from = 2026-11-23T09:00:00").contains("does not name one moment; write a time with its offset"));
    assert!(device_error("set_clock = \"yes\"").contains("it is a string; write true or false"));
    assert!(route_error("tls = true").contains("tls: it is a boolean; write a table with alpn, ca, cert, key, server_name"));
    assert!(only(refused("[[gateway]]\nid = \"gw-1\"\n")).contains("write [gateway]"));
    assert!(only(refused(&format!("{GATEWAY}[device]\nname = \"cuff\"\n"))).contains("write [[device]]"));
}

#[test]
fn a_bad_address_names_device_line_and_the_right_spelling() {
    let text = format!("{GATEWAY}{}", DEVICE.replace("A4:C1:38:11:22:33", "A4-C1"));
    assert_eq!(
        only(refused(&text)),
        "bedrail.toml:6: device \"cuff\": address: `A4-C1` is not a Bluetooth device address; write it as \"A4:C1:38:11:22:33\""
    );
}

#[test]
fn out_of_range_and_misspelt_words_are_refused() {
    for (section, line, message) in [
        ("store", "commit_interval = \"1 h\"", "`1 h` is out of range"),
        ("store", "commit_records = 0", "0 is out of range"),
        ("store", "commit_records = -1", "-1 is out of range"),
        ("store", "max_bytes = \"2 GB\"", "`2 GB` is not a size"),
        ("store", "keep = \"12 h\"", "shorter than store.horizon"),
        (
            "scan",
            "patient = '(?<visit>'\ndevice = '(?<asset>.*)'",
            "is no regular expression; write a regular expression in single quotes",
        ),
        (
            "scan",
            "patient = '^V[0-9]+$'\ndevice = '(?<asset>.*)'",
            "is without its group; write a regular expression in single quotes, with a group (?<visit>…) or (?<key>…)",
        ),
        ("scan", "patient = '(?<visit>.*)'", "a wristband alone ties nothing; write `device` as well"),
        ("scan", "device = '(?<name>.*)'", "a label alone ties nothing"),
        ("scan", "within = \"10 min\"", "out of range"),
        ("gateway", "mode = \"wards\"", "`wards` is no choice here; write \"ward\" or \"home\"; did you mean `ward`?"),
        ("gateway", "timezone = \"Europe/Wien\"", "not a time zone in this machine's tzdata"),
        ("gateway", "state_dir = \"bedrail\"", "not an absolute path"),
    ] {
        let gateway = if section == "gateway" { "id = \"gw-1\"\n" } else { "" };
        let rest = if section == "gateway" { "" } else { GATEWAY };
        let error = only(refused(&format!("[{section}]\n{gateway}{line}\n{rest}")));
        assert!(error.contains(message), "{line}: {error}");
    }
    assert!(route_error("carry = [\"readings\", \"windows:7m\"]").contains("`windows:7m` is nothing a route can carry"));
    assert!(route_error("carry = [\"windows:1m\", \"windows:60s\"]").contains("twice"));
    assert!(route_error("carry = []").contains("carries nothing"));
    assert!(route_error("topic = \"ward/{patient}\"").contains("placeholder that does not exist"));
    assert!(route_error("filter = { metrics = [\"sp02\"] }").contains("did you mean \"spo2\"?"));
}

#[test]
fn all_errors_are_told_at_once_in_the_order_of_the_file() {
    let errors =
        refused("[gateway]\nmode = 3\n[[device]]\nname = \"a b\"\nkind = \"cuff\"\nbed = \"7\"\n[[route]]\nkind = \"mqtt\"\n");
    let at: Vec<_> = errors.iter().map(|error| error.split(": ").take(3).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        at,
        [
            "bedrail.toml:1: gateway: id",
            "bedrail.toml:2: gateway: mode",
            "bedrail.toml:3: device \"a b\": address",
            "bedrail.toml:4: device \"a b\": name",
            "bedrail.toml:5: device \"a b\": kind",
            "bedrail.toml:6: device \"a b\": bed",
            "bedrail.toml:7: route 1: name",
            "bedrail.toml:7: route 1: url",
        ],
        "{errors:#?}"
    );
}

#[test]
fn an_identifier_under_patient_is_refused_and_never_repeated() {
    const CANARY: &str = "Zebulon";
    for line in [
        "name = \"Zebulon\"",
        "mrn = \"Zebulon\"",
        "\"Zebulon\" = 1",
        "birth_date = 1961-04-01 # Zebulon",
        "identifiers = { mrn = \"Zebulon\" }",
        "identifiers.mrn = \"Zebulon",
        "password = \"Zebulon\"",
        "key.name = \"Zebulon\"",
        "test = \"Zebulon\"",
    ] {
        let key = if line.starts_with("key") { "" } else { "key = \"p-017\"\n" };
        let errors = refused(&format!("{GATEWAY}[[patient]]\n{key}{line}\n"));
        assert!(errors.iter().all(|error| !error.contains(CANARY)), "{line}: {errors:#?}");
        assert!(errors.iter().any(|error| error.starts_with("bedrail.toml:")), "{line}: {errors:#?}");
    }
    let error = only(refused(&format!("{GATEWAY}[[patient]]\nkey = \"p-017\"\nmrn = \"4711\"\n")));
    assert!(error.contains("patient 1: mrn: identifiers do not belong into the config"), "{error}");
    assert!(error.contains("`bedrail patient set KEY --identifiers-file -`"), "{error}");

    let error = only(refused(&format!("{GATEWAY}[[patient]]\nkey = \"MRN0047111\"\n")));
    assert!(error.contains("patient 1: key: ") && error.contains("five digits") && !error.contains("0047111"), "{error}");
    let error = device_error("patient = \"Zebulon\"");
    assert!(error.contains("no [[patient]] with this key") && !error.contains(CANARY), "{error}");
}

#[test]
fn a_secret_in_plain_text_is_refused_and_never_repeated() {
    for line in [
        "password = \"hunter2\"",
        "passwort = \"hunter2\"",
        "mqtt_password = \"hunter2\"",
        "api_token = \"hunter2\"",
        "auth = { kind = \"client\", client_secret = \"hunter2\" }",
        "tls.key = \"hunter2\"",
        "password = { credential = \"../hunter2/x\" }",
        "password = { file = \"hunter2\" }",
        "password = { value = \"hunter2\" }",
        "url2 = \"mqtts://ward:hunter2@broker.example\"",
    ] {
        let errors = refused(&format!("{GATEWAY}{ROUTE}{line}\n"));
        assert!(errors.iter().all(|error| !error.contains("hunter2")), "{line}: {errors:#?}");
    }
    assert_eq!(
        route_error("password = \"hunter2\""),
        "bedrail.toml:7: route \"live\": password: a secret is never written into the config; \
         write { credential = \"NAME\" } or { file = \"/PATH\" }"
    );
    let with_login = ROUTE.replace("mqtts://", "mqtts://ward:hunter2@");
    let error = only(refused(&format!("{GATEWAY}{with_login}")));
    assert!(error.contains("may not hold a login") && !error.contains("hunter2"), "{error}");
}

#[test]
fn names_addresses_and_keys_stand_once() {
    let twice = format!("{GATEWAY}{DEVICE}{DEVICE}{ROUTE}{ROUTE}[[bed]]\nid = \"1\"\n[[bed]]\nid = \"1\"\n");
    let errors = refused(&twice);
    let keys: Vec<_> = errors.iter().map(|error| error.split(": ").nth(2).unwrap_or_default()).collect();
    assert_eq!(keys, ["name", "address", "name", "id"], "{errors:#?}");
    assert!(errors[1].contains("another device has the same (line 3)"), "{errors:#?}");
}

#[test]
fn a_device_is_for_a_bed_or_for_a_person_that_the_file_names() {
    let ward = "[[bed]]\nid = \"7\"\n[[patient]]\nkey = \"p-1\"\n";
    let with = |line: &str| parse(&format!("{GATEWAY}{ward}{DEVICE}{line}\n"));
    for (line, usage) in [("bed = \"7\"", Use::Bed), ("patient = \"p-1\"", Use::Personal), ("use = \"shared\"", Use::Shared)] {
        assert_eq!(with(line).expect("accepted").settings.devices[0].usage, usage, "{line}");
    }
    for line in [
        "bed = \"8\"",
        "patient = \"p-2\"",
        "bed = \"7\"\npatient = \"p-1\"",
        "use = \"shared\"\nbed = \"7\"",
        "use = \"bed\"\npatient = \"p-1\"",
        "use = \"personal\"\nbed = \"7\"",
        "spot.for = \"5 min\"",
        "use = \"shared\"\nspot.readings = 0",
        "use = \"shared\"\nspot.for = \"2 d\"",
        "user = 1",
        "from = 2026-11-23T09:00:00Z",
    ] {
        assert_eq!(with(line).expect_err(line).0.len(), 1, "{line}");
    }
}

#[test]
fn values_go_in_the_clear_only_within_this_machine() {
    let to = |url: &str| parse(&format!("{GATEWAY}{}", ROUTE.replace("mqtts://broker.example", url)));
    for url in ["mqtt://127.0.0.1:18830", "mqtt://localhost", "mqtt://[::1]"] {
        let loaded = to(url).expect(url);
        assert!(loaded.settings.routes[0].mqtt().expect("a route of mqtt").tls.is_none());
    }
    for url in ["mqtt://broker.example", "mqtt://127.0.0.1.example", "https://broker.example", "mqtts://broker.example/path"] {
        let errors = to(url).expect_err(url).to_string();
        assert!(errors.contains("mqtts://"), "{errors}");
    }
    assert!(route_error("tls.cert = \"/a.pem\"").contains("tls.key: a certificate needs its key"));
    assert!(route_error("tls.key = { file = \"/a.key\" }").contains("tls.cert: a key needs its certificate"));
}

#[test]
fn a_broker_behind_a_proxy_or_a_websocket_is_found_and_its_logins_are_kept_apart() {
    let route = |lines: &str| good(&format!("{GATEWAY}{ROUTE}{lines}\n")).settings.routes[0].mqtt().expect("mqtt").clone();
    let proxy =
        route("proxy = { url = \"http://[fd00::1]:3128\", username = \"gw\", password = { credential = \"proxy\" } }").proxy;
    let proxy = proxy.expect("a proxy");
    assert_eq!((proxy.host.as_str(), proxy.port, proxy.username.as_deref()), ("fd00::1", 3128, Some("gw")));
    for (line, message) in [
        ("proxy.url = \"https://a:1\"", "proxy.url: `https://a:1` is not the address of a proxy"),
        ("proxy.username = \"gw\"", "proxy.url: it is missing"),
        ("tls.server_name = \"a/b\"", "tls.server_name: it is no host name"),
        (
            "sas = { key = { credential = \"k\" } }\npassword = { credential = \"p\" }",
            "password: with `sas` the password is a token",
        ),
        ("sas.ttl = \"1 h\"", "sas.key: a token needs a key"),
    ] {
        let error = route_error(line);
        assert!(error.contains(message), "{line}: {error}");
    }
    let to = |url: &str| good(&format!("{GATEWAY}{}", ROUTE.replace("mqtts://broker.example", url)));
    let wss = to("wss://broker.example").settings.routes[0].mqtt().expect("mqtt").clone();
    assert_eq!((wss.port, wss.websocket.as_deref(), wss.tls.is_some()), (443, Some("/mqtt"), true));
    let plain = refused(&format!("{GATEWAY}{}", ROUTE.replace("mqtts://broker.example", "ws://broker.example/mqtt")));
    assert!(only(plain).contains("write \"wss://broker.example\""));
}

#[test]
fn a_promise_that_is_weaker_is_asked_for_by_name_and_told_by_check() {
    let error = route_error("max_qos = 0");
    assert!(error.contains("settle: at QoS 0 nothing is acknowledged; write settle"), "{error}");
    let error = route_error("settle = \"sent\"");
    assert!(error.contains("settle: at QoS 1 the broker acknowledges; write settle = \"puback\""), "{error}");
    let notes = |lines: &str| good(&format!("{GATEWAY}{ROUTE}{lines}\n")).notes;
    assert_eq!(notes(""), []);
    let sent = notes("max_qos = 0\nsettle = \"sent\"");
    assert!(sent.len() == 1 && sent[0].message.starts_with("nothing confirms what was sent"), "{sent:?}");
    let old = notes("protocol = \"3.1.1\"");
    assert!(
        old.len() == 1 && old[0].to_string().contains(":7: route \"live\": protocol: a 3.1.1 broker acknowledges even"),
        "{old:?}"
    );

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bedrail.toml");
    std::fs::write(&path, format!("{GATEWAY}{ROUTE}protocol = \"3.1.1\"\n")).expect("written");
    let (code, out, _) = check(&path, false, false);
    assert!(code == 0 && out.starts_with("note: ") && out.contains("access rules refuse"), "{out}");
    let (_, out, _) = check(&path, false, true);
    let json: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!(json["notes"][0]["key"], "protocol");
}

#[test]
fn a_metric_is_one_of_the_table_and_condensed_only_where_that_means_something() {
    let with = |text: &str| refused(&format!("{GATEWAY}{text}\n"));
    assert!(only(with("[metric.sp02]\nwindows = [\"1 min\"]")).contains("`sp02` is no metric; did you mean \"spo2\"?"));
    assert!(with("[metric.pulse_rate.cuff]\nprefer = []").iter().any(|e| e.contains("write [metric.\"pulse_rate.cuff\"]")));
    assert!(only(with("[metric.blood_pressure]\nwindows = [\"1 min\"]")).contains("never condensed"));
    assert!(only(with("[metric.spo2]\nagree_within = \"4 mm[Hg]\"")).contains("write it in %"));
    assert!(only(with("[metric.spo2]\nprefer = [\"pulse-oximetre\"]")).contains("did you mean `pulse-oximeter`?"));
    assert!(only(with("[metric.spo2]\nwindows = [\"7 min\"]")).contains("no length of a window"));
    let needs_patient = route_error("per_patient = true");
    assert!(needs_patient.contains("write bind = \"patient\""), "{needs_patient}");
}

#[test]
fn what_is_not_written_has_the_default_of_the_table_the_mode_or_the_kind() {
    let loaded = good(&format!("{GATEWAY}{DEVICE}{ROUTE}"));
    let settings = &loaded.settings;
    assert_eq!(settings.gateway.mode, Mode::Ward);
    assert_eq!(settings.gateway.site_key, SecretRef::Credential("site-key".to_owned()));
    assert_eq!((settings.store.commit_interval, settings.store.commit_records), (Duration::from_millis(500), 256));
    assert_eq!(settings.store.horizon, Duration::from_secs(72 * 3600));
    assert_eq!(settings.ward.back_dating, Duration::from_secs(7200));
    let device = &settings.devices[0];
    assert_eq!((device.kind, device.usage, device.history), (DeviceKind::BloodPressure, Use::Bed, History::New));
    let route = &settings.routes[0];
    assert_eq!((route.bind, route.order, route.when), (Bind::Device, Order::LiveFirst, When::AtOnce));
    assert_eq!((&route.carry[..], route.min_coverage), (&[Carry::Readings][..], 50));
    let Target::Mqtt(mqtt) = &route.target else { panic!("a route of mqtt") };
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.window, mqtt.settle), ("broker.example", 8883, 64, Settle::Puback));
    assert_eq!((mqtt.client_id.as_str(), mqtt.max_packet), ("gw-1-live", 128 * 1024));
    assert!(mqtt.tls.as_ref().is_some_and(|tls| tls.client.is_none()));

    let home = good(&format!("[gateway]\nid = \"gw-1\"\nmode = \"home\"\n{DEVICE}"));
    assert_eq!(home.settings.devices[0].usage, Use::Personal);
    let explained = home.explain.iter().find(|value| value.path == "device[].use").expect("explained");
    assert_eq!((explained.value.as_str(), &explained.origin), ("\"personal\"", &Origin::Mode));
}

#[test]
fn a_scanner_that_types_as_a_keyboard_is_refused_before_it_is_used() {
    let scan = |input: &str| format!("[gateway]\nid = \"gw\"\n[scan]\ninput = \"{input}\"\n");
    let check = |input: &str| parse(&scan(input));
    for keyboard in ["/dev/input/event3", "/dev/input/by-id/usb-scanner-event-kbd"] {
        let said = check(keyboard).unwrap_err().to_string();
        assert!(said.starts_with("bedrail.toml:4: scan: input: ") && said.contains("types wristbands into"), "{said}");
        assert!(said.contains("serial mode (USB-COM)") && said.contains("/dev/serial/by-id"), "{said}");
    }
    assert!(check("/dev/serial/by-id/usb-scanner-if00").is_ok() && check("/dev/inputs").is_ok());
}

#[test]
fn a_device_that_is_read_by_what_it_advertises_is_neither_bonded_nor_of_another_kind() {
    let device = |lines: &str| {
        let text =
            format!("{GATEWAY}[[device]]\nname = \"ear\"\nkind = \"thermometer\"\naddress = \"A4:C1:38:00:00:01\"\n{lines}\n");
        config::parse(&text, "bedrail.toml", &Env::default()).map_err(|errors| errors.to_string())
    };
    const KEY: &str = "advert_key = { credential = \"ear-key\" }";
    let read = device(&format!("advert = \"bthome_v2\"\n{KEY}\nadvert_counter = 2")).unwrap().settings;
    assert_eq!((read.devices[0].advert.map(AdvertName::name), read.devices[0].advert_counter), (Some("bthome_v2"), 2));
    assert!(device("advert = \"bthome_v2\"").is_ok(), "it may be in the clear");
    for (lines, said) in [
        (KEY.to_owned(), "advert_key: it is not used; write `advert`"),
        ("advert_counter = 1".to_owned(), "advert_counter: it is not used"),
        ("advert = \"bthome_v2\"\nadvert_counter = 1".to_owned(), "advert_counter: only what is encrypted is counted"),
        ("advert = \"bthome_v2\"\nbond = \"just-works\"".to_owned(), "bond: a device that is read by what it advertises"),
        (
            "advert = \"bthome_v2\"\nserial = \"501\"".to_owned(),
            "serial: a device that is read by what it advertises is never asked",
        ),
        (
            "advert = \"bthome_v2\"\nmodel = \"3230\"".to_owned(),
            "model: a device that is read by what it advertises is never asked",
        ),
        ("advert = \"bthome_v2\"\nprofile = \"nonin-3230\"".to_owned(), "profile: it is read by `advert` or by a profile"),
        ("advert = \"xoss_adv\"".to_owned(), "advert: xoss_adv says nothing of such a device; it is of kind \"heart-rate\""),
        (format!("advert = \"mi_body_scale_adv\"\n{KEY}"), "advert_key: this format is never encrypted"),
        ("advert = \"mi_beacon\"".to_owned(), "advert_key: this format is encrypted"),
    ] {
        let refused = device(&lines).map(drop).unwrap_err();
        assert!(refused.contains(said), "{lines}: {refused}");
    }
    let formats: BTreeSet<&str> = bedrail::gatt::ADVERTISEMENTS.iter().map(|row| row.name).collect();
    assert_eq!(AdvertName::WORDS.iter().copied().collect::<BTreeSet<_>>(), formats, "whatever can be read can be configured");
}

#[test]
fn a_metric_has_its_own_window_lengths_and_those_the_routes_carry() {
    let text = format!("{GATEWAY}[metric.spo2]\nwindows = [\"5 min\"]\n{ROUTE}carry = [\"windows:1h\"]\n");
    let settings = good(&text).settings;
    assert_eq!(settings.window_lengths(Metric::Spo2), BTreeSet::from([300, 3600]));
    assert_eq!(settings.window_lengths(Metric::HeartRate), BTreeSet::from([60, 900, 3600]));
    assert_eq!(settings.window_lengths(Metric::BloodPressure), BTreeSet::new(), "never condensed");
}

#[test]
fn systemd_says_where_credentials_are_unless_the_config_does() {
    let env = Env { credentials_directory: Some(PathBuf::from("/run/credentials/bedrail")) };
    let of = |text: &str| config::parse(text, "bedrail.toml", &env).expect("a config").settings.gateway.credentials;
    let default = of(GATEWAY);
    assert_eq!((default.path.to_str(), default.systemd), (Some("/run/credentials/bedrail"), true));
    let own = of(&format!("{GATEWAY}credentials_dir = \"/srv/keys\"\n"));
    assert_eq!((own.path.to_str(), own.systemd), (Some("/srv/keys"), false));
    let without = good(GATEWAY).settings.gateway.credentials;
    assert_eq!((without.path.to_str(), without.systemd), (Some("/etc/bedrail/credentials"), false));
}

#[test]
fn the_examples_are_checked_now_and_refused_by_run_until_they_are_built() {
    for (name, waiting) in [
        ("ward", &["adt: listen", "route \"emr\": kind"][..]),
        ("home", &["route \"emr\": kind", "route \"emr\": create"]),
        ("cart", &["route \"flowsheet\": map.spo2"]),
    ] {
        let path = example(name);
        let (code, out, err) = check(&path, false, false);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        let listed: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("not yet: ")).collect();
        let loaded = config::load(&path).expect(name);
        let refused = loaded.runnable().expect_err(name);
        assert_eq!(refused.0.len(), listed.len(), "{name}");
        for key in waiting {
            assert!(listed.iter().any(|line| line.contains(&format!(": {key}: waits for"))), "{name}: {key}: {out}");
            assert!(refused.to_string().contains(&format!(": {key}: not yet: ")), "{name}: {key}: {refused}");
        }
    }
    let ward = config::load(&example("ward")).expect("the ward").settings;
    assert_eq!(ward.devices[0].from, Some(Timestamp(1_795_420_800_000)), "2026-11-23T09:00:00+01:00");
    assert_eq!(ward.metric(Metric::Spo2).prefer, ["oxi-07", "pulse-oximeter"]);
}

#[test]
fn every_route_in_the_docs_passes_check() {
    for (file, least) in [("docs/mqtt.md", 1), ("docs/brokers.md", 7), ("docs/ward.md", 3)] {
        let text = std::fs::read_to_string(file).expect("the page");
        let blocks: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("a block")).collect();
        assert!(blocks.len() >= least, "{file}: {} blocks", blocks.len());
        for block in blocks {
            good(&format!("{GATEWAY}{block}")).runnable().unwrap_or_else(|errors| panic!("{file}: {errors}\n{block}"));
        }
    }
}

#[test]
fn check_prints_errors_to_stderr_and_ends_with_two() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bedrail.toml");
    std::fs::write(&path, "[gateway]\nid = \"gw-1\"\nmod = \"ward\"\n").expect("written");
    let (code, out, err) = check(&path, false, false);
    assert_eq!((code, out.as_str()), (2, ""));
    let wanted = format!("{}:3: gateway: mod: there is no such key; did you mean `mode`?\n", path.display());
    assert_eq!(err, wanted);

    let (code, out, err) = check(&path, false, true);
    let json: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!((code, err.as_str(), &json["ok"], &json["errors"][0]["line"]), (2, "", &false.into(), &3.into()));

    let (code, _, err) = check(&dir.path().join("absent.toml"), false, false);
    assert!(code == 2 && err.contains("absent.toml: it cannot be read") && err.contains("--config PATH"), "{err}");
}

#[test]
fn explain_tells_every_value_and_where_it_comes_from_but_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bedrail.toml");
    let text =
        format!("[gateway]\nid = \"gw-1\"\nmode = \"home\"\n{DEVICE}{ROUTE}password = {{ credential = \"mqtt-login\" }}\n");
    std::fs::write(&path, text).expect("written");
    let (code, out, _) = check(&path, true, false);
    assert_eq!(code, 0);
    for line in [
        format!("gateway: id = \"gw-1\"  # {}:2", path.display()),
        "store: commit_interval = \"500 ms\"  # default".to_owned(),
        "device \"cuff\": use = \"personal\"  # mode".to_owned(),
        "metric (any other): windows = [\"1 min\", \"15 min\"]  # default".to_owned(),
        "route \"live\": bind = \"device\"  # default".to_owned(),
        format!("route \"live\": password = {{ credential = \"mqtt-login\" }}  # {}:12", path.display()),
    ] {
        assert!(out.lines().any(|printed| printed == line), "{line}\n--- in\n{out}");
    }
    let (_, out, _) = check(&path, true, true);
    let json: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
    let explained = json["explain"].as_array().expect("a list");
    assert!(explained.iter().any(|value| value["path"] == "device[].use" && value["origin"] == "mode"), "{out}");
}

#[test]
fn the_commented_default_is_valid_as_shipped_and_shows_every_key_with_its_default() {
    let shipped = std::fs::read_to_string("config/bedrail.toml").expect("the default");
    good(&shipped).runnable().expect("it runs as shipped");

    let all = good(&uncommented(&shipped));
    all.runnable().expect("every setting it shows is built");
    let written: BTreeMap<_, BTreeSet<_>> = all.explain.iter().filter(|v| matches!(v.origin, Origin::File { .. })).fold(
        BTreeMap::new(),
        |mut written: BTreeMap<_, BTreeSet<_>>, value| {
            written.entry(value.path).or_default().insert(value.value.clone());
            written
        },
    );
    let shared = "[[device]]\nname = \"c\"\nkind = \"pulse-oximeter\"\naddress = \"00:1C:05:AB:00:02\"\nuse = \"shared\"\n";
    let sections = format!("{GATEWAY}{DEVICE}{shared}[[patient]]\nkey = \"p-1\"\n{ROUTE}sas.key = {{ credential = \"k\" }}\n");
    let defaults: BTreeMap<_, _> = good(&sections).explain.into_iter().map(|value| (value.path, value)).collect();
    for key in KEYS {
        if key.status != Status::Now {
            let word = key.path.split(['.', '[', '*']).rfind(|part| !part.is_empty() && *part != "]").expect("a word");
            assert!(shipped.contains(word), "{} is not mentioned", key.path);
            continue;
        }
        let values = written.get(key.path).unwrap_or_else(|| panic!("{} is not shown", key.path));
        if let Preset::Toml(_) = key.default {
            assert!(values.contains(&defaults[key.path].value), "{} is shown as {values:?}", key.path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A real config with lines left out, values exchanged between keys and characters overwritten: what comes out is
    /// settings, or errors of which each has a remedy.
    #[test]
    fn no_text_makes_it_panic(which in 0usize..4, changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4), 0..12), char in any::<char>()) {
        let path = ["config/bedrail.toml", "config/examples/ward.toml", "config/examples/home.toml", "config/examples/cart.toml"][which];
        let mut lines: Vec<String> = uncommented(&std::fs::read_to_string(path).expect("a config")).lines().map(str::to_owned).collect();
        for (n, (pick, change)) in changes.iter().enumerate() {
            let (at, other) = (pick.index(lines.len()), (pick.index(lines.len()) * 7 + n) % lines.len());
            let (Some((key, _)), Some((_, value))) = (lines[at].split_once('='), lines[other].split_once('=')) else { continue };
            lines[at] = match change {
                0 => String::new(),
                1 | 2 => format!("{key}={value}"),
                _ => lines[at].replacen(|c: char| c.is_alphanumeric(), &char.to_string(), 1 + n),
            };
        }
        match parse(&lines.join("\n")) {
            Ok(loaded) => prop_assert!(!loaded.explain.is_empty()),
            Err(errors) => prop_assert!(errors.0.iter().all(|e| e.message.contains(';') || e.message.contains("write")), "{errors}"),
        }
    }
}

/// The default file with its settings in force.
fn uncommented(text: &str) -> String {
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(setting).collect()
}

fn example(name: &str) -> PathBuf {
    PathBuf::from(format!("config/examples/{name}.toml"))
}

fn check(config: &std::path::Path, explain: bool, json: bool) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = CheckArgs { config: config.to_owned(), explain, json };
    let code = report(&args, &mut out, &mut err).expect("written to memory");
    (code, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}
