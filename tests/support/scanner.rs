//! `bedrail scan-station` at one end of a pseudo-terminal, and a scanner at the other.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::rig::Rig;

const SOON: Duration = Duration::from_secs(30);

pub struct Station {
    child: Child,
    scanner: File,
    said: Receiver<String>,
    /// All it printed.
    pub all: Vec<String>,
}

impl Station {
    /// Its first line says that it is ready.
    pub fn start(rig: &Rig, options: &[&str]) -> Self {
        let scanner = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&scanner).expect("granted");
        unlockpt(&scanner).expect("unlocked");
        let line = PathBuf::from(ptsname(&scanner, Vec::new()).expect("a name").into_string().expect("ASCII"));
        let mut child = Command::new(&rig.binary)
            .args(["scan-station", "--input"])
            .arg(&line)
            .arg("--config")
            .arg(rig.site.config_file())
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (tell, said) = channel();
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut station = Self { child, scanner: File::from(scanner), said, all: Vec::new() };
        let first = station.hears();
        assert!(first.contains("ready: scan a wristband"), "{first}");
        station
    }

    /// What it says to a code.
    pub fn scan(&mut self, code: &str) -> String {
        self.scanner.write_all(format!("{code}\r\n").as_bytes()).expect("the line takes it");
        self.hears()
    }

    pub fn hears(&mut self) -> String {
        let line = self.said.recv_timeout(SOON).expect("a line of feedback");
        self.all.push(line.clone());
        line
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
