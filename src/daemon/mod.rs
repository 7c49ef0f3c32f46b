//! Wires the rooms, supervises them, shuts them down. It decides nothing else.
//!
//! `run` is both halves in one process, `run collect` and `run deliver` are one each. Whatever way they run, nothing passes
//! between them but through the store, a bell that is only a hint, and two local sockets.

mod bell;
mod collect;
mod deliver;
pub mod device_secrets;
mod keys;
mod link;
mod monitor;
mod outage;
mod tasks;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use link::settings as link_settings;

pub use keys::{Keys, KeysError, name as credential_name};

use crate::collect::Missed;
use crate::config::{self, ConfigErrors, Loaded, Settings};
use crate::monitor::machine::watch_panics;
use crate::radio::BootClock;
use crate::store::{DiskFault, Store, StoreError, WARD_FILE, WardStore, ballast, lock, prepare, suspect};
use device_secrets::DeviceSecrets;
use outage::Outage;
use tasks::Tasks;

/// Exit codes: the config has to be changed, it failed while running, the store needs `store prepare` or a person.
pub const EXIT_RUNTIME: u8 = 1;
pub const EXIT_CONFIG: u8 = 2;
pub const EXIT_STORE: u8 = 75;

/// A store that was damaged while running is mended and the halves started again so often in this time; a card that goes on
/// damaging it is for a person.
const MENDS: usize = 3;
const MENDS_WITHIN: Duration = Duration::from_secs(3_600);

/// When the store is prepared again: a command such as `store stats` lets go of it in moments, a thread that was left behind in
/// the middle of an fsync in seconds.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    #[error("route \"{route}\": sas.key: {source}")]
    Sas { route: String, source: crate::deliver::mqtt::NotBase64 },
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

    fn disk_fault(&self) -> Option<(DiskFault, &StoreError)> {
        let DaemonError::Store(error) = self else { return None };
        error.disk_fault().map(|fault| (fault, error))
    }

    pub const fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Config(_)
            | DaemonError::Tls(_)
            | DaemonError::Secret(_)
            | DaemonError::Topic { .. }
            | DaemonError::Sas { .. } => EXIT_CONFIG,
            DaemonError::Keys(error) => error.exit_code(),
            DaemonError::Store(StoreError::Locked { .. }) => EXIT_RUNTIME,
            DaemonError::Store(_) => EXIT_STORE,
            DaemonError::Socket { .. } | DaemonError::Radio(_) | DaemonError::Failed(_) => EXIT_RUNTIME,
        }
    }
}

/// Runs until SIGTERM or SIGINT, or until something fails that a restart by systemd should mend.
pub fn run(path: &Path, halves: Halves) -> ExitCode {
    watch_panics();
    match start(path, halves) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(path: &Path, halves: Halves) -> Result<(), DaemonError> {
    let loaded: Loaded = config::load(path)?;
    for fault in &loaded.faults {
        tracing::error!("{fault}");
    }
    loaded.runnable()?;
    let secrets = if halves.collects() { device_secrets::read(&loaded)? } else { DeviceSecrets::default() };
    let settings = loaded.settings;
    let keys = Keys::read(&settings)?.with(secrets);
    let boot = BootClock::read().map_err(|error| DaemonError::Failed(format!("the kernel's boot id: {error}")))?;
    let mut mended: VecDeque<Instant> = VecDeque::new();
    let mut outage: Option<Outage> = None;
    // At first, another bedrail that runs is told at once.
    let mut patience = Duration::ZERO;
    loop {
        let (began, waited) = (Instant::now(), outage.as_ref().map(Outage::next_wait));
        let Err(error) = run_once(&settings, &keys, halves, boot, patience, &mut outage) else { return Ok(()) };
        patience = LET_GO_WITHIN;
        if let Some((fault, cause)) = error.disk_fault() {
            let outage = outage.get_or_insert_with(|| Outage::new(boot.now(), began.elapsed(), waited));
            if !outage.wait(&settings, halves, fault, cause)? {
                return Ok(());
            }
            continue;
        }
        if !error.is_damage() {
            return Err(error);
        }
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

/// From an open store to its end. `outage`, until the halves are there, is how long there was none.
fn run_once(
    settings: &Settings,
    keys: &Keys,
    halves: Halves,
    boot: BootClock,
    patience: Duration,
    outage: &mut Option<Outage>,
) -> Result<(), DaemonError> {
    let state_dir = &settings.gateway.state_dir;
    ballast::make_way(state_dir);
    if halves == Halves::Both {
        prepare_within(patience, state_dir, keys)?;
    }
    let _once = halves.names().iter().map(|half| lock::only(state_dir, half)).collect::<Result<Vec<_>, _>>()?;
    if outage.as_ref().is_some_and(Outage::distrusts_writes) {
        Store::open(state_dir, &keys.log, keys.site.clone(), &settings.gateway.id)?.begin_log_anew()?;
        if halves.delivers() {
            WardStore::open(&state_dir.join(WARD_FILE), &keys.ward()?)?.begin_log_anew()?;
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| DaemonError::Failed(format!("no threads: {error}")))?;
    let result = runtime.block_on(supervise(settings.clone(), keys, halves, boot, outage));
    // Whatever did not end by itself is not waited for: as long as it has a database open, nobody prepares the store.
    runtime.shutdown_background();
    result
}

fn prepare_within(patience: Duration, state_dir: &Path, keys: &Keys) -> Result<(), DaemonError> {
    let (began, ward_key) = (Instant::now(), keys.ward()?);
    loop {
        match prepare(state_dir, &keys.log, &ward_key) {
            Err(StoreError::Locked { .. }) if began.elapsed() < patience => std::thread::sleep(LOOK_EVERY),
            prepared => return prepared.map(drop).map_err(DaemonError::Store),
        }
    }
}

async fn supervise(
    settings: Settings,
    keys: &Keys,
    halves: Halves,
    boot: BootClock,
    outage: &mut Option<Outage>,
) -> Result<(), DaemonError> {
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new();
    let missed = outage.as_ref().map(Outage::missed);
    let started = start_halves(&settings, keys, halves, boot, missed, &stop, &mut tasks);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| DaemonError::Failed(format!("signals: {error}")))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| DaemonError::Failed(format!("signals: {error}")))?;
    let first = match started {
        Err(error) => Some(Err(error)),
        Ok(()) => {
            *outage = None;
            tracing::info!(gateway = %settings.gateway.id, version = env!("CARGO_PKG_VERSION"), "started");
            // Outside systemd there is nobody to tell.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("running")]);
            tokio::select! {
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
                ended = tasks.next() => ended,
            }
        }
    };
    // After a failure it may go on in this process.
    if first.is_none() {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    }
    stop.cancel();
    let rest = tasks.join().await;
    tracing::info!("stopped");
    first.into_iter().chain(rest).find_map(Result::err).map_or(Ok(()), Err)
}

fn start_halves(
    settings: &Settings,
    keys: &Keys,
    halves: Halves,
    boot: BootClock,
    missed: Option<Missed>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<(), DaemonError> {
    if halves.delivers() {
        deliver::start(settings, keys, boot, stop, tasks)?;
    }
    if halves.collects() {
        collect::start(settings, keys, boot, missed, stop, tasks)?;
    }
    Ok(())
}
