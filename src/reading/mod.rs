//! The vocabulary every room shares: what a reading is, what it is called, whose device made it, when, and under which id.
//!
//! Nothing here does I/O, reads a clock or holds a measured value in binary floating point: a value is a [`Decimal`],
//! exactly as the device sent it, and time is raw until somebody with the clock's [`Anchors`] renders it.

mod decimal;
mod id;
mod metric;
mod metrics;
mod nameplate;
mod record;
mod stream;
mod time;
mod unit;

pub use decimal::Decimal;
pub use id::{ChartId, DeliveryId, Op, Placement, RecordId, SiteKey};
pub use metric::{Component, ComponentRow, Limits, Metric, MetricRow, Modality, Site, Summary};
pub use metrics::METRICS;
pub use nameplate::Nameplate;
pub use record::{
    Body, Class, Event, Exclusion, Flag, Gap, GapReason, NoValue, OutOfRange, Reading, Record, Retraction, Sample, SecurityLevel,
    Value, Waveform, Window, WindowSummary,
};
pub use stream::{DeviceId, ParseDeviceIdError, Seq, StreamKey, SubjectKey, SubjectKeyError, UserIndex};
pub use time::{Anchor, Anchors, BootId, BootMillis, ClockQuality, DeviceTime, Instant, Stamp, Timestamp, WallTime};
pub use unit::Unit;
