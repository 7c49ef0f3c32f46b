//! A gateway whose clock is ten years off, or is set in the middle of its work, run by libfaketime: it buffers, names the clock
//! as the fault, and once the time is known says when things were measured. No timer of its own follows the clock, and nothing
//! is old by it.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::devices::{Kind, VirtualDevice};
use support::faults::{skip, tool};
use support::ledger::{Report, compare};
use support::process::wait_until;
use support::rig::{Rig, Shape};
use support::subscriber::Message;

const LIMIT: Duration = Duration::from_secs(60);
const LIVE: &str = "bedrail/gw-test/";
const CHART: &str = "bedrail/chart/";
const PATIENTS: &str = "[[patient]]\nkey = \"p-anna\"\n";
const TEN_YEARS_S: i64 = 10 * 365 * 86_400;
/// From a value on the air to the moment the device's worker noted, on a busy machine.
const APART: Duration = Duration::from_millis(1_500);

#[test]
fn a_clock_ten_years_behind_is_named_as_the_fault_and_costs_no_reading() {
    wrong_from_the_start(
        "a_clock_ten_years_behind_is_named_as_the_fault_and_costs_no_reading",
        -TEN_YEARS_S,
        "not valid yet; this gateway's clock is probably behind: check time synchronisation",
    );
}

#[test]
fn a_clock_ten_years_ahead_is_named_as_the_fault_and_costs_no_reading() {
    wrong_from_the_start(
        "a_clock_ten_years_ahead_is_named_as_the_fault_and_costs_no_reading",
        TEN_YEARS_S,
        "(if it is in date, this gateway's clock is ahead)",
    );
}

fn wrong_from_the_start(name: &str, offset_s: i64, fault: &str) {
    let an_hour_ago = jiff::Timestamp::try_from(SystemTime::now() - Duration::from_secs(3_600)).unwrap();
    let devices = [
        VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap")
            .with_config(&format!("patient = \"p-anna\"\nfrom = {an_hour_ago:.0}")),
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
    ];
    let rest = format!("{SHORT_LIFE}\n{PATIENTS}");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "", &rest);
    let chart = rig.route("chart", "bind = \"patient\"\ntopic = \"bedrail/chart/{device}/{metric}\"");
    rig.configure(&(rig.route("live", "") + &chart), &rest);
    let Some(clock) = FakedClock::of(&mut rig, offset_s) else { return skip(name, "no libfaketime") };
    rig.clock.change(|clock| (clock.synchronized, clock.rtc_offset_us) = (false, None));
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 20);
    let says = |route: &Value| route["detail"].as_str().is_some_and(|detail| detail.contains(fault));
    rig.wait_for_route("live", LIMIT, |route| route["state"] != "up" && says(route));
    let buffered = rig.made().len() as u64;
    assert!(wait_until(LIMIT, || rig.head() >= buffered), "it stopped buffering: {}", rig.logs());
    assert_eq!(rig.records().len(), 0);
    assert_eq!(collect(&rig)["clock"], "unsynced");
    let year: i32 = rig.daemons[0].log().trim_start()[..4].parse().unwrap();
    let here: i32 = jiff::Timestamp::now().to_string()[..4].parse().unwrap();
    assert!((here - year).abs() >= 9, "the clock was not wrong: {}", rig.daemons[0].log());

    // The time comes; until bedrail knows, nothing may go out.
    rig.proxy.refuse(true);
    let tries = rig.logs().matches("link down").count();
    rig.clock.change(|clock| clock.synchronized = true);
    clock.set(0);
    assert!(wait_until(LIMIT, || collect(&rig)["clock"] == "ntp"), "{}", rig.logs());
    let more = rig.logs().matches("link down").count() - tries;
    assert!(more <= 8, "the step set off {more} attempts of two routes at once:\n{}", rig.logs());
    rounds(&mut rig, 20);
    rig.proxy.pass();
    let report = all_arrive(&rig, LIVE);
    assert_eq!(report.duplicated, 0, "nothing had gone out before: {}", report.line(None));
    told_when_measured(&rig, LIVE, &report, |_| true);
    let strap = rig.made().iter().filter(|value| value.device == "A4:C1:38:00:00:01").count();
    let chart = rig.wait_for_records(CHART, LIMIT, |chart| chart.len() >= strap);
    let report = compare(&rig.made(), &chart);
    report.assert_sound();
    assert_eq!((report.arrived, report.duplicated), (strap, 0));
    told_when_measured(&rig, CHART, &report, |_| true);
    assert!(chart.iter().all(|message| message.payload["subject"] == json!("p-anna")));
    nothing_went(&rig);
    rig.stop();
}

#[test]
fn a_clock_set_in_mid_buffer_loses_reorders_and_evicts_nothing() {
    const NAME: &str = "a_clock_set_in_mid_buffer_loses_reorders_and_evicts_nothing";
    let devices = [
        VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap"),
        VirtualDevice::new(Kind::OximeterContinuous, "00:1C:05:00:00:02", "oximeter"),
    ];
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &devices, "start = \"oldest\"", SHORT_LIFE);
    let Some(clock) = FakedClock::of(&mut rig, 0) else { return skip(NAME, "no libfaketime") };
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(LIMIT);
    rounds(&mut rig, 20);
    // Settled, and within the hour it is kept.
    all_arrive(&rig, LIVE);
    rig.proxy.refuse(true);
    rig.proxy.reset_all();
    rounds(&mut rig, 20);
    let anchors = |rig: &Rig| rig.daemons[0].log().matches("clock anchor").count();
    let before = anchors(&rig);
    let stepped_at = SystemTime::now();
    clock.set(TEN_YEARS_S);
    assert!(wait_until(LIMIT, || anchors(&rig) > before), "{}", rig.logs());
    let tries = rig.logs().matches("link down").count();
    rounds(&mut rig, 20);
    // Retention looks every ten seconds; everything is ten years old by this clock.
    std::thread::sleep(Duration::from_secs(11).saturating_sub(stepped_at.elapsed().unwrap()));
    nothing_went(&rig);
    let more = rig.logs().matches("link down").count() - tries;
    assert!(more <= 8, "the step set off {more} attempts:\n{}", rig.logs());
    clock.set(0);
    assert!(wait_until(LIMIT, || anchors(&rig) > before + 1), "{}", rig.logs());
    let back_at = SystemTime::now();
    rounds(&mut rig, 20);
    rig.proxy.pass();
    let report = all_arrive(&rig, LIVE);
    // What was measured while the clock was vouched for and wrong is told by it; nobody could know.
    told_when_measured(&rig, LIVE, &report, |at| at < stepped_at || at > back_at);
    nothing_went(&rig);
    rig.stop();
}

/// What every route has settled is kept for the shortest time there is.
const SHORT_LIFE: &str = "[store]\nkeep = \"1 h\"\nhorizon = \"1 h\"\ncommit_interval = \"50 ms\"\n";

fn rounds(rig: &mut Rig, rounds: u64) {
    for _ in 0..rounds {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn collect(rig: &Rig) -> Value {
    rig.ask_json(&["status"])["collect"].clone()
}

fn all_arrive(rig: &Rig, prefix: &str) -> Report {
    let made = rig.made();
    let messages = rig.wait_for_records(prefix, LIMIT, |live| compare(&made, live).arrived == made.len());
    let report = compare(&made, &messages);
    report.assert_sound();
    report
}

fn told_when_measured(rig: &Rig, prefix: &str, report: &Report, is_known: impl Fn(SystemTime) -> bool) {
    let (made, messages): (_, Vec<Message>) = (rig.made(), rig.records_under(prefix));
    for (index, message) in report.matched.iter().filter(|(index, _)| is_known(made[*index].at)) {
        let payload = &messages[*message].payload;
        let told: jiff::Timestamp = payload["measured_at"].as_str().unwrap_or_else(|| panic!("{payload}")).parse().unwrap();
        let apart = told.duration_since(jiff::Timestamp::try_from(made[*index].at).unwrap()).unsigned_abs();
        assert!(apart < APART, "{apart:?} off: {payload}");
    }
}

fn nothing_went(rig: &Rig) {
    assert_eq!(collect(rig)["disk"]["evicted"], 0);
    assert_eq!(rig.ask_json(&["store", "stats"])["oldest"], 1);
}

/// What the daemon takes for the wall clock: the real one and an offset. Its monotonic clocks stay as they are.
struct FakedClock {
    file: PathBuf,
}

impl FakedClock {
    /// `None`: no libfaketime here.
    fn of(rig: &mut Rig, offset_s: i64) -> Option<Self> {
        let library = tool("faketime").then(library).flatten()?;
        let clock = Self { file: rig.site.path("offset") };
        clock.set(offset_s);
        let file = clock.file.display().to_string();
        let environment = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        rig.environment.extend(environment.map(|(name, value)| (name.to_owned(), value)));
        Some(clock)
    }

    fn set(&self, offset_s: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset_s:+}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}

fn library() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}
