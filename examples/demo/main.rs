//! `cargo run --example demo`: the real binary in a simulated ward, with a broker that goes away, a patient who changes beds
//! and a cuff that changes hands; at the end a ledger. Exit 0 only if nothing is lost, invented or in a wrong chart, and if
//! a second gateway with one wrong assignment shows that the check would notice.
//!
//! Options: `--seconds N`, how long the devices measure (default 50). Needs the Debian packages mosquitto,
//! mosquitto-clients, dbus-daemon and openssl. Everything is in temporary directories and gone at the end.

mod books;
mod gateway;
mod screen;
mod script;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};

use self::books::Books;
use self::gateway::{Gateway, Hospital};
use self::script::{Act, Truth};
use self::support::chaos::ChaosProxy;

const DEFAULT_SECONDS: u64 = 50;
/// Below this the steps of the script come too near to each other.
const LEAST_SECONDS: u64 = 20;
const MOST_SECONDS: u64 = 600;
const TICK: Duration = Duration::from_millis(50);
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// For the backlog: the gateway waits longer from try to try, up to some 40 s after an outage of 20 s.
const SETTLE: Duration = Duration::from_secs(60);
const CONTROL: Duration = Duration::from_secs(12);

/// Set by Ctrl-C; everything then unwinds, which ends the children and removes the files.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The story has failed; the control has nothing left to prove.
static FAILED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    watch_for_interrupt();
    let done = std::panic::catch_unwind(demo);
    match done {
        _ if INTERRUPTED.load(SeqCst) => {
            println!("interrupted; everything is cleaned up");
            ExitCode::from(130)
        }
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            println!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
        Err(_panic) => ExitCode::FAILURE,
    }
}

fn demo() -> Result<()> {
    let seconds = seconds()?;
    tools()?;
    let binary = binary()?;
    screen::introduce(&binary, seconds);
    println!("Starting: certificates, broker, bus, gateway, six connections ...\n");
    let hospital = Hospital::open();
    let (ward, control) = std::thread::scope(|scope| {
        let control = scope.spawn(|| run_control(&binary, &hospital));
        let ward = run_ward(&binary, &hospital, Duration::from_secs(seconds));
        FAILED.store(ward.is_err(), SeqCst);
        (ward, control.join())
    });
    let (books, files) = ward?;
    let Ok(control) = control else { bail!("the negative control failed") };
    let control = control.context("the negative control failed")?;
    screen::ledger(&books, &control);
    println!("\nThe files (config, keys, encrypted log) were in {}; they are gone now.", files.display());
    let mut faults = books.faults();
    if control.chart.wrong.is_empty() {
        faults.push("the negative control found no value in a wrong chart".to_owned());
    }
    let details = [&books.live.not_made[..], &books.live.out_of_order, &books.chart.wrong].concat();
    details.iter().take(10).for_each(|detail| println!("  {detail}"));
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    println!("Nothing lost, nothing in a wrong chart.");
    Ok(())
}

/// The story itself. Answers with the books and where the gateway's files were.
fn run_ward(binary: &Path, hospital: &Hospital, length: Duration) -> Result<(Books, PathBuf)> {
    let proxy = ChaosProxy::start(hospital.broker.port());
    let mut gateway = Gateway::start(binary, hospital, proxy.port(), "gw-demo", &script::devices())?;
    gateway.carry_out(&script::ADMIT)?;
    let mut truth = Truth::default();
    truth.change(&script::AT_FIRST, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
    let started = Instant::now();
    let (mut steps, mut shown, mut reachable) = (script::steps().into_iter().peekable(), Duration::ZERO, true);
    screen::heading();
    while started.elapsed() < length {
        stop_if_interrupted()?;
        gateway.measure(started.elapsed());
        if let Some(step) = steps.next_if(|step| length * step.at_permille / 1000 <= started.elapsed()) {
            screen::event(started.elapsed(), step.says);
            match step.act {
                Act::LoseReplies => proxy.drop_replies(true),
                Act::CutBroker => {
                    proxy.refuse(true);
                    proxy.reset_all();
                    reachable = false;
                }
                Act::MendBroker => {
                    proxy.pass();
                    reachable = true;
                }
                Act::Change { wearing, commands } => {
                    let begins = SystemTime::now();
                    gateway.carry_out(commands)?;
                    truth.change(wearing, begins, SystemTime::now());
                }
            }
        }
        if shown <= started.elapsed() {
            screen::show(&gateway, started.elapsed(), reachable);
            shown += SHOW_EVERY;
        }
        std::thread::sleep(TICK);
    }
    screen::event(started.elapsed(), "the devices are switched off; what waits is delivered");
    let books = books::close(&gateway, &truth, SETTLE, || {
        stop_if_interrupted()?;
        screen::show(&gateway, started.elapsed(), true);
        std::thread::sleep(SHOW_EVERY);
        Ok(())
    })?;
    let end = if books.is_complete() { "every value is accounted for" } else { "time is up, and something is missing" };
    screen::event(started.elapsed(), end);
    gateway.stop()?;
    Ok((books, gateway.site.path("")))
}

/// The same checks on a gateway that was told a lie: were they blind, this would show it.
fn run_control(binary: &Path, hospital: &Hospital) -> Result<Books> {
    let mut devices = script::devices();
    devices.retain(|ward| [script::OXI_1, script::STRAP].contains(&ward.device.address.as_str()));
    for strap in devices.iter_mut().filter(|ward| ward.device.address == script::STRAP) {
        strap.config = "patient = \"p-ada\"";
    }
    let mut gateway = Gateway::start(binary, hospital, hospital.broker.port(), "gw-control", &devices)?;
    gateway.carry_out(&script::ADMIT[..1])?;
    let mut truth = Truth::default();
    truth.change(&script::AT_FIRST, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
    let started = Instant::now();
    while started.elapsed() < CONTROL {
        stop_if_interrupted()?;
        gateway.measure(started.elapsed());
        std::thread::sleep(TICK);
    }
    let books = books::close(&gateway, &truth, SETTLE, || {
        std::thread::sleep(TICK);
        stop_if_interrupted()
    })?;
    gateway.stop()?;
    Ok(books)
}

fn stop_if_interrupted() -> Result<()> {
    ensure!(!INTERRUPTED.load(SeqCst) && !FAILED.load(SeqCst), "interrupted");
    Ok(())
}

fn watch_for_interrupt() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Ctrl-C in a terminal reaches the children too: that they are gone is then no news.
        if !INTERRUPTED.load(SeqCst) {
            usual(info);
        }
    }));
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be watched");
            loop {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
                INTERRUPTED.store(true, SeqCst);
            }
        });
    });
}

fn seconds() -> Result<u64> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => DEFAULT_SECONDS,
        ["--seconds", number] => number.parse().with_context(|| format!("--seconds {number:?} is no number"))?,
        _ => bail!("usage: cargo run --example demo [-- --seconds N]"),
    };
    ensure!((LEAST_SECONDS..=MOST_SECONDS).contains(&seconds), "--seconds is from {LEAST_SECONDS} to {MOST_SECONDS}");
    Ok(seconds)
}

/// Says what is missing before anything is started.
fn tools() -> Result<()> {
    const TOOLS: [(&str, &str); 4] = [
        ("/usr/sbin/mosquitto", "mosquitto"),
        ("/usr/bin/mosquitto_sub", "mosquitto-clients"),
        ("/usr/bin/dbus-daemon", "dbus-daemon"),
        ("/usr/bin/openssl", "openssl"),
    ];
    let missing: Vec<&str> = TOOLS.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    ensure!(missing.is_empty(), "it needs more of Debian: sudo apt-get install {}", missing.join(" "));
    Ok(())
}

/// The real `bedrail`, of the same build as this example and brought up to date when Cargo runs us.
fn binary() -> Result<PathBuf> {
    let example = std::env::current_exe().context("where this example is")?;
    let directory = example.parent().and_then(Path::parent).context("an example lies in target/<profile>/examples")?;
    let binary = directory.join("bedrail");
    let cargo = std::env::var_os("CARGO");
    if cargo.is_some() || !binary.exists() {
        let mut build = Command::new(cargo.unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--locked", "--bin", "bedrail", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        if directory.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        let built = build.stdin(Stdio::null()).status().context("cargo does not start")?;
        ensure!(built.success(), "bedrail does not build");
    }
    ensure!(binary.exists(), "there is no {}; run `cargo build --bin bedrail` with the same target directory", binary.display());
    Ok(binary)
}
