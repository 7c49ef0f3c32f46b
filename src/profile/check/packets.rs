//! How the frames of a source lie in its packets: said in one of two ways, and the same for all frames of it.

use super::Check;
use super::written::MAX_OCTETS;
use crate::profile::frame::{Frame, Source};
use crate::profile::packets::{Packets, Told};
use crate::profile::text;

/// Between an octet that says first and last, and one whose bits all count.
const SHIFTS: std::ops::RangeInclusive<u8> = 1..=7;

impl Check<'_> {
    /// What the frame says of its packets, beside what frames before it said.
    pub(super) fn packets(&mut self, written: &text::Frame, frame: &Frame, all: &mut Vec<(Source, Option<Packets>)>) {
        let packets = written.reassemble.as_ref().and_then(|reassemble| self.reassemble(reassemble));
        if written.reassemble.is_some() && packets.is_none() {
            return;
        }
        if packets.is_some() && !matches!(frame.source, Source::Characteristic(_)) {
            self.wrong("an advertisement is one packet; leave `reassemble` out");
        }
        let proven = match &packets {
            None | Some(Packets::Headed { counter_shift: Some(_), .. }) => true,
            Some(_) => frame.checksum.is_some(),
        };
        if !proven {
            self.wrong(
                "a packet that was lost would not be noticed; a frame that is put together needs `checksum`, or `counter_shift`",
            );
        }
        match all.iter().find(|(source, _)| *source == frame.source) {
            Some((_, before)) if *before != packets => {
                self.wrong("all frames of one source lie in its packets in the same way; write the same `reassemble` in each");
            }
            Some(_) => {}
            None => all.push((frame.source.clone(), packets)),
        }
    }

    fn reassemble(&mut self, written: &text::Reassemble) -> Option<Packets> {
        match written {
            text::Reassemble { length_at: Some(at), first_mask: None, last_mask: None, counter_shift: None, .. } => {
                self.told(*at, written)
            }
            text::Reassemble { first_mask: Some(first), last_mask: Some(last), counter_shift, .. }
                if text::Reassemble::headed(first, last, *counter_shift) == *written =>
            {
                self.headed(first, last, *counter_shift)
            }
            _ => {
                self.wrong(
                    "`reassemble` is { length_at = 1, add = 2, begins = [{ at = 0, eq = \"77\" }] } or \
                     { first_mask = \"01\", last_mask = \"02\", counter_shift = 2 }",
                );
                None
            }
        }
    }

    fn told(&mut self, at: usize, written: &text::Reassemble) -> Option<Packets> {
        let (octets, big) = match written.length_type.as_deref() {
            None | Some("u8") => (1, false),
            Some("u16le") => (2, false),
            Some("u16be") => (2, true),
            Some(_) => {
                self.wrong("`length_type` is u8, u16le or u16be");
                return None;
            }
        };
        let add = written.add.unwrap_or(0);
        if at + octets > MAX_OCTETS || add > MAX_OCTETS {
            self.wrong(format!("no frame is longer than {MAX_OCTETS} octets"));
            return None;
        }
        if written.begins.is_empty() {
            self.wrong("it needs `begins`, conditions by which the first octets of a frame are known");
            return None;
        }
        let begins = self.conditions(&written.begins, MAX_OCTETS);
        Some(Packets::Told { begins, length: Told { at, octets, big, add } })
    }

    fn headed(&mut self, first: &str, last: &str, counter_shift: Option<u8>) -> Option<Packets> {
        let (first, last) = (self.octets("first_mask", first)?, self.octets("last_mask", last)?);
        let ([first], [last]) = (&first[..], &last[..]) else {
            self.wrong("`first_mask` and `last_mask` are one octet each");
            return None;
        };
        let counts =
            counter_shift.is_none_or(|shift| SHIFTS.contains(&shift) && (first | last).checked_shr(shift.into()) == Some(0));
        if *first == 0 || *last == 0 || first & last != 0 || !counts {
            self.wrong(
                "the bits of `first_mask`, `last_mask` and the counter above `counter_shift` (1 to 7) must be different ones",
            );
            return None;
        }
        Some(Packets::Headed { first: *first, last: *last, counter_shift })
    }
}
