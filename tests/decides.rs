//! What a route does with one record: every answer of the decision, each with the smallest ward that gives it.

#![allow(clippy::unwrap_used)]

use bedrail::config::{Bind, History};
use bedrail::deliver::{Carry, Decision, Known, Lane, Rules, Settled, Share, SpotRules, decide, stays, unless_forgotten};
use bedrail::reading::*;
use bedrail::ward::{Change, EventSource, HoldReason, Ward, WardEvent};
use jiff::tz::TimeZone;

const BOOT: BootId = BootId([1; 16]);
const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
/// 2026-11-23T10:00:00Z, at boot time 0.
const NOON: i64 = 1_795_428_000_000;

fn minutes(n: i64) -> Timestamp {
    Timestamp(NOON + n * 60_000)
}

fn key(text: &str) -> SubjectKey {
    text.parse().unwrap()
}

fn stream(metric: Metric, modality: Modality) -> StreamKey {
    StreamKey { device: DEVICE, user: None, metric, site: None, modality }
}

/// Heard live, so many minutes after boot.
fn reading_at(minute: u64) -> Record {
    let value = Value::Number { value: Decimal::new(72, 0), unit: Unit::PerMinute };
    let reading = Reading {
        value,
        class: Class::Measured,
        flags: vec![],
        sequence: None,
        part: 0,
        parts: 1,
        security: SecurityLevel::None,
    };
    Record {
        id: RecordId([2; 16]),
        version: 1,
        device: DEVICE,
        stream: Some(stream(Metric::PulseRateCuff, Modality::Spot)),
        stamp: Stamp { boot: BOOT, arrived: BootMillis(minute * 60_000), device_time: None, device_clock: None, stored: false },
        body: Body::Reading(reading),
        nameplate: None,
    }
}

/// Out of the device's memory at minute 60: measured `before` minutes earlier, by a device clock that was compared.
fn stored(before: u8) -> Record {
    let clock = DeviceTime { year: Some(2020), month: Some(1), day: Some(1), hour: 12, minute: 59, second: 0 };
    let mut record = reading_at(60);
    record.stamp.stored = true;
    record.stamp.device_clock = Some((clock, BootMillis(60 * 60_000)));
    record.stamp.device_time = Some(DeviceTime { minute: 59 - before, ..clock });
    record
}

fn window(from: i64, to: i64) -> Record {
    let window = Window {
        start: minutes(0),
        length_s: 900,
        from: minutes(from),
        to: minutes(to),
        n: 0,
        unit: Unit::Percent,
        summary: None,
        coverage_permille: 0,
        excluded: vec![(Exclusion::NoValue, 1)],
        source: (Seq(1), Seq(1)),
    };
    Record { stream: Some(stream(Metric::Spo2, Modality::Continuous)), body: Body::Window(window), ..reading_at(15) }
}

fn ward(events: &[(i64, Change)]) -> Ward {
    let event = |(n, (at, change)): (usize, &(i64, Change))| WardEvent {
        n: n as u64 + 1,
        at: minutes(*at),
        learned: minutes(*at),
        source: EventSource::Command,
        operator: "nurse".into(),
        change: change.clone(),
    };
    Ward::fold(&events.iter().enumerate().map(event).collect::<Vec<_>>())
}

fn pair(subject: &str) -> Change {
    Change::Pair { device: DEVICE, user: None, subject: key(subject) }
}

fn rules(bind: Bind) -> Rules {
    let carry = Carry { readings: true, episodic: false, events: false, windows: [900].into() };
    Rules {
        bind,
        carry,
        metrics: None,
        devices: None,
        hold_questionable: false,
        per_patient: false,
        spots: std::collections::BTreeMap::new(),
    }
}

struct Ask {
    rules: Rules,
    ward: Ward,
    anchors: Anchors,
    history: History,
    /// What the config wants the device to tell of itself.
    nameplate: Option<Nameplate>,
    newest: u32,
    share: Option<Share>,
    lane: Lane,
}

impl Ask {
    fn of(bind: Bind, events: &[(i64, Change)]) -> Self {
        let anchor = Anchor { boot: BOOT, at: BootMillis(0), wall: minutes(0), quality: ClockQuality::Ntp, uncertainty_ms: 50 };
        let anchors = Anchors::new(vec![anchor]);
        Self {
            rules: rules(bind),
            ward: ward(events),
            anchors,
            history: History::New,
            nameplate: None,
            newest: 0,
            share: None,
            lane: Lane::Backlog,
        }
    }

    fn about(&self, record: &Record) -> Decision {
        let known = Known {
            ward: &self.ward,
            anchors: &self.anchors,
            zone: &TimeZone::UTC,
            history: self.history,
            nameplate: self.nameplate.as_ref(),
            newest: self.newest,
            share: self.share,
        };
        decide(record, self.lane, &self.rules, &known)
    }

    /// To whom it goes; panics on any other decision.
    fn subject(&self, record: &Record) -> Option<String> {
        match self.about(record) {
            Decision::Send { subject, .. } => subject.map(|subject| subject.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_device_bound_route_sends_at_once_and_names_whom_it_knows() {
    assert_eq!(Ask::of(Bind::Device, &[]).subject(&reading_at(5)), None);
    assert_eq!(Ask::of(Bind::Device, &[(3, pair("p-1"))]).subject(&reading_at(5)), Some("p-1".into()));
    assert_eq!(Ask::of(Bind::Device, &[(6, pair("p-1"))]).subject(&reading_at(5)), None, "not yet hers at that time");
}

#[test]
fn a_patient_bound_route_holds_what_is_nobodys_and_says_why() {
    let decision = |events: &[(i64, Change)]| Ask::of(Bind::Patient, events).about(&reading_at(5));
    assert_eq!(decision(&[]), Decision::Hold(HoldReason::NoAssignment));
    assert_eq!(decision(&[(6, pair("p-1"))]), Decision::Hold(HoldReason::BeforeAssignment));
    let ended = [(1, pair("p-1")), (4, Change::Unpair { device: DEVICE, user: None })];
    assert_eq!(decision(&ended), Decision::Hold(HoldReason::NoAssignment));
}

#[test]
fn a_reading_goes_to_whom_it_was_at_its_own_time_however_late_it_is_sent() {
    let events = [(0, pair("p-1")), (10, pair("p-2"))];
    let ask = Ask::of(Bind::Patient, &events);
    assert_eq!(ask.subject(&reading_at(5)), Some("p-1".into()));
    assert_eq!(ask.subject(&reading_at(15)), Some("p-2".into()));
}

#[test]
fn without_a_clock_a_chart_waits_and_a_device_route_does_not() {
    let mut ask = Ask::of(Bind::Patient, &[(0, pair("p-1"))]);
    ask.anchors = Anchors::default();
    assert_eq!(ask.about(&reading_at(5)), Decision::Hold(HoldReason::NoClock));
    ask.rules = rules(Bind::Device);
    assert_eq!(ask.subject(&reading_at(5)), None);
}

#[test]
fn a_device_time_that_nothing_explains_waits_for_a_person() {
    let mut record = reading_at(60);
    record.stamp.device_time = Some(DeviceTime { year: Some(2011), month: Some(1), day: Some(1), hour: 0, minute: 0, second: 0 });
    let ask = Ask::of(Bind::Patient, &[(0, pair("p-1"))]);
    assert_eq!(ask.about(&record), Decision::Hold(HoldReason::AmbiguousTime));
}

#[test]
fn the_previous_patients_values_in_a_devices_memory_are_never_sent_to_the_next() {
    // Paired at minute 30; the memory holds a value of minute 20 and one of minute 40.
    let mut ask = Ask::of(Bind::Patient, &[(30, pair("p-1"))]);
    assert_eq!(ask.about(&stored(40)), Decision::Settle(Settled::History));
    assert_eq!(ask.subject(&stored(20)), Some("p-1".into()));
    ask.history = History::All;
    assert_eq!(ask.subject(&stored(40)), Some("p-1".into()), "a personal device brings its patient's own history");
    ask.history = History::Since(minutes(15));
    assert_eq!(ask.subject(&stored(40)), Some("p-1".into()));
    ask.history = History::Since(minutes(25));
    assert_eq!(ask.about(&stored(40)), Decision::Settle(Settled::History));
    assert_eq!(ask.about(&reading_at(20)), Decision::Hold(HoldReason::BeforeAssignment), "heard live, it waits for a person");
}

#[test]
fn what_a_device_had_stored_never_travels_live() {
    let mut ask = Ask::of(Bind::Device, &[]);
    ask.lane = Lane::Live;
    assert_eq!(ask.about(&stored(5)), Decision::Backlog);
    assert_eq!(ask.subject(&reading_at(5)), None);
}

#[test]
fn a_retraction_never_overtakes_what_it_takes_back() {
    let mut ask = Ask::of(Bind::Device, &[]);
    ask.lane = Lane::Live;
    let of = Retraction { of: RecordId([2; 16]), version: 1, placement: Placement([0; 16]), route: "live".into() };
    let retraction = Record { body: Body::Retraction(of), ..reading_at(5) };
    assert_eq!(ask.about(&retraction), Decision::Backlog, "it queues behind what waits there");
    ask.lane = Lane::Backlog;
    assert_eq!(ask.subject(&retraction), None);
}

#[test]
fn filters_settle_what_a_route_does_not_carry() {
    let filtered = Decision::Settle(Settled::Filtered);
    let mut ask = Ask::of(Bind::Device, &[]);
    ask.rules.metrics = Some([Metric::Spo2].into());
    assert_eq!(ask.about(&reading_at(5)), filtered);
    let mut ask = Ask::of(Bind::Device, &[]);
    ask.rules.devices = Some([DeviceId::new([9; 6])].into());
    assert_eq!(ask.about(&reading_at(5)), filtered);
    let mut ask = Ask::of(Bind::Device, &[]);
    ask.rules.carry = Carry { episodic: true, ..Carry::default() };
    assert_eq!(ask.subject(&reading_at(5)), None, "a spot value is episodic");
    let rr = Record { stream: Some(stream(Metric::RrInterval, Modality::Continuous)), ..reading_at(5) };
    assert_eq!(ask.about(&rr), filtered, "beat by beat is not");
}

#[test]
fn the_state_of_a_device_and_values_of_a_running_measurement_reach_no_chart() {
    let ask = Ask::of(Bind::Patient, &[(0, pair("p-1"))]);
    for stream in [stream(Metric::BatteryLevel, Modality::Spot), stream(Metric::CuffPressure, Modality::Intermediate)] {
        let record = Record { stream: Some(stream), ..reading_at(5) };
        assert_eq!(ask.about(&record), Decision::Settle(Settled::Filtered), "{stream:?}");
    }
}

#[test]
fn a_questionable_value_is_held_where_the_route_says_so() {
    let mut record = reading_at(5);
    if let Body::Reading(reading) = &mut record.body {
        reading.class = Class::Questionable;
    }
    let mut ask = Ask::of(Bind::Device, &[]);
    assert_eq!(ask.subject(&record), None);
    ask.rules.hold_questionable = true;
    assert_eq!(ask.about(&record), Decision::Hold(HoldReason::Questionable));
}

fn told(serial: Option<&str>, model: Option<&str>) -> Nameplate {
    Nameplate { serial: serial.map(str::to_owned), model: model.map(str::to_owned) }
}

#[test]
fn what_another_device_measured_under_the_same_address_is_held_on_every_route() {
    let held = Decision::Hold(HoldReason::DeviceMismatch);
    let other = Record { nameplate: Some(told(Some("666"), Some("3230"))), ..reading_at(5) };
    let no_information = Record { nameplate: Some(told(None, None)), ..reading_at(5) };
    let own = Record { nameplate: Some(told(Some("501"), Some("3230"))), ..reading_at(5) };
    let sensor_off = Record { body: Body::Event(Event::NoValue(NoValue::SensorOff)), ..other.clone() };
    for bind in [Bind::Device, Bind::Bed, Bind::Patient] {
        let mut ask = Ask::of(bind, &[(0, pair("p-1"))]);
        assert_eq!(ask.subject(&other), Some("p-1".into()), "the config wants nothing of it");
        ask.nameplate = Some(told(Some("501"), None));
        assert_eq!((ask.about(&other), ask.about(&no_information)), (held.clone(), held.clone()), "{bind:?}");
        ask.rules.carry.events = true;
        assert_eq!(ask.about(&sensor_off), held, "{bind:?}");
        assert_eq!(ask.subject(&own), Some("p-1".into()));
        assert_eq!(ask.subject(&reading_at(5)), Some("p-1".into()), "it came before anybody asked");
        ask.nameplate = Some(told(None, Some("3231")));
        assert_eq!(ask.about(&own), held, "the model counts as well");
        ask.nameplate = Some(told(Some("666"), None));
        assert_eq!(ask.subject(&other), Some("p-1".into()), "a config that is put right lets it go");
    }
}

#[test]
fn of_what_another_device_measured_a_person_may_only_say_that_it_is_nobodys() {
    let other = Record { nameplate: Some(told(Some("666"), None)), ..reading_at(5) };
    let name = |subject: Option<&str>| {
        let (records, at) = (vec![other.id], minutes(5));
        (6, Change::Name { device: DEVICE, records, subject: subject.map(key), from: at, to: at })
    };
    for bind in [Bind::Device, Bind::Patient] {
        let mut ask = Ask::of(bind, &[(0, pair("p-1")), name(Some("p-2"))]);
        ask.nameplate = Some(told(Some("501"), None));
        assert_eq!(ask.about(&other), Decision::Hold(HoldReason::DeviceMismatch));
        let mut ask = Ask::of(bind, &[(0, pair("p-1")), name(None)]);
        ask.nameplate = Some(told(Some("501"), None));
        assert_eq!(ask.about(&other), Decision::Settle(Settled::Discarded));
    }
}

#[test]
fn a_superseded_version_is_skipped() {
    let mut ask = Ask::of(Bind::Device, &[]);
    ask.newest = 2;
    assert_eq!(ask.about(&window(0, 15)), Decision::Settle(Settled::Superseded));
    let second = Record { version: 2, ..window(0, 15) };
    assert_eq!(ask.subject(&second), None);
}

#[test]
fn a_window_with_two_patients_in_it_is_cut_for_charts_and_whole_for_devices() {
    let events = [(0, pair("p-1")), (10, pair("p-2"))];
    assert_eq!(Ask::of(Bind::Patient, &events).about(&window(0, 15)), Decision::Cut(vec![minutes(10)]));
    assert_eq!(Ask::of(Bind::Patient, &events).subject(&window(0, 10)), Some("p-1".into()));
    assert_eq!(Ask::of(Bind::Patient, &events).subject(&window(10, 15)), Some("p-2".into()));
    assert_eq!(Ask::of(Bind::Device, &events).subject(&window(0, 15)), None);
    assert_eq!(Ask::of(Bind::Device, &events).about(&window(0, 10)), Decision::Settle(Settled::Filtered), "a side is for charts");
}

#[test]
fn one_stream_per_patient_is_chosen_before_it_is_sent() {
    let mut ask = Ask::of(Bind::Patient, &[(0, pair("p-1"))]);
    ask.rules.per_patient = true;
    assert!(matches!(ask.about(&window(0, 15)), Decision::Choose(binding) if binding.subject == key("p-1")));
    assert_eq!(ask.subject(&reading_at(5)), Some("p-1".into()), "readings are not condensed");
}

#[test]
fn a_shared_device_is_nobodys_but_by_a_scan_and_its_windows_are_nobodys_at_all() {
    let scan = |subject: &str| Change::Spot { device: DEVICE, subject: key(subject), for_ms: 5 * 60_000, readings: 2 };
    let mut ask = Ask::of(Bind::Patient, &[(1, pair("p-9")), (10, scan("p-1")), (12, scan("p-2"))]);
    ask.rules.spots.insert(DEVICE, SpotRules { max_uncertainty_ms: Some(60), ..SpotRules::default() });
    ask.share = Some(Share::Counts);
    assert_eq!(ask.about(&reading_at(5)), Decision::Hold(HoldReason::OutsideSpot), "a pairing says nothing of it");
    assert_eq!(ask.subject(&reading_at(11)), Some("p-1".into()));
    assert_eq!(ask.subject(&reading_at(13)), Some("p-2".into()), "the next scan ends the one before");
    assert_eq!(ask.about(&reading_at(20)), Decision::Hold(HoldReason::OutsideSpot), "never the last patient");
    ask.share = Some(Share::Beyond);
    assert_eq!(ask.about(&reading_at(11)), Decision::Hold(HoldReason::OutsideSpot));
    ask.share = Some(Share::Passing);
    assert_eq!(ask.about(&reading_at(11)), Decision::Settle(Settled::NotChosen));
    ask.share = None;
    assert_eq!(ask.about(&window(0, 15)), Decision::Settle(Settled::Filtered));
    ask.rules.spots.insert(DEVICE, SpotRules { max_uncertainty_ms: Some(40), ..SpotRules::default() });
    assert_eq!(ask.about(&reading_at(11)), Decision::Hold(HoldReason::AmbiguousTime), "the clock is 50 ms unsure");
}

#[test]
fn what_a_device_kept_when_it_was_cleaned_is_nobodys_and_what_it_had_told_stays() {
    let cleaned = [(0, pair("p-1")), (50, Change::Clean { device: DEVICE }), (50, pair("p-2"))];
    let mut ask = Ask::of(Bind::Patient, &cleaned);
    ask.history = History::All;
    assert_eq!(ask.about(&stored(20)), Decision::Settle(Settled::History), "measured at 40, told at 60");
    assert_eq!(ask.subject(&stored(5)), Some("p-2".into()), "measured since");
    assert_eq!(ask.subject(&reading_at(40)), Some("p-1".into()), "told when it was measured");
    ask.rules = rules(Bind::Device);
    assert_eq!(ask.subject(&stored(20)), Some("p-1".into()), "a route that charts nothing sends all");
}

#[test]
fn who_is_forgotten_is_named_no_more_and_what_stands_stays() {
    let ward = ward(&[(0, pair("p-1"))]).with_forgotten([key("p-1")].into());
    let mut ask = Ask { ward, ..Ask::of(Bind::Patient, &[]) };
    let bound = ask.about(&reading_at(5));
    assert!(stays(&ask.ward, &reading_at(5), &key("p-1"), &bound), "it is still in the right chart");
    assert_eq!(unless_forgotten(bound, &ask.ward), Decision::Hold(HoldReason::PatientUnknown));
    ask.rules = rules(Bind::Device);
    let named = unless_forgotten(ask.about(&reading_at(5)), &ask.ward);
    assert_eq!(named, Decision::Send { binding: None, subject: None });
}

#[test]
fn what_a_shared_device_remembers_goes_to_the_patient_of_the_scan_it_was_measured_under() {
    let scan = |subject: &str| Change::Spot { device: DEVICE, subject: key(subject), for_ms: 5 * 60_000, readings: 2 };
    // Fetched at minute 60: stored(n) was measured n minutes before.
    let mut ask = Ask::of(Bind::Patient, &[(20, scan("p-1")), (40, scan("p-2"))]);
    ask.rules.spots.insert(DEVICE, SpotRules::default());
    ask.history = History::All;
    ask.share = Some(Share::Counts);
    assert_eq!(ask.about(&stored(50)), Decision::Settle(Settled::History), "before its first scan here");
    assert_eq!(ask.subject(&stored(38)), Some("p-1".into()));
    assert_eq!(ask.subject(&stored(18)), Some("p-2".into()));
    ask.share = None;
    assert_eq!(ask.about(&stored(30)), Decision::Hold(HoldReason::OutsideSpot), "between two scans");
    assert_eq!(ask.about(&stored(5)), Decision::Hold(HoldReason::OutsideSpot));
}
