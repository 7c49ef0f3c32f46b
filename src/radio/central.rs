//! btleplug: every call of it is in this file. Handles and streams are opened once and kept, because dropping a stream can
//! leave its match rule at the bus for ever, and because a stream only carries what its own handle knows.

use std::collections::BTreeMap;

use btleplug::api::{Central as _, CharPropFlags, Characteristic, Manager as _, Peripheral as _, WriteType};
use btleplug::platform::{Adapter, Manager, Peripheral, PeripheralId};
use futures::{Stream, StreamExt};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::bluez::CallError;
use super::session::Failure;
use crate::procedure::writable;

const PATH_ROOT: &str = "/org/bluez/";

pub struct Central {
    manager: Manager,
    /// By name (hci0). BlueZ re-uses names, so there are as many as adapters were ever plugged in at once.
    adapters: Mutex<BTreeMap<String, Adapter>>,
}

impl Central {
    pub async fn connect() -> Result<Self, CentralError> {
        Ok(Self { manager: Manager::new().await?, adapters: Mutex::default() })
    }

    /// Whether btleplug sees the adapter: it overlooks one without a `Modalias`.
    pub async fn sees_adapter(&self, path: &str) -> bool {
        self.adapter(name_of(path)).await.is_ok()
    }

    /// A handle on the device under an object path that BlueZ knows.
    pub async fn peripheral(&self, path: &str) -> Result<Handle, CentralError> {
        let relative = path.strip_prefix(PATH_ROOT).unwrap_or(path);
        let adapter = self.adapter(relative.split('/').next().unwrap_or_default()).await?;
        let id: bluez_async::DeviceId = relative.parse().map_err(|e| CentralError::new("path", e))?;
        Ok(Handle { peripheral: adapter.peripheral(&PeripheralId::from(id)).await? })
    }

    async fn adapter(&self, name: &str) -> Result<Adapter, CentralError> {
        let mut adapters = self.adapters.lock().await;
        if let Some(adapter) = adapters.get(name) {
            return Ok(adapter.clone());
        }
        for adapter in self.manager.adapters().await? {
            // "hci0 (usb:v1D6Bp0246d0542)"
            let info = adapter.adapter_info().await?;
            adapters.insert(info.split(' ').next().unwrap_or_default().to_owned(), adapter);
        }
        adapters.get(name).cloned().ok_or_else(|| CentralError::new("adapter", format!("{name} is not to be seen")))
    }
}

fn name_of(path: &str) -> &str {
    path.strip_prefix(PATH_ROOT).unwrap_or(path)
}

/// One device on one adapter, for the life of the process.
#[derive(Clone)]
pub struct Handle {
    peripheral: Peripheral,
}

/// A characteristic the device has.
#[derive(Clone)]
pub struct Found {
    pub uuid: Uuid,
    pub readable: bool,
    /// It can tell its value by itself.
    pub tells: bool,
    /// It does so by indications alone, each acknowledged.
    pub indicates_only: bool,
    /// It takes what is written to it, and says so.
    pub writable: bool,
    /// It takes what is written to it, and says nothing.
    pub commanded: bool,
    characteristic: Characteristic,
}

impl Handle {
    /// Every value the device tells and every value read, in order, over all its connections to come. The queue behind
    /// it belongs to btleplug and has no bound (about 530 octets a value): who takes it must not dawdle.
    pub async fn values(&self) -> Result<impl Stream<Item = (Uuid, Vec<u8>)> + Send + use<>, CentralError> {
        let values = self.peripheral.notifications().await?;
        Ok(values.map(|value| (value.uuid, value.value)))
    }

    /// What the device offers in this connection. Until this was asked the stream carries nothing of it.
    pub async fn discover(&self) -> Result<Vec<Found>, CentralError> {
        self.peripheral.discover_services().await?;
        let found = |characteristic: Characteristic| {
            let has = |flag| characteristic.properties.contains(flag);
            Found {
                uuid: characteristic.uuid,
                readable: has(CharPropFlags::READ),
                tells: has(CharPropFlags::NOTIFY) || has(CharPropFlags::INDICATE),
                indicates_only: has(CharPropFlags::INDICATE) && !has(CharPropFlags::NOTIFY),
                writable: has(CharPropFlags::WRITE),
                commanded: has(CharPropFlags::WRITE_WITHOUT_RESPONSE),
                characteristic,
            }
        };
        Ok(self.peripheral.characteristics().into_iter().map(found).collect())
    }

    pub async fn read(&self, found: &Found) -> Result<Vec<u8>, CentralError> {
        Ok(self.peripheral.read(&found.characteristic).await?)
    }

    /// With response where the characteristic has one, and only what is on the list of what may be written.
    pub async fn write(&self, found: &Found, octets: &[u8]) -> Result<(), CentralError> {
        if !writable::passes(found.uuid, octets) {
            return Err(CentralError::new("bedrail", format!("nothing of this may be written to {}", found.uuid)));
        }
        let how = if found.writable { WriteType::WithResponse } else { WriteType::WithoutResponse };
        Ok(self.peripheral.write(&found.characteristic, octets, how).await?)
    }

    pub async fn subscribe(&self, found: &Found) -> Result<(), CentralError> {
        Ok(self.peripheral.subscribe(&found.characteristic).await?)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct CentralError(CallError);

impl CentralError {
    fn new(name: &str, text: impl ToString) -> Self {
        Self(CallError { name: name.to_owned(), text: text.to_string() })
    }

    pub fn nothing_offered() -> Self {
        Self::new("GATT", "the device offers nothing of what it is configured for; check `characteristics` of the device")
    }

    /// What its profile asks of it.
    pub fn not_offered(characteristic: Uuid, what: &str) -> Self {
        Self::new("GATT", format!("the device has no {characteristic} that can be {what}, as its profile says; check `profile`"))
    }

    pub fn no_answer(characteristic: Uuid, within: std::time::Duration) -> Self {
        let seconds = within.as_secs();
        Self::new("GATT", format!("no answer came from {characteristic} within {seconds} s to what its profile wrote"))
    }

    pub fn stopped() -> Self {
        Self::new("btleplug", "the value stream ended")
    }

    /// The device wants a link protected better than this one is.
    pub fn is_security(&self) -> bool {
        ["NotPermitted", "NotAuthorized"].iter().any(|end| self.0.name.ends_with(end))
    }

    /// The device or BlueZ will not do this, ever; the link is fine.
    pub fn is_refusal(&self) -> bool {
        ["NotSupported", "NotPermitted", "NotAuthorized"].iter().any(|end| self.0.name.ends_with(end))
    }
}

impl From<btleplug::Error> for CentralError {
    fn from(error: btleplug::Error) -> Self {
        let btleplug::Error::Other(inner) = &error else { return Self::new("btleplug", error) };
        match inner.downcast_ref::<bluez_async::BluetoothError>() {
            Some(bluez_async::BluetoothError::DbusError(said)) => {
                Self::new(said.name().unwrap_or("D-Bus"), said.message().unwrap_or_default())
            }
            _ => Self::new("btleplug", error),
        }
    }
}

impl From<CentralError> for Failure {
    fn from(error: CentralError) -> Self {
        Failure { passing: error.0.is_passing(), reason: error.to_string() }
    }
}
