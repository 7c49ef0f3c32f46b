//! Pulse Oximeter Service (1822): oxygen saturation and pulse, as a spot check or as an ongoing series. The two
//! characteristics look alike and give their flag bits different meanings.

use super::fields::{Names, named_bits};
use super::{Cursor, DateTime, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Status};
use crate::reading::{Flag, Metric, Modality, Unit};

/// PLX Spot-Check Measurement (2A5E).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlxSpotCheckMeasurement {
    pub oximetry: Oximetry,
    pub time: Option<DateTime>,
    pub remarks: Remarks,
    /// The device says that its clock was never set: the time is not one.
    pub clock_not_set: bool,
}

/// PLX Continuous Measurement (2A5F).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlxContinuousMeasurement {
    pub normal: Oximetry,
    pub fast: Option<Oximetry>,
    pub slow: Option<Oximetry>,
    pub remarks: Remarks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oximetry {
    pub spo2: Number,
    pub pulse_rate: Number,
}

/// What both characteristics end with, as far as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remarks {
    measurement_status: Option<u32>,
    device_sensor_status: Option<u32>,
    pub pulse_amplitude_index: Option<Number>,
}

mod spot_flag {
    pub const TIME: u32 = 1 << 0;
    pub const MEASUREMENT_STATUS: u32 = 1 << 1;
    pub const DEVICE_SENSOR_STATUS: u32 = 1 << 2;
    pub const PULSE_AMPLITUDE_INDEX: u32 = 1 << 3;
    pub const CLOCK_NOT_SET: u32 = 1 << 4;
}

impl Decode for PlxSpotCheckMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), 0b1_1111);
        let sent = |bit| flags & bit != 0;
        Ok(Self {
            oximetry: Oximetry::decode(cursor)?,
            time: sent(spot_flag::TIME).then(|| cursor.date_time("time")).transpose()?,
            remarks: Remarks::decode(
                cursor,
                sent(spot_flag::MEASUREMENT_STATUS),
                sent(spot_flag::DEVICE_SENSOR_STATUS),
                sent(spot_flag::PULSE_AMPLITUDE_INDEX),
            )?,
            clock_not_set: sent(spot_flag::CLOCK_NOT_SET),
        })
    }

    fn fields(&self) -> Fields {
        let fields = self.oximetry.add_to(Fields::new(), "spo2", "pulse_rate").with_sent("time", self.time.map(DateTime::field));
        self.remarks.add_to(fields).with("clock_not_set", Field::Bool(self.clock_not_set))
    }
}

impl Measurement for PlxSpotCheckMeasurement {
    fn observed(&self) -> Observed {
        let mut values = self.oximetry.measured(Modality::Spot);
        values.extend(self.remarks.index_measured(Modality::Spot));
        Observed {
            device_time: self.time.and_then(|time| time.time).filter(|_| !self.clock_not_set),
            base_time: self.time.map(|time| time.octets.to_vec()),
            ..self.remarks.observed(values)
        }
    }
}

mod continuous_flag {
    pub const FAST: u32 = 1 << 0;
    pub const SLOW: u32 = 1 << 1;
    pub const MEASUREMENT_STATUS: u32 = 1 << 2;
    pub const DEVICE_SENSOR_STATUS: u32 = 1 << 3;
    pub const PULSE_AMPLITUDE_INDEX: u32 = 1 << 4;
}

impl Decode for PlxContinuousMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), 0b1_1111);
        let sent = |bit| flags & bit != 0;
        Ok(Self {
            normal: Oximetry::decode(cursor)?,
            fast: sent(continuous_flag::FAST).then(|| Oximetry::decode(cursor)).transpose()?,
            slow: sent(continuous_flag::SLOW).then(|| Oximetry::decode(cursor)).transpose()?,
            remarks: Remarks::decode(
                cursor,
                sent(continuous_flag::MEASUREMENT_STATUS),
                sent(continuous_flag::DEVICE_SENSOR_STATUS),
                sent(continuous_flag::PULSE_AMPLITUDE_INDEX),
            )?,
        })
    }

    fn fields(&self) -> Fields {
        let mut fields = self.normal.add_to(Fields::new(), "spo2", "pulse_rate");
        if let Some(fast) = self.fast {
            fields = fast.add_to(fields, "spo2_fast", "pulse_rate_fast");
        }
        if let Some(slow) = self.slow {
            fields = slow.add_to(fields, "spo2_slow", "pulse_rate_slow");
        }
        self.remarks.add_to(fields)
    }
}

impl Measurement for PlxContinuousMeasurement {
    fn observed(&self) -> Observed {
        let mut values = self.normal.measured(Modality::Continuous);
        values.extend(self.fast.into_iter().flat_map(|fast| fast.measured(Modality::Fast)));
        values.extend(self.slow.into_iter().flat_map(|slow| slow.measured(Modality::Slow)));
        values.extend(self.remarks.index_measured(Modality::Continuous));
        self.remarks.observed(values)
    }
}

impl Oximetry {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self { spo2: cursor.sfloat("spo2")?, pulse_rate: cursor.sfloat("pulse_rate")? })
    }

    fn add_to(self, fields: Fields, spo2: &'static str, pulse_rate: &'static str) -> Fields {
        fields
            .with(spo2, Field::quantity(self.spo2, Unit::Percent))
            .with(pulse_rate, Field::quantity(self.pulse_rate, Unit::PerMinute))
    }

    fn measured(self, modality: Modality) -> Vec<Measured> {
        vec![
            measured(Metric::Spo2, modality, self.spo2, Unit::Percent),
            measured(Metric::PulseRateOximeter, modality, self.pulse_rate, Unit::PerMinute),
        ]
    }
}

fn measured(metric: Metric, modality: Modality, number: Number, unit: Unit) -> Measured {
    Measured { metric, site: None, modality, value: Numbers::Single(number, unit), status: Vec::new() }
}

impl Remarks {
    fn decode(cursor: &mut Cursor<'_>, measurement: bool, device: bool, index: bool) -> Result<Self, DecodeError> {
        Ok(Self {
            measurement_status: measurement.then(|| measurement_bits(cursor, "measurement_status")).transpose()?,
            device_sensor_status: device.then(|| device_bits(cursor, "device_sensor_status")).transpose()?,
            pulse_amplitude_index: index.then(|| cursor.sfloat("pulse_amplitude_index")).transpose()?,
        })
    }

    fn add_to(&self, fields: Fields) -> Fields {
        fields
            .with_sent("measurement_status", self.measurement_status.map(|bits| Field::Bits(bits, MEASUREMENT_STATUS)))
            .with_sent("device_sensor_status", self.device_sensor_status.map(|bits| Field::Bits(bits, DEVICE_SENSOR_STATUS)))
            .with_sent("pulse_amplitude_index", self.pulse_amplitude_index.map(|index| Field::quantity(index, Unit::Percent)))
    }

    fn index_measured(&self, modality: Modality) -> Option<Measured> {
        self.pulse_amplitude_index.map(|index| measured(Metric::PulseAmplitudeIndex, modality, index, Unit::Percent))
    }

    /// The status words speak of all that was sent with them.
    fn observed(&self, mut values: Vec<Measured>) -> Observed {
        let status = self.status();
        for value in &mut values {
            value.status.clone_from(&status);
        }
        Observed { values, stored: status.contains(&Status::Flag(Flag::FromStorage)), ..Observed::default() }
    }

    fn status(&self) -> Vec<Status> {
        let mut status = Vec::new();
        for (bits, meanings) in [(self.measurement_status, MEASUREMENT_MEANS), (self.device_sensor_status, DEVICE_SENSOR_MEANS)] {
            let set = |bit: u8| bits.is_some_and(|bits| bits >> bit & 1 != 0);
            for (_, meaning) in meanings.iter().filter(|(bit, _)| set(*bit)) {
                if !status.contains(meaning) {
                    status.push(*meaning);
                }
            }
        }
        status
    }
}

fn measurement_bits(cursor: &mut Cursor<'_>, field: &'static str) -> Result<u32, DecodeError> {
    let bits = cursor.u16(field)?;
    Ok(cursor.known_bits(bits.into(), named_bits(MEASUREMENT_STATUS)))
}

fn device_bits(cursor: &mut Cursor<'_>, field: &'static str) -> Result<u32, DecodeError> {
    let bits = cursor.u24(field)?;
    Ok(cursor.known_bits(bits, named_bits(DEVICE_SENSOR_STATUS)))
}

const MEASUREMENT_STATUS: Names = &[
    (5, "measurement_ongoing"),
    (6, "early_estimated"),
    (7, "validated"),
    (8, "fully_qualified"),
    (9, "from_storage"),
    (10, "demonstration"),
    (11, "testing"),
    (12, "calibration_ongoing"),
    (13, "measurement_unavailable"),
    (14, "questionable_measurement"),
    (15, "invalid_measurement"),
];

const MEASUREMENT_MEANS: &[(u8, Status)] = &[
    (5, Status::Flag(Flag::MeasurementOngoing)),
    (6, Status::Flag(Flag::EarlyEstimate)),
    (7, Status::Flag(Flag::Validated)),
    (8, Status::Flag(Flag::FullyQualified)),
    (9, Status::Flag(Flag::FromStorage)),
    (10, Status::Demo),
    (11, Status::Test),
    (12, Status::Flag(Flag::CalibrationOngoing)),
    (13, Status::Unavailable),
    (14, Status::Flag(Flag::QuestionableMeasurement)),
    (15, Status::Invalid),
];

const DEVICE_SENSOR_STATUS: Names = &[
    (0, "extended_display_update_ongoing"),
    (1, "equipment_malfunction"),
    (2, "signal_processing_irregularity"),
    (3, "inadequate_signal"),
    (4, "poor_signal"),
    (5, "low_perfusion"),
    (6, "erratic_signal"),
    (7, "nonpulsatile_signal"),
    (8, "questionable_pulse"),
    (9, "signal_analysis_ongoing"),
    (10, "sensor_interference"),
    (11, "sensor_unconnected_to_user"),
    (12, "unknown_sensor_connected"),
    (13, "sensor_displaced"),
    (14, "sensor_malfunctioning"),
    (15, "sensor_disconnected"),
];

/// Bits 0, 9 and 12 say nothing about the value. A sensor that is not plugged in is not on a person either.
const DEVICE_SENSOR_MEANS: &[(u8, Status)] = &[
    (1, Status::Flag(Flag::EquipmentMalfunction)),
    (2, Status::Flag(Flag::SignalProcessingIrregular)),
    (3, Status::Flag(Flag::InadequateSignal)),
    (4, Status::Flag(Flag::PoorSignal)),
    (5, Status::Flag(Flag::LowPerfusion)),
    (6, Status::Flag(Flag::ErraticPulse)),
    (7, Status::Flag(Flag::NonpulsatileSignal)),
    (8, Status::Flag(Flag::QuestionablePulse)),
    (10, Status::Flag(Flag::ExternalInterference)),
    (11, Status::SensorOff),
    (13, Status::Flag(Flag::SensorDisplaced)),
    (14, Status::Flag(Flag::EquipmentMalfunction)),
    (15, Status::SensorOff),
];

const FEATURE: Names = &[
    (0, "measurement_status"),
    (1, "device_sensor_status"),
    (2, "storage"),
    (3, "timestamp"),
    (4, "fast"),
    (5, "slow"),
    (6, "pulse_amplitude_index"),
    (7, "multiple_bonds"),
];
const MEASUREMENT_STATUS_SUPPORT: u32 = 1 << 0;
const DEVICE_SENSOR_STATUS_SUPPORT: u32 = 1 << 1;

/// PLX Features (2A60).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlxFeatures {
    features: u32,
    measurement_status: Option<u32>,
    device_sensor_status: Option<u32>,
}

impl Decode for PlxFeatures {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let features = cursor.u16("features")?;
        let features = cursor.known_bits(features.into(), named_bits(FEATURE));
        let sent = |bit| features & bit != 0;
        Ok(Self {
            features,
            measurement_status: sent(MEASUREMENT_STATUS_SUPPORT)
                .then(|| measurement_bits(cursor, "measurement_status_support"))
                .transpose()?,
            device_sensor_status: sent(DEVICE_SENSOR_STATUS_SUPPORT)
                .then(|| device_bits(cursor, "device_sensor_status_support"))
                .transpose()?,
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("features", Field::Bits(self.features, FEATURE))
            .with_sent("measurement_status_support", self.measurement_status.map(|bits| Field::Bits(bits, MEASUREMENT_STATUS)))
            .with_sent(
                "device_sensor_status_support",
                self.device_sensor_status.map(|bits| Field::Bits(bits, DEVICE_SENSOR_STATUS)),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    fn spot(octets: &[u8]) -> Observed {
        read::<PlxSpotCheckMeasurement>(octets).expect("a spot check").0.observed()
    }

    fn continuous(octets: &[u8]) -> Observed {
        read::<PlxContinuousMeasurement>(octets).expect("a continuous value").0.observed()
    }

    #[test]
    fn every_status_bit_with_a_name_is_a_bit_that_means_something_or_says_why_not() {
        let bits = |means: &[(u8, Status)]| means.iter().fold(0u32, |bits, (bit, _)| bits | 1 << bit);
        assert_eq!(bits(MEASUREMENT_MEANS), named_bits(MEASUREMENT_STATUS));
        assert_eq!(bits(DEVICE_SENSOR_MEANS), named_bits(DEVICE_SENSOR_STATUS) & !(1 << 0 | 1 << 9 | 1 << 12));
    }

    #[test]
    fn demonstration_and_test_values_say_so_on_every_number() {
        for (octet, status) in [(0x04, Status::Demo), (0x08, Status::Test), (0x20, Status::Unavailable), (0x80, Status::Invalid)]
        {
            let observed = continuous(&[0x14, 95, 0, 60, 0, 0, octet, 87, 0xF0]);
            assert_eq!(observed.values.len(), 3);
            assert!(observed.values.iter().all(|value| value.status == [status]), "{observed:?}");
        }
    }

    #[test]
    fn fast_and_slow_averages_are_streams_of_their_own() {
        let observed = continuous(&[0x03, 95, 0, 60, 0, 96, 0, 61, 0, 94, 0, 59, 0]);
        let modalities: Vec<_> = observed.values.iter().map(|value| (value.metric, value.modality)).collect();
        let expected = [Modality::Continuous, Modality::Fast, Modality::Slow]
            .map(|modality| [(Metric::Spo2, modality), (Metric::PulseRateOximeter, modality)]);
        assert_eq!(modalities, expected.concat());
    }

    #[test]
    fn a_finger_that_left_the_sensor_is_no_value() {
        let observed = continuous(&[0x08, 95, 0, 60, 0, 0x00, 0x08, 0x00]);
        assert!(observed.values.iter().all(|value| value.status == [Status::SensorOff]));
    }

    #[test]
    fn a_stored_spot_check_is_not_live() {
        let observed = spot(&[0x02, 95, 0, 60, 0, 0x80, 0x02]);
        assert!(observed.stored);
        assert_eq!(observed.values[0].status, [Status::Flag(Flag::Validated), Status::Flag(Flag::FromStorage)]);
        assert!(!spot(&[0x00, 95, 0, 60, 0]).stored);
    }

    #[test]
    fn a_clock_that_was_never_set_gives_no_time_but_keeps_the_identity() {
        let time = [0xEA, 0x07, 0x0B, 0x17, 0x0A, 0x1E, 0x00];
        let value = |flags| spot(&[&[flags, 95, 0, 60, 0][..], &time].concat());
        assert!(value(0x01).device_time.is_some());
        assert_eq!((value(0x11).device_time, value(0x11).base_time.as_deref()), (None, Some(&time[..])));
    }
}
