//! What the log holds. A record is immutable: a correction is a new record with the same id and the next version.
//!
//! These types are the body of a stored frame (see `store::frame`): changing a field is a new frame format version. What may
//! be there or not is kept beside the records instead, and skipped here.

use serde::{Deserialize, Serialize};

use super::{Component, Decimal, DeviceId, Nameplate, RecordId, Seq, Stamp, StreamKey, Timestamp, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: RecordId,
    /// From 1; a correction or an amended window is the next.
    pub version: u32,
    /// The device it is about; [`DeviceId::GATEWAY`] for the gateway's own events.
    pub device: DeviceId,
    /// The stream it belongs to: every reading, window and waveform has one, events and gaps may.
    pub stream: Option<StreamKey>,
    pub stamp: Stamp,
    pub body: Body,
    /// What the device told of itself in the connection it came over; `None`: it was not asked, or it is no device's word.
    #[serde(skip)]
    pub nameplate: Option<Nameplate>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    Reading(Reading),
    Window(Window),
    Waveform(Waveform),
    Event(Event),
    Gap(Gap),
    Retraction(Retraction),
}

impl Body {
    pub const fn kind(&self) -> &'static str {
        match self {
            Body::Reading(_) => "reading",
            Body::Window(_) => "window",
            Body::Waveform(_) => "waveform",
            Body::Event(_) => "event",
            Body::Gap(_) => "gap",
            Body::Retraction(_) => "retraction",
        }
    }
}

/// A measured value of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    pub value: Value,
    pub class: Class,
    pub flags: Vec<Flag>,
    /// The device's own record number, where it sends one.
    pub sequence: Option<u32>,
    /// Which of the readings of one characteristic value this is, and of how many: what belongs together stays together.
    pub part: u8,
    pub parts: u8,
    pub security: SecurityLevel,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    Number {
        value: Decimal,
        unit: Unit,
    },
    /// Out of the device's range: a result without a number.
    NoNumber {
        unit: Unit,
    },
    /// A compound; a part the device could not tell is `None`, all the others stand.
    Compound {
        parts: Vec<(Component, Option<Decimal>)>,
        unit: Unit,
    },
}

/// The class of a reading. A fourth case, "no value", is an [`Event`] and never a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    Measured,
    OutOfRange(OutOfRange),
    /// Sent flagged, or held, by route.
    Questionable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutOfRange {
    Low,
    High,
}

/// What the device, or bedrail's plausibility limits, said about a value. Names are those of the payload; the order is that of
/// stored frames: a new one goes to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Outside bedrail's plausibility limits.
    Implausible,
    /// The device re-used an identity with other octets.
    Conflict,
    BodyMovement,
    CuffTooLoose,
    IrregularPulse,
    ImproperPosition,
    PulseRateAboveRange,
    PulseRateBelowRange,
    EarlyEstimate,
    MeasurementOngoing,
    Validated,
    FullyQualified,
    FromStorage,
    QuestionableMeasurement,
    CalibrationOngoing,
    QuestionablePulse,
    NonpulsatileSignal,
    ErraticPulse,
    LowPerfusion,
    PoorSignal,
    InadequateSignal,
    SignalProcessingIrregular,
    ExternalInterference,
    EquipmentMalfunction,
    SensorDisplaced,
    ContactNotSupported,
    BatteryLow,
    InsufficientSample,
    StripInsertionError,
    StripTypeIncorrect,
    SensorTemperatureTooHigh,
    SensorTemperatureTooLow,
    ReadInterrupted,
    TimeFault,
    AlternateSite,
    Earlobe,
    Preprandial,
    Postprandial,
    Fasting,
    Casual,
    Bedtime,
    TestedBySelf,
    TestedByProfessional,
    TestedByLaboratory,
    MinorHealthIssues,
    MajorHealthIssues,
    DuringMenses,
    UnderStress,
    NoHealthIssues,
    Breakfast,
    Lunch,
    Dinner,
    Snack,
    Drink,
    Supper,
    Brunch,
    RapidActingInsulin,
    ShortActingInsulin,
    IntermediateActingInsulin,
    LongActingInsulin,
    PremixedInsulin,
    SensorMalfunction,
    SensorTypeIncorrect,
    DeviceAlert,
    DeviceFault,
    TimeSyncRequired,
    CalibrationNotAllowed,
    CalibrationRecommended,
    CalibrationRequired,
    BelowPatientLow,
    AbovePatientHigh,
    BelowHypo,
    AboveHyper,
    RateOfDecreaseExceeded,
    RateOfIncreaseExceeded,
    SessionStopped,
}

impl Flag {
    pub const fn name(self) -> &'static str {
        match self {
            Flag::Implausible => "implausible",
            Flag::Conflict => "conflict",
            Flag::BodyMovement => "body_movement",
            Flag::CuffTooLoose => "cuff_too_loose",
            Flag::IrregularPulse => "irregular_pulse",
            Flag::ImproperPosition => "improper_position",
            Flag::PulseRateAboveRange => "pulse_rate_above_range",
            Flag::PulseRateBelowRange => "pulse_rate_below_range",
            Flag::EarlyEstimate => "early_estimate",
            Flag::MeasurementOngoing => "measurement_ongoing",
            Flag::Validated => "validated",
            Flag::FullyQualified => "fully_qualified",
            Flag::FromStorage => "from_storage",
            Flag::QuestionableMeasurement => "questionable_measurement",
            Flag::CalibrationOngoing => "calibration_ongoing",
            Flag::QuestionablePulse => "questionable_pulse",
            Flag::NonpulsatileSignal => "nonpulsatile_signal",
            Flag::ErraticPulse => "erratic_pulse",
            Flag::LowPerfusion => "low_perfusion",
            Flag::PoorSignal => "poor_signal",
            Flag::InadequateSignal => "inadequate_signal",
            Flag::SignalProcessingIrregular => "signal_processing_irregular",
            Flag::ExternalInterference => "external_interference",
            Flag::EquipmentMalfunction => "equipment_malfunction",
            Flag::SensorDisplaced => "sensor_displaced",
            Flag::ContactNotSupported => "contact_not_supported",
            Flag::BatteryLow => "battery_low",
            Flag::InsufficientSample => "insufficient_sample",
            Flag::StripInsertionError => "strip_insertion_error",
            Flag::StripTypeIncorrect => "strip_type_incorrect",
            Flag::SensorTemperatureTooHigh => "sensor_temperature_too_high",
            Flag::SensorTemperatureTooLow => "sensor_temperature_too_low",
            Flag::ReadInterrupted => "read_interrupted",
            Flag::TimeFault => "time_fault",
            Flag::AlternateSite => "alternate_site",
            Flag::Earlobe => "earlobe",
            Flag::Preprandial => "preprandial",
            Flag::Postprandial => "postprandial",
            Flag::Fasting => "fasting",
            Flag::Casual => "casual",
            Flag::Bedtime => "bedtime",
            Flag::TestedBySelf => "tested_by_self",
            Flag::TestedByProfessional => "tested_by_professional",
            Flag::TestedByLaboratory => "tested_by_laboratory",
            Flag::MinorHealthIssues => "minor_health_issues",
            Flag::MajorHealthIssues => "major_health_issues",
            Flag::DuringMenses => "during_menses",
            Flag::UnderStress => "under_stress",
            Flag::NoHealthIssues => "no_health_issues",
            Flag::Breakfast => "breakfast",
            Flag::Lunch => "lunch",
            Flag::Dinner => "dinner",
            Flag::Snack => "snack",
            Flag::Drink => "drink",
            Flag::Supper => "supper",
            Flag::Brunch => "brunch",
            Flag::RapidActingInsulin => "rapid_acting_insulin",
            Flag::ShortActingInsulin => "short_acting_insulin",
            Flag::IntermediateActingInsulin => "intermediate_acting_insulin",
            Flag::LongActingInsulin => "long_acting_insulin",
            Flag::PremixedInsulin => "premixed_insulin",
            Flag::SensorMalfunction => "sensor_malfunction",
            Flag::SensorTypeIncorrect => "sensor_type_incorrect",
            Flag::DeviceAlert => "device_alert",
            Flag::DeviceFault => "device_fault",
            Flag::TimeSyncRequired => "time_sync_required",
            Flag::CalibrationNotAllowed => "calibration_not_allowed",
            Flag::CalibrationRecommended => "calibration_recommended",
            Flag::CalibrationRequired => "calibration_required",
            Flag::BelowPatientLow => "below_patient_low",
            Flag::AbovePatientHigh => "above_patient_high",
            Flag::BelowHypo => "below_hypo",
            Flag::AboveHyper => "above_hyper",
            Flag::RateOfDecreaseExceeded => "rate_of_decrease_exceeded",
            Flag::RateOfIncreaseExceeded => "rate_of_increase_exceeded",
            Flag::SessionStopped => "session_stopped",
        }
    }
}

/// How the link was protected when the value came over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityLevel {
    #[default]
    Unknown,
    None,
    Encrypted,
    Authenticated,
}

/// One sample inside a window: an actual value, at its own resolution and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at: Timestamp,
    pub value: Decimal,
}

/// A stream condensed over a span aligned to UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Start of the slot, a multiple of its length.
    pub start: Timestamp,
    pub length_s: u32,
    /// The part of the slot this window speaks for: the whole of it, unless an assignment edge cut it.
    pub from: Timestamp,
    pub to: Timestamp,
    /// Values that took part.
    pub n: u32,
    pub unit: Unit,
    /// `None` when nothing took part and only exclusions were counted.
    pub summary: Option<WindowSummary>,
    /// How much of `from`..`to` the values speak for, in thousandths.
    pub coverage_permille: u16,
    pub excluded: Vec<(Exclusion, u32)>,
    /// First and last record it was made from.
    pub source: (Seq, Seq),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowSummary {
    /// The median is the lower one, an actual sample.
    Stats {
        median: Sample,
        min: Sample,
        max: Sample,
        mean: Decimal,
    },
    Last {
        last: Sample,
    },
    /// Increase over the window, a fall of the counter taken as a restart from zero.
    Counter {
        increase: Decimal,
        resets: u32,
        last: Sample,
    },
}

/// Why a value did not take part in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    NoValue,
    OutOfRange,
    Questionable,
    /// It came from another device than the config names.
    DeviceMismatch,
}

impl Exclusion {
    pub const fn name(self) -> &'static str {
        match self {
            Exclusion::NoValue => "no_value",
            Exclusion::OutOfRange => "out_of_range",
            Exclusion::Questionable => "questionable",
            Exclusion::DeviceMismatch => "device_mismatch",
        }
    }
}

/// A run of samples of a waveform: value = origin + scale × sample, one every `period_us`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waveform {
    pub origin: Decimal,
    pub scale: Decimal,
    pub unit: Unit,
    pub period_us: u32,
    pub samples: Vec<i32>,
}

/// Something that happened and is not a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The device sent a value that is none.
    NoValue(NoValue),
    /// A condition of the gateway, a device or a route began or ended; `detail` names things, never patients.
    Condition { name: String, raised: bool, detail: String },
    /// Records of a stream were not made on purpose (demo, test): how many since the last such event.
    Discarded { reason: String, count: u32 },
    /// The device's clock was moved, by bedrail or by somebody else since it was last read.
    ClockMoved { by_s: i64, by_bedrail: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoValue {
    NotANumber,
    NotAtThisResolution,
    Reserved,
    /// Not on a person: no skin contact, finger off.
    SensorOff,
    Unavailable,
    Invalid,
}

impl NoValue {
    pub const fn name(self) -> &'static str {
        match self {
            NoValue::NotANumber => "not_a_number",
            NoValue::NotAtThisResolution => "not_at_this_resolution",
            NoValue::Reserved => "reserved",
            NoValue::SensorOff => "sensor_off",
            NoValue::Unavailable => "unavailable",
            NoValue::Invalid => "invalid",
        }
    }
}

/// Records that existed and are gone, or times in which none could be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub reason: GapReason,
    pub run: Option<(Seq, Seq)>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub count: u64,
    /// The routes that had not settled them.
    pub routes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    Evicted,
    Thinned,
    Damaged,
    DiskFull,
    ReadOnly,
    Overrun,
    CorrectionHorizon,
}

impl GapReason {
    pub const fn name(self) -> &'static str {
        match self {
            GapReason::Evicted => "evicted",
            GapReason::Thinned => "thinned",
            GapReason::Damaged => "damaged",
            GapReason::DiskFull => "disk_full",
            GapReason::ReadOnly => "read_only",
            GapReason::Overrun => "overrun",
            GapReason::CorrectionHorizon => "correction_horizon",
        }
    }
}

/// Takes a record back from where it was sent; made by the deliver half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retraction {
    pub of: RecordId,
    pub version: u32,
    pub placement: super::Placement,
    pub route: String,
}
