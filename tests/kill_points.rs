//! kill -9 at every write and sync of the store's scripts, and again of the recovery that follows; and an fsync that fails
//! at each. By strace, which does it before the Nth call is carried out, N = 1.. until a run is not hit. `BEDRAIL_LONG=1`
//! (`make long-kill`) takes every point, the short form every few.

#![allow(clippy::unwrap_used)]

#[path = "support/exercise/mod.rs"]
mod exercise;
#[path = "support/exerciser.rs"]
mod exerciser;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};

use exercise::{Given, Promise, Script};
use exerciser::{long, scratch};

/// Calls that change a file, and the short form's stride. `?`: an architecture has the one or the other. `write` is the one
/// before a promise is spoken.
const CALLS: [(&str, usize); 6] = [
    ("pwrite64", 16),
    ("?fsync,?fdatasync", 7),
    ("?unlink,?unlinkat", 5),
    ("?rename,?renameat,?renameat2", 2),
    ("?ftruncate", 4),
    ("write", 9),
];
const KILLED: i32 = 9;

#[test]
fn a_kill_at_any_write_or_sync_loses_nothing_that_was_promised() {
    if skipped("a_kill_at_any_write_or_sync_loses_nothing_that_was_promised") {
        return;
    }
    kill_everywhere(&Given::new(Script::Day));
}

#[test]
fn a_kill_during_the_recovery_from_a_kill_loses_nothing_either() {
    if skipped("a_kill_during_the_recovery_from_a_kill_loses_nothing_either") {
        return;
    }
    kill_recoveries(&Given::new(Script::Day), "pwrite64", if long() { 11 } else { 101 });
}

/// The file is of the older schema or of the newest, with every record and what the route owed.
#[test]
fn a_migration_that_is_killed_anywhere_is_done_or_not_begun() {
    if skipped("a_migration_that_is_killed_anywhere_is_done_or_not_begun") {
        return;
    }
    for script in [Script::Migration, Script::MigrationWithLog] {
        let given = Given::new(script);
        kill_everywhere(&given);
        kill_recoveries(&given, "pwrite64", if long() { 9 } else { 61 });
    }
}

/// What can be read is kept, what can't is counted once, and the damaged files are there as they were.
#[test]
fn a_salvage_that_is_killed_anywhere_keeps_what_can_be_read_and_counts_the_rest_once() {
    if skipped("a_salvage_that_is_killed_anywhere_keeps_what_can_be_read_and_counts_the_rest_once") {
        return;
    }
    let given = Given::new(Script::Salvage);
    kill_everywhere(&given);
    kill_recoveries(&given, "?rename,?renameat,?renameat2", if long() { 1 } else { 4 });
    kill_recoveries(&given, "pwrite64", if long() { 29 } else { 97 });
}

/// Kills a script at each of its calls, and looks at what is left.
fn kill_everywhere(given: &Given) {
    for (calls, stride) in CALLS {
        let points = each_point(unless_long(stride), |n| {
            let dir = begin(given);
            let run = under_strace(dir.path(), calls, &format!("signal=KILL:when={n}"), Some(given.script));
            if !was_killed(run.status) {
                assert!(run.status.success(), "{calls} {n}: {}", run.said);
                return false;
            }
            assert_eq!(run.verdict(dir.path(), given), Ok(()), "{:?} killed at {calls} {n}", given.script);
            true
        });
        println!("kill -9 of {:?} at {calls}: {points} points, 0 lost", given.script);
        assert!(points > 0 || calls.contains("rename"), "{calls} was never killed");
        assert!(points > 0 || given.script != Script::Salvage, "a salvage renames");
    }
}

/// Kills a script at every `stride`th of `first_calls`, then what a start does with what is left, at each of its calls.
fn kill_recoveries(given: &Given, first_calls: &str, stride: usize) {
    let (mut first_kills, mut points) = (0, 0);
    each_point(stride, |first| {
        let dir = begin(given);
        let run = under_strace(dir.path(), first_calls, &format!("signal=KILL:when={first}"), Some(given.script));
        if !was_killed(run.status) {
            return false;
        }
        first_kills += 1;
        for (calls, stride) in CALLS.into_iter().filter(|(calls, _)| *calls != "write") {
            points += each_point(unless_long(2 * stride), |second| {
                let again = scratch();
                std::fs::create_dir(again.path().join("store")).unwrap();
                exercise::write(&again.path().join("store"), &exercise::read(&dir.path().join("store")));
                let recovery = under_strace(again.path(), calls, &format!("signal=KILL:when={second}"), None);
                let killed = was_killed(recovery.status);
                assert!(killed || recovery.status.success(), "{first_calls} {first}, then {calls} {second}: {}", recovery.said);
                let verdict = run.verdict(again.path(), given);
                assert_eq!(verdict, Ok(()), "{:?} killed at {first_calls} {first}, then at {calls} {second}", given.script);
                killed
            });
        }
        true
    });
    println!("kill -9 of the recovery after {first_kills} kills of {:?}: {points} points, 0 lost", given.script);
    assert!(points > 0, "no recovery was killed");
}

#[test]
fn a_failing_fsync_is_an_error_and_never_a_promise() {
    if skipped("a_failing_fsync_is_an_error_and_never_a_promise") {
        return;
    }
    let given = Given::new(Script::Day);
    let (mut reported, mut tolerated) = (0, Vec::new());
    let points = each_point(unless_long(4), |n| {
        let dir = begin(&given);
        let run = under_strace(dir.path(), "?fsync,?fdatasync", &format!("error=EIO:when={n}"), Some(given.script));
        let Some(hit) = run.calls.lines().find(|line| line.contains("(INJECTED)")) else {
            assert!(run.status.success(), "fsync {n}: {}", run.said);
            return false;
        };
        assert_eq!(run.verdict(dir.path(), &given), Ok(()), "fsync {n} failed: {hit}");
        if run.said.contains("FAILED") {
            reported += 1;
        } else {
            tolerated.push((hit.to_owned(), run.promised()));
        }
        true
    });
    // What no caller hears of: a directory's sync by SQLite, and what closing a connection tidies up. That no promise rests
    // on them is shown in power_cut.rs.
    for (hit, promised) in &tolerated {
        assert_eq!(promised.len(), given.script.steps().len(), "{hit}: the script went on and did not come to its end");
    }
    let of_logs = tolerated.iter().filter(|(hit, _)| hit.contains(".db-wal")).count();
    println!("EIO at fsync: {points} points, {reported} reported, {} unheard ({of_logs} of a log when closing)", tolerated.len());
    assert!(reported > tolerated.len(), "most syncs carry a promise, and their failure is told");
}

/// N = 1, 1 + stride, … until `at` was not hit; how many were.
fn each_point(stride: usize, mut at: impl FnMut(usize) -> bool) -> usize {
    (1..).step_by(stride).take_while(|n| at(*n)).count()
}

/// The long form takes every point.
fn unless_long(stride: usize) -> usize {
    if long() { 1 } else { stride }
}

struct Run {
    status: ExitStatus,
    said: String,
    calls: String,
}

impl Run {
    fn promised(&self) -> Vec<Promise> {
        exercise::promises(&self.said)
    }

    fn verdict(&self, dir: &Path, given: &Given) -> Result<(), String> {
        exercise::verify(&dir.join("store"), given, &self.promised())
    }
}

/// A directory with what the script begins with, in `store`.
fn begin(given: &Given) -> tempfile::TempDir {
    let dir = scratch();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    given.write_to(&dir.path().join("store"));
    dir
}

/// Runs a script, or the recovery, on `dir/store`; strace does `what` to the `calls`.
fn under_strace(dir: &Path, calls: &str, what: &str, script: Option<Script>) -> Run {
    let (store, trace) = (dir.join("store"), dir.join("trace"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o"]).arg(&trace);
    strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")]).arg(exerciser::binary());
    match script {
        Some(script) => strace.args(["run", &format!("{script:?}")]),
        None => strace.arg("recover"),
    };
    let output = strace.arg(&store).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Run { status: output.status, said, calls: std::fs::read_to_string(&trace).unwrap_or_default() }
}

/// strace ends the way what it traced did.
fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(KILLED)
}

/// Without strace, or where it may not trace (some containers), there is nothing to test with.
fn skipped(test: &str) -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:signal=KILL:when=1", "echo", "x"]);
    let reason = match probe.output() {
        Ok(output) if was_killed(output.status) => return false,
        Ok(output) => format!("strace cannot inject here: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("strace: {error}"),
    };
    // Past libtest, which hides what a passing test prints with eprintln!; where nobody reads it there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    true
}
