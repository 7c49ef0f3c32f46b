//! What a profile says beside listening is done, in its order and no more often: by the radio as the daemon runs it, on a
//! fake bluetoothd. Each test runs in a child process with a system bus of its own.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bedrail::profile::Profile;
use bedrail::radio::RadioDevice;
use support::bluez::{Behaviour, CharacteristicSpec, DeviceSpec, FakeBluez, ServiceSpec, uuid16};
use support::devices::{Kind, VirtualDevice};
use support::radio::*;
use uuid::Uuid;

const OXIMETER: &str = "A4:C1:38:00:00:50";
const COMMANDS: Uuid = uuid16(0xff01);
const VALUES: Uuid = uuid16(0xff02);
const LEVEL: Uuid = uuid16(0xff03);

/// It is asked to start, asked again and again, and told goodbye.
const PROFILE: &str = r#"
[profile]
id = "of-nobody"
version = 1
name = "An oximeter of nobody's"
source = "made up for this test"
[match]
any = [{ service_uuid = "ff12" }]
[[init]]
subscribe = "ff02"
[[init]]
write = "ff01"
with = { hex = "9b011c" }
expect = { source = "ff02", prefix = "9b01", timeout_s = 1 }
[[init]]
read = "ff04"
optional = true
[[poll]]
every_s = 1
read = "ff03"
[[poll]]
every_s = 1
write = "ff01"
with = { hex = "9a1a" }
[[end]]
write = "ff01"
with = { hex = "9b7f1a" }
[[frame]]
source = "ff02"
length = 2
[[frame.field]]
code = "spo2"
type = "u8"
at = 1
unit = "%"
[[test]]
source = "ff02"
hex = "0161"
expect = { spo2 = "97" }
[[frame]]
source = "ff03"
length = 1
[[frame.field]]
code = "battery_level"
type = "u8"
at = 0
unit = "%"
[[test]]
source = "ff03"
hex = "4b"
expect = { battery_level = "75" }
"#;

fn device(profile: &str) -> RadioDevice {
    let profile = Profile::read(profile, "p.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let standard = VirtualDevice::new(Kind::OximeterVendor, OXIMETER, "oximeter");
    let subscribe = profile.subscriptions().collect();
    RadioDevice { subscribe, profile: Some(Arc::new(profile)), read: vec![], clock: vec![], ..wanted(&standard) }
}

/// `answers`: it says what it was told, before anything else.
fn oximeter(bus: &str, write: &'static str, answers: bool) -> FakeBluez {
    let bluez = room(bus, &[]);
    let characteristic = |short, flags: &[&'static str], value: &[u8]| CharacteristicSpec::new(short, flags, value);
    let characteristics = vec![
        characteristic(0xff01, &[write], &[]),
        characteristic(0xff02, &["notify"], &[]),
        characteristic(0xff03, &["read"], &[75]),
    ];
    bluez.add_device(
        "hci0",
        DeviceSpec {
            address: OXIMETER.to_owned(),
            random_address: false,
            privacy: false,
            name: "oximeter".to_owned(),
            advertised: vec![uuid16(0xff12)],
            services: vec![ServiceSpec { uuid: uuid16(0xff12), characteristics }],
            battery: None,
            behaviour: Behaviour { handle_base: 0x10, ..Default::default() },
        },
    );
    if answers {
        let echo = |octets: &[u8]| if octets.starts_with(&[0x9b, 0x01]) { vec![(VALUES, octets.to_vec())] } else { vec![] };
        bluez.set_answering(OXIMETER, COMMANDS, Arc::new(echo));
    }
    bluez.advertise(OXIMETER, -50);
    bluez
}

fn written(bluez: &FakeBluez) -> Vec<String> {
    bluez.calls().iter().filter(|call| call.member == "WriteValue").map(|call| call.detail.clone()).collect()
}

#[test]
fn a_device_is_started_asked_again_and_again_and_told_goodbye_as_its_profile_says() {
    let name = "a_device_is_started_asked_again_and_again_and_told_goodbye_as_its_profile_says";
    on_a_bus(name, async |bus| {
        let bluez = oximeter(&bus, "write-without-response", true);
        let mut radio = Radio::start(vec![device(PROFILE)]);
        radio.ready(OXIMETER).await;
        let first = radio.heard.iter().map(|heard| heard.octets.clone()).collect::<Vec<_>>();
        assert_eq!(first, [[0x9b, 0x01, 0x1c]], "the answer came before it was ready");
        // Values go on coming.
        let asked_from = Instant::now();
        let _ = tokio::time::timeout(Duration::from_millis(2_300), radio.drain(SOON)).await;
        let read = radio.heard.iter().filter(|heard| heard.characteristic == LEVEL && heard.octets == [75]).count();
        let most = 2 + usize::try_from(asked_from.elapsed().as_secs()).unwrap();
        assert!((2..=most).contains(&read), "{read} of at most {most}: now, and each second");
        assert!(bluez.notify(OXIMETER, VALUES, &[1, 97]));
        radio.hears(&[1, 97]).await;
        radio.end().await;
        let written = written(&bluez);
        assert_eq!(written.first().map(String::as_str), Some("9b011c"), "{written:?}");
        assert_eq!(written.last().map(String::as_str), Some("9b7f1a"), "{written:?}");
        let asked = written[1..written.len() - 1].iter().filter(|octets| *octets == "9a1a").count();
        assert_eq!((asked, asked.abs_diff(read) <= 1), (written.len() - 2, true), "{written:?}");
        assert!(!bluez.is_connected(OXIMETER), "and then the link was ended");
    });
}

#[test]
fn a_device_that_does_not_answer_is_never_ready_and_why_is_told() {
    on_a_bus("a_device_that_does_not_answer_is_never_ready_and_why_is_told", async |bus| {
        let bluez = oximeter(&bus, "write", false);
        let mut radio = Radio::start(vec![device(PROFILE)]);
        radio.lost(OXIMETER).await;
        let (_, reason) = radio.lost.last().unwrap();
        assert!(reason.contains("no answer came from 0000ff02-") && reason.contains("within 1 s"), "{reason}");
        radio.end().await;
        assert!(written(&bluez).iter().all(|octets| octets == "9b011c"), "nothing is said to one that was not ready");
    });
}

#[test]
fn a_device_that_has_not_what_its_profile_names_is_never_ready_and_what_is_missing_is_told() {
    let name = "a_device_that_has_not_what_its_profile_names_is_never_ready_and_what_is_missing_is_told";
    on_a_bus(name, async |bus| {
        let _bluez = oximeter(&bus, "write", true);
        let profile = PROFILE.replacen("subscribe = \"ff02\"", "subscribe = \"ff05\"\n[[init]]\nsubscribe = \"ff02\"", 1);
        let mut radio = Radio::start(vec![device(&profile)]);
        radio.lost(OXIMETER).await;
        let (_, reason) = radio.lost.last().unwrap();
        assert!(reason.contains("the device has no 0000ff05-") && reason.contains("can be subscribed to"), "{reason}");
        radio.end().await;

        let optional = profile.replacen("subscribe = \"ff05\"", "subscribe = \"ff05\"\noptional = true", 1);
        let mut radio = Radio::start(vec![device(&optional)]);
        radio.ready(OXIMETER).await;
        radio.end().await;
    });
}
