//! Health Thermometer Service (1809): a temperature taken on purpose, and the running one shown before it settles.

use super::fields::{Names, is_named};
use super::{Cursor, DateTime, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Numbers, Observed, Warning};
use crate::reading::{Decimal, Metric, Modality, Site, Unit};

const UNIT_IS_FAHRENHEIT: u32 = 1 << 0;
const TIME_PRESENT: u32 = 1 << 1;
const TYPE_PRESENT: u32 = 1 << 2;
const KNOWN_FLAGS: u32 = 0b111;

/// Temperature Measurement (2A1C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemperatureMeasurement {
    pub temperature: Number,
    pub unit: Unit,
    pub time: Option<DateTime>,
    pub site: Option<TemperatureType>,
}

impl TemperatureMeasurement {
    fn observed_as(&self, modality: Modality) -> Observed {
        let temperature = Measured {
            metric: Metric::BodyTemperature,
            site: self.site.and_then(TemperatureType::site),
            modality,
            value: Numbers::Single(self.temperature, self.unit),
            status: Vec::new(),
        };
        Observed {
            values: vec![temperature],
            device_time: self.time.and_then(|time| time.time),
            base_time: self.time.map(|time| time.octets.to_vec()),
            ..Observed::default()
        }
    }
}

impl Decode for TemperatureMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        Ok(Self {
            unit: if flags & UNIT_IS_FAHRENHEIT == 0 { Unit::DegreeCelsius } else { Unit::DegreeFahrenheit },
            temperature: cursor.float("temperature")?,
            time: (flags & TIME_PRESENT != 0).then(|| cursor.date_time("time")).transpose()?,
            site: (flags & TYPE_PRESENT != 0).then(|| TemperatureType::decode(cursor)).transpose()?,
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("temperature", Field::quantity(self.temperature, self.unit))
            .with_sent("time", self.time.map(DateTime::field))
            .with_sent("type", self.site.map(TemperatureType::field))
    }
}

impl Measurement for TemperatureMeasurement {
    fn observed(&self) -> Observed {
        self.observed_as(Modality::Spot)
    }
}

/// Intermediate Temperature (2A1E): the same layout, and never to be charted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntermediateTemperature(pub TemperatureMeasurement);

impl Decode for IntermediateTemperature {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        TemperatureMeasurement::decode(cursor).map(Self)
    }

    fn fields(&self) -> Fields {
        self.0.fields()
    }
}

impl Measurement for IntermediateTemperature {
    fn observed(&self) -> Observed {
        self.0.observed_as(Modality::Intermediate)
    }
}

const TYPE: Names = &[
    (1, "armpit"),
    (2, "body"),
    (3, "ear"),
    (4, "finger"),
    (5, "gi_tract"),
    (6, "mouth"),
    (7, "rectum"),
    (8, "toe"),
    (9, "tympanum"),
];

/// Temperature Type (2A1D), as a code: where the temperature is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemperatureType(pub u8);

impl TemperatureType {
    pub const fn site(self) -> Option<Site> {
        match self.0 {
            1 => Some(Site::Armpit),
            2 => Some(Site::Body),
            3 => Some(Site::Ear),
            4 => Some(Site::Finger),
            5 => Some(Site::GastroIntestinalTract),
            6 => Some(Site::Mouth),
            7 => Some(Site::Rectum),
            8 => Some(Site::Toe),
            9 => Some(Site::Tympanum),
            _ => None,
        }
    }

    const fn field(self) -> Field {
        Field::Code(self.0, TYPE)
    }
}

impl Decode for TemperatureType {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let code = cursor.u8("type")?;
        if !is_named(code, TYPE) {
            cursor.warn(Warning::ReservedValue);
        }
        Ok(Self(code))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("type", self.field())
    }
}

/// Measurement Interval (2A21): seconds between measurements, 0 for none on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasurementInterval {
    pub seconds: u16,
}

impl Decode for MeasurementInterval {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u16("interval").map(|seconds| Self { seconds })
    }

    fn fields(&self) -> Fields {
        let seconds = Number::Finite(Decimal::new(self.seconds.into(), 0));
        Fields::new().with("interval", Field::quantity(seconds, Unit::Second)).with("periodic", Field::Bool(self.seconds != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn a_type_has_the_name_of_its_site() {
        for (code, name) in TYPE {
            assert_eq!(TemperatureType(*code).site().map(Site::name), Some(*name));
        }
        assert_eq!(TemperatureType(0).site(), None);
    }

    #[test]
    fn the_running_temperature_is_never_the_final_one() {
        let octets = [0x04, 0x6F, 0x01, 0x00, 0xFF, 0x09];
        let last = read::<TemperatureMeasurement>(&octets).expect("a temperature").0.observed();
        let running = read::<IntermediateTemperature>(&octets).expect("a temperature").0.observed();
        assert_eq!((last.values[0].modality, running.values[0].modality), (Modality::Spot, Modality::Intermediate));
        assert_eq!(last.values[0].site, Some(Site::Tympanum));
        assert_eq!(last.base_time, None);
    }

    #[test]
    fn a_time_that_cannot_be_read_is_still_part_of_the_identity() {
        let octets = [0x02, 0x6C, 0x01, 0x00, 0xFF, 0xEA, 0x07, 0x0D, 0x01, 0x0A, 0x00, 0x00];
        let (value, warnings) = read::<TemperatureMeasurement>(&octets).expect("a temperature");
        assert_eq!(warnings, [Warning::InvalidDateTime]);
        let observed = value.observed();
        assert_eq!((observed.device_time, observed.base_time.as_deref()), (None, Some(&octets[5..])));
    }
}
