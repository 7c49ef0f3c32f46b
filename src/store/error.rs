//! What can go wrong with what must survive, and what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// The system's number of "input/output error", for which std has no name.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}; check that the directory exists and that bedrail may write there")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}: no key envelope; run `bedrail key init` once, or restore the envelope from a backup")]
    NoEnvelope(PathBuf),
    #[error("{path}: the key envelope is damaged ({what}); restore it from a backup: without it the database cannot be opened")]
    BadEnvelope { path: PathBuf, what: &'static str },
    #[error("{path}: credential \"{credential}\" does not open this envelope: it is another store's key; nothing was changed")]
    WrongKey { path: PathBuf, credential: String },
    #[error("{path}: is not readable with its own key: the file is damaged, not locked ({source}); nothing was deleted")]
    Damaged { path: PathBuf, source: rusqlite::Error },
    #[error("{path}: damaged: {what}; `bedrail store prepare` sets it aside and salvages what can be read")]
    Bad { path: PathBuf, what: String },
    #[error(
        "{path}: no page of it bears this key: the envelope beside it belongs to another file, or nothing is left; restore both from a backup; nothing was changed"
    )]
    Foreign { path: PathBuf },
    #[error(
        "{path}: was here and is gone; restore it from a backup, or, to begin with an empty one, remove {made} and run `bedrail store prepare`"
    )]
    Gone { path: PathBuf, made: PathBuf },
    #[error("{path}: its salvage was cut short; run `bedrail store prepare`, which finishes it")]
    Unfinished { path: PathBuf },
    #[error("{path}: missing; run `bedrail store prepare` first")]
    Missing { path: PathBuf },
    #[error(
        "{path}: schema {found} is newer than this bedrail knows ({known}); install the bedrail that wrote it, or a newer one"
    )]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{path}: schema {found} is older than {known}; run `bedrail store prepare`")]
    OlderSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{path}: SQLite runs with {what}, and bedrail's promises need it otherwise")]
    WrongMode { path: PathBuf, what: String },
    #[error("{path}: another bedrail holds the store; stop it first (`systemctl stop bedrail.target`)")]
    Locked { path: PathBuf },
    #[error("frame {first}: {what}")]
    BadFrame { first: u64, what: &'static str },
    #[error("the store: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{0}")]
    Refused(String),
}

/// What is wrong with the disk and not with the files on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    Full,
    ReadOnly,
    /// Reading, writing or syncing fails.
    Failing,
}

impl StoreError {
    /// Whether the disk is to blame: the same may succeed on a disk that is well again.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        match self {
            error if error.is_full() => Some(DiskFault::Full),
            error if error.is_read_only() => Some(DiskFault::ReadOnly),
            error if error.is_damage() => None,
            Self::Io { source, .. } => (source.raw_os_error() == Some(EIO)).then_some(DiskFault::Failing),
            error => error.sqlite().filter(|error| error.code == ErrorCode::SystemIoFailure).map(|_| DiskFault::Failing),
        }
    }

    /// One line for people: which disk, what is wrong with it, what to do.
    pub fn of_disk(&self, fault: DiskFault, directory: &Path) -> String {
        let (what, remedy) = match fault {
            DiskFault::Full => ("is full", "make room on it"),
            DiskFault::ReadOnly => ("takes no writes", "mount it writable again, or replace it"),
            DiskFault::Failing => ("fails", "replace it, and look into the kernel's log"),
        };
        let cause = match self {
            Self::Io { source, .. } => source.to_string(),
            Self::Sql(source) => source.to_string(),
            error => error.to_string(),
        };
        format!("the disk of {} {what} ({cause}); {remedy}", directory.display())
    }

    /// No room on the disk: nothing was written, and the same write may succeed when there is some.
    pub fn is_full(&self) -> bool {
        match self.sqlite() {
            Some(error) => error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE,
            None => matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        }
    }

    /// The disk takes no writes: nothing was written.
    pub fn is_read_only(&self) -> bool {
        match self.sqlite() {
            Some(error) => {
                let moved = error.extended_code == ffi::SQLITE_READONLY_DBMOVED;
                (error.code == ErrorCode::ReadOnly && !moved) || error.extended_code == ffi::SQLITE_IOERR_WRITE
            }
            None => matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem),
        }
    }

    /// Somebody else held the write lock for all of the time-out.
    pub fn is_busy(&self) -> bool {
        self.sqlite().is_some_and(|error| error.code == ErrorCode::DatabaseBusy)
    }

    /// Whether the same write may be tried again. After anything else the file is not trusted any more: above all after a
    /// failed fsync, when the kernel may have dropped what it says is written.
    pub fn is_passing(&self) -> bool {
        self.is_full() || self.is_read_only() || self.is_busy()
    }

    fn sqlite(&self) -> Option<&ffi::Error> {
        match self {
            Self::Sql(error) => error.sqlite_error(),
            _ => None,
        }
    }

    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }

    pub(super) fn damaged(path: &Path, what: &str) -> Self {
        Self::Bad { path: path.into(), what: what.into() }
    }

    /// The file's content is bad, and `store prepare` can do something about it. A full, read-only or failing disk, a lock
    /// and a foreign schema are none of this.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { source, .. } | Self::Sql(source) => is_damage(source),
            Self::BadFrame { .. } | Self::Bad { .. } => true,
            _ => false,
        }
    }
}

/// SQLCipher tells of a page whose code does not match by a plain "SQL logic error".
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || failure.extended_code == rusqlite::ffi::SQLITE_ERROR
                || failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ
        }
        rusqlite::Error::SqlInputError { error, .. } => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        }
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::QueryReturnedNoRows => true,
        _ => false,
    }
}
