//! `bedrail pair` and `bedrail forget`: the bond with a device, made and removed by a person.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::api::MOST_SECONDS;
use crate::daemon::{EXIT_CONFIG, EXIT_RUNTIME};
use crate::radio::{BondState, STANDS_BY};

/// The status is renewed once a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is said that nothing has happened yet.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// A pairing that began with the last second of the time, and a link that is ended in an orderly way, take no longer.
const GRACE: Duration = Duration::from_secs(45);

#[derive(Clone, Debug, clap::Args)]
pub struct PairArgs {
    /// As named in the config
    device: String,
    /// How long to wait for the device
    #[arg(long, value_name = "N", default_value_t = STANDS_BY.as_secs(), value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    seconds: u64,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ForgetArgs {
    /// As named in the config
    device: String,
    /// Do not ask whether it is meant
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn pair(args: &PairArgs) -> ExitCode {
    let name = &args.device;
    let body = json!({ "seconds": args.seconds }).to_string();
    let socket = match ask::socket(&args.config, Owner::Collect) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let outcome = Asked::send(&socket, name, "pair", body).and_then(|asked| {
        eprintln!(
            "put device \"{name}\" into pairing mode now, as its manual says, near the gateway; waiting for {} s",
            args.seconds
        );
        let bond = asked.until(Duration::from_secs(args.seconds) + GRACE, |bond| bond != "bonding")?;
        let why = bond.detail.unwrap_or_else(|| "it was not heard, or did not answer".to_owned());
        match BondState::known(&bond.name) {
            Some("bonded") => Ok(format!("device \"{name}\" is bonded")),
            Some("refused" | "lost") => Err(why),
            _ => Err(format!(
                "device \"{name}\" was not paired within {} s: {why}; put it into pairing mode near the gateway, then \
                 `bedrail pair {name}` again",
                args.seconds
            )),
        }
    });
    finish(outcome)
}

pub fn forget(args: &ForgetArgs) -> ExitCode {
    let name = &args.device;
    if !args.yes && !is_meant(name) {
        return ExitCode::from(EXIT_CONFIG);
    }
    let socket = match ask::socket(&args.config, Owner::Collect) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let outcome = Asked::send(&socket, name, "forget", String::new()).and_then(|asked| {
        asked.until(GRACE, |bond| bond == "none")?;
        Ok(format!(
            "the bond with device \"{name}\" is forgotten; before it is heard again, put it into pairing mode and `bedrail pair {name}`"
        ))
    });
    finish(outcome)
}

fn finish(outcome: Result<String, String>) -> ExitCode {
    match outcome {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bedrail: {why}");
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

/// Whoever is not at a terminal says so on the command line.
fn is_meant(name: &str) -> bool {
    if !io::stdin().is_terminal() {
        eprintln!("bedrail: without a terminal to ask on, `bedrail forget {name} --yes`");
        return false;
    }
    eprint!("Forget the bond with device \"{name}\"? It tells nothing more until it is paired anew. [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    let meant = matches!(answer.trim(), "y" | "Y" | "yes");
    if !meant {
        eprintln!("bedrail: nothing was done");
    }
    meant
}

/// What was asked of the radio; what comes of it shows in the status.
struct Asked<'a> {
    socket: &'a Path,
    device: &'a str,
    /// How often the bond had changed before.
    before: u64,
}

struct Bond {
    name: String,
    detail: Option<String>,
}

impl<'a> Asked<'a> {
    fn send(socket: &'a Path, device: &'a str, what: &str, body: String) -> Result<Self, String> {
        let path = format!("/v1/devices/{}/{what}", ask::segment(device));
        let answer = ask::call(socket, "POST", &path, body.into_bytes()).map_err(|error| error.to_string())?;
        Ok(Self { socket, device, before: answer["bond_changes"].as_u64().unwrap_or_default() })
    }

    /// The bond as it is when it has changed and `is_over`.
    fn until(&self, limit: Duration, is_over: impl Fn(&str) -> bool) -> Result<Bond, String> {
        let (begun, mut said) = (Instant::now(), Instant::now());
        while begun.elapsed() < limit {
            let status = look(self.socket)?;
            let device = status["devices"].as_array().into_iter().flatten().find(|device| device["name"] == self.device);
            let device = device.unwrap_or(&Value::Null);
            let bond =
                Bond { name: ask::text(device, "bond").into_owned(), detail: device["detail"].as_str().map(str::to_owned) };
            if device["bond_changes"].as_u64() > Some(self.before) && is_over(&bond.name) {
                return Ok(bond);
            }
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                let detail = bond.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                eprintln!("{} s: not yet{detail}", begun.elapsed().as_secs());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(format!("nothing was heard of it in {} s; `bedrail devices` shows how it stands", limit.as_secs()))
    }
}

fn look(socket: &Path) -> Result<Value, String> {
    ask::call(socket, "GET", "/v1/status", Vec::new()).map_err(|error| error.to_string())
}
