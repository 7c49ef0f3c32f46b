//! Devices that are read by what they advertise: the real daemon on a fake bluetoothd and a real bus, and the radio alone.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedrail::gatt::{Source, sig_uuid};
use bedrail::radio::{EVENT_QUEUE, RadioDevice, RadioEvent};
use serde_json::Value as Json;

use support::beacons::{BTHOME, KEY, KEY_DIGITS, plain, sealed};
use support::bluez::{Data, FakeBluez};
use support::devices::{Kind, VirtualDevice};
use support::ledger::Arrived;
use support::process::wait_until;
use support::radio::{self, Radio, hasty, on_a_bus, settings, wait_for, wanted};
use support::rig::{Rig, Shape};

const LIMIT: Duration = Duration::from_secs(30);
const THERMOMETER: &str = "C0:FF:EE:00:00:41";
const STRANGER: &str = "C0:FF:EE:00:00:42";
const ARM_BAND: &str = "C0:FF:EE:00:00:43";
const SCALE: &str = "C0:FF:EE:00:00:44";

/// A device of the room that nothing but its advertisements is known of.
fn place(bluez: &FakeBluez, address: &str) {
    bluez.add_device("hci0", VirtualDevice::new(Kind::Thermometer, address, "beacon").spec());
    bluez.advertise(address, -60);
}

fn bthome(bluez: &FakeBluez, address: &str, octets: &[u8]) {
    say(bluez, address, || Data::Service(sig_uuid(BTHOME), octets.to_vec()));
}

/// It goes on until somebody listens: a scan begins anew now and then.
fn say(bluez: &FakeBluez, address: &str, data: impl Fn() -> Data) {
    assert!(wait_until(LIMIT, || bluez.broadcast(address, data())), "nobody listens");
}

const SECTIONS: &str = r#"
[[device]]
name = "ear"
kind = "thermometer"
address = "C0:FF:EE:00:00:41"
advert = "bthome_v2"
advert_key = { credential = "ear-key" }

[[device]]
name = "arm-band"
kind = "heart-rate"
address = "C0:FF:EE:00:00:43"
advert = "xoss_adv"

[[device]]
name = "scale"
kind = "weight-scale"
address = "C0:FF:EE:00:00:44"
advert = "mi_body_scale_adv"
"#;

fn rig() -> Rig {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[], "carry = [\"readings\"]", SECTIONS);
    rig.site.credential("ear-key", KEY_DIGITS);
    [THERMOMETER, STRANGER, ARM_BAND, SCALE].into_iter().for_each(|address| place(&rig.bluez, address));
    rig.start(Shape::TwoProcesses);
    listening(&rig);
    rig
}

fn listening(rig: &Rig) {
    assert!(wait_until(LIMIT, || rig.bluez.is_discovering("hci0")), "{}", rig.logs());
}

/// What arrived of each metric, oldest first.
fn arrived(rig: &Rig) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for message in rig.records() {
        let record = Arrived::parse(&message.raw).unwrap_or_else(|| panic!("{}", message.raw));
        all.entry(record.metric.clone().unwrap_or_default()).or_default().push(record.value().unwrap_or_default());
    }
    all
}

fn wait_for_values(rig: &Rig, metric: &str, count: usize) -> Vec<String> {
    let of = || arrived(rig).remove(metric).unwrap_or_default();
    assert!(wait_until(LIMIT, || of().len() >= count), "{metric}: {:?}\n{}", arrived(rig), rig.logs());
    of()
}

fn device(rig: &Rig, name: &str) -> Json {
    let status = rig.ask_json(&["status"]);
    let devices = status["collect"]["devices"].as_array().unwrap_or_else(|| panic!("{status:#}"));
    devices.iter().find(|device| device["name"] == name).unwrap_or_else(|| panic!("{status:#}")).clone()
}

#[test]
fn what_a_configured_device_advertises_arrives_once_each_and_a_strangers_never() {
    let mut rig = rig();
    let mut expected = Vec::new();
    for n in 0..20u32 {
        let centi = 3_650 + i16::try_from(n).unwrap();
        expected.push(format!("{}.{:02}", centi / 100, centi % 100));
        // As devices do, several times over; and others around it, one of them with the same key.
        for _ in 0..4 {
            bthome(&rig.bluez, THERMOMETER, &sealed(THERMOMETER, KEY, 1_000 + n, centi));
            bthome(&rig.bluez, STRANGER, &sealed(STRANGER, KEY, 1_000 + n, centi));
        }
    }
    for rate in [72, 73, 74] {
        (0..3).for_each(|_| say(&rig.bluez, ARM_BAND, || Data::Company(0xFF04, vec![0, 80, 0, rate])));
    }
    // 72.450 kg with 503 ohm, still standing there and then gone; again at another time.
    for minute in [41, 52] {
        for state in [0x06, 0x26, 0x26, 0xA6] {
            let data = vec![0x02, state, 0xE6, 0x07, 2, 14, 16, minute, 58, 0xF7, 1, 0x9A, 0x38];
            say(&rig.bluez, SCALE, || Data::Service(sig_uuid(0x181B), data.clone()));
        }
    }
    assert_eq!(wait_for_values(&rig, "body_temperature", 20), expected);
    assert_eq!(wait_for_values(&rig, "heart_rate", 3), ["72", "73", "74"]);
    assert_eq!(wait_for_values(&rig, "body_weight", 2), ["72.450", "72.450"]);
    // The state is renewed once a second.
    assert!(wait_until(LIMIT, || device(&rig, "ear")["duplicates"] == 60), "{:#}", device(&rig, "ear"));
    let scale = device(&rig, "scale");
    assert_eq!((&scale["state"], &scale["security"]), (&"heard".into(), &"none".into()), "{scale:#}");
    let ear = device(&rig, "ear");
    assert_eq!((&ear["security"], &ear["readings"]), (&"authenticated".into(), &20.into()), "{ear:#}");
    let strangers = rig.records().into_iter().filter(|message| message.raw.contains(STRANGER)).count();
    assert_eq!((arrived(&rig)["body_temperature"].len(), strangers), (20, 0));
    let connects = [THERMOMETER, STRANGER, ARM_BAND, SCALE].map(|address| rig.bluez.count(address, "Connect"));
    assert_eq!(connects, [0; 4], "nobody is connected to");

    let said = rig.refused(&["check"], 0);
    assert_eq!(said, "");
    rig.stop();
}

#[test]
fn a_scale_that_a_profile_reads_is_found_by_scan_checked_and_heard_once_and_is_never_paired() {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[], "carry = [\"readings\"]", "");
    place(&rig.bluez, SCALE);
    rig.start(Shape::TwoProcesses);
    listening(&rig);
    // Settled at 72.450 kg with 503 ohm; the device repeats it.
    let weighed = |rig: &Rig, minute: u8| {
        for state in [0x06, 0x26, 0x26, 0x26, 0xA6] {
            let data = vec![0x02, state, 0xE6, 0x07, 2, 14, 16, minute, 58, 0xF7, 1, 0x9A, 0x38];
            say(&rig.bluez, SCALE, || Data::Service(sig_uuid(0x181B), data.clone()));
        }
    };
    weighed(&rig, 40);
    let mut section = String::new();
    let offered = wait_until(LIMIT, || {
        let nearby = rig.ask_json(&["scan", "--seconds", "1"]);
        let scale = nearby.as_array().and_then(|all| all.iter().find(|device| device["address"] == SCALE)).cloned();
        section = scale.and_then(|scale| scale["section"].as_str().map(str::to_owned)).unwrap_or_default();
        section.contains("profile = \"xiaomi-mibcs\"")
    });
    assert!(offered, "{section}\n{}", rig.logs());
    rig.stop();

    rig.configure(&rig.route("live", "carry = [\"readings\"]"), &section);
    rig.ask(&["check"]);
    rig.start(Shape::TwoProcesses);
    listening(&rig);
    weighed(&rig, 41);
    weighed(&rig, 52);
    assert_eq!(wait_for_values(&rig, "body_weight", 2), ["72.450", "72.450"]);
    let name = section.split('"').nth(1).unwrap();
    assert!(wait_until(LIMIT, || device(&rig, name)["duplicates"] == 4), "{:#}", device(&rig, name));
    assert_eq!(arrived(&rig)["body_impedance"], ["503", "503"]);

    let refused = rig.refused(&["pair", name], 1);
    assert!(refused.contains("read by what it advertises and never connected to") && !refused.contains("bond ="), "{refused}");
    assert_eq!(["Connect", "Pair"].map(|call| rig.bluez.count(SCALE, call)), [0, 0]);
    rig.stop();
}

#[test]
fn what_is_played_again_forged_or_in_the_clear_is_refused_and_counted_over_a_restart_too() {
    let mut rig = rig();
    let first: Vec<Vec<u8>> = (0..5u32).map(|n| sealed(THERMOMETER, KEY, 50 + n, 3_700 + i16::try_from(n).unwrap())).collect();
    first.iter().for_each(|octets| bthome(&rig.bluez, THERMOMETER, octets));
    wait_for_values(&rig, "body_temperature", 5);
    let attack = |rig: &Rig| {
        first[..4].iter().for_each(|octets| bthome(&rig.bluez, THERMOMETER, octets));
        let mut forged = sealed(THERMOMETER, KEY, 1_000, 4_100);
        forged[2] ^= 0x40;
        bthome(&rig.bluez, THERMOMETER, &forged);
        bthome(&rig.bluez, THERMOMETER, &sealed(THERMOMETER, [9; 16], 1_001, 4_100));
        bthome(&rig.bluez, THERMOMETER, &plain(4_100));
        let mut rejected = Json::Null;
        let counted = wait_until(LIMIT, || {
            rejected = device(rig, "ear")["rejected"].clone();
            rejected == serde_json::json!({ "replayed": 4, "decrypt_failed": 2, "not_encrypted": 1 })
        });
        assert!(counted, "{rejected:#}\n{}", rig.logs());
    };
    attack(&rig);
    rig.restart();
    listening(&rig);
    attack(&rig);
    bthome(&rig.bluez, THERMOMETER, &sealed(THERMOMETER, KEY, 55, 3_705));
    let values = wait_for_values(&rig, "body_temperature", 6);
    assert_eq!(values, ["37.00", "37.01", "37.02", "37.03", "37.04", "37.05"]);
    rig.stop();

    // New batteries: it counts from the beginning, until a person says so everything is refused.
    let anew = SECTIONS.replace("\"ear-key\" }\n", "\"ear-key\" }\nadvert_counter = 1\n");
    rig.configure(&rig.route("live", "carry = [\"readings\"]"), &anew);
    rig.start(Shape::TwoProcesses);
    listening(&rig);
    bthome(&rig.bluez, THERMOMETER, &sealed(THERMOMETER, KEY, 50, 3_800));
    assert_eq!(wait_for_values(&rig, "body_temperature", 7)[6], "38.00");
    rig.stop();
}

#[test]
fn a_thousand_phones_cost_no_question_and_no_reading() {
    let mut rig = rig();
    let questions = |rig: &Rig| rig.bluez.calls().iter().filter(|call| call.member == "GetAll").count();
    let phones: Vec<String> = (0..1_000).map(|n| format!("5A:00:00:00:{:02X}:{:02X}", n / 256, n % 256)).collect();
    phones.iter().for_each(|address| place(&rig.bluez, address));
    let (before, begun) = (questions(&rig), Instant::now());
    for n in 0..10u8 {
        for address in &phones {
            say(&rig.bluez, address, || Data::Company(0x004C, vec![0x10, 5, n]));
        }
        bthome(&rig.bluez, THERMOMETER, &sealed(THERMOMETER, KEY, n.into(), 3_600 + i16::from(n)));
    }
    assert_eq!(wait_for_values(&rig, "body_temperature", 10).len(), 10);
    println!("10,000 advertisements of 1,000 phones, and 10 of ours at the broker after {:?}", begun.elapsed());
    assert_eq!(questions(&rig), before);
    let status = rig.ask_json(&["status"]);
    assert!(status["collect"]["radio"].get("missed_advertisements").is_none(), "{status:#}");
    rig.stop();
}

#[test]
fn a_key_that_is_none_is_named_with_its_line_and_never_repeated() {
    let rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[], "", SECTIONS);
    rig.site.credential("ear-key", b"231d39c1d7cc1ab1aee224cd096db93\n");
    let said = rig.refused(&["check"], 2);
    assert!(said.contains("device \"ear\": advert_key") && said.contains("32 hexadecimal digits"), "{said}");
    assert!(!said.contains("231d39"), "{said}");
    rig.site.credential("ear-key", KEY_DIGITS);
    rig.ask(&["check"]);
}

fn beacon(expect_every: Option<Duration>) -> RadioDevice {
    let device = VirtualDevice::new(Kind::HeartRateStrap, ARM_BAND, "arm-band");
    RadioDevice { adverts: vec![Source::Manufacturer(0xFF04)], expect_every, ..wanted(&device) }
}

fn beat(bluez: &FakeBluez, rate: u8) {
    say(bluez, ARM_BAND, || Data::Company(0xFF04, vec![0, 80, 0, rate]));
}

#[test]
fn a_device_that_stops_advertising_is_scanned_for_and_named_until_it_is_heard() {
    on_a_bus("a_device_that_stops_advertising_is_scanned_for_and_named_until_it_is_heard", async |bus| {
        let bluez = radio::room(&bus, &[]);
        place(&bluez, ARM_BAND);
        let mut radio = Radio::with(settings(vec![beacon(Some(Duration::from_millis(300)))], hasty()), EVENT_QUEUE);
        wait_for("a scan", || bluez.is_discovering("hci0")).await;
        assert!(bluez.filters().iter().all(|filter| filter.contains("DuplicateData") && filter.contains("true")));
        beat(&bluez, 70);
        radio.until("an advertisement", |event| matches!(event, RadioEvent::Advertised(_))).await;
        let silent = |event: &RadioEvent| matches!(event, RadioEvent::Health(health) if health.silent == [ARM_BAND] && health.rungs.contains_key("rescan"));
        radio.until("a scan anew", silent).await;
        assert!(!radio.health.rungs.contains_key("reconnect"), "{:?}", radio.health);
        wait_for("a scan", || bluez.is_discovering("hci0")).await;
        beat(&bluez, 71);
        radio
            .until("word that it is heard", |event| matches!(event, RadioEvent::Health(health) if health.silent.is_empty()))
            .await;
        assert_eq!(bluez.count(ARM_BAND, "Connect"), 0);
        radio.end().await;
    });
}

#[test]
fn a_flood_of_advertisements_is_held_to_the_rate_and_counted() {
    on_a_bus("a_flood_of_advertisements_is_held_to_the_rate_and_counted", async |bus| {
        const FLOOD: u32 = 12_000;
        let bluez = radio::room(&bus, &[]);
        place(&bluez, ARM_BAND);
        let mut radio = Radio::start(vec![beacon(None)]);
        wait_for("a scan", || bluez.is_discovering("hci0")).await;
        (0..FLOOD).for_each(|n| beat(&bluez, u8::try_from(n % 200).unwrap()));
        let mut taken = 0;
        let mut counted = 0;
        let all = |event: &RadioEvent| {
            match event {
                RadioEvent::Advertised(_) => taken += 1,
                RadioEvent::Health(health) => {
                    let of = |counts: &BTreeMap<String, u64>| counts.get(ARM_BAND).copied().unwrap_or_default();
                    counted = of(&health.flooded) + of(&health.missed_advertisements);
                }
                _ => {}
            }
            taken + counted == u64::from(FLOOD)
        };
        radio.until("every one taken or counted", all).await;
        assert!(counted > 0 && taken >= 1_000, "{taken} taken, {counted} counted");
        println!("of {FLOOD} advertisements at once {taken} were taken and {counted} counted");
        radio.end().await;
    });
}
