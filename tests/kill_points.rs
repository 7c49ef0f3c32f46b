//! kill -9 at every write and sync of the store's script, and again of the recovery that follows; and an fsync that fails
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

use exerciser::{long, scratch};

/// Calls that change a file, and the short form's stride. `?`: an architecture has the one or the other.
const CALLS: [(&str, usize); 5] =
    [("pwrite64", 9), ("?fsync,?fdatasync", 4), ("?unlink,?unlinkat", 4), ("?ftruncate", 4), ("write", 6)];
const KILLED: i32 = 9;

#[test]
fn a_kill_at_any_write_or_sync_loses_nothing_that_was_promised() {
    if skipped("a_kill_at_any_write_or_sync_loses_nothing_that_was_promised") {
        return;
    }
    for (calls, stride) in CALLS {
        let points = each_point(unless_long(stride), |n| {
            let dir = scratch();
            let run = under_strace(dir.path(), calls, &format!("signal=KILL:when={n}"), "run");
            if !was_killed(run.status) {
                assert!(run.status.success(), "{calls} {n}: {}", run.said);
                return false;
            }
            let verdict = exercise::verify(&dir.path().join("store"), &exercise::promises(&run.said));
            assert_eq!(verdict, Ok(()), "killed at {calls} {n}");
            true
        });
        println!("kill -9 at {calls}: {points} points, 0 lost");
        assert!(points > 0, "{calls} was never killed");
    }
}

#[test]
fn a_kill_during_the_recovery_from_a_kill_loses_nothing_either() {
    if skipped("a_kill_during_the_recovery_from_a_kill_loses_nothing_either") {
        return;
    }
    let (mut first_kills, mut points) = (0, 0);
    each_point(if long() { 11 } else { 97 }, |first| {
        let dir = scratch();
        let run = under_strace(dir.path(), "pwrite64", &format!("signal=KILL:when={first}"), "run");
        if !was_killed(run.status) {
            return false;
        }
        first_kills += 1;
        let promised = exercise::promises(&run.said);
        for (calls, stride) in CALLS.into_iter().filter(|(calls, _)| *calls != "write") {
            points += each_point(unless_long(stride), |second| {
                let again = scratch();
                copy(dir.path(), again.path());
                let recovery = under_strace(again.path(), calls, &format!("signal=KILL:when={second}"), "verify");
                if !was_killed(recovery.status) {
                    assert!(recovery.status.success(), "write {first}, then {calls} {second}: {}", recovery.said);
                    return false;
                }
                let verdict = exercise::verify(&again.path().join("store"), &promised);
                assert_eq!(verdict, Ok(()), "killed at write {first}, and its recovery at {calls} {second}");
                true
            });
        }
        true
    });
    println!("kill -9 of the recovery after {first_kills} kills: {points} points, 0 lost");
    assert!(points > 0, "no recovery was killed");
}

#[test]
fn a_failing_fsync_is_an_error_and_never_a_promise() {
    if skipped("a_failing_fsync_is_an_error_and_never_a_promise") {
        return;
    }
    let (mut reported, mut tolerated) = (0, Vec::new());
    let points = each_point(unless_long(2), |n| {
        let dir = scratch();
        let run = under_strace(dir.path(), "?fsync,?fdatasync", &format!("error=EIO:when={n}"), "run");
        let Some(hit) = run.calls.lines().find(|line| line.contains("(INJECTED)")) else {
            assert!(run.status.success(), "fsync {n}: {}", run.said);
            return false;
        };
        let promised = exercise::promises(&run.said);
        let verdict = exercise::verify(&dir.path().join("store"), &promised);
        assert_eq!(verdict, Ok(()), "fsync {n} failed: {hit}");
        if run.said.contains("FAILED") {
            reported += 1;
        } else {
            tolerated.push((hit.to_owned(), promised));
        }
        true
    });
    // What no caller hears of: a directory's sync by SQLite, and what closing a connection tidies up. That no promise rests
    // on them is shown in power_cut.rs.
    for (hit, promised) in &tolerated {
        assert_eq!(promised.len(), exercise::STEPS.len(), "{hit}: the script went on and did not come to its end");
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

/// Runs the exerciser on `dir/store`, its promises kept in `dir/promises`; strace does `what` to the `calls`.
fn under_strace(dir: &Path, calls: &str, what: &str, mode: &str) -> Run {
    let (store, trace, promises) = (dir.join("store"), dir.join("trace"), dir.join("promises"));
    if mode == "run" {
        std::fs::create_dir(&store).unwrap();
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o"]).arg(&trace);
    strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")]);
    strace.arg(exerciser::binary()).arg(mode).arg(&store);
    if mode == "verify" {
        strace.arg(&promises);
    }
    let output = strace.output().unwrap();
    if mode == "run" {
        std::fs::write(&promises, &output.stdout).unwrap();
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Run { status: output.status, said, calls: std::fs::read_to_string(&trace).unwrap_or_default() }
}

/// strace ends the way what it traced did.
fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(KILLED)
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from.join("promises"), to.join("promises")).unwrap();
    std::fs::create_dir(to.join("store")).unwrap();
    for entry in std::fs::read_dir(from.join("store")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join("store").join(entry.file_name())).unwrap();
    }
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
