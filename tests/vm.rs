//! The gateway beside a real bluetoothd on a real kernel, in a virtual machine, with virtual devices around it: what these
//! send is what arrives, whatever happens to radio, daemon and power. `make test-vm`; tests/vm/README.md.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::beacons::{BTHOME, KEY, KEY_DIGITS, plain, sealed};
use support::bluez::uuid16;
use support::devices::{Kind, Security, VirtualDevice};
use support::ledger::Arrived;
use support::process::wait_until;
use support::vm::{self, VmWard};

const BINARY: &str = env!("CARGO_BIN_EXE_bedrail");
const STRAP: &str = "A4:C1:38:00:00:01";
const OXIMETER: &str = "00:1C:05:00:00:02";
const THERMOMETER: &str = "A4:C1:38:00:00:03";
const CUFF: &str = "A4:C1:38:00:00:04";
const SECOND: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(30);

fn ward(devices: &[VirtualDevice]) -> VmWard {
    VmWard::new(BINARY, devices, &[])
}

fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap")
}

fn oximeter() -> VirtualDevice {
    VirtualDevice::new(Kind::OximeterContinuous, OXIMETER, "oximeter")
}

fn thermometer() -> VirtualDevice {
    VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer")
}

fn cuff() -> VirtualDevice {
    VirtualDevice::new(Kind::Cuff, CUFF, "cuff")
}

#[test]
fn values_of_four_kinds_reach_the_broker_as_they_were_sent() {
    if !vm::wanted("values_of_four_kinds_reach_the_broker_as_they_were_sent") {
        return;
    }
    let mut ward = ward(&[strap(), oximeter(), thermometer(), cuff()]);
    ward.start_gateway();
    ward.advertise();
    ward.measure_rounds(20, SECOND / 5);
    let report = ward.settle_with_all_sent(SETTLE);
    // Heart rate with up to two intervals, two of the oximeter, one of the thermometer, two of the cuff.
    assert!(report.arrived >= 20 * 6, "{report:?}");
    assert_eq!((report.sent, report.arrived), (report.made, report.made), "every one was listened to");
    assert_eq!(report.resolution_changed, 0);
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

/// The device wants an encrypted link; the config says how it may come to it.
fn bonding(device: VirtualDevice, security: Security, config: &str) -> VirtualDevice {
    device.with_security(security).with_config(config)
}

const JUST_WORKS: &str = "bond = \"just-works\"";

#[test]
fn a_bond_made_by_just_works_lasts_over_a_reboot_of_the_gateway() {
    if !vm::wanted("a_bond_made_by_just_works_lasts_over_a_reboot_of_the_gateway") {
        return;
    }
    let mut ward = ward(&[bonding(cuff(), Security::JustWorks, JUST_WORKS)]);
    ward.start_gateway();
    ward.advertise();
    ward.measure_rounds(3, SECOND);
    let bonded = ward.air.state(CUFF);
    assert!(bonded.encrypted && bonded.bonded, "{bonded:?}\n{}", ward.told());
    ward.settle_with_all_sent(SETTLE);
    ward.reboot();
    ward.wait_until_heard(vm::ward::CONNECT);
    ward.measure_rounds(3, SECOND);
    ward.settle_with_all_sent(SETTLE);
    assert!(ward.air.state(CUFF).encrypted, "{}", ward.told());
    assert_eq!(ward.air.count(CUFF, "paired"), 1, "the bond of before is used:\n{}", ward.told());
}

#[test]
fn a_device_that_may_not_bond_does_not_and_the_others_go_on() {
    if !vm::wanted("a_device_that_may_not_bond_does_not_and_the_others_go_on") {
        return;
    }
    let mut ward = ward(&[strap(), bonding(cuff(), Security::JustWorks, "bond = \"none\"")]);
    ward.start_gateway();
    ward.air.advertise(CUFF);
    ward.wait_for_status(CUFF, vm::ward::CONNECT * 2, |status| status["state"] == "lost");
    ward.air.advertise(STRAP);
    ward.wait_until_device_is_heard(STRAP, vm::ward::CONNECT * 2);
    for _ in 0..20 {
        ward.measure(|device| device.address == STRAP);
        std::thread::sleep(SECOND / 2);
    }
    let cuff = ward.air.state(CUFF);
    assert!(!cuff.bonded && !ward.air.is_listening(CUFF, support::devices::BLOOD_PRESSURE), "{cuff:?}");
    assert_eq!(ward.air.count(CUFF, "paired"), 0);
    ward.settle_with_all_sent(SETTLE);
    println!("the cuff is {}", ward.device_status(CUFF)["detail"]);
}

/// `bond = "passkey"` with the digits in a credential.
#[test]
fn a_passkey_from_the_config_bonds_and_a_wrong_one_does_not() {
    if !vm::wanted("a_passkey_from_the_config_bonds_and_a_wrong_one_does_not") {
        return;
    }
    let with = |name: &str| format!("bond = \"passkey\"\npasskey = {{ credential = \"{name}\" }}");
    let devices = [
        bonding(cuff(), Security::Passkey(123_456), &with("right-passkey")),
        bonding(thermometer(), Security::Passkey(654_321), &with("wrong-passkey")),
    ];
    let credentials = [("right-passkey", &b"123456"[..]), ("wrong-passkey", b"111111")];
    let mut ward = VmWard::new(BINARY, &devices, &credentials);
    ward.start_gateway();
    devices.iter().for_each(|device| ward.air.advertise(&device.address));
    ward.wait_until_device_is_heard(CUFF, vm::ward::CONNECT * 2);
    for _ in 0..3 {
        ward.measure(|device| device.address == CUFF);
        std::thread::sleep(SECOND);
    }
    ward.settle_with_all_sent(SETTLE);
    let state = ward.air.state(CUFF);
    assert!(state.bonded && state.encrypted, "{state:?}\n{}", ward.told());
    ward.wait_for_status(THERMOMETER, vm::ward::CONNECT * 2, |status| status["state"] == "lost");
    assert!(!ward.air.state(THERMOMETER).bonded, "{}", ward.told());
    ward.reboot();
    ward.wait_until_device_is_heard(CUFF, vm::ward::CONNECT * 2);
    assert_eq!(ward.air.count(CUFF, "paired"), 1, "the bond of before is used:\n{}", ward.told());
}

#[test]
fn a_device_that_lost_its_bond_is_never_paired_again_and_the_others_go_on() {
    if !vm::wanted("a_device_that_lost_its_bond_is_never_paired_again_and_the_others_go_on") {
        return;
    }
    let mut ward = ward(&[strap(), bonding(cuff(), Security::JustWorks, JUST_WORKS)]);
    ward.start_gateway();
    ward.advertise();
    ward.measure_rounds(3, SECOND);
    ward.settle_with_all_sent(SETTLE);
    ward.air.lose_bond(CUFF);
    ward.air.drop_link(CUFF);
    // What it does to the others in a minute is counted, and must not be all.
    let (mut heard, mut deaf) = (0, 0);
    for _ in 0..60 {
        std::thread::sleep(SECOND);
        match ward.air.is_listening(STRAP, support::devices::HEART_RATE) {
            true => heard += 1,
            false => deaf += 1,
        }
        ward.measure(|device| device.address == STRAP);
    }
    let crashes = ward.guest().must("grep -c 'bluetoothd ended' /run/log/bluetoothd; true");
    let oopses = ward.guest().must("dmesg | grep -c 'kernel BUG'; true");
    println!(
        "in a minute the strap was heard {heard} s and deaf {deaf} s; bluetoothd ended {} times, the kernel said BUG {} times; \
         the cuff connected {} times and is {}",
        crashes.trim(),
        oopses.trim(),
        ward.air.count(CUFF, "connected"),
        ward.device_status(CUFF)["detail"]
    );
    ward.air.away(CUFF);
    ward.wait_until_device_is_heard(STRAP, vm::ward::CONNECT * 2);
    ward.measure(|device| device.address == STRAP);
    ward.settle(SETTLE);
    assert_eq!(ward.air.count(CUFF, "paired"), 1, "it never pairs again by itself:\n{}", ward.told());
    // Tried anew at once each time, the cuff let the strap be heard for 6 of the 60 s.
    assert!(heard >= 40, "the strap was heard {heard} s:\n{}", ward.told());
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

#[test]
fn devices_out_of_range_switched_off_or_hung_up_are_heard_again() {
    if !vm::wanted("devices_out_of_range_switched_off_or_hung_up_are_heard_again") {
        return;
    }
    let mut ward = ward(&[strap(), thermometer()]);
    ward.start_gateway();
    ward.advertise();
    for round in 0..3 {
        ward.measure_rounds(3, SECOND / 2);
        match round {
            0 => ward.air.away(STRAP),
            1 => ward.air.away(THERMOMETER),
            _ => [STRAP, THERMOMETER].iter().for_each(|device| ward.air.drop_link(device)),
        }
        // A stream's values of now are lost, a thermometer's wait in it.
        ward.measure_rounds(3, SECOND);
        ward.advertise();
        ward.empty_devices(vm::ward::CONNECT);
    }
    let report = ward.settle_with_all_sent(SETTLE);
    let kept = ward.made().iter().filter(|made| made.device == THERMOMETER && !made.sent).count();
    assert_eq!(kept, 0, "what a thermometer keeps is sent in the end: {report:?}");
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

#[test]
fn malformed_and_empty_packets_are_counted_and_nothing_dies() {
    if !vm::wanted("malformed_and_empty_packets_are_counted_and_nothing_dies") {
        return;
    }
    let mut ward = ward(&[strap(), oximeter(), thermometer(), cuff()]);
    ward.start_gateway();
    ward.advertise();
    let devices: Vec<VirtualDevice> = ward.workers.iter().map(|worker| worker.device.clone()).collect();
    let packets: [&[u8]; 5] = [&[], &[0xff], &[0xff, 0x3c, 0, 0], &[0x1e, 0x42, 0x12], &[0xff; 6]];
    for packet in packets {
        for device in &devices {
            assert!(ward.air.notify(&device.address, device.characteristic(), packet));
        }
        ward.measure(|_| true);
        std::thread::sleep(SECOND / 2);
    }
    ward.settle_with_all_sent(SETTLE);
    for device in &devices {
        let status = ward.device_status(&device.address);
        let counts = status["rejected"].as_object().into_iter().flat_map(|all| all.values());
        let rejected: u64 = counts.filter_map(serde_json::Value::as_u64).sum();
        println!("{}: {}", device.name, status["rejected"]);
        assert!(rejected >= 3, "{status:#}");
        assert_eq!(status["state"], "connected", "{status:#}");
    }
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

#[test]
fn what_is_durable_survives_a_power_cut_of_the_gateway_in_mid_stream() {
    if !vm::wanted("what_is_durable_survives_a_power_cut_of_the_gateway_in_mid_stream") {
        return;
    }
    let mut ward = ward(&[strap(), oximeter(), thermometer(), cuff()]);
    ward.start_gateway();
    ward.advertise();
    for round in 0..2 {
        // Nobody takes it: it is on the gateway's disk alone.
        ward.broker.stop();
        ward.measure_rounds(20, SECOND / 5);
        let durable = ward.head();
        ward.measure_rounds(5, SECOND / 5);
        ward.cut_power();
        ward.measure_rounds(3, SECOND / 5);
        ward.broker.resume();
        ward.boot();
        ward.start_gateway();
        ward.wait_until_heard(vm::ward::CONNECT);
        ward.empty_devices(vm::ward::CONNECT);
        ward.measure_rounds(5, SECOND / 5);
        let report = ward.settle(SETTLE);
        assert_eq!(report.missing_seqs(durable), [0u64; 0], "durable and not arrived:\n{}", ward.told());
        println!("cut {round}: {durable} were durable, all arrived; {}", report.line(None));
        assert!(durable > 100 * (round + 1), "{durable}");
    }
}

#[test]
fn bluetoothd_killed_and_an_adapter_pulled_out_or_switched_off_cost_no_reading_that_was_sent() {
    if !vm::wanted("bluetoothd_killed_and_an_adapter_pulled_out_or_switched_off_cost_no_reading_that_was_sent") {
        return;
    }
    let mut ward = ward(&[strap(), thermometer()]);
    ward.start_gateway();
    ward.advertise();
    for trouble in ["killed", "killed", "pulled out", "switched off"] {
        ward.measure_rounds(3, SECOND / 2);
        // What is in flight at that moment has left the device and may be lost.
        std::thread::sleep(SECOND * 2);
        let connected = || [STRAP, THERMOMETER].map(|device| ward.air.count(device, "connected"));
        let before = connected();
        match trouble {
            "killed" => drop(ward.guest().must("kill -KILL $(cat /run/bluetoothd.pid)")),
            "pulled out" => {
                ward.air.set_plugged(false);
                ward.guest().unplug_adapter();
                ward.air.set_plugged(true);
                ward.guest().plug_adapter();
                ward.guest().set_powered(true);
            }
            _ => {
                ward.guest().set_powered(false);
                ward.guest().set_powered(true);
            }
        }
        // The kernel holds on to a link for 2 s after its owner died, and the device to its subscription.
        let begun = std::time::Instant::now();
        let again = |limit| support::process::wait_until(limit, || connected().iter().zip(before).all(|(now, then)| *now > then));
        assert!(again(vm::ward::CONNECT * 2), "{trouble}: not connected again:\n{}", ward.told());
        ward.wait_until_heard(vm::ward::CONNECT * 2);
        println!("{trouble}: both heard again after {:.1} s", begun.elapsed().as_secs_f64());
        ward.empty_devices(vm::ward::CONNECT);
    }
    ward.measure_rounds(3, SECOND / 2);
    ward.settle_with_all_sent(SETTLE);
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

#[test]
fn thirty_devices_stream_at_once_and_none_is_starved() {
    if !vm::wanted("thirty_devices_stream_at_once_and_none_is_starved") {
        return;
    }
    const EACH: usize = 20;
    let kind = |n: usize| if n.is_multiple_of(2) { Kind::HeartRateStrap } else { Kind::OximeterContinuous };
    let devices: Vec<VirtualDevice> =
        (0..30).map(|n| VirtualDevice::new(kind(n), &format!("00:1C:05:00:01:{n:02X}"), &format!("device-{n}"))).collect();
    let mut ward = ward(&devices);
    ward.start_gateway();
    let begun = std::time::Instant::now();
    devices.iter().for_each(|device| ward.air.advertise(&device.address));
    ward.wait_until_heard(SECOND * 300);
    println!("30 devices are listened to after {:.0} s", begun.elapsed().as_secs_f64());
    let begun = std::time::Instant::now();
    ward.measure_rounds(EACH, SECOND);
    let took = begun.elapsed().as_secs_f64();
    let report = ward.settle_with_all_sent(SETTLE * 2);
    println!("{} values in {took:.0} s", report.arrived);
    for device in &devices {
        let sent = ward.made().iter().filter(|made| made.device == device.address && made.sent).count();
        assert!(sent >= EACH, "{} was heard {sent} times:\n{}", device.name, ward.told());
    }
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

/// Who bonded such a device by hand has it under its own address, with the link of the pairing, over rotations and reboots.
#[test]
fn a_device_with_private_addresses_is_known_by_its_own_once_it_is_bonded() {
    if !vm::wanted("a_device_with_private_addresses_is_known_by_its_own_once_it_is_bonded") {
        return;
    }
    const OWN: &str = "C4:52:49:47:06:00";
    let private = VirtualDevice { privacy: true, ..VirtualDevice::new(Kind::Thermometer, OWN, "private-thermometer") };
    let mut ward = ward(&[bonding(private, Security::JustWorks, JUST_WORKS)]);
    ward.start_gateway();
    ward.air.advertise(OWN);
    std::thread::sleep(SECOND * 10);
    assert_eq!(ward.air.count(OWN, "connected"), 0, "nobody can know it by a private address");
    let shown = ward.air.state(OWN).address;
    assert_ne!(shown, OWN);
    let by_hand = format!(
        "(echo agent NoInputNoOutput; echo default-agent; echo scan le; sleep 4; echo scan off; sleep 1; echo pair {shown}; sleep 8; \
         echo quit) | bluetoothctl"
    );
    let said = ward.guest().must(&by_hand);
    assert!(ward.air.state(OWN).bonded, "{said}\n{}", ward.told());
    ward.wait_until_heard(vm::ward::CONNECT * 2);
    ward.measure_rounds(3, SECOND);
    ward.settle_with_all_sent(SETTLE);
    assert_eq!(ward.air.count(OWN, "connected"), 1, "the link of the pairing is taken over:\n{}", ward.told());
    println!("bluetoothd has it as {}", ward.guest().must("ls /var/lib/bluetooth/*/ | tr '\\n' ' '"));
    for again in 0..2 {
        ward.air.away(OWN);
        ward.air.rotate(OWN);
        if again == 1 {
            ward.reboot();
        }
        ward.air.advertise(OWN);
        ward.wait_until_heard(vm::ward::CONNECT * 2);
        ward.measure_rounds(3, SECOND);
        ward.settle_with_all_sent(SETTLE);
    }
    assert_ne!(ward.air.state(OWN).address, shown, "it moved on");
    assert_eq!(ward.air.count(OWN, "paired"), 1);
}

/// What arrived of a metric, each record once: its payload.
fn arrived(ward: &VmWard, metric: &str) -> Vec<serde_json::Value> {
    let mut records = std::collections::BTreeSet::new();
    let payloads = ward.records().into_iter().map(|message| message.payload).filter(|payload| payload["metric"] == metric);
    payloads.filter(|payload| records.insert(payload["record"].to_string())).collect()
}

fn until_there_are(ward: &VmWard, metric: &str, count: usize) -> Vec<serde_json::Value> {
    let came = support::process::wait_until(vm::ward::CONNECT * 2, || arrived(ward, metric).len() >= count);
    assert!(came, "{} of {count}\n{}", arrived(ward, metric).len(), ward.told());
    arrived(ward, metric)
}

fn now() -> i64 {
    support::devices::seconds(std::time::SystemTime::now())
}

#[test]
fn what_an_encrypted_device_advertises_reaches_the_broker_once_and_what_is_played_again_never() {
    if !vm::wanted("what_an_encrypted_device_advertises_reaches_the_broker_once_and_what_is_played_again_never") {
        return;
    }
    let lines = "advert = \"bthome_v2\"\nadvert_key = { credential = \"ear-key\" }";
    let ear = VirtualDevice::new(Kind::Thermometer, THERMOMETER, "ear").with_config(lines);
    // Its neighbour is connected to, which the scan has to wait for.
    let mut ward = VmWard::new(BINARY, &[strap(), ear], &[("ear-key", KEY_DIGITS)]);
    ward.start_gateway();
    ward.air.advertise(STRAP);
    ward.wait_until_device_is_heard(STRAP, vm::ward::CONNECT);
    ward.air.advertise(THERMOMETER);
    let say = |ward: &VmWard, octets: &[u8]| {
        ward.air.broadcast(THERMOMETER, uuid16(BTHOME), octets);
        // The scan begins anew every 2 s.
        std::thread::sleep(SECOND * 4);
    };
    let said: Vec<Vec<u8>> = (0..6u32).map(|n| sealed(THERMOMETER, KEY, n, 3_650 + i16::try_from(n).unwrap())).collect();
    said.iter().for_each(|octets| say(&ward, octets));
    said[..2].iter().for_each(|octets| say(&ward, octets));
    say(&ward, &plain(4_100));
    say(&ward, &sealed(THERMOMETER, [9; 16], 1_000, 4_100));
    let status = ward.wait_for_status(THERMOMETER, SETTLE, |status| {
        ["replayed", "not_encrypted", "decrypt_failed"].iter().all(|why| status["rejected"][why].as_u64() > Some(0))
    });
    let arrived = |ward: &VmWard, metric: &str| -> Vec<String> {
        let records = ward.records();
        let parsed = records.iter().filter_map(|message| Arrived::parse(&message.raw));
        parsed.filter(|record| record.metric.as_deref() == Some(metric)).filter_map(|record| record.value()).collect()
    };
    let expected: Vec<String> = (0..6).map(|n| format!("36.{}", 50 + n)).collect();
    let all = wait_until(SETTLE, || arrived(&ward, "body_temperature").len() >= expected.len());
    assert!(all, "{:?}\n{}", arrived(&ward, "body_temperature"), ward.told());
    ward.measure(|device| device.address == STRAP);
    assert!(wait_until(SETTLE, || arrived(&ward, "heart_rate").len() == 1), "{}", ward.told());
    assert_eq!(arrived(&ward, "body_temperature"), expected, "{}", ward.told());
    assert_eq!(ward.air.count(THERMOMETER, "connected"), 0);
    println!("refused {}, heard again {}", status["rejected"], status["duplicates"]);
}

#[test]
fn what_a_glucometer_stored_is_fetched_once_through_link_drops_and_kills() {
    if !vm::wanted("what_a_glucometer_stored_is_fetched_once_through_link_drops_and_kills") {
        return;
    }
    const METER: &str = "A4:C1:38:00:00:18";
    let meter = bonding(VirtualDevice::new(Kind::GlucoseMeter, METER, "meter"), Security::JustWorks, JUST_WORKS);
    let ward = ward(std::slice::from_ref(&meter));
    let began = now() - 86_400;
    let stored =
        |last: u16| -> Vec<_> { (1..=last).map(|n| (n, meter.value(n.into(), began + i64::from(n) * 60).octets)).collect() };
    let glucose = support::devices::GLUCOSE;
    ward.air.set_memory(METER, glucose, &stored(150), Some(25));
    ward.start_gateway();
    ward.air.advertise(METER);
    // It hangs up in the middle, and comes back.
    until_there_are(&ward, "glucose", 30);
    // The gateway is killed in the middle of the next transfer.
    ward.guest().must("kill -KILL $(pidof bedrail)");
    until_there_are(&ward, "glucose", 150);
    // It measures on.
    ward.wait_for_status(METER, SETTLE, |status| status["retrieved"]["outcome"] == "complete");
    ward.air.set_memory(METER, glucose, &stored(153), None);
    ward.air.drop_link(METER);
    let all = until_there_are(&ward, "glucose", 153);
    std::thread::sleep(SECOND * 2);
    let numbers: Vec<u64> = arrived(&ward, "glucose").iter().filter_map(|payload| payload["sequence"].as_u64()).collect();
    assert_eq!(numbers.len(), 153, "none twice: {numbers:?}");
    assert_eq!(numbers.iter().copied().collect::<std::collections::BTreeSet<_>>(), (1..=153).collect(), "none lost");
    assert!(all.iter().all(|payload| payload["lane"] == "backlog" && payload["security"] == "encrypted"), "{all:#?}");
    let asked = ward.air.written(METER, support::devices::RECORD_ACCESS);
    println!("the meter was asked {asked:?} over {} links", ward.air.count(METER, "connected"));
    assert!(asked.iter().all(|octets| octets.starts_with("01")), "nothing is deleted: {asked:?}");
    let [first, resumed, after_the_kill, last] = &asked[..] else { panic!("{asked:?}\n{}", ward.told()) };
    assert_eq!([first, after_the_kill, last], ["0101", "0101", "0103019700"], "it goes on behind what is durable");
    assert!(resumed.starts_with("010301"), "{resumed}");
}

#[test]
fn a_scale_with_users_tells_its_weights_once_their_slots_are_opened() {
    if !vm::wanted("a_scale_with_users_tells_its_weights_once_their_slots_are_opened") {
        return;
    }
    const SCALE: &str = "A4:C1:38:00:00:1B";
    use support::devices::{BODY_COMPOSITION, USER_CONTROL, composition, date_time};
    let device = VirtualDevice::new(Kind::BodyScale, SCALE, "scale").with_config("consent = { credential = \"scale-consent\" }");
    let ward = VmWard::new(BINARY, std::slice::from_ref(&device), &[("scale-consent", b"1 4711\n2 4242\n")]);
    let waits = [(USER_CONTROL, vec![0x20, 2, 1]), (BODY_COMPOSITION, composition(7, date_time(now()), 1).0)];
    let refused = [(USER_CONTROL, vec![0x20, 2, 5])];
    ward.air.set_answers(SCALE, USER_CONTROL, &[(&[2, 1, 0x67, 0x12], &waits), (&[2], &refused)]);
    ward.start_gateway();
    ward.advertise();
    let fat = until_there_are(&ward, "body_fat_percent", 1);
    assert_eq!((&fat[0]["user"], fat[0]["value"].as_f64()), (&serde_json::json!(1), Some(14.9)), "{fat:#?}");
    let consent = serde_json::json!({ "1": "granted", "2": "refused" });
    ward.wait_for_status(SCALE, SETTLE, |status| status["consent"] == consent);
    ward.air.drop_link(SCALE);
    let again = support::process::wait_until(vm::ward::CONNECT * 2, || ward.air.written(SCALE, USER_CONTROL).len() == 3);
    assert!(again, "{:?}\n{}", ward.air.written(SCALE, USER_CONTROL), ward.told());
    std::thread::sleep(SECOND * 3);
    let asked = ward.air.written(SCALE, USER_CONTROL);
    assert_eq!(asked, ["02016712", "02029210", "02016712"], "a wrong code is not tried again");
    assert_eq!(arrived(&ward, "body_fat_percent").len(), 1, "told again, it is the same");
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}

/// Nobody in the guest vouches for its clock: the device's own says what is old.
#[test]
fn a_thermometer_that_empties_its_memory_tells_backlog_and_its_clock_is_left_alone() {
    if !vm::wanted("a_thermometer_that_empties_its_memory_tells_backlog_and_its_clock_is_left_alone") {
        return;
    }
    let device = VirtualDevice {
        clock: support::devices::Clock::CurrentTime,
        clock_offset_s: -7_200,
        ..thermometer().with_config("set_clock = true")
    };
    let ward = ward(std::slice::from_ref(&device));
    ward.start_gateway();
    ward.advertise();
    let tell = |n: u64, at: i64| {
        let value = device.value(n, at);
        assert!(ward.air.notify(THERMOMETER, value.characteristic, &value.octets));
    };
    (0..5).for_each(|n| tell(n, now() - 1_800 + i64::try_from(n).unwrap() * 60));
    tell(5, now());
    let mut readings = until_there_are(&ward, "body_temperature", 6);
    // What is of now may arrive before the backlog.
    readings.sort_by_key(|reading| reading["seq"].as_u64());
    let how: Vec<_> = readings.iter().map(|reading| (reading["stored"] == true, reading["lane"] == "backlog")).collect();
    assert_eq!(how[..5], [(true, true); 5], "{readings:#?}");
    assert!(!how[5].0, "the last one is of now: {readings:#?}");
    std::thread::sleep(SECOND * 5);
    assert_eq!(ward.air.written(THERMOMETER, support::devices::CURRENT_TIME), Vec::<String>::new());
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}
