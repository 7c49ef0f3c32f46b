//! `bedrail ward`: who is where, by the keys of the patients. No option prints a name.

use std::process::ExitCode;

use serde_json::Value;

use super::ConfigArg;
use super::ask::{self, Owner};
use super::census::{self, ImportArgs};

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WardArgs {
    #[command(subcommand)]
    command: Option<WardCommand>,
    /// At this time instead of now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum WardCommand {
    /// Take over a list of who lies in which bed (CSV or NDJSON): shows what it changes, and asks
    Import(ImportArgs),
}

pub fn run(args: WardArgs) -> ExitCode {
    if let Some(WardCommand::Import(args)) = &args.command {
        return census::import(args);
    }
    let query = args.at.as_deref().map(|at| format!("?at={}", ask::segment(at))).unwrap_or_default();
    ask::ask(&args.config, Owner::Deliver, "GET", &format!("/v1/assignments{query}"), Vec::new(), |answer| {
        if args.json { println!("{answer:#}") } else { print(answer) }
    })
}

fn print(answer: &Value) {
    println!("at {}", ask::text(answer, "at"));
    let lists = [
        ("beds", &["bed", "patient", "from", "learned", "source", "operator"][..]),
        ("places", &["device", "bed", "from", "learned", "source", "operator"]),
        ("devices", &["device", "user", "patient", "from", "learned", "source", "operator"]),
        ("spots", &["device", "patient", "readings", "from", "to", "learned", "source", "operator"]),
        ("measures", &["device", "user", "patient", "rule", "bed", "why"]),
    ];
    for (list, fields) in lists {
        let rows: Vec<Vec<String>> = answer[list]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| fields.iter().map(|field| ask::text(row, field).into_owned()).collect())
            .collect();
        if !rows.is_empty() {
            println!();
            let head: Vec<&str> = fields.iter().map(|field| title(list, field)).collect();
            ask::table(&head, &rows);
        }
    }
}

fn title(list: &str, field: &str) -> &'static str {
    match (list, field) {
        (_, "bed") => "BED",
        (_, "device") => "DEVICE",
        (_, "user") => "USER",
        (_, "readings") => "AT MOST",
        ("measures", "patient") => "MEASURES",
        (_, "patient") => "PATIENT",
        (_, "from") => "SINCE",
        (_, "to") => "UNTIL",
        (_, "learned") => "LEARNED",
        (_, "source") => "SOURCE",
        (_, "operator") => "BY",
        (_, "rule") => "RULE",
        _ => "WHY NOBODY",
    }
}
