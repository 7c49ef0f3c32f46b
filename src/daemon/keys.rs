//! Reads the keys a half needs, once, at start.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::device_secrets::DeviceSecrets;
use super::{EXIT_CONFIG, EXIT_STORE};
use crate::config::secret::{self, SecretRef};
use crate::config::{SecretError, Settings};
use crate::reading::SiteKey;
use crate::store::key::{self, DataKey};
use crate::store::{LOG_FILE, StoreError, WARD_FILE};

pub struct Keys {
    pub log: DataKey,
    pub site: SiteKey,
    /// Passkeys, consent codes and keys of advertisements; empty where only `deliver` runs.
    pub of_devices: DeviceSecrets,
    state_dir: PathBuf,
    ward: (SecretRef, crate::config::CredentialsDir),
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "the site key is not 32 octets or 64 hex digits; copy the file from another gateway of the site, or make one with `bedrail key init`"
    )]
    BadSiteKey,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeysError {
    pub const fn exit_code(&self) -> u8 {
        match self {
            KeysError::Secret(_) | KeysError::BadSiteKey => EXIT_CONFIG,
            KeysError::Store(_) => EXIT_STORE,
        }
    }
}

impl Keys {
    pub fn read(settings: &Settings) -> Result<Self, KeysError> {
        let credentials = &settings.gateway.credentials;
        let site = secret::read(&settings.gateway.site_key, credentials)?;
        let site = key::key_material(&site).ok_or(KeysError::BadSiteKey)?;
        let log = open(settings, &settings.store.key, LOG_FILE)?;
        Ok(Self {
            log,
            site: SiteKey::new(&site),
            of_devices: DeviceSecrets::default(),
            state_dir: settings.gateway.state_dir.clone(),
            ward: (settings.ward.key.clone(), credentials.clone()),
        })
    }

    pub fn with(self, of_devices: DeviceSecrets) -> Self {
        Self { of_devices, ..self }
    }

    /// The key of `ward.db`; the collect half never asks for it.
    pub fn ward(&self) -> Result<DataKey, KeysError> {
        let content = secret::read(&self.ward.0, &self.ward.1)?;
        Ok(key::data_key(&self.state_dir.join(WARD_FILE), &name(&self.ward.0), &content)?)
    }
}

fn open(settings: &Settings, secret_ref: &SecretRef, file: &str) -> Result<DataKey, KeysError> {
    let content: Zeroizing<Vec<u8>> = secret::read(secret_ref, &settings.gateway.credentials)?;
    Ok(key::data_key(&settings.gateway.state_dir.join(file), &name(secret_ref), &content)?)
}

/// How a credential is called in messages and envelopes.
pub fn name(secret_ref: &SecretRef) -> String {
    match secret_ref {
        SecretRef::Credential(name) => name.clone(),
        SecretRef::File(path) => path.display().to_string(),
    }
}
