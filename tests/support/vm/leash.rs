//! A child that cannot outlive the test, not even one that is killed: it ends when its standard input does.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::super::process::wait_until;

/// Runs its arguments, and kills that one process once nobody holds standard input any more.
const LEASH: &str = r#""$@" </dev/null & child=$!; cat >/dev/null; kill -9 $child 2>/dev/null; wait $child"#;

pub struct Leashed {
    child: Child,
    held: Option<ChildStdin>,
}

impl Leashed {
    /// Output goes to the file `output`. A program that reads its standard input to the end is its own leash.
    pub fn start(command: &Command, output: &Path, is_its_own: bool) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(output).expect("a file for its output");
        let mut leashed = if is_its_own {
            let mut leashed = Command::new(command.get_program());
            leashed.args(command.get_args());
            leashed
        } else {
            let mut leashed = Command::new("sh");
            leashed.args(["-c", LEASH, "leash"]).arg(command.get_program()).args(command.get_args());
            leashed
        };
        leashed.stdin(Stdio::piped()).stdout(file.try_clone().expect("the same file")).stderr(file);
        let mut child = leashed.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let held = child.stdin.take();
        Self { child, held }
    }

    /// Returns when it is dead.
    pub fn kill(&mut self) {
        self.held = None;
        let dead = wait_until(Duration::from_secs(10), || self.child.try_wait().is_ok_and(|ended| ended.is_some()));
        if !dead {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.kill();
    }
}
