//! Reads the passkeys the config names, once, at start. What is wrong with one is told with its line in the config; what it
//! is, is told to nobody but BlueZ.

use std::collections::BTreeMap;

use crate::config::{ConfigError, ConfigErrors, Loaded, Origin, SecretError, secret};
use crate::radio::{NoPasskey, Passkey};
use crate::reading::DeviceId;

const KEY: &str = "device[].passkey";

pub type Passkeys = BTreeMap<DeviceId, Passkey>;

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret {path} is no passkey; write the six digits the device shows, such as 042137, into it")]
    NoPasskey { path: String, source: NoPasskey },
}

pub fn read(loaded: &Loaded) -> Result<Passkeys, ConfigErrors> {
    read_all(loaded, |_| true)
}

/// What `check` can say of them, whoever runs it and wherever: not that one is not there, or not to be read.
pub fn check(loaded: &Loaded) -> Result<(), ConfigErrors> {
    read_all(loaded, |fault| matches!(fault, Fault::NoPasskey { .. })).map(drop)
}

fn read_all(loaded: &Loaded, counts: impl Fn(&Fault) -> bool) -> Result<Passkeys, ConfigErrors> {
    let credentials = &loaded.settings.gateway.credentials;
    let devices = loaded.settings.devices.iter().filter_map(|device| Some((device.id, device.passkey.as_ref()?)));
    let places = loaded.explain.iter().filter(|explained| explained.path == KEY);
    let (mut passkeys, mut errors) = (Passkeys::new(), Vec::new());
    for ((device, named), place) in devices.zip(places) {
        let read = secret::read(named, credentials).map_err(Fault::from).and_then(|octets| {
            let text = std::str::from_utf8(&octets).unwrap_or_default().trim_ascii_end();
            let path = || named.path(credentials).display().to_string();
            text.parse().map_err(|source| Fault::NoPasskey { path: path(), source })
        });
        match read {
            Ok(passkey) => drop(passkeys.insert(device, passkey)),
            Err(fault) if counts(&fault) => {
                let (file, line) = match &place.origin {
                    Origin::File { file, line } => (file.clone(), Some(*line)),
                    _ => (loaded.file.clone(), None),
                };
                let (section, key) = (place.section.clone(), place.key.clone());
                errors.push(ConfigError { file, line, section, key, message: fault.to_string() });
            }
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(passkeys) } else { Err(ConfigErrors(errors)) }
}
