//! Reads the passkeys and keys of devices that the config names, once, at start. What is wrong with one is told with its line
//! in the config; what it is, is told to nobody but BlueZ and the decoder.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::config::{ConfigError, ConfigErrors, DeviceSettings, Loaded, Origin, SecretError, SecretRef, secret};
use crate::hex;
use crate::radio::Passkey;
use crate::reading::DeviceId;

const PASSKEY: &str = "device[].passkey";
const ADVERT_KEY: &str = "device[].advert_key";

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
    let mut of = |key, named: fn(&DeviceSettings) -> Option<&SecretRef>| {
        let (read, wrong) = texts(loaded, key, named);
        errors.extend(wrong.into_iter().filter(|(fault, _)| counts(fault)).map(|(fault, at)| at.error(&fault)));
        read
    };
    let (passkeys, advert_keys) = (of(PASSKEY, |it| it.passkey.as_ref()), of(ADVERT_KEY, |it| it.advert_key.as_ref()));
    let mut secrets = DeviceSecrets::default();
    for (device, text, path, at) in passkeys {
        match text.parse() {
            Ok(passkey) => drop(secrets.passkeys.insert(device, passkey)),
            Err(_) => errors.push(at.error(&Fault::NoPasskey { path })),
        }
    }
    for (device, text, path, at) in advert_keys {
        match hex::decode(&text).and_then(|octets| octets.try_into().ok()) {
            Some(key) => drop(secrets.advert_keys.insert(device, key)),
            None => errors.push(at.error(&Fault::NoAdvertKey { path })),
        }
    }
    if errors.is_empty() { Ok(secrets) } else { Err(ConfigErrors(errors)) }
}

/// Where in the config a secret is named.
struct Place {
    file: String,
    line: Option<usize>,
    section: String,
    key: String,
}

impl Place {
    fn error(self, fault: &Fault) -> ConfigError {
        let Self { file, line, section, key } = self;
        ConfigError { file, line, section, key, message: fault.to_string() }
    }
}

type Texts = Vec<(DeviceId, Zeroizing<String>, String, Place)>;

/// The text of each secret under one key, and those that could not be read.
fn texts(loaded: &Loaded, key: &'static str, named: fn(&DeviceSettings) -> Option<&SecretRef>) -> (Texts, Vec<(Fault, Place)>) {
    let credentials = &loaded.settings.gateway.credentials;
    let devices = loaded.settings.devices.iter().filter_map(|device| Some((device.id, named(device)?)));
    let places = loaded.explain.iter().filter(|explained| explained.path == key);
    let (mut read, mut wrong) = (Vec::new(), Vec::new());
    for ((device, named), place) in devices.zip(places) {
        let (file, line) = match &place.origin {
            Origin::File { file, line } => (file.clone(), Some(*line)),
            _ => (loaded.file.clone(), None),
        };
        let at = Place { file, line, section: place.section.clone(), key: place.key.clone() };
        match secret::read(named, credentials) {
            Ok(octets) => {
                let text = std::str::from_utf8(&octets).unwrap_or_default().trim_ascii_end();
                let text = Zeroizing::new(text.to_owned());
                read.push((device, text, named.path(credentials).display().to_string(), at));
            }
            Err(error) => wrong.push((error.into(), at)),
        }
    }
    (read, wrong)
}
