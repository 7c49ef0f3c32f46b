//! The ward's history: events in any order of arrival, folded by the time they happened, so that what was learned late
//! changes the past in exactly the way it would have had it been known at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Change, EventSource, Guards, Movement, WardEvent};
use crate::reading::{DeviceId, RecordId, SubjectKey, Timestamp, UserIndex};

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
    /// It ended because the visit did.
    pub discharged: bool,
}

impl<T> Interval<T> {
    pub fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

/// A scan that ties the next few readings of a device to a patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub subject: SubjectKey,
    /// At most so many of one stream.
    pub readings: u16,
}

/// Everything the ward log says, as intervals. The same events in any order make the same ward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ward {
    /// In the order they happened.
    events: Arc<Vec<WardEvent>>,
    pub(super) pairings: BTreeMap<(DeviceId, Option<UserIndex>), Timeline<SubjectKey>>,
    pub(super) spots: BTreeMap<DeviceId, Timeline<Spot>>,
    pub(super) places: BTreeMap<DeviceId, Timeline<String>>,
    /// Devices out of service.
    pub(super) retired: BTreeMap<DeviceId, Timeline<()>>,
    cleaned: BTreeMap<DeviceId, Vec<Timestamp>>,
    /// Who lies where: a patient in one bed at a time, a bed with more than one where nobody said that the first had left.
    lies: BTreeMap<SubjectKey, Timeline<String>>,
    /// The same by bed, in order of beginning.
    pub(super) beds: BTreeMap<String, Vec<Interval<SubjectKey>>>,
    /// Keys that turned out to be somebody already known.
    merged: BTreeMap<SubjectKey, SubjectKey>,
    /// What people said of single records.
    pub(super) named: BTreeMap<RecordId, (Option<SubjectKey>, Evidence)>,
    /// All the config ever said about each topic, in the order it said it.
    pub(super) configured: BTreeMap<Topic, BTreeMap<u64, (Timestamp, Change)>>,
    pub(super) guards: Guards,
    pub(super) feed_silent_since: Option<Timestamp>,
    /// Whose identity was deleted.
    forgotten: BTreeSet<SubjectKey>,
    pub(super) census_until: Option<Timestamp>,
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
        let mut events: Vec<WardEvent> = events.to_vec();
        events.sort_by_key(|event| (event.at, event.n));
        events.dedup_by_key(|event| (event.at, event.n));
        let mut ward = Ward::default();
        let cancelled = cancelled(&events);
        for event in events.iter().filter(|event| !cancelled.contains(&event.n)) {
            ward.apply(event);
        }
        for (subject, timeline) in &ward.lies {
            for interval in timeline.iter() {
                let Interval { value: bed, from, to, began, ended, discharged } = interval.clone();
                let occupant = Interval { value: subject.clone(), from, to, began, ended, discharged };
                ward.beds.entry(bed).or_default().push(occupant);
            }
        }
        ward.beds.values_mut().for_each(|occupants| occupants.sort_by_key(|occupant| (occupant.from, occupant.began.n)));
        ward.events = Arc::new(events);
        ward
    }

    /// The ward by the events up to number `n` of the log: what was known then.
    pub fn known_at(&self, n: u64) -> Ward {
        let known: Vec<WardEvent> = self.events.iter().filter(|event| event.n <= n).cloned().collect();
        let Ward { guards, feed_silent_since, census_until, .. } = *self;
        let forgotten = self.forgotten.clone();
        Ward { guards, feed_silent_since, census_until, forgotten, ..Ward::fold(&known) }
    }

    #[must_use]
    pub fn with_guards(self, guards: Guards) -> Ward {
        Ward { guards, ..self }
    }

    pub fn guards(&self) -> Guards {
        self.guards
    }

    /// A feed that is down or mute since then says nothing of who has left: what rests on it is held from there on.
    #[must_use]
    pub fn with_feed_silent_since(self, since: Option<Timestamp>) -> Ward {
        Ward { feed_silent_since: since, ..self }
    }

    #[must_use]
    pub fn with_forgotten(self, forgotten: BTreeSet<SubjectKey>) -> Ward {
        Ward { forgotten, ..self }
    }

    /// Whether nobody is to know any more who this is. Whose a reading is stays the same.
    pub fn is_forgotten(&self, subject: &SubjectKey) -> bool {
        self.forgotten.contains(subject)
    }

    /// The last census speaks up to then: what rests on one is held from there on, until the next is read.
    #[must_use]
    pub fn with_census_until(self, until: Option<Timestamp>) -> Ward {
        Ward { census_until: until, ..self }
    }

    /// In the order they happened.
    pub fn events(&self) -> &[WardEvent] {
        &self.events
    }

    /// The number of the last event in it; 0 when there is none.
    pub fn last_event(&self) -> u64 {
        self.events.iter().map(|event| event.n).max().unwrap_or(0)
    }

    /// The key a person is known by now.
    pub fn known_as<'a>(&'a self, subject: &'a SubjectKey) -> &'a SubjectKey {
        let mut known = subject;
        while let Some(into) = self.merged.get(known) {
            known = into;
        }
        known
    }

    pub fn pairings(&self) -> impl Iterator<Item = (DeviceId, Option<UserIndex>, &Interval<SubjectKey>)> {
        self.pairings.iter().flat_map(|((device, user), timeline)| timeline.iter().map(|i| (*device, *user, i)))
    }

    pub fn spots(&self) -> impl Iterator<Item = (DeviceId, &Interval<Spot>)> {
        self.spots.iter().flat_map(|(device, timeline)| timeline.iter().map(|i| (*device, i)))
    }

    pub fn places(&self) -> impl Iterator<Item = (DeviceId, &Interval<String>)> {
        self.places.iter().flat_map(|(device, timeline)| timeline.iter().map(|i| (*device, i)))
    }

    pub fn is_retired(&self, device: DeviceId, at: Timestamp) -> bool {
        self.retired.get(&device).is_some_and(|retired| retired.at(at).is_some())
    }

    /// Whether the device was cleaned after it had measured something and before that was heard.
    pub fn was_cleaned(&self, device: DeviceId, measured: Timestamp, heard: Timestamp) -> bool {
        self.cleaned.get(&device).is_some_and(|times| times.iter().any(|at| measured < *at && *at <= heard))
    }

    pub fn beds(&self) -> impl Iterator<Item = (&str, &Interval<SubjectKey>)> {
        self.beds.iter().flat_map(|(bed, occupants)| occupants.iter().map(move |i| (bed.as_str(), i)))
    }

    /// The people in a bed at a time, each by the key they are known by.
    pub fn lying_in(&self, bed: &str, at: Timestamp) -> impl Iterator<Item = &SubjectKey> {
        let occupants = self.beds.get(bed).into_iter().flatten().filter(move |occupant| occupant.holds(at));
        occupants.map(|occupant| self.known_as(&occupant.value))
    }

    fn apply(&mut self, event: &WardEvent) {
        let (at, evidence) = (event.at, Evidence { n: event.n, learned: event.learned, source: event.source });
        match &event.change {
            Change::Pair { device, user, subject } => {
                self.end_spot(*device, at, evidence);
                self.pairings.entry((*device, *user)).or_default().begin(subject.clone(), at, evidence);
            }
            Change::Unpair { device, user } => {
                self.end_spot(*device, at, evidence);
                self.pairings.entry((*device, *user)).or_default().end(at, evidence);
            }
            Change::Spot { device, subject, for_ms, readings } => {
                let spot = Spot { subject: subject.clone(), readings: *readings };
                self.spots.entry(*device).or_default().begin_until(spot, at, Some(at.plus_ms(*for_ms)), evidence);
            }
            Change::Place { device, bed } => self.places.entry(*device).or_default().begin(bed.clone(), at, evidence),
            Change::Unplace { device } => self.places.entry(*device).or_default().end(at, evidence),
            Change::Occupy { bed, subject } => {
                self.vacate(bed, at, evidence);
                self.lay(subject, bed, at, evidence);
            }
            Change::Vacate { bed } => self.vacate(bed, at, evidence),
            Change::Admit { subject, bed: Some(bed) } | Change::Transfer { subject, bed } => self.lay(subject, bed, at, evidence),
            Change::Admit { bed: None, .. } | Change::Cancel { .. } => {}
            Change::Swap { first, second } => {
                self.lay(&first.0, &first.1, at, evidence);
                self.lay(&second.0, &second.1, at, evidence);
            }
            Change::Discharge { subject } => self.discharge(subject, at, evidence),
            Change::Merge { from, into } => {
                let (from, into) = (self.known_as(from).clone(), self.known_as(into).clone());
                if from != into {
                    self.merged.insert(from, into);
                }
            }
            Change::Replace { old, new } => self.replace(*old, *new, at, evidence),
            Change::Retire { device } => self.retire(*device, at, evidence),
            Change::Clean { device } => {
                self.end_pairings(*device, at, evidence);
                self.retired.entry(*device).or_default().end(at, evidence);
                self.cleaned.entry(*device).or_default().push(at);
            }
            Change::Name { records, subject, .. } => {
                self.named.extend(records.iter().map(|record| (*record, (subject.clone(), evidence))));
            }
        }
        if event.source == EventSource::Config
            && let Some(topic) = topic(&event.change)
        {
            let said = self.configured.entry(topic).or_default();
            said.insert(event.n, (event.at, event.change.clone()));
        }
    }

    fn replace(&mut self, old: DeviceId, new: DeviceId, at: Timestamp, evidence: Evidence) {
        let of_old = self.pairings.range((old, None)..=(old, Some(UserIndex::MAX)));
        let now = of_old.filter_map(|((_, user), timeline)| Some((*user, timeline.at(at)?.value.clone())));
        let now: Vec<(Option<UserIndex>, SubjectKey)> = now.collect();
        let place = self.places.get(&old).and_then(|places| places.at(at)).map(|place| place.value.clone());
        self.retire(old, at, evidence);
        for (user, subject) in now {
            self.pairings.entry((new, user)).or_default().begin(subject, at, evidence);
        }
        if let Some(bed) = place {
            self.places.entry(old).or_default().end(at, evidence);
            self.places.entry(new).or_default().begin(bed, at, evidence);
        }
    }

    fn retire(&mut self, device: DeviceId, at: Timestamp, evidence: Evidence) {
        self.end_pairings(device, at, evidence);
        let retired = self.retired.entry(device).or_default();
        if retired.at(at).is_none() {
            retired.begin((), at, evidence);
        }
    }

    fn end_pairings(&mut self, device: DeviceId, at: Timestamp, evidence: Evidence) {
        self.end_spot(device, at, evidence);
        let of_device = self.pairings.range_mut((device, None)..=(device, Some(UserIndex::MAX)));
        of_device.for_each(|(_, timeline)| timeline.end(at, evidence));
    }

    fn end_spot(&mut self, device: DeviceId, at: Timestamp, evidence: Evidence) {
        if let Some(spots) = self.spots.get_mut(&device) {
            spots.end(at, evidence);
        }
    }

    /// A patient lies in one bed: under whatever key they lay elsewhere, they no longer do.
    fn lay(&mut self, subject: &SubjectKey, bed: &str, at: Timestamp, evidence: Evidence) {
        for key in self.keys_of(subject) {
            if let Some(timeline) = self.lies.get_mut(&key) {
                timeline.end(at, evidence);
            }
        }
        self.lies.entry(subject.clone()).or_default().begin(bed.to_owned(), at, evidence);
    }

    fn vacate(&mut self, bed: &str, at: Timestamp, evidence: Evidence) {
        for timeline in self.lies.values_mut().filter(|timeline| timeline.at(at).is_some_and(|lies| lies.value == bed)) {
            timeline.end(at, evidence);
        }
    }

    fn discharge(&mut self, subject: &SubjectKey, at: Timestamp, evidence: Evidence) {
        let keys = self.keys_of(subject);
        for (_, timeline) in self.lies.iter_mut().filter(|(key, _)| keys.contains(*key)) {
            timeline.end_visit(|_| true, at, evidence);
        }
        self.pairings.values_mut().for_each(|timeline| timeline.end_visit(|of| keys.contains(of), at, evidence));
        self.spots.values_mut().for_each(|timeline| timeline.end_visit(|of| keys.contains(&of.subject), at, evidence));
    }

    /// All keys that are this person by what was merged so far.
    fn keys_of(&self, subject: &SubjectKey) -> BTreeSet<SubjectKey> {
        let person = self.known_as(subject);
        let merged = self.merged.keys().filter(|key| self.known_as(key) == person);
        merged.chain([person, subject]).cloned().collect()
    }
}

/// The numbers of events that never happened. A cancellation takes back the last movement of its kind up to its own time,
/// and one that is told twice takes back one.
fn cancelled(events: &[WardEvent]) -> BTreeSet<u64> {
    let mut cancelled = BTreeSet::new();
    let mut told = BTreeSet::new();
    let mut movements: BTreeMap<(SubjectKey, Movement), Vec<u64>> = BTreeMap::new();
    for event in events {
        let mut moved = |subject: &SubjectKey, movement| movements.entry((subject.clone(), movement)).or_default().push(event.n);
        match &event.change {
            Change::Admit { subject, .. } => moved(subject, Movement::Admit),
            Change::Transfer { subject, .. } => moved(subject, Movement::Transfer),
            Change::Discharge { subject } => moved(subject, Movement::Discharge),
            Change::Cancel { subject, of } if told.insert((event.at, subject.clone(), *of)) => {
                cancelled.extend(movements.get_mut(&(subject.clone(), *of)).and_then(Vec::pop));
            }
            _ => {}
        }
    }
    cancelled
}

/// `None` for what the config can't say.
pub(super) fn topic(change: &Change) -> Option<Topic> {
    match change {
        Change::Pair { device, user, .. } | Change::Unpair { device, user } => Some(Topic::Pairing(*device, *user)),
        Change::Place { device, .. } | Change::Unplace { device } => Some(Topic::Place(*device)),
        Change::Occupy { bed, .. } | Change::Vacate { bed } => Some(Topic::Bed(bed.clone())),
        _ => None,
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
        self.last_begun(at).filter(|interval| interval.to.is_none_or(|to| at < to))
    }

    /// What began last up to this time, whether or not it has ended.
    pub fn last_begun(&self, at: Timestamp) -> Option<&Interval<T>> {
        let place = self.0.partition_point(|interval| interval.from <= at);
        self.0[..place].last()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Interval<T>> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn begin(&mut self, value: T, at: Timestamp, evidence: Evidence) {
        self.begin_until(value, at, None, evidence);
    }

    /// Ends what holds and begins anew.
    fn begin_until(&mut self, value: T, at: Timestamp, to: Option<Timestamp>, evidence: Evidence) {
        self.end(at, evidence);
        self.0.push(Interval { value, from: at, to, began: evidence, ended: None, discharged: false });
    }

    fn end(&mut self, at: Timestamp, evidence: Evidence) {
        self.close(|_| true, at, evidence, false);
    }

    fn end_visit(&mut self, of: impl Fn(&T) -> bool, at: Timestamp, evidence: Evidence) {
        self.close(of, at, evidence, true);
    }

    /// What began at this very time never held.
    fn close(&mut self, of: impl Fn(&T) -> bool, at: Timestamp, evidence: Evidence, discharged: bool) {
        let holds = |interval: &&mut Interval<T>| interval.to.is_none_or(|to| at < to) && of(&interval.value);
        let Some(last) = self.0.last_mut().filter(holds) else { return };
        if last.from == at {
            self.0.pop();
        } else {
            (last.to, last.ended, last.discharged) = (Some(at), Some(evidence), discharged);
        }
    }
}
