//! A file that takes up room while there is some, so that there is room to give when there is none: freed on a full disk, it
//! lets acknowledgements, settling and eviction go on.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};

pub const BALLAST_FILE: &str = "ballast";
/// A full write-ahead log and a checkpoint of it.
pub const BALLAST_OCTETS: u64 = 8 << 20;
/// It is made again only when twice its size is free, so that it does not come and go.
const RESTORE_AT: u64 = 2 * BALLAST_OCTETS;
/// With less than this a database cannot even be opened (its index of the write-ahead log) or write a full commit.
const NOTHING_LEFT: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What bedrail may still use.
    pub free: u64,
    pub read_only: bool,
}

/// The disk a directory is on.
pub fn disk(directory: &Path) -> io::Result<Disk> {
    let stat = statvfs(directory)?;
    Ok(Disk { free: stat.f_bavail.saturating_mul(stat.f_frsize), read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY) })
}

/// Gives the ballast of a full disk away, so that the databases can be opened at all.
pub fn make_way(state_dir: &Path) {
    if disk(state_dir).is_ok_and(|disk| disk.free < NOTHING_LEFT) {
        Ballast::find(state_dir).free();
    }
}

/// Whether there is room and a file can be written and synced: what a start needs, tried without touching the databases.
pub fn takes_writes(state_dir: &Path) -> bool {
    let probe = state_dir.join("probe");
    let write = || -> io::Result<()> {
        let mut file = File::create(&probe)?;
        file.write_all(b"written to see whether the disk takes it")?;
        file.sync_all()?;
        fs::remove_file(&probe)
    };
    disk(state_dir).is_ok_and(|disk| disk.free >= NOTHING_LEFT) && write().is_ok()
}

#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    kept: bool,
}

impl Ballast {
    pub fn find(state_dir: &Path) -> Self {
        let path = state_dir.join(BALLAST_FILE);
        let kept = fs::metadata(&path).is_ok_and(|meta| meta.len() >= BALLAST_OCTETS);
        Self { path, kept }
    }

    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Gives the room away; `false` when it had been given away before.
    pub fn free(&mut self) -> bool {
        let freed = self.kept && fs::remove_file(&self.path).is_ok();
        self.kept &= !freed;
        freed
    }

    /// Takes room again where there is enough; `true` when it did.
    pub fn restore(&mut self, disk: Disk) -> bool {
        if self.kept || disk.read_only || disk.free < RESTORE_AT {
            return false;
        }
        self.kept = fill(&self.path).is_ok();
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
        self.kept
    }

    /// Whether the disk is so full that the ballast is better given away before a write fails: the other half's writes too.
    pub fn is_needed(&self, disk: Disk) -> bool {
        self.kept && disk.free < NOTHING_LEFT
    }
}

/// Real blocks, not a hole.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    if fallocate(&file, FallocateFlags::empty(), 0, BALLAST_OCTETS).is_err() {
        let block = vec![0; 1 << 20];
        for _ in 0..BALLAST_OCTETS >> 20 {
            file.write_all(&block)?;
        }
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ballast_is_made_where_there_is_room_and_given_away_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ballast = Ballast::find(dir.path());
        let free = |free| Disk { free, read_only: false };
        assert!(!ballast.is_kept() && !ballast.free());
        assert!(!ballast.restore(free(RESTORE_AT - 1)), "too little room");
        assert!(!ballast.restore(Disk { free: RESTORE_AT, read_only: true }));
        assert!(ballast.restore(free(RESTORE_AT)));
        assert_eq!(fs::metadata(dir.path().join(BALLAST_FILE)).expect("it is there").len(), BALLAST_OCTETS);
        let mut found = Ballast::find(dir.path());
        assert!(found.is_kept() && !found.is_needed(free(NOTHING_LEFT)) && found.is_needed(free(NOTHING_LEFT - 1)));
        assert!(found.free() && !found.free());
        assert!(!Ballast::find(dir.path()).is_kept());
        assert!(disk(dir.path()).expect("a disk").free > 0);
        assert!(takes_writes(dir.path()) && !takes_writes(&dir.path().join("gone")));
        assert!(!dir.path().join("probe").exists());
    }
}
