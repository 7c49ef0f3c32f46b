//! The JSON shapes inside a record's payload. Field order is the order on the wire.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::deliver::json::{Number, Time};
use crate::reading::{
    Component, Decimal, Event, Exclusion, Gap, Metric, Retraction, Sample, Seq, Waveform, Window, WindowSummary,
};

/// `{"systolic": {"value": 120, "mdc": 150021, "loinc": "8480-6"}, "mean": null}`
pub(super) struct Components<'a> {
    pub(super) metric: Option<Metric>,
    pub(super) parts: &'a [(Component, Option<Decimal>)],
}

#[derive(Serialize)]
struct ComponentJson {
    value: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    mdc: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loinc: Option<&'static str>,
}

impl Serialize for Components<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.parts.len()))?;
        for (component, value) in self.parts {
            let rows = self.metric.map_or(&[][..], |metric| metric.row().components);
            let row = rows.iter().find(|row| row.component == *component);
            let json = value.map(|value| ComponentJson {
                value: Number(value),
                mdc: row.map(|row| row.mdc),
                loinc: row.map(|row| row.loinc),
            });
            map.serialize_entry(component.name(), &json)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct SampleJson {
    at: Time,
    value: Number,
}

impl SampleJson {
    pub(super) fn new(sample: Sample) -> Self {
        SampleJson { at: Time(sample.at), value: Number(sample.value) }
    }
}

#[derive(Serialize)]
pub(super) struct WindowJson {
    start: Time,
    length_s: u32,
    from: Time,
    to: Time,
    n: u32,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    summary: Option<SummaryJson>,
    coverage: Number,
    excluded: ExcludedJson,
    source: [Seq; 2],
}

#[derive(Serialize)]
#[serde(untagged)]
enum SummaryJson {
    Stats { median: SampleJson, min: SampleJson, max: SampleJson, mean: Number },
    Last { last: SampleJson },
    Counter { increase: Number, resets: u32, last: SampleJson },
}

impl WindowJson {
    pub(super) fn new(window: &Window) -> Self {
        WindowJson {
            start: Time(window.start),
            length_s: window.length_s,
            from: Time(window.from),
            to: Time(window.to),
            n: window.n,
            summary: window.summary.as_ref().map(SummaryJson::new),
            coverage: Number(Decimal::new(window.coverage_permille.into(), -3)),
            excluded: ExcludedJson(window.excluded.clone()),
            source: [window.source.0, window.source.1],
        }
    }
}

impl SummaryJson {
    pub(super) fn new(summary: &WindowSummary) -> Self {
        match *summary {
            WindowSummary::Stats { median, min, max, mean } => SummaryJson::Stats {
                median: SampleJson::new(median),
                min: SampleJson::new(min),
                max: SampleJson::new(max),
                mean: Number(mean),
            },
            WindowSummary::Last { last } => SummaryJson::Last { last: SampleJson::new(last) },
            WindowSummary::Counter { increase, resets, last } => {
                SummaryJson::Counter { increase: Number(increase), resets, last: SampleJson::new(last) }
            }
        }
    }
}

struct ExcludedJson(Vec<(Exclusion, u32)>);

impl Serialize for ExcludedJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(why, count)| (why.name(), count)))
    }
}

#[derive(Serialize)]
pub(super) struct WaveformJson<'a> {
    origin: Number,
    scale: Number,
    period_us: u32,
    samples: &'a [i32],
}

impl<'a> WaveformJson<'a> {
    pub(super) fn new(waveform: &'a Waveform) -> Self {
        WaveformJson {
            origin: Number(waveform.origin),
            scale: Number(waveform.scale),
            period_us: waveform.period_us,
            samples: &waveform.samples,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum EventJson<'a> {
    NoValue { reason: &'static str },
    Condition { name: &'a str, raised: bool, detail: &'a str },
    Discarded { reason: &'a str, count: u32 },
    ClockMoved { by_s: i64, by_bedrail: bool },
}

impl<'a> EventJson<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        match event {
            Event::NoValue(why) => EventJson::NoValue { reason: why.name() },
            Event::Condition { name, raised, detail } => EventJson::Condition { name, raised: *raised, detail },
            Event::Discarded { reason, count } => EventJson::Discarded { reason, count: *count },
            Event::ClockMoved { by_s, by_bedrail } => EventJson::ClockMoved { by_s: *by_s, by_bedrail: *by_bedrail },
        }
    }
}

#[derive(Serialize)]
pub(super) struct GapJson<'a> {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<[Seq; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Time>,
    count: u64,
    routes: &'a [String],
}

impl<'a> GapJson<'a> {
    pub(super) fn new(gap: &'a Gap) -> Self {
        GapJson {
            reason: gap.reason.name(),
            run: gap.run.map(|(first, last)| [first, last]),
            from: gap.from.map(Time),
            to: gap.to.map(Time),
            count: gap.count,
            routes: &gap.routes,
        }
    }
}

#[derive(Serialize)]
pub(super) struct RetractionJson {
    of: String,
    version: u32,
    placement: String,
}

impl RetractionJson {
    pub(super) fn new(retraction: &Retraction) -> Self {
        RetractionJson { of: retraction.of.to_string(), version: retraction.version, placement: retraction.placement.to_string() }
    }
}
