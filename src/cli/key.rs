//! `bedrail key init`: the keys of a new gateway. What exists is never replaced.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use super::ConfigArg;
use crate::config::secret::{self, SecretRef};
use crate::config::{self, Settings};
use crate::daemon::{DaemonError, credential_name};
use crate::store::{LOG_FILE, StoreError, WARD_FILE, key};

#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Make the credentials and key envelopes that do not exist yet
    Init {
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub fn run(command: KeyCommand) -> ExitCode {
    let KeyCommand::Init { config } = command;
    match config::load(&config.config).map_err(DaemonError::from).and_then(|loaded| init(&loaded.settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrail: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn init(settings: &Settings) -> Result<(), DaemonError> {
    let state_dir = &settings.gateway.state_dir;
    directory(state_dir)?;
    for (what, secret_ref) in
        [("site key", &settings.gateway.site_key), ("store key", &settings.store.key), ("ward key", &settings.ward.key)]
    {
        let path = secret_ref.path(&settings.gateway.credentials);
        if path.exists() {
            println!("{what}: {} is there", path.display());
            continue;
        }
        directory(path.parent().unwrap_or(Path::new(".")))?;
        key::create_credential(&path)?;
        println!("{what}: {} made", path.display());
    }
    println!("the site key is the same on every gateway of a site: copy the file, or ids of two gateways will not agree");
    for (file, secret_ref) in [(LOG_FILE, &settings.store.key), (WARD_FILE, &settings.ward.key)] {
        envelope(settings, &state_dir.join(file), secret_ref)?;
    }
    Ok(())
}

fn envelope(settings: &Settings, database: &Path, secret_ref: &SecretRef) -> Result<(), DaemonError> {
    let path = key::envelope_path(database);
    let content = secret::read(secret_ref, &settings.gateway.credentials)?;
    if path.exists() {
        key::data_key(database, &credential_name(secret_ref), &content)?;
        println!("envelope: {} is there and opens", path.display());
        return Ok(());
    }
    if database.exists() {
        let text = format!(
            "{}: the database is there and its key envelope is not; restore {} from a backup",
            database.display(),
            path.display()
        );
        return Err(StoreError::Refused(text).into());
    }
    key::create_envelope(database, &credential_name(secret_ref), &content)?;
    println!("envelope: {} made", path.display());
    Ok(())
}

/// A directory nobody else looks into, unless it is there already.
fn directory(path: &Path) -> Result<(), DaemonError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(StoreError::io(path))?;
    Ok(())
}
