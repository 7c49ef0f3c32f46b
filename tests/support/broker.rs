//! Debian's mosquitto as a child on the loopback, always on the port it first got.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::pki::{Identity, Pki, run_quietly};
use super::process::{Process, wait_until};

/// How it is configured. Without `tls` it is plain TCP.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    pub tls: Option<BrokerTls>,
    /// (user, password) pairs; none means that anybody may come in.
    pub users: Vec<(String, String)>,
    /// Text of an ACL file.
    pub acl: Option<String>,
    pub persistence: bool,
    /// Further lines for the configuration file.
    pub extra: String,
}

#[derive(Clone, Debug)]
pub struct BrokerTls {
    pub ca: PathBuf,
    pub server: Identity,
    /// Clients must show a certificate of this CA; its common name is their user name unless there are passwords.
    pub require_certificate: bool,
}

impl BrokerOptions {
    /// TLS with a certificate on both sides.
    pub fn mutual_tls(pki: &Pki) -> Self {
        let tls = BrokerTls { ca: pki.ca(), server: pki.server(), require_certificate: true };
        Self { tls: Some(tls), ..Self::default() }
    }
}

pub struct Broker {
    directory: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Broker {
    pub fn start(options: &BrokerOptions) -> Self {
        let directory = TempDir::new().expect("a directory for the broker");
        let mut broker = Self { directory, port: free_port(), process: None };
        broker.configure(options);
        broker.resume();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its own, with room for what belongs to the same test.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// New options, valid from the next start.
    pub fn configure(&self, options: &BrokerOptions) {
        let file = |name: &str| self.directory.path().join(name);
        // Started as root it would become the user `mosquitto`, who can't read the test's files.
        let mut config = format!("user root\nlistener {} 127.0.0.1\nlog_type all\nlog_dest stderr\n", self.port);
        if let Some(tls) = &options.tls {
            let (ca, cert, key) = (tls.ca.display(), tls.server.cert.display(), tls.server.key.display());
            let _ =
                writeln!(config, "cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate {}", tls.require_certificate);
            let _ = writeln!(config, "use_identity_as_username {}", tls.require_certificate && options.users.is_empty());
        }
        let _ = writeln!(config, "allow_anonymous {}", options.users.is_empty());
        if !options.users.is_empty() {
            let passwords = file("passwords");
            std::fs::write(&passwords, "").expect("written");
            for (user, password) in &options.users {
                run_quietly(Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([user, password]));
            }
            let _ = writeln!(config, "password_file {}", passwords.display());
        }
        if let Some(acl) = &options.acl {
            std::fs::write(file("acl"), acl).expect("written");
            let _ = writeln!(config, "acl_file {}", file("acl").display());
        }
        // A receiver that is away must not lose messages to a limit of the broker.
        let _ = writeln!(config, "max_queued_messages 0\npersistence {}", options.persistence);
        let _ = writeln!(config, "persistence_location {}/\n{}", self.directory.path().display(), options.extra);
        std::fs::write(file("mosquitto.conf"), config).expect("the broker's configuration is written");
    }

    /// Starts it on its port and waits until it accepts.
    pub fn resume(&mut self) {
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(self.directory.path().join("mosquitto.conf"));
        let log = self.directory.path().join("mosquitto.log");
        let mut process = Process::start(command, "mosquitto", &log).expect("mosquitto starts (Debian package mosquitto)");
        let mut ended = false;
        let accepts = wait_until(Duration::from_secs(10), || {
            ended = process.ended().is_some();
            ended || TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        assert!(accepts && !ended, "mosquitto does not accept:\n{}", process.output());
        self.process = Some(process);
    }

    /// Reads access rules and passwords of new options; connections stand.
    pub fn reload(&self, options: &BrokerOptions) {
        self.configure(options);
        let process = self.process.as_ref().expect("a broker that runs");
        process.signal(rustix::process::Signal::HUP);
        let reloaded = wait_until(Duration::from_secs(5), || process.output().contains("Reloading config"));
        assert!(reloaded, "mosquitto did not read its configuration again:\n{}", process.output());
    }

    /// An orderly end: it writes its database, if it has one.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate(Duration::from_secs(10));
        }
    }

    /// It runs no more and hangs up on nobody: the kernel takes what fits, then nothing.
    pub fn freeze(&self) {
        self.process.as_ref().expect("a broker that runs").signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.as_ref().expect("a broker that was frozen").signal(rustix::process::Signal::CONT);
    }

    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Everything it logged since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("mosquitto.log")).unwrap_or_default()
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
