//! Continuous Glucose Monitoring Service (181F): one or more records a notification, each some minutes after the start of the
//! sensor's session. Without that start a record has no time; [`CgmSession`] gives it one.

use super::crc::{Checked, crc16};
use super::current_time::{add_zone_and_dst, dst_minutes, zone_minutes};
use super::fields::{Names, named_bits};
use super::glucose::Sample;
use super::{
    Cursor, DateTime, Decode, DecodeError, Field, Fields, Measured, Number, Numbers, Observed, Records, Status, Warning,
};
use crate::reading::{Flag, Metric, Modality, OutOfRange, Unit};

const TREND_PRESENT: u32 = 1 << 0;
const QUALITY_PRESENT: u32 = 1 << 1;
const WARNING_PRESENT: u32 = 1 << 5;
const CALIBRATION_PRESENT: u32 = 1 << 6;
const STATUS_PRESENT: u32 = 1 << 7;
const KNOWN_FLAGS: u32 = 0b1110_0011;
/// Size, flags, concentration, time offset: a record can't be shorter, and one that claims to be would never end.
const SHORTEST_RECORD: usize = 6;

/// CGM Measurement (2AA7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgmMeasurement(pub Vec<CgmRecord>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgmRecord {
    pub glucose: Number,
    /// Minutes since the start of the session.
    pub time_offset_min: u16,
    /// The three status octets as one word; `None` where none was sent.
    pub status: Option<u32>,
    /// mg/dL a minute.
    pub trend: Option<Number>,
    pub quality: Option<Number>,
    checked: Checked,
    /// As sent: part of the identity, whatever else the notification carried.
    octets: Vec<u8>,
}

impl Decode for CgmMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let mut records = Vec::new();
        loop {
            records.push(CgmRecord::decode(cursor)?);
            if cursor.left() == 0 {
                return Ok(Self(records));
            }
        }
    }

    fn fields(&self) -> Fields {
        Fields::new().with("records", Field::List(self.0.iter().map(CgmRecord::fields).collect()))
    }
}

impl CgmRecord {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let ahead = cursor.ahead();
        let size = ahead.first().copied().map_or(0, usize::from);
        if size < SHORTEST_RECORD {
            return Err(DecodeError::InvalidLength { field: "record", octets: size });
        }
        let Some(whole) = ahead.get(..size) else {
            return Err(DecodeError::Truncated { field: "record", needed: size, left: ahead.len() });
        };
        let (record, unread) = cursor.within("record", size, |cursor| Self::decode_one(cursor, whole))?;
        if unread > 0 {
            cursor.warn(Warning::TrailingBytes);
        }
        Ok(record)
    }

    /// The status octets are sent in the order of their bits from the top, and only those that say something.
    fn decode_one(cursor: &mut Cursor<'_>, whole: &[u8]) -> Result<Self, DecodeError> {
        cursor.u8("size")?;
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let glucose = cursor.sfloat("glucose")?;
        let time_offset_min = cursor.u16("time_offset")?;
        let mut status = None;
        for (bit, shift) in [(STATUS_PRESENT, 0), (CALIBRATION_PRESENT, 8), (WARNING_PRESENT, 16)] {
            if flags & bit != 0 {
                status = Some(status.unwrap_or(0) | u32::from(cursor.u8("status")?) << shift);
            }
        }
        let status = status.map(|bits| cursor.known_bits(bits, named_bits(STATUS)));
        let trend = (flags & TREND_PRESENT != 0).then(|| cursor.sfloat("trend")).transpose()?;
        let quality = (flags & QUALITY_PRESENT != 0).then(|| cursor.sfloat("quality")).transpose()?;
        let checked = match cursor.left() {
            2 => cursor.crc(&whole[..whole.len() - 2])?,
            _ if cursor.context().e2e_crc => {
                let end = cursor.left().saturating_sub(2);
                cursor.octets("unknown fields", end)?;
                let checked = cursor.crc(&whole[..whole.len().saturating_sub(2)])?;
                cursor.warn(Warning::TrailingBytes);
                checked
            }
            _ => Checked(false),
        };
        Ok(Self { glucose, time_offset_min, status, trend, quality, checked, octets: whole.to_vec() })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new()
            .with("glucose", Field::quantity(self.glucose, Unit::MilligramPerDecilitre))
            .with("time_offset_min", Field::Integer(self.time_offset_min.into()))
            .with_sent("status", self.status.map(|bits| Field::Bits(bits, STATUS)))
            .with_sent("trend", self.trend.map(|trend| Field::quantity(trend, Unit::MilligramPerDecilitrePerMinute)))
            .with_sent("quality", self.quality.map(|quality| Field::quantity(quality, Unit::Percent)));
        self.checked.add_to(fields)
    }

    fn observed(&self) -> Observed {
        let means = STATUS_MEANS.iter().filter(|(bit, _)| self.status.is_some_and(|bits| bits >> bit & 1 != 0));
        let glucose = Measured {
            metric: Metric::GlucoseInterstitial,
            site: None,
            modality: Modality::Continuous,
            value: Numbers::Single(self.glucose, Unit::MilligramPerDecilitre),
            status: means.map(|(_, means)| *means).collect(),
        };
        Observed { values: vec![glucose], octets: Some(self.octets.clone()), ..Observed::default() }
    }
}

impl Records for CgmMeasurement {
    /// Without the start of their session: the minutes alone would name the records of two sessions alike.
    fn records(&self) -> Vec<Observed> {
        self.0.iter().map(CgmRecord::observed).collect()
    }
}

/// The session a sensor is in: what makes minutes a time, and a record one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgmSession(pub CgmSessionStartTime);

impl CgmSession {
    /// The records of a notification with their times, named by session and minute.
    pub fn records(self, measurement: &CgmMeasurement) -> Vec<Observed> {
        let start = self.0.start;
        let of = |record: &CgmRecord| Observed {
            device_time: start.time.and_then(|time| time.plus_minutes(record.time_offset_min.into())),
            base_time: Some(start.octets.to_vec()),
            sequence: Some(record.time_offset_min.into()),
            ..record.observed()
        };
        measurement.0.iter().map(of).collect()
    }
}

/// By octet: status, calibration and temperature, warning.
const STATUS: Names = &[
    (0, "session_stopped"),
    (1, "battery_low"),
    (2, "sensor_type_incorrect"),
    (3, "sensor_malfunction"),
    (4, "device_specific_alert"),
    (5, "general_device_fault"),
    (8, "time_sync_required"),
    (9, "calibration_not_allowed"),
    (10, "calibration_recommended"),
    (11, "calibration_required"),
    (12, "temperature_too_high"),
    (13, "temperature_too_low"),
    (14, "calibration_pending"),
    (16, "below_patient_low"),
    (17, "above_patient_high"),
    (18, "below_hypo"),
    (19, "above_hyper"),
    (20, "rate_of_decrease_exceeded"),
    (21, "rate_of_increase_exceeded"),
    (22, "result_too_low"),
    (23, "result_too_high"),
];

const STATUS_MEANS: &[(u8, Status)] = &[
    (0, Status::Flag(Flag::SessionStopped)),
    (1, Status::Flag(Flag::BatteryLow)),
    (2, Status::Flag(Flag::SensorTypeIncorrect)),
    (3, Status::Flag(Flag::SensorMalfunction)),
    (4, Status::Flag(Flag::DeviceAlert)),
    (5, Status::Flag(Flag::DeviceFault)),
    (8, Status::Flag(Flag::TimeSyncRequired)),
    (9, Status::Flag(Flag::CalibrationNotAllowed)),
    (10, Status::Flag(Flag::CalibrationRecommended)),
    (11, Status::Flag(Flag::CalibrationRequired)),
    (12, Status::Flag(Flag::SensorTemperatureTooHigh)),
    (13, Status::Flag(Flag::SensorTemperatureTooLow)),
    (14, Status::Flag(Flag::CalibrationOngoing)),
    (16, Status::Flag(Flag::BelowPatientLow)),
    (17, Status::Flag(Flag::AbovePatientHigh)),
    (18, Status::Flag(Flag::BelowHypo)),
    (19, Status::Flag(Flag::AboveHyper)),
    (20, Status::Flag(Flag::RateOfDecreaseExceeded)),
    (21, Status::Flag(Flag::RateOfIncreaseExceeded)),
    (22, Status::OutOfRange(OutOfRange::Low)),
    (23, Status::OutOfRange(OutOfRange::High)),
];

const FEATURE: Names = &[
    (0, "calibration"),
    (1, "patient_high_low_alerts"),
    (2, "hypo_alerts"),
    (3, "hyper_alerts"),
    (4, "rate_alerts"),
    (5, "device_specific_alert"),
    (6, "sensor_malfunction"),
    (7, "temperature_high_low"),
    (8, "result_high_low"),
    (9, "low_battery"),
    (10, "sensor_type_error"),
    (11, "general_device_fault"),
    (12, "e2e_crc"),
    (13, "multiple_bonds"),
    (14, "multiple_sessions"),
    (15, "trend"),
    (16, "quality"),
];
const E2E_CRC_SUPPORT: u32 = 1 << 12;
/// What stands in the place of the checksum of a device that has none.
const NO_CRC: u16 = 0xFFFF;

/// CGM Feature (2AA8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgmFeature {
    features: u32,
    sample: Sample,
    checked: Checked,
}

impl CgmFeature {
    /// Whether every other value of this device ends in a checksum.
    pub const fn e2e_crc(self) -> bool {
        self.features & E2E_CRC_SUPPORT != 0
    }
}

impl Decode for CgmFeature {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets = cursor.ahead();
        let features = cursor.u24("features")?;
        let features = cursor.known_bits(features, named_bits(FEATURE));
        let sample = Sample::decode(cursor)?;
        let checked = if features & E2E_CRC_SUPPORT != 0 {
            cursor.crc(&octets[..4])?
        } else {
            if cursor.u16("e2e_crc")? != NO_CRC {
                cursor.warn(Warning::UnexpectedCrcPlaceholder);
            }
            Checked(false)
        };
        Ok(Self { features, sample, checked })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new().with("features", Field::Bits(self.features, FEATURE));
        self.checked.add_to(self.sample.add_to(fields))
    }
}

/// CGM Status (2AA9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgmStatus {
    pub time_offset_min: u16,
    status: u32,
    checked: Checked,
}

impl Decode for CgmStatus {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets = cursor.ahead();
        let time_offset_min = cursor.u16("time_offset")?;
        let status = cursor.u24("status")?;
        let status = cursor.known_bits(status, named_bits(STATUS));
        Ok(Self { time_offset_min, status, checked: cursor.crc_at_end(&octets[..5])? })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new()
            .with("time_offset_min", Field::Integer(self.time_offset_min.into()))
            .with("status", Field::Bits(self.status, STATUS));
        self.checked.add_to(fields)
    }
}

/// CGM Session Start Time (2AAA), on the device's local clock; all zero where nobody told it the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgmSessionStartTime {
    pub start: DateTime,
    pub zone_min: Option<i16>,
    pub dst_min: Option<i16>,
    checked: Checked,
}

impl CgmSessionStartTime {
    /// Whether the sensor waits to be told the time.
    pub fn is_unset(&self) -> bool {
        self.start.octets == [0; 7]
    }

    /// What is written to a sensor that waits for it: nine octets, and a checksum where the device wants one.
    pub fn encode(start: [u8; 7], zone_quarters: i8, dst: u8, e2e_crc: bool) -> Vec<u8> {
        let mut octets = start.to_vec();
        octets.extend([zone_quarters.to_le_bytes()[0], dst]);
        if e2e_crc {
            octets.extend(crc16(&octets).to_le_bytes());
        }
        octets
    }
}

impl Decode for CgmSessionStartTime {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets = cursor.ahead();
        Ok(Self {
            start: cursor.date_time("time")?,
            zone_min: zone_minutes(cursor)?,
            dst_min: dst_minutes(cursor)?,
            checked: cursor.crc_at_end(&octets[..9])?,
        })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new().with("time", self.start.field());
        self.checked.add_to(add_zone_and_dst(fields, self.zone_min, self.dst_min))
    }
}

/// CGM Session Run Time (2AAB): how long a sensor is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgmSessionRunTime {
    pub hours: u16,
    checked: Checked,
}

impl Decode for CgmSessionRunTime {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets = cursor.ahead();
        Ok(Self { hours: cursor.u16("run_time")?, checked: cursor.crc_at_end(&octets[..2])? })
    }

    fn fields(&self) -> Fields {
        self.checked.add_to(Fields::new().with("run_time", Field::Quantity(Number::whole(self.hours), "h")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{Context, read, read_with};

    fn start() -> CgmSessionStartTime {
        read(&[0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x04, 0x00]).expect("a start").0
    }

    #[test]
    fn every_status_bit_with_a_name_means_something() {
        assert_eq!(STATUS_MEANS.iter().fold(0u32, |bits, (bit, _)| bits | 1 << bit), named_bits(STATUS));
    }

    #[test]
    fn the_minutes_of_a_session_name_a_record_only_together_with_its_start() {
        let value: CgmMeasurement = read(&[6, 0, 12, 16, 5, 0, 6, 0, 13, 16, 10, 0]).expect("two records").0;
        for observed in value.records() {
            assert_eq!((observed.sequence, observed.base_time, observed.device_time), (None, None, None));
        }
        let records = CgmSession(start()).records(&value);
        let named: Vec<_> = records.iter().map(|o| (o.sequence, o.device_time.map(|t| t.to_string()))).collect();
        let expected = [(Some(5), "2026-11-23T10:05:00"), (Some(10), "2026-11-23T10:10:00")];
        assert_eq!(named, expected.map(|(sequence, time)| (sequence, Some(time.to_owned()))));
        assert_eq!(records[1].octets.as_deref(), Some(&[6, 0, 13, 16, 10, 0][..]), "each has its own octets");
    }

    #[test]
    fn a_result_the_sensor_calls_too_high_says_so() {
        let value: CgmMeasurement = read(&[7, 0x20, 0x90, 0x01, 5, 0, 0x80]).expect("a record").0;
        assert_eq!(value.records()[0].values[0].status, [Status::OutOfRange(OutOfRange::High)]);
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over_and_the_checksum_still_holds() {
        let mut octets = vec![9, 0, 12, 16, 5, 0, 0xAB];
        octets.extend(crc16(&octets).to_le_bytes());
        let context = Context { e2e_crc: true, ..Context::default() };
        let (_, warnings) = read_with::<CgmMeasurement>(&octets, &context).expect("a record");
        assert_eq!(warnings, [Warning::TrailingBytes]);
        octets[6] ^= 1;
        let error = read_with::<CgmMeasurement>(&octets, &context).expect_err("damaged");
        assert_eq!(error.name(), "crc_mismatch");
    }

    #[test]
    fn a_start_that_is_written_reads_back() {
        let octets = CgmSessionStartTime::encode([0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0], 4, 0, true);
        let context = Context { e2e_crc: true, ..Context::default() };
        let (read_back, _) = read_with::<CgmSessionStartTime>(&octets, &context).expect("what was written");
        assert_eq!((read_back.start, read_back.zone_min, read_back.dst_min), (start().start, Some(60), Some(0)));
        assert!(!read_back.is_unset());
    }
}
