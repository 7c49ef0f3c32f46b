//! What is published of the gateway, a device and a route: JSON, one schema each in docs/schema. The same types read what
//! other gateways publish, of any version: what is not known is passed over, what is missing is absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::condition::{Key, Raised};
use crate::reading::Timestamp;

pub const GATEWAY_SCHEMA: &str = "bedrail.gateway/1";
pub const DEVICE_SCHEMA: &str = "bedrail.device/1";
pub const ROUTE_SCHEMA: &str = "bedrail.route/1";

/// Of a gateway that is `offline` only the first fields are there: nobody looks any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayReport {
    pub schema: String,
    pub gateway: String,
    /// Of the program.
    pub version: String,
    /// `online` or `offline`.
    pub state: String,
    /// Why it is offline: `stopped`, `lost` (it is gone without a word).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When this was put together; absent while the gateway does not know the time.
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// `unsynced`, `rtc` or `ntp`; absent, as all the collect half knows, while that half does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// `ok`, or `damaged` until a person has acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Position of the last record in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_octets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_octets: Option<u64>,
    /// Share of one processor since the last report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_rules: Option<u32>,
    /// Tasks of bedrail that failed by a mistake of ours and were caught.
    #[serde(skip_serializing_if = "is_zero")]
    pub panics: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateReport>,
    /// What is raised now, the worst first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<ListedCondition>>,
    /// Raised beyond those listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_conditions: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskReport {
    pub state: String,
    /// New values wait in memory and are not durable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    pub free_octets: u64,
    pub log_octets: u64,
    pub log_limit_octets: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateReport {
    pub route: String,
    /// `own` or `authority`.
    pub of: String,
    #[serde(with = "time")]
    pub not_after: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedCondition {
    pub name: String,
    /// More is worse; left out at 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl ListedCondition {
    pub fn new(key: &Key, raised: Raised) -> Self {
        let subject = |is_of: bool| is_of.then(|| key.subject.clone());
        Self {
            name: key.name.name().to_owned(),
            level: (raised.level > 1).then_some(raised.level),
            device: subject(key.name.is_of_a_device()),
            route: subject(key.name.is_of_a_route()),
            since: raised.since,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceReport {
    pub schema: String,
    pub gateway: String,
    pub device: String,
    pub kind: String,
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// `waiting`, `connected`, `heard`, `lost`, `bond_lost`; `unknown` while the collect half does not answer.
    pub state: String,
    /// `none`, `bonding`, `bonded`, `refused` or `lost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<String>,
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub last_reading_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub battery_percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_s: Option<i64>,
    /// Values not taken, by why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<String, u64>,
    /// Names of what is raised.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteReport {
    pub schema: String,
    pub gateway: String,
    pub route: String,
    pub kind: String,
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// `connecting`, `up`, `waiting`, `down`, `paused`.
    pub state: String,
    /// Class of the last error, while it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Records owed, by lane.
    pub live: u64,
    pub backlog: u64,
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_at: Option<Timestamp>,
    /// Records sent a minute since the last report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_per_min: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, u64>,
    /// Dead letters.
    pub dead: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// Why a gateway says nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// In the last will: it is gone without a word.
    Lost,
    Stopped,
}

/// The last will, and the message of an orderly end. It claims nothing about devices and routes.
pub fn offline(gateway: &str, why: Absence) -> Vec<u8> {
    let reason = match why {
        Absence::Lost => "lost",
        Absence::Stopped => "stopped",
    };
    octets(&GatewayReport {
        schema: GATEWAY_SCHEMA.to_owned(),
        gateway: gateway.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: "offline".to_owned(),
        reason: Some(reason.to_owned()),
        ..GatewayReport::default()
    })
}

pub(super) fn octets(report: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(report).expect("text and numbers always serialise")
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's shape")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// RFC 3339. A time somebody else wrote that is none is taken as absent.
mod time {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::reading::Timestamp;

    #[allow(clippy::ref_option, reason = "serde's shape")]
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.collect_str(at),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let at = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(at.map(|at| Timestamp(at.as_millisecond())))
    }
}
