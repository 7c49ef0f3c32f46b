//! `bedrail route`: list, pause, resume, replay and drop routes.

use std::process::ExitCode;

use serde_json::json;

use super::ConfigArg;
use super::ask::{self, Owner};
use super::status::print_routes;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum RouteCommand {
    /// List the routes and what waits in them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Stop sending; what is measured waits in the log
    Pause {
        name: String,
        /// Why, for status and audit trail
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Send again
    Resume {
        name: String,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Send again what arrived in a span of time, under the same identities
    Replay {
        name: String,
        /// With an offset: 2026-11-23T10:00:00+01:00
        #[arg(long, value_name = "TIME")]
        from: String,
        /// The first moment no longer replayed
        #[arg(long, value_name = "TIME")]
        to: String,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Forget a route that left the config, with all it had not sent
    Drop {
        name: String,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub fn run(command: RouteCommand) -> ExitCode {
    let path = |name: &str, action: &str| format!("/v1/routes/{}{action}", ask::segment(name));
    match command {
        RouteCommand::List { json, config } => ask::ask(&config, Owner::Deliver, "GET", "/v1/routes", Vec::new(), |answer| {
            if json { println!("{answer:#}") } else { print_routes(answer) }
        }),
        RouteCommand::Pause { name, reason, config } => {
            let body = json!({ "reason": reason }).to_string().into_bytes();
            ask::ask(&config, Owner::Deliver, "POST", &path(&name, "/pause"), body, |_| println!("route {name} paused"))
        }
        RouteCommand::Resume { name, config } => {
            ask::ask(&config, Owner::Deliver, "POST", &path(&name, "/resume"), Vec::new(), |_| println!("route {name} resumed"))
        }
        RouteCommand::Replay { name, from, to, config } => {
            let body = json!({ "from": from, "to": to }).to_string().into_bytes();
            ask::ask(&config, Owner::Deliver, "POST", &path(&name, "/replay"), body, |answer| {
                println!("route {name}: {} records go again", answer["records"]);
            })
        }
        RouteCommand::Drop { name, config } => {
            ask::ask(&config, Owner::Deliver, "DELETE", &path(&name, ""), Vec::new(), |answer| {
                let (unsent, dead) = (&answer["unsent"], &answer["dead"]);
                println!("route {name} dropped; {unsent} records it had not sent and {dead} dead letters will not be sent by it");
            })
        }
    }
}
