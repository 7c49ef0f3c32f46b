//! What is done on a connection: steps that name one thing to do, each write on the list of what may be written.

use std::time::Duration;

use toml::Spanned;
use uuid::Uuid;

use super::Check;
use crate::gatt;
use crate::profile::frame::Source;
use crate::profile::step::{Expect, Poll, Step, What, Write};
use crate::profile::{text, writable};

const MAX_STEPS: usize = 32;
const MAX_POLLS: usize = 8;
/// What is still to be said to a device holds up the end of its link.
const MAX_END: usize = 4;
/// All answers of a profile together: the radio gives a device 30 s from the link to being ready (`radio::Deadlines`).
const MAX_ANSWERS_S: u64 = 20;
/// A device that is asked more often has to stream.
const POLL_S: std::ops::RangeInclusive<u64> = 1..=3_600;

/// All that a profile does besides listening.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) init: Vec<Step>,
    pub(super) polls: Vec<Poll>,
    pub(super) end: Vec<Step>,
}

impl Steps {
    /// Values of it come, told or read.
    pub(super) fn hears(&self, characteristic: Uuid) -> bool {
        let of = |what: &What| matches!(what, What::Subscribe(uuid) | What::Read(uuid) if *uuid == characteristic);
        self.init.iter().any(|step| of(&step.what)) || self.polls.iter().any(|poll| of(&poll.what))
    }

    fn subscribes(&self, characteristic: Uuid) -> bool {
        self.init.iter().any(|step| step.what == What::Subscribe(characteristic))
    }
}

impl Check<'_> {
    pub(super) fn steps(&mut self, written: &text::File) -> Steps {
        self.at_most("init steps", &written.init, MAX_STEPS);
        self.at_most("polls", &written.poll, MAX_POLLS);
        self.at_most("end steps", &written.end, MAX_END);
        let mut steps = Steps::default();
        for (number, step) in numbered(&written.init, MAX_STEPS) {
            self.at(format!("init {number}"), step);
            if let Some(step) = self.init(step.get_ref(), &steps) {
                steps.init.push(step);
            }
        }
        self.answers_in_time(&steps);
        for (number, step) in numbered(&written.poll, MAX_POLLS) {
            self.at(format!("poll {number}"), step);
            steps.polls.extend(self.poll(step.get_ref()));
        }
        for (number, step) in numbered(&written.end, MAX_END) {
            self.at(format!("end {number}"), step);
            steps.end.extend(self.end(step.get_ref()));
        }
        steps
    }

    fn init(&mut self, step: &text::Step, before: &Steps) -> Option<Step> {
        let what = self.what(step)?;
        if step.every_s.is_some() {
            self.wrong("`every_s` is for what is repeated; write the step under [[poll]]");
        }
        if let What::Write(Write { expect: Some(expect), .. }) = &what
            && !before.subscribes(expect.characteristic)
        {
            self.wrong(format!("no answer comes from {}; subscribe to it in a step before", expect.characteristic));
        }
        Some(Step { what, optional: step.optional })
    }

    fn answers_in_time(&mut self, steps: &Steps) {
        let answer = |step: &Step| if let What::Write(Write { expect, .. }) = &step.what { expect.clone() } else { None };
        let seconds: u64 = steps.init.iter().filter_map(answer).map(|expect| expect.within.as_secs()).sum();
        if seconds > MAX_ANSWERS_S {
            self.wrong(format!("all `timeout_s` together are {seconds} s; they may be {MAX_ANSWERS_S} s at most"));
        }
    }

    fn poll(&mut self, step: &text::Step) -> Option<Poll> {
        let what = self.what(step)?;
        let may = match &what {
            What::Read(_) => true,
            What::Write(write) => write.expect.is_none(),
            What::Subscribe(_) | What::Clock(_) => false,
        };
        let Some(every_s) = step.every_s.filter(|every| may && !step.optional && POLL_S.contains(every)) else {
            let (least, most) = (POLL_S.start(), POLL_S.end());
            self.wrong(format!(
                "a poll is `every_s` ({least} to {most}) and `read = UUID`, or `write = UUID` and `with = {{ hex = … }}`"
            ));
            return None;
        };
        Some(Poll { every: Duration::from_secs(every_s), what })
    }

    fn end(&mut self, step: &text::Step) -> Option<Step> {
        let what = self.what(step)?;
        if !matches!(&what, What::Write(Write { expect: None, .. })) || step.every_s.is_some() {
            self.wrong(
                "before a connection is ended there is only `write = UUID` and `with = { hex = … }`: no answer is waited for",
            );
            return None;
        }
        Some(Step { what, optional: step.optional })
    }

    fn what(&mut self, step: &text::Step) -> Option<What> {
        let plain = step.with.is_none() && step.expect.is_none();
        match (&step.subscribe, &step.read, &step.write) {
            (Some(uuid), None, None) if plain => self.subscribe(uuid).map(What::Subscribe),
            (None, Some(uuid), None) if plain => self.uuid(uuid).map(What::Read),
            (None, None, Some(uuid)) => self.write(uuid, step),
            _ => {
                self.wrong("a step is one of `subscribe = UUID`, `read = UUID`, `write = UUID` with `with = { hex = … }` or `{ now = … }`");
                None
            }
        }
    }

    fn subscribe(&mut self, uuid: &str) -> Option<Uuid> {
        let characteristic = self.uuid(uuid)?;
        // A maker's own that bedrail happens to know may be described otherwise; what the standard says may not.
        if is_sigs(characteristic) && gatt::characteristic(characteristic).is_some_and(|row| row.decoder.measures()) {
            self.wrong(format!(
                "bedrail reads {characteristic} by itself; name the device's `kind` instead, or leave this step out"
            ));
            return None;
        }
        Some(characteristic)
    }

    fn write(&mut self, uuid: &str, step: &text::Step) -> Option<What> {
        let characteristic = self.uuid(uuid)?;
        let octets = match &step.with {
            Some(text::With { hex: Some(hex), now: None }) => self.octets("with.hex", hex)?,
            Some(text::With { hex: None, now: Some(clock) }) if step.expect.is_none() => {
                return self.clock(characteristic, *clock);
            }
            _ => {
                self.wrong("`with` says what is written: { hex = \"9b011c\" }, or, without `expect`, { now = \"date_time\" }");
                return None;
            }
        };
        if !writable::may_write(characteristic, &octets) {
            self.not_writable(characteristic);
            return None;
        }
        let expect = match &step.expect {
            None => None,
            Some(expect) => Some(self.expect(expect)?),
        };
        Some(What::Write(Write { characteristic, octets, expect }))
    }

    /// Each of the two clocks of the standard has its own form.
    fn clock(&mut self, characteristic: Uuid, written: text::Clock) -> Option<What> {
        let (own, name) = match written {
            text::Clock::DateTime => (gatt::sig_uuid(0x2A08), "date_time"),
            text::Clock::CurrentTime => (gatt::sig_uuid(0x2A2B), "current_time"),
        };
        if !writable::may_set_clock(characteristic) {
            self.not_writable(characteristic);
            return None;
        }
        if characteristic != own {
            self.wrong(format!("\"{name}\" is what is written to {own}; 2a08 takes \"date_time\", 2a2b \"current_time\""));
            return None;
        }
        Some(What::Clock(characteristic))
    }

    fn not_writable(&mut self, characteristic: Uuid) {
        self.wrong(format!(
            "bedrail does not write that to {characteristic}; what it may write is listed in docs/profiles.md, and therapy never is"
        ));
    }

    fn expect(&mut self, expect: &text::Expect) -> Option<Expect> {
        let (source, prefix) = (self.source(&expect.source)?, self.octets("expect.prefix", &expect.prefix)?);
        let Source::Characteristic(characteristic) = source else {
            self.wrong("an answer comes from a characteristic; write its UUID as `expect.source`");
            return None;
        };
        if expect.timeout_s == 0 {
            self.wrong(format!("`timeout_s` must be 1 to {MAX_ANSWERS_S}"));
        }
        Some(Expect { characteristic, prefix, within: Duration::from_secs(expect.timeout_s) })
    }
}

/// From 1, and no more than there may be.
fn numbered<T>(rows: &[Spanned<T>], most: usize) -> impl Iterator<Item = (usize, &Spanned<T>)> {
    (1..).zip(rows.iter().take(most))
}

/// Whether the Bluetooth SIG gave the UUID out.
fn is_sigs(uuid: Uuid) -> bool {
    u16::try_from(uuid.as_u128() >> 96).is_ok_and(|short| gatt::sig_uuid(short) == uuid)
}
