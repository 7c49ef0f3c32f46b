//! The bonding agent: BlueZ asks it before it pairs. Without one even a device that needs no passkey cannot be subscribed
//! to; one that says yes to everybody would bond with anything nearby. So it answers for configured devices alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::{info, warn};
use zbus::{ObjectPath, interface};

pub const AGENT_PATH: &str = "/org/bedrail/agent";
pub const CAPABILITY: &str = "NoInputNoOutput";

/// Object paths of the devices that may pair; kept by `watch`, which knows whose path is whose.
#[derive(Clone, Default)]
pub struct MayPair(Arc<Mutex<BTreeSet<String>>>);

impl MayPair {
    pub fn set(&self, path: &str, allowed: bool) {
        let mut paths = self.paths();
        if allowed {
            paths.insert(path.to_owned());
        } else {
            paths.remove(path);
        }
    }

    pub fn clear(&self) {
        self.paths().clear();
    }

    pub fn contains(&self, path: &str) -> bool {
        self.paths().contains(path)
    }

    fn paths(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().expect("nobody panics while holding the paths")
    }
}

pub struct Agent {
    pub may_pair: MayPair,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.bluez.Error")]
enum AgentError {
    Rejected(String),
}

impl Agent {
    fn decide(&self, device: &ObjectPath<'_>) -> Result<(), AgentError> {
        let path = device.as_str();
        if self.may_pair.contains(path) {
            info!(path, "pairing granted");
            return Ok(());
        }
        warn!(path, "pairing refused: not a configured device with bond = \"just-works\"");
        Err(AgentError::Rejected("not configured to pair".to_owned()))
    }
}

/// BlueZ doc/org.bluez.Agent.rst. Whatever needs a person or a passkey is refused.
#[interface(name = "org.bluez.Agent1")]
impl Agent {
    fn release(&self) {}

    fn cancel(&self) {}

    fn request_authorization(&self, device: ObjectPath<'_>) -> Result<(), AgentError> {
        self.decide(&device)
    }

    fn authorize_service(&self, device: ObjectPath<'_>, _uuid: String) -> Result<(), AgentError> {
        self.decide(&device)
    }

    fn request_confirmation(&self, _device: ObjectPath<'_>, _passkey: u32) -> Result<(), AgentError> {
        Err(AgentError::Rejected("nobody is here to compare numbers".to_owned()))
    }

    fn request_passkey(&self, _device: ObjectPath<'_>) -> Result<u32, AgentError> {
        Err(AgentError::Rejected("no passkey is configured".to_owned()))
    }

    fn request_pin_code(&self, _device: ObjectPath<'_>) -> Result<String, AgentError> {
        Err(AgentError::Rejected("no PIN is configured".to_owned()))
    }

    fn display_passkey(&self, _device: ObjectPath<'_>, _passkey: u32, _entered: u16) {}

    fn display_pin_code(&self, _device: ObjectPath<'_>, _pin: String) -> Result<(), AgentError> {
        Err(AgentError::Rejected("there is no display".to_owned()))
    }
}
