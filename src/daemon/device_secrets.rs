//! Reads the secrets of devices the config names, once, at start: passkeys, and keys of what they advertise. What is wrong
//! with one is told with its line in the config; what it is, is told to nobody but BlueZ and the decoder.

use std::collections::BTreeMap;

use crate::config::{ConfigError, ConfigErrors, DeviceSettings, Loaded, Origin, SecretError, SecretRef, secret};
use crate::hex;
use crate::radio::Passkey;
use crate::reading::DeviceId;

#[derive(Default)]
pub struct DeviceSecrets {
    pub passkeys: BTreeMap<DeviceId, Passkey>,
    /// Of what they advertise.
    pub advert_keys: BTreeMap<DeviceId, [u8; 16]>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret {path} is no passkey; write the six digits the device shows, such as 042137, into it")]
    NoPasskey { path: String },
    #[error("the secret {path} is no key of advertisements; write the 32 hexadecimal digits the device was given into it")]
    NoAdvertKey { path: String },
}

pub fn read(loaded: &Loaded) -> Result<DeviceSecrets, ConfigErrors> {
    read_all(loaded, |_| true)
}

/// What `check` can say of them, whoever runs it and wherever: not that one is not there, or not to be read.
pub fn check(loaded: &Loaded) -> Result<(), ConfigErrors> {
    read_all(loaded, |fault| !matches!(fault, Fault::Secret(_))).map(drop)
}

fn read_all(loaded: &Loaded, counts: impl Fn(&Fault) -> bool) -> Result<DeviceSecrets, ConfigErrors> {
    let mut errors = Vec::new();
    let passkey = |text: &str, path| text.parse().map_err(|_| Fault::NoPasskey { path });
    let advert_key = |text: &str, path| {
        let key = hex::decode(text).and_then(|octets| octets.try_into().ok());
        key.ok_or(Fault::NoAdvertKey { path })
    };
    let secrets = DeviceSecrets {
        passkeys: each(loaded, "device[].passkey", |device| device.passkey.as_ref(), passkey, &counts, &mut errors),
        advert_keys: each(loaded, "device[].advert_key", |device| device.advert_key.as_ref(), advert_key, &counts, &mut errors),
    };
    if errors.is_empty() { Ok(secrets) } else { Err(ConfigErrors(errors)) }
}

/// The secret under one key, of every device that has it.
fn each<T>(
    loaded: &Loaded,
    key: &str,
    named: impl Fn(&DeviceSettings) -> Option<&SecretRef>,
    parse: impl Fn(&str, String) -> Result<T, Fault>,
    counts: &impl Fn(&Fault) -> bool,
    errors: &mut Vec<ConfigError>,
) -> BTreeMap<DeviceId, T> {
    let credentials = &loaded.settings.gateway.credentials;
    let devices = loaded.settings.devices.iter().filter_map(|device| Some((device.id, named(device)?)));
    let places = loaded.explain.iter().filter(|explained| explained.path == key);
    let mut read = BTreeMap::new();
    for ((device, named), place) in devices.zip(places) {
        let parsed = secret::read(named, credentials).map_err(Fault::from).and_then(|octets| {
            let text = std::str::from_utf8(&octets).unwrap_or_default().trim_ascii_end();
            parse(text, named.path(credentials).display().to_string())
        });
        match parsed {
            Ok(value) => drop(read.insert(device, value)),
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
    read
}
