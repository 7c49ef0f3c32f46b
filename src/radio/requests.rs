//! What people ask of the radio while it runs: to pair a device, to forget its bond, and what there is to be heard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::bluez::Bus;
use super::nearby::{Nearby, nearby};
use crate::reading::DeviceId;

/// Requests for one device that wait; one person at a time asks, and whoever finds it full asks again.
const WAITING: usize = 4;
/// How long somebody who asks for a pairing stands by the device, unless they say otherwise: long enough to find its button.
pub const STANDS_BY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// For as long as whoever asks stands by.
    Pair(Duration),
    Forget,
}

#[derive(Debug)]
pub struct Request {
    pub what: What,
    pub answer: oneshot::Sender<Result<(), RequestError>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the radio does not run; `bedrail status` says why")]
    NoRadio,
    #[error("device \"{0}\" has bond = \"none\"; write \"just-works\" or \"passkey\" in the config and restart bedrail")]
    NoBonding(String),
    #[error("device \"{0}\" is read by what it advertises and never connected to; there is nothing to pair")]
    NeverConnected(String),
    #[error("device \"{0}\" is bonded already; `bedrail forget {0}` removes the bond")]
    Bonded(String),
    #[error("device \"{0}\" has no bond that could be forgotten")]
    NotBonded(String),
    #[error("BlueZ did not do it: {0}; try again once `bedrail status` shows a usable adapter")]
    BlueZ(String),
}

/// The door to a radio that runs. The same one is given to the radio and to whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    bus: Option<Bus>,
    devices: BTreeMap<DeviceId, mpsc::Sender<Request>>,
}

impl Requests {
    /// Carried out by the device's own task, in its turn; the answer to `Pair` is that it is being tried.
    pub async fn ask(&self, device: DeviceId, what: What) -> Result<(), RequestError> {
        let sender = self.inner().devices.get(&device).cloned().ok_or(RequestError::NoRadio)?;
        let (answer, answered) = oneshot::channel();
        sender.send(Request { what, answer }).await.map_err(|_| RequestError::NoRadio)?;
        answered.await.unwrap_or(Err(RequestError::NoRadio))
    }

    /// Every device BlueZ knows of at this moment.
    pub async fn nearby(&self) -> Result<Vec<Nearby>, RequestError> {
        let bus = self.inner().bus.clone().ok_or(RequestError::NoRadio)?;
        let objects = bus.objects().await.map_err(|error| RequestError::BlueZ(error.to_string()))?;
        Ok(nearby(&objects))
    }

    pub(super) fn open(&self, bus: Bus) {
        self.inner().bus = Some(bus);
    }

    pub(super) fn of(&self, device: DeviceId) -> mpsc::Receiver<Request> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.inner().devices.insert(device, sender);
        receiver
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding the door")
    }
}
