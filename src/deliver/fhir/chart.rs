//! How each metric stands in a chart: category, US Core profile, units a chart takes, first the usual one. The codes are those of
//! the one table of metrics. Sources: US Core 9.0.0, FHIR R4 vital signs, Personal Health Device guide 2.0.0.

use std::collections::BTreeMap;

use crate::reading::{Metric, Unit};

/// What a chart files an Observation under (`observation-category`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    VitalSigns,
    Laboratory,
    Exam,
    Activity,
    Procedure,
}

impl Category {
    pub const fn code(self) -> &'static str {
        match self {
            Category::VitalSigns => "vital-signs",
            Category::Laboratory => "laboratory",
            Category::Exam => "exam",
            Category::Activity => "activity",
            Category::Procedure => "procedure",
        }
    }

    pub const fn display(self) -> &'static str {
        match self {
            Category::VitalSigns => "Vital Signs",
            Category::Laboratory => "Laboratory",
            Category::Exam => "Exam",
            Category::Activity => "Activity",
            Category::Procedure => "Procedure",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ChartRow {
    pub metric: Metric,
    /// What a clinician calls it.
    pub text: &'static str,
    pub category: Category,
    /// The last part of the profile's URL.
    pub us_core: Option<&'static str>,
    /// US Core binds the units of vital signs: a height in metres is refused.
    pub units: &'static [Unit],
}

const fn row(
    metric: Metric,
    text: &'static str,
    category: Category,
    us_core: Option<&'static str>,
    units: &'static [Unit],
) -> ChartRow {
    ChartRow { metric, text, category, us_core, units }
}

/// What is not here is never charted: a cuff's pressure while it measures, a battery, what a person ate.
const CHART: &[ChartRow] = &[
    row(Metric::HeartRate, "Heart rate", Category::VitalSigns, Some("us-core-heart-rate"), &[Unit::PerMinute]),
    row(Metric::RrInterval, "RR interval", Category::Procedure, None, &[Unit::Millisecond, Unit::Second]),
    row(Metric::EnergyExpended, "Energy expended", Category::Activity, None, &[Unit::Kilojoule]),
    row(
        Metric::BodyTemperature,
        "Body temperature",
        Category::VitalSigns,
        Some("us-core-body-temperature"),
        &[Unit::DegreeCelsius, Unit::DegreeFahrenheit],
    ),
    row(
        Metric::BloodPressure,
        "Blood pressure",
        Category::VitalSigns,
        Some("us-core-blood-pressure"),
        &[Unit::MillimetreOfMercury],
    ),
    row(Metric::PulseRateCuff, "Pulse rate", Category::VitalSigns, Some("us-core-heart-rate"), &[Unit::PerMinute]),
    row(Metric::Spo2, "Oxygen saturation", Category::VitalSigns, Some("us-core-pulse-oximetry"), &[Unit::Percent]),
    row(Metric::PulseRateOximeter, "Pulse rate", Category::VitalSigns, Some("us-core-heart-rate"), &[Unit::PerMinute]),
    row(Metric::PulseAmplitudeIndex, "Perfusion index", Category::Exam, None, &[Unit::Percent]),
    row(
        Metric::BodyWeight,
        "Body weight",
        Category::VitalSigns,
        Some("us-core-body-weight"),
        &[Unit::Kilogram, Unit::Pound, Unit::Gram],
    ),
    row(Metric::Glucose, "Glucose", Category::Laboratory, Some("us-core-observation-lab"), GLUCOSE),
    row(Metric::GlucoseInterstitial, "Interstitial glucose", Category::Laboratory, Some("us-core-observation-lab"), GLUCOSE),
    row(Metric::BodyHeight, "Body height", Category::VitalSigns, Some("us-core-body-height"), &[Unit::Centimetre, Unit::Inch]),
    row(Metric::BodyMassIndex, "Body mass index", Category::VitalSigns, Some("us-core-bmi"), &[Unit::KilogramPerSquareMetre]),
    row(Metric::BodyFatPercent, "Body fat", Category::Exam, None, &[Unit::Percent]),
    row(Metric::BodyFatFreeMass, "Fat-free mass", Category::Exam, None, MASS),
    row(Metric::BodySoftLeanMass, "Soft lean mass", Category::Exam, None, MASS),
    row(Metric::BodyWaterMass, "Body water mass", Category::Exam, None, MASS),
    row(Metric::BasalMetabolism, "Basal metabolism", Category::Exam, None, &[Unit::Kilojoule]),
    row(Metric::MusclePercent, "Muscle", Category::Exam, None, &[Unit::Percent]),
    row(Metric::MuscleMass, "Muscle mass", Category::Exam, None, MASS),
    row(Metric::BodyImpedance, "Body impedance", Category::Exam, None, &[Unit::Ohm]),
    row(Metric::Hba1c, "HbA1c", Category::Laboratory, Some("us-core-observation-lab"), &[Unit::Percent]),
    row(Metric::RespirationRate, "Respiratory rate", Category::VitalSigns, Some("us-core-respiratory-rate"), &[Unit::PerMinute]),
    row(Metric::PeakExpiratoryFlow, "Peak expiratory flow", Category::Exam, None, &[Unit::LitrePerMinute]),
    row(Metric::Fev1, "FEV1", Category::Exam, None, &[Unit::Litre, Unit::Millilitre]),
    row(Metric::Fvc, "FVC", Category::Exam, None, &[Unit::Litre, Unit::Millilitre]),
    row(
        Metric::Inr,
        "INR",
        Category::Laboratory,
        Some("us-core-observation-lab"),
        &[Unit::InternationalNormalizedRatio, Unit::One],
    ),
];

const GLUCOSE: &[Unit] = &[Unit::MilligramPerDecilitre, Unit::MillimolePerLitre];
const MASS: &[Unit] = &[Unit::Kilogram, Unit::Pound];

/// `None`: it is never charted.
pub fn chart_row(metric: Metric) -> Option<&'static ChartRow> {
    CHART.iter().find(|row| row.metric == metric)
}

/// What a site writes of one metric under `route.map`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charted {
    /// Absent: the device's own where a chart takes it, else the usual one.
    pub unit: Option<Unit>,
    /// Digits behind the point at most.
    pub decimals: Option<u8>,
    /// What a person reads beside the number; it changes neither number nor code.
    pub label: Option<String>,
}

/// By metric; what is not in it is not charted.
pub type ChartMap = BTreeMap<Metric, Charted>;

impl Charted {
    /// The unit a value is told in.
    pub fn unit_for(&self, row: &ChartRow, measured: Unit) -> Unit {
        self.unit.unwrap_or(if row.units.contains(&measured) { measured } else { row.units[0] })
    }
}

/// What a person reads beside the number where the site says nothing.
pub const fn label(unit: Unit) -> &'static str {
    match unit {
        Unit::MillimetreOfMercury => "mmHg",
        Unit::DegreeCelsius => "°C",
        Unit::DegreeFahrenheit => "°F",
        Unit::Pound => "lb",
        Unit::Inch => "in",
        Unit::InternationalNormalizedRatio => "INR",
        other => other.ucum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::converts;
    use crate::reading::METRICS;

    #[test]
    fn whatever_unit_a_device_sends_a_chart_can_take_it() {
        for row in METRICS {
            let Some(chart) = chart_row(row.metric) else { continue };
            for measured in row.units {
                assert!(chart.units.iter().all(|unit| converts(*measured, *unit)), "{}: {}", row.name, measured.ucum());
                assert!(chart.units.contains(&Charted::default().unit_for(chart, *measured)), "{}", row.name);
            }
        }
    }

    #[test]
    fn what_is_no_patients_result_is_never_charted() {
        let without: Vec<_> = METRICS.iter().filter(|row| chart_row(row.metric).is_none()).map(|row| row.name).collect();
        assert_eq!(without, ["cuff_pressure", "battery_level", "carbohydrate", "exercise_intensity", "medication"]);
        assert!(METRICS.iter().filter(|row| row.about_device).all(|row| chart_row(row.metric).is_none()));
    }
}
