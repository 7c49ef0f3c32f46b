//! `bedrail held`: what may not go yet, why, and a person's word about whose it is.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::reading::SubjectKey;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum HeldCommand {
    /// List what is held, and why
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show one run: why, when it was measured, and what would let it go
    Show {
        route: String,
        /// The first record of the run, as listed
        first: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Say whose these records are
    Assign {
        route: String,
        /// The first record of the run, as listed
        first: u64,
        /// Key of the patient
        patient: SubjectKey,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Say that these records are nobody's: they go to no chart
    Discard {
        route: String,
        /// The first record of the run, as listed
        first: u64,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub fn run(command: HeldCommand) -> ExitCode {
    match command {
        HeldCommand::List { json, config } => ask::ask(&config, Owner::Deliver, "GET", "/v1/held", Vec::new(), |answer| {
            if json {
                return println!("{answer:#}");
            }
            let fields = ["route", "first", "records", "device", "metric", "since", "why"];
            let rows = answer.as_array().into_iter().flatten();
            let rows = rows.map(|row| fields.map(|field| ask::text(row, field).into_owned()).to_vec());
            ask::table(&["ROUTE", "FIRST", "RECORDS", "DEVICE", "METRIC", "SINCE", "WHY"], &rows.collect::<Vec<_>>());
        }),
        HeldCommand::Show { route, first, json, config } => {
            let path = format!("/v1/held/{}/{first}", ask::segment(&route));
            ask::ask(&config, Owner::Deliver, "GET", &path, Vec::new(), |answer| {
                if json {
                    return println!("{answer:#}");
                }
                for field in ["route", "first", "last", "records", "device", "metric", "since", "until", "reason", "why"] {
                    println!("{field:<12} {}", ask::text(answer, field));
                }
                println!("{:<12} {}", "released by", ask::text(answer, "released_by"));
            })
        }
        HeldCommand::Assign { route, first, patient, config } => {
            let said = format!("belong to {patient}");
            name(&route, first, &json!({ "patient": patient }), &config, &said)
        }
        HeldCommand::Discard { route, first, config } => name(&route, first, &json!({}), &config, "go to no chart"),
    }
}

fn name(route: &str, first: u64, body: &Value, config: &ConfigArg, said: &str) -> ExitCode {
    let path = format!("/v1/held/{}/{first}", ask::segment(route));
    ask::ask(config, Owner::Deliver, "POST", &path, body.to_string().into_bytes(), |answer| {
        println!("{} records {said}", answer["records"]);
    })
}
