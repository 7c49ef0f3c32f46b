//! Azure IoT Hub's logins: a token signed with the device's key, good for a while. The key is the secret and never goes out.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use zeroize::Zeroizing;

use super::link::{Login, LostReason};

/// What a URL need not encode (RFC 3986, 2.3).
pub const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// This version was made after it: a clock that shows less was never set.
const NOT_BEFORE: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// A shared access signature to be.
#[derive(Clone)]
pub struct Sas {
    username: String,
    /// What the token is good for, as IoT Hub names it: `{hub}/devices/{device}`.
    resource: String,
    key: hmac::Key,
    ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is not in base64; copy the device's primary or secondary key as IoT Hub shows it")]
pub struct NotBase64;

impl Sas {
    /// `key` as IoT Hub shows it, in base64.
    pub fn new(username: String, resource: String, key: &[u8], ttl: Duration) -> Result<Self, NotBase64> {
        let key = Zeroizing::new(STANDARD.decode(key.trim_ascii()).map_err(|_| NotBase64)?);
        Ok(Self { username, resource, key: hmac::Key::new(hmac::HMAC_SHA256, &key), ttl })
    }

    pub fn login(&self, now: Timestamp) -> Result<Login, LostReason> {
        if now < NOT_BEFORE {
            return Err(LostReason::ClockUnset(now.strftime("%F %R").to_string()));
        }
        let expiry = now.as_second().saturating_add_unsigned(self.ttl.as_secs());
        Ok(Login { username: self.username.clone(), password: Zeroizing::new(self.token(expiry)) })
    }

    /// When to make the connection anew: well before the broker would end it.
    pub fn renew_after(&self) -> Duration {
        self.ttl.mul_f64(0.8)
    }

    /// As IoT Hub documents it: the signature covers the encoded resource and the expiry, one a line.
    fn token(&self, expiry: i64) -> String {
        let resource = utf8_percent_encode(&self.resource, &UNRESERVED).to_string();
        let signature = STANDARD.encode(hmac::sign(&self.key, format!("{resource}\n{expiry}").as_bytes()));
        format!("SharedAccessSignature sr={resource}&sig={}&se={expiry}", utf8_percent_encode(&signature, &UNRESERVED))
    }
}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sas").field("username", &self.username).field("resource", &self.resource).field("key", &"<key>").finish()
    }
}
