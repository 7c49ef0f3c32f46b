//! `bedrail store`: create, migrate, check and salvage the files, and how large they are.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::json;

use super::ConfigArg;
use crate::config::{self, Settings};
use crate::daemon::{DaemonError, EXIT_STORE, Keys};
use crate::radio::BootClock;
use crate::store::{AuditEntry, Damage, Finding, Store, check, prepare, prepare_thoroughly};

#[derive(Clone, Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// Create the databases or bring an older schema up; nothing else may run meanwhile
    Prepare {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Look at every page, record and audit row; changes nothing and may be done while bedrail runs
    Check {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Look at every page, and if one is bad set the file aside and read what can be read into a new one
    Salvage {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Put away what a salvage reported: somebody has read it
    Acknowledge {
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
        StoreCommand::Prepare { config } => load(&config).and_then(|settings| prepare_store(&settings, false)),
        StoreCommand::Salvage { config } => load(&config).and_then(|settings| prepare_store(&settings, true)),
        StoreCommand::Check { json, config } => match load(&config).and_then(|settings| check_store(&settings, json)) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(EXIT_STORE),
            Err(error) => Err(error),
        },
        StoreCommand::Acknowledge { config } => load(&config).and_then(|settings| acknowledge(&settings)),
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

fn prepare_store(settings: &Settings, thoroughly: bool) -> Result<(), DaemonError> {
    let keys = Keys::read(settings)?;
    let prepare = if thoroughly { prepare_thoroughly } else { prepare };
    let prepared = prepare(&settings.gateway.state_dir, &keys.log, &keys.ward()?)?;
    prepared.salvaged.iter().for_each(print_damage);
    let word = |created: bool| if created { "created" } else { "ready" };
    println!("bedrail.db {}, ward.db {}", word(prepared.created_log), word(prepared.created_ward));
    Ok(())
}

fn print_damage(damage: &Damage) {
    println!("{}", damage.summary());
    for (first, last) in &damage.runs {
        println!("  missing: {first} to {last}");
    }
}

/// `true`: nothing is damaged.
fn check_store(settings: &Settings, as_json: bool) -> Result<bool, DaemonError> {
    let keys = Keys::read(settings)?;
    let terminal = std::io::stderr().is_terminal();
    let mut progress = |what: &str| {
        if terminal {
            eprintln!("{what}");
        }
    };
    let findings = check(&settings.gateway.state_dir, &keys.log, &keys.ward()?, &keys.site, &mut progress)?;
    let sound = !findings.iter().any(Finding::is_damage);
    if as_json {
        println!("{:#}", json!({ "ok": sound, "findings": findings }));
    } else {
        findings.iter().for_each(|finding| println!("{}: {}: {}", finding.file, finding.kind, finding.what));
        println!("{}", if sound { "the store is sound" } else { "the store is damaged; `bedrail store salvage` mends it" });
    }
    Ok(sound)
}

fn acknowledge(settings: &Settings) -> Result<(), DaemonError> {
    let keys = Keys::read(settings)?;
    let mut store = Store::open(&settings.gateway.state_dir, &keys.log, keys.site.clone(), &settings.gateway.id)?;
    let reports = store.damage()?;
    if reports.is_empty() {
        println!("nothing to acknowledge");
        return Ok(());
    }
    let boot = BootClock::read().map_err(|error| DaemonError::Failed(format!("the kernel's boot id: {error}")))?;
    let entry = AuditEntry {
        boot: boot.id(),
        at: boot.now(),
        wall: None,
        actor: format!("uid {}", rustix::process::getuid().as_raw()),
        action: "store acknowledge".to_owned(),
        object: "store".to_owned(),
        detail: reports.iter().map(|damage| damage.set_aside.as_str()).collect::<Vec<_>>().join(", "),
    };
    store.acknowledge_damage(&entry)?;
    println!("acknowledged; the damaged files stay where they are: {}", entry.detail);
    Ok(())
}

fn stats(settings: &Settings, as_json: bool) -> Result<(), DaemonError> {
    let keys = Keys::read(settings)?;
    let store = Store::open(&settings.gateway.state_dir, &keys.log, keys.site.clone(), &settings.gateway.id)?;
    let (stats, damage) = (store.stats()?, store.damage()?);
    if as_json {
        let value = json!({
            "oldest": stats.oldest.0,
            "head": stats.head.0,
            "database_octets": stats.database_octets,
            "wal_octets": stats.wal_octets,
            "damage": damage,
        });
        println!("{value:#}");
    } else {
        println!("records {} to {}", stats.oldest, stats.head);
        println!("database {} octets, write-ahead log {} octets", stats.database_octets, stats.wal_octets);
        damage.iter().for_each(print_damage);
    }
    Ok(())
}
