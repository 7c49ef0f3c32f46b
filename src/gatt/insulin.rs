//! Insulin Delivery Service (183A), for reading alone: what a pump is doing and what it has left. Its command control point is
//! in no table of bedrail's, so nothing can ever be written to it.

use super::crc::Checked;
use super::fields::{Names, named_bits};
use super::{Cursor, Decode, DecodeError, Field, Fields, Number};

const THERAPY: Names = &[(0x0F, "undetermined"), (0x33, "stop"), (0x3C, "pause"), (0x55, "run")];
const OPERATIONAL: Names = &[
    (0x0F, "undetermined"),
    (0x33, "off"),
    (0x3C, "standby"),
    (0x55, "preparing"),
    (0x5A, "priming"),
    (0x66, "waiting"),
    (0x96, "ready"),
];
const FLAGS: Names = &[(0, "reservoir_attached")];
const RESERVOIR_ATTACHED: u32 = 1 << 0;

/// What a device with end-to-end protection puts at the end: a counter and a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protection {
    counter: Option<u8>,
    checked: Checked,
}

impl Protection {
    fn decode(cursor: &mut Cursor<'_>, whole: &[u8]) -> Result<Self, DecodeError> {
        let counter = match cursor.left() {
            3 => Some(cursor.u8("e2e_counter")?),
            0 if !cursor.context().e2e_crc => return Ok(Self { counter: None, checked: Checked(false) }),
            _ => None,
        };
        Ok(Self { counter, checked: cursor.crc_at_end(&whole[..whole.len() - cursor.left()])? })
    }

    fn add_to(self, fields: Fields) -> Fields {
        self.checked.add_to(fields.with_sent("e2e_counter", self.counter.map(|counter| Field::Integer(counter.into()))))
    }
}

/// IDD Status (2B21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IddStatus {
    therapy: u8,
    operational: u8,
    /// International units.
    pub reservoir: Number,
    pub reservoir_attached: bool,
    protection: Protection,
}

impl Decode for IddStatus {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let whole = cursor.ahead();
        let therapy = cursor.code("therapy_control", THERAPY)?;
        let operational = cursor.code("operational", OPERATIONAL)?;
        let reservoir = cursor.sfloat("reservoir")?;
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), named_bits(FLAGS));
        let protection = Protection::decode(cursor, whole)?;
        Ok(Self { therapy, operational, reservoir, reservoir_attached: flags & RESERVOIR_ATTACHED != 0, protection })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new()
            .with("therapy_control", Field::Code(self.therapy, THERAPY))
            .with("operational", Field::Code(self.operational, OPERATIONAL))
            .with("reservoir", Field::Quantity(self.reservoir, "[IU]"))
            .with("reservoir_attached", Field::Bool(self.reservoir_attached));
        self.protection.add_to(fields)
    }
}

const CHANGED: Names = &[
    (0, "therapy_control_state"),
    (1, "operational_state"),
    (2, "reservoir_status"),
    (3, "annunciation_status"),
    (4, "total_daily_insulin_status"),
    (5, "active_basal_rate_status"),
    (6, "active_bolus_status"),
    (7, "history_event_recorded"),
];

/// IDD Status Changed (2B20): what is worth reading again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IddStatusChanged {
    changed: u32,
    protection: Protection,
}

impl Decode for IddStatusChanged {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let whole = cursor.ahead();
        let bits = cursor.u16("changed")?;
        let changed = cursor.known_bits(bits.into(), named_bits(CHANGED));
        Ok(Self { changed, protection: Protection::decode(cursor, whole)? })
    }

    fn fields(&self) -> Fields {
        self.protection.add_to(Fields::new().with("changed", Field::Bits(self.changed, CHANGED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::crc::crc16;
    use crate::gatt::{find, read};

    #[test]
    fn a_protected_status_is_refused_when_damaged() {
        let mut octets = vec![0x55, 0x96, 0x96, 0, 1, 7];
        octets.extend(crc16(&octets).to_le_bytes());
        let (status, warnings) = read::<IddStatus>(&octets).expect("a status");
        assert_eq!((status.protection, warnings), (Protection { counter: Some(7), checked: Checked(true) }, vec![]));
        octets[2] ^= 1;
        assert_eq!(read::<IddStatus>(&octets).map_err(|error| error.name()), Err("crc_mismatch"));
    }

    #[test]
    fn a_pumps_command_control_point_is_in_no_table() {
        for uuid in ["2B25", "2B26"] {
            assert!(find(uuid).is_err(), "{uuid}");
        }
    }
}
