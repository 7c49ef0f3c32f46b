//! `bedrail scan-station`: a scanner on a serial line. Each code goes to the gateway, and what to do next is printed. The codes
//! themselves are printed nowhere.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::config;
use crate::daemon::{EXIT_CONFIG, EXIT_RUNTIME};
use crate::ward::{CodeReader, Phi};

/// A scanner that was unplugged is looked for this often.
const REOPEN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, clap::Args)]
pub struct ScanStationArgs {
    /// The scanner's serial line; absent: scan.input of the config
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// What the gateway tells this station from others by
    #[arg(long, value_name = "NAME", default_value = "station")]
    station: String,
    /// Speed of the line; of no meaning over USB
    #[arg(long, value_name = "BAUD", default_value_t = 9_600)]
    baud: u32,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: ScanStationArgs) -> ExitCode {
    let input = match args.input.clone().map_or_else(|| input_of(&args.config), Ok) {
        Ok(input) => input,
        Err(said) => {
            eprintln!("bedrail: {said}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let socket = match ask::socket(&args.config, Owner::Deliver) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let mut line = match open(&input, args.baud) {
        Ok(line) => line,
        Err(said) => {
            eprintln!("bedrail: {}: {said}", input.display());
            return ExitCode::from(EXIT_RUNTIME);
        }
    };
    let station = StationLine { socket, station: args.station, json: args.json };
    station.say(&json!({ "done": "ready", "say": "ready: scan a wristband" }));
    loop {
        let why = station.follow(line);
        station.say(&json!({ "done": "no_scanner", "say": format!("the scanner is gone ({why}); plug it in") }));
        line = loop {
            std::thread::sleep(REOPEN);
            if let Ok(line) = open(&input, args.baud) {
                break line;
            }
        };
        station.say(&json!({ "done": "ready", "say": "ready: scan a wristband" }));
    }
}

fn input_of(config: &ConfigArg) -> Result<PathBuf, String> {
    let loaded = config::load(&config.config).map_err(|errors| errors.to_string())?;
    let none = || "no scanner is named; give --input PATH, or write scan.input into the config".to_owned();
    loaded.settings.scan.input.ok_or_else(none)
}

/// Raw: a scanner's codes are no lines somebody edits, and nothing is echoed to it.
fn open(input: &Path, baud: u32) -> Result<File, String> {
    let flags = i32::try_from((OFlags::NOCTTY | OFlags::CLOEXEC).bits()).unwrap_or_default();
    let line = File::options().read(true).write(true).custom_flags(flags).open(input).map_err(|error| error.to_string())?;
    let mut modes = tcgetattr(&line).map_err(|_| {
        "it is no serial line; set the scanner to its serial mode (USB-COM): as a keyboard it would type wristbands into whatever console is open"
            .to_owned()
    })?;
    modes.make_raw();
    modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    modes.set_speed(baud).map_err(|error| format!("it does not know {baud} baud: {error}"))?;
    tcsetattr(&line, OptionalActions::Now, &modes).map_err(|error| error.to_string())?;
    Ok(line)
}

struct StationLine {
    socket: PathBuf,
    station: String,
    json: bool,
}

impl StationLine {
    /// Until the scanner is gone; why it is.
    fn follow(&self, mut line: File) -> String {
        let (mut reader, mut octets) = (CodeReader::default(), [0; 64]);
        let mut lapses: Option<Instant> = None;
        loop {
            let wait = lapses.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
            match poll(&mut [PollFd::new(&line, PollFlags::IN)], wait.as_ref()) {
                Ok(0) => {
                    lapses = None;
                    self.say(&json!({ "done": "lapsed", "say": "time is up: scan the wristband again" }));
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return error.to_string(),
                Ok(_) => {}
            }
            let count = match line.read(&mut octets) {
                Ok(0) => return "no more of it".to_owned(),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return error.to_string(),
            };
            for code in reader.take(&octets[..count]) {
                let answer = self.scanned(code);
                let within = answer["within_ms"].as_u64().map(Duration::from_millis);
                lapses = match answer["done"].as_str() {
                    // A misread takes no time from whoever is waited for.
                    Some("refused") if answer["keeps"] == true => lapses,
                    _ => within.map(|within| Instant::now() + within),
                };
                self.say(&answer);
            }
            octets.fill(0);
        }
    }

    fn scanned(&self, code: Option<Phi<String>>) -> Value {
        let Some(code) = code else {
            return json!({ "done": "refused", "keeps": true, "say": "that was no code of a wristband or a label; scan it again" });
        };
        let body = json!({ "station": self.station, "code": code.expose() }).to_string().into_bytes();
        ask::call(&self.socket, "POST", "/v1/scans", body)
            .unwrap_or_else(|error| json!({ "done": "failed", "say": format!("nothing was done: {error}") }))
    }

    fn say(&self, answer: &Value) {
        let text = if self.json { answer.to_string() } else { ask::text(answer, "say").into_owned() };
        let mut out = std::io::stdout().lock();
        // Nobody may be looking; the scans count all the same.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
