//! The example `exercise_store` as a process, and room to run it in.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program, up to date: a run of one test file alone does not build the examples.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--example", "exercise_store"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells a test of its package is no setting of a build; build scripts of crates would run again for it.
        let told = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|told| name.starts_with(told));
        for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
            cargo.env_remove(name);
        }
        let built = cargo.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(Path::parent).expect("a test lies in target/debug/deps").join("examples/exercise_store")
    })
}

/// A directory in memory where there is one: thousands of fsyncs whose order counts and whose time does not.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The full form of a test that is shortened in `make test`.
pub fn long() -> bool {
    std::env::var_os("BEDRAIL_LONG").is_some_and(|value| value == "1")
}
