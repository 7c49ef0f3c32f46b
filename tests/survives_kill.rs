//! What is durable arrives, whatever is killed, cut, black-holed, frozen or refused, in both process shapes. The short form
//! is a thousand readings; the long one (`make long-link`) twenty thousand records.

#![allow(clippy::unwrap_used)]

#[path = "survives_kill/faults.rs"]
mod faults;
mod support;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime};

use faults::{Fault, Faults, PATIENCE};
use support::devices::{Kind, MadeValue, VirtualDevice};
use support::ledger::Report;
use support::process::wait_until;
use support::rig::{Rig, Shape};

/// From a value on the air to the card: half a second of group commit, and what a busy machine adds.
const COMMIT_WINDOW: Duration = Duration::from_millis(2_000);
/// The devices that keep what they measured take part in every 25th round.
const KEEPERS_EVERY: usize = 25;
const EVERYTHING: &str = "carry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]\nstart = \"oldest\"";

/// What the route speaks, and whose word it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    V5Puback,
    V5Receipt,
    V311Puback,
    V311Receipt,
}

impl Promise {
    /// Lines of the route's section in the config.
    const fn config(self) -> &'static str {
        match self {
            Promise::V5Puback => "",
            Promise::V5Receipt => "settle = \"receipt\"\nreceipt_within = \"5 s\"",
            Promise::V311Puback => "protocol = \"3.1.1\"",
            Promise::V311Receipt => "protocol = \"3.1.1\"\nsettle = \"receipt\"\nreceipt_within = \"5 s\"",
        }
    }

    /// A broker of MQTT 3.1.1 acknowledges what its rules refuse, and only a receipt tells.
    const fn outlives(self, fault: Fault) -> bool {
        !matches!((self, fault), (Promise::V311Puback, Fault::Denied))
    }
}

const RECEIPTS: &str = "bedrail/gw-test/receipt/live";

fn is_long() -> bool {
    std::env::var_os("BEDRAIL_LONG").is_some()
}

/// How much of everything.
struct Plan {
    oximeters: u8,
    /// Rounds of the streams before each fault.
    rounds: usize,
    faults: Faults,
    /// Durable records there must be in the end.
    records: u64,
    settle: Duration,
}

impl Plan {
    fn chosen() -> Self {
        if is_long() { Self::long() } else { Self::short() }
    }

    fn short() -> Self {
        let counts = vec![
            (Fault::Kill, 5),
            (Fault::Reset, 5),
            (Fault::BlackHole, 1),
            (Fault::LostAcks, 1),
            (Fault::StopsReading, 1),
            (Fault::BrokerKilled, 1),
            (Fault::Denied, 1),
        ];
        let faults = Faults { counts, until_noticed: false };
        Self { oximeters: 1, rounds: 12, faults, records: 1_000, settle: Duration::from_secs(90) }
    }

    fn long() -> Self {
        let counts = vec![
            (Fault::Kill, 20),
            (Fault::Reset, 20),
            (Fault::BlackHole, 5),
            (Fault::LostAcks, 5),
            (Fault::StopsReading, 3),
            (Fault::BrokerKilled, 3),
            (Fault::Denied, 3),
        ];
        let faults = Faults { counts, until_noticed: true };
        Self { oximeters: 8, rounds: 18, faults, records: 20_000, settle: Duration::from_secs(300) }
    }

    fn devices(&self) -> Vec<VirtualDevice> {
        let mut devices = vec![
            VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap"),
            VirtualDevice::new(Kind::Thermometer, "A4:C1:38:00:00:03", "thermometer"),
            VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:04", "cuff"),
            VirtualDevice::new(Kind::Scale, "A4:C1:38:00:00:05", "scale"),
        ];
        devices.extend(
            (1..=self.oximeters).map(|n| {
                VirtualDevice::new(Kind::OximeterContinuous, &format!("00:1C:05:00:00:{n:02X}"), &format!("oximeter-{n}"))
            }),
        );
        devices
    }
}

#[test]
fn a_thousand_readings_survive_kills_and_resets_in_one_process() {
    survive(Shape::OneProcess, Promise::V5Puback);
    if is_long() {
        survive(Shape::OneProcess, Promise::V311Puback);
    }
}

#[test]
fn a_thousand_readings_survive_kills_and_resets_in_two_processes() {
    survive(Shape::TwoProcesses, Promise::V5Puback);
    if is_long() {
        survive(Shape::TwoProcesses, Promise::V311Puback);
    }
}

#[test]
fn with_receipts_a_thousand_readings_survive_a_broker_that_acknowledges_what_it_forbids() {
    survive(Shape::TwoProcesses, Promise::V311Receipt);
    if is_long() {
        survive(Shape::OneProcess, Promise::V311Receipt);
    }
}

/// What `settle = "puback"` does not promise (docs/mqtt.md): a broker that acknowledged, wrote nothing down and dies takes
/// along what its receivers had not fetched. That something is lost here also shows that a loss would be seen elsewhere.
#[test]
fn what_a_broker_acknowledged_and_forgot_is_lost_with_puback() {
    let (told, lost) = lost_behind_the_broker(Promise::V5Puback, faults::let_the_broker_forget);
    assert!(lost.len() > 10, "a broker without a memory lost {} records", lost.len());
    assert!(lost.iter().all(|seq| told.contains(seq)), "{lost:?} are not all among {told:?}");
}

#[test]
fn what_a_broker_acknowledged_and_forgot_comes_again_with_receipts() {
    let (told, lost) = lost_behind_the_broker(Promise::V5Receipt, faults::let_the_broker_forget);
    assert!(told.count() > 10);
    assert!(lost.is_empty(), "{lost:?} never came");
}

/// A broker of MQTT 3.1.1 has no way to refuse a message (docs/brokers.md).
#[test]
fn what_a_3_1_1_broker_forbids_is_acknowledged_and_lost_with_puback() {
    let (told, lost) = lost_behind_the_broker(Promise::V311Puback, faults::let_the_broker_forbid);
    assert!(!lost.is_empty(), "a broker that can't say no lost nothing");
    assert!(lost.iter().all(|seq| told.contains(seq)), "{lost:?} are not all among {told:?}");
}

/// The record numbers between which the broker acknowledged what it then lost, and those that never arrived.
fn lost_behind_the_broker(promise: Promise, trouble: fn(&mut Rig) -> RangeInclusive<u64>) -> (RangeInclusive<u64>, Vec<u64>) {
    let route = [EVERYTHING, promise.config()].join("\n");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &Plan::short().devices(), &route, "");
    let _receipts = rig.subscriber.confirm(RECEIPTS);
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(Duration::from_secs(30));
    let told = trouble(&mut rig);
    let head = rig.head();
    let report = support::ledger::compare(&rig.made(), &rig.records());
    report.assert_sound();
    let lost = report.missing_seqs(head);
    println!("{promise:?}: {} of {head} records lost behind the broker", lost.len());
    rig.stop();
    (told, lost)
}

fn survive(shape: Shape, promise: Promise) {
    let (mut plan, began) = (Plan::chosen(), Instant::now());
    plan.faults.counts.retain(|(fault, _)| promise.outlives(*fault));
    let route = [EVERYTHING, faults::KEEP_ALIVE, promise.config()].join("\n");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &plan.devices(), &route, "");
    let _receipts = (promise == Promise::V311Receipt).then(|| rig.subscriber.confirm(RECEIPTS));
    rig.start(shape);
    rig.wait_until_heard(Duration::from_secs(30));
    let mut outages = Vec::new();
    for fault in plan.faults.schedule() {
        for round in 0..plan.rounds {
            let keepers = (round + 1) % KEEPERS_EVERY.min(plan.rounds) == 0;
            rig.measure(|device| !device.keeps() || keepers);
            std::thread::sleep(Duration::from_millis(10));
        }
        match fault {
            Fault::Kill => outages.push(kill(&mut rig, outages.len())),
            Fault::Reset => faults::reset(&mut rig),
            Fault::BlackHole => faults::black_hole(&mut rig, plan.faults.until_noticed),
            Fault::LostAcks => faults::lose_acks(&mut rig),
            Fault::StopsReading => faults::stop_reading(&mut rig, plan.faults.until_noticed),
            Fault::BrokerKilled => faults::kill_broker(&mut rig),
            Fault::Denied => faults::deny(&mut rig),
        }
    }
    rig.empty_devices(PATIENCE);
    std::thread::sleep(COMMIT_WINDOW);
    let report = rig.settle(plan.settle);
    let made = rig.made();
    let (head, faults) = (rig.head(), said(&plan.faults.counts));
    let (arrived, seconds) = (head as usize - report.missing_seqs(head).len(), began.elapsed().as_secs());
    println!(
        "{shape:?}, {promise:?}: {head} records durable, {arrived} of them arrived, {} messages came again; values made: {}, \
         arrived: {}, not made: {}; out of order: {}; {faults}; {seconds} s",
        report.duplicated,
        report.made,
        report.arrived,
        report.not_made.len(),
        report.out_of_order.len(),
    );
    assert_eq!(arrived, head as usize, "durable and not arrived");
    assert!(head >= plan.records, "only {head} records are durable");
    report.assert_sound();
    assert_eq!(report.resolution_changed, 0, "digits changed on the way");
    let lost_acks = plan.faults.counts.iter().find(|(fault, _)| *fault == Fault::LostAcks).map_or(0, |(_, count)| *count);
    assert!(report.duplicated >= lost_acks, "acknowledgements were lost and only {} messages came again", report.duplicated);
    assert_lost_by_right(&rig, &made, &report, &outages);
    rig.stop();
}

fn said(counts: &[(Fault, usize)]) -> String {
    counts.iter().map(|(fault, count)| format!("{count} {fault:?}")).collect::<Vec<_>>().join(", ")
}

/// Answers from when to when nobody was there.
fn kill(rig: &mut Rig, number: usize) -> (SystemTime, SystemTime) {
    let victim = number % rig.daemons.len();
    // It has taken in what devices sent all at once when they were connected: on the air that takes them longer.
    faults::until_it_carries(rig);
    std::thread::sleep(Duration::from_millis(500));
    // Just before the kill, or before bluetoothd has seen that its client is gone: no device has two indications on the air.
    let before = number % 4 < 2;
    rig.measure(|device| !device.keeps() || before);
    let killed = SystemTime::now();
    rig.daemons[victim].kill9();
    rig.measure(|device| !device.keeps() || !before);
    // Of two processes the first has the radio.
    if victim == 0 {
        let gone = wait_until(PATIENCE, || rig.workers.iter().all(|worker| !worker.is_heard(&rig.bluez)));
        assert!(gone, "bluetoothd never saw that its client is gone");
    }
    (0..4).for_each(|_| rig.measure(|_| true));
    rig.daemons[victim].restart();
    rig.wait_until_heard(Duration::from_secs(60));
    (killed, SystemTime::now())
}

/// What was made and is not durable is no more than docs/guarantees.md admits.
fn assert_lost_by_right(rig: &Rig, made: &[MadeValue], report: &Report, outages: &[(SystemTime, SystemTime)]) {
    let keeps = |address: &str| rig.workers.iter().any(|worker| worker.device.address == address && worker.device.keeps());
    let lost: Vec<_> = report.missing.iter().map(|index| &made[*index]).collect();
    // What a device keeps until it is taken: one indication a kill may have been confirmed and not yet stored.
    let mut emissions: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for value in lost.iter().filter(|value| keeps(&value.device)) {
        *emissions.entry((&value.device, value.sequence)).or_default() += 1;
    }
    let keepers = rig.workers.iter().filter(|worker| worker.device.keeps()).count();
    assert!(emissions.len() <= outages.len() * keepers, "more than one indication lost per kill: {emissions:?}");
    // What a stream sends is lost only while nobody was there, and in the commit window before.
    for value in lost.iter().filter(|value| !keeps(&value.device)) {
        let excused =
            outages.iter().any(|(killed, back)| killed.checked_sub(COMMIT_WINDOW).unwrap() <= value.at && value.at <= *back);
        assert!(excused, "{value:?} was made while the daemon ran and is not durable");
    }
}
