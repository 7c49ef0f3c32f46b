//! What a route does with one record: a pure function of the record, the ward and the clock. Filters settle here, once;
//! what may not go yet is held for a named reason; nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::{Lane, Share, SpotRules};
use crate::config::{Bind, History};
use crate::reading::{
    Anchors, Body, Class, ClockQuality, DeviceId, Instant, Metric, Modality, Nameplate, Record, SubjectKey, Summary, Timestamp,
    UserIndex, WallTime,
};
use crate::ward::{Binding, HoldReason, Ward};

/// Which kinds of record a route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    pub readings: bool,
    /// Readings that are measured one by one on purpose, even without `readings`.
    pub episodic: bool,
    pub events: bool,
    /// Lengths in seconds.
    pub windows: BTreeSet<u32>,
}

#[derive(Clone, Debug)]
pub struct Rules {
    pub bind: Bind,
    pub carry: Carry,
    /// Only these, when given.
    pub metrics: Option<BTreeSet<Metric>>,
    pub devices: Option<BTreeSet<DeviceId>>,
    pub hold_questionable: bool,
    /// One stream per patient, metric and slot.
    pub per_patient: bool,
    /// Devices that are whoever's is next.
    pub spots: BTreeMap<DeviceId, SpotRules>,
}

/// What is known besides the record.
pub struct Known<'a> {
    pub ward: &'a Ward,
    pub anchors: &'a Anchors,
    /// Of the device.
    pub zone: &'a TimeZone,
    pub history: History,
    /// What the device must have told of itself.
    pub nameplate: Option<&'a Nameplate>,
    /// The newest version of this record that the route may see.
    pub newest: u32,
    /// What it is to the scan in whose time it was measured, if there was one.
    pub share: Option<Share>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Send {
        binding: Option<Binding>,
        subject: Option<SubjectKey>,
    },
    Settle(Settled),
    Hold(HoldReason),
    /// It belongs into the other lane.
    Backlog,
    /// An assignment edge lies inside the window: its sides are made first.
    Cut(Vec<Timestamp>),
    /// Other streams of the patient are compared first.
    Choose(Binding),
}

/// Why there is nothing to do for a record. The names are those of the route's tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The route does not carry it.
    Filtered,
    /// A newer version is in the log.
    Superseded,
    /// A device had stored it before its first patient here, or before it was cleaned for the next.
    History,
    /// A window that was cut: its sides go instead.
    Cut,
    /// Another stream or another value of it speaks for the patient, or none is good enough.
    NotChosen,
    /// A person said that it is nobody's.
    Discarded,
}

impl Settled {
    pub const fn name(self) -> &'static str {
        match self {
            Settled::Filtered => "filtered",
            Settled::Superseded => "superseded",
            Settled::History => "history",
            Settled::Cut => "cut",
            Settled::NotChosen => "not_chosen",
            Settled::Discarded => "discarded",
        }
    }
}

pub fn decide(record: &Record, lane: Lane, rules: &Rules, known: &Known<'_>) -> Decision {
    if !carries(record, rules) {
        return Decision::Settle(Settled::Filtered);
    }
    if record.version < known.newest {
        return Decision::Settle(Settled::Superseded);
    }
    // A retraction queues behind all that may wait to be retracted: it never overtakes what it takes back.
    if lane == Lane::Live && (record.stamp.stored || matches!(record.body, Body::Retraction(_))) {
        return Decision::Backlog;
    }
    if known.nameplate.is_some_and(|wanted| !wanted.admits(record.nameplate.as_ref())) {
        return of_another_device(record, known);
    }
    if rules.hold_questionable && matches!(&record.body, Body::Reading(reading) if reading.class == Class::Questionable) {
        return Decision::Hold(HoldReason::Questionable);
    }
    match rules.bind {
        Bind::Device | Bind::Bed => Decision::Send { binding: None, subject: subject_if_known(record, rules, known) },
        Bind::Patient => bind_to_patient(record, rules, known),
    }
}

/// The same where nobody is to know any more who the patient is: what was not sent yet waits, and no key is named.
pub fn unless_forgotten(decision: Decision, ward: &Ward) -> Decision {
    match decision {
        Decision::Send { binding: Some(binding), .. } | Decision::Choose(binding) if ward.is_forgotten(&binding.subject) => {
            Decision::Hold(HoldReason::PatientUnknown)
        }
        Decision::Send { binding: None, subject } => {
            Decision::Send { binding: None, subject: subject.filter(|subject| !ward.is_forgotten(subject)) }
        }
        other => other,
    }
}

/// Whether a route takes records of this kind at all.
pub fn carries(record: &Record, rules: &Rules) -> bool {
    let Rules { carry, metrics, devices, bind, .. } = rules;
    let metric = record.stream.map(|stream| stream.metric);
    if metrics.as_ref().is_some_and(|wanted| metric.is_some_and(|metric| !wanted.contains(&metric))) {
        return false;
    }
    if devices.as_ref().is_some_and(|wanted| record.device != DeviceId::GATEWAY && !wanted.contains(&record.device)) {
        return false;
    }
    let to_patients = *bind == Bind::Patient;
    if to_patients && !about_a_patient(record) {
        return false;
    }
    let spot = rules.spots.get(&record.device);
    if to_patients && spot.is_some() && matches!(record.body, Body::Window(_)) {
        return false; // a window of whoever had it
    }
    match &record.body {
        Body::Reading(_) => {
            let one_by_one = is_episodic(record) || spot.is_some_and(|spot| spot.is_steadied(record));
            carry.readings || (carry.episodic && one_by_one)
        }
        Body::Window(window) => {
            let whole = window.from == window.start && window.to == window.start.plus_ms(i64::from(window.length_s) * 1000);
            carry.windows.contains(&window.length_s) && (whole || to_patients)
        }
        Body::Waveform(_) => carry.readings,
        Body::Event(_) => carry.events,
        // What explains missing or wrong values goes wherever values went.
        Body::Gap(_) => true,
        Body::Retraction(_) => true,
    }
}

/// Whoever it is of, and whatever a person said of whose it is: only that it is nobody's can be said of it.
fn of_another_device(record: &Record, known: &Known<'_>) -> Decision {
    match known.ward.named(&record.id) {
        Some(None) => Decision::Settle(Settled::Discarded),
        _ => Decision::Hold(HoldReason::DeviceMismatch),
    }
}

fn about_a_patient(record: &Record) -> bool {
    let about_patient =
        |stream: &crate::reading::StreamKey| !stream.metric.row().about_device && stream.modality != Modality::Intermediate;
    record.stream.as_ref().is_some_and(about_patient)
}

/// Measured one by one: neither part of a continuous series nor beat by beat.
fn is_episodic(record: &Record) -> bool {
    record
        .stream
        .is_some_and(|stream| stream.modality == Modality::Spot && stream.metric.summary(stream.modality) == Summary::None)
}

fn subject_if_known(record: &Record, rules: &Rules, known: &Known<'_>) -> Option<SubjectKey> {
    let its_own = about_a_patient(record) && known.share != Some(Share::Passing);
    its_own.then(|| bind(record, rules, known).ok()).flatten().map(|binding| binding.subject)
}

fn bind_to_patient(record: &Record, rules: &Rules, known: &Known<'_>) -> Decision {
    if let (Body::Window(window), Some(stream)) = (&record.body, record.stream) {
        let end = window.start.plus_ms(i64::from(window.length_s) * 1_000);
        let edges = known.ward.edges(stream.device, stream.user, window.start, end);
        // A side whose ends are no edges any more is made anew as well.
        let is_end = |at: &Timestamp| *at == window.start || *at == end || edges.contains(at);
        if !is_end(&window.from) || !is_end(&window.to) || edges.iter().any(|at| window.from < *at && *at < window.to) {
            return Decision::Cut(edges);
        }
    }
    let named = known.ward.named(&record.id);
    if named.is_none() && was_left_over(record, known) {
        return Decision::Settle(Settled::History);
    }
    match named {
        None => {}
        Some(None) => return Decision::Settle(Settled::Discarded),
        Some(Some(binding)) => return Decision::Send { subject: Some(binding.subject.clone()), binding: Some(binding) },
    }
    if known.share == Some(Share::Passing) {
        return Decision::Settle(Settled::NotChosen);
    }
    match bind(record, rules, known) {
        Ok(binding) if rules.per_patient && matches!(record.body, Body::Window(_)) => Decision::Choose(binding),
        Ok(binding) => Decision::Send { subject: Some(binding.subject.clone()), binding: Some(binding) },
        Err(reason) => match brought_along(record, known) {
            None => Decision::Hold(reason),
            Some(first) if keeps_history(record, rules, known) => match known.ward.bind(record.device, user_of(record), first) {
                Ok(binding) => Decision::Send { subject: Some(binding.subject.clone()), binding: Some(binding) },
                Err(reason) => Decision::Hold(reason),
            },
            Some(_) => Decision::Settle(Settled::History),
        },
    }
}

/// Binds by the record's own time, however late it is sent.
fn bind(record: &Record, rules: &Rules, known: &Known<'_>) -> Result<Binding, HoldReason> {
    let user = user_of(record);
    if let Body::Window(window) = &record.body {
        return known.ward.bind_span(record.device, user, window.from, window.to);
    }
    match known.anchors.of(&record.stamp, record.stream, known.zone) {
        Instant::Unknown => Err(HoldReason::NoClock),
        Instant::Ambiguous(_) => Err(HoldReason::AmbiguousTime),
        Instant::Arrival(time) | Instant::DeviceClock(time) | Instant::DeviceZone(time) => {
            let bound = known.ward.bind(record.device, user, time);
            match rules.spots.get(&record.device) {
                Some(spot) => spot.bind(bound, time, known.share),
                None => bound,
            }
        }
    }
}

/// What a device had stored before its first patient here; answers when that was. What it sent live at that time waits for a
/// person.
fn brought_along(record: &Record, known: &Known<'_>) -> Option<WallTime> {
    let first = known.ward.first_assignment(record.device, user_of(record))?;
    let before = record.stamp.stored && device_time(record, known).is_some_and(|measured| measured < first);
    before.then_some(WallTime { at: first, quality: ClockQuality::Ntp, uncertainty_ms: 0 })
}

/// The device was cleaned between measuring it and telling it.
fn was_left_over(record: &Record, known: &Known<'_>) -> bool {
    let heard = known.anchors.wall(record.stamp.boot, record.stamp.arrived).map(|wall| wall.at);
    match (device_time(record, known), heard) {
        (Some(measured), Some(heard)) => known.ward.was_cleaned(record.device, measured, heard),
        _ => false,
    }
}

/// By the device's own clock; a time of arrival says nothing about a stored value.
fn device_time(record: &Record, known: &Known<'_>) -> Option<Timestamp> {
    match known.anchors.of(&record.stamp, record.stream, known.zone) {
        Instant::DeviceClock(time) | Instant::DeviceZone(time) => Some(time.at),
        Instant::Arrival(_) | Instant::Ambiguous(_) | Instant::Unknown => None,
    }
}

fn user_of(record: &Record) -> Option<UserIndex> {
    record.stream.and_then(|stream| stream.user)
}

/// Whether the device's `history` lets such a value through, to its first patient. One that is whoever's is next has no
/// first patient.
fn keeps_history(record: &Record, rules: &Rules, known: &Known<'_>) -> bool {
    match known.history {
        _ if rules.spots.contains_key(&record.device) => false,
        History::New => false,
        History::All => true,
        History::Since(from) => device_time(record, known).is_some_and(|measured| measured >= from),
    }
}
