//! The one table of metrics: code, unit, class and summary are decided here and nowhere else.
//!
//! MDC codes: IEEE 11073-10101 by way of the HL7 Personal Health Device guide. LOINC and UCUM: US Core vital signs.
//! Plausibility limits are bedrail's own, wide enough that only a broken sensor crosses them; they flag, and never drop,
//! clamp or grade a value.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Decimal, Unit};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    HeartRate,
    RrInterval,
    EnergyExpended,
    BodyTemperature,
    BloodPressure,
    PulseRateCuff,
    CuffPressure,
    Spo2,
    PulseRateOximeter,
    PulseAmplitudeIndex,
    BatteryLevel,
    BodyWeight,
    Glucose,
    GlucoseInterstitial,
}

/// How a stream of values is condensed into a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Summary {
    /// Median (an actual sample), minimum, maximum, mean.
    Stats,
    /// The last sample.
    Last,
    /// The increase, with resets.
    Counter,
    /// Never condensed: every value passes by itself.
    None,
}

/// A part of a compound metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Component {
    Systolic,
    Diastolic,
    Mean,
}

#[derive(Clone, Copy, Debug)]
pub struct ComponentRow {
    pub component: Component,
    pub name: &'static str,
    pub mdc: u32,
    pub loinc: &'static str,
}

/// Where on the body a temperature was taken (GSS 3.230, Temperature Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Site {
    Armpit,
    Body,
    Ear,
    Finger,
    GastroIntestinalTract,
    Mouth,
    Rectum,
    Toe,
    Tympanum,
}

/// In what way a value was obtained; part of the stream, because a spot check and a trend are different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Modality {
    /// One measurement taken on purpose.
    Spot,
    /// A value of an ongoing series.
    Continuous,
    /// Pulse oximetry with short averaging.
    Fast,
    /// Pulse oximetry with long averaging.
    Slow,
    /// Shown while a measurement is still running; never charted.
    Intermediate,
}

/// Plausible span in one unit, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub unit: Unit,
    pub low: Decimal,
    pub high: Decimal,
}

#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    pub metric: Metric,
    /// The name in config, topics, payloads and on the command line.
    pub name: &'static str,
    pub mdc: u32,
    pub refid: &'static str,
    /// LOINC codes, the magic one of the vital-signs profiles included; empty where no checked code exists.
    pub loinc: &'static [&'static str],
    pub units: &'static [Unit],
    pub components: &'static [ComponentRow],
    /// How a continuous stream of it is summarised; any other modality passes value by value.
    pub summary: Summary,
    /// How long one sample of a continuous stream speaks for, in seconds: the basis of a window's coverage.
    pub hold_s: u32,
    pub limits: &'static [Limits],
    /// It is about the device and not about a patient; it never goes to a chart.
    pub about_device: bool,
}

const fn limits(unit: Unit, low: i64, high: i64) -> Limits {
    Limits { unit, low: Decimal::new(low, 0), high: Decimal::new(high, 0) }
}

const BLOOD_PRESSURE: &[ComponentRow] = &[
    ComponentRow { component: Component::Systolic, name: "systolic", mdc: 150_021, loinc: "8480-6" },
    ComponentRow { component: Component::Diastolic, name: "diastolic", mdc: 150_022, loinc: "8462-4" },
    ComponentRow { component: Component::Mean, name: "mean", mdc: 150_023, loinc: "8478-0" },
];

const PLAIN: MetricRow = MetricRow {
    metric: Metric::HeartRate,
    name: "",
    mdc: 0,
    refid: "",
    loinc: &[],
    units: &[],
    components: &[],
    summary: Summary::None,
    hold_s: 10,
    limits: &[],
    about_device: false,
};

/// Every metric bedrail knows, one row each.
pub const METRICS: &[MetricRow] = &[
    MetricRow {
        metric: Metric::HeartRate,
        name: "heart_rate",
        mdc: 147_842,
        refid: "MDC_ECG_HEART_RATE",
        loinc: &["8867-4"],
        units: &[Unit::PerMinute],
        summary: Summary::Stats,
        limits: &[limits(Unit::PerMinute, 15, 300)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::RrInterval,
        name: "rr_interval",
        mdc: 147_240,
        refid: "MDC_ECG_TIME_PD_RR_GL",
        units: &[Unit::Millisecond],
        limits: &[limits(Unit::Millisecond, 150, 6000)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::EnergyExpended,
        name: "energy_expended",
        mdc: 8_454_263,
        refid: "MDC_HF_ENERGY",
        units: &[Unit::Kilojoule],
        summary: Summary::Counter,
        hold_s: 60,
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyTemperature,
        name: "body_temperature",
        mdc: 150_364,
        refid: "MDC_TEMP_BODY",
        loinc: &["8310-5"],
        units: &[Unit::DegreeCelsius, Unit::DegreeFahrenheit],
        summary: Summary::Stats,
        hold_s: 60,
        limits: &[limits(Unit::DegreeCelsius, 25, 45), limits(Unit::DegreeFahrenheit, 77, 113)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BloodPressure,
        name: "blood_pressure",
        mdc: 150_020,
        refid: "MDC_PRESS_BLD_NONINV",
        loinc: &["85354-9"],
        units: &[Unit::MillimetreOfMercury, Unit::Kilopascal],
        components: BLOOD_PRESSURE,
        limits: &[limits(Unit::MillimetreOfMercury, 10, 350), limits(Unit::Kilopascal, 1, 47)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::PulseRateCuff,
        name: "pulse_rate.cuff",
        mdc: 149_546,
        refid: "MDC_PULS_RATE_NON_INV",
        loinc: &["8867-4"],
        units: &[Unit::PerMinute],
        limits: &[limits(Unit::PerMinute, 15, 300)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::CuffPressure,
        name: "cuff_pressure",
        mdc: 150_300,
        refid: "MDC_PRESS_CUFF",
        units: &[Unit::MillimetreOfMercury, Unit::Kilopascal],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Spo2,
        name: "spo2",
        mdc: 150_456,
        refid: "MDC_PULS_OXIM_SAT_O2",
        loinc: &["59408-5", "2708-6"],
        units: &[Unit::Percent],
        summary: Summary::Stats,
        limits: &[limits(Unit::Percent, 30, 100)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::PulseRateOximeter,
        name: "pulse_rate.oximeter",
        mdc: 149_530,
        refid: "MDC_PULS_OXIM_PULS_RATE",
        loinc: &["8867-4"],
        units: &[Unit::PerMinute],
        summary: Summary::Stats,
        limits: &[limits(Unit::PerMinute, 15, 300)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::PulseAmplitudeIndex,
        name: "pulse_amplitude_index",
        mdc: 150_448,
        refid: "MDC_PULS_OXIM_PERF_REL",
        loinc: &["61006-3"],
        units: &[Unit::Percent],
        summary: Summary::Stats,
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BatteryLevel,
        name: "battery_level",
        mdc: 67_996,
        refid: "MDC_ATTR_VAL_BATT_CHARGE",
        units: &[Unit::Percent],
        limits: &[limits(Unit::Percent, 0, 100)],
        about_device: true,
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyWeight,
        name: "body_weight",
        mdc: 188_736,
        refid: "MDC_MASS_BODY_ACTUAL",
        loinc: &["29463-7"],
        units: &[Unit::Kilogram, Unit::Pound],
        limits: &[limits(Unit::Kilogram, 1, 650), limits(Unit::Pound, 1, 1433)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Glucose,
        name: "glucose",
        mdc: 160_184,
        refid: "MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD",
        units: &[Unit::MilligramPerDecilitre, Unit::MillimolePerLitre],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::GlucoseInterstitial,
        name: "glucose.interstitial",
        mdc: 160_212,
        refid: "MDC_CONC_GLU_ISF",
        units: &[Unit::MilligramPerDecilitre, Unit::MillimolePerLitre],
        summary: Summary::Last,
        hold_s: 600,
        ..PLAIN
    },
];

impl Metric {
    pub fn row(self) -> &'static MetricRow {
        METRICS.iter().find(|row| row.metric == self).expect("every metric has a row: every_metric_has_one_row holds it")
    }

    pub fn name(self) -> &'static str {
        self.row().name
    }

    pub fn from_name(name: &str) -> Option<Self> {
        METRICS.iter().find(|row| row.name == name).map(|row| row.metric)
    }

    /// How a stream of this metric is summarised: only a continuous one is, everything else passes one by one.
    pub fn summary(self, modality: Modality) -> Summary {
        match modality {
            Modality::Continuous => self.row().summary,
            _ => Summary::None,
        }
    }

    /// The MDC code of a value, the site included where the nomenclature has one code per site.
    pub fn mdc_at(self, site: Option<Site>) -> u32 {
        match (self, site) {
            (Metric::BodyTemperature, Some(site)) => site.temperature_mdc(),
            _ => self.row().mdc,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Site {
    pub const fn name(self) -> &'static str {
        match self {
            Site::Armpit => "armpit",
            Site::Body => "body",
            Site::Ear => "ear",
            Site::Finger => "finger",
            Site::GastroIntestinalTract => "gi_tract",
            Site::Mouth => "mouth",
            Site::Rectum => "rectum",
            Site::Toe => "toe",
            Site::Tympanum => "tympanum",
        }
    }

    const fn temperature_mdc(self) -> u32 {
        match self {
            Site::Armpit => 188_452,
            Site::Body => 150_364,
            Site::Ear => 188_428,
            Site::Finger => 188_432,
            Site::GastroIntestinalTract => 188_456,
            Site::Mouth => 188_424,
            Site::Rectum => 188_420,
            Site::Toe => 188_448,
            Site::Tympanum => 150_392,
        }
    }
}

impl Modality {
    pub const fn name(self) -> &'static str {
        match self {
            Modality::Spot => "spot",
            Modality::Continuous => "continuous",
            Modality::Fast => "fast",
            Modality::Slow => "slow",
            Modality::Intermediate => "intermediate",
        }
    }
}

impl Component {
    pub const fn name(self) -> &'static str {
        match self {
            Component::Systolic => "systolic",
            Component::Diastolic => "diastolic",
            Component::Mean => "mean",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_has_one_row() {
        let rows: BTreeSet<Metric> = METRICS.iter().map(|row| row.metric).collect();
        assert_eq!(rows.len(), METRICS.len(), "a metric has two rows");
        // A new variant without a row would make `row()` panic in the field: the match below is exhaustive on purpose.
        for metric in rows {
            match metric {
                Metric::HeartRate
                | Metric::RrInterval
                | Metric::EnergyExpended
                | Metric::BodyTemperature
                | Metric::BloodPressure
                | Metric::PulseRateCuff
                | Metric::CuffPressure
                | Metric::Spo2
                | Metric::PulseRateOximeter
                | Metric::PulseAmplitudeIndex
                | Metric::BatteryLevel
                | Metric::BodyWeight
                | Metric::Glucose
                | Metric::GlucoseInterstitial => {}
            }
        }
        assert_eq!(METRICS.len(), 14, "count the variants above and their rows");
    }

    #[test]
    fn names_and_codes_are_unique_and_units_have_limits_of_their_own() {
        let names: BTreeSet<_> = METRICS.iter().map(|row| row.name).collect();
        let codes: BTreeSet<_> = METRICS.iter().map(|row| row.mdc).collect();
        assert_eq!((names.len(), codes.len()), (METRICS.len(), METRICS.len()));
        for row in METRICS {
            assert!(!row.units.is_empty(), "{}", row.name);
            for limit in row.limits {
                assert!(row.units.contains(&limit.unit), "{}", row.name);
            }
        }
    }

    #[test]
    fn only_a_continuous_stream_is_summarised() {
        assert_eq!(Metric::Spo2.summary(Modality::Continuous), Summary::Stats);
        assert_eq!(Metric::Spo2.summary(Modality::Spot), Summary::None);
        assert_eq!(Metric::BloodPressure.summary(Modality::Continuous), Summary::None);
    }
}
