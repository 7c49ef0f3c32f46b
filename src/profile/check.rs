//! From a profile as written to one that can be used: everything wrong is told, each with its line.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use toml::Spanned;
use uuid::Uuid;

use super::frame::{Bit, Checksum, Code, Condition, Field, Frame, Kind, Length, Place, Source, Value};
use super::proof::Trial;
use super::step::{Clock, Expect, Octets, Step};
use super::{Link, Match, Mode, Profile, ProfileError, ProfileErrors, text, writable};
use crate::gatt::{self, Status};
use crate::hex;
use crate::reading::{Component, Decimal, Flag, Metric, Modality, Unit};

/// Ten times the longest profile there is.
const MAX_TEXT: usize = 64 << 10;
const MAX_STEPS: usize = 32;
const MAX_FRAMES: usize = 16;
const MAX_FIELDS: usize = 32;
const MAX_TRIALS: usize = 256;
/// An attribute of Bluetooth is no longer (Core Specification, Vol 3, Part F, 3.2.9).
const MAX_OCTETS: usize = 512;
/// A device that answers later is taken for one that does not.
const MAX_ANSWER_S: u64 = 60;

pub fn profile(text: &str, file: &str) -> Result<Profile, ProfileErrors> {
    let mut check = Check { text, file, place: String::new(), line: None, errors: Vec::new() };
    if text.len() > MAX_TEXT {
        check.wrong(format!("it is {} KiB long; a profile has at most {} KiB", text.len() >> 10, MAX_TEXT >> 10));
        return Err(ProfileErrors(check.errors));
    }
    let written: text::File = match toml::from_str(text) {
        Ok(written) => written,
        Err(error) => {
            check.line = error.span().map(|span| check.line_at(span.start));
            check.wrong(format!("{}; mend this line", error.message().trim_end()));
            return Err(ProfileErrors(check.errors));
        }
    };
    let profile = check.file(written);
    check.errors.sort_by_key(|error| error.line);
    if check.errors.is_empty() { Ok(profile) } else { Err(ProfileErrors(check.errors)) }
}

struct Check<'t> {
    text: &'t str,
    file: &'t str,
    place: String,
    line: Option<usize>,
    errors: Vec<ProfileError>,
}

impl Check<'_> {
    fn line_at(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|octet| **octet == b'\n').count() + 1
    }

    fn wrong(&mut self, message: impl Into<String>) {
        let (place, message) = (self.place.clone(), message.into());
        self.errors.push(ProfileError { file: self.file.to_owned(), line: self.line, place, message });
    }

    fn at<T>(&mut self, place: impl Into<String>, written: &Spanned<T>) {
        (self.place, self.line) = (place.into(), Some(self.line_at(written.span().start)));
    }

    fn at_most<T>(&mut self, what: &str, items: &[T], most: usize) {
        if items.len() > most {
            (self.place, self.line) = (String::new(), None);
            self.wrong(format!("it has {} {what}; at most {most} are allowed", items.len()));
        }
    }

    fn file(&mut self, written: text::File) -> Profile {
        self.at("profile", &written.profile);
        let head = written.profile.into_inner();
        self.head(&head);
        self.at("match", &written.matches);
        let matches = written.matches.get_ref().any.iter().filter_map(|row| self.matches(row)).collect::<Vec<_>>();
        if written.matches.get_ref().any.is_empty() {
            self.wrong("`any` is empty; say by what a device of this kind is recognised");
        }
        let link = written.link.unwrap_or(text::Link { mode: text::Mode::Gatt, bond: text::Bond::Never });
        let mode = match link.mode {
            text::Mode::Gatt => Mode::Gatt,
            text::Mode::Advert => Mode::Advert,
        };
        self.at_most("init steps", &written.init, MAX_STEPS);
        self.at_most("frames", &written.frame, MAX_FRAMES);
        self.at_most("tests", &written.test, MAX_TRIALS);
        let number = |index: usize| index + 1;
        let mut init = Vec::new();
        for (index, step) in written.init.iter().take(MAX_STEPS).enumerate() {
            self.at(format!("init {}", number(index)), step);
            init.extend(self.step(step.get_ref()));
        }
        let mut frames = Vec::new();
        for (index, frame) in written.frame.iter().take(MAX_FRAMES).enumerate() {
            self.at(format!("frame {}", number(index)), frame);
            frames.extend(self.frame(number(index), frame, mode, &init));
        }
        let mut trials = Vec::new();
        for (index, trial) in written.test.iter().take(MAX_TRIALS).enumerate() {
            self.at(format!("test {}", number(index)), trial);
            trials.extend(self.trial(trial.get_ref(), self.line.unwrap_or(0)));
        }
        self.trials(&trials, &frames);
        let link = Link { mode, needs_bond: link.bond == text::Bond::Required };
        Profile { id: head.id, version: head.version, name: head.name, matches, link, init, frames, trials }
    }

    fn head(&mut self, head: &text::Head) {
        let is_name = (1..=64).contains(&head.id.len())
            && head.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_name {
            self.wrong("`id` must be a name of small letters, digits and `-`, at most 64 characters, such as \"nonin-3230\"");
        }
        for (key, text) in [("name", &head.name), ("source", &head.source)] {
            if text.trim().is_empty() || text.chars().count() > 256 || text.chars().any(char::is_control) {
                self.wrong(format!("`{key}` must be a line of text of at most 256 characters"));
            }
        }
        if head.version == 0 {
            self.wrong("`version` counts from 1");
        }
    }

    fn matches(&mut self, row: &text::Match) -> Option<Match> {
        let mut found = Vec::new();
        found.extend(row.name_prefix.clone().map(Match::NamePrefix));
        found.extend(row.model_number.clone().map(Match::Model));
        found.extend(row.manufacturer_id.map(Match::Manufacturer));
        found.extend(row.service_uuid.as_ref().and_then(|uuid| self.uuid(uuid)).map(Match::Service));
        found.extend(row.service_data_uuid.as_ref().and_then(|uuid| self.uuid(uuid)).map(Match::ServiceData));
        if found.len() != 1 {
            self.wrong(
                "each row of `any` says one thing: name_prefix, service_uuid, service_data_uuid, manufacturer_id or model_number",
            );
            return None;
        }
        found.pop()
    }

    fn uuid(&mut self, text: &str) -> Option<Uuid> {
        let short = (text.len() == 4).then(|| u16::from_str_radix(text, 16).ok()).flatten();
        let uuid = short.map(gatt::sig_uuid).or_else(|| Uuid::try_parse(text).ok());
        if uuid.is_none() {
            self.wrong(format!("`{}` is no UUID; write 4 hexadecimal digits or all 32", shown(text)));
        }
        uuid
    }

    fn source(&mut self, text: &str) -> Option<Source> {
        match text.split_once(':') {
            None => self.uuid(text).map(Source::Characteristic),
            Some(("service_data", uuid)) => self.uuid(uuid).map(Source::ServiceData),
            Some(("manufacturer", id)) => {
                let id = (id.len() == 4).then(|| u16::from_str_radix(id, 16).ok()).flatten();
                if id.is_none() {
                    self.wrong("a company is written as 4 hexadecimal digits, such as \"manufacturer:004c\"");
                }
                id.map(Source::Manufacturer)
            }
            Some(_) => {
                self.wrong(format!(
                    "`{}` is no source; write a UUID, \"service_data:UUID\" or \"manufacturer:XXXX\"",
                    shown(text)
                ));
                None
            }
        }
    }

    fn octets(&mut self, key: &str, text: &str) -> Option<Vec<u8>> {
        let octets = hex::decode(text).filter(|octets| !octets.is_empty() && octets.len() <= MAX_OCTETS);
        if octets.is_none() {
            self.wrong(format!("`{key}` must be pairs of hexadecimal digits, 1 to {MAX_OCTETS} octets"));
        }
        octets
    }

    fn step(&mut self, step: &text::Step) -> Option<Step> {
        let plain = step.with.is_none() && step.expect.is_none();
        match (&step.subscribe, &step.read, &step.write) {
            (Some(uuid), None, None) if plain && !step.optional => {
                let characteristic = self.uuid(uuid)?;
                // A maker's own that bedrail happens to know may be described otherwise; what the standard says may not.
                if is_sigs(characteristic) && gatt::characteristic(characteristic).is_some_and(|row| row.decoder.measures()) {
                    self.wrong(format!(
                        "bedrail reads {characteristic} by itself; name the device's `kind` instead, or leave this step out"
                    ));
                    return None;
                }
                Some(Step::Subscribe { characteristic })
            }
            (None, Some(uuid), None) if plain => Some(Step::Read { characteristic: self.uuid(uuid)?, optional: step.optional }),
            (None, None, Some(uuid)) => self.write(uuid, step),
            _ => {
                self.wrong("a step is one of `subscribe = UUID`, `read = UUID` (optional = true), `write = UUID` with `with = { hex = … }` or `{ now = … }`");
                None
            }
        }
    }

    fn write(&mut self, uuid: &str, step: &text::Step) -> Option<Step> {
        let characteristic = self.uuid(uuid)?;
        let octets = match &step.with {
            Some(text::With { hex: Some(hex), now: None }) => Octets::Fixed(self.octets("with.hex", hex)?),
            Some(text::With { hex: None, now: Some(clock) }) => Octets::Now(match clock {
                text::Clock::DateTime => Clock::DateTime,
                text::Clock::CurrentTime => Clock::CurrentTime,
            }),
            _ => {
                self.wrong("`with` says what is written: { hex = \"9b011c\" } or { now = \"date_time\" }");
                return None;
            }
        };
        let allowed = match &octets {
            Octets::Fixed(octets) => writable::may_write(characteristic, octets),
            Octets::Now(_) => writable::may_set_clock(characteristic),
        };
        if !allowed {
            self.wrong(format!(
                "bedrail does not write that to {characteristic}; what it may write is listed in docs/profiles.md, and therapy never is"
            ));
            return None;
        }
        let expect = match &step.expect {
            None => None,
            Some(expect) => {
                if expect.timeout_s == 0 || expect.timeout_s > MAX_ANSWER_S {
                    self.wrong(format!("`timeout_s` must be 1 to {MAX_ANSWER_S}"));
                }
                let (source, prefix) = (self.source(&expect.source)?, self.octets("expect.prefix", &expect.prefix)?);
                Some(Expect { source, prefix, within: Duration::from_secs(expect.timeout_s) })
            }
        };
        Some(Step::Write { characteristic, octets, expect, optional: step.optional })
    }

    fn frame(&mut self, number: usize, written: &Spanned<text::Frame>, mode: Mode, init: &[Step]) -> Option<Frame> {
        let frame = written.get_ref();
        let source = self.source(&frame.source)?;
        self.reachable(&source, mode, init);
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
    fn reachable(&mut self, source: &Source, mode: Mode, init: &[Step]) {
        let Source::Characteristic(uuid) = source else {
            if mode == Mode::Gatt {
                self.wrong("its source is an advertisement; write mode = \"advert\" under [link]");
            }
            return;
        };
        if mode == Mode::Advert {
            self.wrong("its source is a characteristic; write mode = \"gatt\" under [link]");
        }
        let comes = init.iter().any(|step| match step {
            Step::Subscribe { characteristic } | Step::Read { characteristic, .. } => characteristic == uuid,
            Step::Write { .. } => false,
        });
        if !comes && mode == Mode::Gatt {
            self.wrong(format!("nothing is heard of {uuid}; add an [[init]] step that subscribes to it or reads it"));
        }
    }

    fn conditions(&mut self, rows: &[text::Condition], least: usize) -> Vec<Condition> {
        rows.iter().filter_map(|row| self.condition(row, least)).collect()
    }

    fn condition(&mut self, row: &text::Condition, least: usize) -> Option<Condition> {
        self.pattern(row.at, row.bit, row.mask.as_deref(), row.eq.as_deref(), least)
    }

    fn pattern(&mut self, at: usize, bit: Option<u8>, mask: Option<&str>, eq: Option<&str>, least: usize) -> Option<Condition> {
        let condition = match (bit, mask, eq) {
            (Some(bit @ 0..=7), None, None) => Condition { at, mask: vec![1 << bit], eq: vec![1 << bit] },
            (None, mask, Some(eq)) => {
                let eq = self.octets("eq", eq)?;
                let mask = match mask {
                    None => vec![0xFF; eq.len()],
                    Some(mask) => self.octets("mask", mask)?,
                };
                if mask.len() != eq.len() || mask.iter().zip(&eq).any(|(mask, eq)| eq & !mask != 0) {
                    self.wrong("`mask` and `eq` must be of one length, and `eq` may have no bit that `mask` takes away");
                    return None;
                }
                Condition { at, mask, eq }
            }
            _ => {
                self.wrong(
                    "a condition is { at = 0, bit = 3 }, { at = 0, eq = \"81\" } or { at = 0, mask = \"0f\", eq = \"01\" }",
                );
                return None;
            }
        };
        if condition.at + condition.eq.len() > least {
            self.wrong(format!("octet {} is looked at and the frame may have only {least}", condition.at + condition.eq.len()));
            return None;
        }
        Some(condition)
    }

    fn field(&mut self, field: &text::Field, sequential: bool, length: Length) -> Option<Field> {
        let kind = self.kind(field)?;
        let code = self.code(field, kind)?;
        let place = match (field.at, sequential) {
            (Some(at), false) => {
                if at + kind.octets() > length.least() {
                    self.wrong(format!(
                        "it ends at octet {} and the frame may have only {}; mend `at`, or `length` of the frame",
                        at + kind.octets(),
                        length.least()
                    ));
                }
                Place::At(at)
            }
            (None, true) => Place::Next,
            (Some(_), true) => {
                self.wrong("its frame is `sequential`: fields follow each other; leave `at` out");
                return None;
            }
            (None, false) => {
                self.wrong("it needs `at`, the octet it begins with, counted from 0; or write sequential = true in the frame");
                return None;
            }
        };
        if field.present_if.is_some() && !sequential {
            self.wrong("`present_if` is for sequential frames; write `when`");
        }
        let present_if = field.present_if.as_ref().and_then(|row| self.condition(row, MAX_OCTETS));
        let when = self.conditions(&field.when, MAX_OCTETS);
        Some(Field { code, kind, place, present_if, when })
    }

    fn kind(&mut self, field: &text::Field) -> Option<Kind> {
        let text = field.kind.as_str();
        let whole =
            |octets, signed, big| Kind::Integer { octets, signed, big, mask: field.mask, shift: field.shift.unwrap_or(0) };
        let kind = match text {
            "u8" => whole(1, false, false),
            "s8" => whole(1, true, false),
            "u16le" => whole(2, false, false),
            "u16be" => whole(2, false, true),
            "s16le" => whole(2, true, false),
            "s16be" => whole(2, true, true),
            "u24le" => whole(3, false, false),
            "u24be" => whole(3, false, true),
            "s24le" => whole(3, true, false),
            "s24be" => whole(3, true, true),
            "u32le" => whole(4, false, false),
            "u32be" => whole(4, false, true),
            "s32le" => whole(4, true, false),
            "s32be" => whole(4, true, true),
            "bcd8" => Kind::Bcd { octets: 1 },
            "bcd16" => Kind::Bcd { octets: 2 },
            "sfloat" => Kind::Sfloat,
            "float" => Kind::Float,
            "date_time" => Kind::DateTime,
            _ => {
                self.wrong(format!(
                    "`{}` is no type; write u8, s8, u16le, u16be, s16le, s16be, u24…, s24…, u32…, s32…, bcd8, bcd16, sfloat, float or date_time",
                    shown(text)
                ));
                return None;
            }
        };
        let is_integer = matches!(kind, Kind::Integer { .. });
        if (field.mask.is_some() || field.shift.is_some())
            && (!is_integer || field.mask.is_none() || field.shift.unwrap_or(0) > 31)
        {
            self.wrong("`shift` needs `mask`, is at most 31, and both are for whole numbers");
            return None;
        }
        Some(kind)
    }

    fn code(&mut self, field: &text::Field, kind: Kind) -> Option<Code> {
        if !field.emit {
            return Some(Code::Nothing);
        }
        let is_whole = matches!(kind, Kind::Integer { .. } | Kind::Bcd { .. });
        match field.code.as_str() {
            "time" if kind == Kind::DateTime => Some(Code::Time),
            "sequence" if is_whole => Some(Code::Sequence),
            "user" if is_whole => Some(Code::User),
            "time" | "sequence" | "user" => {
                self.wrong("`time` is a date_time, `sequence` and `user` are whole numbers; mend `type`");
                None
            }
            _ if kind == Kind::DateTime => {
                self.wrong("a date_time is the `time` of its values and no value; mend `code` or `type`");
                None
            }
            code => self.value(code, field).map(Code::Value),
        }
    }

    fn value(&mut self, code: &str, field: &text::Field) -> Option<Value> {
        let (metric, component) = self.metric(code)?;
        let row = metric.row();
        let Some(unit) = &field.unit else {
            self.wrong(format!("it needs `unit`, one of {}", units(row.units)));
            return None;
        };
        let unit = self.unit(unit, row.units)?;
        let mut unit_if = Vec::new();
        for row_if in &field.unit_if {
            let when = self.pattern(row_if.at, row_if.bit, row_if.mask.as_deref(), row_if.eq.as_deref(), MAX_OCTETS);
            unit_if.extend(when.zip(self.unit(&row_if.unit, row.units)));
        }
        let scale = field.scale.as_ref().map(|text| self.decimal("scale", text)).unwrap_or_default();
        let add = field.add.as_ref().map(|text| self.decimal("add", text)).unwrap_or_default();
        let range = match &field.range {
            None => None,
            Some([low, high]) => {
                let range = self.decimal("range", low).zip(self.decimal("range", high));
                if range.is_some_and(|(low, high)| low.cmp_value(high).is_gt()) {
                    self.wrong("`range` is [lowest, highest]");
                }
                range
            }
        };
        Some(Value { metric, component, unit, unit_if, scale, add, missing: field.missing.clone(), range })
    }

    fn metric(&mut self, code: &str) -> Option<(Metric, Option<Component>)> {
        if let Some(metric) = Metric::from_name(code) {
            if metric.row().components.is_empty() {
                return Some((metric, None));
            }
            let parts: Vec<String> = metric.row().components.iter().map(|part| format!("{code}.{}", part.name)).collect();
            self.wrong(format!("`{code}` has parts; write {}", parts.join(", ")));
            return None;
        }
        let part = code.rsplit_once('.').and_then(|(metric, part)| {
            let metric = Metric::from_name(metric)?;
            let part = metric.row().components.iter().find(|row| row.name == part)?;
            Some((metric, Some(part.component)))
        });
        if part.is_none() {
            let names = Metric::ALL.iter().map(|metric| metric.name());
            let best = names.map(|name| (strsim::jaro_winkler(code, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = best
                .filter(|(likeness, _)| *likeness > 0.8)
                .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"));
            self.wrong(format!("`{}` is no metric bedrail knows{hint} (emit = false passes over a field)", shown(code)));
        }
        part
    }

    fn unit(&mut self, text: &str, allowed: &[Unit]) -> Option<Unit> {
        let unit = Unit::from_ucum(text).filter(|unit| allowed.contains(unit));
        if unit.is_none() {
            self.wrong(format!("`{}` is no unit of this metric; write one of {}, in UCUM", shown(text), units(allowed)));
        }
        unit
    }

    fn decimal(&mut self, key: &str, text: &str) -> Option<Decimal> {
        let decimal = text.parse().ok();
        if decimal.is_none() {
            self.wrong(format!("`{key}` must be a decimal number in quotes, such as \"0.1\""));
        }
        decimal
    }

    /// What is one value has one unit, and each part once.
    fn components(&mut self, fields: &[Field]) {
        let mut seen = BTreeSet::new();
        for field in fields {
            let Code::Value(Value { metric, component: Some(component), .. }) = &field.code else { continue };
            if field.when.is_empty() && !seen.insert((*metric, *component)) {
                self.wrong("this part of a compound value is there twice");
            }
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

    fn trial(&mut self, test: &text::Test, line: usize) -> Option<Trial> {
        let source = self.source(&test.source)?;
        let octets = self.octets("hex", &test.hex)?;
        if test.expect.is_some() == test.error.is_some() {
            self.wrong("a test has either `expect` (what is read; {} for nothing) or `error` (its name)");
            return None;
        }
        Some(Trial { line, source, octets, expect: test.expect.clone(), error: test.error.clone() })
    }

    /// A profile that was never tried, or fails its own tests, is no profile; a frame without a test is not known to work.
    fn trials(&mut self, trials: &[Trial], frames: &[Frame]) {
        if !self.errors.is_empty() {
            return;
        }
        for (index, trial) in trials.iter().enumerate() {
            (self.place, self.line) = (format!("test {}", index + 1), Some(trial.line));
            if let Err(message) = trial.run(frames).outcome {
                self.wrong(message);
            }
        }
        (self.place, self.line) = (String::new(), None);
        for (index, frame) in frames.iter().enumerate() {
            if !trials.iter().any(|trial| trial.source == frame.source && trial.expect.is_some()) {
                self.wrong(format!(
                    "frame {} has no [[test]] with `expect`; add octets of a real device and what they say",
                    index + 1
                ));
            }
        }
    }
}

/// Whether the Bluetooth SIG gave the UUID out.
fn is_sigs(uuid: Uuid) -> bool {
    u16::try_from(uuid.as_u128() >> 96).is_ok_and(|short| gatt::sig_uuid(short) == uuid)
}

fn flag(name: &str) -> Option<Flag> {
    Flag::deserialize(StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}

fn units(units: &[Unit]) -> String {
    units.iter().map(|unit| format!("\"{}\"", unit.ucum())).collect::<Vec<_>>().join(", ")
}

/// A message stays on one line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
