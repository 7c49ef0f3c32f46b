//! `store prepare`: the only place that creates or migrates the files, under the exclusive lock, before any half opens them.

use std::path::Path;

use super::key::DataKey;
use super::schema::{self, Database};
use super::{LOG_FILE, StoreError, WARD_FILE, db, lock};

/// What was done, for one line of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub created_log: bool,
    pub created_ward: bool,
}

pub fn prepare(state_dir: &Path, log_key: &DataKey, ward_key: &DataKey) -> Result<Prepared, StoreError> {
    let _alone = lock::exclusive(state_dir)?;
    Ok(Prepared {
        created_log: bring_up(&state_dir.join(LOG_FILE), log_key, Database::Log)?,
        created_ward: bring_up(&state_dir.join(WARD_FILE), ward_key, Database::Ward)?,
    })
}

/// A file that exists and does not open is reported, never replaced.
fn bring_up(path: &Path, key: &DataKey, which: Database) -> Result<bool, StoreError> {
    let mut connection = if path.exists() { db::open(path, key)? } else { db::create(path, key)? };
    schema::bring_up(&mut connection, which, path)
}
