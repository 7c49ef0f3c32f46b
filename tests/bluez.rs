//! The radio, as the daemon runs it, on a fake bluetoothd: values come through link loss, restarts and missing adapters.
//! Each test runs in a child process with a system bus of its own.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedrail::radio::{
    Bond, EVENT_QUEUE, Heard, InformationField, Pace, Priority, RadioDevice, RadioError, RadioEvent, RadioSettings, Sharing,
};
use bedrail::reading::{DeviceId, SecurityLevel};
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use support::bluez::{AdapterSpec, FakeBluez, abort_by_local, uuid16};
use support::bus::on_a_bus_with;
use support::devices::{BATTERY_LEVEL, HEART_RATE, Kind, TEMPERATURE, VirtualDevice, Worker};
use support::radio::*;

#[test]
fn values_of_four_kinds_arrive_in_order_and_none_is_lost_over_twenty_broken_links() {
    on_a_bus("values_of_four_kinds_arrive_in_order_and_none_is_lost_over_twenty_broken_links", async |bus| {
        let kinds = [Kind::HeartRateStrap, Kind::Thermometer, Kind::Cuff, Kind::OximeterContinuous];
        let devices: Vec<VirtualDevice> = kinds
            .into_iter()
            .enumerate()
            .map(|(n, kind)| VirtualDevice::new(kind, &format!("C0:FF:EE:00:00:1{n}"), &format!("device {n}")))
            .collect();
        let bluez = room(&bus, &devices.iter().collect::<Vec<_>>());
        let mut radio = Radio::start(devices.iter().map(wanted).collect());
        let mut workers: Vec<Worker> = devices.iter().cloned().map(Worker::new).collect();
        for worker in &workers {
            wait_for("a first connection", || worker.is_heard(&bluez)).await;
        }
        for round in 0..100 {
            workers.iter_mut().for_each(|worker| worker.measure(&bluez));
            if round % 5 == 4 {
                bluez.drop_link(&devices[round / 5 % devices.len()].address);
            }
            radio.drain(Duration::from_millis(10)).await;
        }
        for worker in &mut workers {
            wait_for("the last connection", || worker.is_heard(&bluez)).await;
            assert_eq!(worker.send_waiting(&bluez), 0);
        }
        radio.drain(Duration::from_millis(500)).await;

        for worker in &workers {
            let device = id(&worker.device.address);
            let own = worker.device.characteristic();
            let sent: BTreeSet<u64> = worker.made().iter().filter(|made| made.sent).map(|made| made.sequence).collect();
            let least = if worker.device.keeps() { 100 } else { 60 };
            assert!(sent.len() >= least, "{}: only {} went over the air", worker.device.name, sent.len());
            // The first octets do not depend on when the value was made.
            let values = sent.iter().map(|n| worker.device.value(*n, 0).octets[..2].to_vec());
            let of_it: Vec<&Heard> = radio.heard.iter().filter(|h| h.device == device && h.characteristic == own).collect();
            let heard: Vec<Vec<u8>> = of_it.iter().map(|heard| heard.octets[..2].to_vec()).collect();
            assert_eq!(heard, values.collect::<Vec<_>>(), "{}", worker.device.name);
            assert!(of_it.is_sorted_by_key(|heard| heard.arrived));
            assert!(of_it.iter().all(|heard| heard.indicated == worker.device.keeps()));
        }
        assert_eq!(radio.lost.len(), 20, "{:?}", radio.lost);
        radio.end().await;
        assert!(devices.iter().all(|device| !bluez.is_connected(&device.address)), "no link is left behind");
    });
}

#[test]
fn what_a_device_says_of_itself_is_read_once_a_connection_and_its_clock_goes_with_its_values() {
    let name = "what_a_device_says_of_itself_is_read_once_a_connection_and_its_clock_goes_with_its_values";
    on_a_bus(name, async |bus| {
        let cuff = VirtualDevice::new(Kind::Cuff, THERMOMETER, "cuff");
        let bluez = room(&bus, &[&cuff]);
        bluez.set_value(THERMOMETER, uuid16(0x2a25), b"SN-7\0\0\0");
        let mut radio = Radio::start(vec![wanted(&cuff)]);
        radio.ready(THERMOMETER).await;
        let battery = radio.hears(&[100]).await;
        assert_eq!((battery.characteristic, battery.security), (BATTERY_LEVEL, SecurityLevel::None));
        radio.drain(Duration::from_millis(300)).await;
        assert!(radio.information.contains(&(InformationField::SerialNumber, "SN-7".to_owned())), "{:?}", radio.information);
        assert_eq!(radio.information.len(), 6);
        assert_eq!(radio.heard.len(), 1, "what is read is told once: {:?}", radio.heard);

        let emission = cuff.value(0, 0);
        assert!(bluez.notify(THERMOMETER, emission.characteristic, &emission.octets));
        let heard = radio.hears(&emission.octets).await;
        let (time, read_at) = heard.device_clock.expect("a clock");
        assert!(heard.indicated && read_at <= heard.arrived);
        assert!(time.year.is_some_and(|year| year >= 2024), "{time:?}");
        radio.end().await;
    });
}

#[test]
fn a_value_that_is_read_and_subscribed_arrives_once() {
    on_a_bus("a_value_that_is_read_and_subscribed_arrives_once", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let mut both = wanted(&strap());
        both.subscribe.push(BATTERY_LEVEL);
        let mut radio = Radio::start(vec![both]);
        radio.ready(STRAP).await;
        radio.drain(Duration::from_millis(300)).await;
        assert_eq!(radio.heard.iter().filter(|heard| heard.characteristic == BATTERY_LEVEL).count(), 1);
        assert!(bluez.notify(STRAP, BATTERY_LEVEL, &[99]));
        radio.hears(&[99]).await;
        radio.end().await;
    });
}

#[test]
fn a_receiver_that_rests_loses_nothing_and_does_not_keep_the_radio_from_stopping() {
    on_a_bus("a_receiver_that_rests_loses_nothing_and_does_not_keep_the_radio_from_stopping", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let mut device = wanted(&strap());
        device.read.clear();
        let mut radio = Radio::with_queue(vec![device], 4);
        radio.ready(STRAP).await;
        let sent: Vec<[u8; 2]> = (0..1_000u16).map(u16::to_be_bytes).collect();
        assert!(sent.iter().all(|octets| bluez.notify(STRAP, HEART_RATE, octets)));
        sleep(Duration::from_millis(300)).await;
        radio.drain(Duration::from_millis(300)).await;
        assert_eq!(radio.heard.iter().map(|heard| &heard.octets[..]).collect::<Vec<_>>(), sent);

        assert!(sent.iter().all(|octets| bluez.notify(STRAP, HEART_RATE, octets)));
        sleep(Duration::from_millis(100)).await;
        radio.end().await;
        assert!(!bluez.is_connected(STRAP));
    });
}

#[test]
fn a_device_nobody_heard_of_is_connected_when_it_appears() {
    on_a_bus("a_device_nobody_heard_of_is_connected_when_it_appears", async |bus| {
        let bluez = room(&bus, &[]);
        strap().place(&bluez, "hci0");
        let mut radio = Radio::start(vec![wanted(&strap())]);
        assert_eq!(radio.adapter_usable(true).await, "hci0");
        wait_for("a scan", || bluez.is_discovering("hci0")).await;
        let filters = bluez.filters();
        assert!(filters[0].contains("le") && filters[0].contains("DuplicateData"), "{filters:?}");
        radio.drain(Duration::from_millis(200)).await;
        assert_eq!(bluez.count(STRAP, "Connect"), 0);
        bluez.advertise(STRAP, -70);
        radio.ready(STRAP).await;
        wait_for("the scan to go on after connecting", || bluez.is_discovering("hci0")).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 61]));
        let heard = radio.hears(&[0, 61]).await;
        assert!(!heard.indicated);
        radio.end().await;
    });
}

#[test]
fn values_go_on_after_bluetoothd_was_killed_and_started_again() {
    on_a_bus("values_go_on_after_bluetoothd_was_killed_and_started_again", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let mut radio = Radio::start(vec![wanted(&strap())]);
        radio.ready(STRAP).await;
        assert_eq!(radio.outages, [""; 0], "none was there before");
        for round in 0..3u8 {
            let (asked, said) = (Instant::now(), radio.outages.len());
            if round == 1 {
                bluez.stop()
            } else {
                bluez.crash()
            }
            radio.lost(STRAP).await;
            assert!(asked.elapsed() < Duration::from_secs(1), "lost is said at once");
            bluez.restart();
            radio.ready(STRAP).await;
            assert!(radio.outages.len() > said, "the outage is told: {:?}", radio.outages);
            assert_eq!(bluez.agents(), ["NoInputNoOutput"]);
            assert!(bluez.notify(STRAP, HEART_RATE, &[0, 70 + round]));
            radio.hears(&[0, 70 + round]).await;
        }
        radio.end().await;
    });
}

#[test]
fn a_link_that_is_already_there_is_taken_over() {
    on_a_bus("a_link_that_is_already_there_is_taken_over", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let before = zbus::connection::Builder::address(bus.as_str()).build().await.unwrap();
        let call = async |path: &str, interface: &str, method: &str| {
            before.call_method(Some("org.bluez"), path, Some(interface), method, &()).await.unwrap()
        };
        call("/org/bluez/hci0", "org.bluez.Adapter1", "StartDiscovery").await;
        call("/org/bluez/hci0/dev_C0_FF_EE_00_00_01", "org.bluez.Device1", "Connect").await;
        wait_for("its services", || bluez.is_resolved(STRAP)).await;
        before.close().await.unwrap();
        let mut radio = Radio::start(vec![wanted(&strap())]);
        radio.ready(STRAP).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 90]));
        radio.hears(&[0, 90]).await;
        assert_eq!(radio.lost, []);
        radio.end().await;
    });
}

#[test]
fn values_go_on_after_bluetoothd_did_not_answer_for_a_while() {
    on_a_bus("values_go_on_after_bluetoothd_did_not_answer_for_a_while", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        bluez.with_behaviour(STRAP, |behaviour| behaviour.connect_delay = Duration::from_millis(300));
        let mut radio = Radio::start(vec![wanted(&strap())]);
        wait_for("a connect", || bluez.count(STRAP, "Connect") == 1).await;
        bluez.hang(true);
        radio.lost(STRAP).await;
        assert!(radio.lost[0].1.contains("in time"), "by our own deadline: {:?}", radio.lost);
        sleep(Duration::from_secs(1)).await;
        bluez.hang(false);
        radio.ready(STRAP).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 91]));
        radio.hears(&[0, 91]).await;
        radio.end().await;
    });
}

#[test]
fn the_radio_starts_before_bluetoothd_and_before_the_adapter() {
    on_a_bus("the_radio_starts_before_bluetoothd_and_before_the_adapter", async |bus| {
        let mut radio = Radio::start(vec![wanted(&strap())]);
        assert!(radio.adapter_usable(false).await.contains("bluetoothd does not run"));
        let bluez = FakeBluez::start(&bus);
        assert!(radio.adapter_usable(false).await.contains("not plugged in"));
        bluez.add_adapter(AdapterSpec::new("hci0", "66:66:66:66:66:66"));
        bluez.add_adapter(AdapterSpec { powered: false, ..adapter("hci1") });
        // The first of the two may be told of alone.
        while !radio.adapter_usable(false).await.contains("hci1 is powered off") {}
        bluez.set_powered("hci1", true);
        assert_eq!(radio.adapter_usable(true).await, "hci1", "by its address, not by its name");
        strap().place(&bluez, "hci1");
        bluez.advertise(STRAP, -60);
        radio.ready(STRAP).await;
        radio.end().await;
    });
}

#[test]
fn values_go_on_after_the_adapter_was_unplugged_and_came_back_under_another_name() {
    on_a_bus("values_go_on_after_the_adapter_was_unplugged_and_came_back_under_another_name", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let mut radio = Radio::start(vec![wanted(&strap())]);
        radio.ready(STRAP).await;
        for (before, after) in [("hci0", "hci0"), ("hci0", "hci1"), ("hci1", "hci0")] {
            bluez.remove_adapter(before);
            radio.lost(STRAP).await;
            bluez.add_adapter(adapter(after));
            strap().place(&bluez, after);
            bluez.advertise(STRAP, -60);
            radio.ready(STRAP).await;
            assert!(bluez.notify(STRAP, HEART_RATE, &[0, 72]));
            radio.hears(&[0, 72]).await;
        }
        bluez.set_powered("hci0", false);
        radio.lost(STRAP).await;
        bluez.set_powered("hci0", true);
        radio.ready(STRAP).await;
        assert_eq!(radio.heard.iter().filter(|heard| heard.octets == [0, 72]).count(), 3);
        radio.end().await;
    });
}

#[test]
fn a_device_goes_on_through_another_adapter_when_its_own_is_gone_and_comes_back() {
    on_a_bus("a_device_goes_on_through_another_adapter_when_its_own_is_gone_and_comes_back", async |bus| {
        let other = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
        let second = "66:66:66:66:66:66";
        let bluez = room(&bus, &[&strap()]);
        bluez.add_adapter(AdapterSpec::new("hci1", second));
        other.place(&bluez, "hci1");
        bluez.advertise(THERMOMETER, -60);
        let both = RadioSettings {
            adapters: vec![id(ADAPTER), id(second)],
            ..settings(vec![wanted(&strap()), wanted(&other)], Pace::default())
        };
        let mut radio = Radio::with(both, EVENT_QUEUE);
        let connects = |hci: &str| {
            let path = format!("/org/bluez/{hci}/dev_C0_FF_EE_00_00_01");
            bluez.calls().iter().filter(|call| call.member == "Connect" && call.path == path).count()
        };
        wait_for("both", || bluez.is_listening(STRAP, HEART_RATE) && bluez.is_listening(THERMOMETER, TEMPERATURE)).await;
        assert_eq!((connects("hci0"), connects("hci1")), (1, 0));
        for (gone, octets) in [(true, 74), (false, 75)] {
            radio.drain(Duration::from_millis(100)).await;
            if gone {
                bluez.remove_adapter("hci0");
                strap().place(&bluez, "hci1");
            } else {
                bluez.add_adapter(adapter("hci0"));
                bluez.out_of_range(STRAP);
                strap().place(&bluez, "hci0");
            }
            radio.lost(STRAP).await;
            bluez.advertise(STRAP, -60);
            radio.ready(STRAP).await;
            assert!(bluez.notify(STRAP, HEART_RATE, &[0, octets]));
            radio.hears(&[0, octets]).await;
            assert_eq!((connects("hci0"), connects("hci1")), if gone { (1, 1) } else { (2, 1) });
        }
        assert!(radio.lost.iter().all(|(device, _)| *device == id(STRAP)), "{:?}", radio.lost);
        assert_eq!(radio.outages, [""; 0], "one adapter was there all the time");
        radio.end().await;
    });
}

#[test]
fn an_adapter_that_is_not_there_is_named_with_those_there_are_and_the_rest_goes_on() {
    on_a_bus("an_adapter_that_is_not_there_is_named_with_those_there_are_and_the_rest_goes_on", async |bus| {
        let other = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
        let (missing, pinned) = ("99:99:99:99:99:99", "88:88:88:88:88:88");
        let bluez = room(&bus, &[&strap(), &other]);
        let pin = RadioDevice { adapter: Some(id(pinned)), ..wanted(&other) };
        let named =
            RadioSettings { adapters: vec![id(ADAPTER), id(missing)], ..settings(vec![wanted(&strap()), pin], Pace::default()) };
        let mut radio = Radio::with(named, EVENT_QUEUE);
        let detail = radio.adapter_usable(true).await;
        radio.ready(STRAP).await;
        assert_eq!(
            detail,
            format!(
                "hci0; adapter {pinned} of device \"thermometer\" is not plugged in; adapter {missing} is not plugged in (there are: hci0 {ADAPTER})"
            )
        );
        radio.drain(Duration::from_millis(200)).await;
        assert_eq!(bluez.count(THERMOMETER, "Connect"), 0, "it is reached through no other");
        bluez.add_adapter(AdapterSpec::new("hci7", pinned));
        other.place(&bluez, "hci7");
        bluez.advertise(THERMOMETER, -60);
        radio.ready(THERMOMETER).await;
        radio.end().await;
    });
}

#[test]
fn a_scan_that_a_dead_bluetoothd_left_behind_is_not_taken_for_ours() {
    on_a_bus("a_scan_that_a_dead_bluetoothd_left_behind_is_not_taken_for_ours", async |bus| {
        let bluez = FakeBluez::start(&bus);
        let in_progress = ("org.bluez.Error.InProgress", "Operation already in progress".to_owned());
        bluez.add_adapter(AdapterSpec { scan_errors: [in_progress].into(), ..adapter("hci0") });
        strap().place(&bluez, "hci0");
        bluez.advertise(STRAP, -60);
        let mut radio = Radio::start(vec![wanted(&strap())]);
        radio.ready(STRAP).await;
        radio.end().await;
    });
}

#[test]
fn an_adapter_that_btleplug_cannot_see_is_named_with_the_remedy() {
    on_a_bus("an_adapter_that_btleplug_cannot_see_is_named_with_the_remedy", async |bus| {
        let bluez = FakeBluez::start(&bus);
        bluez.add_adapter(AdapterSpec { modalias: None, ..adapter("hci0") });
        let mut radio = Radio::start(vec![wanted(&strap())]);
        let mut detail = String::new();
        while !detail.contains("Modalias") {
            detail = radio.adapter_usable(false).await;
        }
        assert!(detail.contains("DeviceID"), "{detail}");
        radio.end().await;
    });
}

#[test]
fn a_connect_that_hangs_is_cancelled_by_disconnect_and_tried_again() {
    on_a_bus("a_connect_that_hangs_is_cancelled_by_disconnect_and_tried_again", async |bus| {
        let other = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
        let bluez = room(&bus, &[&strap()]);
        other.place(&bluez, "hci0");
        bluez.with_behaviour(STRAP, |behaviour| behaviour.connect_hangs = true);
        let mut radio = Radio::start(vec![wanted(&strap()), wanted(&other)]);
        wait_for("a connect", || bluez.count(STRAP, "Connect") == 1).await;
        wait_for("the scan to rest", || !bluez.is_discovering("hci0")).await;
        radio.lost(STRAP).await;
        wait_for("a disconnect", || bluez.count(STRAP, "Disconnect") == 1).await;
        bluez.advertise(THERMOMETER, -60);
        radio.ready(THERMOMETER).await;
        bluez.with_behaviour(STRAP, |behaviour| behaviour.connect_hangs = false);
        radio.ready(STRAP).await;
        let calls = bluez.calls();
        let members: Vec<&str> = calls
            .iter()
            .filter(|call| call.path.ends_with("C0_FF_EE_00_00_01") && matches!(call.member.as_str(), "Connect" | "Disconnect"))
            .map(|call| call.member.as_str())
            .collect();
        assert!(members.len() >= 3 && members.iter().step_by(2).all(|member| *member == "Connect"), "{members:?}");
        assert!(members.iter().skip(1).step_by(2).all(|member| *member == "Disconnect"), "{members:?}");
        radio.end().await;
    });
}

#[test]
fn a_link_that_breaks_before_the_services_are_known_is_given_up_at_once() {
    on_a_bus("a_link_that_breaks_before_the_services_are_known_is_given_up_at_once", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        bluez.with_behaviour(STRAP, |behaviour| {
            behaviour.drop_before_resolve = Some(Duration::from_millis(30));
            behaviour.connect_errors = (0..4).map(|_| abort_by_local()).collect();
        });
        let begun = Instant::now();
        let mut radio = Radio::start(vec![wanted(&strap())]);
        for _ in 0..4 {
            radio.lost(STRAP).await;
        }
        assert!(radio.lost.iter().all(|(_, reason)| reason.contains("abort-by-local")), "{:?}", radio.lost);
        radio.lost(STRAP).await;
        assert!(begun.elapsed() < Duration::from_millis(1_500), "no deadline was waited for: {:?}", begun.elapsed());
        bluez.with_behaviour(STRAP, |behaviour| behaviour.drop_before_resolve = None);
        radio.ready(STRAP).await;
        radio.end().await;
    });
}

#[test]
fn values_go_on_after_the_handles_moved_and_after_bluez_forgot_the_device() {
    on_a_bus("values_go_on_after_the_handles_moved_and_after_bluez_forgot_the_device", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let mut radio = Radio::start(vec![wanted(&strap())]);
        radio.ready(STRAP).await;
        bluez.move_handles(STRAP, 0x40);
        radio.ready(STRAP).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 80]));
        radio.hears(&[0, 80]).await;
        bluez.remove_device(STRAP);
        radio.lost(STRAP).await;
        bluez.advertise(STRAP, -60);
        radio.ready(STRAP).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 81]));
        radio.hears(&[0, 81]).await;
        radio.end().await;
    });
}

#[test]
fn a_device_bonds_only_where_the_config_lets_it() {
    on_a_bus("a_device_bonds_only_where_the_config_lets_it", async |bus| {
        let device = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
        let bluez = FakeBluez::start(&bus);
        bluez.add_adapter(adapter("hci0"));
        let mut spec = device.spec();
        spec.services[0].characteristics[0].encrypted = true;
        bluez.add_device("hci0", spec);
        bluez.advertise(THERMOMETER, -60);

        let mut radio = Radio::start(vec![wanted(&device)]);
        radio.lost(THERMOMETER).await;
        assert!(!bluez.is_paired(THERMOMETER));
        radio.end().await;

        let mut radio = Radio::start(vec![RadioDevice { bond: Bond::JustWorks, ..wanted(&device) }]);
        radio.ready(THERMOMETER).await;
        assert!(bluez.is_paired(THERMOMETER));
        assert!(bluez.notify(THERMOMETER, TEMPERATURE, &[0, 1, 2, 3, 4]));
        let heard = radio.hears(&[0, 1, 2, 3, 4]).await;
        assert_eq!(heard.security, SecurityLevel::Encrypted);
        radio.end().await;
    });
}

fn expected(device: &VirtualDevice) -> RadioDevice {
    RadioDevice { expect_every: Some(Duration::from_millis(300)), ..wanted(device) }
}

#[test]
fn a_device_that_is_connected_and_silent_is_reconnected_and_the_others_keep_their_radio() {
    let name = "a_device_that_is_connected_and_silent_is_reconnected_and_the_others_keep_their_radio";
    on_a_bus(name, async |bus| {
        let other = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
        let bluez = room(&bus, &[&strap(), &other]);
        let devices = vec![expected(&strap()), RadioDevice { read: vec![], ..expected(&other) }];
        let mut radio = Radio::at_pace(devices, EVENT_QUEUE, hasty());
        wait_for("both", || bluez.is_listening(STRAP, HEART_RATE) && bluez.is_listening(THERMOMETER, TEMPERATURE)).await;
        for _ in 0..200 {
            assert!(bluez.notify(THERMOMETER, TEMPERATURE, &[0, 1, 2, 3, 4]), "it streams on");
            radio.drain(Duration::from_millis(20)).await;
        }
        assert!(bluez.count(STRAP, "Disconnect") >= 1 && bluez.count(STRAP, "Connect") >= 2);
        assert!(
            radio.lost.iter().all(|(device, reason)| *device == id(STRAP) && reason.contains("no value")),
            "{:?}",
            radio.lost
        );
        assert!(radio.health.rungs["reconnect"] >= 1 && radio.health.rungs["rescan"] >= 1, "{:?}", radio.health);
        assert_eq!(radio.health.silent, [STRAP]);
        assert!(bluez.calls().iter().all(|call| call.member != "Set"), "the adapter is left alone");
        let begun = Instant::now();
        while !bluez.notify(STRAP, HEART_RATE, &[0, 66]) {
            assert!(begun.elapsed() < SOON, "it is connected again");
            bluez.notify(THERMOMETER, TEMPERATURE, &[0, 1, 2, 3, 4]);
            radio.drain(Duration::from_millis(20)).await;
        }
        radio
            .until("word that it is heard", |event| matches!(event, RadioEvent::Health(health) if health.silent.is_empty()))
            .await;
        radio.end().await;
    });
}

/// A systemd that takes every StartUnit, and the names of the units that were started.
async fn systemd(bus: &str) -> Arc<Mutex<Vec<String>>> {
    let connection = zbus::connection::Builder::address(bus).build().await.unwrap();
    let mut calls = zbus::MessageStream::from(&connection);
    connection.request_name("org.freedesktop.systemd1").await.unwrap();
    let started = Arc::new(Mutex::new(vec![]));
    let list = started.clone();
    tokio::spawn(async move {
        while let Some(Ok(call)) = calls.next().await {
            if call.header().member().is_some_and(|member| member.as_str() == "StartUnit") {
                let (unit, mode): (String, String) = call.body().deserialize().unwrap();
                list.lock().unwrap().push(format!("{unit} {mode}"));
                let job = zbus::ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/job/1");
                connection.send(&zbus::Message::method_return(&call.header()).build(&job).unwrap()).await.unwrap();
            }
        }
    });
    started
}

#[test]
fn when_nobody_is_heard_the_adapter_is_power_cycled_then_reset_then_the_radio_ends() {
    on_a_bus("when_nobody_is_heard_the_adapter_is_power_cycled_then_reset_then_the_radio_ends", async |bus| {
        let started = systemd(&bus).await;
        let bluez = room(&bus, &[&strap()]);
        let mut radio = Radio::at_pace(vec![expected(&strap())], EVENT_QUEUE, hasty());
        radio.ready(STRAP).await;
        assert!(bluez.notify(STRAP, HEART_RATE, &[0, 66]));
        radio.hears(&[0, 66]).await;
        radio.until("reset", |event| matches!(event, RadioEvent::Health(health) if health.rungs.contains_key("reset"))).await;
        let powered: Vec<String> =
            bluez.calls().iter().filter(|call| call.member == "Set").map(|call| call.detail.clone()).collect();
        assert_eq!(powered.len(), 2, "off and on: {powered:?}");
        assert_eq!(*started.lock().unwrap(), ["bedrail-radio-reset.service replace"]);
        assert_eq!(radio.health.skipped, BTreeMap::new());
        let ended = timeout(SOON, radio.task).await.expect("it ends").unwrap();
        assert!(matches!(ended, Err(RadioError::Silent)), "{ended:?}");
    });
}

#[test]
fn a_bluetoothd_that_hangs_is_reset_and_a_reset_that_is_not_installed_is_counted() {
    on_a_bus("a_bluetoothd_that_hangs_is_reset_and_a_reset_that_is_not_installed_is_counted", async |bus| {
        let bluez = room(&bus, &[&strap()]);
        let mut radio = Radio::at_pace(vec![wanted(&strap())], EVENT_QUEUE, hasty());
        radio.ready(STRAP).await;
        bluez.hang(true);
        let skipped = |event: &RadioEvent| matches!(event, RadioEvent::Health(health) if health.skipped.contains_key("reset"));
        radio.until("a reset that was skipped", skipped).await;
        assert!(radio.health.unanswered >= 3 && !radio.health.rungs.contains_key("power_cycle"), "{:?}", radio.health);
        bluez.hang(false);
        radio.end().await;
    });
}

#[test]
fn with_more_devices_than_slots_who_is_done_makes_room_and_a_monitor_keeps_its_link() {
    on_a_bus("with_more_devices_than_slots_who_is_done_makes_room_and_a_monitor_keeps_its_link", async |bus| {
        let spots: Vec<VirtualDevice> = (0..3)
            .map(|n| VirtualDevice::new(Kind::Thermometer, &format!("C0:FF:EE:00:00:2{n}"), &format!("spot {n}")))
            .collect();
        let bluez = room(&bus, &[&strap(), &spots[0], &spots[1], &spots[2]]);
        let spot = |device: &VirtualDevice| RadioDevice { streams: false, read: vec![], ..wanted(device) };
        let monitor = RadioDevice { priority: Priority::High, ..wanted(&strap()) };
        let sharing = Sharing { slots: 2, done: Duration::from_millis(700), ..Sharing::default() };
        let devices = [monitor].into_iter().chain(spots.iter().map(spot)).collect();
        let mut radio = Radio::with(RadioSettings { sharing, ..settings(devices, Pace::default()) }, EVENT_QUEUE);
        let begun = Instant::now();
        let mut told = BTreeSet::new();
        // Of the three one holds the second slot; when it has said nothing for a while it goes, and the next comes.
        while told.len() < 3 {
            assert!(begun.elapsed() < 2 * SOON, "only {told:?} were connected; {:?}", radio.health);
            let linked = [STRAP].into_iter().chain(spots.iter().map(|spot| &spot.address[..]));
            assert!(linked.filter(|address| bluez.is_connected(address)).count() <= 2, "two slots");
            for spot in spots.iter().filter(|spot| bluez.is_listening(&spot.address, TEMPERATURE)) {
                if told.insert(spot.address.clone()) {
                    assert!(bluez.notify(&spot.address, TEMPERATURE, &[0, 1, 2, 3, 4]));
                }
            }
            bluez.advertise(STRAP, -60);
            spots.iter().for_each(|spot| bluez.advertise(&spot.address, -60));
            radio.drain(Duration::from_millis(20)).await;
        }
        // Until the next health; they go on taking turns.
        let _ = timeout(Duration::from_millis(1_500), radio.drain(SOON)).await;
        let heard: BTreeSet<DeviceId> =
            radio.heard.iter().filter(|heard| heard.characteristic == TEMPERATURE).map(|heard| heard.device).collect();
        assert_eq!(heard, spots.iter().map(|spot| id(&spot.address)).collect());
        assert!(bluez.is_connected(STRAP) && radio.lost.iter().all(|(device, _)| *device != id(STRAP)), "{:?}", radio.lost);
        assert!(radio.health.made_room >= 2, "{:?}", radio.health);
        let [load] = &radio.health.adapters[..] else { panic!("{:?}", radio.health) };
        assert_eq!((&load.adapter[..], load.slots, load.taken), ("hci0", 2, 2));
        assert!(!load.waiting.is_empty());
        radio.end().await;
    });
}

#[test]
fn a_device_that_floods_is_held_to_its_rate_and_counted_and_the_others_lose_nothing() {
    on_a_bus("a_device_that_floods_is_held_to_its_rate_and_counted_and_the_others_lose_nothing", async |bus| {
        let other = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer");
        let bluez = room(&bus, &[&strap(), &other]);
        let quiet = |device| RadioDevice { read: vec![], ..wanted(device) };
        let mut radio = Radio::start(vec![quiet(&strap()), quiet(&other)]);
        wait_for("both", || bluez.is_listening(STRAP, HEART_RATE) && bluez.is_listening(THERMOMETER, TEMPERATURE)).await;
        const ROUNDS: u16 = 100;
        let mut flooded = 0;
        for round in 0..ROUNDS {
            flooded += (0..200).filter(|_| bluez.notify(STRAP, HEART_RATE, &round.to_be_bytes())).count();
            assert!(bluez.notify(THERMOMETER, TEMPERATURE, &round.to_be_bytes()));
            radio.drain(Duration::from_millis(1)).await;
        }
        assert_eq!(flooded, usize::from(ROUNDS) * 200);
        let of = |radio: &Radio, device: &str| radio.heard.iter().filter(|heard| heard.device == id(device)).count();
        let begun = Instant::now();
        loop {
            radio.drain(Duration::from_millis(50)).await;
            let dropped = radio.health.flooded.get(STRAP).copied().unwrap_or_default();
            if of(&radio, STRAP) + usize::try_from(dropped).unwrap() == flooded {
                break;
            }
            assert!(begun.elapsed() < 2 * SOON, "{flooded} were sent, {} heard, {dropped} counted", of(&radio, STRAP));
        }
        assert!(of(&radio, STRAP) < flooded / 2, "it was held back");
        let values = radio.heard.iter().filter(|heard| heard.device == id(THERMOMETER));
        let values: Vec<u16> = values.map(|heard| u16::from_be_bytes([heard.octets[0], heard.octets[1]])).collect();
        assert_eq!(values, (0..ROUNDS).collect::<Vec<_>>());
        assert_eq!(radio.health.flooded.len(), 1);
        assert_eq!(radio.lost, []);
        radio.end().await;
    });
}

/// What the system bus denies by default (system.conf), and what the packaged policy gives back to the user bedrail: here to us.
const STATS_DENIED: &str = r#"<policy context="default">
  <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
</policy>"#;

fn packaged_policy() -> String {
    let file = include_str!("../packaging/bedrail-dbus.conf");
    let (_, policy) = file.split_once("<busconfig>").unwrap();
    let us = rustix::process::getuid().as_raw().to_string();
    assert!(policy.contains("user=\"bedrail\""));
    policy.replace("</busconfig>", "").replace("user=\"bedrail\"", &format!("user=\"{us}\""))
}

#[test]
fn where_the_bus_does_not_tell_of_match_rules_there_is_no_number_and_that_is_counted() {
    let name = "where_the_bus_does_not_tell_of_match_rules_there_is_no_number_and_that_is_counted";
    on_a_bus_with(name, STATS_DENIED, LIMIT, |bus| {
        blocking(async {
            let _bluez = room(&bus, &[&strap()]);
            let mut radio = Radio::at_pace(vec![wanted(&strap())], EVENT_QUEUE, hasty());
            radio.ready(STRAP).await;
            let refused = |event: &RadioEvent| matches!(event, RadioEvent::Health(health) if health.match_rules_refused >= 3);
            radio.until("three refusals", refused).await;
            assert_eq!(radio.health.match_rules, None);
            radio.end().await;
        });
    });
}

#[test]
fn the_packaged_policy_lets_us_count_our_match_rules_and_no_more() {
    let name = "the_packaged_policy_lets_us_count_our_match_rules_and_no_more";
    on_a_bus_with(name, &(STATS_DENIED.to_owned() + &packaged_policy()), LIMIT, |bus| {
        blocking(async {
            let _bluez = room(&bus, &[&strap()]);
            let mut radio = Radio::at_pace(vec![wanted(&strap())], EVENT_QUEUE, hasty());
            let counted = |event: &RadioEvent| matches!(event, RadioEvent::Health(health) if health.match_rules.is_some_and(|rules| rules >= 4));
            radio.until("a count", counted).await;
            assert_eq!(radio.health.match_rules_refused, 0);
            let other = zbus::connection::Builder::address(bus.as_str()).build().await.unwrap();
            let stats = Some("org.freedesktop.DBus.Debug.Stats");
            let all = other.call_method(Some("org.freedesktop.DBus"), "/org/freedesktop/DBus", stats, "GetStats", &()).await;
            assert!(all.is_err(), "{all:?}");
            radio.end().await;
        });
    });
}

#[test]
fn a_bus_that_dies_ends_the_radio_and_one_that_is_missing_is_named() {
    on_a_bus("a_bus_that_dies_ends_the_radio_and_one_that_is_missing_is_named", async |bus| {
        let mut radio = Radio::start(vec![wanted(&strap())]);
        radio.adapter_usable(false).await;
        let connection = zbus::connection::Builder::address(bus.as_str()).build().await.unwrap();
        let proxy = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
        let pid = proxy.get_connection_unix_process_id("org.freedesktop.DBus".try_into().unwrap()).await.unwrap();
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let ended = timeout(SOON, radio.task).await.expect("it ends").unwrap();
        assert!(matches!(&ended, Err(RadioError::BusLost { address, .. }) if *address == bus), "{ended:?}");

        let radio = Radio::start(vec![]);
        let error = timeout(SOON, radio.task).await.expect("it ends").unwrap().unwrap_err();
        assert!(matches!(error, RadioError::NoBus { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&bus) && text.contains("dbus.service"), "{text}");
    });
}
