//! Whose a reading is: by an explicit pairing of its device, else by the bed its device stands at. Never a guess: where
//! pairing and bed disagree, or the time is not sure enough to tell two patients apart, the reading is held.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fold::{Interval, Timeline};
use super::{Change, EventSource, HoldReason, Spot, Ward};
use crate::reading::{DeviceId, RecordId, SubjectKey, Timestamp, UserIndex, WallTime};

/// By what right a reading was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    DevicePairing,
    UserPairing,
    Bed,
    /// A scan, for the next few readings.
    Spot,
    /// A person said so of this very record.
    Person,
}

impl Rule {
    pub const fn name(self) -> &'static str {
        match self {
            Rule::DevicePairing => "device_pairing",
            Rule::UserPairing => "user_pairing",
            Rule::Bed => "bed",
            Rule::Spot => "spot",
            Rule::Person => "person",
        }
    }
}

/// The answer to "why did this value land in this chart?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub subject: SubjectKey,
    pub rule: Rule,
    /// Numbers of the ward events it rests on.
    pub evidence: Vec<u64>,
}

/// A span of a device's readings whose binding, or reason to be held, is another than before. The ends may be the ends of
/// time. Readings whose uncertainty reaches into it are touched as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affected {
    pub device: DeviceId,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// Why nobody is bound at some time, before the edges are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unbound {
    Nobody,
    Conflict,
    UnknownUser,
}

/// What tied a device to a patient until `to`.
pub(super) struct Tie<'a> {
    pub to: Timestamp,
    /// It ended because the visit did.
    pub discharged: bool,
    pub subject: &'a SubjectKey,
}

type Who = Result<SubjectKey, Unbound>;

impl Ward {
    /// Binds a reading of this time. It is held as `edge` when its time, give or take its uncertainty and the guard of the
    /// events nearby, lies on both sides of a change.
    pub fn bind(&self, device: DeviceId, user: Option<UserIndex>, at: WallTime) -> Result<Binding, HoldReason> {
        let resolved = self.resolve(device, user, at.at);
        if let Err(unbound @ (Unbound::Conflict | Unbound::UnknownUser)) = resolved {
            return Err(self.reason(device, user, at.at, unbound));
        }
        let near = |(edge, source): &(Timestamp, EventSource)| {
            let (early_ms, late_ms) = self.guards.of(*source);
            let off_ms = i64::from(at.uncertainty_ms);
            at.at.plus_ms(-off_ms - late_ms) < *edge && *edge <= at.at.plus_ms(off_ms + early_ms)
        };
        if self.turns(device).iter().filter(|turn| near(turn)).any(|(edge, _)| self.changes_at(device, user, *edge)) {
            return Err(HoldReason::Edge);
        }
        let binding = resolved.map_err(|unbound| self.reason(device, user, at.at, unbound))?;
        if self.is_stale(&binding, at.at) { Err(HoldReason::StaleFeed) } else { Ok(binding) }
    }

    /// What a person said of this very record: whose it is, or nobody's. It outranks all that is known of the device.
    pub fn named(&self, record: &RecordId) -> Option<Option<Binding>> {
        let (subject, evidence) = self.named.get(record)?;
        let bind = |subject: &SubjectKey| Binding {
            subject: self.known_as(subject).clone(),
            rule: Rule::Person,
            evidence: vec![evidence.n],
        };
        Some(subject.as_ref().map(bind))
    }

    /// The scan under which a device measures at this time.
    pub fn spot(&self, device: DeviceId, at: Timestamp) -> Option<&Interval<Spot>> {
        self.spots.get(&device)?.at(at)
    }

    /// Binds a window, or a side of one, as a whole: its span has exact ends, so only a change inside it is an edge.
    pub fn bind_span(
        &self,
        device: DeviceId,
        user: Option<UserIndex>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Binding, HoldReason> {
        if !self.edges(device, user, from, to).is_empty() {
            return Err(HoldReason::Edge);
        }
        let binding = self.resolve(device, user, from).map_err(|unbound| self.reason(device, user, from, unbound))?;
        if self.is_stale(&binding, to.plus_ms(-1)) { Err(HoldReason::StaleFeed) } else { Ok(binding) }
    }

    /// The times strictly inside the span at which the binding changes: where a window is cut.
    pub fn edges(&self, device: DeviceId, user: Option<UserIndex>, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
        let turns: BTreeSet<Timestamp> = self.turns(device).into_iter().map(|(at, _)| at).collect();
        let inside = turns.into_iter().filter(|at| from < *at && *at < to);
        inside.filter(|at| self.changes_at(device, user, *at)).collect()
    }

    /// When this device first measured a patient this ward knows of: what it had stored before is its history.
    pub fn first_assignment(&self, device: DeviceId, user: Option<UserIndex>) -> Option<Timestamp> {
        let turns: BTreeSet<Timestamp> = self.turns(device).into_iter().map(|(at, _)| at).collect();
        turns.into_iter().find(|at| matches!(self.resolve(device, user, *at), Ok(_) | Err(Unbound::Conflict)))
    }

    /// What a new fold of the history touches, device by device, in order of time.
    pub fn changes(before: &Ward, after: &Ward) -> Vec<Affected> {
        let devices: BTreeSet<DeviceId> = [before, after].into_iter().flat_map(Ward::devices).collect();
        devices.into_iter().flat_map(|device| changes_of(device, before, after)).collect()
    }

    fn devices(&self) -> impl Iterator<Item = DeviceId> {
        let paired = self.pairings.keys().map(|(device, _)| *device).chain(self.spots.keys().copied());
        let named = self.events().iter().filter_map(|event| match event.change {
            Change::Name { device, .. } => Some(device),
            _ => None,
        });
        paired.chain(self.places.keys().copied()).chain(self.retired.keys().copied()).chain(named)
    }

    /// An explicit pairing, else the bed. A pairing that the bed contradicts, or two people in the bed, is for a person.
    fn resolve(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Result<Binding, Unbound> {
        if self.is_retired(device, at) {
            return Err(Unbound::Nobody);
        }
        let pairing = match self.by_spot(device, at) {
            Some(spot) => Some(spot),
            None => self.by_pairing(device, user, at)?,
        };
        let mut in_bed = self.by_bed(device, at);
        match pairing {
            Some(pairing) if in_bed.is_empty() || in_bed.iter().any(|bed| bed.subject == pairing.subject) => Ok(pairing),
            Some(_) => Err(Unbound::Conflict),
            None if in_bed.len() > 1 => Err(Unbound::Conflict),
            None => in_bed.pop().ok_or(Unbound::Nobody),
        }
    }

    pub(super) fn by_spot(&self, device: DeviceId, at: Timestamp) -> Option<Binding> {
        let spot = self.spot(device, at)?;
        let subject = self.known_as(&spot.value.subject).clone();
        Some(Binding { subject, rule: Rule::Spot, evidence: vec![spot.began.n] })
    }

    /// A device whose user slots are paired one by one is nobody else's: not the general pairing's, not the bed's.
    pub(super) fn by_pairing(
        &self,
        device: DeviceId,
        user: Option<UserIndex>,
        at: Timestamp,
    ) -> Result<Option<Binding>, Unbound> {
        let of = |user: Option<UserIndex>, rule: Rule| {
            let interval = self.pairings.get(&(device, user))?.at(at)?;
            let subject = self.known_as(&interval.value).clone();
            Some(Binding { subject, rule, evidence: vec![interval.began.n] })
        };
        let by_user = self.pairings.range((device, Some(0))..=(device, Some(UserIndex::MAX)));
        let by_user_now = by_user.into_iter().any(|(_, timeline)| timeline.at(at).is_some());
        let general = of(None, Rule::DevicePairing);
        match user {
            Some(_) if !by_user_now => Ok(general),
            Some(_) => match of(user, Rule::UserPairing) {
                Some(own) => Ok(Some(own)),
                None if self.pairings.get(&(device, user)).is_none_or(Timeline::is_empty) => Err(Unbound::UnknownUser),
                None => Err(Unbound::Nobody),
            },
            None if general.is_none() && by_user_now => Err(Unbound::UnknownUser),
            None => Ok(general),
        }
    }

    /// Everybody who lies in the device's bed, each person once.
    pub(super) fn by_bed(&self, device: DeviceId, at: Timestamp) -> Vec<Binding> {
        let Some(place) = self.places.get(&device).and_then(|places| places.at(at)) else { return Vec::new() };
        let mut people: Vec<Binding> = Vec::new();
        for occupant in self.occupants(&place.value).filter(|occupant| occupant.holds(at)) {
            let subject = self.known_as(&occupant.value);
            if !people.iter().any(|known| known.subject == *subject) {
                let evidence = vec![place.began.n, occupant.began.n];
                people.push(Binding { subject: subject.clone(), rule: Rule::Bed, evidence });
            }
        }
        people
    }

    fn occupants(&self, bed: &str) -> impl Iterator<Item = &Interval<SubjectKey>> {
        self.beds.get(bed).into_iter().flatten()
    }

    fn reason(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp, unbound: Unbound) -> HoldReason {
        match unbound {
            Unbound::Conflict => HoldReason::Conflict,
            Unbound::UnknownUser => HoldReason::UnknownUser,
            Unbound::Nobody if self.first_assignment(device, user).is_some_and(|first| at < first) => {
                HoldReason::BeforeAssignment
            }
            Unbound::Nobody if self.ended_with_the_visit(device, user, at) => HoldReason::AfterDischarge,
            Unbound::Nobody => HoldReason::NoAssignment,
        }
    }

    /// Whether what last tied the device to a patient ended because that visit did.
    fn ended_with_the_visit(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> bool {
        self.last_tie(device, user, at).is_some_and(|tie| tie.discharged)
    }

    /// What last tied the device to a patient and no longer does.
    pub(super) fn last_tie(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Option<Tie<'_>> {
        let own = [user, None].into_iter().filter_map(|user| self.pairings.get(&(device, user))?.last_begun(at));
        let pairings = own.map(|interval| (interval.to, interval.discharged, &interval.value));
        let spots = self.spots.get(&device).and_then(|spots| spots.last_begun(at));
        let spots = spots.map(|spot| (spot.to, spot.discharged, &spot.value.subject));
        let place = self.places.get(&device).and_then(|places| places.at(at));
        let occupants = place.into_iter().flat_map(|place| self.occupants(&place.value));
        let occupants = occupants.map(|occupant| (occupant.to, occupant.discharged, &occupant.value));
        let ended = pairings.chain(spots).chain(occupants);
        let ended = ended.filter_map(|(to, discharged, subject)| Some(Tie { to: to?, discharged, subject }));
        ended.filter(|tie| tie.to <= at).max_by_key(|tie| (tie.to, tie.discharged))
    }

    /// The bed at which a device stands.
    pub fn bed_of(&self, device: DeviceId, at: Timestamp) -> Option<&str> {
        Some(&self.places.get(&device)?.at(at)?.value)
    }

    /// A bed that a silent feed filled may have another in it by now.
    fn is_stale(&self, binding: &Binding, at: Timestamp) -> bool {
        let by_feed = |event: &super::WardEvent| match event.source {
            EventSource::Adt | EventSource::AdtKeyed => self.feed_silent_since.is_some_and(|since| since <= at),
            EventSource::Import => self.census_until.is_some_and(|until| until <= at),
            EventSource::Config | EventSource::Command | EventSource::Scan => false,
        };
        let rests_on = |event: &super::WardEvent| binding.evidence.contains(&event.n);
        binding.rule == Rule::Bed && self.events().iter().any(|event| rests_on(event) && by_feed(event))
    }

    fn who(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Who {
        self.resolve(device, user, at).map(|binding| binding.subject)
    }

    fn changes_at(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> bool {
        self.who(device, user, at.plus_ms(-1)) != self.who(device, user, at)
    }

    /// Every time at which something about this device, or about a bed it ever stood at, began or ended.
    fn turns(&self, device: DeviceId) -> Vec<(Timestamp, EventSource)> {
        let pairings = self.pairings.range((device, None)..=(device, Some(UserIndex::MAX)));
        let mut turns: Vec<_> = pairings.flat_map(|(_, timeline)| timeline.iter()).flat_map(turns_of).collect();
        turns.extend(self.retired.get(&device).into_iter().flat_map(Timeline::iter).flat_map(turns_of));
        turns.extend(self.spots.get(&device).into_iter().flat_map(Timeline::iter).flat_map(turns_of));
        let Some(places) = self.places.get(&device) else { return turns };
        turns.extend(places.iter().flat_map(turns_of));
        let stood_at: BTreeSet<&String> = places.iter().map(|place| &place.value).collect();
        turns.extend(stood_at.into_iter().flat_map(|bed| self.occupants(bed)).flat_map(turns_of));
        turns
    }
}

fn turns_of<T>(interval: &Interval<T>) -> impl Iterator<Item = (Timestamp, EventSource)> + use<T> {
    let ended = interval.to.map(|to| (to, interval.ended.unwrap_or(interval.began).source));
    std::iter::once((interval.from, interval.began.source)).chain(ended)
}

/// How far the time of an event may be off, by who said it. A person who gives a command or scans a code does it there and
/// then, and the config says the time it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// Of a command, of a scan and of a census: both ways.
    pub command_ms: i64,
    pub scan_ms: i64,
    pub import_ms: i64,
    /// Of a feed that carries the time of the event: both ways.
    pub with_event_time_ms: i64,
    /// Of one that carries the time of typing: people type late, and sometimes in advance.
    pub keyed_before_ms: i64,
    pub keyed_after_ms: i64,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            command_ms: 0,
            scan_ms: 0,
            import_ms: 0,
            with_event_time_ms: 120_000,
            keyed_before_ms: 30 * 60_000,
            keyed_after_ms: 5 * 60_000,
        }
    }
}

impl Guards {
    /// No change is in doubt further away than this.
    pub fn widest_ms(self) -> i64 {
        let Self { command_ms, scan_ms, import_ms, with_event_time_ms, keyed_before_ms, keyed_after_ms } = self;
        let all = [command_ms, scan_ms, import_ms, with_event_time_ms, keyed_before_ms, keyed_after_ms];
        all.into_iter().max().unwrap_or(0)
    }

    /// How much earlier, and how much later, than it says it may have been.
    const fn of(self, source: EventSource) -> (i64, i64) {
        match source {
            EventSource::Config => (0, 0),
            EventSource::Command => (self.command_ms, self.command_ms),
            EventSource::Scan => (self.scan_ms, self.scan_ms),
            EventSource::Import => (self.import_ms, self.import_ms),
            EventSource::Adt => (self.with_event_time_ms, self.with_event_time_ms),
            EventSource::AdtKeyed => (self.keyed_before_ms, self.keyed_after_ms),
        }
    }
}

fn changes_of(device: DeviceId, before: &Ward, after: &Ward) -> Vec<Affected> {
    let both = [before, after];
    let mut users: BTreeSet<Option<UserIndex>> = BTreeSet::from([None]);
    for ward in both {
        users.extend(ward.pairings.range((device, None)..=(device, Some(UserIndex::MAX))).map(|((_, user), _)| *user));
    }
    // One user nobody ever named stands for all of them.
    users.extend((0..=UserIndex::MAX).map(Some).find(|user| !users.contains(user)));
    let mut turns: BTreeSet<Timestamp> = BTreeSet::from([Timestamp(i64::MIN)]);
    turns.extend(both.iter().flat_map(|ward| ward.turns(device)).map(|(at, _)| at));
    let named = named_anew(device, before, after);
    turns.extend(named.iter().flat_map(|(from, to)| [*from, *to]));
    let differs = |at: Timestamp| {
        // A merge gives somebody another key, and moves nothing.
        let outcome = |ward: &Ward, user| match ward.who(device, user, at) {
            Ok(subject) => Ok(after.known_as(&subject).clone()),
            Err(unbound) => Err(ward.reason(device, user, at, unbound)),
        };
        named.iter().any(|(from, to)| *from <= at && at < *to)
            || users.iter().any(|user| outcome(before, *user) != outcome(after, *user))
    };
    let mut affected: Vec<Affected> = Vec::new();
    let mut turns = turns.into_iter().peekable();
    while let Some(from) = turns.next() {
        let to = turns.peek().copied().unwrap_or(Timestamp(i64::MAX));
        match affected.last_mut() {
            _ if !differs(from) => {}
            Some(last) if last.to == from => last.to = to,
            _ => affected.push(Affected { device, from, to }),
        }
    }
    affected
}

/// Between which times a device measured what a person has said something of since.
fn named_anew(device: DeviceId, before: &Ward, after: &Ward) -> Vec<(Timestamp, Timestamp)> {
    let said = after.events().iter().filter_map(|event| match &event.change {
        Change::Name { device: of, records, from, to, .. } if *of == device => Some((records, *from, to.plus_ms(1))),
        _ => None,
    });
    let differs = |records: &[RecordId]| records.iter().any(|record| before.named(record) != after.named(record));
    said.filter(|(records, _, _)| differs(records)).map(|(_, from, to)| (from, to)).collect()
}
