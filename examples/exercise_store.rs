//! A store to be killed: runs the script of `tests/support/exercise` and says after each step what it has promised.
//! For the tests of kills, power cuts and failing cards; not part of any release.
//!
//!     exercise_store run DIRECTORY            prints `DONE …` lines; exit 3 and a `FAILED …` line when a step fails
//!     exercise_store verify DIRECTORY FILE    holds the directory against the `DONE …` lines in FILE; exit 1 and the reason

#[path = "../tests/support/exercise/mod.rs"]
mod exercise;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", dir] => run(Path::new(dir)),
        ["verify", dir, file] => verify(Path::new(dir), file),
        _ => {
            eprintln!("usage: exercise_store run DIRECTORY | verify DIRECTORY FILE");
            ExitCode::from(2)
        }
    }
}

fn run(dir: &Path) -> ExitCode {
    // One write a line: what stands in the pipe is what was promised, whenever the process dies.
    let say = |line: String| std::io::stdout().lock().write_all(line.as_bytes()).expect("somebody listens");
    match exercise::run(dir, |promise| say(format!("{promise}\n"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err((step, error)) => {
            say(format!("FAILED {step:?} {error}\n"));
            ExitCode::from(3)
        }
    }
}

fn verify(dir: &Path, file: &str) -> ExitCode {
    let text = std::fs::read_to_string(file).expect("the promises");
    match exercise::verify(dir, &exercise::promises(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(1)
        }
    }
}
