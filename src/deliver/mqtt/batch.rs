//! Many records as one message, schema `bedrail.batch/1` (docs/mqtt.md, docs/schema/batch-v1.schema.json): a zstd frame of
//! JSON in which what records of a stream have in common stands once, and each record is a short row.
//!
//! Pure. What a receiver puts together again is, field by field and digit by digit, the record's own payload, but for `lane`
//! and `sent_at`, which are the batch's.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::json::{Components, EventJson, GapJson, RetractionJson, WaveformJson, WindowJson};
use super::render::{Device, Payload, Sources};
use crate::deliver::json::Time;
use crate::deliver::{Item, Lane};
use crate::reading::{Decimal, Timestamp};

pub const SCHEMA: &str = "bedrail.batch/1";
/// MQTT 5 carries it beside the payload; a zstd frame also tells itself by its first four octets.
pub const CONTENT_TYPE: &str = "application/vnd.bedrail.batch.v1+zstd";
/// Eight seconds of a full ward; more compresses no better, and all of it goes again after a broken connection.
pub const MAX_RECORDS: usize = 512;
/// Octets of JSON at most, so that a receiver knows what it may have to hold.
const MAX_TEXT: usize = 256 << 10;
/// Fast enough for a small gateway: higher levels take twice the time for a twentieth of the octets.
const LEVEL: i32 = 3;

/// The batch of these records, all of one lane; `None`: they are too much for one.
pub fn render(items: &[&Item]) -> Option<Vec<u8>> {
    let text = text(items);
    if text.len() > MAX_TEXT {
        return None;
    }
    Some(zstd::bulk::compress(text.as_bytes(), LEVEL).expect("memory suffices for a small text"))
}

#[derive(Serialize)]
struct Header<'a> {
    schema: &'static str,
    gateway: &'a str,
    lane: &'static str,
    sent_at: Option<Time>,
    /// The row before the first.
    seq: u64,
    received_at: Option<Time>,
}

/// Before compression.
pub fn text(items: &[&Item]) -> String {
    let (mut common, mut numbers, mut rows) = (Vec::new(), HashMap::new(), Rows::new(items));
    for item in items {
        let payload = Payload::new(item);
        let (content, measured_by) = (payload.content, payload.measured_by);
        let (received, measured) = (item.received.map(|wall| wall.at), item.measured.wall().map(|wall| wall.at));
        let shared = json(&Common {
            placement: payload.placement,
            version: payload.version,
            op: payload.op,
            kind: payload.kind,
            device: payload.device,
            user: payload.user,
            metric: payload.metric,
            mdc: payload.mdc,
            loinc: payload.loinc,
            site: payload.site,
            modality: payload.modality,
            class: content.class,
            unit: content.unit,
            range: content.range,
            flags: content.flags,
            part: content.part,
            parts: content.parts,
            measured_by,
            measured_uncertainty_ms: payload.measured_uncertainty_ms.filter(|_| measured_by == "arrival"),
            clock: payload.clock,
            stored: payload.stored,
            subject: payload.subject,
            security: payload.security,
        });
        let number = *numbers.entry(shared.clone()).or_insert_with(|| {
            common.push(shared);
            common.len() - 1
        });
        let value = content.value.map(|value| value.0);
        let rest = Rest {
            measured_at: payload.measured_at.filter(|_| received.is_none()),
            sequence: content.sequence,
            components: content.components,
            window: content.window,
            waveform: content.waveform,
            event: content.event,
            gap: content.gap,
            retraction: content.retraction,
            measured_uncertainty_ms: payload.measured_uncertainty_ms.filter(|_| measured_by != "arrival"),
            device_time: payload.device_time,
            sources: payload.sources,
        };
        rows.push(&Row {
            common: number,
            record: &payload.record,
            seq: payload.seq,
            received,
            measured,
            value,
            rest: &json(&rest),
        });
    }
    let header = json(&rows.header);
    let header = header.strip_suffix('}').unwrap_or(&header);
    format!("{header},\"common\":[{}],\"rows\":[{}]}}", common.join(","), rows.text)
}

/// What rows share: everything of a payload that is the same for a stream from one record to the next.
#[derive(Serialize)]
struct Common<'a> {
    placement: String,
    version: u32,
    op: &'static str,
    kind: &'static str,
    device: Option<Device<'a>>,
    user: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mdc: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    loinc: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modality: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<u8>,
    measured_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_uncertainty_ms: Option<u32>,
    clock: &'static str,
    stored: bool,
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security: Option<&'static str>,
}

/// What only some records have.
#[derive(Serialize)]
struct Rest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Components<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<WindowJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waveform: Option<WaveformJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<EventJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retraction: Option<RetractionJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_uncertainty_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Sources>,
}

/// `[common, record, seq, received, measured, value, rest]`: position and time count from the row before, the time of
/// measuring from that of receiving; what is absent at the end is left out.
struct Rows<'a> {
    header: Header<'a>,
    text: String,
    seq: u64,
    received: Option<Timestamp>,
}

impl<'a> Rows<'a> {
    fn new(items: &[&'a Item]) -> Self {
        let first = items.first();
        let seq = first.map_or(0, |item| item.seq.0);
        let received = items.iter().find_map(|item| item.received).map(|wall| wall.at);
        let header = Header {
            schema: SCHEMA,
            gateway: first.map_or("", |item| &item.gateway),
            lane: first.map_or(Lane::Backlog, |item| item.lane).name(),
            sent_at: first.and_then(|item| item.sent).map(Time),
            seq,
            received_at: received.map(Time),
        };
        Self { header, text: String::new(), seq, received }
    }

    fn push(&mut self, row: &Row<'_>) {
        let separator = if self.text.is_empty() { "" } else { "," };
        let seq = i128::from(row.seq) - i128::from(self.seq);
        let received = row.received.zip(self.received).map(|(at, before)| at.0 - before.0);
        let measured = row.measured.zip(row.received).map(|(measured, received)| measured.0 - received.0);
        let rest = Some(row.rest).filter(|rest| *rest != "{}");
        (self.seq, self.received) = (row.seq, row.received.or(self.received));

        let _ = write!(self.text, "{separator}[{},\"{}\",{seq}", row.common, row.record);
        for time in [received, measured] {
            let _ = match time {
                Some(ms) => write!(self.text, ",{ms}"),
                None => write!(self.text, ",null"),
            };
        }
        let _ = match (row.value, rest) {
            (Some(value), None) => write!(self.text, ",{value}"),
            (Some(value), Some(rest)) => write!(self.text, ",{value},{rest}"),
            (None, Some(rest)) => write!(self.text, ",null,{rest}"),
            (None, None) => Ok(()),
        };
        self.text.push(']');
    }
}

struct Row<'a> {
    common: usize,
    record: &'a str,
    seq: u64,
    received: Option<Timestamp>,
    measured: Option<Timestamp>,
    value: Option<Decimal>,
    /// A JSON object.
    rest: &'a str,
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text, integers and decimal digits always serialise")
}
