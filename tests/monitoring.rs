//! What is published of a gateway: little, by schema, and nothing about a patient. And when a condition is raised: once, not
//! for a wavering gauge, and not again after a restart.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::{BTreeMap, BTreeSet};

use bedrail::monitor::{
    Absence, Board, CertificateFacts, CollectFacts, ConditionName, Conditions, DeviceFacts, Key, Raised, RouteFacts, Snapshot,
    Thresholds, Topics, Transition, offline,
};
use bedrail::reading::{BootMillis, ClockQuality, DeviceId, Timestamp};
use proptest::prelude::*;
use serde_json::Value as Json;

const NOON: i64 = 1_795_435_200_000;
const LOOK_S: u64 = 5;
const DAY_MS: i64 = 86_400_000;
const THRESHOLDS: Thresholds = Thresholds { battery_low: 20, route_down_after_ms: 300_000, held_after_ms: 3_600_000 };

/// A gateway at work, `s` seconds after it began to look.
fn ward(devices: u8, s: u64) -> Snapshot {
    let at = BootMillis(3_600_000 + s * 1_000);
    let now = Timestamp(NOON + s as i64 * 1_000);
    let device = |n: u8| DeviceFacts {
        name: format!("oximeter-{n:02}"),
        kind: "pulse-oximeter",
        id: DeviceId::new([0, 0x1C, 5, 0, 0, n]),
        state: Some("connected"),
        silent_after_ms: 86_400_000,
        listened_from: BootMillis(3_600_000),
        // Each sends once a second.
        heard: Some(BootMillis(at.0 - u64::from(n) * 50)),
        bond: Some("bonded"),
        mismatch: Some(false),
        consent_refused: None,
        heard_before: None,
        last_reading_at: Some(now.plus_ms(-i64::from(n) * 50)),
        battery_percent: Some(90 - n % 3 - (s / 1_800).min(30) as u8),
        clock_offset_s: Some(-3),
        rejected: BTreeMap::from([("demo".to_owned(), s / 60 + 1)]),
    };
    let route = RouteFacts {
        name: "live".to_owned(),
        kind: "mqtt",
        state: "up",
        error: None,
        live: s % 3,
        backlog: 0,
        oldest_unsent_at: (!s.is_multiple_of(3)).then(|| now.plus_ms(-400)),
        sent: s * 2 * u64::from(devices),
        held: BTreeMap::from([("no_assignment".to_owned(), 12)]),
        dead: 1,
    };
    let certificate = |of, days| CertificateFacts { route: "live".to_owned(), of, not_after: Timestamp(NOON + days * DAY_MS) };
    Snapshot {
        at,
        now: Some(now),
        uptime_s: s,
        collect: Some(CollectFacts {
            clock: ClockQuality::Ntp,
            adapter_usable: true,
            match_rules: Some(20),
            store_damaged: false,
            disk: "ok",
            degraded: false,
            free_octets: 24_123_456_789,
            log_octets: 1_234_567_890,
            log_limit_octets: 2_147_483_648,
            wal_octets: 4_194_304,
            head: 123_456_789 + s * 32,
        }),
        rss_octets: 31_457_280,
        cpu_ms: 1_000 + s * 37,
        panics: 0,
        temperature_centi_c: Some(5_154),
        certificates: vec![certificate("own", 300), certificate("authority", 3_000)],
        devices: (0..devices).map(device).collect(),
        routes: vec![route],
    }
}

#[test]
fn a_quiet_ward_of_16_devices_says_less_than_2_kilobytes_a_minute() {
    let (mut board, mut conditions) = (board(), Conditions::new(THRESHOLDS, []));
    let (mut octets, mut messages, mut stamp) = (0, BTreeMap::<String, u32>::new(), 0);
    for s in (0..7_200).step_by(LOOK_S as usize) {
        let snapshot = ward(16, s);
        conditions.look(&snapshot);
        board.look(&snapshot, conditions.raised());
        // The first hour has the birth in it, and the raising of what is held.
        let counts = s >= 3_600;
        for notice in board.notices().values().filter(|notice| notice.stamp > stamp && counts) {
            // PUBLISH with its header, and the PUBACK.
            octets += notice.topic.len() + notice.payload.len() + 9 + 4;
            *messages.entry(notice.topic.to_string()).or_default() += 1;
        }
        stamp = board.notices().values().map(|notice| notice.stamp).max().unwrap();
    }
    println!("{} octets a minute, {} messages an hour", octets / 60, messages.values().sum::<u32>());
    assert!(octets / 60 <= 2_000, "{} octets a minute", octets / 60);
    assert_eq!(messages["bedrail/gw-1/status"], 60, "a heartbeat a minute");
    assert_eq!(messages["bedrail/gw-1/status/device/oximeter-07"], 4, "every 15 minutes: {messages:#?}");
    assert_eq!(messages["bedrail/gw-1/status/route/live"], 4);
    assert_eq!(board.notices().len(), 18, "one a topic, however long it runs");
}

#[test]
fn whatever_is_published_is_as_the_schemas_say_and_the_schemas_as_the_page_says() {
    let [gateway, device, route] = ["gateway", "device", "route"].map(validator);
    let mut worst = ward(40, 60);
    for device in &mut worst.devices {
        (device.heard, device.battery_percent, device.last_reading_at) = (None, Some(3), None);
        device.listened_from = BootMillis(0);
        device.silent_after_ms = 60_000;
    }
    (worst.routes[0].state, worst.routes[0].error) = ("down", Some("tls_expired".to_owned()));
    let mut waiting = ward(2, 5);
    waiting.routes[0].state = "waiting";
    let without_clock = Snapshot { now: None, ..ward(2, 5) };
    let alone = Snapshot { collect: None, certificates: Vec::new(), temperature_centi_c: None, ..ward(2, 5) };
    for snapshot in [ward(2, 5), worst, waiting, without_clock, alone] {
        let (mut board, mut conditions) = (board(), Conditions::new(THRESHOLDS, []));
        for (seconds, at) in [(0, snapshot.at.0), (3_700, snapshot.at.0 + 3_700_000)] {
            let later = Snapshot { at: BootMillis(at), uptime_s: seconds, ..snapshot.clone() };
            conditions.look(&later);
            board.look(&later, conditions.raised());
        }
        for notice in board.notices().values() {
            let payload: Json = serde_json::from_slice(&notice.payload).unwrap();
            let schema = match Topics::new(TOPIC).parse(&notice.topic).unwrap().1 {
                bedrail::monitor::Subject::Gateway => &gateway,
                bedrail::monitor::Subject::Device(_) => &device,
                bedrail::monitor::Subject::Route(_) => &route,
            };
            let faults: Vec<_> = schema.iter_errors(&payload).map(|e| format!("{}: {e}", e.instance_path)).collect();
            assert!(faults.is_empty(), "{payload:#}\n{faults:#?}");
        }
    }
    for why in [Absence::Lost, Absence::Stopped] {
        let payload: Json = serde_json::from_slice(&offline("gw-1", why)).unwrap();
        assert!(gateway.is_valid(&payload), "{payload}");
        let mut claims = payload.clone();
        claims["disk"] = serde_json::json!({ "state": "ok" });
        assert!(!gateway.is_valid(&claims), "who is gone claims nothing");
    }
    let page = include_str!("../docs/monitoring.md");
    for name in ["gateway", "device", "route"] {
        let schema: Json = serde_json::from_str(&schema_text(name)).unwrap();
        for field in schema["properties"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{field}`")), "docs/monitoring.md does not explain {field} of bedrail.{name}/1");
        }
    }
    for condition in ConditionName::ALL {
        assert!(page.contains(&format!("`{}`", condition.name())), "docs/monitoring.md does not explain {}", condition.name());
    }
}

#[test]
fn the_schemas_know_no_patient() {
    for (name, good) in [("gateway", 0), ("device", 1), ("route", 2)] {
        let mut board = board();
        board.look(&ward(1, 5), std::iter::empty());
        let payloads: Vec<Json> =
            board.notices().values().map(|notice| serde_json::from_slice(&notice.payload).unwrap()).collect();
        let mut payload = payloads[good].clone();
        assert!(validator(name).is_valid(&payload), "{payload:#}");
        for key in ["subject", "patient", "bed", "value", "name"] {
            payload[key] = Json::from("p-017");
            assert!(!validator(name).is_valid(&payload), "{name} allows {key}");
            payload.as_object_mut().unwrap().remove(key);
        }
    }
}

#[test]
fn what_changes_is_told_at_the_next_look_and_what_wavers_is_not() {
    let mut board = board();
    let mut told = |change: &dyn Fn(&mut Snapshot), s: u64| {
        let before = board.notices().values().map(|notice| notice.stamp).max().unwrap_or(0);
        let mut snapshot = ward(1, s);
        snapshot.devices[0].battery_percent = Some(90);
        change(&mut snapshot);
        board.look(&snapshot, std::iter::empty());
        let new = board.notices().values().filter(|notice| notice.stamp > before);
        new.map(|notice| notice.topic.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(&|_| {}, 0), ["status", "oximeter-00", "live"]);
    assert_eq!(told(&|_| {}, 5), [""; 0]);
    assert_eq!(told(&|s| s.devices[0].battery_percent = Some(87), 10), [""; 0], "a gauge wavers");
    assert_eq!(told(&|s| s.devices[0].battery_percent = Some(85), 15), ["oximeter-00"]);
    assert_eq!(told(&|s| s.devices[0].state = Some("lost"), 20), ["oximeter-00"]);
    assert_eq!(told(&|s| (s.devices[0].state, s.routes[0].backlog) = (Some("lost"), 7), 25), ["live"]);
    assert_eq!(told(&|s| (s.devices[0].state, s.routes[0].backlog) = (Some("lost"), 3), 30), [""; 0]);
    assert_eq!(told(&|s| (s.devices[0].state, s.routes[0].backlog) = (Some("lost"), 1), 90), ["status", "live"], "how it drains");
    assert_eq!(told(&|s| s.collect.as_mut().unwrap().disk = "full", 95), ["status", "oximeter-00", "live"]);
}

#[test]
fn the_last_reading_of_a_cuff_is_told_at_once_and_that_of_a_stream_when_due() {
    let mut board = board();
    let mut look = |s: u64, read_at: u64| {
        let before = board.notices().values().map(|notice| notice.stamp).max().unwrap_or(0);
        let mut snapshot = ward(1, s);
        snapshot.devices[0].battery_percent = Some(90);
        snapshot.devices[0].last_reading_at = Some(Timestamp(NOON + read_at as i64 * 1_000));
        board.look(&snapshot, std::iter::empty());
        board.notices()["bedrail/gw-1/status/device/oximeter-00"].stamp > before
    };
    assert!(look(0, 0) && !look(60, 58) && look(905, 904) && look(1_810, 904));
    assert!(look(1_900, 1_899), "the first for a quarter of an hour");
    assert!(!look(1_905, 1_904));
}

#[test]
fn cpu_and_rate_are_of_the_time_since_the_last_report() {
    let mut board = board();
    for s in [0, 60] {
        board.look(&ward(2, s), std::iter::empty());
    }
    let gateway: Json = serde_json::from_slice(&board.notices()["bedrail/gw-1/status"].payload).unwrap();
    assert_eq!(gateway["cpu_percent"], 3.7, "37 ms a second");
    assert_eq!((&gateway["temperature_c"], &gateway["uptime_s"]), (&Json::from(51.5), &Json::from(60)));
    board.look(&ward(2, 900), std::iter::empty());
    let route: Json = serde_json::from_slice(&board.notices()["bedrail/gw-1/status/route/live"].payload).unwrap();
    assert_eq!(route["sent_per_min"], 240, "4 a second");
}

/// One thing wrong with a ward that is well otherwise, and what it is called.
type Fault = (ConditionName, &'static str, fn(&mut Snapshot));

const FAULTS: [Fault; 17] = [
    (ConditionName::StoreDamaged, "", |s| s.collect.as_mut().unwrap().store_damaged = true),
    (ConditionName::DiskReadOnly, "", |s| s.collect.as_mut().unwrap().disk = "read_only"),
    (ConditionName::DiskNearFull, "", |s| s.collect.as_mut().unwrap().disk = "near_full"),
    (ConditionName::CollectSilent, "", |s| s.collect = None),
    (ConditionName::AdapterUnusable, "", |s| s.collect.as_mut().unwrap().adapter_usable = false),
    (ConditionName::MatchRulesHigh, "", |s| s.collect.as_mut().unwrap().match_rules = Some(256)),
    (ConditionName::ClockUnsynced, "", |s| {
        s.collect.as_mut().unwrap().clock = ClockQuality::Unsynced;
        s.now = None;
    }),
    (ConditionName::RouteDown, "live", |s| s.routes[0].state = "down"),
    (ConditionName::RouteDown, "live", |s| s.routes[0].state = "paused"),
    (ConditionName::RouteDown, "live", |s| s.routes[0].state = "waiting"),
    (ConditionName::CertificateExpiring, "live", |s| s.certificates[0].not_after = s.now.unwrap().plus_ms(29 * DAY_MS)),
    (ConditionName::RecordsHeld, "live", |s| s.routes[0].held = BTreeMap::from([("edge".to_owned(), 1)])),
    (ConditionName::DeviceSilent, "oximeter-00", |s| {
        s.devices[0].heard = Some(BootMillis(s.at.0.saturating_sub(86_400_000)));
        s.now = None;
    }),
    (ConditionName::BondLost, "oximeter-00", |s| {
        (s.devices[0].state, s.devices[0].bond) = (Some("bond_lost"), Some("lost"));
    }),
    (ConditionName::DeviceMismatch, "oximeter-00", |s| s.devices[0].mismatch = Some(true)),
    (ConditionName::ConsentRefused, "oximeter-00", |s| s.devices[0].consent_refused = Some(true)),
    (ConditionName::BatteryLow, "oximeter-00", |s| s.devices[0].battery_percent = Some(20)),
];

fn well(s: u64) -> Snapshot {
    let mut snapshot = ward(2, s + 100_000);
    snapshot.routes[0].held.clear();
    for device in &mut snapshot.devices {
        (device.battery_percent, device.consent_refused) = (Some(60), Some(false));
    }
    snapshot
}

#[test]
fn each_condition_is_raised_for_its_own_fault_alone_and_ends_with_it() {
    for (name, subject, fault) in FAULTS {
        let mut conditions = Conditions::new(THRESHOLDS, []);
        let mut told = Vec::new();
        for s in (0..10_000).step_by(LOOK_S as usize) {
            let mut snapshot = well(s);
            if (1_000..6_000).contains(&s) {
                fault(&mut snapshot);
            }
            told.extend(conditions.look(&snapshot).into_iter().map(|transition| (s, transition)));
        }
        let [(began, raised), (ended, cleared)] = &told[..] else { panic!("{name:?}: {told:#?}") };
        let key = Key { name, subject: subject.to_owned() };
        assert_eq!((&raised.key, &cleared.key), (&key, &key));
        assert!(raised.to.is_some() && cleared.to.is_none(), "{told:?}");
        assert!((1_000..=4_600).contains(began) && (6_000..=6_600).contains(ended), "{name:?}: {began} to {ended}");
        assert!(!raised.detail().is_empty() && raised.detail().starts_with("route live: ") == (subject == "live"));
    }
}

#[test]
fn a_certificate_is_told_of_at_30_7_and_1_days_and_when_it_has_ended() {
    let mut conditions = Conditions::new(THRESHOLDS, []);
    let mut levels = Vec::new();
    for day in 0..45 {
        let mut snapshot = well(day * 86_400);
        snapshot.certificates[0].not_after = well(0).now.unwrap().plus_ms(40 * DAY_MS);
        for transition in conditions.look(&snapshot).into_iter().filter(|t| t.key.name == ConditionName::CertificateExpiring) {
            levels.push((40 - day as i64, transition.to.map(|raised| raised.level)));
        }
    }
    assert_eq!(levels, [(30, Some(1)), (7, Some(2)), (1, Some(3)), (0, Some(4))]);
}

#[test]
fn a_gauge_that_wavers_about_its_threshold_raises_one_condition() {
    let mut conditions = Conditions::new(THRESHOLDS, []);
    let mut told = 0;
    for n in 0..1_000_u64 {
        let mut snapshot = well(n * LOOK_S);
        snapshot.devices[0].battery_percent = Some(18 + (n % 7) as u8);
        snapshot.collect.as_mut().unwrap().disk = if n % 3 == 0 {
            "near_full"
        } else if n % 3 == 1 {
            "full"
        } else {
            "ok"
        };
        snapshot.routes[0].state = if n % 20 == 0 { "down" } else { "up" };
        told += conditions.look(&snapshot).len();
    }
    assert_eq!(told, 1, "{:#?}", conditions.raised().collect::<Vec<_>>());
}

#[test]
fn under_a_clock_that_is_unknown_a_condition_is_raised_and_dated_later() {
    let mut conditions = Conditions::new(THRESHOLDS, []);
    let mut snapshot = Snapshot { now: None, ..well(0) };
    snapshot.devices[0].battery_percent = Some(1);
    assert_eq!(conditions.look(&snapshot).len(), 1);
    assert_eq!(conditions.raised().next().unwrap().1.since, None);
    let mut later = well(600);
    later.devices[0].battery_percent = Some(1);
    assert_eq!(conditions.look(&later), []);
    assert_eq!(conditions.raised().next().unwrap().1.since, well(0).now, "when it was, not when it was known");
}

#[test]
fn a_lost_bond_stays_raised_over_a_restart_until_it_works_or_is_forgotten() {
    let key = Key { name: ConditionName::BondLost, subject: "oximeter-00".to_owned() };
    let told = |state: Option<&'static str>, bond: Option<&'static str>| {
        let raised = (key.clone(), Raised { level: 1, since: well(0).now });
        let mut conditions = Conditions::new(THRESHOLDS, [raised]);
        let mut snapshot = well(60);
        (snapshot.devices[0].state, snapshot.devices[0].bond) = (state, bond);
        let transitions = conditions.look(&snapshot);
        assert!(transitions.iter().all(|transition| transition.key == key && transition.to.is_none()), "{transitions:?}");
        transitions.len()
    };
    for (state, bond) in [
        (None, None),
        (Some("waiting"), Some("none")),
        (Some("waiting"), Some("bonded")),
        (Some("lost"), Some("bonded")),
        (Some("bond_lost"), Some("lost")),
    ] {
        assert_eq!(told(state, bond), 0, "{state:?} {bond:?} is no sign that the device has its bond");
    }
    for (state, bond) in
        [("connected", "bonded"), ("connected", "none"), ("lost", "none"), ("lost", "bonding"), ("lost", "refused")]
    {
        assert_eq!(told(Some(state), Some(bond)), 1, "{state} {bond}");
    }
}

#[test]
fn another_device_stays_told_of_while_it_is_away_and_over_a_restart_until_the_one_meant_tells_who_it_is() {
    let key = Key { name: ConditionName::DeviceMismatch, subject: "oximeter-00".to_owned() };
    let mut conditions = Conditions::new(THRESHOLDS, [(key.clone(), Raised { level: 1, since: well(0).now })]);
    let mut look = |s: u64, mismatch: Option<bool>| {
        let mut snapshot = well(s);
        snapshot.devices[0].mismatch = mismatch;
        conditions.look(&snapshot)
    };
    assert_eq!(look(60, None), [], "nothing is known of it in this run");
    assert_eq!(look(120, Some(true)), [], "still the other one");
    assert_eq!(look(180, Some(false)), [Transition { key, to: None }]);
}

#[test]
fn a_device_silent_over_restarts_is_silent() {
    let silent = |before: Option<i64>| {
        let mut snapshot = well(60);
        let device = &mut snapshot.devices[0];
        (device.heard, device.last_reading_at, device.listened_from) = (None, None, snapshot.at);
        device.heard_before = before.map(|hours| snapshot.now.unwrap().plus_ms(-hours * 3_600_000));
        Conditions::new(THRESHOLDS, []).look(&snapshot).len()
    };
    assert_eq!((silent(Some(25)), silent(Some(23)), silent(None)), (1, 0, 0));
}

#[test]
fn what_is_of_a_device_that_left_the_config_ends() {
    let key = Key { name: ConditionName::DeviceSilent, subject: "gone".to_owned() };
    let mut conditions = Conditions::new(THRESHOLDS, [(key.clone(), Raised { level: 1, since: None })]);
    assert_eq!(conditions.look(&well(0)), [Transition { key, to: None }]);
    assert_eq!(conditions.look(&well(5)), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    /// Any weather: what is told is a sequence without repeats, no faster than the delays, the same whether or not the
    /// process was restarted in between, and in the end what is so is what is said.
    #[test]
    fn conditions_begin_and_end_in_turn_and_a_restart_doubles_nothing(
        weather in proptest::collection::vec((0usize..FAULTS.len(), 1u64..400, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut conditions = Conditions::new(THRESHOLDS, []);
        let mut raised: BTreeMap<Key, Raised> = BTreeMap::new();
        let mut cleared_at: BTreeMap<Key, u64> = BTreeMap::new();
        let mut looks = 0;
        for (fault, length, bad, restart) in weather {
            if restart {
                conditions = Conditions::new(THRESHOLDS, raised.clone());
            }
            for _ in 0..length {
                looks += 1;
                let mut snapshot = well(looks * LOOK_S);
                if bad {
                    FAULTS[fault].2(&mut snapshot);
                }
                for Transition { key, to } in conditions.look(&snapshot) {
                    match to {
                        Some(new) => {
                            let before = raised.insert(key.clone(), new);
                            prop_assert_ne!(before.map(|raised| raised.level), Some(new.level), "raised twice: {:?}", key);
                        }
                        None => {
                            prop_assert!(raised.remove(&key).is_some(), "cleared and was not raised: {:?}", key);
                            cleared_at.insert(key, looks);
                        }
                    }
                }
                let said: BTreeSet<Key> = conditions.raised().map(|(key, _)| key.clone()).collect();
                prop_assert_eq!(said, raised.keys().cloned().collect::<BTreeSet<_>>());
            }
        }
        for s in 0..800 {
            for Transition { key, to } in conditions.look(&well((looks + s) * LOOK_S)) {
                prop_assert!(to.is_none() && raised.remove(&key).is_some());
            }
        }
        prop_assert!(raised.is_empty(), "{:?}", raised);
    }
}

const TOPIC: &str = "bedrail/{gateway}/status";

fn board() -> Board {
    Board::new("gw-1", Topics::new(TOPIC))
}

fn schema_text(name: &str) -> String {
    let path = format!("{}/docs/schema/{name}-v1.schema.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn validator(name: &str) -> jsonschema::Validator {
    let schema: Json = serde_json::from_str(&schema_text(name)).unwrap();
    jsonschema::draft202012::meta::validate(&schema).expect("a valid schema");
    jsonschema::draft202012::new(&schema).expect("a valid schema")
}
