//! `bedrail status`: the gateway, its devices and its routes, as both halves see them at this moment.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::daemon::EXIT_RUNTIME;
use crate::monitor::{ConditionName, ListedCondition};

#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A half that does not answer is shown as unreachable, the other one all the same; exit 1 if any is.
pub fn run(args: StatusArgs) -> ExitCode {
    let mut halves = Vec::new();
    for owner in [Owner::Collect, Owner::Deliver] {
        match ask::socket(&args.config, owner) {
            Ok(socket) => halves.push(ask::call(&socket, "GET", "/v1/status", Vec::new()).map_err(|error| error.to_string())),
            Err(code) => return code,
        }
    }
    let [collect, deliver] = halves.try_into().expect("two halves were asked");
    let conditions = match ask::socket(&args.config, Owner::Deliver) {
        Ok(socket) => ask::call(&socket, "GET", "/v1/conditions", Vec::new()).map_err(|error| error.to_string()),
        Err(code) => return code,
    };
    let complete = collect.is_ok() && deliver.is_ok();
    if args.json {
        let half = |answer: &Result<Value, String>| answer.clone().unwrap_or_else(|error| json!({ "error": error }));
        println!("{:#}", json!({ "collect": half(&collect), "routes": half(&deliver), "conditions": half(&conditions) }));
    } else {
        match &collect {
            Ok(status) => print_collect(status),
            Err(error) => println!("collect: {error}"),
        }
        println!();
        match &deliver {
            Ok(routes) => print_routes(routes),
            Err(error) => println!("deliver: {error}"),
        }
        if let Ok(conditions) = &conditions {
            print_conditions(conditions);
        }
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
}

/// Nothing, while there was nothing to do.
fn radio_lines(radio: &Value) -> Vec<String> {
    let counts = |name: &str| -> Vec<String> {
        radio[name].as_object().into_iter().flatten().map(|(rung, times)| format!("{} {times}", rung.replace('_', " "))).collect()
    };
    let silent: Vec<String> =
        radio["silent"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let (rungs, mut skipped, flooded) = (counts("rungs"), counts("skipped"), counts("flooded"));
    if let Some(times) = radio["unanswered"].as_u64().filter(|times| *times > 0) {
        skipped.push(format!("pings of bluetoothd unanswered {times}"));
    }
    if let Some(times) = radio["match_rules_refused"].as_u64().filter(|times| *times > 0) {
        skipped.push(format!("counts of match rules refused by the D-Bus {times}"));
    }
    let waits = |load: &Value| {
        let who: Vec<&str> = load["waiting"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let links = format!("{} with {} of {} links", ask::text(load, "adapter"), load["taken"], load["slots"]);
        (!who.is_empty()).then(|| format!("{links}: {}", who.join(", ")))
    };
    let waiting = radio["adapters"].as_array().into_iter().flatten().filter_map(waits).collect();
    let made_room = radio["made_room"].as_u64().filter(|times| *times > 0).map(|times| times.to_string()).into_iter().collect();
    [
        ("no value in time from", silent),
        ("done about silence since start:", rungs),
        ("not possible:", skipped),
        ("waiting to connect on", waiting),
        ("links given up for others:", made_room),
        ("values beyond any real rate, not taken:", flooded),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(what, list)| format!("{what} {}", list.join(", ")))
    .collect()
}

fn print_collect(status: &Value) {
    println!(
        "gateway {} (bedrail {}), clock {}",
        ask::text(status, "gateway"),
        ask::text(status, "version"),
        ask::text(status, "clock")
    );
    let adapter = &status["adapter"];
    let usable = if adapter["usable"] == Value::Bool(true) { "usable" } else { "not usable" };
    println!("adapter {usable}: {}", ask::text(adapter, "detail"));
    for line in radio_lines(&status["radio"]) {
        println!("radio: {line}");
    }
    if let Some(panics) = status["process"]["panics"].as_u64().filter(|panics| *panics > 0) {
        println!("panics since start: {panics}; see the journal, and please report them");
    }
    println!("log: {} records, {} commits since start, {} octets", status["head"], status["commits"], status["database_octets"]);
    print_disk(&status["disk"]);
    let store = &status["store"];
    for line in store["detail"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        println!("store {}: {line}; `bedrail store acknowledge` puts this away", ask::text(store, "state"));
    }
    println!();
    let rows = status["devices"].as_array().into_iter().flatten().map(|device| {
        let rejected: u64 =
            device["rejected"].as_object().into_iter().flat_map(|all| all.values()).filter_map(Value::as_u64).sum();
        let field = |name| ask::text(device, name).into_owned();
        vec![
            field("name"),
            field("kind"),
            field("state"),
            field("readings"),
            rejected.to_string(),
            field("battery_percent"),
            field("last_reading_at"),
        ]
    });
    ask::table(&["DEVICE", "KIND", "STATE", "READINGS", "REJECTED", "BATTERY", "LAST READING"], &rows.collect::<Vec<_>>());
    for device in status["devices"].as_array().into_iter().flatten().filter(|device| device["mismatch"].is_string()) {
        println!("{}: {}", ask::text(device, "name"), ask::text(device, "mismatch"));
    }
}

fn print_disk(disk: &Value) {
    let ballast = if disk["ballast"] == Value::Bool(true) { "in place" } else { "given away" };
    let mib = |name: &str| disk[name].as_u64().unwrap_or(0) >> 20;
    println!(
        "disk {}: {} MiB free, log {} of {} MiB, ballast {ballast}; {} records evicted since start, {} of them still owed",
        ask::text(disk, "state"),
        mib("free_octets"),
        mib("live_octets"),
        mib("limit_octets"),
        disk["evicted"],
        disk["evicted_unsettled"]
    );
    if let Some(degraded) = disk["degraded"].as_str() {
        println!("degraded: {degraded}; {} values wait in memory, {} had no room there", disk["waiting"], disk["dropped"]);
    }
}

/// What somebody should look at; nothing where there is nothing.
fn print_conditions(conditions: &Value) {
    let raised: Vec<ListedCondition> = serde_json::from_value(conditions.clone()).unwrap_or_default();
    if raised.is_empty() {
        return;
    }
    println!();
    let rows = raised.into_iter().map(|condition| {
        let says = ConditionName::from_name(&condition.name).map_or("", |name| name.says(condition.level.unwrap_or(1)));
        let subject = condition.device.or(condition.route).unwrap_or_else(|| "gateway".to_owned());
        let since = condition.since.map_or_else(|| "-".to_owned(), |since| since.to_string());
        vec![condition.name, subject, since, says.to_owned()]
    });
    ask::table(&["CONDITION", "OF", "SINCE", "WHAT"], &rows.collect::<Vec<_>>());
}

pub fn print_routes(routes: &Value) {
    let rows = routes.as_array().into_iter().flatten().map(|route| {
        let held: u64 = route["held"].as_object().into_iter().flat_map(|all| all.values()).filter_map(Value::as_u64).sum();
        let field = |name| ask::text(route, name).into_owned();
        vec![
            field("name"),
            field("kind"),
            field("state"),
            field("live"),
            field("backlog"),
            held.to_string(),
            field("dead"),
            ask::text(&route["tally"], "sent").into_owned(),
            field("last_fault"),
            field("detail"),
        ]
    });
    ask::table(
        &["ROUTE", "KIND", "STATE", "LIVE", "BACKLOG", "HELD", "DEAD", "SENT", "LAST FAULT", "DETAIL"],
        &rows.collect::<Vec<_>>(),
    );
}
