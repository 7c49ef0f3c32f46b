//! btleplug, unmodified, on the fake bluetoothd.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use btleplug::api::{Central, CentralEvent, CharPropFlags, Manager as _, Peripheral as _, ScanFilter};
use btleplug::platform::{Adapter, Manager, Peripheral};
use futures::StreamExt;
use tokio::time::timeout;
use uuid::Uuid;

use super::support::bluez::{
    AdapterSpec, Behaviour, CharacteristicSpec, DeviceSpec, FakeBluez, ServiceSpec, abort_by_local, uuid16,
};
use super::support::bus::on_a_bus_of_its_own;
use super::support::devices::{CURRENT_TIME, Kind, VirtualDevice, Worker, date_time, seconds};
use super::support::process::wait_until;
use super::{SOON, run};

const STRAP: &str = "C0:FF:EE:00:00:01";
const HEART_RATE: Uuid = uuid16(0x2a37);
const LIMIT: Duration = Duration::from_secs(60);
/// How long nothing has to come before it counts as nothing.
const QUIET: Duration = Duration::from_millis(150);

fn strap() -> DeviceSpec {
    DeviceSpec {
        address: STRAP.to_owned(),
        random_address: true,
        privacy: false,
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
    on_a_bus_of_its_own("radio::btleplug_finds_connects_reads_and_hears_a_device_of_the_fake", LIMIT, |bus| {
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
    on_a_bus_of_its_own("radio::a_lost_link_keeps_the_notify_session_and_the_stream", LIMIT, |bus| {
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
fn a_crash_is_silent_and_the_next_daemon_has_neither_link_nor_scan() {
    on_a_bus_of_its_own("radio::a_crash_is_silent_and_the_next_daemon_has_neither_link_nor_scan", LIMIT, |bus| {
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
            assert!(!bluez.is_discovering("hci0") && !bluez.is_connected(STRAP));
            assert!(bluez.is_known(STRAP), "somebody connected it before");
            adapter.start_scan(ScanFilter::default()).await.unwrap();
            strap.connect().await.unwrap();
            subscribed(&strap).await;
            assert!(bluez.notify(STRAP, HEART_RATE, &[0, 80]));
            let value = timeout(SOON, values.next()).await.expect("in time").expect("a value");
            assert_eq!(value.value, [0, 80], "the old stream of the old session goes on");
        });
    });
}

#[test]
fn a_cuff_keeps_what_nobody_took_and_a_strap_does_not() {
    on_a_bus_of_its_own("radio::a_cuff_keeps_what_nobody_took_and_a_strap_does_not", LIMIT, |bus| {
        run(async {
            let bluez = FakeBluez::start(&bus);
            bluez.add_adapter(AdapterSpec::new("hci0", "00:11:22:33:44:55"));
            let mut cuff = Worker::new(VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:02", "cuff"));
            let mut strap = Worker::new(VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap"));
            for worker in [&mut cuff, &mut strap] {
                worker.device.place(&bluez, "hci0");
                worker.measure(&bluez);
                bluez.advertise(&worker.device.address, -50);
            }
            let adapter = adapter().await;
            adapter.start_scan(ScanFilter::default()).await.unwrap();
            for peripheral in adapter.peripherals().await.unwrap() {
                peripheral.connect().await.unwrap();
                peripheral.discover_services().await.unwrap();
                for characteristic in peripheral.characteristics() {
                    if characteristic.properties.intersects(CharPropFlags::NOTIFY | CharPropFlags::INDICATE) {
                        peripheral.subscribe(&characteristic).await.unwrap();
                    }
                    if characteristic.uuid == CURRENT_TIME {
                        let (read, now) = (peripheral.read(&characteristic).await.unwrap(), seconds(SystemTime::now()));
                        assert!((now - 1..=now).any(|second| read[..7] == date_time(second)) && read.len() == 10, "{read:?}");
                    }
                }
            }
            assert!(cuff.is_heard(&bluez) && strap.is_heard(&bluez));
            assert_eq!((cuff.send_waiting(&bluez), strap.send_waiting(&bluez)), (0, 0));
            assert!(cuff.made().iter().all(|made| made.sent) && strap.made().iter().all(|made| !made.sent));
        });
    });
}

/// One test body over a fake with a strap that btleplug knows.
fn with_strap<F: Future<Output = ()>>(name: &str, body: impl FnOnce(FakeBluez, Adapter, Peripheral) -> F) {
    on_a_bus_of_its_own(name, LIMIT, |bus| {
        run(async {
            let bluez = bluez(&bus);
            let adapter = adapter().await;
            let strap = discovered(&bluez, &adapter).await;
            body(bluez, adapter, strap).await;
        });
    });
}

fn dbus_error(error: &btleplug::Error) -> (String, String) {
    let btleplug::Error::Other(inner) = error else { panic!("no D-Bus error: {error:?}") };
    match inner.downcast_ref::<bluez_async::BluetoothError>() {
        Some(bluez_async::BluetoothError::DbusError(e)) => {
            (e.name().unwrap_or_default().to_owned(), e.message().unwrap_or_default().to_owned())
        }
        other => panic!("no D-Bus error: {other:?}"),
    }
}

#[test]
fn a_connect_nobody_waits_for_goes_on_until_it_is_cancelled() {
    with_strap("radio::a_connect_nobody_waits_for_goes_on_until_it_is_cancelled", async |bluez, _adapter, strap| {
        bluez.with_behaviour(STRAP, |b| b.connect_hangs = true);
        assert!(timeout(QUIET, strap.connect()).await.is_err(), "it hangs");
        let again = dbus_error(&strap.connect().await.unwrap_err());
        assert_eq!(again, ("org.bluez.Error.Failed".to_owned(), "Operation already in progress".to_owned()));
        strap.disconnect().await.unwrap();
        bluez.with_behaviour(STRAP, |b| b.connect_hangs = false);
        strap.connect().await.unwrap();
        assert_eq!(bluez.count(STRAP, "Connect"), 3);
    });
}

#[test]
fn a_device_may_drop_the_link_before_its_services_are_known() {
    with_strap("radio::a_device_may_drop_the_link_before_its_services_are_known", async |bluez, adapter, strap| {
        bluez.with_behaviour(STRAP, |b| b.drop_before_resolve = Some(Duration::from_millis(30)));
        let mut events = adapter.events().await.unwrap();
        let outcome = timeout(Duration::from_secs(1), strap.connect()).await;
        assert!(outcome.is_err(), "btleplug waits for services that never come");
        let mut seen = Vec::new();
        while let Ok(Some(event)) = timeout(QUIET, events.next()).await {
            seen.push(event);
        }
        assert!(seen.iter().any(|event| matches!(event, CentralEvent::DeviceDisconnected(_))), "{seen:?}");
        assert!(!bluez.is_connected(STRAP));
    });
}

#[test]
fn a_hung_daemon_answers_when_it_goes_on() {
    with_strap("radio::a_hung_daemon_answers_when_it_goes_on", async |bluez, adapter, strap| {
        bluez.hang(true);
        let connecting = tokio::spawn({
            let strap = strap.clone();
            async move { strap.connect().await }
        });
        tokio::time::sleep(QUIET).await;
        assert!(!connecting.is_finished() && !bluez.is_connected(STRAP));
        bluez.hang(false);
        timeout(SOON, connecting).await.expect("in time").expect("no panic").unwrap();
        assert!(adapter.adapter_state().await.is_ok());
    });
}

#[test]
fn an_adapter_goes_and_comes_back_without_links_and_scan() {
    with_strap("radio::an_adapter_goes_and_comes_back_without_links_and_scan", async |bluez, adapter, strap| {
        strap.connect().await.unwrap();
        bluez.remove_adapter("hci0");
        assert!(strap.is_connected().await.is_err(), "the object is gone");
        bluez.add_adapter(AdapterSpec::new("hci0", "00:11:22:33:44:55"));
        assert!(bluez.is_known(STRAP) && !bluez.is_connected(STRAP) && !bluez.is_discovering("hci0"));
        adapter.start_scan(ScanFilter::default()).await.unwrap();
        strap.connect().await.unwrap();
        bluez.set_powered("hci0", false);
        assert!(!bluez.is_connected(STRAP) && !bluez.is_discovering("hci0"));
        let refused = dbus_error(&strap.connect().await.unwrap_err());
        assert_eq!(refused, ("org.bluez.Error.Failed".to_owned(), "Input/output error".to_owned()));
    });
}

#[test]
fn moved_handles_need_a_new_discovery() {
    with_strap("radio::moved_handles_need_a_new_discovery", async |bluez, _adapter, strap| {
        strap.connect().await.unwrap();
        subscribed(&strap).await;
        bluez.move_handles(STRAP, 0x40);
        strap.connect().await.unwrap();
        let stale = strap.characteristics().into_iter().find(|c| c.uuid == HEART_RATE).expect("in its cache");
        let refused = dbus_error(&strap.subscribe(&stale).await.unwrap_err());
        assert_eq!(refused.0, "org.freedesktop.DBus.Error.UnknownObject");
        subscribed(&strap).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 60]));
    });
}

struct Agent(u32);

#[zbus::interface(name = "org.bluez.Agent1")]
impl Agent {
    fn request_passkey(&self, _device: zbus::OwnedObjectPath) -> u32 {
        self.0
    }
}

async fn register(bus: &str, passkey: u32) -> zbus::Connection {
    let builder = zbus::connection::Builder::address(bus).serve_at("/agent", Agent(passkey));
    let connection = builder.build().await.expect("on the bus");
    let body = (zbus::ObjectPath::try_from("/agent").expect("a path"), "KeyboardOnly");
    let manager = Some("org.bluez.AgentManager1");
    connection.call_method(Some("org.bluez"), "/org/bluez", manager, "RegisterAgent", &body).await.expect("it is taken");
    connection
}

async fn pair(connection: &zbus::Connection) -> Result<(), String> {
    let path = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01";
    let answer = connection.call_method(Some("org.bluez"), path, Some("org.bluez.Device1"), "Pair", &()).await;
    answer.map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn an_encrypted_value_needs_an_agent_that_knows_the_passkey() {
    on_a_bus_of_its_own("radio::an_encrypted_value_needs_an_agent_that_knows_the_passkey", LIMIT, |bus| {
        run(async {
            let bluez = FakeBluez::start(&bus);
            bluez.add_adapter(AdapterSpec::new("hci0", "00:11:22:33:44:55"));
            let mut spec = strap();
            spec.services[0].characteristics[0].encrypted = true;
            spec.behaviour.passkey = Some(123_456);
            bluez.add_device("hci0", spec);
            let adapter = adapter().await;
            let strap = discovered(&bluez, &adapter).await;
            strap.connect().await.unwrap();
            assert!(timeout(QUIET, subscribed(&strap)).await.is_err(), "without an agent there is no answer");

            let stranger = register(&bus, 999_999).await;
            let refused = pair(&stranger).await.unwrap_err();
            assert!(refused.contains("AuthenticationFailed"), "{refused}");
            assert!(!bluez.is_connected(STRAP), "a wrong passkey costs the link");
            drop(stranger);
            assert!(wait_until(SOON, || bluez.agents().is_empty()), "who leaves the bus takes the agent along");

            let nurse = register(&bus, 123_456).await;
            pair(&nurse).await.unwrap();
            assert!(bluez.is_paired(STRAP));
            subscribed(&strap).await;
            assert!(bluez.notify(STRAP, HEART_RATE, &[0, 60]));
            bluez.restart();
            assert!(bluez.is_known(STRAP) && bluez.agents().is_empty(), "the bond outlives the daemon, the agent does not");
        });
    });
}

#[test]
fn a_client_that_dies_loses_its_sessions_and_leaves_the_link_up() {
    let name = "radio::a_client_that_dies_loses_its_sessions_and_leaves_the_link_up";
    on_a_bus_of_its_own(name, LIMIT, |bus| {
        run(async {
            let bluez = bluez(&bus);
            let client = zbus::connection::Builder::address(bus.as_str()).build().await.expect("on the bus");
            let call = async |path: &str, interface: &str, member: &str| {
                client.call_method(Some("org.bluez"), path, Some(interface), member, &()).await.expect("an answer");
            };
            bluez.advertise(STRAP, -40);
            call("/org/bluez/hci0", "org.bluez.Adapter1", "StartDiscovery").await;
            let device = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01";
            call(device, "org.bluez.Device1", "Connect").await;
            let heart_rate = format!("{device}/service0010/char0011");
            assert!(wait_until(SOON, || bluez.is_resolved(STRAP)));
            call(&heart_rate, "org.bluez.GattCharacteristic1", "StartNotify").await;
            assert!(bluez.is_listening(STRAP, HEART_RATE) && bluez.is_discovering("hci0"));
            client.close().await.expect("closed");
            assert!(wait_until(SOON, || !bluez.is_listening(STRAP, HEART_RATE) && !bluez.is_discovering("hci0")));
            assert!(bluez.is_connected(STRAP));
        });
    });
}

#[test]
fn a_connect_waits_for_a_device_that_comes_into_range() {
    with_strap("radio::a_connect_waits_for_a_device_that_comes_into_range", async |bluez, _adapter, strap| {
        bluez.out_of_range(STRAP);
        assert!(timeout(QUIET, strap.connect()).await.is_err());
        bluez.advertise(STRAP, -80);
        assert!(wait_until(SOON, || bluez.is_connected(STRAP)), "BlueZ went on trying for a caller who is gone");
    });
}

#[test]
fn a_flood_of_values_arrives_whole_and_in_order() {
    with_strap("radio::a_flood_of_values_arrives_whole_and_in_order", async |bluez, _adapter, strap| {
        strap.connect().await.unwrap();
        let mut values = strap.notifications().await.unwrap();
        subscribed(&strap).await;
        for n in 0..5000u16 {
            assert!(bluez.notify(STRAP, HEART_RATE, &n.to_le_bytes()));
        }
        for n in 0..5000u16 {
            let value = timeout(SOON, values.next()).await.expect("in time").expect("a value");
            assert_eq!(value.value, n.to_le_bytes());
        }
    });
}
