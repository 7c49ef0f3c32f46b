//! `bedrail dead-letters`: records a destination refused for themselves. They are listed, shown, sent again or given up.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ConfigArg;
use super::ask::{self, Owner};
use super::record::RecordRef;
use crate::daemon::EXIT_RUNTIME;

/// Named in one request; a half takes no more.
const BATCH: usize = 500;
/// A route sends only so many again at once. While it settles them the others are tried again this often…
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// …and left alone when none was taken for so long: its link is down.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeadLettersCommand {
    /// List them, in the order of the log
    List {
        /// Only those of this route
        #[arg(long, value_name = "NAME")]
        route: Option<String>,
        /// So many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show one: what is kept of it, and what would be sent
    Show {
        /// Its number in the log, or its record id
        record: RecordRef,
        /// Only of this route
        #[arg(long, value_name = "NAME")]
        route: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Send them again, in the backlog lane and under the same identities
    Retry {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Give them up for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Confirm how many are given up
        #[arg(long, value_name = "N")]
        yes: Option<u64>,
        #[command(flatten)]
        config: ConfigArg,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Numbers in the log, or record ids
    #[arg(value_name = "RECORD", required_unless_present = "all", conflicts_with = "all")]
    records: Vec<RecordRef>,
    /// All there are now
    #[arg(long)]
    all: bool,
    /// Only those of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
}

pub fn run(command: DeadLettersCommand) -> ExitCode {
    let config = match &command {
        DeadLettersCommand::List { config, .. }
        | DeadLettersCommand::Show { config, .. }
        | DeadLettersCommand::Retry { config, .. }
        | DeadLettersCommand::Drop { config, .. } => config,
    };
    let half = match ask::socket(config, Owner::Deliver) {
        Ok(socket) => Half { socket },
        Err(code) => return code,
    };
    let done = match command {
        DeadLettersCommand::List { route, limit, json, .. } => list(&half, route.as_deref(), limit, json),
        DeadLettersCommand::Show { record, route, json, .. } => show(&half, record, route.as_deref(), json),
        DeadLettersCommand::Retry { which, .. } => retry(&half, &which),
        DeadLettersCommand::Drop { which, yes, .. } => give_up(&half, &which, yes),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrail: {error}");
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

fn list(half: &Half, route: Option<&str>, limit: u64, as_json: bool) -> Result<(), String> {
    let mut letters = Vec::new();
    let total = half.pages(route, limit, |letter| letters.push(letter))?;
    if as_json {
        println!("{:#}", json!({ "total": total, "letters": letters }));
        return Ok(());
    }
    let columns = ["route", "seq", "device", "metric", "measured_at", "received_at", "since", "reason", "record", "detail"];
    let row = |letter: &Value| columns.map(|column| ask::text(letter, column).into_owned()).to_vec();
    let head = ["ROUTE", "SEQ", "DEVICE", "METRIC", "MEASURED", "RECEIVED", "SINCE", "REASON", "RECORD", "DETAIL"];
    ask::table(&head, &letters.iter().map(row).collect::<Vec<_>>());
    let shown = letters.len() as u64;
    if shown < total {
        println!("{shown} of {total}; --limit {total} lists all");
    }
    Ok(())
}

fn show(half: &Half, record: RecordRef, route: Option<&str>, as_json: bool) -> Result<(), String> {
    let which = Which { records: vec![record], all: false, route: route.map(str::to_owned) };
    let mut letters = Vec::new();
    for (route, seqs) in half.select(&which)? {
        for seq in seqs {
            letters.push(half.call("GET", &format!("/v1/dead-letters/{}/{seq}", ask::segment(&route)), Vec::new())?);
        }
    }
    if as_json {
        println!("{:#}", Value::Array(letters));
        return Ok(());
    }
    let fields = [
        "route",
        "seq",
        "record",
        "version",
        "kind",
        "device",
        "metric",
        "measured_at",
        "received_at",
        "since",
        "reason",
        "detail",
        "in_log",
        "if_retried",
        "to",
    ];
    for letter in letters {
        fields.iter().for_each(|field| println!("{field:<12} {}", ask::text(&letter, field)));
        println!("{}\n", ask::text(&letter, "payload"));
    }
    Ok(())
}

fn retry(half: &Half, which: &Which) -> Result<(), String> {
    let selected = half.select(which)?;
    let mut progress = Progress::new(count(&selected), "go again");
    for (route, seqs) in &selected {
        let path = format!("/v1/dead-letters/{}/retry", ask::segment(route));
        for batch in seqs.chunks(BATCH) {
            let (mut left, mut moved) = (batch.to_vec(), Instant::now());
            while !left.is_empty() {
                let answer = half.call("POST", &path, json!({ "seqs": left }).to_string().into_bytes())?;
                let done = progress.add(&answer);
                left = answer["waiting"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
                if done > 0 {
                    moved = Instant::now();
                } else if moved.elapsed() >= PATIENCE {
                    return Err(format!(
                        "{}; route \"{route}\" has not settled enough of them to take more, so the others stay dead letters: see `bedrail route list`, and repeat this later",
                        progress.text()
                    ));
                }
                if !left.is_empty() {
                    std::thread::sleep(RETRY_EVERY);
                }
            }
        }
    }
    println!("{}", progress.text());
    Ok(())
}

fn give_up(half: &Half, which: &Which, yes: Option<u64>) -> Result<(), String> {
    let selected = half.select(which)?;
    let count = count(&selected);
    if yes != Some(count) {
        return Err(format!(
            "this gives up {count} records that no other attempt will bring there; if that is meant, repeat it with --yes {count}"
        ));
    }
    let mut progress = Progress::new(count, "dropped");
    for (route, seqs) in &selected {
        let path = format!("/v1/dead-letters/{}/drop", ask::segment(route));
        for batch in seqs.chunks(BATCH) {
            let body = json!({ "seqs": batch, "yes": batch.len() });
            progress.add(&half.call("POST", &path, body.to_string().into_bytes())?);
        }
    }
    println!("{}", progress.text());
    Ok(())
}

fn count(selected: &BTreeMap<String, Vec<u64>>) -> u64 {
    selected.values().map(|seqs| seqs.len() as u64).sum()
}

/// How far a long work is; said as it goes where somebody watches.
struct Progress {
    done: u64,
    of: u64,
    what: &'static str,
    watched: bool,
}

impl Progress {
    fn new(of: u64, what: &'static str) -> Self {
        Self { done: 0, of, what, watched: std::io::stderr().is_terminal() && of > BATCH as u64 }
    }

    fn add(&mut self, answer: &Value) -> u64 {
        let done = answer["done"].as_u64().unwrap_or(0);
        self.done += done;
        if self.watched {
            eprintln!("{}", self.text());
        }
        done
    }

    /// What was retried or dropped meanwhile by somebody else is not counted.
    fn text(&self) -> String {
        format!("{} of {} dead letters {}", self.done, self.of, self.what)
    }
}

/// The deliver half, over its socket.
struct Half {
    socket: PathBuf,
}

impl Half {
    fn call(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Value, String> {
        ask::call(Path::new(&self.socket), method, path, body).map_err(|error| error.to_string())
    }

    /// Up to `limit` letters, page by page; answers how many there are.
    fn pages(&self, route: Option<&str>, limit: u64, mut each: impl FnMut(Value)) -> Result<u64, String> {
        let route = route.map(|name| format!("&route={}", ask::segment(name))).unwrap_or_default();
        let (mut left, mut from) = (limit, String::new());
        loop {
            let page =
                self.call("GET", &format!("/v1/dead-letters?limit={}{route}{from}", left.clamp(1, BATCH as u64)), Vec::new())?;
            let letters = page["letters"].as_array().cloned().unwrap_or_default();
            let total = page["total"].as_u64().unwrap_or(0);
            letters.into_iter().take(left as usize).for_each(|letter| {
                left -= 1;
                each(letter);
            });
            match page["next"].as_str() {
                Some(next) if left > 0 => from = format!("&from={}", ask::segment(next)),
                _ => return Ok(total),
            }
        }
    }

    /// The numbers of those that are meant, by route. A record that is none of them is an error, and then nothing is done.
    fn select(&self, which: &Which) -> Result<BTreeMap<String, Vec<u64>>, String> {
        let (mut selected, mut found) = (BTreeMap::<String, Vec<u64>>::new(), vec![false; which.records.len()]);
        self.pages(which.route.as_deref(), u64::MAX, |letter| {
            let mut meant = which.all;
            for (record, found) in which.records.iter().zip(&mut found) {
                if is(*record, &letter) {
                    (*found, meant) = (true, true);
                }
            }
            if let (true, Some(route), Some(seq)) = (meant, letter["route"].as_str(), letter["seq"].as_u64()) {
                selected.entry(route.to_owned()).or_default().push(seq);
            }
        })?;
        match which.records.iter().zip(found).find(|(_, found)| !found) {
            None => Ok(selected),
            Some((record, _)) => {
                let of = which.route.as_ref().map(|name| format!(" of route \"{name}\"")).unwrap_or_default();
                Err(format!("record {} is no dead letter{of}; `bedrail dead-letters list` shows which are", record.text()))
            }
        }
    }
}

fn is(record: RecordRef, letter: &Value) -> bool {
    match record {
        RecordRef::Seq(seq) => letter["seq"] == seq,
        RecordRef::Id(id) => letter["record"] == id.to_string(),
    }
}
