//! Disks and system calls that fail on demand. A test that mounts something runs once more as a child in a mount namespace of
//! its own, so that whatever happens nothing stays mounted.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::pki::run_quietly;
use super::process::wait_until;
use super::rig::Rig;

/// Set in the child.
const INSIDE: &str = "BEDRAIL_TEST_NAMESPACE";

/// Runs the test named so once more, in a mount namespace of its own; `true` inside.
pub fn in_a_mount_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let works = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !rustix::process::geteuid().is_root() || !works {
        skip(name, "mount namespaces need root");
        return false;
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().expect("the test executable's own path"));
    again.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = again.output().expect("the test executable runs again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "it did not run: {text}");
    if let Some(line) = text.lines().find(|line| line.starts_with("SKIPPED")) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    false
}

/// Where `scripts/skips.sh` finds it.
pub fn skip(name: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

pub fn tool(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).exists()))
}

/// The state directory as it is, on a disk of its own.
struct Moved(Vec<(PathBuf, Vec<u8>, fs::Permissions)>);

impl Moved {
    fn read(directory: &Path) -> Self {
        let entries = fs::read_dir(directory).expect("the state directory").map(|entry| entry.expect("an entry").path());
        let file = |path: PathBuf| {
            let permissions = fs::metadata(&path).expect("its metadata").permissions();
            (path.clone(), fs::read(&path).expect("its content"), permissions)
        };
        Self(entries.filter(|path| path.is_file()).map(file).collect())
    }

    fn write(self) {
        for (path, octets, permissions) in self.0 {
            fs::write(&path, octets).expect("it is written");
            fs::set_permissions(&path, permissions).expect("its mode is set");
            fs::File::open(&path).and_then(|file| file.sync_all()).expect("it is on the disk");
        }
    }
}

/// A tmpfs in the place of the state directory, with what was in there.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    pub fn under(rig: &Rig, mib: u64) -> Self {
        let path = rig.site.path("state");
        let files = Moved::read(&path);
        let options = format!("size={mib}m,mode=0755");
        run_quietly(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path));
        files.write();
        Self { path }
    }

    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Takes what is left, to the last page.
    pub fn fill(&self) {
        self.fill_but(0);
    }

    pub fn fill_but(&self, left: u64) {
        let mut file = fs::File::options().create(true).append(true).open(self.path.join("filler")).expect("a file to fill it");
        let free = || rustix::fs::statvfs(&self.path).map(|stat| stat.f_bavail * stat.f_frsize).expect("how full it is");
        while (left == 0 || free() > left) && file.write_all(&[0; 4_096]).is_ok() {}
    }

    pub fn empty(&self) {
        fs::remove_file(self.path.join("filler")).expect("what filled it");
    }
}

/// A memory card: ext4 in a file, in the place of the state directory.
pub struct Card {
    image: PathBuf,
    path: PathBuf,
}

impl Card {
    /// `None`: this machine has no loop devices.
    pub fn under(rig: &Rig, mib: u64) -> Option<Self> {
        let card = Self { image: rig.site.path("card.img"), path: rig.site.path("state") };
        let files = Moved::read(&card.path);
        fs::File::create(&card.image).and_then(|file| file.set_len(mib << 20)).expect("room for an image");
        run_quietly(Command::new("mkfs.ext4").arg("-q").arg(&card.image));
        let mounted = card.mount_command().output().expect("mount runs");
        if !mounted.status.success() {
            println!("no loop device: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        files.write();
        Some(card)
    }

    fn mount_command(&self) -> Command {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&self.image).arg(&self.path);
        mount
    }

    /// What the kernel does when it finds the file system broken: from now on nothing is written, whatever is open.
    pub fn die(&self) {
        self.remount("abort");
    }

    /// While nothing is open for writing.
    pub fn remount(&self, how: &str) {
        run_quietly(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.path));
    }

    /// Taken out, repaired, and put in again.
    pub fn repair(&self) {
        run_quietly(Command::new("umount").arg(&self.path));
        // 1: there was something to repair.
        let checked = Command::new("e2fsck").arg("-fy").arg(&self.image).output().expect("e2fsck runs");
        assert!(checked.status.code().is_some_and(|code| code <= 1), "{checked:?}");
        run_quietly(&mut self.mount_command());
    }
}

/// strace on all threads of a running process, making its calls fail until it is dropped.
pub struct Tracer(Child);

impl Tracer {
    pub fn attach(pid: u32, calls: &str, error: &str) -> Self {
        let inject = format!("inject={calls}:error={error}");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject, "-p", &pid.to_string()]);
        let tracer = Self(command.spawn().expect("strace starts (Debian package strace)"));
        let traced = || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| !text.contains("TracerPid:\t0\n"));
        assert!(wait_until(Duration::from_secs(20), traced), "strace does not attach");
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
