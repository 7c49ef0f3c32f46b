//! One connects at a time, and while one does, nobody scans: controllers do both badly together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// Connecting beside a scan that will not stop is worth a try after this long.
const SCAN_STOPS_IN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Turns(Arc<Inner>);

struct Inner {
    free: Arc<Semaphore>,
    connecting: watch::Sender<bool>,
    scanning: watch::Sender<bool>,
    rescan: Notify,
}

pub struct Turn {
    turns: Turns,
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            free: Arc::new(Semaphore::new(1)),
            connecting: watch::Sender::new(false),
            scanning: watch::Sender::new(false),
            rescan: Notify::new(),
        }))
    }

    /// First come, first served.
    pub async fn take(&self) -> Turn {
        let permit = self.0.free.clone().acquire_owned().await.expect("it is never closed");
        let turn = Turn { turns: self.clone(), _permit: permit };
        self.0.connecting.send_replace(true);
        let mut scanning = self.0.scanning.subscribe();
        let _ = tokio::time::timeout(SCAN_STOPS_IN, scanning.wait_for(|scanning| !scanning)).await;
        turn
    }

    pub fn ask_rescan(&self) {
        self.0.rescan.notify_one();
    }

    pub async fn rescan_asked(&self) {
        self.0.rescan.notified().await;
    }

    pub fn connecting(&self) -> watch::Receiver<bool> {
        self.0.connecting.subscribe()
    }

    /// Said before a scan starts and after it stopped.
    pub fn set_scanning(&self, on: bool) {
        self.0.scanning.send_replace(on);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The permit goes after this, so the next one's `true` comes later.
        self.turns.0.connecting.send_replace(false);
    }
}
