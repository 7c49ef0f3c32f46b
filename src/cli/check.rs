//! `bedrail check`: what is wrong with a config, or what it means.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::config::{self, ConfigErrors, Loaded};
use crate::daemon::device_secrets;

/// A config with errors.
const EXIT_CONFIG: u8 = 2;

#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The config to check
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print every effective value and where it comes from
    #[arg(long)]
    pub explain: bool,
    /// Print one JSON object, errors included
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: CheckArgs) -> ExitCode {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    // A reader that went away is no fault of the config.
    let code = report(&args, &mut stdout.lock(), &mut stderr.lock()).unwrap_or(0);
    ExitCode::from(code)
}

/// Writes what `run` prints and returns its exit code.
pub fn report(args: &CheckArgs, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let sound = config::load(&args.config).and_then(config::Loaded::sound);
    let loaded = sound.and_then(|loaded| device_secrets::check(&loaded).map(|()| loaded));
    let code = if loaded.is_ok() { 0 } else { EXIT_CONFIG };
    match loaded {
        result if args.json => writeln!(out, "{:#}", as_json(&args.config, &result, args.explain))?,
        Ok(loaded) => print(&loaded, args.explain, out)?,
        Err(errors) => writeln!(err, "{errors}")?,
    }
    Ok(code)
}

fn print(loaded: &Loaded, explain: bool, out: &mut impl Write) -> io::Result<()> {
    if explain {
        for value in &loaded.explain {
            writeln!(out, "{}: {} = {}  # {}", value.section, value.key, value.value, value.origin)?;
        }
    }
    for later in &loaded.later {
        writeln!(out, "{later}")?;
    }
    for note in &loaded.notes {
        writeln!(out, "note: {note}")?;
    }
    let settings = &loaded.settings;
    let counts = [
        count(settings.devices.len(), "device"),
        count(settings.beds.len(), "bed"),
        count(settings.patients.len(), "patient"),
        count(settings.routes.len(), "route"),
    ];
    let verdict = match loaded.later.len() {
        0 => "no errors".to_owned(),
        n => format!("no errors, but {} not built yet: `bedrail run` refuses it", count(n, "key")),
    };
    writeln!(out, "{}: {}: {verdict}", loaded.file, counts.join(", "))
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn as_json(path: &Path, result: &Result<Loaded, ConfigErrors>, explain: bool) -> serde_json::Value {
    match result {
        Err(errors) => json!({ "file": path.display().to_string(), "ok": false, "errors": errors.0 }),
        Ok(loaded) => {
            let mut object = json!({
                "file": loaded.file,
                "ok": true,
                "runnable": loaded.later.is_empty(),
                "devices": loaded.settings.devices.len(),
                "beds": loaded.settings.beds.len(),
                "patients": loaded.settings.patients.len(),
                "routes": loaded.settings.routes.len(),
                "not_yet": loaded.later,
                "notes": loaded.notes,
            });
            if explain {
                object["explain"] = json!(loaded.explain);
            }
            object
        }
    }
}
