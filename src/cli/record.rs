//! `bedrail why` and `bedrail trace`: of one record, whose it was taken to be and by what, and where it has been.

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use serde_json::Value;

use super::ConfigArg;
use super::ask::{self, Owner, text};
use crate::api::ClientError;
use crate::daemon::EXIT_RUNTIME;
use crate::reading::RecordId;

#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// Its number in the log, or its record id
    record: RecordRef,
    /// Only on this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Print one JSON object, the same for both commands
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// How a person names a record: as a list prints it, or as a receiver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordRef {
    Seq(u64),
    Id(RecordId),
}

impl FromStr for RecordRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = || text.parse().map(Self::Id).ok();
        // An id may consist of decimal digits too; a log never gets so long.
        id().or_else(|| text.parse().map(Self::Seq).ok()).ok_or_else(|| {
            "a record is named by its number in the log or its id of 32 hexadecimal digits, as lists and payloads show them"
                .to_owned()
        })
    }
}

impl RecordRef {
    pub fn text(self) -> String {
        match self {
            Self::Seq(seq) => seq.to_string(),
            Self::Id(id) => id.to_string(),
        }
    }
}

pub fn why(args: RecordArgs) -> ExitCode {
    show(args, print_why)
}

pub fn trace(args: RecordArgs) -> ExitCode {
    show(args, print_trace)
}

fn show(args: RecordArgs, print: fn(&Value)) -> ExitCode {
    let socket = match ask::socket(&args.config, Owner::Deliver) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    match find(&socket, args.record).and_then(|mut answer| only_on(&mut answer, args.route.as_deref()).map(|()| answer)) {
        Ok(answer) if args.json => println!("{answer:#}"),
        Ok(answer) => {
            print_head(&answer);
            print(&answer);
        }
        Err(error) => {
            eprintln!("bedrail: {error}");
            return ExitCode::from(EXIT_RUNTIME);
        }
    }
    ExitCode::SUCCESS
}

/// An id is looked for in the log from the newest record back, page by page.
fn find(socket: &Path, record: RecordRef) -> Result<Value, ClientError> {
    let get = |path: &str| ask::call(socket, "GET", path, Vec::new());
    let mut below = String::new();
    let seq = match record {
        RecordRef::Seq(seq) => seq,
        RecordRef::Id(id) => loop {
            let page = get(&format!("/v1/records/named/{id}{below}"))?;
            match (page["seq"].as_u64(), page["below"].as_u64()) {
                (Some(seq), _) => break seq,
                (None, Some(next)) => below = format!("?below={next}"),
                (None, None) => {
                    let why = format!("no record of the log has the id {}; retention may have taken it", record.text());
                    return Err(ClientError::Refused(why));
                }
            }
        },
    };
    get(&format!("/v1/records/{seq}"))
}

fn only_on(answer: &mut Value, route: Option<&str>) -> Result<(), ClientError> {
    let (Some(wanted), Some(routes)) = (route, answer["routes"].as_array_mut()) else { return Ok(()) };
    routes.retain(|route| route["route"] == wanted);
    let why = || ClientError::Refused(format!("no route is called \"{wanted}\"; `bedrail route list` lists them"));
    if routes.is_empty() { Err(why()) } else { Ok(()) }
}

fn print_head(answer: &Value) {
    println!("record {}, {}, version {}", answer["seq"], text(answer, "record"), answer["version"]);
    let kind = text(answer, "kind");
    let what = if answer["metric"].is_null() { kind } else { format!("{kind} of {}", text(answer, "metric")).into() };
    let user = if answer["user"].is_null() { String::new() } else { format!(" user {}", answer["user"]) };
    println!("{what}, device {}{user}", text(answer, "device"));
    println!("measured {}, received {}", text(answer, "measured_at"), text(answer, "received_at"));
    if answer["in_log"] == false {
        println!("no longer in the log; a dead letter keeps it");
    }
}

fn print_why(answer: &Value) {
    for route in list(answer, "routes") {
        println!("\nroute {}: {}", text(route, "route"), state(route));
        let (stands, now) = (&route["stands"], &route["by_now"]);
        if stands.is_object() {
            println!("  it stands with {}, by the rule {}:", text(stands, "patient"), text(stands, "rule"));
            print_events(stands);
        }
        let agrees = stands["patient"] == now["patient"];
        match (stands.is_object(), now["patient"].as_str(), now["rule"].is_string()) {
            (true, Some(_), _) if agrees => {}
            (_, Some(patient), true) => {
                println!("  by what is known now it belongs to {patient}, by the rule {}:", text(now, "rule"));
                print_events(now);
            }
            (_, Some(patient), false) => {
                println!("  it goes whether or not anybody is assigned; by what is known now it is of {patient}")
            }
            (_, None, _) if now["settled"].is_string() => println!("  there is nothing to send: {}", text(now, "settled")),
            (true, None, _) if now["why"].is_string() => println!("  by what is known now it would wait: {}", text(now, "why")),
            _ if route["bind"] == "device" || route["bind"] == "bed" => println!("  it goes whether or not anybody is assigned"),
            _ => {}
        }
    }
}

fn print_events(of: &Value) {
    for event in list(of, "events") {
        let [n, at, says] = ["event", "at", "says"].map(|field| text(event, field));
        let [learned, source, operator] = ["learned", "source", "operator"].map(|field| text(event, field));
        println!("    event {n} at {at}: {says} ({source} of {operator}, learned {learned})");
    }
}

fn print_trace(answer: &Value) {
    for version in list(answer, "versions") {
        println!("version {} is record {}", version["version"], version["seq"]);
    }
    for route in list(answer, "routes") {
        println!("\nroute {}: {}", text(route, "route"), state(route));
        for delivery in list(route, "deliveries") {
            println!("  {:<7}  {:<12}  {}", text(delivery, "op"), text(delivery, "patient"), text(delivery, "delivery"));
        }
    }
    let retractions = list(answer, "retractions")
        .map(|of| ["route", "seq", "placement", "version", "state"].map(|field| text(of, field).into_owned()).to_vec());
    let retractions: Vec<Vec<String>> = retractions.collect();
    if !retractions.is_empty() {
        println!();
        ask::table(&["TAKEN BACK ON", "RECORD", "PLACEMENT", "VERSION", "STATE"], &retractions);
    }
    if answer["all_found"] == false {
        println!("older versions and retractions may be in the log too: not all of it was looked through");
    }
}

fn state(route: &Value) -> String {
    let state = text(route, "state");
    let mut said = match (route["lane"].as_str(), route["why"].as_str()) {
        (Some(lane), _) => format!("{state} in the {lane} lane"),
        (_, Some(why)) => format!("{state} as {}: {why}; released by {}", text(route, "held"), text(route, "released_by")),
        _ => state.into_owned(),
    };
    if let Some(reason) = route["paused"].as_str() {
        said.push_str(&format!("; the route is paused: {reason}"));
    }
    said
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}
