//! What the radio tells the collect half. Everything that arrives is stamped here, at the earliest point, with boot time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bond::BondState;
use crate::gatt::Source;
use crate::procedure::{ClockOutcome, ConsentAnswer, Outcome};
use crate::reading::{BootMillis, DeviceId, DeviceTime, Nameplate, SecurityLevel, UserIndex};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RadioEvent {
    Heard(Heard),
    Advertised(Advertised),
    /// The link is up, services are resolved and every wanted characteristic is subscribed.
    Ready {
        device: DeviceId,
    },
    /// The link is gone or could not be made; the radio tries again by itself.
    Lost {
        device: DeviceId,
        reason: String,
    },
    /// What is known of its bond changed.
    Bond {
        device: DeviceId,
        state: BondState,
    },
    /// The device was asked for what it stored.
    Retrieved {
        device: DeviceId,
        outcome: Outcome,
    },
    /// A user's slot was to be opened.
    Consent {
        device: DeviceId,
        user: UserIndex,
        answer: ConsentAnswer,
    },
    /// Its clock was to be set.
    ClockSet {
        device: DeviceId,
        outcome: ClockOutcome,
    },
    /// A fact of the Device Information service, read after connecting.
    Information {
        device: DeviceId,
        field: InformationField,
        text: String,
    },
    /// What a device that was asked told of itself, before it was subscribed to.
    Told {
        device: DeviceId,
        nameplate: Nameplate,
    },
    /// The Bluetooth daemon or the adapter came or went.
    Adapter {
        usable: bool,
        detail: String,
    },
    /// How the radio itself does; told when it changed.
    Health(Box<RadioHealth>),
}

/// What was done to keep values coming, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadioHealth {
    /// Addresses of devices of which a value is overdue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
    /// Rungs taken, by name: `reconnect`, `rescan`, `power_cycle`, `reset`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rungs: BTreeMap<String, u64>,
    /// Rungs that could not be taken, by name: the reset unit is not installed, BlueZ refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
    /// Pings that bluetoothd left unanswered.
    #[serde(default)]
    pub unanswered: u64,
    /// Adapters that hold links, and who waits for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<AdapterLoad>,
    /// Values not taken because their device told far more than any real one does, by its address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flooded: BTreeMap<String, u64>,
    /// Advertisements there was no room for while the writer was busy, by the address of their device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missed_advertisements: BTreeMap<String, u64>,
    /// How often a device was asked to end its link because others waited.
    #[serde(default)]
    pub made_room: u64,
    /// Match rules of that D-Bus connection of ours that holds most; the bus allows 512. Absent where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_rules: Option<u32>,
    /// How often the bus did not tell.
    #[serde(default)]
    pub match_rules_refused: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterLoad {
    /// As BlueZ calls it now: hci0.
    pub adapter: String,
    pub slots: usize,
    pub taken: usize,
    /// Addresses of devices that wait for their turn or for a slot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InformationField {
    Manufacturer,
    Model,
    SerialNumber,
    FirmwareRevision,
    HardwareRevision,
    SoftwareRevision,
}

/// The data of a service or a company in an advertisement, untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub device: DeviceId,
    pub source: Source,
    /// As on the air: those of a company begin with its number.
    pub octets: Vec<u8>,
    pub arrived: BootMillis,
}

/// One characteristic value, untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub device: DeviceId,
    pub characteristic: Uuid,
    pub octets: Vec<u8>,
    pub arrived: BootMillis,
    /// An indication: the device counts it as delivered and will not send it again.
    pub indicated: bool,
    /// The device's clock as read in this connection, where it has one.
    pub device_clock: Option<(DeviceTime, BootMillis)>,
    pub security: SecurityLevel,
    /// What the device told of itself in this connection; `None`: it was not asked.
    pub nameplate: Option<Nameplate>,
}
