//! Where a secret is kept, and reading it. The config names a secret; its contents never enter the config, an error or a
//! log.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// No key, password or certificate key is longer; a reference to the wrong file must not fill the memory.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// A file of this name in the credentials directory.
    Credential(String),
    File(PathBuf),
}

impl SecretRef {
    pub fn path(&self, credentials: &CredentialsDir) -> PathBuf {
        match self {
            SecretRef::Credential(name) => credentials.path.join(name),
            SecretRef::File(path) => path.clone(),
        }
    }
}

/// As written in the config: only where the secret is.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Credential(name) => write!(f, "{{ credential = {name:?} }}"),
            SecretRef::File(path) => write!(f, "{{ file = {path:?} }}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsDir {
    pub path: PathBuf,
    /// systemd made it for this service: it is on memory, and its files may be readable by the service's group.
    pub systemd: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("`{0}` is no credential name; use letters, digits, `.`, `_` and `-`, without a path")]
    Name(String),
    #[error("no secret at {path}: put the file there (`chmod 0400 {path}`), or name another in the config")]
    Missing { path: String },
    #[error("cannot read the secret {path}: {source}; it must be readable by the user bedrail runs as")]
    Io { path: String, source: io::Error },
    #[error("the secret {path} is not a regular file; name a file")]
    NotAFile { path: String },
    #[error("the secret {path} may be read by others (mode {mode:04o}); run `chmod 0400 {path}`")]
    ReadableByOthers { path: String, mode: u32 },
    #[error("the secret {path} is larger than 64 KiB; it names the wrong file")]
    TooLarge { path: String },
    #[error("the secret {path} is empty; write the secret into it")]
    Empty { path: String },
}

/// The octets of a secret, exactly as the file holds them.
pub fn read(secret: &SecretRef, credentials: &CredentialsDir) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    if let SecretRef::Credential(name) = secret
        && !is_credential_name(name)
    {
        return Err(SecretError::Name(name.chars().take(40).collect()));
    }
    let path = secret.path(credentials);
    let from_systemd = credentials.systemd && matches!(secret, SecretRef::Credential(_));
    read_file(&path, if from_systemd { 0o037 } else { 0o077 })
}

pub fn is_credential_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=255).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

fn read_file(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let shown = || path.display().to_string();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SecretError::Missing { path: shown() },
        _ => SecretError::Io { path: shown(), source },
    };
    // Before opening: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile { path: shown() });
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(SecretError::ReadableByOthers { path: shown(), mode });
    }
    if metadata.len() > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge { path: shown() });
    }
    // Room for all of it from the start: a vector that grows leaves copies behind that nobody wipes.
    let mut octets = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 1));
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut octets).map_err(failed)?;
    match octets.len() as u64 {
        0 => Err(SecretError::Empty { path: shown() }),
        length if length > MAX_SECRET_BYTES => Err(SecretError::TooLarge { path: shown() }),
        _ => Ok(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(systemd: bool, mode: u32) -> (tempfile::TempDir, CredentialsDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("store-key");
        std::fs::write(&file, b"opaque octets").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("mode");
        let credentials = CredentialsDir { path: dir.path().to_owned(), systemd };
        (dir, credentials)
    }

    fn store_key() -> SecretRef {
        SecretRef::Credential("store-key".to_owned())
    }

    #[test]
    fn a_secret_comes_back_octet_by_octet() {
        let (_dir, credentials) = credentials(false, 0o400);
        assert_eq!(read(&store_key(), &credentials).expect("readable").as_slice(), b"opaque octets");
    }

    #[test]
    fn a_key_file_others_can_read_is_refused_with_the_remedy() {
        for mode in [0o404, 0o440, 0o420, 0o644] {
            let (_dir, credentials) = credentials(false, mode);
            let error = read(&store_key(), &credentials).expect_err("too open").to_string();
            assert!(error.contains("chmod 0400 /") && error.contains("store-key"), "{error}");
            assert!(!error.contains("opaque"), "{error}");
        }
    }

    #[test]
    fn only_systemd_may_let_the_group_read_a_credential() {
        let (_dir, from_systemd) = credentials(true, 0o440);
        assert!(read(&store_key(), &from_systemd).is_ok());
        let by_path = SecretRef::File(from_systemd.path.join("store-key"));
        assert!(matches!(read(&by_path, &from_systemd), Err(SecretError::ReadableByOthers { .. })));
        let (_dir, writable) = credentials(true, 0o460);
        assert!(matches!(read(&store_key(), &writable), Err(SecretError::ReadableByOthers { .. })));
    }

    #[test]
    fn a_credential_name_never_leaves_its_directory() {
        let (_dir, credentials) = credentials(false, 0o400);
        for name in ["../store-key", "a/b", "", ".hidden", ".."] {
            assert!(matches!(read(&SecretRef::Credential(name.to_owned()), &credentials), Err(SecretError::Name(_))), "{name}");
        }
    }

    #[test]
    fn what_is_no_secret_file_is_refused_without_waiting_or_filling_memory() {
        let (dir, credentials) = credentials(false, 0o400);
        let at = |name: &str| SecretRef::File(dir.path().join(name));
        assert!(matches!(read(&at("absent"), &credentials), Err(SecretError::Missing { .. })));
        assert!(matches!(read(&SecretRef::File(dir.path().to_owned()), &credentials), Err(SecretError::NotAFile { .. })));
        std::os::unix::fs::symlink(dir.path().join("loop"), dir.path().join("loop")).expect("a link");
        assert!(matches!(read(&at("loop"), &credentials), Err(SecretError::Io { .. })));
        for (name, length) in [("large", MAX_SECRET_BYTES as usize + 1), ("empty", 0)] {
            std::fs::write(dir.path().join(name), vec![7; length]).expect("written");
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o400)).expect("mode");
        }
        assert!(matches!(read(&at("large"), &credentials), Err(SecretError::TooLarge { .. })));
        assert!(matches!(read(&at("empty"), &credentials), Err(SecretError::Empty { .. })));
    }
}
