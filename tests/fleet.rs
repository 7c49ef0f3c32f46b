//! A fleet of a thousand gateways: whoever is in trouble stands first, the worst before the less bad, told in plain words.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bedrail::deliver::mqtt::{Link, LinkEvent, LinkSettings, Message, connect};
use bedrail::monitor::fleet::{Fleet, Overview, Trouble};
use bedrail::monitor::{Absence, Topics, offline};
use bedrail::reading::Timestamp;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use support::broker::{Broker, BrokerOptions, free_port};
use support::daemon::run;

const NOON: Timestamp = Timestamp(1_795_435_200_000);
const TOPIC: &str = "bedrail/{gateway}/status";

/// What can be wrong with a gateway here, the worst first, and what is said of it.
const SICK: [(Trouble, &str); 20] = [
    (Trouble::Lost, "gone without a word"),
    (Trouble::Silent, "nothing for 3 h"),
    (Trouble::Damaged, "damaged and salvaged"),
    (Trouble::DiskFails, "takes no writes"),
    (Trouble::RouteDown, "route live: not connected, 5120 records wait, the oldest for 4 h"),
    (Trouble::Paused, "route live: paused, until somebody resumes it"),
    (Trouble::AdapterUnusable, "no Bluetooth adapter"),
    (Trouble::CertificateExpired, "route live: a certificate expired 2 d ago"),
    (Trouble::DiskNearFull, "the disk has 100 MiB left"),
    (Trouble::ClockWrong, "its clock is 10 min ahead"),
    (Trouble::ClockUnsynced, "not synchronised"),
    (Trouble::MatchRulesHigh, "half of the match rules"),
    (Trouble::CertificateExpiring, "route live: a certificate expires in 5 d"),
    (Trouble::DeadLetters, "dead letters: 7"),
    (Trouble::BondLost, "bond lost: cuff-1"),
    (Trouble::DeviceMismatch, "another device: cuff-1"),
    (Trouble::ConsentRefused, "consent refused: scale-1"),
    (Trouble::DeviceSilent, "silent: oxi-1 and 1 more"),
    (Trouble::BatteryLow, "battery low: oxi-1"),
    (Trouble::OldVersion, "bedrail 0.0.9 is not the newest here"),
];

fn at(ms: i64) -> String {
    NOON.plus_ms(ms).to_string()
}

fn well(name: &str) -> (Json, Json) {
    let gateway = json!({
        "schema": "bedrail.gateway/1", "gateway": name, "version": "0.1.0", "state": "online", "updated_at": at(-20_000), "uptime_s": 86_400,
        "clock": "ntp", "adapter": "usable", "store": "ok", "head": 123_456, "rss_octets": 31_457_280, "wal_octets": 4_194_304,
        "disk": { "state": "ok", "free_octets": 24_123_456_789_u64, "log_octets": 1_234_567_890, "log_limit_octets": 2_147_483_648_u64 },
        "certificates": [{ "route": "live", "of": "own", "not_after": at(300 * 86_400_000) }], "conditions": [],
    });
    let route = json!({
        "schema": "bedrail.route/1", "gateway": name, "route": "live", "kind": "mqtt", "state": "up", "live": 1, "backlog": 0, "dead": 0,
    });
    (gateway, route)
}

/// A gateway with these troubles, as it publishes them.
fn gateway(name: &str, troubles: &BTreeSet<Trouble>) -> (Json, Json) {
    let (mut gateway, mut route) = well(name);
    let mut conditions = Vec::new();
    for trouble in troubles {
        match trouble {
            Trouble::Silent => gateway["updated_at"] = json!(at(-3 * 3_600_000)),
            Trouble::Damaged => gateway["store"] = json!("damaged"),
            Trouble::DiskFails => gateway["disk"]["state"] = json!("read_only"),
            Trouble::RouteDown => {
                conditions.push(json!({ "name": "route_down", "route": "live" }));
                route["backlog"] = json!(5_119);
                route["oldest_unsent_at"] = json!(at(-4 * 3_600_000));
            }
            Trouble::MatchRulesHigh => conditions.push(json!({ "name": "match_rules_high" })),
            Trouble::AdapterUnusable => conditions.push(json!({ "name": "adapter_unusable" })),
            Trouble::CertificateExpired => gateway["certificates"][0]["not_after"] = json!(at(-2 * 86_400_000)),
            Trouble::DiskNearFull => {
                gateway["disk"]["state"] = json!("near_full");
                gateway["disk"]["free_octets"] = json!(100 << 20);
            }
            Trouble::ClockWrong => gateway["updated_at"] = json!(at(600_000)),
            Trouble::ClockUnsynced => gateway["clock"] = json!("unsynced"),
            Trouble::Paused => conditions.push(json!({ "name": "route_down", "level": 2, "route": "live" })),
            Trouble::CertificateExpiring => gateway["certificates"][0]["not_after"] = json!(at(5 * 86_400_000 + 1)),
            Trouble::DeadLetters => route["dead"] = json!(7),
            Trouble::DeviceSilent => {
                conditions.push(json!({ "name": "device_silent", "device": "oxi-1" }));
                conditions.push(json!({ "name": "device_silent", "device": "oxi-2" }));
            }
            Trouble::DeviceMismatch => conditions.push(json!({ "name": "device_mismatch", "device": "cuff-1" })),
            Trouble::BondLost => conditions.push(json!({ "name": "bond_lost", "device": "cuff-1" })),
            Trouble::ConsentRefused => conditions.push(json!({ "name": "consent_refused", "device": "scale-1" })),
            Trouble::BatteryLow => conditions.push(json!({ "name": "battery_low", "device": "oxi-1" })),
            Trouble::OldVersion => gateway["version"] = json!("0.0.9"),
            _ => {}
        }
    }
    gateway["conditions"] = json!(conditions);
    if troubles.contains(&Trouble::Lost) {
        gateway = serde_json::from_slice(&offline(name, Absence::Lost)).unwrap();
    }
    (gateway, route)
}

fn hear(fleet: &mut Fleet, name: &str, (gateway, route): &(Json, Json)) {
    let topics = Topics::new(TOPIC);
    fleet.hear(&topics.gateway(name), gateway.to_string().as_bytes(), true, NOON);
    fleet.hear(&topics.route(name, "live"), route.to_string().as_bytes(), true, NOON);
}

fn overview(gateways: &[(String, BTreeSet<Trouble>)]) -> Overview {
    let mut fleet = Fleet::new(Topics::new(TOPIC));
    gateways.iter().for_each(|(name, troubles)| hear(&mut fleet, name, &gateway(name, troubles)));
    fleet.overview(NOON)
}

/// A thousand gateways of which one in twenty is sick, in sixteen ways.
fn thousand() -> Vec<(String, BTreeSet<Trouble>)> {
    let trouble = |n: usize| (n % 20 == 7).then(|| SICK[(n / 20) % SICK.len()].0);
    (0..1_000).map(|n| (format!("gw-{n:04}"), trouble(n).into_iter().collect())).collect()
}

#[test]
fn of_a_thousand_gateways_the_sick_stand_first_the_worst_before_the_less_bad() {
    let overview = overview(&thousand());
    assert_eq!((overview.gateways.len(), overview.passed_over, overview.doubt), (1_000, 0, None));
    let sick: Vec<_> = overview.gateways.iter().take_while(|line| !line.troubles.is_empty()).collect();
    assert_eq!(sick.len(), 50);
    assert!(overview.gateways[50..].iter().all(|line| line.troubles.is_empty()));
    let expected: Vec<(Trouble, String)> = SICK
        .iter()
        .flat_map(|(trouble, _)| {
            thousand().into_iter().filter(|(_, troubles)| troubles.contains(trouble)).map(|(name, _)| (*trouble, name))
        })
        .collect();
    let found: Vec<(Trouble, String)> = sick.iter().map(|line| (line.troubles[0].trouble, line.gateway.clone())).collect();
    assert_eq!(found, expected);
    for line in sick {
        let (_, words) = SICK.iter().find(|(trouble, _)| *trouble == line.troubles[0].trouble).unwrap();
        assert!(line.troubles.len() == 1 && line.troubles[0].reason.contains(words), "{line:#?}");
    }
}

#[test]
fn of_two_with_one_trouble_the_worse_is_first() {
    let names = |field: &dyn Fn(&mut Json, &mut Json, i64)| {
        let mut fleet = Fleet::new(Topics::new(TOPIC));
        for (name, n) in [("a-little", 1), ("b-much", 3), ("c-some", 2)] {
            let (mut gateway, mut route) = well(name);
            field(&mut gateway, &mut route, n);
            hear(&mut fleet, name, &(gateway, route));
        }
        fleet.overview(NOON).gateways.into_iter().map(|line| line.gateway).collect::<Vec<_>>()
    };
    let worst_first = ["b-much", "c-some", "a-little"];
    assert_eq!(names(&|gateway, _, n| gateway["updated_at"] = json!(at(-n * 3_600_000))), worst_first);
    assert_eq!(names(&|_, route, n| route["dead"] = json!(n)), worst_first);
    assert_eq!(names(&|gateway, _, n| gateway["certificates"][0]["not_after"] = json!(at((10 - n) * 86_400_000))), worst_first);
    let down = |gateway: &mut Json, route: &mut Json, n: i64| {
        gateway["conditions"] = json!([{ "name": "route_down", "route": "live" }]);
        route["backlog"] = json!(n * 1_000);
    };
    assert_eq!(names(&down), worst_first);
    assert_eq!(names(&|_, _, _| {}), ["a-little", "b-much", "c-some"], "all well: by name");
}

#[test]
fn a_gateway_that_speaks_is_not_silent_whatever_its_clock_says() {
    let topics = Topics::new(TOPIC);
    let troubles = |fleet: &Fleet, now: Timestamp| {
        let line = fleet.overview(now).gateways.remove(0);
        line.troubles.into_iter().map(|finding| (finding.trouble, finding.reason)).collect::<Vec<_>>()
    };
    let (mut behind, _) = well("gw");
    behind["updated_at"] = json!(at(-3 * 3_600_000));
    behind["clock"] = json!("rtc");
    let mut fleet = Fleet::new(topics.clone());
    fleet.hear(&topics.gateway("gw"), behind.to_string().as_bytes(), true, NOON);
    assert_eq!(troubles(&fleet, NOON), [(Trouble::Silent, "nothing for 3 h, unless its clock is behind".to_owned())]);
    fleet.hear(&topics.gateway("gw"), behind.to_string().as_bytes(), false, NOON);
    assert_eq!(troubles(&fleet, NOON), [(Trouble::ClockWrong, "its clock is 3 h behind".to_owned())]);
    assert_eq!(troubles(&fleet, NOON.plus_ms(170_000)), [(Trouble::ClockWrong, "its clock is 3 h behind".to_owned())]);
    assert_eq!(troubles(&fleet, NOON.plus_ms(600_000)), [(Trouble::Silent, "nothing for 10 min".to_owned())]);
    let mut clockless = behind;
    clockless.as_object_mut().unwrap().remove("updated_at");
    clockless["clock"] = json!("unsynced");
    fleet.hear(&topics.gateway("gw"), clockless.to_string().as_bytes(), false, NOON);
    assert_eq!(troubles(&fleet, NOON)[0].0, Trouble::ClockUnsynced);
    assert_eq!(troubles(&fleet, NOON.plus_ms(300_000))[0].0, Trouble::Silent, "it is noticed without any clock of its own");
}

#[test]
fn where_most_gateways_seem_ahead_this_computer_is_doubted() {
    let overview = overview(&(0..5).map(|n| (format!("gw-{n}"), BTreeSet::from([Trouble::ClockWrong]))).collect::<Vec<_>>());
    assert_eq!(overview.doubt.as_deref(), Some("5 of 5 gateways seem ahead of time: this computer's clock is behind"));
    assert!(overview.gateways.iter().all(|line| line.troubles.is_empty()));
}

#[test]
fn a_backlog_that_grows_is_told() {
    let mut fleet = Fleet::new(Topics::new(TOPIC));
    let (gateway, mut route) = gateway("gw", &BTreeSet::from([Trouble::RouteDown]));
    hear(&mut fleet, "gw", &(gateway, route.clone()));
    assert!(!fleet.overview(NOON).gateways[0].troubles[0].reason.contains("more come"));
    route["backlog"] = json!(6_000);
    fleet.hear("bedrail/gw/status/route/live", route.to_string().as_bytes(), false, NOON);
    let reason = fleet.overview(NOON).gateways.remove(0).troubles.remove(0).reason;
    assert_eq!(reason, "route live: not connected, 6001 records wait and more come, the oldest for 4 h");
}

#[test]
fn a_route_that_is_refused_is_told_from_one_that_somebody_paused() {
    let mut fleet = Fleet::new(Topics::new(TOPIC));
    let (gateway, mut route) = gateway("gw", &BTreeSet::from([Trouble::Paused]));
    hear(&mut fleet, "gw", &(gateway, route.clone()));
    assert_eq!(
        fleet.overview(NOON).gateways[0].troubles[0].reason,
        "route live: paused, until somebody resumes it, 1 records wait"
    );
    route["state"] = json!("paused");
    route["error"] = json!("not_authorized");
    fleet.hear("bedrail/gw/status/route/live", route.to_string().as_bytes(), false, NOON);
    let reason = fleet.overview(NOON).gateways.remove(0).troubles.remove(0).reason;
    assert_eq!(reason, "route live: paused, because the destination refuses this gateway, 1 records wait");
}

#[test]
fn what_anybody_publishes_neither_grows_without_end_nor_reaches_the_terminal() {
    let mut fleet = Fleet::new(Topics::new(TOPIC));
    for n in 0..10_500 {
        let name = format!("gw-{n}");
        fleet.hear(&format!("bedrail/{name}/status"), well(&name).0.to_string().as_bytes(), true, NOON);
    }
    assert_eq!(fleet.overview(NOON).gateways.len(), 10_000);
    let mut fleet = Fleet::new(Topics::new(TOPIC));
    let hostile = [
        ("bedrail/gw\u{1b}[2J/status", well("gw").0.to_string()),
        ("bedrail/gw/status", "not json".to_owned()),
        ("bedrail/gw/status", r#"{"schema":"somebody.else/1","state":"online"}"#.to_owned()),
        ("bedrail/gw/status", r#"{"schema":"bedrail.gateway/1","state":"\u001b[2J"}"#.to_owned()),
        ("bedrail/gw/status", format!(r#"{{"schema":"bedrail.gateway/1","version":"{}"}}"#, "x".repeat(40_000))),
        ("bedrail/gw/status/spo2", "1".to_owned()),
        ("bedrail/gw/status/device/a", "{}".to_owned()),
    ];
    let count = hostile.len() as u64;
    hostile.into_iter().for_each(|(topic, payload)| fleet.hear(topic, payload.as_bytes(), true, NOON));
    let overview = fleet.overview(NOON);
    assert_eq!((overview.gateways.len(), overview.passed_over), (0, count));
    let mut odd = well("gw").0;
    odd["conditions"] =
        json!([{ "name": "device_silent", "device": "\u{1b}[2J" }, { "name": "of_a_later_version", "device": "a" }]);
    odd["field_of_a_later_version"] = json!({ "a": [1] });
    odd["certificates"] = json!([{ "route": "live", "not_after": "no time" }]);
    fleet.hear("bedrail/gw/status", odd.to_string().as_bytes(), true, NOON);
    assert_eq!(fleet.overview(NOON).gateways[0].troubles, []);
    fleet.hear("bedrail/gw/status", b"", true, NOON);
    assert!(fleet.overview(NOON).gateways.is_empty(), "an empty retained message clears a topic");
}

fn any_troubles() -> impl Strategy<Value = BTreeSet<Trouble>> {
    // Each of these shows whatever else is wrong; the others are in the test of a thousand.
    let together = [
        Trouble::Damaged,
        Trouble::DiskFails,
        Trouble::RouteDown,
        Trouble::AdapterUnusable,
        Trouble::ClockUnsynced,
        Trouble::DeadLetters,
        Trouble::BondLost,
        Trouble::DeviceMismatch,
        Trouble::DeviceSilent,
        Trouble::BatteryLow,
    ];
    proptest::collection::btree_set(proptest::sample::select(together.to_vec()), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// The order is that of the worst trouble, does not depend on who spoke first, and one trouble more never moves a gateway down.
    #[test]
    fn the_order_is_of_the_worst_and_one_more_trouble_never_moves_a_gateway_down(
        troubles in proptest::collection::vec(any_troubles(), 2..20), who in any::<prop::sample::Index>(), more in any_troubles(), turn in any::<prop::sample::Index>(),
    ) {
        let mut gateways: Vec<_> = troubles.into_iter().enumerate().map(|(n, troubles)| (format!("gw-{n:02}"), troubles)).collect();
        let order = |gateways: &[(String, BTreeSet<Trouble>)]| overview(gateways).gateways.into_iter().map(|line| line.gateway).collect::<Vec<_>>();
        let before = order(&gateways);
        let lines = overview(&gateways).gateways;
        for pair in lines.windows(2) {
            let worst = |n: usize| pair[n].troubles.first().map(|finding| finding.trouble);
            prop_assert!(worst(1).is_none() || worst(0).is_some_and(|first| Some(first) <= worst(1)), "{:#?}", pair);
        }
        let mut turned = gateways.clone();
        turned.rotate_left(turn.index(gateways.len()));
        prop_assert_eq!(&order(&turned), &before);
        let who = who.index(gateways.len());
        let name = gateways[who].0.clone();
        gateways[who].1.extend(more);
        let place = |order: &[String]| order.iter().position(|one| *one == name);
        prop_assert!(place(&order(&gateways)) <= place(&before));
    }
}

/// Publishes, retained, over bedrail's own link.
async fn publish(port: u16, messages: Vec<(String, Vec<u8>)>) {
    let mut link = connect(&LinkSettings::new("127.0.0.1", port, None, "gateways"));
    let (mut waiting, mut acked, count) = (messages.into_iter().enumerate(), 0, 2_000);
    while acked < count {
        while link.room() > 0 {
            let Some((n, (topic, payload))) = waiting.next() else { break };
            link.publish(n as u64, Message::new(topic, payload).retained()).unwrap();
        }
        match link.event().await {
            LinkEvent::Acked { .. } => acked += 1,
            LinkEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    link.close().await;
}

#[tokio::test]
async fn the_command_shows_a_thousand_gateways_of_a_real_broker_in_order() {
    let broker = tokio::task::spawn_blocking(|| Broker::start(&BrokerOptions::default())).await.unwrap();
    let (port, topics, expected) = (broker.port(), Topics::new(TOPIC), thousand());
    // `NOON` is not now, and the binary's clock is the machine's.
    let shift = jiff::Timestamp::now().as_millisecond() - NOON.0;
    let now = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()).plus_ms(shift).to_string();
    let mut messages = Vec::new();
    for (name, troubles) in &expected {
        let (mut gateway, mut route) = gateway(name, troubles);
        for field in [gateway.get_mut("updated_at"), route.get_mut("oldest_unsent_at")].into_iter().flatten() {
            *field = json!(now(field.as_str().unwrap()));
        }
        for certificate in gateway.get_mut("certificates").and_then(Json::as_array_mut).into_iter().flatten() {
            certificate["not_after"] = json!(now(certificate["not_after"].as_str().unwrap()));
        }
        messages.push((topics.gateway(name), gateway.to_string().into_bytes()));
        messages.push((topics.route(name, "live"), route.to_string().into_bytes()));
    }
    publish(port, messages).await;
    let url = format!("mqtt://127.0.0.1:{port}");
    let bedrail = |arguments: Vec<String>| {
        let binary = Path::new(env!("CARGO_BIN_EXE_bedrail"));
        run(binary, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[], Duration::from_secs(60))
    };
    let arguments = |more: &[&str]| [&["fleet", "--url", &url], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (as_json, as_text) = (arguments(&["--json"]), arguments(&[]));
    let (json, text) = tokio::task::spawn_blocking(move || (bedrail(as_json), bedrail(as_text))).await.unwrap();
    assert_eq!((json.status, text.status), (Some(0), Some(0)), "{}{}", json.stderr, text.stderr);
    let overview: Json = serde_json::from_str(&json.stdout).unwrap();
    let found: Vec<(String, String)> = overview["gateways"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            (line["gateway"].as_str().unwrap().to_owned(), line["troubles"][0]["trouble"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!((found.len(), &overview["passed_over"]), (1_000, &json!(0)));
    let pure = self::overview(&expected).gateways;
    let words = |trouble: Trouble| serde_json::to_value(trouble).unwrap().as_str().unwrap().to_owned();
    let wanted: Vec<(String, String)> = pure
        .into_iter()
        .map(|line| (line.gateway, line.troubles.first().map(|finding| words(finding.trouble)).unwrap_or_default()))
        .collect();
    assert_eq!(found, wanted);
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!((lines[0], lines.len()), ("1000 gateways, 50 in trouble", 1_002));
    assert!(lines[2].contains("gw-0007") && lines[2].contains("gone without a word"), "{}", lines[2]);
}

#[test]
fn options_are_held_to_the_rules_of_a_route_and_secrets_stay_unsaid() {
    let bedrail = |arguments: &[&str]| {
        let ran = run(Path::new(env!("CARGO_BIN_EXE_bedrail")), arguments, &[], Duration::from_secs(60));
        (ran.status, ran.stderr)
    };
    let (status, said) = bedrail(&["fleet", "--url", "mqtt://broker.example"]);
    assert!(status == Some(2) && said.contains("url: ") && said.contains("mqtts://"), "{said}");
    let (status, said) = bedrail(&["fleet", "--url", "mqtts://ward:hunter2@broker.example"]);
    assert!(status == Some(2) && said.contains("login") && !said.contains("hunter2"), "{said}");
    let (status, said) = bedrail(&["fleet", "--url", "mqtt://127.0.0.1", "--topic", "bedrail/status"]);
    assert!(status == Some(2) && said.contains("topic: it needs {gateway}"), "{said}");
    assert_eq!(bedrail(&["fleet"]).0, Some(2));
    let (status, said) = bedrail(&["fleet", "--url", &format!("mqtt://127.0.0.1:{}", free_port())]);
    assert!(status == Some(1) && said.contains("cannot reach the broker"), "{said}");
}
