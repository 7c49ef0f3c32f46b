//! `bedrail scan`: what is to be heard nearby, what of it bedrail can read, and the section of the config that adds it. It
//! asks the running gateway, whose radio listens anyway. Names are shown and written nowhere: most are of other people's.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::ConfigArg;
use super::ask;
use crate::api::{self, Listed, MOST_SECONDS};
use crate::config::{self, Recognised, recognise};
use crate::daemon::{EXIT_CONFIG, EXIT_RUNTIME};
use crate::profile::Library;
use crate::reading::DeviceId;

/// Most devices advertise several times a second, thrifty ones every few.
const SECONDS: u64 = 15;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of what is not recognised so many services are named.
const SERVICES: usize = 3;
/// How a UUID ends that the Bluetooth SIG assigned.
const SIG_BASE: &str = "-0000-1000-8000-00805f9b34fb";

#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    /// How long to listen
    #[arg(long, value_name = "N", default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    seconds: u64,
    /// Also those that Bluetooth knows from before and that are not heard now
    #[arg(long)]
    all: bool,
    /// Print one JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &ScanArgs) -> ExitCode {
    let (library, socket) = match config::load(&args.config.config).and_then(|loaded| {
        let socket = loaded.settings.gateway.runtime_dir.join(api::COLLECT_SOCKET);
        Ok((config::profiles::library(&loaded.settings.radio.profiles)?, socket))
    }) {
        Ok(sources) => sources,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one thread's runtime");
    match runtime.block_on(listen(args, &socket, &library)) {
        Ok(air) => {
            let rows = air.rows(args.all, &library);
            if args.json {
                println!("{:#}", json!(rows.iter().map(Row::json).collect::<Vec<_>>()))
            } else {
                print(&rows)
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bedrail: {why}");
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

/// For as long as was asked, or until interrupted.
async fn listen(args: &ScanArgs, socket: &Path, library: &Library) -> Result<Air, String> {
    let live = !args.json && std::io::stdout().is_terminal();
    let (end, mut air) = (Instant::now() + Duration::from_secs(args.seconds), Air::default());
    loop {
        let answer = api::call(socket, "GET", "/v1/nearby", Vec::new()).await.map_err(|error| error.to_string())?;
        air.take_in(serde_json::from_value(answer).map_err(|error| format!("the gateway is of another version: {error}"))?);
        if live {
            print!("\x1b[H\x1b[2J");
            print_table(&air.rows(args.all, library));
            println!("\nlistening for {} s more; Ctrl-C ends it", end.saturating_duration_since(Instant::now()).as_secs());
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        if Instant::now() >= end {
            break;
        }
    }
    if live {
        print!("\x1b[H\x1b[2J");
    }
    Ok(air)
}

/// What was to be heard since the scan began.
#[derive(Default)]
struct Air(BTreeMap<DeviceId, Listed>);

impl Air {
    /// BlueZ forgets how strong one was that connected or went away meanwhile.
    fn take_in(&mut self, now: Vec<Listed>) {
        for mut listed in now {
            let before = self.0.get(&listed.device.address).and_then(|known| known.device.rssi);
            listed.device.rssi = listed.device.rssi.or(before);
            self.0.insert(listed.device.address, listed);
        }
    }

    /// The strongest first.
    fn rows(&self, all: bool, library: &Library) -> Vec<Row> {
        let shown =
            |listed: &&Listed| all || listed.configured.is_some() || listed.device.rssi.is_some() || listed.device.connected;
        let row = |listed: &Listed| Row { recognised: recognise(&listed.device, library), listed: listed.clone() };
        let mut rows: Vec<Row> = self.0.values().filter(shown).map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.listed.device.rssi));
        rows
    }
}

struct Row {
    listed: Listed,
    recognised: Option<Recognised>,
}

impl Row {
    /// Of one that is in the config already there is nothing to paste.
    fn section(&self) -> Option<&str> {
        self.recognised.as_ref()?.section.as_deref().filter(|_| self.listed.configured.is_none())
    }

    fn json(&self) -> Value {
        let mut value = json!(self.listed);
        value["kind"] = json!(self.recognised.as_ref().map(|recognised| &recognised.what));
        value["section"] = json!(self.section());
        value
    }

    fn cells(&self) -> Vec<String> {
        let device = &self.listed.device;
        let dash = || "-".to_owned();
        let services = || {
            let list: Vec<String> = device.services.iter().take(SERVICES).map(short).collect();
            if list.is_empty() { dash() } else { format!("({})", list.join(" ")) }
        };
        vec![
            device.address.to_string(),
            device.name.clone().unwrap_or_else(dash),
            device.rssi.map_or_else(dash, |rssi| rssi.to_string()),
            self.recognised.as_ref().map_or_else(services, |recognised| recognised.what.clone()),
            if device.connected { "connected".to_owned() } else { dash() },
            self.listed.configured.clone().unwrap_or_else(dash),
        ]
    }
}

/// What the Bluetooth SIG assigned has four digits of its own; of others the first eight tell them apart well enough.
fn short(uuid: &Uuid) -> String {
    let text = uuid.to_string();
    let digits = if text.ends_with(SIG_BASE) { &text[4..8] } else { &text[..8] };
    digits.to_owned()
}

fn print_table(rows: &[Row]) {
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    ask::table(&["ADDRESS", "NAME", "RSSI", "KIND", "LINK", "CONFIGURED AS"], &cells);
}

fn print(rows: &[Row]) {
    print_table(rows);
    let sections: Vec<&str> = rows.iter().filter_map(Row::section).collect();
    if !sections.is_empty() {
        println!("\n# For the config, with a name of your own; then restart bedrail.");
        sections.iter().for_each(|section| println!("\n{}", section.trim_end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(address: &str, rssi: Option<i16>, configured: Option<&str>) -> Listed {
        let device = json!({
            "address": address, "address_type": "public", "name": "n", "rssi": rssi, "services": ["0000180d-0000-1000-8000-00805f9b34fb"],
            "service_data": [], "manufacturers": [], "connected": false, "paired": false, "configured": configured,
        });
        serde_json::from_value(device).unwrap()
    }

    #[test]
    fn those_that_are_not_heard_are_left_out_unless_configured_or_asked_for() {
        let mut air = Air::default();
        air.take_in(vec![
            listed("00:00:00:00:00:01", None, None),
            listed("00:00:00:00:00:02", None, Some("strap")),
            listed("00:00:00:00:00:03", Some(-80), None),
            listed("00:00:00:00:00:04", Some(-40), None),
        ]);
        // The strongest went away meanwhile.
        air.take_in(vec![listed("00:00:00:00:00:04", None, None)]);
        let library = Library::shipped().unwrap();
        let shown = |all| air.rows(all, &library).iter().map(|row| row.listed.device.address.octets()[5]).collect::<Vec<_>>();
        assert_eq!(shown(false), [4, 3, 2]);
        assert_eq!(shown(true), [4, 3, 1, 2]);
        assert!(air.rows(true, &library).iter().all(|row| row.section().is_some() == row.listed.configured.is_none()));
    }
}
