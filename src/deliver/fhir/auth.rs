//! Who this gateway is to a server: nobody, a token from a file, a client with a secret, or a client with a key (SMART App Launch 2,
//! backend services). Pure but for the signature's chance; what is asked of a token server is made here and sent elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::utf8_percent_encode;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA384, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

use crate::net::UNRESERVED;
use crate::reading::Timestamp;

/// Backend services allow five minutes; this leaves a clock that is off by two.
const ASSERTION_S: i64 = 180;
/// Where a token server does not say how long its token is good.
const USUAL_TOKEN: Duration = Duration::from_secs(300);
/// A token that is to be good for longer is renewed all the same: access is taken away by not renewing it.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3_600);
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Clone, Debug)]
pub enum Auth {
    None,
    Bearer(Zeroizing<String>),
    Secret(ClientSecret),
    Smart(Box<SmartClient>),
}

#[derive(Clone)]
pub struct ClientSecret {
    pub client_id: String,
    pub secret: Zeroizing<String>,
    pub scope: String,
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecret").field("client_id", &self.client_id).field("secret", &"<secret>").finish()
    }
}

#[derive(Clone)]
pub struct SmartClient {
    pub client_id: String,
    pub scope: String,
    /// Names our key among those the server knows.
    pub kid: Option<String>,
    key: Arc<Key>,
}

impl fmt::Debug for SmartClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmartClient").field("client_id", &self.client_id).field("key", &"<key>").finish()
    }
}

enum Key {
    Rs384(RsaKeyPair),
    Es384(EcdsaKeyPair),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs384,
    Es384,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no private key found in it; give it in PEM, unencrypted, as -----BEGIN PRIVATE KEY-----")]
    NoKey,
    #[error(
        "the key is none for RS384 (RSA, 2048 bits or more): {0}; make one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`"
    )]
    NotRsa(String),
    #[error(
        "the key is none for ES384 (EC, curve P-384): {0}; make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`"
    )]
    NotEc(String),
    #[error("the key can't sign")]
    Signature,
}

impl SmartClient {
    /// `pem` holds the private key.
    pub fn new(
        client_id: String,
        scope: String,
        kid: Option<String>,
        algorithm: Algorithm,
        pem: &[u8],
    ) -> Result<Self, AuthError> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| AuthError::NoKey)?;
        let key = match algorithm {
            Algorithm::Rs384 => {
                let pair = match &key {
                    PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
                    other => RsaKeyPair::from_pkcs8(other.secret_der()),
                };
                Key::Rs384(pair.map_err(|error| AuthError::NotRsa(error.to_string()))?)
            }
            Algorithm::Es384 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.secret_der(), &SystemRandom::new());
                Key::Es384(pair.map_err(|error| AuthError::NotEc(error.to_string()))?)
            }
        };
        Ok(Self { client_id, scope, kid, key: Arc::new(key) })
    }

    /// A signed word that we are the client, good for this token server and a few minutes. `jti` is never used twice.
    pub fn assertion(&self, audience: &str, now: Timestamp, jti: &str) -> Result<Zeroizing<String>, AuthError> {
        let alg = match &*self.key {
            Key::Rs384(_) => "RS384",
            Key::Es384(_) => "ES384",
        };
        let header = Header { alg, typ: "JWT", kid: self.kid.as_deref() };
        let exp = now.0 / 1_000 + ASSERTION_S;
        let claims = Claims { iss: &self.client_id, sub: &self.client_id, aud: audience, exp, jti };
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|_| AuthError::Signature);
        let signed = format!("{}.{}", part(json(serde_json::to_vec(&header))?), part(json(serde_json::to_vec(&claims))?));
        let random = SystemRandom::new();
        let signature = match &*self.key {
            Key::Rs384(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA384, &random, signed.as_bytes(), &mut signature).map_err(|_| AuthError::Signature)?;
                signature
            }
            Key::Es384(pair) => pair.sign(&random, signed.as_bytes()).map_err(|_| AuthError::Signature)?.as_ref().to_vec(),
        };
        Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }

    /// What a token server is asked, as a form.
    pub fn form(&self, assertion: &str) -> Zeroizing<Vec<u8>> {
        form(&[
            ("grant_type", "client_credentials"),
            ("scope", &self.scope),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ])
    }
}

impl ClientSecret {
    pub fn form(&self) -> Zeroizing<Vec<u8>> {
        form(&[("grant_type", "client_credentials"), ("scope", &self.scope)])
    }

    /// The header of the login (RFC 6749, 2.3.1): both parts are encoded before they are joined.
    pub fn login(&self) -> Zeroizing<String> {
        let encode = |text: &str| utf8_percent_encode(text, &UNRESERVED).to_string();
        let pair = Zeroizing::new(format!("{}:{}", encode(&self.client_id), encode(&self.secret)));
        Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
    }
}

fn form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let encode = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, &UNRESERVED));
    Zeroizing::new(fields.iter().map(encode).collect::<Vec<_>>().join("&").into_bytes())
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    jti: &'a str,
}

/// What a token server gave.
#[derive(Clone)]
pub struct Token {
    pub value: Zeroizing<String>,
    /// A fifth of its life is left for requests that are under way.
    pub renew_after: Duration,
    /// As granted, which may be less than was asked for.
    pub scope: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
    scope: Option<String>,
}

impl Token {
    /// `None`: it is no answer of a token server.
    pub fn read(body: &[u8]) -> Option<Self> {
        let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
        let of_header = answer.access_token.bytes().all(|byte| byte.is_ascii_graphic()) && !answer.access_token.is_empty();
        let life = answer.expires_in.map_or(USUAL_TOKEN, Duration::from_secs).min(LONGEST_TOKEN);
        (of_header && answer.token_type.eq_ignore_ascii_case("bearer")).then(|| Self {
            value: Zeroizing::new(answer.access_token),
            renew_after: life.mul_f64(0.8),
            scope: answer.scope,
        })
    }

    /// Whether Observations may be made with it; one that does not say is tried.
    pub fn may_create(&self) -> bool {
        self.scope.as_deref().is_none_or(|scope| scope.split_ascii_whitespace().any(allows_create))
    }
}

/// `system/Observation.c` (version 2, in any order of `cruds` there is), `.write` and `.*` (version 1).
fn allows_create(scope: &str) -> bool {
    let Some((resource, rights)) = scope.split_once('/').and_then(|(_, right)| right.split_once('.')) else { return false };
    let rights = rights.split('?').next().unwrap_or_default();
    let of_letters = rights.bytes().all(|byte| b"cruds".contains(&byte)) && rights.contains('c');
    matches!(resource, "Observation" | "*") && (of_letters || matches!(rights, "write" | "*"))
}

/// Where tokens are, as the server's `.well-known/smart-configuration` says.
pub fn token_endpoint(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Configuration {
        token_endpoint: String,
    }
    serde_json::from_slice::<Configuration>(body).ok().map(|configuration| configuration.token_endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P384_SHA384_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey};
    use std::process::Command;

    const NOW: Timestamp = Timestamp(1_795_435_200_000);

    fn pem(arguments: &[&str]) -> Vec<u8> {
        let made = Command::new("openssl").arg("genpkey").args(arguments).output().expect("openssl");
        assert!(made.status.success(), "{made:?}");
        made.stdout
    }

    fn client(algorithm: Algorithm, pem: &[u8]) -> Result<SmartClient, AuthError> {
        SmartClient::new("bedrail-1".to_owned(), "system/Observation.cu".to_owned(), Some("k1".to_owned()), algorithm, pem)
    }

    #[test]
    fn a_client_proves_itself_by_a_signature_for_one_server_and_a_few_minutes() {
        let keys = [
            (Algorithm::Es384, pem(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]), "ES384"),
            (Algorithm::Rs384, pem(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]), "RS384"),
        ];
        for (algorithm, pem, name) in keys {
            let client = client(algorithm, &pem).expect("a key");
            let assertion = client.assertion("https://x.example/token", NOW, "jti-1").unwrap();
            let parts: Vec<Vec<u8>> = assertion.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
            let json = |octets: &[u8]| serde_json::from_slice::<serde_json::Value>(octets).unwrap();
            assert_eq!(json(&parts[0]), serde_json::json!({ "alg": name, "typ": "JWT", "kid": "k1" }));
            let claims = json(&parts[1]);
            assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("bedrail-1"), Some("bedrail-1")));
            assert_eq!((claims["aud"].as_str(), claims["jti"].as_str()), (Some("https://x.example/token"), Some("jti-1")));
            let left = claims["exp"].as_i64().unwrap() - NOW.0 / 1_000;
            assert!((1..=300).contains(&left), "{left}");
            let signed = assertion.rsplit_once('.').unwrap().0;
            let checked = match &*client.key {
                Key::Es384(pair) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, pair.public_key().as_ref())
                    .verify(signed.as_bytes(), &parts[2]),
                Key::Rs384(pair) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA384, pair.public_key().as_ref())
                    .verify(signed.as_bytes(), &parts[2]),
            };
            assert!(checked.is_ok(), "{name}");
            assert!(!format!("{client:?}").contains("Pair"), "{client:?}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused_and_the_right_one_named() {
        let (ec, p256) = (
            ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        );
        assert!(client(Algorithm::Rs384, &pem(&ec)).unwrap_err().to_string().contains("-algorithm RSA"));
        assert!(client(Algorithm::Es384, &pem(&p256)).unwrap_err().to_string().contains("curve:P-384"));
        assert_eq!(client(Algorithm::Es384, b"nonsense").unwrap_err(), AuthError::NoKey);
    }

    #[test]
    fn a_token_is_renewed_while_a_fifth_of_its_life_is_left() {
        let life = |text: &str| Token::read(text.as_bytes()).map(|token| token.renew_after.as_secs());
        assert_eq!(life(r#"{"access_token":"a","token_type":"bearer","expires_in":300}"#), Some(240));
        assert_eq!(life(r#"{"access_token":"a","token_type":"Bearer"}"#), Some(240));
        assert_eq!(life(r#"{"access_token":"a","token_type":"bearer","expires_in":99999999}"#), Some(69_120));
        for nonsense in [
            "",
            "{}",
            r#"{"access_token":"a\r\nx: y","token_type":"bearer"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
        ] {
            assert_eq!(life(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_was_granted_is_read_and_not_what_was_asked_for() {
        let may = |scope: Option<&str>| {
            Token { value: Zeroizing::default(), renew_after: Duration::ZERO, scope: scope.map(str::to_owned) }.may_create()
        };
        for scope in [
            "system/Observation.c",
            "system/Observation.cruds",
            "system/Patient.rs system/Observation.cu",
            "system/Observation.write",
            "system/*.*",
            "system/Observation.c?category=vital-signs",
        ] {
            assert!(may(Some(scope)), "{scope}");
        }
        for scope in [
            "",
            "system/Observation.rs",
            "system/Patient.cruds",
            "system/Observation.read",
            "openid",
            "system/ObservationDefinition.c",
        ] {
            assert!(!may(Some(scope)), "{scope}");
        }
        assert!(may(None), "one that does not say");
    }

    #[test]
    fn a_secret_goes_into_a_header_and_is_not_printed() {
        let client =
            ClientSecret { client_id: "a:b".to_owned(), secret: Zeroizing::new("c%d".to_owned()), scope: "s".to_owned() };
        assert_eq!(*client.login(), format!("Basic {}", STANDARD.encode("a%3Ab:c%25d")));
        assert!(!format!("{client:?}").contains("c%d"));
        assert_eq!(client.form().as_slice(), b"grant_type=client_credentials&scope=s");
    }
}
