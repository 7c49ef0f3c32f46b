//! One record on its way to one destination: all a renderer may know about it.

use serde::{Deserialize, Serialize};

use crate::reading::{
    Body, ChartId, DeliveryId, DeviceId, Instant, Op, Placement, Record, Retraction, Seq, SubjectKey, Timestamp, WallTime,
};

/// Which of a route's two queues a record travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    Live,
    Backlog,
}

impl Lane {
    pub const fn name(self) -> &'static str {
        match self {
            Lane::Live => "live",
            Lane::Backlog => "backlog",
        }
    }
}

/// How a configured device is called; absent when a device left the config while its records were still on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLabel {
    pub name: String,
    pub kind: String,
}

/// A window that speaks for a patient whom several streams measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub others: Vec<DeviceId>,
    /// Another stream with enough coverage says something else.
    pub sources_disagree: bool,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub seq: Seq,
    pub record: Record,
    pub lane: Lane,
    pub op: Op,
    pub placement: Placement,
    pub chart: ChartId,
    /// The opaque key of the patient, never an identifier.
    pub subject: Option<SubjectKey>,
    pub gateway: String,
    pub device: Option<DeviceLabel>,
    pub measured: Instant,
    pub received: Option<WallTime>,
    /// Time of this attempt; `None` while the gateway's clock is unsynced.
    pub sent: Option<Timestamp>,
    pub choice: Option<Choice>,
}

impl Item {
    pub fn delivery(&self) -> DeliveryId {
        if let Body::Retraction(retraction) = &self.record.body {
            let Retraction { of, version, placement, .. } = retraction;
            return DeliveryId { record: *of, placement: *placement, version: *version, op: Op::Retract };
        }
        DeliveryId { record: self.record.id, placement: self.placement, version: self.record.version, op: self.op }
    }
}
