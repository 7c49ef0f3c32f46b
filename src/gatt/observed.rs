//! What one characteristic value says, in the vocabulary of `reading`: the step between a decoded structure and a class.

use crate::reading::{Component, Decimal, DeviceTime, Flag, Metric, Modality, OutOfRange, Site, Unit, UserIndex};

/// A number as sent: most are finite, a few say why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Finite(Decimal),
    NotANumber,
    NotAtThisResolution,
    PositiveInfinity,
    NegativeInfinity,
    Reserved,
    Absent(Absent),
}

impl Number {
    /// A whole number, as fields without a resolution of their own are.
    pub fn whole(value: impl Into<i64>) -> Self {
        Number::Finite(Decimal::new(value.into(), 0))
    }

    /// The same digits with the point moved: an exact ×10^`places`. Past what can be told it is no number.
    #[must_use]
    pub fn shifted(self, places: i8) -> Self {
        match self {
            Number::Finite(value) => value.shift(places).map_or(Number::NotANumber, Number::Finite),
            other => other,
        }
    }
}

/// What a value of a plain integer field means by the number it uses for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The device tried to measure and could not.
    Unsuccessful,
    Unknown,
    /// The sensor has nothing to measure.
    Missing,
    /// A number that the field may not hold.
    Prohibited,
    /// More than the field can hold.
    Overrun,
}

/// Everything one characteristic value says about its patient or device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub values: Vec<Measured>,
    /// The user slot of a shared device; `None` when not sent or unknown (255).
    pub user: Option<UserIndex>,
    /// The time the device put on it; `None` when absent or not a time.
    pub device_time: Option<DeviceTime>,
    /// The octets of that time exactly as sent: part of the identity, readable or not.
    pub base_time: Option<Vec<u8>>,
    pub sequence: Option<u32>,
    /// The octets of this record alone, where the value holds several; `None` where it is the whole value.
    pub octets: Option<Vec<u8>>,
    /// The device had stored it; it was not heard live.
    pub stored: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub metric: Metric,
    pub site: Option<Site>,
    pub modality: Modality,
    pub value: Numbers,
    pub status: Vec<Status>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Numbers {
    Single(Number, Unit),
    Compound(Vec<(Component, Number)>, Unit),
}

/// What the device said about the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It stands, with this remark.
    Flag(Flag),
    /// It is none: the sensor is not on a person.
    SensorOff,
    /// It is none: not available at the moment.
    Unavailable,
    /// It is none: the device itself calls it invalid.
    Invalid,
    /// It is beyond what the device can measure, whatever number stands there.
    OutOfRange(OutOfRange),
    /// It was never a measurement of anybody.
    Demo,
    Test,
    ControlSolution,
}
