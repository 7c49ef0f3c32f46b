//! `bedrail devices`: the configured devices, as the collect half sees them at this moment, and what becomes of one: another
//! takes its place, it goes out of service, it is made ready for the next patient.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::ConfigArg;
use super::ask::{self, Owner};

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevicesArgs {
    #[command(subcommand)]
    command: Option<DevicesCommand>,
    /// Print one JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum DevicesCommand {
    /// From now on NEW measures whom OLD measured and stands where it stood; OLD is retired
    Replace {
        old: String,
        new: String,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Out of service: nothing it says is anybody's, until it is cleaned
    Retire {
        device: String,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Ready for the next patient: what it measured until now and still keeps is nobody's
    Clean {
        device: String,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub fn run(args: DevicesArgs) -> ExitCode {
    match args.command {
        None => list(args.json, &args.config),
        Some(DevicesCommand::Replace { old, new, config }) => change(&config, &old, "replace", &json!({ "by": new }), |at| {
            println!("{new} is in the place of {old} since {at}; {old} is retired");
        }),
        Some(DevicesCommand::Retire { device, config }) => change(&config, &device, "retire", &Value::Null, |at| {
            println!("{device} is retired since {at}");
        }),
        Some(DevicesCommand::Clean { device, config }) => change(&config, &device, "clean", &Value::Null, |at| {
            println!("{device} is nobody's since {at}, and so is what it still keeps");
        }),
    }
}

fn change(config: &ConfigArg, device: &str, what: &str, body: &Value, done: impl Fn(&str)) -> ExitCode {
    let path = format!("/v1/devices/{}/{what}", ask::segment(device));
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    ask::ask(config, Owner::Deliver, "POST", &path, body, |answer| done(&ask::text(answer, "at")))
}

fn list(json: bool, config: &ConfigArg) -> ExitCode {
    ask::ask(config, Owner::Collect, "GET", "/v1/status", Vec::new(), |status| {
        let devices = &status["devices"];
        if json { println!("{devices:#}") } else { print(devices) }
    })
}

/// The table, and below it what keeps a device from being connected or its readings from going, and what to do about it.
fn print(devices: &Value) {
    let all = || devices.as_array().into_iter().flatten();
    let row = |device: &Value| {
        let fields = ["name", "kind", "address", "state", "bond", "security", "battery_percent", "last_reading_at"];
        fields.map(|field| ask::text(device, field).into_owned()).to_vec()
    };
    let head = ["DEVICE", "KIND", "ADDRESS", "STATE", "BOND", "SECURITY", "BATTERY", "LAST READING"];
    ask::table(&head, &all().map(row).collect::<Vec<_>>());
    for field in ["detail", "mismatch"] {
        for device in all().filter(|device| device[field].is_string()) {
            println!("{}: {}", ask::text(device, "name"), ask::text(device, field));
        }
    }
}
