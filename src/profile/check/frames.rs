//! The layouts of a source: their length, by what they are told apart, their bits.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use toml::Spanned;

use super::Check;
use super::steps::Steps;
use super::written::MAX_OCTETS;
use crate::gatt::Status;
use crate::profile::frame::{Bit, Checksum, Frame, Length, Source};
use crate::profile::{Mode, text};
use crate::reading::{Flag, Modality};
use crate::words::shown;

const MAX_FIELDS: usize = 32;

impl Check<'_> {
    pub(super) fn frame(&mut self, number: usize, written: &Spanned<text::Frame>, mode: Mode, steps: &Steps) -> Option<Frame> {
        let frame = written.get_ref();
        let source = self.source(&frame.source)?;
        self.reachable(&source, mode, steps);
        let length = match (frame.length, frame.min_length) {
            (Some(length), None) => Length::Exactly(length),
            (None, least) => Length::AtLeast(least.unwrap_or(0)),
            (Some(_), Some(_)) => {
                self.wrong("it has `length` and `min_length`; write one of them");
                return None;
            }
        };
        if length.least() > MAX_OCTETS {
            self.wrong(format!("no value is longer than {MAX_OCTETS} octets"));
        }
        let guard = self.conditions(&frame.guard, MAX_OCTETS);
        let drop_if = self.conditions(&frame.drop_if, MAX_OCTETS);
        let checksum = frame.checksum.as_ref().map(|sum| Checksum { kind: sum.kind, from: sum.from });
        if checksum.is_some_and(|sum| sum.from + sum.octets() >= length.least()) {
            self.wrong("the checksum covers nothing; `length` or `min_length` must be more than `from` and the checksum itself");
        }
        self.at_most("fields", &frame.field, MAX_FIELDS);
        self.at_most("bits", &frame.bit, MAX_FIELDS);
        let mut fields = Vec::new();
        for (index, field) in frame.field.iter().take(MAX_FIELDS).enumerate() {
            self.at(format!("frame {number}, field {} ({})", index + 1, shown(&field.get_ref().code)), field);
            fields.extend(self.field(field.get_ref(), frame.sequential, length));
        }
        self.components(&fields);
        let mut bits = Vec::new();
        for (index, bit) in frame.bit.iter().take(MAX_FIELDS).enumerate() {
            self.at(format!("frame {number}, bit {} ({})", index + 1, shown(&bit.get_ref().code)), bit);
            bits.extend(self.bit(bit.get_ref(), length));
        }
        let modality = match frame.modality {
            text::Modality::Spot => Modality::Spot,
            text::Modality::Continuous => Modality::Continuous,
        };
        Some(Frame { source, length, guard, drop_if, checksum, modality, stored: frame.stored, fields, bits })
    }

    /// A frame whose octets never come is a mistake.
    fn reachable(&mut self, source: &Source, mode: Mode, steps: &Steps) {
        let Source::Characteristic(uuid) = source else {
            if mode == Mode::Gatt {
                self.wrong("its source is an advertisement; write mode = \"advert\" under [link]");
            }
            return;
        };
        if mode == Mode::Advert {
            self.wrong("its source is a characteristic; write mode = \"gatt\" under [link]");
        }
        if mode == Mode::Gatt && !steps.hears(*uuid) {
            self.wrong(format!(
                "nothing is heard of {uuid}; add an [[init]] step that subscribes to it or reads it, or a [[poll]] that reads it"
            ));
        }
    }

    fn bit(&mut self, bit: &text::Bit, length: Length) -> Option<Bit> {
        if bit.bit > 7 || bit.at >= length.least() {
            self.wrong(format!("`bit` counts from 0 to 7, and `at` must be below {}", length.least()));
            return None;
        }
        let status = match bit.code.as_str() {
            "sensor_off" => Some(Status::SensorOff),
            "unavailable" => Some(Status::Unavailable),
            "invalid" => Some(Status::Invalid),
            "demo" => Some(Status::Demo),
            "test" => Some(Status::Test),
            "control_solution" => Some(Status::ControlSolution),
            name => flag(name).map(Status::Flag),
        };
        if status.is_none() {
            self.wrong("`code` must be sensor_off, unavailable, invalid, demo, test, control_solution or a flag of docs/mqtt.md such as poor_signal");
        }
        Some(Bit { at: bit.at, bit: bit.bit, status: status? })
    }
}

fn flag(name: &str) -> Option<Flag> {
    Flag::deserialize(StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}
