//! `bedrail profile`: what profiles there are, and whether one is right.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::learn::{self, LearnArgs};
use crate::config::{ConfigErrors, profiles};
use crate::hex;
use crate::profile::{Profile, ProfileErrors, Shown};

/// A profile that is wrong, as a config that is.
const EXIT_WRONG: u8 = 2;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ProfileCommand {
    /// List the profiles a device can name
    List(ListArgs),
    /// Check a profile, run its own tests and show what each reads
    Test(TestArgs),
    /// Record what a device tells as tests of its profile
    Learn(LearnArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Directory of the site's own profiles
    #[arg(long, value_name = "PATH", default_value = "/etc/bedrail/profiles.d")]
    pub profiles: PathBuf,
    /// Print a JSON list
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct TestArgs {
    /// The profile
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print one JSON object, errors included
    #[arg(long)]
    pub json: bool,
}

pub fn run(command: ProfileCommand) -> ExitCode {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let (mut out, mut err) = (stdout.lock(), stderr.lock());
    // A reader that went away is no fault of the profile.
    let code = match command {
        ProfileCommand::List(args) => list(&args, &mut out, &mut err),
        ProfileCommand::Test(args) => test(&args, &mut out, &mut err),
        ProfileCommand::Learn(args) => {
            drop((out, err));
            return learn::run(&args);
        }
    };
    ExitCode::from(code.unwrap_or(0))
}

/// Writes what `profile list` prints and returns its exit code.
pub fn list(args: &ListArgs, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let library = match profiles::library(&args.profiles) {
        Ok(library) => library,
        Err(ConfigErrors(errors)) if args.json => {
            writeln!(out, "{:#}", json!({ "ok": false, "errors": errors }))?;
            return Ok(EXIT_WRONG);
        }
        Err(errors) => {
            writeln!(err, "{errors}")?;
            return Ok(EXIT_WRONG);
        }
    };
    if args.json {
        let row = |known: &crate::profile::Known| {
            let Profile { id, version, name, .. } = &*known.profile;
            json!({ "id": id, "version": version, "name": name, "file": known.file, "own": known.own })
        };
        writeln!(out, "{:#}", json!(library.iter().map(row).collect::<Vec<_>>()))?;
        return Ok(0);
    }
    let width = library.iter().map(|known| known.profile.id.len()).max().unwrap_or(0);
    for known in library.iter() {
        let whose = if known.own { format!("  ({})", known.file) } else { String::new() };
        writeln!(out, "{:width$}  {}{whose}", known.profile.id, known.profile.name)?;
    }
    Ok(0)
}

/// Writes what `profile test` prints and returns its exit code.
pub fn test(args: &TestArgs, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let file = args.file.display().to_string();
    let text = match profiles::text(&args.file) {
        Ok(text) => text,
        Err(message) if args.json => {
            writeln!(out, "{:#}", json!({ "file": file, "ok": false, "errors": [{ "file": file, "message": message }] }))?;
            return Ok(EXIT_WRONG);
        }
        Err(message) => {
            writeln!(err, "{file}: {message}")?;
            return Ok(EXIT_WRONG);
        }
    };
    match Profile::read(&text, &file) {
        Ok(profile) => show(&profile, &file, args.json, out).map(|()| 0),
        Err(ProfileErrors(errors)) if args.json => {
            writeln!(out, "{:#}", json!({ "file": file, "ok": false, "errors": errors }))?;
            Ok(EXIT_WRONG)
        }
        Err(errors) => {
            writeln!(err, "{errors}")?;
            Ok(EXIT_WRONG)
        }
    }
}

fn show(profile: &Profile, file: &str, json: bool, out: &mut impl Write) -> io::Result<()> {
    let said: Vec<_> = profile.trials.iter().map(|trial| (trial, trial.run(profile).said)).collect();
    if json {
        let test = |(trial, said): &(&crate::profile::Trial, Vec<Shown>)| json!({ "line": trial.line, "source": trial.source.to_string(), "packets": encoded(trial), "error": trial.error, "values": said });
        let tests: Vec<_> = said.iter().map(test).collect();
        return writeln!(
            out,
            "{:#}",
            json!({ "file": file, "ok": true, "id": profile.id, "version": profile.version, "tests": tests })
        );
    }
    writeln!(out, "{file}: {} {}, {}: {} tests pass", profile.id, profile.version, profile.name, said.len())?;
    for (trial, said) in said {
        writeln!(out, "\n{}  {}", trial.source, encoded(trial).join(" "))?;
        match &trial.error {
            Some(error) => writeln!(out, "  refused: {error}")?,
            None if said.is_empty() => writeln!(out, "  says nothing that is kept")?,
            None => {}
        }
        for Shown { code, value, unit, flags } in said {
            writeln!(out, "  {}", format!("{code:24} {value:>10} {unit:8} {}", flags.join(", ")).trim_end())?;
        }
    }
    Ok(())
}

fn encoded(trial: &crate::profile::Trial) -> Vec<String> {
    trial.packets.iter().map(|packet| hex::encode(packet)).collect()
}
