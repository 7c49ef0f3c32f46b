//! While the disk does not let the store be opened: whoever asks is told why, and it is tried again.
//!
//! Nothing is collected and nothing is sent meanwhile. What leaves the gateway was committed first, and here nothing can be; a
//! device that keeps what it measured keeps it until somebody listens again. When that was, is a gap record.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;
use super::{DaemonError, Halves};
use crate::api;
use crate::collect::{AdapterStatus, CollectStatus, DeviceStatus, DiskState, DiskStatus, Missed};
use crate::config::Settings;
use crate::deliver::{RouteState, RouteStatus};
use crate::reading::{BootMillis, ClockQuality};
use crate::store::{DiskFault, StoreError, ballast};

/// The first wait before the disk is looked at again, and the longest: soon enough for a person who has just mended it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub struct Outage {
    since: BootMillis,
    /// What it was last.
    fault: DiskFault,
    failed: bool,
    wait: Duration,
}

impl Outage {
    /// `ran` is how long it went well before, `waited` how long the next wait of the outage before that would have been: a
    /// disk that comes and goes is waited for as long as one that is gone.
    pub fn new(since: BootMillis, ran: Duration, waited: Option<Duration>) -> Self {
        let wait = waited.filter(|_| ran < LONGEST_WAIT).unwrap_or(FIRST_WAIT);
        Self { since, fault: DiskFault::ReadOnly, failed: false, wait }
    }

    pub fn next_wait(&self) -> Duration {
        self.wait
    }

    pub fn missed(&self) -> Missed {
        Missed::new(self.since, self.fault)
    }

    /// A read, a write or a sync failed: what the kernel shows of the files may not all be on the disk.
    pub fn distrusts_writes(&self) -> bool {
        self.failed
    }

    /// Until the disk takes writes; `false`: told to stop.
    pub fn wait(
        &mut self,
        settings: &Settings,
        halves: Halves,
        fault: DiskFault,
        cause: &StoreError,
    ) -> Result<bool, DaemonError> {
        (self.fault, self.failed) = (fault, self.failed || fault == DiskFault::Failing);
        let told = cause.of_disk(fault, &settings.gateway.state_dir);
        tracing::error!("degraded: {told}; nothing is collected or sent until then");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| DaemonError::Failed(format!("no threads: {error}")))?;
        let writable = runtime.block_on(async {
            let (stop, mut tasks) = (CancellationToken::new(), Tasks::new());
            serve(settings, halves, fault, &told, &stop, &mut tasks)?;
            // It is there, though it can't work: nobody gains by starting it again.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&told)]);
            let writable = self.until_writable(settings, &mut tasks).await;
            stop.cancel();
            tasks.join().await;
            writable
        });
        runtime.shutdown_background();
        writable
    }

    async fn until_writable(&mut self, settings: &Settings, tasks: &mut Tasks) -> Result<bool, DaemonError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| DaemonError::Failed(format!("signals: {error}")))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| DaemonError::Failed(format!("signals: {error}")))?;
        loop {
            let wait = self.wait;
            self.wait = (wait * 2).min(LONGEST_WAIT);
            tokio::select! {
                _ = terminate.recv() => return Ok(false),
                _ = interrupt.recv() => return Ok(false),
                Some(ended) = tasks.next() => return ended.map(|()| false),
                () = tokio::time::sleep(wait) => {}
            }
            // A dying disk may take long to say no.
            let state_dir = settings.gateway.state_dir.clone();
            let look = tokio::task::spawn_blocking(move || {
                ballast::make_way(&state_dir);
                ballast::takes_writes(&state_dir)
            });
            tokio::select! {
                _ = terminate.recv() => return Ok(false),
                _ = interrupt.recv() => return Ok(false),
                looked = look => if looked.unwrap_or(false) {
                    tracing::info!("the disk takes writes again");
                    return Ok(true);
                },
            }
        }
    }
}

/// The sockets of the halves, with what can be said without a store.
fn serve(
    settings: &Settings,
    halves: Halves,
    fault: DiskFault,
    told: &str,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<(), DaemonError> {
    let mut served = Vec::new();
    if halves.collects() {
        let status = collect_status(settings, fault, told);
        served.push((api::COLLECT_SOCKET, api::router_without_radio(status, told.to_owned())));
    }
    if halves.delivers() {
        served.push((api::DELIVER_SOCKET, api::router_without_desk(routes(settings, told), told.to_owned())));
    }
    for (socket, router) in served {
        let path = settings.gateway.runtime_dir.join(socket);
        let listener = api::bind(&path).map_err(|source| DaemonError::Socket { path: path.clone(), source })?;
        let stop = stop.clone();
        tasks.spawn(
            async move { api::serve(listener, router, stop).await.map_err(|source| DaemonError::Socket { path, source }) },
        );
    }
    Ok(())
}

fn collect_status(settings: &Settings, fault: DiskFault, told: &str) -> CollectStatus {
    let device = |device: &crate::config::DeviceSettings| DeviceStatus {
        name: device.name.clone(),
        kind: device.kind.name().to_owned(),
        address: device.id.to_string(),
        ..DeviceStatus::default()
    };
    CollectStatus {
        gateway: settings.gateway.id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock: ClockQuality::Unsynced.name().to_owned(),
        adapter: AdapterStatus { usable: false, detail: "not used until the store can be opened".to_owned() },
        devices: settings.devices.iter().map(device).collect(),
        disk: DiskStatus {
            state: match fault {
                DiskFault::Full => DiskState::Full,
                DiskFault::ReadOnly => DiskState::ReadOnly,
                DiskFault::Failing => DiskState::Failing,
            },
            degraded: Some(format!("{told}; nothing is collected until then")),
            free_octets: ballast::disk(&settings.gateway.state_dir).unwrap_or_default().free,
            ..DiskStatus::default()
        },
        ..CollectStatus::default()
    }
}

fn routes(settings: &Settings, told: &str) -> Vec<RouteStatus> {
    let route = |route: &crate::config::RouteSettings| RouteStatus {
        name: route.name.clone(),
        kind: route.kind.name().to_owned(),
        state: RouteState::Down,
        detail: Some(told.to_owned()),
        ..RouteStatus::default()
    };
    settings.routes.iter().map(route).collect()
}
