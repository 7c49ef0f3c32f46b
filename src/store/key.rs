//! Keys: a credential wraps a random data key; the wrapped key and a check value lie beside the database. That is what
//! tells a wrong credential from a damaged file, and what makes a new credential a matter of one small file.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{aead, digest, hkdf};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::StoreError;
use crate::hex;

/// 256 bits: the data key of SQLCipher's AES-256, in raw form so that opening costs no key derivation.
pub type DataKey = Zeroizing<[u8; 32]>;

const FORMAT: u32 = 1;
/// A credential is 32 random octets, or the same as 64 hex digits so that it can be typed.
const CREDENTIAL_OCTETS: usize = 32;

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u32,
    /// Name of the credential that opens it; a label, not a secret.
    credential: String,
    nonce: String,
    wrapped: String,
    /// SHA-256 over the other fields: a damaged envelope is told from a wrong credential.
    checksum: String,
}

pub fn envelope_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

/// Draws a data key for `database` and writes its envelope. An envelope that exists is never replaced.
pub fn create_envelope(database: &Path, credential: &str, secret: &[u8]) -> Result<(), StoreError> {
    let mut data_key = DataKey::new(random()?);
    let nonce: [u8; 12] = random()?;
    let mut wrapped = Zeroizing::new(data_key.to_vec());
    wrapping_key(secret)?
        .seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad(database)), &mut *wrapped)
        .map_err(|_| StoreError::Refused("the key could not be wrapped".into()))?;
    data_key.zeroize();
    let mut envelope = Envelope {
        format: FORMAT,
        credential: credential.to_owned(),
        nonce: hex::encode(&nonce),
        wrapped: hex::encode(&wrapped),
        checksum: String::new(),
    };
    envelope.checksum = checksum(&envelope);
    let text = serde_json::to_string_pretty(&envelope).expect("an envelope is plain strings");
    write_new(&envelope_path(database), format!("{text}\n").as_bytes())
}

/// Opens the envelope beside `database`.
pub fn data_key(database: &Path, credential: &str, secret: &[u8]) -> Result<DataKey, StoreError> {
    let path = envelope_path(database);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(StoreError::NoEnvelope(path)),
        Err(error) => return Err(StoreError::io(path)(error)),
    };
    let bad = |what| StoreError::BadEnvelope { path: path.clone(), what };
    let envelope: Envelope = serde_json::from_slice(&text).map_err(|_| bad("not an envelope"))?;
    if envelope.checksum != checksum(&envelope) {
        return Err(bad("checksum does not match"));
    }
    if envelope.format != FORMAT {
        return Err(bad("unknown format"));
    }
    let nonce: [u8; 12] = hex::decode(&envelope.nonce).and_then(|n| n.try_into().ok()).ok_or_else(|| bad("nonce"))?;
    let mut wrapped = Zeroizing::new(hex::decode(&envelope.wrapped).ok_or_else(|| bad("wrapped key"))?);
    let opened = wrapping_key(secret)?
        .open_in_place(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad(database)), &mut wrapped)
        .map_err(|_| StoreError::WrongKey { path: path.clone(), credential: credential.to_owned() })?;
    Ok(DataKey::new((&*opened).try_into().map_err(|_| bad("key length"))?))
}

/// Reads 32 octets of key material out of a credential's content.
pub fn key_material(content: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if content.len() == CREDENTIAL_OCTETS {
        return Some(Zeroizing::new(content.try_into().ok()?));
    }
    let text = std::str::from_utf8(content).ok()?.trim_end();
    let octets = Zeroizing::new(hex::decode(text)?);
    Some(Zeroizing::new(octets.as_slice().try_into().ok()?))
}

/// Writes 32 fresh random octets to a file that must not exist yet, readable by its owner alone.
pub fn create_credential(path: &Path) -> Result<(), StoreError> {
    let secret = Zeroizing::new(random::<32>()?);
    write_new(path, &secret[..])
}

pub fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut octets = [0; N];
    SystemRandom::new().fill(&mut octets).map_err(|_| StoreError::Refused("the kernel gives no random numbers".into()))?;
    Ok(octets)
}

fn wrapping_key(secret: &[u8]) -> Result<aead::LessSafeKey, StoreError> {
    let material = key_material(secret)
        .ok_or_else(|| StoreError::Refused("a key credential holds 32 random octets, or the same as 64 hex digits".into()))?;
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bedrail envelope").extract(&material[..]);
    let mut key = Zeroizing::new([0; 32]);
    let okm = prk.expand(&[b"wrapping key"], hkdf::HKDF_SHA256).expect("32 octets are within HKDF's limit");
    okm.fill(&mut key[..]).expect("the length is HKDF-SHA-256's own");
    Ok(aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key[..]).expect("AES-256 takes 32 octets")))
}

/// Binds an envelope to the file it stands beside, so that the two databases' envelopes can't be swapped.
fn aad(database: &Path) -> Vec<u8> {
    database.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default()
}

fn checksum(envelope: &Envelope) -> String {
    let text = format!("{}|{}|{}|{}", envelope.format, envelope.credential, envelope.nonce, envelope.wrapped);
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// Creates the file, syncs it and its directory: a key that a power cut takes is a database nobody opens again.
fn write_new(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
        file.write_all(content)?;
        file.sync_all()?;
        match path.parent() {
            Some(directory) => std::fs::File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(StoreError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bedrail.db");
        (dir, path)
    }

    #[test]
    fn only_the_right_credential_opens_an_envelope() {
        let (_dir, path) = database();
        create_envelope(&path, "store-key", &[1; 32]).expect("created");
        let key = data_key(&path, "store-key", &[1; 32]).expect("opens");
        assert_eq!(*key, *data_key(&path, "store-key", "01".repeat(32).as_bytes()).expect("hex is the same key"));
        assert!(matches!(data_key(&path, "store-key", &[2; 32]), Err(StoreError::WrongKey { .. })));
    }

    #[test]
    fn a_damaged_envelope_is_not_taken_for_a_wrong_key() {
        let (_dir, path) = database();
        create_envelope(&path, "store-key", &[1; 32]).expect("created");
        let envelope = envelope_path(&path);
        let text = std::fs::read_to_string(&envelope).expect("text");
        for position in (0..text.len()).step_by(7) {
            let mut octets = text.clone().into_bytes();
            octets[position] ^= 1;
            std::fs::remove_file(&envelope).expect("removed");
            std::fs::write(&envelope, &octets).expect("written");
            let result = data_key(&path, "store-key", &[1; 32]);
            let label = text[..position].rfind("\"credential\"").is_some_and(|at| position < at + 30);
            assert!(matches!(result, Err(StoreError::BadEnvelope { .. })) || label || result.is_ok(), "{position}: {result:?}");
            assert!(!matches!(result, Err(StoreError::WrongKey { .. })), "{position}");
        }
    }

    #[test]
    fn an_envelope_is_never_replaced_and_belongs_to_one_file() {
        let (dir, path) = database();
        create_envelope(&path, "store-key", &[1; 32]).expect("created");
        assert!(create_envelope(&path, "store-key", &[1; 32]).is_err());
        let other = dir.path().join("ward.db");
        std::fs::copy(envelope_path(&path), envelope_path(&other)).expect("copied");
        assert!(matches!(data_key(&other, "store-key", &[1; 32]), Err(StoreError::WrongKey { .. })));
    }
}
