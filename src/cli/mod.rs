//! One file a command.

mod ask;
pub mod assign;
pub mod check;
pub mod dead_letters;
pub mod decide;
pub mod decode;
pub mod devices;
pub mod fleet;
pub mod held;
pub mod key;
pub mod learn;
pub mod patient;
pub mod profile;
pub mod route;
pub mod status;
pub mod store;

use std::path::PathBuf;
use std::process::ExitCode;

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
    /// Show the configured devices: state, bond, battery, last reading
    Devices(devices::DevicesArgs),
    /// Show all gateways of a broker, the worst first
    Fleet(fleet::FleetArgs),
    /// Say whom a device or a bed belongs to from now on
    Assign(assign::AssignArgs),
    /// End an assignment
    Unassign(assign::UnassignArgs),
    /// Show who is assigned to what
    Assignments(assign::AssignmentsArgs),
    /// What may not go yet, and why: list, assign, discard
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
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => run(args),
        Command::Check(args) => check::run(args),
        Command::Decode(args) => decode::run(args),
        Command::Profile(command) => profile::run(command),
        Command::Status(args) => status::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Fleet(args) => fleet::run(args),
        Command::Assign(args) => assign::assign(args),
        Command::Unassign(args) => assign::unassign(args),
        Command::Assignments(args) => assign::assignments(args),
        Command::Held(command) => held::run(command),
        Command::Decide(command) => decide::run(command),
        Command::Patient(command) => patient::run(command),
        Command::Route(command) => route::run(command),
        Command::DeadLetters(command) => dead_letters::run(command),
        Command::Store(command) => store::run(command),
        Command::Key(command) => key::run(command),
    }
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
