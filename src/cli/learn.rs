//! `bedrail profile learn`: what a device tells now, as tests of its profile. The octets may be a patient's: they go to this
//! terminal or into a file that only its owner reads, and nowhere else.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::ConfigArg;
use super::ask;
use crate::api::{self, ClientError};
use crate::collect::{Batch, MOST_S, Overheard};
use crate::config;
use crate::daemon::{EXIT_CONFIG, EXIT_RUNTIME};
use crate::hex;
use crate::profile::{Draft, Mode, Profile, Source};
use crate::reading::BootMillis;

/// Often enough that nothing has to wait for long where it is bounded.
const FETCH_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, clap::Args)]
pub struct LearnArgs {
    /// The configured device; it has a profile
    #[arg(value_name = "DEVICE")]
    pub device: String,
    /// How long to listen
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=MOST_S))]
    pub seconds: u64,
    /// Write the tests into this new file, which only you can read, in place of the terminal
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigArg,
}

pub fn run(args: &LearnArgs) -> ExitCode {
    let loaded = match config::load(&args.config.config) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let profile = match profile_of(&loaded, &args.device) {
        Ok(profile) => profile,
        Err(message) => return failed(&message),
    };
    let socket = loaded.settings.gateway.runtime_dir.join(api::COLLECT_SOCKET);
    let out: Box<dyn Write> = match &args.out {
        None => Box::new(io::stdout()),
        Some(path) => match private(path) {
            Ok(file) => Box::new(file),
            Err(error) => return failed(&format!("{}: {error}", path.display())),
        },
    };
    match listen(&socket, args, &profile) {
        Err(error) => failed(&error.to_string()),
        Ok((draft, lost)) => print(&draft, lost, out, &args.device),
    }
}

fn profile_of(loaded: &config::Loaded, name: &str) -> Result<Arc<Profile>, String> {
    let device = loaded.settings.devices.iter().find(|device| device.name == name);
    let device = device.ok_or_else(|| format!("the config has no device \"{name}\"; `bedrail devices` lists those it has"))?;
    if let Some(fault) = &device.profile_fault {
        return Err(format!("device \"{name}\" is not read: {fault}"));
    }
    let profile = device.profile.clone().ok_or_else(|| {
        format!("device \"{name}\" has no profile: its octets are a standard's, and `bedrail decode` reads them")
    })?;
    if profile.link.mode == Mode::Advert {
        return Err(format!(
            "device \"{name}\" is read by what it advertises, and only what is told over a connection is recorded"
        ));
    }
    Ok(profile)
}

/// New, and nobody else's: octets of a patient may be in it.
fn private(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn listen<'p>(socket: &Path, args: &LearnArgs, profile: &'p Profile) -> Result<(Draft<'p>, u64), ClientError> {
    let path = format!("/v1/devices/{}/octets", ask::segment(&args.device));
    ask::call(socket, "POST", &path, json!({ "seconds": args.seconds }).to_string().into_bytes())?;
    eprintln!("listening to {} for {} s; measure something with it", args.device, args.seconds);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let (mut draft, mut lost) = (Draft::new(profile), 0);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(FETCH_EVERY));
        let over = left <= FETCH_EVERY;
        let batch = match ask::call(socket, "GET", &path, Vec::new()) {
            Ok(answer) => serde_json::from_value::<Batch>(answer).unwrap_or_default(),
            // Its time is over there too.
            Err(ClientError::Refused(_)) if over => return Ok((draft, lost)),
            Err(error) => return Err(error),
        };
        lost += batch.lost;
        batch.values.into_iter().for_each(|value| take(&mut draft, value));
        if over {
            return Ok((draft, lost));
        }
    }
}

fn take(draft: &mut Draft<'_>, Overheard { source, octets, boot_ms }: Overheard) {
    if let (Ok(uuid), Some(octets)) = (source.parse(), hex::decode(&octets)) {
        draft.take(BootMillis(boot_ms), &Source::Characteristic(uuid), octets);
    }
}

fn print(draft: &Draft<'_>, lost: u64, mut out: Box<dyn Write>, device: &str) -> ExitCode {
    for source in &draft.foreign {
        eprintln!("{source}: told too, and no frame of the profile is of it");
    }
    let left_out = u64::try_from(draft.left_out).unwrap_or(u64::MAX).saturating_add(lost);
    if left_out > 0 {
        eprintln!("{left_out} more values came and are no test here");
    }
    if draft.tests() == 0 {
        return failed(&format!("{device} told nothing that its profile is of; `bedrail devices` says whether it is connected"));
    }
    match write!(out, "{}", draft.text()).and_then(|()| out.flush()) {
        Ok(()) => {
            eprintln!("{} tests; compare what they expect with what the device showed before you keep them", draft.tests());
            ExitCode::SUCCESS
        }
        Err(error) => failed(&format!("the tests are not written: {error}")),
    }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("bedrail: {message}");
    ExitCode::from(EXIT_RUNTIME)
}
