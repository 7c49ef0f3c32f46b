//! Who may do what with the store's files: every open database shares it for life, `store prepare` wants it alone.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{StoreError, aside};

/// Held as long as the value lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct StoreLock(#[allow(dead_code, reason = "held for its lock alone")] File);

const STORE: &str = "bedrail.lock";
/// A half that is just being stopped lets go within its five seconds.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

pub fn shared(state_dir: &Path) -> Result<StoreLock, StoreError> {
    acquire(state_dir.join(STORE), File::try_lock_shared, PATIENCE)
}

/// For a database that is to be opened, unless a salvage of it was cut short; where none was ever prepared, nothing is made.
pub(super) fn shared_of(database: &Path) -> Result<StoreLock, StoreError> {
    let state_dir = database.parent().unwrap_or(Path::new("."));
    if !database.exists() && !state_dir.join(STORE).exists() {
        aside::refuse_unfinished(database)?;
        return Err(StoreError::Missing { path: database.into() });
    }
    let lock = shared(state_dir)?;
    aside::refuse_unfinished(database)?;
    Ok(lock)
}

pub fn exclusive(state_dir: &Path) -> Result<StoreLock, StoreError> {
    acquire(state_dir.join(STORE), File::try_lock, Duration::ZERO)
}

/// A half is there once: a second one would write over what the first knows of its routes, and take its socket away.
pub fn only(state_dir: &Path, half: &str) -> Result<StoreLock, StoreError> {
    acquire(state_dir.join(format!("{half}.lock")), File::try_lock, Duration::ZERO)
}

fn acquire(path: PathBuf, lock: fn(&File) -> Result<(), TryLockError>, patience: Duration) -> Result<StoreLock, StoreError> {
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::io(&path))?;
    let deadline = Instant::now() + patience;
    loop {
        match lock(&file) {
            Ok(()) => return Ok(StoreLock(file)),
            Err(TryLockError::Error(error)) => return Err(StoreError::io(&path)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(StoreError::Locked { path }),
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
        }
    }
}
