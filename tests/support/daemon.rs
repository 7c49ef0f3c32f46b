//! The real binary, run as an operator would: a directory with config and credentials, a bus address in the environment,
//! standard error in a file.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::bus::ADDRESS_VARIABLE;
use super::devices::VirtualDevice;
use super::process::{Process, wait_until};

/// How long a start may take on a busy machine.
pub const START: Duration = Duration::from_secs(20);

/// A gateway's files in a directory of the test's own.
pub struct Site {
    directory: TempDir,
    /// What the gateway knows that directory as.
    seen: PathBuf,
}

/// Names of the three keys every gateway has, as the config's defaults call them.
pub const KEYS: [&str; 3] = ["site-key", "store-key", "ward-key"];

impl Site {
    /// With fresh keys of 32 random octets each, readable by the owner alone.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a directory for the gateway");
        let seen = directory.path().to_owned();
        Self::in_directory(directory, seen)
    }

    /// For a gateway that sees the same files elsewhere, such as in a guest.
    pub fn seen_at(seen: &str) -> Self {
        Self::in_directory(TempDir::new().expect("a directory for the gateway"), PathBuf::from(seen))
    }

    fn in_directory(directory: TempDir, seen: PathBuf) -> Self {
        let site = Self { directory, seen };
        for part in ["credentials", "state", "run"] {
            std::fs::create_dir(site.path(part)).expect("its directories are made");
        }
        for key in KEYS {
            site.credential(key, &random_octets());
        }
        site
    }

    pub fn path(&self, part: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(part)
    }

    /// The same as the gateway sees it.
    pub fn seen(&self, part: impl AsRef<Path>) -> PathBuf {
        self.seen.join(part)
    }

    pub fn credential(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.path("credentials").join(name);
        // One that is there already may not be written to.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, octets).expect("a credential is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).expect("its mode is set");
        path
    }

    pub fn config_file(&self) -> PathBuf {
        self.path("bedrail.toml")
    }

    /// Writes `gateway_section` of this site, the devices, and whatever `rest` holds (routes, beds, patients).
    pub fn config(&self, gateway: &str, devices: &[&VirtualDevice], rest: &str) -> PathBuf {
        let mut text = self.gateway_section(gateway);
        // The air of a test has room for all of them at once.
        let _ = writeln!(text, "\n[radio]\nconnections = 64");
        for device in devices {
            let (name, kind, address) = (&device.name, device.config_kind(), &device.address);
            let further = &device.config;
            let _ = writeln!(text, "\n[[device]]\nname = {name:?}\nkind = {kind:?}\naddress = {address:?}\n{further}");
        }
        let _ = writeln!(text, "\n{rest}");
        std::fs::write(self.config_file(), text).expect("the config is written");
        self.config_file()
    }

    pub fn gateway_section(&self, gateway: &str) -> String {
        let [state, run, credentials] = ["state", "run", "credentials"].map(|part| self.seen(part).display().to_string());
        format!("[gateway]\nid = {gateway:?}\nstate_dir = {state:?}\nruntime_dir = {run:?}\ncredentials_dir = {credentials:?}\n")
    }
}

/// An MQTT route as TOML. `tls` is the CA and, where the broker asks for one, a client certificate whose key must be the
/// credential `tls-key`. The broker is named by its address: a machine without /etc/hosts does not know `localhost`.
pub fn mqtt_route(name: &str, port: u16, tls: Option<(&Path, Option<&Path>)>, rest: &str) -> String {
    mqtt_route_to("127.0.0.1", name, port, tls, rest)
}

/// The same to a broker elsewhere.
pub fn mqtt_route_to(host: &str, name: &str, port: u16, tls: Option<(&Path, Option<&Path>)>, rest: &str) -> String {
    let scheme = if tls.is_some() { "mqtts" } else { "mqtt" };
    let mut text = format!("[[route]]\nname = {name:?}\nkind = \"mqtt\"\nurl = \"{scheme}://{host}:{port}\"\n{rest}\n");
    if let Some((ca, cert)) = tls {
        let _ = writeln!(text, "tls.ca = {:?}", ca.display().to_string());
        if let Some(cert) = cert {
            let _ = writeln!(text, "tls.cert = {:?}\ntls.key = {{ credential = \"tls-key\" }}", cert.display().to_string());
        }
    }
    text
}

fn random_octets() -> [u8; 32] {
    let mut octets = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").expect("the kernel's random numbers");
    std::io::Read::read_exact(&mut random, &mut octets).expect("32 of them");
    octets
}

/// One daemon process, restartable with the same arguments.
pub struct Daemon {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    /// Where this process's part of the log begins.
    log_start: usize,
    process: Process,
}

impl Daemon {
    /// `binary` is `env!("CARGO_BIN_EXE_bedrail")` in a test. Its output goes to `log`.
    pub fn start(binary: &Path, arguments: &[&str], log: &Path, bus: &str, environment: &[(&str, &str)]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut all = vec![(ADDRESS_VARIABLE.to_owned(), bus.to_owned())];
        all.extend(environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let (log_start, process) = spawn(binary, &arguments, &all, log);
        Self { binary: binary.to_owned(), arguments, environment: all, log: log.to_owned(), log_start, process }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What all its processes said.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// What it said since its last start.
    pub fn log_since_start(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// Its exit status, once it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.process.terminate(limit)
    }

    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// The same command again; the old process is killed if it still runs. The log goes on.
    pub fn restart(&mut self) {
        self.kill9();
        (self.log_start, self.process) = spawn(&self.binary, &self.arguments, &self.environment, &self.log);
    }

    /// Waits for a line since its last start that contains `text`; panics with the log when none comes or the daemon ends.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> String {
        let (mut line, mut ended) = (None, None);
        wait_until(limit, || {
            ended = self.ended();
            line = self.log_since_start().lines().find(|line| line.contains(text)).map(str::to_owned);
            line.is_some() || ended.is_some()
        });
        line.unwrap_or_else(|| panic!("no line with {text:?} (ended: {ended:?}) in:\n{}", self.log()))
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    }
}

fn spawn(binary: &Path, arguments: &[String], environment: &[(String, String)], log: &Path) -> (usize, Process) {
    let log_start = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    let mut command = Command::new(binary);
    // Otherwise a test run under systemd would make the daemon log to the journal.
    command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET").env_remove("CREDENTIALS_DIRECTORY");
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let process = Process::start(command, "bedrail", log).expect("the daemon's binary starts");
    (usize::try_from(log_start).expect("a log that fits"), process)
}

/// One run of a command to its end, with what it printed.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary as a command line tool; killed, and a panic, after `limit`.
pub fn run(binary: &Path, arguments: &[&str], environment: &[(&str, &str)], limit: Duration) -> Ran {
    run_with_input(binary, arguments, environment, b"", limit)
}

/// The same with something on its standard input.
pub fn run_with_input(binary: &Path, arguments: &[&str], environment: &[(&str, &str)], input: &[u8], limit: Duration) -> Ran {
    let directory = TempDir::new().expect("a directory for its output");
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| directory.path().join(name));
    let file = |path: &Path| std::fs::File::create(path).expect("a file for its output");
    let mut command = Command::new(binary);
    command.args(arguments).envs(environment.iter().copied()).env_remove("CREDENTIALS_DIRECTORY");
    command.stdin(std::process::Stdio::piped()).stdout(file(&stdout)).stderr(file(&stderr));
    let mut child = command.spawn().expect("the binary starts");
    // One that ended already wants no input; a pipe holds what a test gives.
    let _ = std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), input);
    let started = Instant::now();
    let ended = wait_until(limit, || child.try_wait().is_ok_and(|status| status.is_some()));
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().expect("it can be waited for").code();
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let ran = Ran { status, stdout: read(&stdout), stderr: read(&stderr) };
    assert!(ended, "{arguments:?} did not end in {:?}:\n{}{}", started.elapsed(), ran.stdout, ran.stderr);
    ran
}
