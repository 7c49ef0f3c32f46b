//! `bedrail fleet`: every gateway a broker knows of, the worst first.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{ConfigArg, ask};
use crate::config::{self, ConfigErrors, Env, Settings};
use crate::daemon::{DaemonError, EXIT_CONFIG, EXIT_RUNTIME, link_settings};
use crate::deliver::Backoff;
use crate::deliver::mqtt::{InboxEvent, LinkSettings, LostReason, Subscription, subscribe};
use crate::monitor::Topics;
use crate::monitor::fleet::{Fleet, Overview};
use crate::reading::Timestamp;

/// Retained messages come one after the other; when none comes for so long, that was all.
const QUIET: Duration = Duration::from_secs(1);
/// A broker on which somebody never stops is not waited for.
const LONGEST: Duration = Duration::from_secs(60);
/// How often `--watch` shows the fleet anew.
const SHOW_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, clap::Args)]
pub struct FleetArgs {
    /// The broker, as a route's `url`
    #[arg(long, value_name = "URL", conflicts_with = "route", required_unless_present = "route")]
    url: Option<String>,
    /// Certificates (PEM) that may sign the broker's
    #[arg(long, value_name = "PATH", requires = "url")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM), where the broker asks for one
    #[arg(long, value_name = "PATH", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of our certificate; only its owner may read the file
    #[arg(long, value_name = "PATH", requires = "cert")]
    key: Option<PathBuf>,
    /// Login at the broker
    #[arg(long, value_name = "NAME", requires = "url")]
    username: Option<String>,
    /// File with the password of the login; only its owner may read it
    #[arg(long, value_name = "PATH", requires = "username")]
    password_file: Option<PathBuf>,
    /// Use broker and login of this route of the config
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Where gateways publish their state, as `monitor.topic` of their configs
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Print one JSON object; with --watch one a line, whenever something changed
    #[arg(long)]
    json: bool,
    /// Go on, and show the fleet anew every few seconds
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: FleetArgs) -> ExitCode {
    let (link, topics) = match source(&args) {
        Ok(source) => source,
        Err((code, message)) => {
            eprintln!("{message}");
            return ExitCode::from(code);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one thread's runtime");
    let mut fleet = Fleet::new(topics);
    if args.watch {
        runtime.block_on(watch(&link, &mut fleet, args.json));
    }
    match runtime.block_on(gather(&link, &mut fleet)) {
        Ok(()) => {
            let overview = fleet.overview(now());
            if args.json {
                println!("{:#}", json!(overview));
            } else {
                print_overview(&overview);
            }
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("bedrail: {reason}");
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

/// Where to listen, and to what.
fn source(args: &FleetArgs) -> Result<(LinkSettings, Topics), (u8, String)> {
    let settings = match &args.url {
        Some(url) => from_options(args, url).map_err(|message| (EXIT_CONFIG, message))?,
        None => config::load(&args.config.config).map_err(|errors| (EXIT_CONFIG, errors.to_string()))?.settings,
    };
    let name = args.route.as_deref().unwrap_or(COMMAND_LINE);
    let route = settings.routes.iter().find(|route| route.name == name);
    let Some((route, mqtt)) = route.and_then(|route| Some((route, route.mqtt()?))) else {
        return Err((
            EXIT_CONFIG,
            format!("bedrail: no route of kind mqtt is called \"{name}\"; the config names them as [[route]]"),
        ));
    };
    let failed = |error: DaemonError| (error.exit_code(), format!("bedrail: {error}"));
    let mut link = link_settings(&settings, route, mqtt).map_err(failed)?;
    // Two clients of one name throw each other out, and the last will is the gateway's.
    (link.client_id, link.will) = (client_id(), None);
    let topic = args.topic.as_ref().unwrap_or(&settings.monitor.topic);
    Ok((link, Topics::new(topic)))
}

/// The name of the one route, and of the file in messages.
const COMMAND_LINE: &str = "fleet";

/// The options are held to the same rules as the keys of a route: by being one.
fn from_options(args: &FleetArgs, url: &str) -> Result<Settings, String> {
    let text = |value: &str| json!(value).to_string();
    let path = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into()).display().to_string();
    let mut lines = vec!["[gateway]".to_owned(), format!("id = {}", text(COMMAND_LINE))];
    if let Some(topic) = &args.topic {
        lines.extend(["[monitor]".to_owned(), format!("topic = {}", text(topic))]);
    }
    lines.extend(["[[route]]".to_owned(), format!("name = {}", text(COMMAND_LINE)), "kind = \"mqtt\"".to_owned()]);
    lines.push(format!("url = {}", text(url)));
    let mut add = |key: &str, value: Option<String>| lines.extend(value.map(|value| format!("{key} = {value}")));
    let file = |file: &PathBuf| format!("{{ file = {} }}", text(&path(file)));
    add("tls.ca", args.ca.as_ref().map(|ca| text(&path(ca))));
    add("tls.cert", args.cert.as_ref().map(|cert| text(&path(cert))));
    add("tls.key", args.key.as_ref().map(file));
    add("username", args.username.as_ref().map(|name| text(name)));
    add("password", args.password_file.as_ref().map(file));
    let loaded = config::parse(&(lines.join("\n") + "\n"), COMMAND_LINE, &Env::default());
    let words = |errors: ConfigErrors| {
        let line = |error: &config::ConfigError| format!("bedrail: {}: {}", error.key, error.message);
        errors.0.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    Ok(loaded.map_err(words)?.settings)
}

/// Takes in what the broker has kept.
async fn gather(link: &LinkSettings, fleet: &mut Fleet) -> Result<(), LostReason> {
    let mut inbox = subscribe(link, subscription(fleet));
    let longest = Instant::now() + link.connect_deadline + LONGEST;
    let mut until = longest;
    while let Ok(event) = timeout_at(until.min(longest), inbox.event()).await {
        match event {
            InboxEvent::Connected { .. } => {}
            InboxEvent::Message(message) => {
                fleet.hear(&message.topic, &message.payload, message.retain, now());
                inbox.taken(&message);
            }
            InboxEvent::Lost(reason) => return Err(reason),
        }
        until = Instant::now() + QUIET;
    }
    inbox.close().await;
    Ok(())
}

/// Listens until it is killed; a broker that is gone is said and tried again.
async fn watch(link: &LinkSettings, fleet: &mut Fleet, as_json: bool) -> ! {
    let (mut backoff, mut shown) = (Backoff::default(), String::new());
    loop {
        let mut inbox = subscribe(link, subscription(fleet));
        let mut show = tokio::time::interval(SHOW_EVERY);
        let reason = loop {
            tokio::select! {
                event = inbox.event() => match event {
                    InboxEvent::Connected { .. } => backoff.reset(),
                    InboxEvent::Message(message) => {
                        fleet.hear(&message.topic, &message.payload, message.retain, now());
                        inbox.taken(&message);
                    }
                    InboxEvent::Lost(reason) => break reason,
                },
                _ = show.tick() => {
                    let overview = fleet.overview(now());
                    let new = json!(overview).to_string();
                    if !as_json {
                        clear();
                        print_overview(&overview);
                    } else if new != shown {
                        println!("{new}");
                    }
                    shown = new;
                    let _ = std::io::stdout().flush();
                }
            }
        };
        eprintln!("bedrail: {reason}; trying again");
        tokio::time::sleep(backoff.next(u32::MAX / 2)).await;
    }
}

fn subscription(fleet: &Fleet) -> Subscription {
    Subscription { topics: fleet.filters().to_vec(), session: None }
}

fn print_overview(overview: &Overview) {
    println!("{}", overview.summary());
    ask::table(&["GATEWAY", "STATE", "VERSION", "REPORTED", "TROUBLE"], &overview.rows());
}

/// On a terminal the new picture takes the place of the old one.
fn clear() {
    if std::io::stdout().is_terminal() {
        print!("\x1b[H\x1b[2J");
    } else {
        println!();
    }
}

fn client_id() -> String {
    let now = jiff::Timestamp::now().as_microsecond();
    format!("bedrail-fleet-{}-{:x}", std::process::id(), now)
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
