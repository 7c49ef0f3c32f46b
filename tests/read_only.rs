//! A card that takes no writes, for real: it dies under the running gateway, or is read-only or full when it starts. Either
//! way it stays up, says so, and goes on by itself.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;
use support::devices::{Kind, VirtualDevice};
use support::faults::{Card, SmallDisk, in_a_mount_namespace, skip};
use support::ledger::gaps;
use support::process::wait_until;
use support::rig::{Rig, Shape};

const LIMIT: Duration = Duration::from_secs(60);
const CARD_MIB: u64 = 48;

#[test]
fn a_card_that_dies_under_it_is_waited_for_and_what_was_durable_is_there_after_its_repair() {
    const NAME: &str = "a_card_that_dies_under_it_is_waited_for_and_what_was_durable_is_there_after_its_repair";
    if !in_a_mount_namespace(NAME) {
        return;
    }
    let mut rig = gateway();
    let Some(card) = Card::under(&rig, CARD_MIB) else { return skip(NAME, "no loop device") };
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 40);
    rig.settle(LIMIT);
    // Durable and not sent yet when the card dies.
    rig.proxy.refuse(true);
    rig.proxy.reset_all();
    let before = rig.head();
    assert!(
        wait_until(LIMIT, || {
            rounds(&mut rig, 10);
            rig.head() >= before + 40
        }),
        "{}",
        rig.logs()
    );
    let durable = rig.head();
    let made = rig.made().len();

    card.die();
    let degraded = wait_until(LIMIT, || {
        rounds(&mut rig, 10);
        disk(&rig)["degraded"].is_string()
    });
    assert!(degraded, "{}\n{}", disk(&rig), rig.logs());
    rounds(&mut rig, 20);
    std::thread::sleep(Duration::from_secs(2));
    let (status, told) = (disk(&rig), rig.ask(&["status"]));
    let directory = rig.site.path("state").display().to_string();
    assert!(told.contains(&format!("degraded: the disk of {directory}")), "{told}");
    // A kernel before 6.14 lets the write through and fails the sync: then the store is closed, and nothing waits.
    match status["state"].as_str() {
        Some("read_only") => assert!(status["waiting"].as_u64() > Some(0), "{status}"),
        state => assert_eq!(state, Some("failing"), "{status}"),
    }
    assert!(rig.daemons[0].ended().is_none(), "it ended:\n{}", rig.logs());
    assert_eq!(rig.daemons[0].log().matches(" started ").count(), 1, "it started over:\n{}", rig.logs());

    rig.daemons[0].kill9();
    card.repair();
    rig.proxy.pass();
    rig.daemons[0].restart();
    rig.wait_until_heard(LIMIT);
    assert!(rig.head() >= durable, "{} of {durable}", rig.head());
    rounds(&mut rig, 20);
    let report = settle(&rig);
    report.assert_sound();
    // What waited in memory was not durable and is gone with the process; nothing from before the card died is.
    let lost = report.missing.iter().filter(|index| **index < made && rig.made()[**index].sent).count();
    println!("made {made} before the card died; {lost} of them in the commit window then");
    assert!(report.seqs.range(..=durable).count() as u64 == durable, "a durable record did not arrive");
    rig.stop();
}

#[test]
fn a_start_on_a_read_only_disk_waits_says_so_and_begins_by_itself() {
    const NAME: &str = "a_start_on_a_read_only_disk_waits_says_so_and_begins_by_itself";
    if !in_a_mount_namespace(NAME) {
        return;
    }
    let mut rig = gateway();
    let Some(card) = Card::under(&rig, CARD_MIB) else { return skip(NAME, "no loop device") };
    let manager = Manager::of(&mut rig);
    // Once as it is at the very first start, once with a store.
    for (shape, store) in [(Shape::OneProcess, false), (Shape::TwoProcesses, true)] {
        card.remount("ro");
        rig.launch(shape);
        let told = waits(&mut rig, "takes no writes", "read_only");
        assert!(told.contains("mount it writable again"), "{told}");
        let heard = manager.heard();
        assert_eq!(heard.matches("READY=1").count(), rig.daemons.len(), "{heard}");
        assert!(heard.contains("STATUS=the disk of") && heard.contains("takes no writes"), "{heard}");
        let gaps_before = gaps(&rig.records(), "read_only").len();

        card.remount("rw");
        begins(&mut rig);
        assert!(manager.heard().contains("STATUS=running"));
        rounds(&mut rig, 20);
        std::thread::sleep(Duration::from_secs(1));
        settle(&rig).assert_sound();
        let told = wait_until(LIMIT, || gaps(&rig.records(), "read_only").len() == gaps_before + 1);
        let gaps = gaps(&rig.records(), "read_only");
        assert!(told, "the time without anybody listening is a gap record: {gaps:?}");
        // In a boot that had a clock before, it also says since when.
        assert!(!store || gaps[gaps_before]["from"].is_string(), "{gaps:?}");
        rig.stop();
    }
}

#[test]
fn a_start_on_a_full_disk_waits_says_so_and_begins_by_itself() {
    const NAME: &str = "a_start_on_a_full_disk_waits_says_so_and_begins_by_itself";
    if !in_a_mount_namespace(NAME) {
        return;
    }
    let mut rig = gateway();
    let disk = SmallDisk::under(&rig, 12);
    for (shape, store) in [(Shape::OneProcess, false), (Shape::TwoProcesses, true)] {
        assert!(!disk.has("ballast"), "twelve MiB are too few for one");
        disk.fill();
        rig.launch(shape);
        let told = waits(&mut rig, "is full", "full");
        assert!(told.contains("make room on it"), "{told}");
        assert_eq!(disk.has("bedrail.db.made"), store, "a store that is not whole is not one");
        disk.empty();
        begins(&mut rig);
        rounds(&mut rig, 20);
        std::thread::sleep(Duration::from_secs(1));
        settle(&rig).assert_sound();
        let told = wait_until(LIMIT, || !gaps(&rig.records(), "disk_full").is_empty());
        assert!(told, "{:?}\n{}", rig.records().len(), rig.logs());
        rig.stop();
    }
}

fn gateway() -> Rig {
    let devices = [
        VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap"),
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
    ];
    let carry = "carry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]\nstart = \"oldest\"";
    Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, carry, "[store]\nfree_floor = \"1 MiB\"\n")
}

fn rounds(rig: &mut Rig, rounds: u64) {
    for _ in 0..rounds {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn disk(rig: &Rig) -> Value {
    let ran = rig.bedrail(&["status", "--json"]);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    status["collect"]["disk"].clone()
}

fn settle(rig: &Rig) -> support::ledger::Report {
    rig.settle(LIMIT)
}

/// It runs without a store: it answers, refuses what needs one, uses no device, and neither ends nor starts over.
fn waits(rig: &mut Rig, what: &str, state: &str) -> String {
    let degraded = wait_until(LIMIT, || disk(rig)["state"] == state && rig.bedrail(&["route", "list"]).status == Some(0));
    assert!(degraded, "{}\n{}", disk(rig), rig.logs());
    let told = rig.ask(&["status"]);
    let directory = rig.site.path("state").display().to_string();
    assert!(told.contains(&format!("degraded: the disk of {directory} {what}")), "{told}");
    let route = rig.route_status("live");
    assert!(route["state"] == "down" && route["detail"].as_str().unwrap().contains(what), "{route}");
    for command in [&["route", "pause", "live"][..], &["pair", "strap"], &["scan"]] {
        let refused = rig.refused(command, 1);
        assert!(refused.contains(what), "{refused}");
    }
    rig.measure(|_| true);
    assert!(rig.made().iter().rev().take(2).all(|value| !value.sent), "somebody listens to a device");
    // It has looked again meanwhile.
    std::thread::sleep(Duration::from_millis(1_500));
    for daemon in &mut rig.daemons {
        assert!(daemon.ended().is_none(), "it ended:\n{}", daemon.log());
        assert_eq!(daemon.log_since_start().matches("degraded: ").count(), 1, "{}", daemon.log());
        assert!(!daemon.log_since_start().contains(" started "), "{}", daemon.log());
    }
    told
}

fn begins(rig: &mut Rig) {
    for daemon in &mut rig.daemons {
        daemon.wait_for_line("started", LIMIT);
    }
    rig.wait_until_heard(LIMIT);
    assert!(wait_until(LIMIT, || disk(rig)["degraded"].is_null() && disk(rig)["state"].is_string()), "{}", disk(rig));
}

/// What systemd is told.
struct Manager(UnixDatagram);

impl Manager {
    fn of(rig: &mut Rig) -> Self {
        let path = rig.site.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        rig.environment.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
        Self(socket)
    }

    /// Since it was last asked.
    fn heard(&self) -> String {
        let (mut all, mut message) = (String::new(), [0; 4_096]);
        while let Ok(length) = self.0.recv(&mut message) {
            all += &String::from_utf8_lossy(&message[..length]);
            all.push('\n');
        }
        all
    }
}
