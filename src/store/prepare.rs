//! `store prepare`: the only place that creates, migrates or salvages the files, under the exclusive lock, before any half
//! opens them.
//!
//! Beside each database lie up to two empty files: `….made` says that there was one, so that a file that is gone is not taken
//! for a first start; `….suspect` is left by a half that met damage, and asks for a look at every page.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::check::{self, Finding};
use super::damage::{self, Damage};
use super::key::DataKey;
use super::rescue::pages::{beside, wal_is_damaged};
use super::schema::{self, Database};
use super::{LOG_FILE, StoreError, WARD_FILE, aside, db, lock, salvage};

/// What was done, for one line of output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    pub created_log: bool,
    pub created_ward: bool,
    /// What was found damaged now, and salvaged.
    pub salvaged: Vec<Damage>,
}

pub fn prepare(state_dir: &Path, log_key: &DataKey, ward_key: &DataKey) -> Result<Prepared, StoreError> {
    all(state_dir, log_key, ward_key, false)
}

/// As [`prepare`], with a look at every page of both files.
pub fn prepare_thoroughly(state_dir: &Path, log_key: &DataKey, ward_key: &DataKey) -> Result<Prepared, StoreError> {
    all(state_dir, log_key, ward_key, true)
}

/// Left by a half that met damage: the next `prepare` looks closely. Best effort, on a disk that may be dying.
pub fn suspect(state_dir: &Path) {
    for file in [LOG_FILE, WARD_FILE] {
        let path = beside(&state_dir.join(file), ".suspect");
        if let Err(error) = File::create(&path) {
            tracing::warn!(path = %path.display(), %error, "could not ask for a closer look at the store");
        }
    }
}

fn all(state_dir: &Path, log_key: &DataKey, ward_key: &DataKey, thorough: bool) -> Result<Prepared, StoreError> {
    let _alone = lock::exclusive(state_dir)?;
    let mut prepared = Prepared::default();
    let (log, created_log) = bring_up(&state_dir.join(LOG_FILE), log_key, Database::Log, thorough, &mut prepared.salvaged)?;
    let (ward, created_ward) = bring_up(&state_dir.join(WARD_FILE), ward_key, Database::Ward, thorough, &mut prepared.salvaged)?;
    damage::hand_over(&ward, &log)?;
    Ok(Prepared { created_log, created_ward, ..prepared })
}

fn bring_up(
    path: &Path,
    key: &DataKey,
    which: Database,
    thorough: bool,
    salvaged: &mut Vec<Damage>,
) -> Result<(Connection, bool), StoreError> {
    aside::finish(path)?;
    aside::discard(path)?;
    let (made, suspected) = (beside(path, ".made"), beside(path, ".suspect"));
    let mut connection = if path.exists() {
        match examine(path, key, made.exists(), thorough || suspected.exists()) {
            Ok(connection) => connection,
            Err(error) if error.is_damage() => {
                tracing::error!("{error}; salvaging");
                salvaged.push(salvage::salvage(path, key, which)?);
                db::open(path, key)?
            }
            Err(error) => return Err(error),
        }
    } else if made.exists() {
        return Err(StoreError::Gone { path: path.into(), made });
    } else {
        db::create(path, key)?
    };
    let created = schema::bring_up(&mut connection, which, path)?;
    let note = || -> std::io::Result<()> {
        if !made.exists() {
            File::create(&made)?.sync_all()?;
        }
        if suspected.exists() {
            std::fs::remove_file(&suspected)?;
        }
        aside::sync_directory(path)
    };
    note().map_err(StoreError::io(path))?;
    Ok((connection, created))
}

/// Opens the file and looks at what every start needs; at all of it when `thorough`. Changes nothing in a damaged one.
fn examine(path: &Path, key: &DataKey, made: bool, thorough: bool) -> Result<Connection, StoreError> {
    let empty = path.metadata().map_err(StoreError::io(path))?.len() == 0;
    if (empty && made) || wal_is_damaged(path) {
        let what = if empty { "it is empty" } else { "commits behind a bad page of the write-ahead log" };
        return Err(StoreError::damaged(path, what));
    }
    let connection = db::open(path, key)?;
    // Closing would write the log back into a file that may be damaged.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if schema::version(&connection)? <= schema::VERSION && !schema::is_empty(&connection)? {
        check::at_start(&connection, path)?;
        if thorough
            && let Some(Finding { what, .. }) =
                check::every_page(&connection, path, key, &mut |_| {})?.into_iter().find(Finding::is_damage)
        {
            return Err(StoreError::damaged(path, &what));
        }
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}
