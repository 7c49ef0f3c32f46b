//! What the collect half knows of itself at this moment: answered over its socket, never written to disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::monitor::machine::Process;
use crate::radio::RadioHealth;
use crate::reading::{SecurityLevel, UserIndex};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectStatus {
    pub gateway: String,
    pub version: String,
    pub clock: String,
    pub adapter: AdapterStatus,
    #[serde(default)]
    pub radio: RadioHealth,
    pub devices: Vec<DeviceStatus>,
    /// Last record number in the log.
    pub head: u64,
    pub database_octets: u64,
    pub wal_octets: u64,
    #[serde(default)]
    pub disk: DiskStatus,
    pub store: StoreStatus,
    /// Readings made durable since start, and commits they took.
    pub durable: u64,
    pub commits: u64,
    #[serde(default)]
    pub process: Process,
    /// Boot time in milliseconds at which this half began to listen.
    #[serde(default)]
    pub listened_from_ms: u64,
}

/// Whether there is room, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub state: DiskState,
    /// Why new values wait in memory instead of being durable; absent while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// The ballast file is in place.
    pub ballast: bool,
    pub free_octets: u64,
    /// Of the log file, what is in use, and what it may use now.
    pub live_octets: u64,
    pub limit_octets: u64,
    /// Values that wait in memory, and how many there was no room for even there.
    pub waiting: u64,
    pub dropped: u64,
    /// Records deleted since start, and how many of them a route still owed.
    pub evicted: u64,
    pub evicted_unsettled: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    #[default]
    Ok,
    /// Below `store.free_floor`: the log grows no more.
    NearFull,
    /// The ballast is given away, or a write found no room.
    Full,
    ReadOnly,
    /// Reading, writing or syncing fails: the store is not open.
    Failing,
}

impl DiskState {
    pub const fn name(self) -> &'static str {
        match self {
            DiskState::Ok => "ok",
            DiskState::NearFull => "near_full",
            DiskState::Full => "full",
            DiskState::ReadOnly => "read_only",
            DiskState::Failing => "failing",
        }
    }
}

/// `damaged` until somebody acknowledges what a salvage reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub state: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
}

impl Default for StoreStatus {
    fn default() -> Self {
        Self { state: "ok".to_owned(), detail: Vec::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterStatus {
    pub usable: bool,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Never connected, or heard, since the start.
    #[default]
    Waiting,
    Connected,
    /// It is read by what it advertises, and was heard since the start.
    Heard,
    /// The link is gone and is tried again.
    Lost,
    /// By all signs the device has no bond any more; `detail` says what to do.
    BondLost,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retrieved {
    /// `complete`, `silent`, `refused`, `busy`, `not_writable`, `endless` or `stopped`.
    pub outcome: String,
    pub records: u32,
}

impl DeviceState {
    pub const fn name(self) -> &'static str {
        match self {
            DeviceState::Waiting => "waiting",
            DeviceState::Connected => "connected",
            DeviceState::Heard => "heard",
            DeviceState::Lost => "lost",
            DeviceState::BondLost => "bond_lost",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameplateState {
    Fits,
    /// What it measures is held.
    Differs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub name: String,
    pub kind: String,
    pub address: String,
    pub state: DeviceState,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `none`, `bonding`, `bonded`, `refused` or `lost`.
    #[serde(default)]
    pub bond: String,
    /// How often that changed since the start: who had it paired tells by this what came of it from what was before.
    #[serde(default)]
    pub bond_changes: u64,
    /// What came of asking it for its stored records the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieved: Option<Retrieved>,
    /// What came of opening users' slots, by slot: `granted`, `refused`, `failed`, `no_answer`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consent: BTreeMap<UserIndex, String>,
    /// What came of setting its clock the last time: `right`, `set`, `refused`, `unreadable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_set: Option<String>,
    /// How the link was protected when the last value came over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<SecurityLevel>,
    /// RFC 3339; absent before the first reading and while the clock is unsynced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reading_at: Option<String>,
    /// Boot time in milliseconds of its last reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// How far its clock, as last read, was ahead of the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_s: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery_percent: Option<u8>,
    /// Whether it told of itself what the config wants; absent until it did, or where the config wants nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameplate: Option<NameplateState>,
    /// What it told instead, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// Manufacturer, model, serial number, firmware … as the device states them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub information: BTreeMap<String, String>,
    pub readings: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    /// Values not taken, by why: decoder errors, `demo`, `test`, `unknown_device`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<String, u64>,
    /// What the decoder noticed and let pass, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warnings: BTreeMap<String, u64>,
}
