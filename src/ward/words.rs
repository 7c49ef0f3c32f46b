//! The ward in its own words: what an event says, why a reading is held, and what would let it go. Patients appear by their
//! opaque keys alone.

use super::{Change, HoldReason, Movement, Ward};
use crate::reading::{DeviceId, Timestamp, UserIndex};

impl Ward {
    /// Why a reading of this time is held, with the beds, people and times of this ward. `called`: the device's name.
    pub fn say_why(&self, reason: HoldReason, device: DeviceId, user: Option<UserIndex>, at: Timestamp, called: &str) -> String {
        let said = match reason {
            HoldReason::NoAssignment => Some(match self.bed_of(device, at) {
                Some(bed) => format!("nobody is in bed {bed}"),
                None => format!("{called} is assigned to nobody and stands at no bed"),
            }),
            HoldReason::BeforeAssignment => {
                self.first_assignment(device, user).map(|first| format!("{called} was nobody's before {first}"))
            }
            HoldReason::AfterDischarge => {
                self.last_tie(device, user, at).map(|tie| format!("the visit of {} ended at {}", tie.subject, tie.to))
            }
            HoldReason::Conflict => self.say_conflict(device, user, at, called),
            HoldReason::Edge => self.say_edge(device, user, at),
            HoldReason::UnknownUser => Some(match user {
                Some(user) => format!("nobody is assigned to user {user} of {called}"),
                None => format!("{called} did not say which of its users it was"),
            }),
            _ => None,
        };
        said.unwrap_or_else(|| reason.words().to_owned())
    }

    fn say_conflict(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp, called: &str) -> Option<String> {
        let bed = self.bed_of(device, at)?;
        let people: Vec<String> = self.by_bed(device, at).into_iter().map(|binding| binding.subject.to_string()).collect();
        Some(match self.by_pairing(device, user, at).ok().flatten().or_else(|| self.by_spot(device, at)) {
            Some(pairing) => {
                format!("{called} is assigned to {}, and {} is in its bed {bed}", pairing.subject, people.join(" and "))
            }
            None => format!("{} are both in bed {bed}", people.join(" and ")),
        })
    }

    fn say_edge(&self, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Option<String> {
        let edges = self.edges(device, user, Timestamp(i64::MIN), Timestamp(i64::MAX));
        let edge = edges.into_iter().min_by_key(|edge| edge.0.abs_diff(at.0))?;
        let who = |at| self.bind_span(device, user, at, at.plus_ms(1)).map_or("nobody".to_owned(), |of| of.subject.to_string());
        Some(format!(
            "at {edge} it goes from {} to {}, and the time is not sure enough to tell",
            who(edge.plus_ms(-1)),
            who(edge)
        ))
    }
}

impl HoldReason {
    /// What would let it go.
    pub const fn released_by(self) -> &'static str {
        match self {
            HoldReason::NoAssignment | HoldReason::BeforeAssignment | HoldReason::AfterDischarge => {
                "an assignment for that time (`bedrail assign` with --from), or a word about these records (`bedrail held assign` or `discard`)"
            }
            HoldReason::Conflict => {
                "an assignment that says which is right (`bedrail assign` or `unassign`, back-dated), or a word about these records (`bedrail held assign` or `discard`)"
            }
            HoldReason::UnknownUser => {
                "an assignment of that user of the device (`bedrail assign` with --user and --from), or a word about these records (`bedrail held assign` or `discard`)"
            }
            HoldReason::Edge | HoldReason::OutsideSpot | HoldReason::AmbiguousTime => {
                "a word about these records (`bedrail held assign` or `discard`)"
            }
            HoldReason::NoClock => {
                "the time, while the gateway runs on; after a restart a word about these records (`bedrail held assign` or `discard`)"
            }
            HoldReason::StaleFeed => "news of the feed, or a word about these records (`bedrail held assign` or `discard`)",
            HoldReason::Late => "the route's config",
            HoldReason::DeviceMismatch => "the device that the config names, or its number in the config",
            HoldReason::IdentityMismatch | HoldReason::PatientUnknown => "the patient's identifiers (`bedrail patient set`)",
            HoldReason::Questionable => "`questionable = \"send\"` of the route",
            HoldReason::OutcomeUnknown => "an answer of the destination",
            HoldReason::AwaitingDecision => "`bedrail decide accept` or `refuse`",
            HoldReason::Unheard => "somebody who listens to its topic",
            HoldReason::Forbidden => "the access rules of the destination",
        }
    }
}

impl Change {
    /// What it says, with the devices as they are called.
    pub fn say(&self, called: impl Fn(DeviceId) -> String) -> String {
        let of_user = |user: &Option<UserIndex>| user.map(|user| format!("user {user} of ")).unwrap_or_default();
        match self {
            Change::Pair { device, user, subject } => format!("{}{} measures {subject}", of_user(user), called(*device)),
            Change::Unpair { device, user } => format!("{}{} measures nobody", of_user(user), called(*device)),
            Change::Place { device, bed } => format!("{} stands at bed {bed}", called(*device)),
            Change::Unplace { device } => format!("{} stands at no bed", called(*device)),
            Change::Occupy { bed, subject } => format!("{subject} is in bed {bed}, and nobody else"),
            Change::Vacate { bed } => format!("nobody is in bed {bed}"),
            Change::Admit { subject, bed: Some(bed) } => format!("{subject} is admitted to bed {bed}"),
            Change::Admit { subject, bed: None } => format!("{subject} is admitted"),
            Change::Transfer { subject, bed } => format!("{subject} moves to bed {bed}"),
            Change::Discharge { subject } => format!("{subject} is discharged"),
            Change::Cancel { subject, of } => format!("the last {} of {subject} never was", of.name()),
            Change::Swap { first, second } => {
                format!("{} moves to bed {} and {} to bed {}", first.0, first.1, second.0, second.1)
            }
            Change::Merge { from, into } => format!("{from} is {into}"),
            Change::Spot { device, subject, for_ms, readings } => {
                format!("{} measures {subject} for {} s, {readings} readings at most", called(*device), for_ms / 1_000)
            }
            Change::Replace { old, new } => format!("{} takes the place of {}", called(*new), called(*old)),
            Change::Retire { device } => format!("{} is out of service", called(*device)),
            Change::Clean { device } => format!("{} was cleaned, and what it keeps is nobody's", called(*device)),
            Change::Name { records, subject: Some(subject), .. } => format!("{} records are of {subject}", records.len()),
            Change::Name { records, subject: None, .. } => format!("{} records are nobody's", records.len()),
        }
    }
}

impl Movement {
    pub const fn name(self) -> &'static str {
        match self {
            Movement::Admit => "admission",
            Movement::Transfer => "transfer",
            Movement::Discharge => "discharge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{ClockQuality, SubjectKey, WallTime};
    use crate::ward::{EventSource, WardEvent};

    const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 1]);

    fn ward(changes: &[(i64, EventSource, Change)]) -> Ward {
        let event = |(n, (at, source, change)): (usize, &(i64, EventSource, Change))| WardEvent {
            n: n as u64 + 1,
            at: Timestamp(*at),
            learned: Timestamp(*at),
            source: *source,
            operator: "nurse".into(),
            change: change.clone(),
        };
        Ward::fold(&changes.iter().enumerate().map(event).collect::<Vec<_>>())
    }

    fn held(ward: &Ward, user: Option<UserIndex>, at: i64) -> String {
        let time = WallTime { at: Timestamp(at), quality: ClockQuality::Ntp, uncertainty_ms: 10 };
        let reason = ward.bind(CUFF, user, time).expect_err("held");
        ward.say_why(reason, CUFF, user, Timestamp(at), "cuff")
    }

    #[test]
    fn why_a_reading_is_held_is_said_in_the_words_of_the_ward() {
        let key = |key: &str| key.parse::<SubjectKey>().expect("a key");
        let place = Change::Place { device: CUFF, bed: "301-B".into() };
        let admit = |who: &str, bed: &str| Change::Admit { subject: key(who), bed: Some(bed.into()) };
        let pair = |user, who: &str| Change::Pair { device: CUFF, user, subject: key(who) };
        let by = EventSource::Command;

        assert_eq!(held(&ward(&[]), None, 5), "cuff is assigned to nobody and stands at no bed");
        let ward_of_two = ward(&[
            (1_000, by, place.clone()),
            (2_000, by, admit("p-anna", "301-B")),
            (3_000, by, Change::Discharge { subject: key("p-anna") }),
            (5_000, by, admit("p-bert", "301-B")),
            (6_000, by, admit("p-cara", "301-B")),
        ]);
        assert_eq!(held(&ward_of_two, None, 1_500), "cuff was nobody's before 1970-01-01T00:00:02.000Z");
        assert_eq!(held(&ward_of_two, None, 3_500), "the visit of p-anna ended at 1970-01-01T00:00:03.000Z");
        assert_eq!(held(&ward_of_two, None, 6_500), "p-bert and p-cara are both in bed 301-B");
        let near = held(&ward_of_two, None, 2_005);
        assert!(near.starts_with("at 1970-01-01T00:00:02.000Z it goes from nobody to p-anna"), "{near}");
        let left = ward(&[
            (1, by, place.clone()),
            (2, by, admit("p-anna", "301-B")),
            (3_000, by, Change::Vacate { bed: "301-B".into() }),
        ]);
        assert_eq!(held(&left, None, 4_000), "nobody is in bed 301-B");
        let both = ward(&[(1, by, place), (2, by, admit("p-anna", "301-B")), (3, by, pair(None, "p-bert"))]);
        assert_eq!(held(&both, None, 4_000), "cuff is assigned to p-bert, and p-anna is in its bed 301-B");
        assert_eq!(held(&ward(&[(1, by, pair(Some(1), "p-anna"))]), Some(2), 4_000), "nobody is assigned to user 2 of cuff");
    }
}
