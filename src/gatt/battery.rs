//! Battery Service (180F): the charge of the device's battery, and what else it says of its power.

use super::fields::{Names, named_bits};
use super::{Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Warning};
use crate::reading::{Metric, Modality, Unit};

/// Battery Level (2A19); `None` for an octet above 100, which is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryLevel {
    pub percent: Option<u8>,
}

impl Decode for BatteryLevel {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octet = cursor.u8("level")?;
        Ok(Self::of_octet(octet, cursor))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("level", self.field())
    }
}

impl BatteryLevel {
    pub fn of_octet(octet: u8, cursor: &mut Cursor<'_>) -> Self {
        let percent = (octet <= 100).then_some(octet);
        if percent.is_none() {
            cursor.warn(Warning::ReservedValue);
        }
        Self { percent }
    }

    pub fn field(self) -> Field {
        self.percent.map_or(Field::Null, |percent| Field::quantity(Number::whole(percent), Unit::Percent))
    }

    pub fn measured(self) -> Measured {
        Measured {
            metric: Metric::BatteryLevel,
            site: None,
            modality: Modality::Spot,
            value: Numbers::Single(self.percent.map_or(Number::Reserved, Number::whole), Unit::Percent),
            status: Vec::new(),
        }
    }
}

impl Measurement for BatteryLevel {
    fn observed(&self) -> Observed {
        Observed { values: vec![self.measured()], ..Observed::default() }
    }
}

const IDENTIFIER_PRESENT: u32 = 1 << 0;
const LEVEL_PRESENT: u32 = 1 << 1;
const ADDITIONAL_PRESENT: u32 = 1 << 2;
const KNOWN_FLAGS: u32 = 0b111;

/// Battery Level Status (2BED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryLevelStatus {
    power: u32,
    /// Which of the device's batteries, in the SIG's namespace descriptions.
    pub identifier: Option<u16>,
    pub level: Option<BatteryLevel>,
    additional: Option<u32>,
}

const YES_NO: Names = &[(0, "no"), (1, "yes"), (2, "unknown")];
const CHARGE_STATE: Names = &[(0, "unknown"), (1, "charging"), (2, "discharging_active"), (3, "discharging_inactive")];
const CHARGE_LEVEL: Names = &[(0, "unknown"), (1, "good"), (2, "low"), (3, "critical")];
const CHARGING_TYPE: Names =
    &[(0, "unknown_or_not_charging"), (1, "constant_current"), (2, "constant_voltage"), (3, "trickle"), (4, "float")];
const FAULTS: Names = &[(0, "battery"), (1, "external_power"), (2, "other")];
const KNOWN_POWER: u32 = 0x7FFF;
const KNOWN_ADDITIONAL: u32 = 0b111;

impl BatteryLevelStatus {
    /// The codes packed into the power state: name, first bit, bits, words.
    const CODES: [(&'static str, u32, u32, Names); 5] = [
        ("wired", 1, 0b11, YES_NO),
        ("wireless", 3, 0b11, YES_NO),
        ("charge_state", 5, 0b11, CHARGE_STATE),
        ("charge_level", 7, 0b11, CHARGE_LEVEL),
        ("charging_type", 9, 0b111, CHARGING_TYPE),
    ];
}

fn code(word: u32, shift: u32, mask: u32) -> u8 {
    u8::try_from(word >> shift & mask).unwrap_or(u8::MAX)
}

impl Decode for BatteryLevelStatus {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let sent = |bit| flags & bit != 0;
        let power = cursor.u16("power_state")?;
        let power = cursor.known_bits(power.into(), KNOWN_POWER);
        for (_, shift, mask, names) in Self::CODES {
            cursor.known_code(code(power, shift, mask), names);
        }
        let identifier = sent(IDENTIFIER_PRESENT).then(|| cursor.u16("identifier")).transpose()?;
        let level = sent(LEVEL_PRESENT).then(|| BatteryLevel::decode(cursor)).transpose()?;
        let additional = sent(ADDITIONAL_PRESENT).then(|| cursor.u8("additional_status")).transpose()?;
        let additional = additional.map(|bits| cursor.known_bits(bits.into(), KNOWN_ADDITIONAL));
        additional.inspect(|bits| cursor.known_code(code(*bits, 0, 0b11), YES_NO));
        Ok(Self { power, identifier, level, additional })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new().with("present", Field::Bool(self.power & 1 != 0));
        let fields = Self::CODES.iter().fold(fields, |fields, (name, shift, mask, names)| {
            fields.with(name, Field::Code(code(self.power, *shift, *mask), names))
        });
        fields
            .with("faults", Field::Bits(self.power >> 12 & named_bits(FAULTS), FAULTS))
            .with_sent("identifier", self.identifier.map(|identifier| Field::Integer(identifier.into())))
            .with_sent("level", self.level.map(BatteryLevel::field))
            .with_sent("service_required", self.additional.map(|bits| Field::Code(code(bits, 0, 0b11), YES_NO)))
            .with_sent("battery_fault", self.additional.map(|bits| Field::Bool(bits & 0b100 != 0)))
    }
}

impl Measurement for BatteryLevelStatus {
    /// The level, where it tells one: the rest is about the device alone.
    fn observed(&self) -> Observed {
        Observed { values: self.level.map(BatteryLevel::measured).into_iter().collect(), ..Observed::default() }
    }
}

const CRITICAL: Names = &[(0, "critical_power_state"), (1, "immediate_service_required")];

/// Battery Critical Status (2BE9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryCriticalStatus(u32);

impl Decode for BatteryCriticalStatus {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let bits = cursor.u8("status")?;
        Ok(Self(cursor.known_bits(bits.into(), named_bits(CRITICAL))))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("status", Field::Bits(self.0, CRITICAL))
    }
}
