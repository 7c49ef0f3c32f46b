//! `bedrail decide`: corrections that wait for a person.

use std::process::ExitCode;

use serde_json::json;

use super::ConfigArg;
use super::ask::{self, Owner};

#[derive(Clone, Debug, clap::Subcommand)]
pub enum DecideCommand {
    /// List what stands in a chart it does not belong to
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Take it back and send it to where it belongs
    Accept(EntryArgs),
    /// Leave it where it is
    Refuse(EntryArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct EntryArgs {
    route: String,
    /// The first record of the entry, as listed
    first: u64,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(command: DecideCommand) -> ExitCode {
    match command {
        DecideCommand::List { json, config } => ask::ask(&config, Owner::Deliver, "GET", "/v1/decisions", Vec::new(), |answer| {
            if json {
                return println!("{answer:#}");
            }
            let fields = ["route", "first", "records", "device", "metric", "stands_with"];
            let rows = answer.as_array().into_iter().flatten();
            let rows = rows.map(|row| fields.map(|field| ask::text(row, field).into_owned()).to_vec());
            ask::table(&["ROUTE", "FIRST", "RECORDS", "DEVICE", "METRIC", "STANDS WITH"], &rows.collect::<Vec<_>>());
        }),
        DecideCommand::Accept(entry) => decide(&entry, true),
        DecideCommand::Refuse(entry) => decide(&entry, false),
    }
}

fn decide(entry: &EntryArgs, accept: bool) -> ExitCode {
    let path = format!("/v1/decisions/{}/{}", ask::segment(&entry.route), entry.first);
    let body = json!({ "accept": accept }).to_string().into_bytes();
    ask::ask(&entry.config, Owner::Deliver, "POST", &path, body, |answer| {
        let records = &answer["records"];
        match accept {
            true => println!("route {}: {records} records are taken back and go to where they belong", entry.route),
            false => println!("route {}: {records} records stay where they are", entry.route),
        }
    })
}
