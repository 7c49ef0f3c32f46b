//! The events a ward's history is made of, and the reasons a record may have to wait.

use serde::{Deserialize, Serialize};

use crate::reading::{DeviceId, RecordId, SubjectKey, Timestamp, UserIndex};

/// One entry of the append-only ward log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WardEvent {
    /// Position in the ward log, from 1.
    pub n: u64,
    /// When it happened.
    pub at: Timestamp,
    /// When this gateway learned of it.
    pub learned: Timestamp,
    pub source: EventSource,
    /// Who said so; a local user name or "config".
    pub operator: String,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSource {
    Config,
    Command,
    Import,
    Scan,
    /// A feed that says when it happened.
    Adt,
    /// A feed that says only when somebody typed it.
    AdtKeyed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// From now on this device (or only this user slot of it) measures this patient.
    Pair {
        device: DeviceId,
        user: Option<UserIndex>,
        subject: SubjectKey,
    },
    Unpair {
        device: DeviceId,
        user: Option<UserIndex>,
    },
    /// From now on this device stands at this bed.
    Place {
        device: DeviceId,
        bed: String,
    },
    Unplace {
        device: DeviceId,
    },
    /// From now on this patient lies in this bed; whoever lay there before no longer does.
    Occupy {
        bed: String,
        subject: SubjectKey,
    },
    Vacate {
        bed: String,
    },
    /// A visit begins, in a bed if one is named. Unlike [`Change::Occupy`] it says nothing of who else lies there: two who
    /// were never told apart are a conflict, not a guess.
    Admit {
        subject: SubjectKey,
        bed: Option<String>,
    },
    /// The patient moves to this bed.
    Transfer {
        subject: SubjectKey,
        bed: String,
    },
    /// The visit ends: the patient leaves the bed, and every pairing with the patient ends.
    Discharge {
        subject: SubjectKey,
    },
    /// The patient's last such event up to this time never happened.
    Cancel {
        subject: SubjectKey,
        of: Movement,
    },
    /// Two patients change places, each to the bed named with them.
    Swap {
        first: (SubjectKey, String),
        second: (SubjectKey, String),
    },
    /// Two keys are one person, who is known by the second from now on.
    Merge {
        from: SubjectKey,
        into: SubjectKey,
    },
    /// The next few readings of a device that is nobody's belong to this patient.
    Spot {
        device: DeviceId,
        subject: SubjectKey,
        for_ms: i64,
        readings: u16,
    },
    /// From now on this device measures whom the other one measured and stands where it stood; the other is retired.
    Replace {
        old: DeviceId,
        new: DeviceId,
    },
    /// The device is out of service: nothing it says is anybody's until it is cleaned.
    Retire {
        device: DeviceId,
    },
    /// The device is between two patients, and what it measured until now and still keeps is nobody's.
    Clean {
        device: DeviceId,
    },
    /// A person says whose these records are, or that they are nobody's. `from` and `to`: between which times the device
    /// measured them, both included.
    Name {
        device: DeviceId,
        records: Vec<RecordId>,
        subject: Option<SubjectKey>,
        from: Timestamp,
        to: Timestamp,
    },
}

/// What can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    Admit,
    Transfer,
    Discharge,
}

impl Change {
    /// The patients it names.
    pub fn subjects(&self) -> Vec<&SubjectKey> {
        match self {
            Change::Pair { subject, .. }
            | Change::Occupy { subject, .. }
            | Change::Admit { subject, .. }
            | Change::Transfer { subject, .. }
            | Change::Discharge { subject }
            | Change::Cancel { subject, .. }
            | Change::Spot { subject, .. } => vec![subject],
            Change::Swap { first, second } => vec![&first.0, &second.0],
            Change::Merge { from, into } => vec![from, into],
            Change::Name { subject, .. } => subject.iter().collect(),
            Change::Unpair { .. } | Change::Place { .. } | Change::Unplace { .. } | Change::Vacate { .. } => Vec::new(),
            Change::Replace { .. } | Change::Retire { .. } | Change::Clean { .. } => Vec::new(),
        }
    }
}

/// Why a record may not go yet. The words are those of config, commands, topics and docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    NoAssignment,
    BeforeAssignment,
    AfterDischarge,
    Conflict,
    Edge,
    OutsideSpot,
    StaleFeed,
    NoClock,
    AmbiguousTime,
    Late,
    UnknownUser,
    DeviceMismatch,
    IdentityMismatch,
    PatientUnknown,
    Questionable,
    OutcomeUnknown,
    AwaitingDecision,
    /// Nobody listens to its topic, while others are heard.
    Unheard,
    /// The destination does not allow its topic, while others are allowed.
    Forbidden,
}

impl HoldReason {
    pub const ALL: [HoldReason; 19] = [
        HoldReason::NoAssignment,
        HoldReason::BeforeAssignment,
        HoldReason::AfterDischarge,
        HoldReason::Conflict,
        HoldReason::Edge,
        HoldReason::OutsideSpot,
        HoldReason::StaleFeed,
        HoldReason::NoClock,
        HoldReason::AmbiguousTime,
        HoldReason::Late,
        HoldReason::UnknownUser,
        HoldReason::DeviceMismatch,
        HoldReason::IdentityMismatch,
        HoldReason::PatientUnknown,
        HoldReason::Questionable,
        HoldReason::OutcomeUnknown,
        HoldReason::AwaitingDecision,
        HoldReason::Unheard,
        HoldReason::Forbidden,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            HoldReason::NoAssignment => "no_assignment",
            HoldReason::BeforeAssignment => "before_assignment",
            HoldReason::AfterDischarge => "after_discharge",
            HoldReason::Conflict => "conflict",
            HoldReason::Edge => "edge",
            HoldReason::OutsideSpot => "outside_spot",
            HoldReason::StaleFeed => "stale_feed",
            HoldReason::NoClock => "no_clock",
            HoldReason::AmbiguousTime => "ambiguous_time",
            HoldReason::Late => "late",
            HoldReason::UnknownUser => "unknown_user",
            HoldReason::DeviceMismatch => "device_mismatch",
            HoldReason::IdentityMismatch => "identity_mismatch",
            HoldReason::PatientUnknown => "patient_unknown",
            HoldReason::Questionable => "questionable",
            HoldReason::OutcomeUnknown => "outcome_unknown",
            HoldReason::AwaitingDecision => "awaiting_decision",
            HoldReason::Unheard => "unheard",
            HoldReason::Forbidden => "forbidden",
        }
    }

    /// In the words of a ward.
    pub const fn words(self) -> &'static str {
        match self {
            HoldReason::NoAssignment => "nobody is assigned to the device or its bed at that time",
            HoldReason::BeforeAssignment => "measured before anybody was assigned to the device",
            HoldReason::AfterDischarge => "measured after the visit ended",
            HoldReason::Conflict => "two patients claim it: two in one bed, or a pairing that the bed contradicts",
            HoldReason::Edge => "measured so near to a change of patient that it may be either's",
            HoldReason::OutsideSpot => "no scan covers it",
            HoldReason::StaleFeed => "the feed that says who lies there is silent",
            HoldReason::NoClock => "the gateway did not know the time",
            HoldReason::AmbiguousTime => "the device's clock does not say for certain when",
            HoldReason::Late => "it came later than the destination expects",
            HoldReason::UnknownUser => "a user of the device whom nobody has named",
            HoldReason::DeviceMismatch => "another device than the config names",
            HoldReason::IdentityMismatch => "the patient found there has another second identifier",
            HoldReason::PatientUnknown => "the patient's identifiers are not on file",
            HoldReason::Questionable => "the value itself is in doubt",
            HoldReason::OutcomeUnknown => "it may have arrived or not",
            HoldReason::AwaitingDecision => "it stands in a chart it does not belong to; see `bedrail decide list`",
            HoldReason::Unheard => "nobody listens to its topic",
            HoldReason::Forbidden => "the destination does not allow its topic",
        }
    }

    /// Whether a person may release it by saying whose it is.
    pub const fn asks_whose(self) -> bool {
        matches!(
            self,
            HoldReason::NoAssignment
                | HoldReason::BeforeAssignment
                | HoldReason::AfterDischarge
                | HoldReason::Conflict
                | HoldReason::Edge
                | HoldReason::OutsideSpot
                | HoldReason::StaleFeed
                | HoldReason::NoClock
                | HoldReason::AmbiguousTime
                | HoldReason::UnknownUser
        )
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}
