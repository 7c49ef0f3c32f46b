//! `bedrail ward import`: a list of who lies in which bed. What it would change is shown first and asked.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::daemon::EXIT_RUNTIME;
use crate::ward::MAX_CENSUS;

#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The list; - reads standard input
    file: PathBuf,
    /// Its form, if its name ends in none of .csv, .ndjson, .jsonl; csv where nothing says
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Change it without asking; N confirms how many readings of the past change hands
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    yes: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Csv,
    Ndjson,
}

pub fn import(args: &ImportArgs) -> ExitCode {
    let socket = match ask::socket(&args.config, Owner::Deliver) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    match carry_out(args, &socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(said) => {
            eprintln!("bedrail: {said}");
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

fn carry_out(args: &ImportArgs, socket: &Path) -> Result<(), String> {
    let file = read(&args.file)?;
    let path = format!("/v1/census?format={}", format_of(args));
    let mut shown = ask::call(socket, "POST", &path, file.to_vec()).map_err(|error| error.to_string())?;
    if !args.json {
        print(&shown);
    }
    let nothing = shown["changes"] == json!([]) && shown["identities"] == 0;
    let Some(yes) = answer(args, &shown).filter(|_| !nothing) else {
        shown["done"] = json!(false);
        if args.json {
            println!("{shown:#}");
        }
        return if nothing { Ok(()) } else { Err("nothing was changed; repeat it with --yes to change it".to_owned()) };
    };
    let path = format!("/v1/census/{}", shown["census"]);
    let body = json!({ "yes": yes }).to_string().into_bytes();
    let done = ask::call(socket, "POST", &path, body).map_err(|error| error.to_string())?;
    shown["done"] = json!(true);
    if args.json {
        println!("{shown:#}");
    } else {
        println!("done: {} events, identifiers of {} patients", done["events"], done["identities"]);
    }
    Ok(())
}

/// `None`: no.
fn answer(args: &ImportArgs, shown: &Value) -> Option<u64> {
    let asks = !args.json && args.file.as_os_str() != "-" && std::io::stdin().is_terminal();
    if args.yes.is_some() || !asks {
        return args.yes;
    }
    eprint!("change it? [y/N] ");
    std::io::stderr().flush().ok()?;
    let mut said = String::new();
    std::io::stdin().read_line(&mut said).ok()?;
    matches!(said.trim(), "y" | "yes").then(|| shown["readings"].as_u64().unwrap_or(0))
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut list = Zeroizing::new(Vec::new());
    let limit = MAX_CENSUS as u64 + 1;
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut list)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut list))
    };
    read.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(list)
}

fn format_of(args: &ImportArgs) -> &'static str {
    let named = args.file.extension().and_then(|extension| extension.to_str());
    match (args.format, named) {
        (Some(Format::Ndjson), _) | (None, Some("ndjson" | "jsonl")) => "ndjson",
        _ => "csv",
    }
}

fn print(shown: &Value) {
    let people = |value: &Value| {
        let keys = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" and ");
        if keys.is_empty() { "-".to_owned() } else { keys }
    };
    let changes: Vec<Vec<String>> = shown["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| {
            let new = if change["new"] == true { " (new)" } else { "" };
            let patient = format!("{}{new}", ask::text(change, "patient"));
            let [bed, from, comes_from] = ["bed", "from", "comes_from"].map(|field| ask::text(change, field).into_owned());
            vec![bed, people(&change["was"]), patient, from, comes_from]
        })
        .collect();
    if changes.is_empty() {
        println!("the ward agrees with the list: {} beds", shown["rows"]);
    } else {
        ask::table(&["BED", "IN IT NOW", "IN THE LIST", "SINCE", "COMES FROM"], &changes);
    }
    println!("identifiers of {} patients are new; {} readings of the past change hands", shown["identities"], shown["readings"]);
    let left_out = shown["not_in_list"].as_array().into_iter().flatten();
    let left_out: Vec<String> = left_out.map(|bed| format!("{} ({})", ask::text(bed, "bed"), people(&bed["patient"]))).collect();
    if !left_out.is_empty() {
        println!("not in the list, and left as they are: {}", left_out.join(", "));
    }
}
