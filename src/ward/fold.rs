//! The ward's history: events in any order of arrival, folded by the time they happened, so that what was learned late
//! changes the past in exactly the way it would have had it been known at once.

use std::collections::BTreeMap;

use super::{Change, EventSource, WardEvent};
use crate::reading::{DeviceId, SubjectKey, Timestamp, UserIndex};

/// Which event says so, and since when this gateway knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub n: u64,
    pub learned: Timestamp,
    pub source: EventSource,
}

/// Something that held from `from` on and no longer at `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval<T> {
    pub value: T,
    pub from: Timestamp,
    /// `None` while it still holds.
    pub to: Option<Timestamp>,
    pub began: Evidence,
    pub ended: Option<Evidence>,
}

/// Everything the ward log says, as intervals. The same events in any order make the same ward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ward {
    pub(super) pairings: BTreeMap<(DeviceId, Option<UserIndex>), Timeline<SubjectKey>>,
    pub(super) places: BTreeMap<DeviceId, Timeline<String>>,
    pub(super) beds: BTreeMap<String, Timeline<SubjectKey>>,
    /// All the config ever said about each topic, in the order it said it.
    pub(super) configured: BTreeMap<Topic, BTreeMap<u64, (Timestamp, Change)>>,
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Pairing(DeviceId, Option<UserIndex>),
    Place(DeviceId),
    Bed(String),
}

impl Ward {
    /// Folds in event-time order, events of one time in the order of the log. An event given twice counts once.
    pub fn fold(events: &[WardEvent]) -> Ward {
        let mut events: Vec<&WardEvent> = events.iter().collect();
        events.sort_by_key(|event| (event.at, event.n));
        events.dedup_by_key(|event| (event.at, event.n));
        let mut ward = Ward::default();
        let mut lies_in = BTreeMap::new();
        for event in events {
            ward.apply(event, &mut lies_in);
        }
        ward
    }

    pub fn pairings(&self) -> impl Iterator<Item = (DeviceId, Option<UserIndex>, &Interval<SubjectKey>)> {
        self.pairings.iter().flat_map(|((device, user), timeline)| timeline.iter().map(|i| (*device, *user, i)))
    }

    pub fn places(&self) -> impl Iterator<Item = (DeviceId, &Interval<String>)> {
        self.places.iter().flat_map(|(device, timeline)| timeline.iter().map(|i| (*device, i)))
    }

    pub fn beds(&self) -> impl Iterator<Item = (&str, &Interval<SubjectKey>)> {
        self.beds.iter().flat_map(|(bed, timeline)| timeline.iter().map(move |i| (bed.as_str(), i)))
    }

    fn apply(&mut self, event: &WardEvent, lies_in: &mut BTreeMap<SubjectKey, String>) {
        let (at, evidence) = (event.at, Evidence { n: event.n, learned: event.learned, source: event.source });
        match &event.change {
            Change::Pair { device, user, subject } => {
                self.pairings.entry((*device, *user)).or_default().begin(subject.clone(), at, evidence);
            }
            Change::Unpair { device, user } => self.pairings.entry((*device, *user)).or_default().end(at, evidence),
            Change::Place { device, bed } => {
                self.places.entry(*device).or_default().begin(bed.clone(), at, evidence);
            }
            Change::Unplace { device } => self.places.entry(*device).or_default().end(at, evidence),
            Change::Occupy { bed, subject } => {
                if let Some(left) = lies_in.insert(subject.clone(), bed.clone())
                    && left != *bed
                {
                    self.beds.entry(left).or_default().end(at, evidence);
                }
                if let Some(displaced) = self.beds.entry(bed.clone()).or_default().begin(subject.clone(), at, evidence)
                    && displaced != *subject
                {
                    lies_in.remove(&displaced);
                }
            }
            Change::Vacate { bed } => {
                let timeline = self.beds.entry(bed.clone()).or_default();
                if let Some(left) = timeline.open() {
                    lies_in.remove(&left.value);
                }
                timeline.end(at, evidence);
            }
        }
        if event.source == EventSource::Config {
            let said = self.configured.entry(topic(&event.change)).or_default();
            said.insert(event.n, (event.at, event.change.clone()));
        }
    }
}

pub(super) fn topic(change: &Change) -> Topic {
    match change {
        Change::Pair { device, user, .. } | Change::Unpair { device, user } => Topic::Pairing(*device, *user),
        Change::Place { device, .. } | Change::Unplace { device } => Topic::Place(*device),
        Change::Occupy { bed, .. } | Change::Vacate { bed } => Topic::Bed(bed.clone()),
    }
}

/// Intervals of one topic in order of time, none overlapping another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timeline<T>(Vec<Interval<T>>);

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Timeline<T> {
    pub fn at(&self, at: Timestamp) -> Option<&Interval<T>> {
        let place = self.0.partition_point(|interval| interval.from <= at);
        let interval = self.0[..place].last()?;
        interval.to.is_none_or(|to| at < to).then_some(interval)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Interval<T>> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn open(&self) -> Option<&Interval<T>> {
        self.0.last().filter(|interval| interval.to.is_none())
    }

    /// Ends what holds and begins anew; gives what held.
    fn begin(&mut self, value: T, at: Timestamp, evidence: Evidence) -> Option<T> {
        let held = self.open().map(|interval| interval.value.clone());
        self.end(at, evidence);
        self.0.push(Interval { value, from: at, to: None, began: evidence, ended: None });
        held
    }

    /// What began at this very time never held.
    fn end(&mut self, at: Timestamp, evidence: Evidence) {
        let Some(last) = self.0.last_mut().filter(|interval| interval.to.is_none()) else { return };
        if last.from == at {
            self.0.pop();
        } else {
            (last.to, last.ended) = (Some(at), Some(evidence));
        }
    }
}
