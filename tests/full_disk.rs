//! A whole gateway whose disk fills up, or takes no writes: it stays up, says so, makes room where it may, and loses nothing
//! that was durable. Each test runs once more as a child in a mount namespace of its own, with the store on a small tmpfs.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

/// Set in the child.
const INSIDE: &str = "BEDRAIL_TEST_NAMESPACE";
const LIMIT: Duration = Duration::from_secs(60);
/// Of the tmpfs: the ballast is made where twice its 8 MiB are free.
const DISK_MIB: u64 = 32;

#[test]
fn a_full_disk_degrades_and_recovers_with_nothing_durable_lost() {
    let Some(()) = inside("a_full_disk_degrades_and_recovers_with_nothing_durable_lost") else { return };
    let mut rig = gateway("[store]\nfree_floor = \"1 MiB\"\n");
    let disk = SmallDisk::under(&rig);
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
    let Some(()) = inside("a_disk_that_takes_no_writes_is_waited_for_in_memory") else { return };
    if !tool("strace") {
        println!("SKIPPED a_disk_that_takes_no_writes_is_waited_for_in_memory: no strace");
        return;
    }
    let mut rig = gateway("");
    let _disk = SmallDisk::under(&rig);
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
    tracers.into_iter().for_each(Tracer::stop);
    let over = wait_until(LIMIT, || status(&rig)["degraded"].is_null());
    assert!(over, "{}\n{}", status(&rig), rig.logs());
    rounds(&mut rig, 20);
    all_arrived(&mut rig);
}

#[test]
fn a_failed_fsync_ends_the_half_and_what_it_reported_durable_is_there() {
    let Some(()) = inside("a_failed_fsync_ends_the_half_and_what_it_reported_durable_is_there") else { return };
    if !tool("strace") {
        println!("SKIPPED a_failed_fsync_ends_the_half_and_what_it_reported_durable_is_there: no strace");
        return;
    }
    let mut rig = gateway("");
    let _disk = SmallDisk::under(&rig);
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 40);
    let durable = rig.head();
    let tracer = Tracer::attach(rig.daemons[0].pid(), "fsync,fdatasync", "EIO");
    let ended = wait_until(LIMIT, || {
        rounds(&mut rig, 5);
        rig.daemons[0].ended().is_some()
    });
    assert!(ended, "it goes on after a failed fsync:\n{}", rig.logs());
    assert_eq!(rig.daemons[0].ended().unwrap().code(), Some(75), "{}", rig.logs());
    drop(tracer);
    rig.daemons[0].restart();
    rig.wait_until_heard(LIMIT);
    assert!(rig.head() >= durable);
    rounds(&mut rig, 20);
    std::thread::sleep(Duration::from_secs(1));
    rig.settle(LIMIT).assert_sound();
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

/// A tmpfs in the place of the state directory, with what was in there.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn under(rig: &Rig) -> Self {
        let path = rig.site.path("state");
        let files: Vec<(PathBuf, Vec<u8>, fs::Permissions)> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|file| (file.clone(), fs::read(&file).unwrap(), fs::metadata(&file).unwrap().permissions()))
            .collect();
        let size = format!("size={DISK_MIB}m,mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status().unwrap();
        assert!(mounted.success());
        for (file, octets, permissions) in files {
            fs::write(&file, octets).unwrap();
            fs::set_permissions(&file, permissions).unwrap();
        }
        Self { path }
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Takes what is left, to the last page.
    fn fill(&self) {
        self.fill_but(0);
    }

    fn fill_but(&self, left: u64) {
        use std::io::Write as _;
        let mut file = fs::File::options().create(true).append(true).open(self.path.join("filler")).unwrap();
        let free = || rustix::fs::statvfs(&self.path).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
        while (left == 0 || free() > left) && file.write_all(&[0; 4_096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

/// strace on all threads of a running process, making its calls fail.
struct Tracer(std::process::Child);

impl Tracer {
    fn attach(pid: u32, calls: &str, error: &str) -> Self {
        let inject = format!("inject={calls}:error={error}");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject, "-p", &pid.to_string()]);
        let tracer = Self(command.spawn().unwrap());
        let traced = || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| !text.contains("TracerPid:\t0\n"));
        assert!(wait_until(Duration::from_secs(20), traced), "strace does not attach");
        tracer
    }

    fn stop(self) {}
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn read_only(rig: &Rig) -> Vec<Tracer> {
    rig.daemons.iter().map(|daemon| Tracer::attach(daemon.pid(), "pwrite64", "EROFS")).collect()
}

/// Runs the test named so once more, in a mount namespace of its own; `Some` inside.
fn inside(name: &str) -> Option<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Some(());
    }
    if !rustix::process::geteuid().is_root() || !tool("unshare") || !namespaces_work() {
        println!("SKIPPED {name}: mount namespaces need root");
        return None;
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|line| println!("{line}"));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "it did not run: {text}");
    None
}

fn namespaces_work() -> bool {
    Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success())
}

fn tool(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).exists()))
        || Path::new("/usr/bin").join(name).exists()
}
