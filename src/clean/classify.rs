//! The class of a value, decided once: a reading (measured, out of the device's range, questionable), no value, or nothing
//! that was ever measured on anybody. The digits the device sent are never touched.

use crate::gatt::{Absent, Measured, Number, Numbers, Status};
use crate::reading::{Class, Component, Decimal, Flag, Metric, MetricRow, NoValue, OutOfRange, Unit, Value};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Reading {
        value: Value,
        class: Class,
        flags: Vec<Flag>,
    },
    /// An event, never a reading; it lowers the coverage of a window.
    NoValue(NoValue),
    /// Counted, and nothing else.
    Discard(DiscardReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiscardReason {
    Demo,
    Test,
    ControlSolution,
}

impl DiscardReason {
    pub const fn name(self) -> &'static str {
        match self {
            DiscardReason::Demo => "demo",
            DiscardReason::Test => "test",
            DiscardReason::ControlSolution => "control_solution",
        }
    }
}

/// Demo and test win over everything, what the device says is no value over the number beside it, and a value out of the
/// device's range stays one whatever remarks it carries: the remarks travel as flags.
pub fn classify(measured: &Measured) -> Outcome {
    if let Some(reason) = measured.status.iter().find_map(discard) {
        return Outcome::Discard(reason);
    }
    if let Some(why) = measured.status.iter().find_map(no_value) {
        return Outcome::NoValue(why);
    }
    if let Some(range) = measured.status.iter().find_map(told_out_of_range) {
        let (Numbers::Single(_, unit) | Numbers::Compound(_, unit)) = measured.value;
        let class = Class::OutOfRange(range);
        return Outcome::Reading { value: Value::NoNumber { unit }, class, flags: flags(&measured.status) };
    }
    let row = measured.metric.row();
    let mut flags = flags(&measured.status);
    let (mut value, mut out_of_range) = match &measured.value {
        Numbers::Single(number, unit) => match number {
            Number::Finite(value) => (Value::Number { value: *value, unit: *unit }, None),
            Number::PositiveInfinity | Number::Absent(Absent::Overrun) => {
                (Value::NoNumber { unit: *unit }, Some(OutOfRange::High))
            }
            Number::NegativeInfinity => (Value::NoNumber { unit: *unit }, Some(OutOfRange::Low)),
            Number::NotANumber => return Outcome::NoValue(NoValue::NotANumber),
            Number::NotAtThisResolution => return Outcome::NoValue(NoValue::NotAtThisResolution),
            Number::Reserved | Number::Absent(Absent::Prohibited) => return Outcome::NoValue(NoValue::Reserved),
            Number::Absent(Absent::Unsuccessful) => return Outcome::NoValue(NoValue::Invalid),
            Number::Absent(Absent::Unknown | Absent::Missing) => return Outcome::NoValue(NoValue::Unavailable),
        },
        Numbers::Compound(parts, unit) => {
            let out_of_range = parts.iter().find_map(|(_, number)| infinity(*number));
            if out_of_range.is_none() && !any_needed(parts) {
                return Outcome::NoValue(NoValue::NotANumber);
            }
            let parts = parts.iter().map(|(component, number)| (*component, finite(*number))).collect();
            (Value::Compound { parts, unit: *unit }, out_of_range)
        }
    };
    if implausible(row, &value) && !flags.contains(&Flag::Implausible) {
        flags.push(Flag::Implausible);
    }
    if let Some(range) = pulse_range(measured.metric, &flags) {
        value = Value::NoNumber { unit: unit_of(&value) };
        out_of_range = Some(range);
    }
    let class = match out_of_range {
        Some(range) => Class::OutOfRange(range),
        None if flags.iter().any(|flag| makes_questionable(*flag)) => Class::Questionable,
        None => Class::Measured,
    };
    Outcome::Reading { value, class, flags }
}

fn discard(status: &Status) -> Option<DiscardReason> {
    match status {
        Status::Demo => Some(DiscardReason::Demo),
        Status::Test => Some(DiscardReason::Test),
        Status::ControlSolution => Some(DiscardReason::ControlSolution),
        _ => None,
    }
}

fn no_value(status: &Status) -> Option<NoValue> {
    match status {
        Status::SensorOff => Some(NoValue::SensorOff),
        Status::Unavailable => Some(NoValue::Unavailable),
        Status::Invalid => Some(NoValue::Invalid),
        _ => None,
    }
}

const fn told_out_of_range(status: &Status) -> Option<OutOfRange> {
    match status {
        Status::OutOfRange(range) => Some(*range),
        _ => None,
    }
}

fn flags(status: &[Status]) -> Vec<Flag> {
    let mut flags = Vec::new();
    for status in status {
        if let Status::Flag(flag) = status
            && !flags.contains(flag)
        {
            flags.push(*flag);
        }
    }
    flags
}

const fn infinity(number: Number) -> Option<OutOfRange> {
    match number {
        Number::PositiveInfinity | Number::Absent(Absent::Overrun) => Some(OutOfRange::High),
        Number::NegativeInfinity => Some(OutOfRange::Low),
        _ => None,
    }
}

const fn finite(number: Number) -> Option<Decimal> {
    match number {
        Number::Finite(value) => Some(value),
        _ => None,
    }
}

/// A blood pressure without systolic and diastolic is none: many cuffs never send a mean, and a mean alone is not charted.
fn any_needed(parts: &[(Component, Number)]) -> bool {
    let needed = |component| matches!(component, Component::Systolic | Component::Diastolic);
    parts.iter().any(|(component, number)| needed(*component) && finite(*number).is_some())
}

fn implausible(row: &MetricRow, value: &Value) -> bool {
    let unit = unit_of(value);
    let Some(limits) = row.limits.iter().find(|limits| limits.unit == unit) else { return false };
    let outside = |v: Decimal| v.cmp_value(limits.low).is_lt() || v.cmp_value(limits.high).is_gt();
    match value {
        Value::Number { value, .. } => outside(*value),
        Value::NoNumber { .. } => false,
        Value::Compound { parts, .. } => parts.iter().filter_map(|(_, part)| *part).any(outside),
    }
}

const fn unit_of(value: &Value) -> Unit {
    match value {
        Value::Number { unit, .. } | Value::NoNumber { unit } | Value::Compound { unit, .. } => *unit,
    }
}

/// The range bits of a cuff speak of its pulse and not of the pressure they are sent beside: the pulse is a result without
/// a number, the pressure stands.
fn pulse_range(metric: Metric, flags: &[Flag]) -> Option<OutOfRange> {
    if metric != Metric::PulseRateCuff {
        return None;
    }
    flags.iter().find_map(|flag| match flag {
        Flag::PulseRateAboveRange => Some(OutOfRange::High),
        Flag::PulseRateBelowRange => Some(OutOfRange::Low),
        _ => None,
    })
}

/// Which remarks cast doubt on the number itself. Sources: Pulse Oximeter Service 1.0, Measurement Status and Device and
/// Sensor Status; Blood Pressure Service 1.1, Measurement Status; Heart Rate Service 1.0, Sensor Contact; GSS, Glucose
/// Measurement and CGM Measurement, Sensor Status Annunciation.
///
/// An early estimate counts as doubtful because the oximeter itself calls it preliminary, a non-pulsatile signal because
/// saturation is computed from the pulse. An irregular pulse and low perfusion are findings about the patient.
/// [`Flag::Conflict`] is about the identity of a record and not about its value.
pub(crate) const fn makes_questionable(flag: Flag) -> bool {
    match flag {
        Flag::Implausible
        | Flag::BodyMovement
        | Flag::CuffTooLoose
        | Flag::ImproperPosition
        | Flag::EarlyEstimate
        | Flag::QuestionableMeasurement
        | Flag::CalibrationOngoing
        | Flag::QuestionablePulse
        | Flag::NonpulsatileSignal
        | Flag::ErraticPulse
        | Flag::PoorSignal
        | Flag::InadequateSignal
        | Flag::SignalProcessingIrregular
        | Flag::ExternalInterference
        | Flag::EquipmentMalfunction
        | Flag::SensorDisplaced
        | Flag::InsufficientSample
        | Flag::StripInsertionError
        | Flag::StripTypeIncorrect
        | Flag::SensorTemperatureTooHigh
        | Flag::SensorTemperatureTooLow
        | Flag::ReadInterrupted
        | Flag::SensorMalfunction
        | Flag::SensorTypeIncorrect
        | Flag::DeviceFault
        | Flag::CalibrationRequired
        | Flag::SessionStopped => true,
        Flag::Conflict
        | Flag::IrregularPulse
        | Flag::PulseRateAboveRange
        | Flag::PulseRateBelowRange
        | Flag::MeasurementOngoing
        | Flag::Validated
        | Flag::FullyQualified
        | Flag::FromStorage
        | Flag::LowPerfusion
        | Flag::ContactNotSupported
        | Flag::BatteryLow
        | Flag::TimeFault
        | Flag::AlternateSite
        | Flag::Earlobe
        | Flag::Preprandial
        | Flag::Postprandial
        | Flag::Fasting
        | Flag::Casual
        | Flag::Bedtime
        | Flag::TestedBySelf
        | Flag::TestedByProfessional
        | Flag::TestedByLaboratory
        | Flag::MinorHealthIssues
        | Flag::MajorHealthIssues
        | Flag::DuringMenses
        | Flag::UnderStress
        | Flag::NoHealthIssues
        | Flag::Breakfast
        | Flag::Lunch
        | Flag::Dinner
        | Flag::Snack
        | Flag::Drink
        | Flag::Supper
        | Flag::Brunch
        | Flag::RapidActingInsulin
        | Flag::ShortActingInsulin
        | Flag::IntermediateActingInsulin
        | Flag::LongActingInsulin
        | Flag::PremixedInsulin
        | Flag::DeviceAlert
        | Flag::TimeSyncRequired
        | Flag::CalibrationNotAllowed
        | Flag::CalibrationRecommended
        | Flag::BelowPatientLow
        | Flag::AbovePatientHigh
        | Flag::BelowHypo
        | Flag::AboveHyper
        | Flag::RateOfDecreaseExceeded
        | Flag::RateOfIncreaseExceeded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Modality;

    fn d(text: &str) -> Decimal {
        text.parse().expect("a decimal in a test")
    }

    fn spo2(number: Number, status: &[Status]) -> Measured {
        let value = Numbers::Single(number, Unit::Percent);
        Measured { metric: Metric::Spo2, site: None, modality: Modality::Continuous, value, status: status.to_vec() }
    }

    fn pressure(parts: [Number; 3], status: &[Status]) -> Measured {
        let [systolic, diastolic, mean] = parts;
        let parts = vec![(Component::Systolic, systolic), (Component::Diastolic, diastolic), (Component::Mean, mean)];
        let value = Numbers::Compound(parts, Unit::MillimetreOfMercury);
        Measured { metric: Metric::BloodPressure, site: None, modality: Modality::Spot, value, status: status.to_vec() }
    }

    fn class_of(measured: &Measured) -> Class {
        match classify(measured) {
            Outcome::Reading { class, .. } => class,
            other => panic!("not a reading: {other:?}"),
        }
    }

    #[test]
    fn demo_and_test_values_are_never_readings_whatever_else_is_said() {
        for (status, reason) in [(Status::Demo, DiscardReason::Demo), (Status::Test, DiscardReason::Test)] {
            let all = [Status::SensorOff, Status::Flag(Flag::Validated), status];
            assert_eq!(classify(&spo2(Number::Finite(d("97")), &all)), Outcome::Discard(reason));
            assert_eq!(classify(&spo2(Number::NotANumber, &all)), Outcome::Discard(reason));
        }
    }

    #[test]
    fn what_the_device_calls_no_value_is_an_event_even_beside_a_number() {
        for (status, why) in [
            (Status::SensorOff, NoValue::SensorOff),
            (Status::Unavailable, NoValue::Unavailable),
            (Status::Invalid, NoValue::Invalid),
        ] {
            assert_eq!(classify(&spo2(Number::Finite(d("97")), &[status])), Outcome::NoValue(why));
        }
        for (number, why) in [
            (Number::NotANumber, NoValue::NotANumber),
            (Number::NotAtThisResolution, NoValue::NotAtThisResolution),
            (Number::Reserved, NoValue::Reserved),
            (Number::Absent(Absent::Prohibited), NoValue::Reserved),
            (Number::Absent(Absent::Unsuccessful), NoValue::Invalid),
            (Number::Absent(Absent::Missing), NoValue::Unavailable),
            (Number::Absent(Absent::Unknown), NoValue::Unavailable),
        ] {
            assert_eq!(classify(&spo2(number, &[])), Outcome::NoValue(why));
        }
    }

    #[test]
    fn an_infinity_is_a_result_without_a_number() {
        let high = Outcome::Reading {
            value: Value::NoNumber { unit: Unit::Percent },
            class: Class::OutOfRange(OutOfRange::High),
            flags: vec![Flag::PoorSignal],
        };
        assert_eq!(classify(&spo2(Number::PositiveInfinity, &[Status::Flag(Flag::PoorSignal)])), high);
        assert_eq!(class_of(&spo2(Number::NegativeInfinity, &[])), Class::OutOfRange(OutOfRange::Low));
        assert_eq!(class_of(&spo2(Number::Absent(Absent::Overrun), &[])), Class::OutOfRange(OutOfRange::High));
    }

    #[test]
    fn what_the_device_calls_too_high_is_a_result_without_a_number_whatever_stands_there() {
        for number in [Number::NotANumber, Number::Finite(d("600")), Number::Absent(Absent::Missing)] {
            let status = [Status::OutOfRange(OutOfRange::High), Status::Flag(Flag::BatteryLow)];
            let value = Value::NoNumber { unit: Unit::Percent };
            let (class, flags) = (Class::OutOfRange(OutOfRange::High), vec![Flag::BatteryLow]);
            assert_eq!(classify(&spo2(number, &status)), Outcome::Reading { value, class, flags });
        }
    }

    #[test]
    fn a_compound_keeps_the_parts_it_has() {
        let (sys, dia) = (Number::Finite(d("120")), Number::Finite(d("80")));
        let without_mean = Outcome::Reading {
            value: Value::Compound {
                parts: vec![
                    (Component::Systolic, Some(d("120"))),
                    (Component::Diastolic, Some(d("80"))),
                    (Component::Mean, None),
                ],
                unit: Unit::MillimetreOfMercury,
            },
            class: Class::Measured,
            flags: vec![],
        };
        assert_eq!(classify(&pressure([sys, dia, Number::NotANumber], &[])), without_mean);
        assert_eq!(class_of(&pressure([sys, Number::NotANumber, Number::NotANumber], &[])), Class::Measured);
        let mean_alone = pressure([Number::NotANumber, Number::Reserved, Number::Finite(d("93"))], &[]);
        assert_eq!(classify(&mean_alone), Outcome::NoValue(NoValue::NotANumber));
        let too_high = pressure([Number::PositiveInfinity, dia, Number::NotANumber], &[]);
        assert_eq!(class_of(&too_high), Class::OutOfRange(OutOfRange::High));
        let only_infinite = pressure([Number::NegativeInfinity, Number::NotANumber, Number::NotANumber], &[]);
        assert_eq!(class_of(&only_infinite), Class::OutOfRange(OutOfRange::Low));
    }

    #[test]
    fn an_implausible_value_is_flagged_and_kept_to_the_digit() {
        let low = Outcome::Reading {
            value: Value::Number { value: d("29.9"), unit: Unit::Percent },
            class: Class::Questionable,
            flags: vec![Flag::Implausible],
        };
        assert_eq!(classify(&spo2(Number::Finite(d("29.9")), &[])), low);
        assert_eq!(class_of(&spo2(Number::Finite(d("30.0")), &[])), Class::Measured, "both ends are inside");
        assert_eq!(class_of(&spo2(Number::Finite(d("100")), &[])), Class::Measured);
        let diastolic = pressure([Number::Finite(d("120")), Number::Finite(d("9")), Number::NotANumber], &[]);
        assert_eq!(class_of(&diastolic), Class::Questionable);
    }

    #[test]
    fn limits_are_those_of_the_unit_that_was_sent() {
        let mut temperature = spo2(Number::Finite(d("98.6")), &[]);
        temperature.metric = Metric::BodyTemperature;
        temperature.value = Numbers::Single(Number::Finite(d("98.6")), Unit::DegreeFahrenheit);
        assert_eq!(class_of(&temperature), Class::Measured);
        temperature.value = Numbers::Single(Number::Finite(d("98.6")), Unit::DegreeCelsius);
        assert_eq!(class_of(&temperature), Class::Questionable);
    }

    #[test]
    fn doubt_makes_questionable_and_a_finding_about_the_patient_does_not() {
        let with = |flag| class_of(&spo2(Number::Finite(d("97")), &[Status::Flag(flag)]));
        assert_eq!(with(Flag::SensorDisplaced), Class::Questionable);
        assert_eq!(with(Flag::EarlyEstimate), Class::Questionable);
        assert_eq!(with(Flag::LowPerfusion), Class::Measured);
        assert_eq!(with(Flag::IrregularPulse), Class::Measured);
        assert_eq!(with(Flag::FromStorage), Class::Measured);
    }

    #[test]
    fn the_range_bits_of_a_cuff_speak_of_its_pulse_only() {
        let status = [Status::Flag(Flag::PulseRateAboveRange)];
        let (sys, dia) = (Number::Finite(d("120")), Number::Finite(d("80")));
        assert_eq!(class_of(&pressure([sys, dia, Number::NotANumber], &status)), Class::Measured);
        let value = Numbers::Single(Number::Finite(d("220")), Unit::PerMinute);
        let pulse =
            Measured { metric: Metric::PulseRateCuff, site: None, modality: Modality::Spot, value, status: status.to_vec() };
        let high = Outcome::Reading {
            value: Value::NoNumber { unit: Unit::PerMinute },
            class: Class::OutOfRange(OutOfRange::High),
            flags: vec![Flag::PulseRateAboveRange],
        };
        assert_eq!(classify(&pulse), high);
    }
}
