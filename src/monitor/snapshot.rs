//! What is known at one moment: the input of conditions and board. Facts only, none of them about a patient.

use std::collections::BTreeMap;

use crate::reading::{BootMillis, ClockQuality, DeviceId, Timestamp};

#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub at: BootMillis,
    /// Wall time, while the clock is known.
    pub now: Option<Timestamp>,
    pub uptime_s: u64,
    /// `None`: the collect half does not answer, and nothing is known of what it alone knows.
    pub collect: Option<CollectFacts>,
    /// Of all processes of the gateway.
    pub rss_octets: u64,
    pub cpu_ms: u64,
    pub panics: u64,
    /// Hundredths of a degree Celsius of the hottest sensor, where there is one.
    pub temperature_centi_c: Option<i32>,
    pub certificates: Vec<CertificateFacts>,
    /// Every device and every route of the config.
    pub devices: Vec<DeviceFacts>,
    pub routes: Vec<RouteFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectFacts {
    pub clock: ClockQuality,
    pub adapter_usable: bool,
    /// Of that D-Bus connection that holds most; `None` where the bus does not tell.
    pub match_rules: Option<u32>,
    /// `ok` or `damaged`.
    pub store_damaged: bool,
    /// `ok`, `near_full`, `full` or `read_only`.
    pub disk: &'static str,
    pub degraded: bool,
    pub free_octets: u64,
    pub log_octets: u64,
    pub log_limit_octets: u64,
    pub wal_octets: u64,
    pub head: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    pub name: String,
    pub kind: &'static str,
    pub id: DeviceId,
    /// `None` while the collect half does not answer.
    pub state: Option<&'static str>,
    /// `none`, `bonding`, `bonded`, `refused` or `lost`; `None` while the collect half does not answer.
    pub bond: Option<&'static str>,
    /// It told of itself otherwise than the config says; `None` until it was asked.
    pub mismatch: Option<bool>,
    /// A user's consent code was refused; `None` until one was asked for.
    pub consent_refused: Option<bool>,
    pub silent_after_ms: u64,
    /// Since when it could have been heard in this run.
    pub listened_from: BootMillis,
    /// Its last reading in this run, and its last one in an earlier run.
    pub heard: Option<BootMillis>,
    pub heard_before: Option<Timestamp>,
    pub last_reading_at: Option<Timestamp>,
    pub battery_percent: Option<u8>,
    /// How far its clock is ahead of the gateway's.
    pub clock_offset_s: Option<i64>,
    pub rejected: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFacts {
    pub name: String,
    pub kind: &'static str,
    /// `connecting`, `up`, `waiting`, `down` or `paused`.
    pub state: &'static str,
    /// Class of the last error, while it is not up.
    pub error: Option<String>,
    pub live: u64,
    pub backlog: u64,
    pub oldest_unsent_at: Option<Timestamp>,
    /// Records sent since the store was made.
    pub sent: u64,
    pub held: BTreeMap<String, u64>,
    pub dead: u64,
}

/// A certificate a route uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub route: String,
    /// `own` or `authority`.
    pub of: &'static str,
    pub not_after: Timestamp,
}
