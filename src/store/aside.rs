//! The files of a salvage, and how they change places. Two renames carry it over a crash at any point: the new file is built
//! as `….salvage` and is worth nothing until it is complete; then it is called `….salvaged-N`, and from there on [`finish`]
//! sets aside what still lies in its place.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::rescue::pages::beside;

/// The file that a salvage builds beside `path`.
pub(super) fn working(path: &Path) -> PathBuf {
    beside(path, ".salvage")
}

/// What is set aside from `path` under a number.
pub(super) fn damaged(path: &Path, number: u64) -> PathBuf {
    beside(path, &format!(".damaged-{number}"))
}

/// The working file is complete and closed: from here on it is what counts.
pub(super) fn complete(path: &Path, number: u64) -> Result<(), StoreError> {
    let working = working(path);
    let step = || -> std::io::Result<()> {
        File::open(&working)?.sync_all()?;
        std::fs::rename(&working, beside(path, &format!(".salvaged-{number}")))?;
        sync_directory(path)
    };
    step().map_err(StoreError::io(&working))?;
    finish(path)
}

/// Puts a salvaged file that is complete into its place, whatever a crash left half done.
pub(super) fn finish(path: &Path) -> Result<(), StoreError> {
    let Some((number, ready)) = siblings(path, ".salvaged-").into_iter().max() else { return Ok(()) };
    let step = || -> std::io::Result<()> {
        // A journal that stayed would be rolled back into the new file.
        for suffix in ["-journal", "-wal", "-shm", ""] {
            let from = beside(path, suffix);
            // Nothing goes over what was set aside before: somebody may have opened the file, or restored one, meanwhile.
            let to = (number..).map(|n| beside(path, &format!(".damaged-{n}{suffix}"))).find(|to| !to.exists());
            if let Some(to) = to.filter(|_| from.exists()) {
                std::fs::rename(from, to)?;
            }
        }
        sync_directory(path)?;
        std::fs::rename(&ready, path)?;
        sync_directory(path)
    };
    step().map_err(StoreError::io(path))
}

/// What lies at `path` counts no more, or not yet, while a salvage is not finished: nothing may be read from it or promised in it.
pub(super) fn refuse_unfinished(path: &Path) -> Result<(), StoreError> {
    match siblings(path, ".salvaged-").is_empty() {
        true => Ok(()),
        false => Err(StoreError::Unfinished { path: path.into() }),
    }
}

/// Removes what an interrupted salvage had begun to build; nothing else knows of it.
pub(super) fn discard(path: &Path) -> Result<(), StoreError> {
    for suffix in [".salvage", ".salvage-wal", ".salvage-shm", ".salvage-journal"] {
        match std::fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::io(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Under which what lies at `path` can be set aside.
pub(super) fn free_number(path: &Path) -> u64 {
    let taken = siblings(path, ".damaged-").into_iter().chain(siblings(path, ".salvaged-"));
    taken.map(|(number, _)| number).max().unwrap_or(0) + 1
}

/// Files beside `path` that are called like it, then `infix` and a number (and perhaps `-wal` or `-shm`).
fn siblings(path: &Path, infix: &str) -> Vec<(u64, PathBuf)> {
    let prefix = format!("{}{infix}", name_of(path));
    let entries = path.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let numbered = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(&prefix)?.split('-').next()?.parse().ok()?;
        Some((number, entry.path()))
    };
    entries.into_iter().flatten().filter_map(Result::ok).filter_map(numbered).collect()
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
