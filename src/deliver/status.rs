//! What a route knows of itself at this moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FaultClass;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    #[default]
    Connecting,
    Up,
    /// The link stands and nothing goes for now: the destination had something against it, or it is not the time.
    Waiting,
    /// The link is gone and is tried again.
    Down,
    /// A person, or a fault only a person can mend, stopped it.
    Paused,
}

impl RouteState {
    pub const fn name(self) -> &'static str {
        match self {
            RouteState::Connecting => "connecting",
            RouteState::Up => "up",
            RouteState::Waiting => "waiting",
            RouteState::Down => "down",
            RouteState::Paused => "paused",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub name: String,
    pub kind: String,
    pub state: RouteState,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What ended the last connection, or kept it from coming up; it stays when the route is up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<FaultClass>,
    /// Records owed, by lane.
    pub live: u64,
    pub backlog: u64,
    pub in_flight: u64,
    /// When the oldest record owed arrived; absent without one, and while its time is not known. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_at: Option<String>,
    /// Why the destination last refused to take a notice of the gateway's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring_refused: Option<String>,
    /// Records the broker took and the receiver has not confirmed, where receipts settle.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unconfirmed: u64,
    /// Why receipts are not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts: Option<String>,
    /// Records that may not go yet, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, u64>,
    /// Dead letters.
    pub dead: u64,
    /// Records settled, by what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tally: BTreeMap<String, u64>,
}

const fn is_zero(n: &u64) -> bool {
    *n == 0
}
