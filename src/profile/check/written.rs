//! The words all sections share: a UUID, a source, octets, a number.

use uuid::Uuid;

use super::Check;
use crate::gatt;
use crate::hex;
use crate::profile::frame::{Condition, Source};
use crate::profile::packets::MAX_FRAME;
use crate::profile::text;
use crate::reading::Decimal;
use crate::words::shown;

pub(super) const MAX_OCTETS: usize = MAX_FRAME;

impl Check<'_> {
    pub(super) fn uuid(&mut self, text: &str) -> Option<Uuid> {
        let uuid = short(text).map(gatt::sig_uuid).or_else(|| Uuid::try_parse(text).ok());
        if uuid.is_none() {
            self.wrong(format!("`{}` is no UUID; write 4 hexadecimal digits or all 32", shown(text)));
        }
        uuid
    }

    pub(super) fn source(&mut self, text: &str) -> Option<Source> {
        match text.split_once(':') {
            None => self.uuid(text).map(Source::Characteristic),
            Some(("service_data", uuid)) => self.uuid(uuid).map(Source::ServiceData),
            Some(("manufacturer", id)) => {
                let id = short(id);
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

    pub(super) fn octets(&mut self, key: &str, text: &str) -> Option<Vec<u8>> {
        let octets = hex::decode(text).filter(|octets| !octets.is_empty() && octets.len() <= MAX_OCTETS);
        if octets.is_none() {
            self.wrong(format!("`{key}` must be pairs of hexadecimal digits, 1 to {MAX_OCTETS} octets"));
        }
        octets
    }

    pub(super) fn decimal(&mut self, key: &str, text: &str) -> Option<Decimal> {
        let decimal = text.parse().ok();
        if decimal.is_none() {
            self.wrong(format!("`{key}` must be a decimal number in quotes, such as \"0.1\""));
        }
        decimal
    }

    pub(super) fn conditions(&mut self, rows: &[text::Condition], least: usize) -> Vec<Condition> {
        rows.iter().filter_map(|row| self.condition(row, least)).collect()
    }

    pub(super) fn condition(&mut self, row: &text::Condition, least: usize) -> Option<Condition> {
        self.pattern(row.at, row.bit, row.mask.as_deref(), row.eq.as_deref(), least)
    }

    pub(super) fn pattern(
        &mut self,
        at: usize,
        bit: Option<u8>,
        mask: Option<&str>,
        eq: Option<&str>,
        least: usize,
    ) -> Option<Condition> {
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
}

/// The short form of a UUID, or a company: four digits and nothing else.
fn short(text: &str) -> Option<u16> {
    hex::decode(text).and_then(|octets| octets.try_into().ok()).map(u16::from_be_bytes)
}
