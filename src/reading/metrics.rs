//! The one table of metrics: code, unit, class and summary are decided here and nowhere else.
//!
//! MDC codes: IEEE 11073-10101 and -10417 by way of the HL7 Personal Health Device guide. LOINC and UCUM: US Core. Every code
//! is held against two tables by `tests/metrics.rs`; one that only memory vouches for is left out. Plausibility limits are
//! bedrail's own, wide enough that only a broken sensor crosses them; they flag, and never drop, clamp or grade a value.

use super::metric::{ComponentRow, Limits, MetricRow};
use super::{Component, Decimal, Metric, Summary, Unit};

const fn limits(unit: Unit, low: i64, high: i64) -> Limits {
    Limits { unit, low: Decimal::new(low, 0), high: Decimal::new(high, 0) }
}

/// For limits that are no whole numbers: both × 10^`exponent`.
const fn limits_at(exponent: i8, unit: Unit, low: i64, high: i64) -> Limits {
    Limits { unit, low: Decimal::new(low, exponent), high: Decimal::new(high, exponent) }
}

const GLUCOSE_LIMITS: &[Limits] =
    &[limits(Unit::MilligramPerDecilitre, 10, 1500), limits_at(-1, Unit::MillimolePerLitre, 5, 840)];

const BLOOD_PRESSURE: &[ComponentRow] = &[
    ComponentRow {
        component: Component::Systolic,
        name: "systolic",
        mdc: 150_021,
        refid: "MDC_PRESS_BLD_NONINV_SYS",
        loinc: "8480-6",
    },
    ComponentRow {
        component: Component::Diastolic,
        name: "diastolic",
        mdc: 150_022,
        refid: "MDC_PRESS_BLD_NONINV_DIA",
        loinc: "8462-4",
    },
    ComponentRow { component: Component::Mean, name: "mean", mdc: 150_023, refid: "MDC_PRESS_BLD_NONINV_MEAN", loinc: "8478-0" },
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
        mdc: 160_020,
        refid: "MDC_CONC_GLU_GEN",
        units: &[Unit::MilligramPerDecilitre, Unit::MillimolePerLitre],
        limits: GLUCOSE_LIMITS,
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
        limits: GLUCOSE_LIMITS,
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyHeight,
        name: "body_height",
        mdc: 188_740,
        refid: "MDC_LEN_BODY_ACTUAL",
        loinc: &["8302-2"],
        units: &[Unit::Metre, Unit::Centimetre, Unit::Inch],
        limits: &[limits_at(-1, Unit::Metre, 2, 28), limits(Unit::Centimetre, 20, 280), limits(Unit::Inch, 8, 110)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyMassIndex,
        name: "bmi",
        mdc: 188_752,
        refid: "MDC_RATIO_MASS_BODY_LEN_SQ",
        loinc: &["39156-5"],
        units: &[Unit::KilogramPerSquareMetre],
        limits: &[limits(Unit::KilogramPerSquareMetre, 5, 150)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyFatPercent,
        name: "body_fat_percent",
        mdc: 188_748,
        refid: "MDC_BODY_FAT",
        loinc: &["41982-0"],
        units: &[Unit::Percent],
        limits: &[limits(Unit::Percent, 1, 90)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyFatFreeMass,
        name: "body_fat_free_mass",
        mdc: 188_756,
        refid: "MDC_MASS_BODY_FAT_FREE",
        units: &[Unit::Kilogram, Unit::Pound],
        limits: &[limits(Unit::Kilogram, 1, 650), limits(Unit::Pound, 1, 1433)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodySoftLeanMass,
        name: "body_soft_lean_mass",
        mdc: 188_760,
        refid: "MDC_MASS_BODY_SOFT_LEAN",
        units: &[Unit::Kilogram, Unit::Pound],
        limits: &[limits(Unit::Kilogram, 1, 650), limits(Unit::Pound, 1, 1433)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyWaterMass,
        name: "body_water_mass",
        mdc: 188_764,
        refid: "MDC_BODY_WATER",
        units: &[Unit::Kilogram, Unit::Pound],
        limits: &[limits(Unit::Kilogram, 1, 650), limits(Unit::Pound, 1, 1433)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BasalMetabolism,
        name: "basal_metabolism",
        mdc: 188_768,
        refid: "MDC_BASAL_METABOLISM",
        units: &[Unit::Kilojoule],
        limits: &[limits(Unit::Kilojoule, 500, 40000)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::MusclePercent,
        name: "muscle_percent",
        mdc: 188_772,
        refid: "MDC_BODY_MUSCLE",
        units: &[Unit::Percent],
        limits: &[limits(Unit::Percent, 1, 100)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::MuscleMass,
        name: "muscle_mass",
        mdc: 188_776,
        refid: "MDC_MASS_BODY_MUSCLE",
        units: &[Unit::Kilogram, Unit::Pound],
        limits: &[limits(Unit::Kilogram, 1, 650), limits(Unit::Pound, 1, 1433)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::BodyImpedance,
        name: "body_impedance",
        mdc: 188_780,
        refid: "MDC_BODY_ELECTRICAL_IMPEDANCE",
        units: &[Unit::Ohm],
        limits: &[limits(Unit::Ohm, 20, 5000)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Hba1c,
        name: "hba1c",
        mdc: 160_220,
        refid: "MDC_CONC_HBA1C",
        loinc: &["4548-4"],
        units: &[Unit::Percent],
        limits: &[limits(Unit::Percent, 2, 25)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Carbohydrate,
        name: "carbohydrate",
        mdc: 8_417_764,
        refid: "MDC_CTXT_GLU_CARB",
        units: &[Unit::Gram],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::ExerciseIntensity,
        name: "exercise_intensity",
        mdc: 8_417_760,
        refid: "MDC_CTXT_GLU_EXERCISE",
        units: &[Unit::Percent],
        limits: &[limits(Unit::Percent, 0, 100)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Medication,
        name: "medication",
        mdc: 8_417_796,
        refid: "MDC_CTXT_MEDICATION",
        units: &[Unit::Milligram, Unit::Millilitre],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::RespirationRate,
        name: "respiration_rate",
        mdc: 151_562,
        refid: "MDC_RESP_RATE",
        loinc: &["9279-1"],
        units: &[Unit::PerMinute],
        limits: &[limits(Unit::PerMinute, 2, 100)],
        summary: Summary::Stats,
        ..PLAIN
    },
    MetricRow {
        metric: Metric::PeakExpiratoryFlow,
        name: "peak_expiratory_flow",
        mdc: 152_584,
        refid: "MDC_FLOW_AWAY_EXP_FORCED_PEAK",
        loinc: &["19935-6"],
        units: &[Unit::LitrePerMinute],
        limits: &[limits(Unit::LitrePerMinute, 20, 1500)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Fev1,
        name: "fev1",
        mdc: 152_586,
        refid: "MDC_VOL_AWAY_EXP_FORCED_1S",
        loinc: &["20150-9"],
        units: &[Unit::Litre],
        limits: &[limits_at(-1, Unit::Litre, 1, 120)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Fvc,
        name: "fvc",
        mdc: 188_928,
        refid: "MDC_VOL_AWAY_EXP_FORCED_CAPACITY",
        loinc: &["19868-9"],
        units: &[Unit::Litre],
        limits: &[limits_at(-1, Unit::Litre, 1, 150)],
        ..PLAIN
    },
    MetricRow {
        metric: Metric::Inr,
        name: "inr",
        mdc: 160_260,
        refid: "MDC_RATIO_INR_COAG",
        loinc: &["34714-6"],
        units: &[Unit::InternationalNormalizedRatio],
        limits: &[limits_at(-1, Unit::InternationalNormalizedRatio, 3, 250)],
        ..PLAIN
    },
];
