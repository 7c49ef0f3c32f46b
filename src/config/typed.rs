//! From a checked value to the type of a setting.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::secret::SecretRef;
use super::settings::{
    AdvertName, Agreement, Bind, Bond, Carry, Compression, DeviceKind, Environment, History, Mode, Order, Priority, Protocol,
    Questionable, Retract, RouteKind, Settle, Start, Unheard, Use, When,
};
use super::value::{Value, agreement, carry, duration, percent, size, when, window_length_s, zone};
use crate::reading::{DeviceId, Metric, SubjectKey, Timestamp};

/// `None` would mean that the table of keys and the settings disagree.
pub trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_text {
    ($($type:ty => $parse:expr;)+) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                let Value::Text(text) = value else { return None };
                $parse(text.as_str())
            }
        }
    )+};
}

from_text! {
    String => |text: &str| Some(text.to_owned());
    PathBuf => |text: &str| Some(PathBuf::from(text));
    Duration => duration;
    DeviceId => |text: &str| text.parse().ok();
    TimeZone => zone;
    SubjectKey => |text: &str| text.parse().ok();
    Metric => Metric::from_name;
    Carry => carry;
    When => when;
    Agreement => agreement;
    Mode => Mode::from_name;
    AdvertName => AdvertName::from_name;
    DeviceKind => DeviceKind::from_name;
    Use => Use::from_name;
    Bond => Bond::from_name;
    RouteKind => RouteKind::from_name;
    Environment => Environment::from_name;
    Bind => Bind::from_name;
    Order => Order::from_name;
    Protocol => Protocol::from_name;
    Compression => Compression::from_name;
    Settle => Settle::from_name;
    Unheard => Unheard::from_name;
    Start => Start::from_name;
    Priority => Priority::from_name;
    Questionable => Questionable::from_name;
    Retract => Retract::from_name;
}

/// Whole numbers, sizes and percentages.
impl FromValue for u64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(n) => Some(*n),
            Value::Text(text) => size(text).or_else(|| percent(text)),
            _ => None,
        }
    }
}

macro_rules! from_number {
    ($($type:ty),+) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                u64::from_value(value)?.try_into().ok()
            }
        }
    )+};
}

from_number!(u8, u16, u32, usize);

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Boolean(value) = value { Some(*value) } else { None }
    }
}

impl FromValue for Timestamp {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Time(at) = value { Some(*at) } else { None }
    }
}

impl FromValue for SecretRef {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Secret(secret) = value { Some(secret.clone()) } else { None }
    }
}

impl FromValue for History {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Time(at) => Some(History::Since(*at)),
            Value::Text(text) if text == "all" => Some(History::All),
            Value::Text(text) if text == "new" => Some(History::New),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &Value) -> Option<Self> {
        let Value::List(items) = value else { return None };
        items.iter().map(T::from_value).collect()
    }
}

/// A window's length in seconds.
#[derive(PartialEq, Eq)]
pub struct WindowLength(pub u32);

impl FromValue for WindowLength {
    fn from_value(value: &Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        window_length_s(text).map(WindowLength)
    }
}
