//! One record as one JSON message, schema `bedrail.record/1` (docs/mqtt.md, docs/schema/record-v1.schema.json).
//!
//! Pure and deterministic: two attempts at the same delivery differ in `lane` and `sent_at` alone. A measured number is
//! written digit by digit as the device sent it; no binary float touches it. Keys come in the order of [`Payload`]'s fields.

use serde::Serialize;

use super::TopicTemplate;
use super::json::{Components, EventJson, GapJson, RetractionJson, WaveformJson, WindowJson};
use crate::deliver::Item;
use crate::deliver::json::{Number, Time};
use crate::reading::{
    Body, Class, ClockQuality, DeviceId, Flag, Op, OutOfRange, Placement, Reading, RecordId, SecurityLevel, StreamKey, Unit,
    Value,
};

pub const SCHEMA: &str = "bedrail.record/1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// What a reading takes, nearly always; more is made room for.
const USUAL_OCTETS: usize = 1_024;

pub fn render(item: &Item, topic: &TopicTemplate) -> Rendered {
    let mut payload = Vec::with_capacity(USUAL_OCTETS);
    serde_json::to_writer(&mut payload, &Payload::new(item)).expect("text, integers and decimal digits always serialise");
    Rendered { topic: topic.topic(item), payload }
}

/// Absent things are left out; the five (and `device`) that are always there are `null` when unknown.
#[derive(Default, Serialize)]
pub(super) struct Payload<'a> {
    pub(super) schema: &'static str,
    pub(super) record: String,
    pub(super) placement: String,
    pub(super) version: u32,
    pub(super) op: &'static str,
    pub(super) chart: String,
    pub(super) lane: &'static str,
    pub(super) seq: u64,
    pub(super) kind: &'static str,
    pub(super) gateway: &'a str,
    pub(super) device: Option<Device<'a>>,
    pub(super) user: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metric: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mdc: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) loinc: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) site: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modality: Option<&'static str>,
    #[serde(flatten)]
    pub(super) content: Content<'a>,
    pub(super) measured_at: Option<Time>,
    pub(super) measured_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) measured_uncertainty_ms: Option<u32>,
    pub(super) received_at: Option<Time>,
    pub(super) clock: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_time: Option<String>,
    pub(super) stored: bool,
    pub(super) sent_at: Option<Time>,
    pub(super) subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) security: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sources: Option<Sources>,
}

/// Beside a window that was chosen to speak for its patient.
#[derive(Serialize)]
pub(super) struct Sources {
    others: Vec<String>,
    disagree: bool,
}

/// What differs by kind.
#[derive(Default, Serialize)]
pub(super) struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) components: Option<Components<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<WindowJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waveform: Option<WaveformJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<EventJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap: Option<GapJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retraction: Option<RetractionJson>,
}

impl<'a> Payload<'a> {
    pub(super) fn new(item: &'a Item) -> Self {
        let (id, placement, version) = identity(item);
        let record = &item.record;
        let op = operation(item);
        let content = match op {
            Op::Put => Content::new(record.stream, &record.body),
            Op::Retract => Content::retract(&record.body),
        };
        let measured = item.measured.wall();
        let clock = measured.or(item.received).map_or(ClockQuality::Unsynced, |wall| wall.quality);
        let security = match (&record.body, op) {
            (Body::Reading(reading), Op::Put) => Some(security(reading.security)),
            _ => None,
        };
        Payload {
            schema: SCHEMA,
            record: id.to_string(),
            placement: placement.to_string(),
            version,
            op: op.name(),
            chart: item.chart.to_string(),
            lane: item.lane.name(),
            seq: item.seq.0,
            kind: record.body.kind(),
            gateway: &item.gateway,
            device: Device::new(item),
            content,
            measured_at: measured.map(|wall| Time(wall.at)),
            measured_by: item.measured.source(),
            measured_uncertainty_ms: measured.map(|wall| wall.uncertainty_ms),
            received_at: item.received.map(|wall| Time(wall.at)),
            clock: clock.name(),
            device_time: record.stamp.device_time.map(|time| time.to_string()),
            stored: record.stamp.stored,
            sent_at: item.sent.map(Time),
            subject: item.subject.as_ref().map(|key| key.as_str()),
            security,
            sources: item.choice.as_ref().map(|choice| Sources {
                others: choice.others.iter().map(ToString::to_string).collect(),
                disagree: choice.sources_disagree,
            }),
            ..Payload::default()
        }
        .of_stream(record.stream, unit(&record.body))
    }

    fn of_stream(mut self, stream: Option<StreamKey>, unit: Option<Unit>) -> Self {
        let Some(stream) = stream else { return self };
        self.user = stream.user;
        self.metric = Some(stream.metric.name());
        self.mdc = Some(stream.metric.mdc_at(stream.site));
        self.loinc = stream.metric.loinc_at(stream.site, unit);
        self.site = stream.site.map(|site| site.name());
        self.modality = Some(stream.modality.name());
        self
    }
}

const fn unit(body: &Body) -> Option<Unit> {
    match body {
        Body::Reading(reading) => match &reading.value {
            Value::Number { unit, .. } | Value::NoNumber { unit } | Value::Compound { unit, .. } => Some(*unit),
        },
        Body::Window(window) => Some(window.unit),
        Body::Waveform(waveform) => Some(waveform.unit),
        Body::Event(_) | Body::Gap(_) | Body::Retraction(_) => None,
    }
}

/// A retraction names what it takes back, so that a receiver finds it under the key it filed it under.
fn identity(item: &Item) -> (RecordId, Placement, u32) {
    match &item.record.body {
        Body::Retraction(retraction) => (retraction.of, retraction.placement, retraction.version),
        _ => (item.record.id, item.placement, item.record.version),
    }
}

fn operation(item: &Item) -> Op {
    if matches!(item.record.body, Body::Retraction(_)) { Op::Retract } else { item.op }
}

impl<'a> Content<'a> {
    fn new(stream: Option<StreamKey>, body: &'a Body) -> Self {
        match body {
            Body::Reading(reading) => Self::reading(stream, reading),
            Body::Window(window) => {
                Content { unit: Some(window.unit.ucum()), window: Some(WindowJson::new(window)), ..Content::default() }
            }
            Body::Waveform(waveform) => {
                Content { unit: Some(waveform.unit.ucum()), waveform: Some(WaveformJson::new(waveform)), ..Content::default() }
            }
            Body::Event(event) => Content { event: Some(EventJson::new(event)), ..Content::default() },
            Body::Gap(gap) => Content { gap: Some(GapJson::new(gap)), ..Content::default() },
            Body::Retraction(_) => Self::retract(body),
        }
    }

    fn reading(stream: Option<StreamKey>, reading: &'a Reading) -> Self {
        let (class, range) = match reading.class {
            Class::Measured => ("measured", None),
            Class::OutOfRange(OutOfRange::Low) => ("out_of_range", Some("low")),
            Class::OutOfRange(OutOfRange::High) => ("out_of_range", Some("high")),
            Class::Questionable => ("questionable", None),
        };
        let (unit, value, components) = match &reading.value {
            Value::Number { value, unit } => (unit, Some(Number(*value)), None),
            Value::NoNumber { unit } => (unit, None, None),
            Value::Compound { parts, unit } => (unit, None, Some(Components { metric: stream.map(|s| s.metric), parts })),
        };
        Content {
            class: Some(class),
            value,
            unit: Some(Unit::ucum(*unit)),
            range,
            components,
            flags: reading.flags.iter().copied().map(Flag::name).collect(),
            sequence: reading.sequence,
            part: Some(reading.part),
            parts: Some(reading.parts),
            ..Content::default()
        }
    }

    fn retract(body: &'a Body) -> Self {
        let retraction = match body {
            Body::Retraction(retraction) => Some(RetractionJson::new(retraction)),
            _ => None,
        };
        Content { retraction, ..Content::default() }
    }
}

/// The gateway's own records have no device.
#[derive(Serialize)]
pub(super) struct Device<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
}

impl<'a> Device<'a> {
    fn new(item: &'a Item) -> Option<Self> {
        if item.record.device == DeviceId::GATEWAY {
            return None;
        }
        let label = item.device.as_ref();
        Some(Device {
            id: item.record.device.to_string(),
            name: label.map(|l| l.name.as_str()),
            kind: label.map(|l| l.kind.as_str()),
        })
    }
}

const fn security(level: SecurityLevel) -> &'static str {
    match level {
        SecurityLevel::Unknown => "unknown",
        SecurityLevel::None => "none",
        SecurityLevel::Encrypted => "encrypted",
        SecurityLevel::Authenticated => "authenticated",
    }
}
