//! Who measured what: devices, users of a device, streams, positions in the log, and the opaque key of a patient.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Metric, Modality, Site};

/// A device's identity: its public or static Bluetooth device address, most significant octet first, as printed.
/// It is the same on every gateway of a site, which a configured name need not be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceId([u8; 6]);

impl DeviceId {
    /// The gateway itself, as the source of its own events and gaps.
    pub const GATEWAY: DeviceId = DeviceId([0; 6]);

    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Bluetooth device address such as A4:C1:38:11:22:33")]
pub struct ParseDeviceIdError(String);

impl FromStr for DeviceId {
    type Err = ParseDeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDeviceIdError(text.chars().take(40).collect());
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or_else(error)?, 16).map_err(|_| error())?;
        }
        match parts.next() {
            Some(_) => Err(error()),
            None => Ok(Self(octets)),
        }
    }
}

/// The user slot of a shared device (the "1/2" button of a cuff). It is never a patient by itself.
pub type UserIndex = u8;

/// One series of values of one kind: what order is promised for, and what windows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamKey {
    pub device: DeviceId,
    pub user: Option<UserIndex>,
    pub metric: Metric,
    pub site: Option<Site>,
    pub modality: Modality,
}

impl StreamKey {
    /// A glucose sensor counts the minutes of its session: its numbers are of that session, and its times to the minute.
    pub fn counts_minutes(self) -> bool {
        self.metric == Metric::GlucoseInterstitial && self.modality == Modality::Continuous
    }
}

/// Position in the log. The first record is 1; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The opaque key of a patient on this gateway: a letter first, then letters, digits, `-`, `_` or `.`, and never a run
/// of five digits, so that a record number can't be used as one by accident.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectKey(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectKeyError {
    #[error("a patient key is 1 to 64 characters; give an opaque one such as p-017")]
    Length,
    #[error(
        "a patient key starts with a letter and holds only letters, digits, `-`, `_` and `.`; give an opaque one such as p-017"
    )]
    Characters,
    #[error(
        "a patient key may not hold five digits in a row (it would look like a record number); give an opaque one such as p-017"
    )]
    LooksLikeIdentifier,
}

impl SubjectKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SubjectKey {
    type Error = SubjectKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() || text.len() > 64 {
            return Err(SubjectKeyError::Length);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !text.as_bytes()[0].is_ascii_alphabetic() || !text.bytes().all(allowed) {
            return Err(SubjectKeyError::Characters);
        }
        if text.as_bytes().windows(5).any(|five| five.iter().all(u8::is_ascii_digit)) {
            return Err(SubjectKeyError::LooksLikeIdentifier);
        }
        Ok(Self(text))
    }
}

impl FromStr for SubjectKey {
    type Err = SubjectKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<SubjectKey> for String {
    fn from(key: SubjectKey) -> Self {
        key.0
    }
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_is_written_in_the_config() {
        let id: DeviceId = "a4:c1:38:11:22:33".parse().expect("an address");
        assert_eq!(id.to_string(), "A4:C1:38:11:22:33");
    }

    #[test]
    fn a_bad_address_is_refused_and_named() {
        for text in ["", "A4:C1:38:11:22", "A4:C1:38:11:22:33:44", "A4-C1-38-11-22-33", "+4:C1:38:11:22:33", "A4:C1:38:11:22:3é"]
        {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_patient_key_that_looks_like_an_identifier_is_refused() {
        assert!("p-017".parse::<SubjectKey>().is_ok());
        assert!("p-1234.5678".parse::<SubjectKey>().is_ok());
        assert_eq!("p-12345".parse::<SubjectKey>(), Err(SubjectKeyError::LooksLikeIdentifier));
        assert_eq!("4711".parse::<SubjectKey>(), Err(SubjectKeyError::Characters));
        assert_eq!("Åsa".parse::<SubjectKey>(), Err(SubjectKeyError::Characters));
        assert_eq!("".parse::<SubjectKey>(), Err(SubjectKeyError::Length));
    }
}
