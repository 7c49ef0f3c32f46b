//! What is done on a connection: steps that name one thing to do, each write on the list of what may be written.

use std::time::Duration;

use uuid::Uuid;

use super::Check;
use crate::gatt;
use crate::profile::step::{Clock, Expect, Octets, Step};
use crate::profile::{text, writable};

/// A device that answers later is taken for one that does not.
const MAX_ANSWER_S: u64 = 60;

impl Check<'_> {
    pub(super) fn step(&mut self, step: &text::Step) -> Option<Step> {
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
}

/// Whether the Bluetooth SIG gave the UUID out.
fn is_sigs(uuid: Uuid) -> bool {
    u16::try_from(uuid.as_u128() >> 96).is_ok_and(|short| gatt::sig_uuid(short) == uuid)
}
