//! Whose a reading is: by an explicit pairing of its device, else by the bed its device stands at. Never a guess: where
//! pairing and bed disagree, or the time is not sure enough to tell two patients apart, the reading is held.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fold::Timeline;
use super::{EventSource, HoldReason, Ward};
use crate::reading::{DeviceId, SubjectKey, Timestamp, UserIndex, WallTime};

/// By what right a reading was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    DevicePairing,
    UserPairing,
    Bed,
}

impl Rule {
    pub const fn name(self) -> &'static str {
        match self {
            Rule::DevicePairing => "device_pairing",
            Rule::UserPairing => "user_pairing",
            Rule::Bed => "bed",
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
enum Unbound {
    Nobody,
    Conflict,
    UnknownUser,
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
            let reach_ms = i64::from(at.uncertainty_ms) + guard_ms(*source);
            at.at.plus_ms(-reach_ms) < *edge && *edge <= at.at.plus_ms(reach_ms)
        };
        if self.turns(device).iter().filter(|turn| near(turn)).any(|(edge, _)| self.changes_at(device, user, *edge)) {
            return Err(HoldReason::Edge);
        }
        resolved.map_err(|unbound| self.reason(device, user, at.at, unbound))
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
        self.resolve(device, user, from).map_err(|unbound| self.reason(device, user, from, unbound))
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
        self.pairings.keys().map(|(device, _)| *device).chain(self.places.keys().copied())
    }

    fn resolve(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Result<Binding, Unbound> {
        let pairing = self.by_pairing(device, user, at)?;
        let bed = self.by_bed(device, at);
        match (pairing, bed) {
            (Some(pairing), Some(bed)) if pairing.subject != bed.subject => Err(Unbound::Conflict),
            (Some(pairing), _) => Ok(pairing),
            (None, Some(bed)) => Ok(bed),
            (None, None) => Err(Unbound::Nobody),
        }
    }

    /// A device whose user slots are paired one by one is nobody else's: not the general pairing's, not the bed's.
    fn by_pairing(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Result<Option<Binding>, Unbound> {
        let of = |user: Option<UserIndex>, rule: Rule| {
            let interval = self.pairings.get(&(device, user))?.at(at)?;
            Some(Binding { subject: interval.value.clone(), rule, evidence: vec![interval.began.n] })
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

    fn by_bed(&self, device: DeviceId, at: Timestamp) -> Option<Binding> {
        let place = self.places.get(&device)?.at(at)?;
        let occupant = self.beds.get(&place.value)?.at(at)?;
        let evidence = vec![place.began.n, occupant.began.n];
        Some(Binding { subject: occupant.value.clone(), rule: Rule::Bed, evidence })
    }

    fn reason(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp, unbound: Unbound) -> HoldReason {
        match unbound {
            Unbound::Conflict => HoldReason::Conflict,
            Unbound::UnknownUser => HoldReason::UnknownUser,
            Unbound::Nobody if self.first_assignment(device, user).is_some_and(|first| at < first) => {
                HoldReason::BeforeAssignment
            }
            Unbound::Nobody => HoldReason::NoAssignment,
        }
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
        let mut turns: Vec<_> = pairings.flat_map(|(_, timeline)| turns_of(timeline)).collect();
        let Some(places) = self.places.get(&device) else { return turns };
        turns.extend(turns_of(places));
        let stood_at: BTreeSet<&String> = places.iter().map(|place| &place.value).collect();
        turns.extend(stood_at.into_iter().filter_map(|bed| self.beds.get(bed)).flat_map(turns_of));
        turns
    }
}

fn turns_of<T: Clone>(timeline: &Timeline<T>) -> impl Iterator<Item = (Timestamp, EventSource)> {
    timeline.iter().flat_map(|interval| {
        let ended = interval.to.zip(interval.ended).map(|(at, evidence)| (at, evidence.source));
        std::iter::once((interval.from, interval.began.source)).chain(ended)
    })
}

/// How far the time of an event of this source may be off: a person who gives a command or scans a code does it there and
/// then, and the config says the time it means. A feed is typed later; two minutes is what it gets where it carries a time
/// of its own.
const fn guard_ms(source: EventSource) -> i64 {
    match source {
        EventSource::Config | EventSource::Command | EventSource::Import | EventSource::Scan => 0,
        EventSource::Adt => 120_000,
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
    let differs = |at: Timestamp| {
        let outcome = |ward: &Ward, user| ward.who(device, user, at).map_err(|unbound| ward.reason(device, user, at, unbound));
        users.iter().any(|user| outcome(before, *user) != outcome(after, *user))
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
