//! What truly happens in the simulated ward: which devices there are, who wears or lies at which of them, and when that
//! changes. The books are checked against this and never against what bedrail believes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::support::devices::{Kind, VirtualDevice};

pub const ADA: &str = "p-ada";
pub const BEN: &str = "p-ben";
pub const CLEO: &str = "p-cleo";
pub const PATIENTS: [&str; 3] = [ADA, BEN, CLEO];
pub const BEDS: [&str; 3] = ["bed-1", "bed-2", "bed-3"];

/// A value made this near to a change may be the one patient's or the other's: nobody moves in an instant.
const EITHER: Duration = Duration::from_secs(1);

pub const OXI_1: &str = "00:1C:05:00:00:01";
pub const OXI_2: &str = "00:1C:05:00:00:02";
pub const STRAP: &str = "A4:C1:38:00:00:03";
pub const THERMO: &str = "A4:C1:38:00:00:04";
pub const CUFF_1: &str = "A4:C1:38:00:00:05";
pub const CUFF_2: &str = "A4:C1:38:00:00:06";

/// A device, what the config says of it, and when it measures.
#[derive(Clone, Debug)]
pub struct WardDevice {
    pub device: VirtualDevice,
    pub config: &'static str,
    pub first: Duration,
    pub every: Duration,
}

pub fn devices() -> Vec<WardDevice> {
    let device = |kind, address, name, config, first, every| WardDevice {
        device: VirtualDevice::new(kind, address, name),
        config,
        first: Duration::from_secs(first),
        every: Duration::from_secs(every),
    };
    vec![
        device(Kind::OximeterContinuous, OXI_1, "oxi-1", "bed = \"bed-1\"", 0, 1),
        device(Kind::OximeterContinuous, OXI_2, "oxi-2", "bed = \"bed-2\"", 0, 1),
        device(Kind::HeartRateStrap, STRAP, "strap", "patient = \"p-ben\"", 0, 1),
        device(Kind::Thermometer, THERMO, "thermo", "bed = \"bed-3\"", 5, 10),
        device(Kind::Cuff, CUFF_1, "cuff-1", "bed = \"bed-1\"", 4, 12),
        device(Kind::Cuff, CUFF_2, "cuff-2", "", 10, 12),
    ]
}

/// Who is measured by a device from some moment on.
pub type Wearing = (&'static str, Option<&'static str>);
/// A command of bedrail, in words.
pub type Command = &'static [&'static str];

pub const AT_FIRST: [Wearing; 6] =
    [(OXI_1, Some(ADA)), (CUFF_1, Some(ADA)), (OXI_2, None), (STRAP, Some(BEN)), (CUFF_2, Some(BEN)), (THERMO, Some(CLEO))];
/// The strap is Ben's by the config.
pub const ADMIT: [Command; 3] =
    [&["assign", "--bed", "bed-1", ADA], &["assign", "--bed", "bed-3", CLEO], &["assign", "--device", "cuff-2", BEN]];

pub enum Act {
    /// The broker gets what is sent and its acknowledgements are lost: that is where repeats come from.
    LoseReplies,
    CutBroker,
    MendBroker,
    /// The world changes, and somebody tells bedrail.
    Change {
        wearing: &'static [Wearing],
        commands: &'static [Command],
    },
}

pub struct Step {
    /// In thousandths of the time the devices measure.
    pub at_permille: u32,
    pub says: &'static str,
    pub act: Act,
}

/// At 14, 15, 22, 26 and 35 s of 50.
pub fn steps() -> Vec<Step> {
    let step = |at_permille, says, act| Step { at_permille, says, act };
    vec![
        step(280, "the way back from the broker fails: it has the values, the gateway cannot know", Act::LoseReplies),
        step(300, "the broker is cut off: connections reset, new ones refused", Act::CutBroker),
        step(
            440,
            "cuff-2 goes from p-ben to p-cleo",
            Act::Change {
                wearing: &[(CUFF_2, Some(CLEO))],
                commands: &[&["unassign", "--device", "cuff-2"], &["assign", "--device", "cuff-2", CLEO]],
            },
        ),
        step(
            520,
            "p-ada is transferred from bed-1 to bed-2; the probes at bed-1 go on without a patient",
            Act::Change {
                wearing: &[(OXI_1, None), (CUFF_1, None), (OXI_2, Some(ADA))],
                commands: &[&["unassign", "--bed", "bed-1"], &["assign", "--bed", "bed-2", ADA]],
            },
        ),
        step(700, "the broker can be reached again; the gateway will notice at its next try", Act::MendBroker),
    ]
}

/// Who was really measured by which device, over time.
#[derive(Debug, Default)]
pub struct Truth {
    turns: BTreeMap<&'static str, Vec<Turn>>,
}

#[derive(Debug)]
struct Turn {
    /// From `begins` to `certain` the change was under way: somebody was typing.
    begins: SystemTime,
    certain: SystemTime,
    patient: Option<&'static str>,
}

impl Truth {
    pub fn change(&mut self, wearing: &[Wearing], begins: SystemTime, certain: SystemTime) {
        for &(device, patient) in wearing {
            self.turns.entry(device).or_default().push(Turn { begins, certain, patient });
        }
    }

    /// Whose a value of this time may be: one answer, or several near a change. `None` is nobody.
    pub fn possible(&self, device: &str, at: SystemTime) -> BTreeSet<Option<&'static str>> {
        let turns = self.turns.get(device).map_or(&[][..], Vec::as_slice);
        let holds = |index: usize, turn: &Turn| {
            let ends = turns.get(index + 1).map(|next| next.certain + EITHER);
            turn.begins <= at + EITHER && ends.is_none_or(|ends| at <= ends)
        };
        turns.iter().enumerate().filter(|(index, turn)| holds(*index, turn)).map(|(_, turn)| turn.patient).collect()
    }
}
