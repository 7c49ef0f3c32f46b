//! A D-Bus "system bus" of the test's own: `DBUS_SYSTEM_BUS_ADDRESS` points a process at it before its first D-Bus call
//! (libdbus keeps the address for the life of the process, so one process means one bus).

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, wait_until};

/// Name of the environment variable that libdbus and zbus both read.
pub const ADDRESS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// `type` system gives the limits of the real one, such as 512 match rules a connection.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
  FURTHER
</busconfig>
"#;

pub struct PrivateBus {
    daemon: Process,
    directory: TempDir,
}

impl PrivateBus {
    pub fn start() -> Self {
        Self::with("")
    }

    /// `further` is added to its configuration: what comes last there counts.
    pub fn with(further: &str) -> Self {
        let directory = TempDir::new().expect("a directory for the bus");
        let config = CONFIG.replace("SOCKET", &socket(&directory)).replace("FURTHER", further);
        std::fs::write(configuration(&directory), config).expect("the bus configuration is written");
        let daemon = run(&directory);
        Self { daemon, directory }
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", socket(&self.directory))
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Ends the bus under everybody who is on it.
    pub fn kill(&mut self) {
        self.daemon.kill9();
    }

    /// A new bus at the old address.
    pub fn restart(&mut self) {
        self.kill();
        self.daemon = run(&self.directory);
    }
}

fn socket(directory: &TempDir) -> String {
    directory.path().join("bus").display().to_string()
}

fn configuration(directory: &TempDir) -> PathBuf {
    directory.path().join("bus.conf")
}

fn run(directory: &TempDir) -> Process {
    let (socket, config) = (socket(directory), configuration(directory));
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new("dbus-daemon");
    command.args(["--nofork", "--nosyslog", "--nopidfile"]).arg(format!("--config-file={}", config.display()));
    let daemon = Process::start(command, "dbus-daemon", &directory.path().join("bus.log"))
        .expect("dbus-daemon starts (Debian package dbus-daemon)");
    let listening = wait_until(Duration::from_secs(5), || UnixStream::connect(&socket).is_ok());
    assert!(listening, "dbus-daemon does not listen: {}", daemon.output());
    daemon
}

/// Runs `body` in a process of its own, a second run of this test executable on test `name` alone, with a private bus:
/// what a test of code that uses libdbus needs. `body` gets the bus's address.
pub fn on_a_bus_of_its_own(name: &str, limit: Duration, body: impl FnOnce(String)) {
    on_a_bus_with(name, "", limit, body);
}

/// The same on a bus whose configuration has `further` in it.
pub fn on_a_bus_with(name: &str, further: &str, limit: Duration, body: impl FnOnce(String)) {
    const CHILD_OF: &str = "BEDRAIL_TEST_CHILD_OF";
    if std::env::var(CHILD_OF).is_ok_and(|of| of == name) {
        return body(std::env::var(ADDRESS_VARIABLE).expect("the parent set it"));
    }
    let bus = PrivateBus::with(further);
    let mut command = Command::new(std::env::current_exe().expect("the test executable's own path"));
    command.args([name, "--exact", "--nocapture"]).env(CHILD_OF, name).env(ADDRESS_VARIABLE, bus.address());
    let mut child =
        Process::start(command, name, &bus.directory.path().join("child.log")).expect("the test executable runs again");
    let status = child.wait(limit);
    assert!(status.success(), "{name} failed in its own process:\n{}", child.output());
    assert!(child.output().contains("1 passed"), "no test is called {name}:\n{}", child.output());
    child.output().lines().filter(|line| line.starts_with("measured: ")).for_each(|line| println!("{line}"));
}
