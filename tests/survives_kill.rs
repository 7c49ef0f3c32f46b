//! What is durable arrives, whatever is killed or cut: five kill -9 and five connection resets, in both process shapes.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use support::devices::{Kind, VirtualDevice};
use support::rig::{Rig, Shape};

/// Rounds of the streams, four values each; the devices that keep what they measured take part in every 25th.
const ROUNDS: u64 = 250;
const KEEPERS_EVERY: u64 = 25;
const KILLS: u64 = 5;
/// From a value on the air to the card: half a second of group commit, and what a busy machine adds.
const COMMIT_WINDOW: Duration = Duration::from_millis(2_000);
const SETTLE: Duration = Duration::from_secs(90);

#[test]
fn a_thousand_readings_survive_kills_and_resets_in_one_process() {
    survive(Shape::OneProcess);
}

#[test]
fn a_thousand_readings_survive_kills_and_resets_in_two_processes() {
    survive(Shape::TwoProcesses);
}

fn survive(shape: Shape) {
    let devices = [
        VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap"),
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
        VirtualDevice::new(Kind::Thermometer, "A4:C1:38:00:00:03", "thermometer"),
        VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:04", "cuff"),
    ];
    let carry = "carry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]\nstart = \"oldest\"";
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, carry, "");
    rig.start(shape);
    rig.wait_until_heard(Duration::from_secs(30));
    let mut outages: Vec<(SystemTime, SystemTime)> = Vec::new();
    let every = ROUNDS / (KILLS + 1);
    for round in 1..=ROUNDS {
        let killing = round % every == 0 && round / every <= KILLS;
        rig.measure(|device| !device.keeps() || round % KEEPERS_EVERY == 0 || killing);
        std::thread::sleep(Duration::from_millis(10));
        if round % every == every / 2 {
            rig.proxy.reset_all();
        }
        if killing {
            let victim = (round / every) as usize % rig.daemons.len();
            let killed = SystemTime::now();
            rig.daemons[victim].kill9();
            // Devices go on measuring while nobody is there: once before bluetoothd has seen that its client is gone.
            rig.measure(|_| true);
            std::thread::sleep(Duration::from_millis(100));
            (0..4).for_each(|_| rig.measure(|_| true));
            rig.daemons[victim].restart();
            rig.wait_until_heard(Duration::from_secs(60));
            outages.push((killed, SystemTime::now()));
        }
    }
    rig.empty_devices(Duration::from_secs(60));
    std::thread::sleep(COMMIT_WINDOW);
    let report = rig.settle(SETTLE);
    let made = rig.made();
    println!("{shape:?}: {}", report.line(None));
    assert!(made.len() >= 1_000, "only {} readings were made", made.len());
    assert!(outages.len() as u64 == KILLS);
    report.assert_sound();
    assert_eq!(report.resolution_changed, 0, "digits changed on the way");

    let keeps = |address: &str| devices.iter().any(|device| device.address == address && device.keeps());
    let lost: Vec<_> = report.missing.iter().map(|index| &made[*index]).collect();
    // What a device keeps until it is taken: one indication a kill may have been confirmed and not yet stored.
    let mut emissions: Vec<(&str, u64)> =
        lost.iter().filter(|value| keeps(&value.device)).map(|value| (value.device.as_str(), value.sequence)).collect();
    emissions.dedup();
    let keepers = devices.iter().filter(|device| device.keeps()).count() as u64;
    assert!(emissions.len() as u64 <= KILLS * keepers, "more than one indication lost per kill: {emissions:?}");
    // What a stream sends is lost only while nobody was there, and in the commit window before.
    for value in lost.iter().filter(|value| !keeps(&value.device)) {
        let excused =
            outages.iter().any(|(killed, back)| killed.checked_sub(COMMIT_WINDOW).unwrap() <= value.at && value.at <= *back);
        assert!(excused, "{value:?} was made while the daemon ran and is not durable");
    }
    rig.stop();
}
