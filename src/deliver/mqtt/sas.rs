//! Azure IoT Hub's logins: a token signed with the device's key, good for a while. The key is the secret and never goes out.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use ring::hmac;
use zeroize::Zeroizing;

use super::link::{Login, LostReason};
use crate::net::UNRESERVED;

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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"YmVkcmFpbC10ZXN0LWtleS0wMTIzNDU2Nzg5YWJjZGU=";

    fn sas(resource: &str) -> Sas {
        Sas::new("u".to_owned(), resource.to_owned(), KEY, Duration::from_secs(3_600)).unwrap()
    }

    /// Both computed with Python's hmac, as Azure's documentation does it.
    #[test]
    fn a_token_is_what_another_implementation_makes_of_the_same_key() {
        assert_eq!(
            sas("ward.azure-devices.net/devices/gateway-1").token(1_795_421_800),
            "SharedAccessSignature sr=ward.azure-devices.net%2Fdevices%2Fgateway-1&sig=PKeZyeY9u6n46Pz4zdlGweAd5DMNgJ8qmoLEtsAcK14%3D&se=1795421800"
        );
        assert_eq!(
            sas("ward.azure-devices.net/devices/gateway_1.a").token(1_795_421_807),
            "SharedAccessSignature sr=ward.azure-devices.net%2Fdevices%2Fgateway_1.a&sig=xa%2BFbx3kYZV6y7h3mHKZ3dgE5g3r9yHaViQO%2BM0%2BM7I%3D&se=1795421807"
        );
    }

    #[test]
    fn a_token_is_good_from_now_for_as_long_as_configured_and_renewed_before() {
        let sas = sas("ward.azure-devices.net/devices/gateway-1");
        let login = sas.login(Timestamp::constant(1_795_418_200, 0)).unwrap();
        assert!(login.password.ends_with("&se=1795421800"), "{}", login.password.as_str());
        assert_eq!(sas.renew_after(), Duration::from_secs(2_880));
    }

    #[test]
    fn a_clock_that_was_never_set_is_told_as_that_and_not_as_a_wrong_password() {
        let reason = sas("a").login(Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(reason.class().name(), "clock");
        assert!(reason.to_string().contains("clock says 1970-01-01 00:00"), "{reason}");
    }

    #[test]
    fn a_key_is_never_printed_and_one_that_is_none_is_refused() {
        assert!(!format!("{:?}", sas("a")).contains("YmVk"));
        assert_eq!(Sas::new("u".into(), "r".into(), b"no base64!", Duration::ZERO).unwrap_err(), NotBase64);
        assert!(Sas::new("u".into(), "r".into(), b"YmVkcmFpbA==\n", Duration::ZERO).is_ok(), "a file ends with a newline");
    }
}
