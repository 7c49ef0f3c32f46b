//! One record as one Observation, and what belongs beside it: pure and deterministic. A measured number is written digit by
//! digit, and a converted one by exact decimals: no binary float touches it.

use super::beside::beside;
use super::chart::{ChartMap, ChartRow, Charted, chart_row, label};
use super::device;
use super::resource::{
    ABSENT, ACT_REASON, Annotation, CATEGORY, COINCIDENT_TIME, CodeableConcept, Coding, Effective, Extension, GATEWAY_DEVICE,
    Identifier, LOINC, MDC, MEASUREMENT_STATUS, Meta, Observation, ObservationComponent, PHD, PHD_CATEGORY, Quantity, Reference,
    STATISTICS, SampledData, UCUM, US_CORE, Value as Said,
};
use crate::deliver::json::{Number, Time};
use crate::deliver::{Item, convert};
use crate::reading::{
    Body, Class, Component, Decimal, Flag, Metric, OutOfRange, Reading, Sample, StreamKey, Unit, Value, Waveform, Window,
    WindowSummary,
};

/// What a route wants of all its Observations.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The system of the identifiers: a URI of the site's own.
    pub identifier_system: String,
    /// Not yet seen by anybody: `preliminary` in place of `final`.
    pub preliminary: bool,
    pub map: ChartMap,
    /// Whether profiles are named in `meta.profile`; some servers refuse those they don't know.
    pub us_core: bool,
    pub phd: bool,
    /// Windows with the span they speak for in place of the time of their value. Not of vital signs: R4's rule vs-1 refuses it,
    /// read as it is written.
    pub periods: bool,
    /// Not for care: marked as test data.
    pub test: bool,
    pub waveforms: bool,
    /// What the device said about the measurement, and the meal of a glucose, as Observations beside it.
    pub beside: bool,
    /// The id on the server is ours to give.
    pub own_ids: bool,
}

/// Whom and what the Observation speaks of, found on the server before it is rendered.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// `Patient/…`; never a search.
    pub patient: String,
    pub encounter: Option<String>,
    pub device: DeviceSaid,
    /// The gateway's Device.
    pub gateway: Option<String>,
    /// The Observation in which the device's clock was compared.
    pub clock: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceSaid {
    #[default]
    Omitted,
    Display,
    Contained,
    /// `Device/…`.
    Resource(String),
}

/// How it comes to what the chart has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    First,
    /// In place of an earlier version.
    Later,
}

#[derive(Clone, PartialEq)]
pub struct Rendered {
    pub observation: Observation,
    pub beside: Vec<Observation>,
}

/// Why a record makes no Observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCharted {
    #[error("it is no result of a patient")]
    NoResult,
    #[error("nothing of that time took part in it")]
    Empty,
    #[error("{0} is never charted; leave it out by filter.metrics")]
    NeverCharted(Metric),
    #[error("{0} has no row in route.map; add one, then `bedrail dead-letters retry`")]
    NotMapped(Metric),
    #[error("{0} in {from} can't be told in {to}; correct its unit in route.map, then `bedrail dead-letters retry`", from = .1.ucum(), to = .2.ucum())]
    Unit(Metric, Unit, Unit),
    #[error("it is not known when it was measured")]
    NoTime,
}

impl NotCharted {
    /// Nothing is missing in the chart.
    pub const fn is_nothing(self) -> bool {
        matches!(self, NotCharted::NoResult | NotCharted::Empty)
    }
}

pub fn render(item: &Item, shape: &Shape, to: &References, revision: Revision) -> Result<Rendered, NotCharted> {
    let Some(stream) = item.record.stream else { return Err(NotCharted::NoResult) };
    let chart = Chart::new(item, stream, shape, to)?;
    let observation = match &item.record.body {
        Body::Reading(reading) => chart.reading(reading)?,
        Body::Window(window) => chart.window(window)?,
        Body::Waveform(waveform) if shape.waveforms => chart.waveform(waveform)?,
        Body::Waveform(_) | Body::Event(_) | Body::Gap(_) | Body::Retraction(_) => return Err(NotCharted::NoResult),
    };
    let observation = Observation { status: status(item, shape, revision), ..observation };
    let beside = if shape.beside { beside(item, &observation) } else { vec![] };
    Ok(Rendered { observation, beside })
}

fn status(item: &Item, shape: &Shape, revision: Revision) -> &'static str {
    let early = |flag: &Flag| matches!(flag, Flag::EarlyEstimate | Flag::MeasurementOngoing);
    match (&item.record.body, revision) {
        // Part of it was somebody else's, so it was wrong; what came late only completes it.
        (Body::Window(window), Revision::Later) if !is_whole(window) => "corrected",
        (_, Revision::Later) => "amended",
        (Body::Reading(reading), Revision::First) if reading.flags.iter().any(early) => "preliminary",
        _ if shape.preliminary => "preliminary",
        _ => "final",
    }
}

fn is_whole(window: &Window) -> bool {
    window.from == window.start && window.to == window.start.plus_ms(i64::from(window.length_s) * 1_000)
}

/// What all Observations of one record have in common.
struct Chart<'a> {
    item: &'a Item,
    stream: StreamKey,
    row: &'static ChartRow,
    charted: &'a Charted,
    shape: &'a Shape,
    to: &'a References,
}

impl<'a> Chart<'a> {
    fn new(item: &'a Item, stream: StreamKey, shape: &'a Shape, to: &'a References) -> Result<Self, NotCharted> {
        let row = chart_row(stream.metric).ok_or(NotCharted::NeverCharted(stream.metric))?;
        let charted = shape.map.get(&stream.metric).ok_or(NotCharted::NotMapped(stream.metric))?;
        Ok(Chart { item, stream, row, charted, shape, to })
    }

    fn reading(&self, reading: &Reading) -> Result<Observation, NotCharted> {
        let at = self.item.measured.wall().ok_or(NotCharted::NoTime)?.at;
        let (unit, value, absent, component) = match &reading.value {
            Value::Number { value, unit } => (*unit, Some(self.quantity(*value, *unit)?), None, vec![]),
            Value::NoNumber { unit } => (*unit, None, Some(absent(reading.class)), vec![]),
            Value::Compound { parts, unit } => (*unit, None, None, self.components(parts, *unit, reading.class)?),
        };
        let profile = if component.is_empty() { "PhdNumericObservation" } else { "PhdCompoundNumericObservation" };
        Ok(Observation {
            value: value.map(Said::Quantity),
            data_absent_reason: absent,
            interpretation: interpretation(reading),
            note: self.doubts(reading),
            component,
            ..self.observation(unit, Effective::At(Time(at)), profile)
        })
    }

    /// US Core wants systolic and diastolic, each with a value or the reason why it has none. A mean that a cuff did not tell
    /// is left out: most never tell one.
    fn components(
        &self,
        parts: &[(Component, Option<Decimal>)],
        unit: Unit,
        class: Class,
    ) -> Result<Vec<ObservationComponent>, NotCharted> {
        let untold = parts.iter().filter(|(_, value)| value.is_none()).count();
        let mut components = Vec::with_capacity(parts.len());
        for row in self.stream.metric.row().components {
            let value = parts.iter().find(|(component, _)| *component == row.component).and_then(|(_, value)| *value);
            if value.is_none() && row.component == Component::Mean {
                continue;
            }
            // Where one part alone is missing and the whole is out of range, it is that one.
            let reason = if untold == 1 { class } else { Class::Measured };
            components.push(ObservationComponent {
                code: CodeableConcept { coding: vec![loinc(row.loinc), mdc(row.mdc, row.refid)], text: None },
                value: value.map(|value| self.quantity(value, unit)).transpose()?.map(Said::Quantity),
                data_absent_reason: value.is_none().then(|| absent(reason)),
            });
        }
        Ok(components)
    }

    /// The value of a window is an actual sample, at its own time.
    fn window(&self, window: &Window) -> Result<Observation, NotCharted> {
        let Some(summary) = &window.summary else { return Err(NotCharted::Empty) };
        let (value, at, ends) = match summary {
            WindowSummary::Stats { median, min, max, .. } => {
                (median.value, Some(median.at), vec![("minimum", *min), ("maximum", *max)])
            }
            WindowSummary::Last { last } => (last.value, Some(last.at), vec![]),
            WindowSummary::Counter { increase, .. } => (*increase, None, vec![]),
        };
        let effective = match at {
            Some(at) if !self.shape.periods => Effective::At(Time(at)),
            _ => Effective::Period { start: Time(window.from), end: Time(window.to) },
        };
        let mut component =
            ends.into_iter().map(|(code, sample)| self.statistic(code, sample, window.unit)).collect::<Result<Vec<_>, _>>()?;
        component.push(ObservationComponent {
            code: CodeableConcept::of(STATISTICS, "count", Some("Count")),
            value: Some(Said::Integer(window.n)),
            data_absent_reason: None,
        });
        Ok(Observation {
            value: Some(Said::Quantity(self.quantity(value, window.unit)?)),
            note: self.sources(),
            component,
            ..self.observation(window.unit, effective, "PhdNumericObservation")
        })
    }

    fn statistic(&self, code: &'static str, sample: Sample, unit: Unit) -> Result<ObservationComponent, NotCharted> {
        let display = if code == "minimum" { "Minimum" } else { "Maximum" };
        Ok(ObservationComponent {
            code: CodeableConcept::of(STATISTICS, code, Some(display)),
            value: Some(Said::Quantity(self.quantity(sample.value, unit)?)),
            data_absent_reason: None,
        })
    }

    /// By its MDC code alone: R4 allows no samples under the LOINC code of a vital sign.
    fn waveform(&self, waveform: &Waveform) -> Result<Observation, NotCharted> {
        let at = self.item.measured.wall().ok_or(NotCharted::NoTime)?.at;
        let data: Vec<String> = waveform.samples.iter().map(ToString::to_string).collect();
        let samples = SampledData {
            origin: quantity(waveform.origin, waveform.unit, label(waveform.unit).to_owned()),
            period: Number(trimmed(Decimal::new(waveform.period_us.into(), -3))),
            factor: Number(waveform.scale),
            dimensions: 1,
            data: data.join(" "),
        };
        let plain = self.observation(waveform.unit, Effective::At(Time(at)), "PhdRtsaObservation");
        let of_us_core = |profile: &String| profile.starts_with(US_CORE);
        Ok(Observation {
            meta: Meta { profile: plain.meta.profile.into_iter().filter(|profile| !of_us_core(profile)).collect(), ..plain.meta },
            category: self.categories(super::chart::Category::Procedure),
            code: CodeableConcept { coding: vec![self.mdc()], text: plain.code.text },
            value: Some(Said::Samples(samples)),
            ..plain
        })
    }

    fn observation(&self, unit: Unit, effective: Effective, phd: &str) -> Observation {
        let Chart { item, row, shape, to, .. } = self;
        let loinc_codes = self.stream.metric.loinc_at(self.stream.site, Some(self.charted.unit_for(row, unit)));
        let coding = loinc_codes.iter().copied().map(loinc).chain([self.mdc()]).collect();
        let us_core =
            row.us_core.filter(|_| shape.us_core && !loinc_codes.is_empty()).map(|profile| format!("{US_CORE}{profile}"));
        let phd = self.is_phd().then(|| format!("{PHD}{phd}"));
        let security = Coding { system: ACT_REASON, code: "HTEST".to_owned(), display: Some("test health data") };
        Observation {
            resource_type: "Observation",
            id: shape.own_ids.then(|| item.chart.to_string()),
            meta: Meta {
                profile: us_core.into_iter().chain(phd).collect(),
                security: if shape.test { vec![security] } else { vec![] },
            },
            contained: if to.device == DeviceSaid::Contained { vec![device::sensor(item, Some("device"))] } else { vec![] },
            extension: self.extensions(),
            identifier: vec![Identifier { kind: None, system: shape.identifier_system.clone(), value: item.chart.to_string() }],
            status: "",
            category: self.categories(row.category),
            code: CodeableConcept { coding, text: Some(row.text) },
            subject: Reference::to(&to.patient),
            encounter: to.encounter.as_deref().map(Reference::to),
            effective,
            value: None,
            data_absent_reason: None,
            interpretation: vec![],
            note: vec![],
            device: self.device(),
            derived_from: vec![],
            component: vec![],
        }
    }

    /// The guide for personal devices wants sensor and gateway named by reference.
    fn is_phd(&self) -> bool {
        self.shape.phd && self.to.gateway.is_some() && matches!(self.to.device, DeviceSaid::Contained | DeviceSaid::Resource(_))
    }

    fn extensions(&self) -> Vec<Extension> {
        let gateway = self.to.gateway.as_deref().map(|gateway| (GATEWAY_DEVICE, gateway));
        let clock = self.to.clock.as_deref().map(|clock| (COINCIDENT_TIME, clock));
        let extension = |(url, reference)| Extension { url, value_reference: Reference::to(reference) };
        gateway.into_iter().chain(clock).map(extension).collect()
    }

    fn categories(&self, category: super::chart::Category) -> Vec<CodeableConcept> {
        let usual = CodeableConcept::of(CATEGORY, category.code(), Some(category.display()));
        let phd = self.is_phd().then(|| CodeableConcept::of(PHD_CATEGORY, "phd", None));
        std::iter::once(usual).chain(phd).collect()
    }

    fn device(&self) -> Option<Reference> {
        let display = device::name(self.item);
        match &self.to.device {
            DeviceSaid::Omitted => None,
            DeviceSaid::Display => Some(Reference { reference: None, display: Some(display) }),
            DeviceSaid::Contained => Some(Reference { reference: Some("#device".to_owned()), display: Some(display) }),
            DeviceSaid::Resource(reference) => Some(Reference { reference: Some(reference.clone()), display: Some(display) }),
        }
    }

    fn mdc(&self) -> Coding {
        let StreamKey { metric, site, .. } = self.stream;
        mdc(metric.mdc_at(site), metric.refid_at(site))
    }

    fn quantity(&self, value: Decimal, unit: Unit) -> Result<Quantity, NotCharted> {
        let wanted = self.charted.unit_for(self.row, unit);
        let converted = convert(value, unit, wanted, self.charted.decimals);
        let value = converted.ok_or(NotCharted::Unit(self.stream.metric, unit, wanted))?;
        Ok(quantity(value, wanted, self.charted.label.clone().unwrap_or_else(|| label(wanted).to_owned())))
    }

    /// Why a value is doubted, in the device's words.
    fn doubts(&self, reading: &Reading) -> Vec<Annotation> {
        if reading.class != Class::Questionable {
            return vec![];
        }
        let flags: Vec<&str> = reading.flags.iter().map(|flag| flag.name()).collect();
        vec![Annotation { text: format!("questionable: {}", flags.join(", ")) }]
    }

    /// Of several devices one speaks; the others are named.
    fn sources(&self) -> Vec<Annotation> {
        let Some(choice) = self.item.choice.as_ref().filter(|choice| !choice.others.is_empty()) else { return vec![] };
        let others: Vec<String> = choice.others.iter().map(ToString::to_string).collect();
        let disagree = if choice.sources_disagree { ", which say something else" } else { "" };
        vec![Annotation { text: format!("measured by other devices as well: {}{disagree}", others.join(", ")) }]
    }
}

fn quantity(value: Decimal, unit: Unit, label: String) -> Quantity {
    Quantity { value: Number(value), unit: label, system: UCUM, code: unit.ucum() }
}

/// Without the zeros at its end: a period is no measured value.
fn trimmed(mut value: Decimal) -> Decimal {
    while value.exponent() < 0 && value.mantissa() % 10 == 0 {
        value = Decimal::new(value.mantissa() / 10, value.exponent() + 1);
    }
    value
}

fn loinc(code: &'static str) -> Coding {
    Coding { system: LOINC, code: code.to_owned(), display: None }
}

pub(super) fn mdc(code: u32, refid: &'static str) -> Coding {
    Coding { system: MDC, code: code.to_string(), display: Some(refid) }
}

/// Why there is no number. `error` holds for whatever a device says in place of one.
fn absent(class: Class) -> CodeableConcept {
    let (code, display, text) = match class {
        Class::OutOfRange(OutOfRange::Low) => ("negative-infinity", "Negative Infinity (NINF)", Some("below the device's range")),
        Class::OutOfRange(OutOfRange::High) => {
            ("positive-infinity", "Positive Infinity (PINF)", Some("above the device's range"))
        }
        Class::Measured | Class::Questionable => ("error", "Error", Some("the device told no number")),
    };
    CodeableConcept { text, ..CodeableConcept::of(ABSENT, code, Some(display)) }
}

/// One coding each, as the guide for personal devices wants it. Limits of plausibility never make a value high or low.
fn interpretation(reading: &Reading) -> Vec<CodeableConcept> {
    let mut said = Vec::new();
    if reading.class == Class::Questionable {
        said.push(("questionable", "Questionable"));
    }
    for flag in &reading.flags {
        said.extend(match flag {
            Flag::EarlyEstimate => Some(("early-indication", "Early indication")),
            Flag::MeasurementOngoing => Some(("msmt-ongoing", "Measurement ongoing")),
            Flag::CalibrationOngoing => Some(("calibration-ongoing", "Calibration ongoing")),
            Flag::Validated => Some(("validated-data", "Validated data")),
            _ => None,
        });
    }
    said.into_iter().map(|(code, display)| CodeableConcept::of(MEASUREMENT_STATUS, code, Some(display))).collect()
}
