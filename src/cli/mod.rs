//! One file a command.

mod ask;
pub mod assign;
mod census;
pub mod check;
pub mod dead_letters;
pub mod decide;
pub mod decode;
pub mod devices;
pub mod fleet;
pub mod held;
pub mod key;
pub mod learn;
pub mod pair;
pub mod patient;
pub mod profile;
pub mod record;
pub mod route;
pub mod scan;
pub mod scan_station;
pub mod status;
pub mod store;
pub mod ward;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::config::DEFAULT_PATH;
use crate::daemon::{self, Halves};
use crate::monitor::logs;

/// Edge gateway for bedside devices: readings from BLE medical devices to MQTT, through an encrypted log.
#[derive(Debug, Parser)]
#[command(name = "bedrail", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: both halves in one process, or one of them
    Run(RunArgs),
    /// Check the config and say what is wrong, or what it means
    Check(check::CheckArgs),
    /// Decode the octets of a characteristic to JSON
    Decode(decode::DecodeArgs),
    /// Profiles of devices without a standard service: list, test, learn
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Show the gateway, its devices and its routes
    Status(status::StatusArgs),
    /// Show the configured devices: state, bond, battery, last reading; replace, retire, clean one
    Devices(devices::DevicesArgs),
    /// Pair a device, while you stand by it
    Pair(pair::PairArgs),
    /// Remove the bond with a device
    Forget(pair::ForgetArgs),
    /// Show what is to be heard nearby, and what to write in the config for it
    Scan(scan::ScanArgs),
    /// Show all gateways of a broker, the worst first
    Fleet(fleet::FleetArgs),
    /// Say whom a device or a bed belongs to from now on
    Assign(assign::AssignArgs),
    /// End an assignment
    Unassign(assign::UnassignArgs),
    /// Show who is where, or import a list of it
    Ward(ward::WardArgs),
    /// Read a scanner on a serial line: a wristband, then the label of a device
    ScanStation(scan_station::ScanStationArgs),
    /// Say whose a record was taken to be, and by which events
    Why(record::RecordArgs),
    /// Say where a record is and has been
    Trace(record::RecordArgs),
    /// What may not go yet, and why: list, show, assign, discard
    #[command(subcommand)]
    Held(held::HeldCommand),
    /// Corrections that wait for a person: list, accept, refuse
    #[command(subcommand)]
    Decide(decide::DecideCommand),
    /// Identifiers of patients
    #[command(subcommand)]
    Patient(patient::PatientCommand),
    /// Routes: list, pause, resume, replay, drop
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// What destinations refused: list, show, retry, drop
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// The store: prepare, check, salvage, acknowledge, stats
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Keys: init
    #[command(subcommand)]
    Key(key::KeyCommand),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Run this half alone; the other runs as a process of its own
    #[arg(value_enum)]
    half: Option<Half>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Half {
    Collect,
    Deliver,
}

/// Where the config is; the same option on every command that needs it.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArg {
    /// The config file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| without_quotes(error).exit());
    match cli.command {
        Command::Run(args) => run(args),
        Command::Check(args) => check::run(args),
        Command::Decode(args) => decode::run(args),
        Command::Profile(command) => profile::run(command),
        Command::Status(args) => status::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Pair(args) => pair::pair(&args),
        Command::Forget(args) => pair::forget(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Fleet(args) => fleet::run(args),
        Command::Assign(args) => assign::assign(args),
        Command::Unassign(args) => assign::unassign(args),
        Command::Ward(args) => ward::run(args),
        Command::ScanStation(args) => scan_station::run(args),
        Command::Why(args) => record::why(args),
        Command::Trace(args) => record::trace(args),
        Command::Held(command) => held::run(command),
        Command::Decide(command) => decide::run(command),
        Command::Patient(command) => patient::run(command),
        Command::Route(command) => route::run(command),
        Command::DeadLetters(command) => dead_letters::run(command),
        Command::Store(command) => store::run(command),
        Command::Key(command) => key::run(command),
    }
}

/// A value that is refused may be a patient's name or number, and what a command prints is often kept.
fn without_quotes(mut error: clap::Error) -> clap::Error {
    let unsaid = || ContextValue::String("…".to_owned());
    let free = matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if !arg.starts_with(['-', '<']));
    if error.kind() == ErrorKind::ValueValidation {
        error.insert(ContextKind::InvalidValue, unsaid());
    }
    if error.kind() == ErrorKind::UnknownArgument && free {
        error.insert(ContextKind::InvalidArg, unsaid());
    }
    error
}

fn run(args: RunArgs) -> ExitCode {
    logs::start();
    let halves = match args.half {
        None => Halves::Both,
        Some(Half::Collect) => Halves::Collect,
        Some(Half::Deliver) => Halves::Deliver,
    };
    daemon::run(&args.config.config, halves)
}
