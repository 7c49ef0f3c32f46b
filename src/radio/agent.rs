//! The bonding agent: BlueZ asks it before it pairs. Without one even a device that needs no passkey cannot be subscribed
//! to; one that says yes to everybody would bond with anything nearby. So it answers for configured devices alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::{info, warn};
use zbus::{ObjectPath, interface};

use super::bond::Bond;

pub const AGENT_PATH: &str = "/org/bedrail/agent";

/// What the agent says it can do. With `KeyboardOnly` the device shows a passkey and we give it; anything more could end in a
/// comparison of numbers, for which nobody is here. Where no passkey is configured even that is not offered: a device that
/// could show one would ask for it.
pub const fn capability(any_passkey: bool) -> &'static str {
    if any_passkey { "KeyboardOnly" } else { "NoInputNoOutput" }
}

/// How the devices may pair, by object path; kept by `watch`, which knows whose path is whose.
#[derive(Clone, Default)]
pub struct MayPair(Arc<Mutex<Paths>>);

#[derive(Default)]
struct Paths {
    may: BTreeMap<String, Bond>,
    /// Whose passkey was asked for and given.
    given: BTreeSet<String>,
    /// Who asked and was refused, and whether it was for a passkey.
    refused: BTreeMap<String, bool>,
}

impl MayPair {
    pub fn set(&self, path: &str, how: Bond) {
        if how == Bond::None {
            self.paths().may.remove(path);
        } else {
            self.paths().may.insert(path.to_owned(), how);
        }
    }

    pub fn clear(&self) {
        *self.paths() = Paths::default();
    }

    pub fn how(&self, path: &str) -> Bond {
        self.paths().may.get(path).copied().unwrap_or_default()
    }

    /// Whether the passkey was asked for since the last `begin`.
    pub fn was_given(&self, path: &str) -> bool {
        self.paths().given.contains(path)
    }

    /// Whether it asked for what it may not have since it was asked last, and whether that was a passkey.
    pub fn take_refusal(&self, path: &str) -> Option<bool> {
        self.paths().refused.remove(path)
    }

    fn refuse(&self, path: &str, passkey: bool) {
        self.paths().refused.insert(path.to_owned(), passkey);
    }

    pub fn begin(&self, path: &str) {
        self.paths().given.remove(path);
    }

    fn give(&self, path: &str) -> Option<u32> {
        let Bond::Passkey(passkey) = self.how(path) else { return None };
        self.paths().given.insert(path.to_owned());
        Some(passkey.number())
    }

    fn paths(&self) -> MutexGuard<'_, Paths> {
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
        if self.may_pair.how(path) == Bond::JustWorks {
            info!(path, "pairing granted");
            return Ok(());
        }
        self.may_pair.refuse(path, matches!(self.may_pair.how(path), Bond::Passkey(_)));
        warn!(path, "pairing refused: no bond without a passkey is configured for it, or it has one");
        Err(AgentError::Rejected("not configured to pair".to_owned()))
    }
}

/// BlueZ doc/org.bluez.Agent.rst. Whatever needs a person is refused.
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

    fn request_passkey(&self, device: ObjectPath<'_>) -> Result<u32, AgentError> {
        let path = device.as_str();
        let Some(passkey) = self.may_pair.give(path) else {
            self.may_pair.refuse(path, true);
            warn!(path, "passkey refused: not a configured device with bond = \"passkey\", or it has a bond");
            return Err(AgentError::Rejected("no passkey is configured".to_owned()));
        };
        info!(path, "passkey given");
        Ok(passkey)
    }

    fn request_pin_code(&self, _device: ObjectPath<'_>) -> Result<String, AgentError> {
        Err(AgentError::Rejected("no PIN is configured".to_owned()))
    }

    fn display_passkey(&self, _device: ObjectPath<'_>, _passkey: u32, _entered: u16) {}

    fn display_pin_code(&self, _device: ObjectPath<'_>, _pin: String) -> Result<(), AgentError> {
        Err(AgentError::Rejected("there is no display".to_owned()))
    }
}
