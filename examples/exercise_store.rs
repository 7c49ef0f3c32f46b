//! A store to be killed: runs a script of `tests/support/exercise` and says after each step what it has promised.
//! For the tests of kills, power cuts and failing cards; not part of any release.
//!
//!     exercise_store run SCRIPT DIRECTORY    prints `DONE …` lines; exit 3 and a `FAILED …` line when a step fails
//!     exercise_store recover DIRECTORY       what a start does after that; exit 1 and the reason when it fails
//!
//! A script is called as its type calls it: Day, Migration, …

#[path = "../tests/support/exercise/mod.rs"]
mod exercise;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", script, dir] => run(script, Path::new(dir)),
        ["recover", dir] => recover(Path::new(dir)),
        _ => {
            eprintln!("usage: exercise_store run SCRIPT DIRECTORY | recover DIRECTORY");
            ExitCode::from(2)
        }
    }
}

fn run(script: &str, dir: &Path) -> ExitCode {
    let script = exercise::Script::ALL.into_iter().find(|known| format!("{known:?}") == script).expect("a script there is");
    // One write a line: what stands in the pipe is what was promised, whenever the process dies.
    let say = |line: String| std::io::stdout().lock().write_all(line.as_bytes()).expect("somebody listens");
    match exercise::run(script, dir, |promise| say(format!("{promise}\n"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err((step, error)) => {
            say(format!("FAILED {step:?} {error}\n"));
            ExitCode::from(3)
        }
    }
}

fn recover(dir: &Path) -> ExitCode {
    match exercise::recover(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(1)
        }
    }
}
