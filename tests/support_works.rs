//! The test world itself keeps its promises: what another test would otherwise believe without seeing.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use btleplug::api::{Central, CentralEvent, CharPropFlags, Manager as _, Peripheral as _, ScanFilter};
use btleplug::platform::{Adapter, Manager, Peripheral};
use futures::StreamExt;
use support::bluez::{AdapterSpec, Behaviour, CharacteristicSpec, DeviceSpec, FakeBluez, ServiceSpec, abort_by_local, uuid16};
use support::bus::on_a_bus_of_its_own;
use support::devices::{Kind, VirtualDevice, date_time};
use support::process::wait_until;
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
