//! A whole gateway whose disk fills up, or takes no writes: it stays up, says so, makes room where it may, and loses nothing
//! that was durable. Each test runs once more as a child in a mount namespace of its own, with the store on a small tmpfs.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::devices::{Kind, VirtualDevice};
use support::faults::{SmallDisk, Tracer, in_a_mount_namespace};
use support::process::wait_until;
use support::rig::{Rig, Shape};

const LIMIT: Duration = Duration::from_secs(60);
/// Of the tmpfs: the ballast is made where twice its 8 MiB are free.
const DISK_MIB: u64 = 32;

#[test]
fn a_full_disk_degrades_and_recovers_with_nothing_durable_lost() {
    if !in_a_mount_namespace("a_full_disk_degrades_and_recovers_with_nothing_durable_lost") {
        return;
    }
    let mut rig = gateway("[store]\nfree_floor = \"1 MiB\"\n");
    let disk = SmallDisk::under(&rig, DISK_MIB);
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 40);
    assert!(disk.has("ballast"), "there is room, so there is a ballast");
    assert_eq!(status(&rig)["state"], "ok");
    rig.settle(LIMIT);

    disk.fill();
    let freed = wait_until(LIMIT, || {
        rounds(&mut rig, 10);
        !disk.has("ballast")
    });
    assert!(freed, "the ballast stayed: {}\n{}", status(&rig), rig.logs());
    // Room to go on with: what is made now is durable and arrives.
    rounds(&mut rig, 40);
    let full = wait_until(LIMIT, || status(&rig)["state"] == "full");
    assert!(full, "{}\n{}", status(&rig), rig.logs());

    disk.fill_but(2 << 20);
    let evicted = wait_until(LIMIT, || {
        rounds(&mut rig, 10);
        status(&rig)["evicted"].as_u64().unwrap_or(0) > 0
    });
    assert!(evicted, "what is settled makes no room: {}\n{}", status(&rig), rig.logs());
    disk.fill();
    let degraded = wait_until(LIMIT, || {
        rounds(&mut rig, 20);
        disk.fill();
        status(&rig)["waiting"].as_u64().unwrap_or(0) > 0
    });
    assert!(degraded, "values do not wait: {}\n{}", status(&rig), rig.logs());
    rounds(&mut rig, 20);
    assert!(status(&rig)["degraded"].is_string());
    for daemon in &mut rig.daemons {
        assert!(daemon.ended().is_none(), "a half ended:\n{}", daemon.log());
    }

    disk.empty();
    let over = wait_until(LIMIT, || status(&rig)["degraded"].is_null() && status(&rig)["state"] == "ok" && disk.has("ballast"));
    assert!(over, "{}\n{}", status(&rig), rig.logs());
    rounds(&mut rig, 20);
    all_arrived(&mut rig);
}

#[test]
fn a_disk_that_takes_no_writes_is_waited_for_in_memory() {
    if !in_a_mount_namespace("a_disk_that_takes_no_writes_is_waited_for_in_memory") {
        return;
    }
    let mut rig = gateway("");
    let _disk = SmallDisk::under(&rig, DISK_MIB);
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 40);
    rig.settle(LIMIT);

    // A remount is refused while files are open for writing; a card that died says the same to each write.
    let tracers = read_only(&rig);
    let degraded = wait_until(LIMIT, || {
        rounds(&mut rig, 10);
        status(&rig)["state"] == "read_only" && status(&rig)["waiting"].as_u64().unwrap_or(0) > 0
    });
    assert!(degraded, "{}\n{}", status(&rig), rig.logs());
    std::thread::sleep(Duration::from_secs(3));
    for daemon in &mut rig.daemons {
        assert!(daemon.ended().is_none(), "a half ended:\n{}", daemon.log());
    }
    drop(tracers);
    let over = wait_until(LIMIT, || status(&rig)["degraded"].is_null());
    assert!(over, "{}\n{}", status(&rig), rig.logs());
    rounds(&mut rig, 20);
    all_arrived(&mut rig);
}

#[test]
fn a_disk_without_room_by_the_kernels_word_alone_is_waited_for_too() {
    let mut rig = gateway("");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 20);
    rig.settle(LIMIT);
    let tracer = Tracer::attach(rig.daemons[0].pid(), "pwrite64", "ENOSPC");
    let degraded = wait_until(LIMIT, || {
        rounds(&mut rig, 10);
        status(&rig)["state"] == "full" && status(&rig)["waiting"].as_u64().unwrap_or(0) > 0
    });
    assert!(degraded, "{}\n{}", status(&rig), rig.logs());
    let told = rig.ask(&["status"]);
    let directory = rig.site.path("state").display().to_string();
    assert!(told.contains(&format!("degraded: the disk of {directory} is full")), "{told}");
    assert!(rig.daemons[0].ended().is_none(), "{}", rig.logs());
    drop(tracer);
    let over = wait_until(LIMIT, || status(&rig)["degraded"].is_null());
    assert!(over, "{}\n{}", status(&rig), rig.logs());
    rounds(&mut rig, 20);
    all_arrived(&mut rig);
}

/// It is not repeated and believed: the databases are closed, and opened again when the disk syncs again.
#[test]
fn after_a_failed_fsync_the_store_is_opened_anew_and_what_it_reported_durable_is_there() {
    let mut rig = gateway("");
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 40);
    let durable = rig.head();
    let tracer = Tracer::attach(rig.daemons[0].pid(), "fsync,fdatasync", "EIO");
    let closed = wait_until(LIMIT, || {
        rounds(&mut rig, 5);
        rig.daemons[0].log().contains("degraded: the disk of")
    });
    assert!(closed, "it goes on after a failed fsync:\n{}", rig.logs());
    assert!(wait_until(LIMIT, || status(&rig)["state"] == "failing"), "{}\n{}", status(&rig), rig.logs());
    std::thread::sleep(Duration::from_secs(2));
    assert!(rig.daemons[0].ended().is_none(), "a half that ends is started over and over:\n{}", rig.logs());
    assert_eq!(rig.daemons[0].log().matches("started").count(), 1, "{}", rig.logs());
    drop(tracer);
    let again = wait_until(LIMIT, || rig.daemons[0].log().matches("started").count() == 2);
    assert!(again, "{}", rig.logs());
    rig.wait_until_heard(LIMIT);
    assert!(rig.head() >= durable);
    rounds(&mut rig, 20);
    std::thread::sleep(Duration::from_secs(1));
    let report = rig.settle(LIMIT);
    report.assert_sound();
    let gaps = support::ledger::gaps(&rig.records(), "read_only");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0]["from"].is_string() && gaps[0]["to"].is_string(), "since when nobody listened: {gaps:?}");
    rig.stop();
}

fn gateway(store: &str) -> Rig {
    let devices = [
        VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap"),
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
        VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:04", "cuff"),
    ];
    let carry = "carry = [\"readings\", \"events\", \"windows:1m\", \"windows:15m\"]\nstart = \"oldest\"";
    Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, carry, store)
}

fn rounds(rig: &mut Rig, rounds: u64) {
    for round in 0..rounds {
        rig.measure(|device| !device.keeps() || round == 0);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn status(rig: &Rig) -> Value {
    let ran = rig.bedrail(&["status", "--json"]);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    status["collect"]["disk"].clone()
}

/// The ring never overran, so all that was sent over the air is there in the end.
fn all_arrived(rig: &mut Rig) {
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(rig)["dropped"], 0);
    assert_eq!(status(rig)["evicted_unsettled"], 0);
    let report = wait_for_all(rig);
    report.assert_sound();
    assert_eq!(report.sent_but_missing(&rig.made()), 0, "{}", rig.logs());
    rig.stop();
}

fn wait_for_all(rig: &Rig) -> support::ledger::Report {
    let made = rig.made();
    let mut report = support::ledger::compare(&made, &rig.records());
    wait_until(LIMIT, || {
        report = support::ledger::compare(&made, &rig.records());
        report.sent_but_missing(&made) == 0
    });
    report
}

fn read_only(rig: &Rig) -> Vec<Tracer> {
    rig.daemons.iter().map(|daemon| Tracer::attach(daemon.pid(), "pwrite64", "EROFS")).collect()
}
