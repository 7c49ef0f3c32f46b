//! Wires the rooms, supervises them, shuts them down. It decides nothing else.
//!
//! `run` is both halves in one process, `run collect` and `run deliver` are one each. Whatever way they run, nothing passes
//! between them but through the store, a bell that is only a hint, and two local sockets.

mod bell;
mod collect;
mod deliver;
mod keys;
mod monitor;
mod tasks;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use keys::{Keys, KeysError, name as credential_name};

use crate::config::{self, ConfigErrors, Loaded, Settings};
use crate::radio::BootClock;
use crate::store::{StoreError, ballast, lock, prepare, suspect};
use tasks::Tasks;

/// Exit codes: the config has to be changed, it failed while running, the store needs `store prepare` or a person.
pub const EXIT_RUNTIME: u8 = 1;
pub const EXIT_CONFIG: u8 = 2;
pub const EXIT_STORE: u8 = 75;

/// A store that was damaged while running is mended and the halves started again so often in this time; a card that goes on
/// damaging it is for a person.
const MENDS: usize = 3;
const MENDS_WITHIN: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    Both,
    Collect,
    Deliver,
}

impl Halves {
    const fn collects(self) -> bool {
        matches!(self, Halves::Both | Halves::Collect)
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Halves::Both => &["collect", "deliver"],
            Halves::Collect => &["collect"],
            Halves::Deliver => &["deliver"],
        }
    }

    const fn delivers(self) -> bool {
        matches!(self, Halves::Both | Halves::Deliver)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Tls(#[from] crate::net::TlsError),
    #[error(transparent)]
    Secret(#[from] crate::config::SecretError),
    #[error("route \"{route}\": topic: {source}")]
    Topic { route: String, source: crate::deliver::mqtt::TopicError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}; check that the directory exists and that bedrail may write there")]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("radio: {0}")]
    Radio(#[from] crate::radio::RadioError),
    #[error("{0}")]
    Failed(String),
}

impl DaemonError {
    fn is_damage(&self) -> bool {
        matches!(self, DaemonError::Store(error) if error.is_damage())
    }

    pub const fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Config(_) | DaemonError::Tls(_) | DaemonError::Secret(_) | DaemonError::Topic { .. } => EXIT_CONFIG,
            DaemonError::Keys(error) => error.exit_code(),
            DaemonError::Store(StoreError::Locked { .. }) => EXIT_RUNTIME,
            DaemonError::Store(_) => EXIT_STORE,
            DaemonError::Socket { .. } | DaemonError::Radio(_) | DaemonError::Failed(_) => EXIT_RUNTIME,
        }
    }
}

/// Runs until SIGTERM or SIGINT, or until something fails that a restart by systemd should mend.
pub fn run(path: &std::path::Path, halves: Halves) -> ExitCode {
    match start(path, halves) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(path: &std::path::Path, halves: Halves) -> Result<(), DaemonError> {
    let loaded: Loaded = config::load(path)?;
    loaded.runnable()?;
    let settings = loaded.settings;
    let keys = Keys::read(&settings)?;
    ballast::make_way(&settings.gateway.state_dir);
    let mut mended: VecDeque<Instant> = VecDeque::new();
    loop {
        if halves == Halves::Both {
            prepare(&settings.gateway.state_dir, &keys.log, &keys.ward()?)?;
        }
        let error = match run_halves(&settings, &keys, halves) {
            Err(error) if error.is_damage() => error,
            result => return result,
        };
        // Whoever prepares the store next, we or systemd, looks at every page of it.
        suspect(&settings.gateway.state_dir);
        mended.retain(|at| at.elapsed() < MENDS_WITHIN);
        if halves != Halves::Both || mended.len() >= MENDS {
            return Err(error);
        }
        tracing::error!("{error}; preparing the store again and starting over");
        mended.push_back(Instant::now());
    }
}

fn run_halves(settings: &Settings, keys: &Keys, halves: Halves) -> Result<(), DaemonError> {
    let state_dir = &settings.gateway.state_dir;
    let _shared = lock::shared(state_dir)?;
    let _once = halves.names().iter().map(|half| lock::only(state_dir, half)).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| DaemonError::Failed(format!("no threads: {error}")))?;
    let result = runtime.block_on(supervise(settings.clone(), keys, halves));
    // Whatever did not end by itself is not waited for.
    runtime.shutdown_background();
    result
}

async fn supervise(settings: Settings, keys: &Keys, halves: Halves) -> Result<(), DaemonError> {
    let boot = BootClock::read().map_err(|error| DaemonError::Failed(format!("the kernel's boot id: {error}")))?;
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new();
    if halves.delivers() {
        deliver::start(&settings, keys, boot, &stop, &mut tasks)?;
    }
    if halves.collects() {
        collect::start(&settings, keys, boot, &stop, &mut tasks)?;
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| DaemonError::Failed(format!("signals: {error}")))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| DaemonError::Failed(format!("signals: {error}")))?;
    tracing::info!(gateway = %settings.gateway.id, version = env!("CARGO_PKG_VERSION"), "started");
    // Outside systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let first = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.next() => ended,
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    let rest = tasks.join().await;
    tracing::info!("stopped");
    first.into_iter().chain(rest).find_map(Result::err).map_or(Ok(()), Err)
}
