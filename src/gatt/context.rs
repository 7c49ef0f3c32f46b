//! What a decoder must be told that the octets do not say: whether a checksum is sent, and the key of what is encrypted.

use std::fmt;

use crate::hex;
use crate::reading::Metric;

/// Everything is optional; a decoder that needs something says so in its error. The key does not print.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The device's feature characteristic announces a checksum at the end of every value.
    pub e2e_crc: bool,
    /// The AES-128 key of an encrypted advertisement.
    pub key: Option<[u8; 16]>,
    /// The device's address, most significant octet first, as printed.
    pub mac: Option<[u8; 6]>,
    /// What its temperature or mass is of, where the format does not say: it may be a room's or a parcel's.
    pub measures: Option<Metric>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.map(|_| "<key>");
        f.debug_struct("Context")
            .field("e2e_crc", &self.e2e_crc)
            .field("key", &key)
            .field("mac", &self.mac)
            .field("measures", &self.measures)
            .finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    #[error("`{0}` is not a context key; known are {keys}", keys = Context::KEYS.join(", "))]
    UnknownKey(String),
    /// The value is not repeated: it may be a key.
    #[error("the value of `{key}` must be {form}")]
    BadValue { key: &'static str, form: &'static str },
}

impl Context {
    pub const KEYS: &'static [&'static str] = &["e2e_crc", "key", "mac"];

    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ContextError> {
        let bad = |key, form| ContextError::BadValue { key, form };
        match key.to_ascii_lowercase().as_str() {
            "e2e_crc" => {
                self.e2e_crc = value.parse().map_err(|_| bad("e2e_crc", "`true` or `false`"))?;
            }
            "key" => self.key = Some(octets(value).ok_or_else(|| bad("key", "32 hexadecimal digits"))?),
            "mac" => self.mac = Some(octets(value).ok_or_else(|| bad("mac", "an address such as 54:48:E6:8F:80:A5"))?),
            _ => return Err(ContextError::UnknownKey(key.chars().take(40).collect())),
        }
        Ok(())
    }
}

/// Colons may stand between the digits.
fn octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(&text.replace(':', ""))?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_misspelt_or_misshapen_is_refused_and_never_repeated() {
        let mut context = Context::default();
        assert_eq!(context.set("E2E_CRC", "true"), Ok(()));
        assert_eq!(context.set("mac", "54:48:E6:8F:80:A5"), Ok(()));
        assert_eq!((context.e2e_crc, context.mac), (true, Some([0x54, 0x48, 0xE6, 0x8F, 0x80, 0xA5])));
        for (key, value) in [("crc", "true"), ("e2e_crc", "yes"), ("key", "5448"), ("key", "+x"), ("mac", "é4:48:E6:8F:80:A")] {
            let message = context.set(key, value).expect_err(value).to_string();
            assert!(!message.contains(value), "{message}");
        }
        context.set("key", &"7b".repeat(16)).expect("a key");
        assert!(!format!("{context:?}").contains("123"), "0x7b is 123");
    }
}
