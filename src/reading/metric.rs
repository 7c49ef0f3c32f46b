//! What is measured, where and in what way, and how a row of the table of metrics reads.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Decimal, METRICS, Unit};

macro_rules! metrics {
    ($($metric:ident),+ $(,)?) => {
        /// What is measured. The order is that of stored frames: a new one goes to the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Metric { $($metric),+ }

        impl Metric {
            pub const ALL: &'static [Metric] = &[$(Metric::$metric),+];
        }
    };
}

metrics! {
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
    BodyHeight,
    BodyMassIndex,
    BodyFatPercent,
    BodyFatFreeMass,
    BodySoftLeanMass,
    BodyWaterMass,
    BasalMetabolism,
    MusclePercent,
    MuscleMass,
    BodyImpedance,
    Hba1c,
    Carbohydrate,
    ExerciseIntensity,
    Medication,
    RespirationRate,
    PeakExpiratoryFlow,
    Fev1,
    Fvc,
    Inr,
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
    pub refid: &'static str,
    pub loinc: &'static str,
}

/// Where on the body a temperature was taken (GSS 3.230, Temperature Type), or what a glucose was measured in (GSS, Glucose
/// Measurement, Type). The order is that of stored frames: a new one goes to the end.
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
    CapillaryWholeBlood,
    CapillaryPlasma,
    VenousWholeBlood,
    VenousPlasma,
    ArterialWholeBlood,
    ArterialPlasma,
    UndeterminedWholeBlood,
    UndeterminedPlasma,
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
        self.term_at(site).0
    }

    /// The reference id of that code.
    pub fn refid_at(self, site: Option<Site>) -> &'static str {
        self.term_at(site).1
    }

    fn term_at(self, site: Option<Site>) -> (u32, &'static str) {
        match (self, site) {
            (Metric::BodyTemperature, Some(site)) => site.temperature_term(),
            (Metric::Glucose, Some(site)) => site.glucose_term(),
            _ => None,
        }
        .unwrap_or((self.row().mdc, self.row().refid))
    }

    /// The LOINC codes of a value: of a glucose they differ by specimen, and by whether its mass or its amount is told.
    pub fn loinc_at(self, site: Option<Site>, unit: Option<Unit>) -> &'static [&'static str] {
        match (self, unit) {
            (Metric::Glucose, Some(Unit::MilligramPerDecilitre)) => glucose_mass(site),
            (Metric::Glucose, Some(Unit::MillimolePerLitre)) => glucose_amount(site),
            (Metric::GlucoseInterstitial, Some(Unit::MilligramPerDecilitre)) => &["99504-3"],
            (Metric::GlucoseInterstitial, Some(Unit::MillimolePerLitre)) => &["105272-9"],
            _ => self.row().loinc,
        }
    }
}

/// Of a glucose in mg/dL.
const fn glucose_mass(site: Option<Site>) -> &'static [&'static str] {
    match site {
        Some(Site::CapillaryWholeBlood) => &["32016-8", "41653-7"],
        Some(Site::CapillaryPlasma) => &["32016-8"],
        Some(Site::VenousPlasma) => &["2345-7"],
        Some(
            Site::VenousWholeBlood
            | Site::ArterialWholeBlood
            | Site::ArterialPlasma
            | Site::UndeterminedWholeBlood
            | Site::UndeterminedPlasma,
        ) => &["2339-0"],
        _ => &[],
    }
}

/// Of a glucose in mmol/L.
const fn glucose_amount(site: Option<Site>) -> &'static [&'static str] {
    match site {
        Some(Site::CapillaryWholeBlood | Site::CapillaryPlasma) => &["14743-9"],
        Some(Site::VenousPlasma) => &["14749-6"],
        Some(
            Site::VenousWholeBlood
            | Site::ArterialWholeBlood
            | Site::ArterialPlasma
            | Site::UndeterminedWholeBlood
            | Site::UndeterminedPlasma,
        ) => &["15074-8"],
        _ => &[],
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
            Site::CapillaryWholeBlood => "capillary_whole_blood",
            Site::CapillaryPlasma => "capillary_plasma",
            Site::VenousWholeBlood => "venous_whole_blood",
            Site::VenousPlasma => "venous_plasma",
            Site::ArterialWholeBlood => "arterial_whole_blood",
            Site::ArterialPlasma => "arterial_plasma",
            Site::UndeterminedWholeBlood => "undetermined_whole_blood",
            Site::UndeterminedPlasma => "undetermined_plasma",
        }
    }

    const fn temperature_term(self) -> Option<(u32, &'static str)> {
        match self {
            Site::Armpit => Some((188_452, "MDC_TEMP_AXILLA")),
            Site::Body => Some((150_364, "MDC_TEMP_BODY")),
            Site::Ear => Some((188_428, "MDC_TEMP_EAR")),
            Site::Finger => Some((188_432, "MDC_TEMP_FINGER")),
            Site::GastroIntestinalTract => Some((188_456, "MDC_TEMP_GIT")),
            Site::Mouth => Some((188_424, "MDC_TEMP_ORAL")),
            Site::Rectum => Some((188_420, "MDC_TEMP_RECT")),
            Site::Toe => Some((188_448, "MDC_TEMP_TOE")),
            Site::Tympanum => Some((150_392, "MDC_TEMP_TYMP")),
            _ => None,
        }
    }

    const fn glucose_term(self) -> Option<(u32, &'static str)> {
        match self {
            Site::CapillaryWholeBlood => Some((160_184, "MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD")),
            Site::CapillaryPlasma => Some((160_188, "MDC_CONC_GLU_CAPILLARY_PLASMA")),
            Site::VenousWholeBlood => Some((160_192, "MDC_CONC_GLU_VENOUS_WHOLEBLOOD")),
            Site::VenousPlasma => Some((160_196, "MDC_CONC_GLU_VENOUS_PLASMA")),
            Site::ArterialWholeBlood => Some((160_200, "MDC_CONC_GLU_ARTERIAL_WHOLEBLOOD")),
            Site::ArterialPlasma => Some((160_204, "MDC_CONC_GLU_ARTERIAL_PLASMA")),
            Site::UndeterminedWholeBlood => Some((160_364, "MDC_CONC_GLU_UNDETERMINED_WHOLEBLOOD")),
            Site::UndeterminedPlasma => Some((160_368, "MDC_CONC_GLU_UNDETERMINED_PLASMA")),
            _ => None,
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
        let rows: Vec<Metric> = METRICS.iter().map(|row| row.metric).collect();
        assert_eq!(rows, Metric::ALL);
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
                assert!(limit.low.cmp_value(limit.high).is_lt(), "{}", row.name);
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
