//! The fields of a frame: where each lies, how it is read and what it is of.

use std::collections::BTreeSet;

use super::Check;
use super::written::MAX_OCTETS;
use crate::profile::frame::{Code, Field, Kind, Length, Parts, Place, Value};
use crate::profile::text;
use crate::reading::{Component, Metric, Unit};
use crate::words::{did_you_mean, shown};

impl Check<'_> {
    pub(super) fn field(&mut self, field: &text::Field, sequential: bool, length: Length) -> Option<Field> {
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
            "date_time" => match &field.order {
                None => Kind::DateTime,
                Some(order) => Kind::DateParts(self.order(order)?),
            },
            _ => {
                self.wrong(format!(
                    "`{}` is no type; write u8, s8, u16le, u16be, s16le, s16be, u24…, s24…, u32…, s32…, bcd8, bcd16, sfloat, float or date_time",
                    shown(text)
                ));
                return None;
            }
        };
        let is_integer = matches!(kind, Kind::Integer { .. });
        if field.order.is_some() && text != "date_time" {
            self.wrong("`order` is for a date_time");
            return None;
        }
        if (field.mask.is_some() || field.shift.is_some())
            && (!is_integer || field.mask.is_none() || field.shift.unwrap_or(0) > 31)
        {
            self.wrong("`shift` needs `mask`, is at most 31, and both are for whole numbers");
            return None;
        }
        Some(kind)
    }

    /// Each part once; a time without its seconds is one, without its day or minute it is not.
    fn order(&mut self, order: &str) -> Option<Parts> {
        let mut parts = Parts { octets: order.len(), places: [None; 6] };
        let mut right = true;
        for (at, letter) in order.chars().enumerate() {
            let place = Parts::LETTERS.find(letter).and_then(|part| parts.places.get_mut(part));
            right &= place.is_some_and(|place| place.replace(at).is_none());
        }
        if !right || parts.places[..5].contains(&None) {
            self.wrong(
                "`order` says what each octet is: y (from 2000), M, d, h, m, s, each once and s perhaps not, as in \"dMyhm\"",
            );
            return None;
        }
        Some(parts)
    }

    fn code(&mut self, field: &text::Field, kind: Kind) -> Option<Code> {
        if !field.emit {
            return Some(Code::Nothing);
        }
        let is_date = matches!(kind, Kind::DateTime | Kind::DateParts(_));
        let is_whole = matches!(kind, Kind::Integer { .. } | Kind::Bcd { .. });
        match field.code.as_str() {
            "time" if is_date => Some(Code::Time),
            "sequence" if is_whole => Some(Code::Sequence),
            "user" if is_whole => Some(Code::User),
            "time" | "sequence" | "user" => {
                self.wrong("`time` is a date_time, `sequence` and `user` are whole numbers; mend `type`");
                None
            }
            _ if is_date => {
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
            let hint = did_you_mean(code, Metric::ALL.iter().map(|metric| metric.name()));
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

    /// What is one value has one unit, and each part once.
    pub(super) fn components(&mut self, fields: &[Field]) {
        let mut seen = BTreeSet::new();
        for field in fields {
            let Code::Value(Value { metric, component: Some(component), .. }) = &field.code else { continue };
            if field.when.is_empty() && !seen.insert((*metric, *component)) {
                self.wrong("this part of a compound value is there twice");
            }
        }
    }
}

fn units(units: &[Unit]) -> String {
    units.iter().map(|unit| format!("\"{}\"", unit.ucum())).collect::<Vec<_>>().join(", ")
}
