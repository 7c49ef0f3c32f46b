//! `bedrail devices`: the configured devices, as the collect half sees them at this moment.

use std::process::ExitCode;

use serde_json::Value;

use super::ConfigArg;
use super::ask::{self, Owner};

#[derive(Clone, Debug, clap::Args)]
pub struct DevicesArgs {
    /// Print one JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: DevicesArgs) -> ExitCode {
    ask::ask(&args.config, Owner::Collect, "GET", "/v1/status", Vec::new(), |status| {
        let devices = &status["devices"];
        if args.json { println!("{devices:#}") } else { print(devices) }
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
