//! `bedrail store`: create or migrate the files, and how large they are.

use std::process::ExitCode;

use serde_json::json;

use super::ConfigArg;
use crate::config::{self, Settings};
use crate::daemon::{DaemonError, Keys};
use crate::store::{Store, prepare};

#[derive(Clone, Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// Create the databases or bring an older schema up; nothing else may run meanwhile
    Prepare {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// How many records there are and how much room they take
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub fn run(command: StoreCommand) -> ExitCode {
    let done = match command {
        StoreCommand::Prepare { config } => load(&config).and_then(|settings| prepare_store(&settings)),
        StoreCommand::Stats { json, config } => load(&config).and_then(|settings| stats(&settings, json)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrail: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn load(config: &ConfigArg) -> Result<Settings, DaemonError> {
    Ok(config::load(&config.config)?.settings)
}

fn prepare_store(settings: &Settings) -> Result<(), DaemonError> {
    let keys = Keys::read(settings)?;
    let prepared = prepare(&settings.gateway.state_dir, &keys.log, &keys.ward()?)?;
    let word = |created: bool| if created { "created" } else { "ready" };
    println!("bedrail.db {}, ward.db {}", word(prepared.created_log), word(prepared.created_ward));
    Ok(())
}

fn stats(settings: &Settings, as_json: bool) -> Result<(), DaemonError> {
    let keys = Keys::read(settings)?;
    let store = Store::open(&settings.gateway.state_dir, &keys.log, keys.site.clone(), &settings.gateway.id)?;
    let stats = store.stats()?;
    if as_json {
        let value = json!({
            "oldest": stats.oldest.0,
            "head": stats.head.0,
            "database_octets": stats.database_octets,
            "wal_octets": stats.wal_octets,
        });
        println!("{value:#}");
    } else {
        println!("records {} to {}", stats.oldest, stats.head);
        println!("database {} octets, write-ahead log {} octets", stats.database_octets, stats.wal_octets);
    }
    Ok(())
}
