//! `bedrail patient`: the only door for identifiers. They come on standard input or from a file, never as an argument, and
//! are never printed.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::daemon::EXIT_RUNTIME;
use crate::reading::SubjectKey;

/// A document of identifiers is a few hundred octets.
const MAX_DOCUMENT: u64 = 64 << 10;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum PatientCommand {
    /// Keep a patient's identifiers (a JSON object), encrypted, under an opaque key
    Set {
        key: SubjectKey,
        /// File with the identifiers; - reads standard input
        #[arg(long, value_name = "FILE")]
        identifiers_file: PathBuf,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// List the keys, without identifiers
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Delete for good who a patient is
    Forget {
        key: SubjectKey,
        /// Confirm how many records were not sent yet
        #[arg(long, value_name = "N")]
        yes: Option<u64>,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub fn run(command: PatientCommand) -> ExitCode {
    match command {
        PatientCommand::Set { key, identifiers_file, config } => set(&key, &identifiers_file, &config),
        PatientCommand::List { json, config } => ask::ask(&config, Owner::Deliver, "GET", "/v1/patients", Vec::new(), |answer| {
            if json {
                return println!("{answer:#}");
            }
            let rows = answer.as_array().into_iter().flatten();
            let rows =
                rows.map(|row| ["key", "test", "identified", "forgotten"].map(|f| ask::text(row, f).into_owned()).to_vec());
            ask::table(&["PATIENT", "TEST", "IDENTIFIED", "FORGOTTEN"], &rows.collect::<Vec<_>>());
        }),
        PatientCommand::Forget { key, yes, config } => {
            let confirmed = yes.map(|count| format!("?yes={count}")).unwrap_or_default();
            let path = format!("/v1/patients/{}{confirmed}", ask::segment(key.as_str()));
            ask::ask(&config, Owner::Deliver, "DELETE", &path, Vec::new(), |_| println!("identifiers of {key} deleted"))
        }
    }
}

fn set(key: &SubjectKey, file: &std::path::Path, config: &ConfigArg) -> ExitCode {
    let mut document = Zeroizing::new(Vec::new());
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_DOCUMENT + 1).read_to_end(&mut document)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut document))
    };
    if let Err(error) = read {
        eprintln!("bedrail: {}: {error}", file.display());
        return ExitCode::from(EXIT_RUNTIME);
    }
    let path = format!("/v1/patients/{}", ask::segment(key.as_str()));
    ask::ask(config, Owner::Deliver, "PUT", &path, document.to_vec(), |_| println!("identifiers of {key} kept"))
}
