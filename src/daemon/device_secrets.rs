//! Reads the secrets of devices the config names, once, at start: passkeys, keys of what they advertise, and codes that open
//! users' slots. What is wrong with one is told with its line in the config; what it is, is told to nobody but the device, BlueZ
//! and the decoder.

use std::collections::BTreeMap;

use crate::config::{ConfigError, ConfigErrors, DeviceSettings, Loaded, Origin, SecretError, SecretRef, secret};
use crate::gatt::ConsentCode;
use crate::hex;
use crate::radio::Passkey;
use crate::reading::{DeviceId, UserIndex};

/// More users than any scale has slots for.
const MAX_USERS: usize = 16;
/// User Data Service: a code has four digits.
const MAX_CODE: u16 = 9_999;
/// User slots of a device; 255 is "nobody known".
const MAX_USER: u8 = 254;

#[derive(Default)]
pub struct DeviceSecrets {
    pub passkeys: BTreeMap<DeviceId, Passkey>,
    /// Of what they advertise.
    pub advert_keys: BTreeMap<DeviceId, [u8; 16]>,
    pub consents: BTreeMap<DeviceId, Vec<(UserIndex, ConsentCode)>>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret {path} is no passkey; write the six digits the device shows, such as 042137, into it")]
    NoPasskey { path: String },
    #[error("the secret {path} is no key of advertisements; write the 32 hexadecimal digits the device was given into it")]
    NoAdvertKey { path: String },
    #[error(
        "the secret {path} holds no consent codes; write one line a user into it, at most {MAX_USERS}: the number of the user's slot on \
         the device (0 to {MAX_USER}), a space and the code (0 to {MAX_CODE}), such as `1 4711`"
    )]
    NoConsents { path: String },
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
    let consents = |text: &str, path| consents(text).ok_or(Fault::NoConsents { path });
    let secrets = DeviceSecrets {
        passkeys: each(loaded, "device[].passkey", |device| device.passkey.as_ref(), passkey, &counts, &mut errors),
        advert_keys: each(loaded, "device[].advert_key", |device| device.advert_key.as_ref(), advert_key, &counts, &mut errors),
        consents: each(loaded, "device[].consent", |device| device.consent.as_ref(), consents, &counts, &mut errors),
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

fn consents(text: &str) -> Option<Vec<(UserIndex, ConsentCode)>> {
    let mut users: Vec<(UserIndex, ConsentCode)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (user, code) = line.split_once([' ', '\t'])?;
        let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
        let (user, code) = (user, code.trim_start());
        let (user, code): (u8, u16) = (digits(user).then(|| user.parse().ok())??, digits(code).then(|| code.parse().ok())??);
        let known = users.iter().any(|(known, _)| *known == user);
        if user > MAX_USER || code > MAX_CODE || known || users.len() == MAX_USERS {
            return None;
        }
        users.push((user, ConsentCode(code)));
    }
    (!users.is_empty()).then_some(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_user_and_a_code_and_nothing_else() {
        let read = |text| consents(text).map(|users| users.iter().map(|(user, code)| (*user, code.0)).collect::<Vec<_>>());
        assert_eq!(read("1 4711\n\n0  0042\r\n"), Some(vec![(1, 4711), (0, 42)]));
        for text in ["", "4711", "1 10000", "255 1", "1 4711 2", "1 +1", "1 x", "1 4711\n1 4712", "1\n4711"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let many: String = (0..=MAX_USERS).map(|user| format!("{user} 1\n")).collect();
        assert_eq!(read(&many), None);
    }
}
