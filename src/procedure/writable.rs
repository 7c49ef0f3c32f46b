//! All that is ever written to a device, what a profile may, octet by octet, and what the procedures do, by its first octets. Every write passes [`passes`]; what is not here is not written, whoever asks: a device that also gives therapy is told
//! nothing but the time, a user's consent and "send your measurements", and nothing on it is ever deleted.

use uuid::Uuid;

use crate::gatt::sig_uuid;

#[derive(Clone, Copy, Debug)]
pub struct Writable {
    pub characteristic: Uuid,
    /// One of these, whole; empty: what sets a clock.
    pub values: &'static [&'static [u8]],
    pub what: &'static str,
}

/// Sources of vendors' opcodes: the open drivers named in config/profiles.
pub const WRITABLE: &[Writable] = &[
    Writable { characteristic: sig_uuid(0x2A08), values: &[], what: "Date Time: the clock" },
    Writable { characteristic: sig_uuid(0x2A2B), values: &[], what: "Current Time: the clock" },
    Writable {
        characteristic: sig_uuid(0xFF01),
        values: &[&[0x9B, 0x01, 0x1C], &[0x9B, 0x7F, 0x1A], &[0x9A, 0x1A]],
        what: "Contec CMS50D and its kin: start and stop what is measured now; still here",
    },
    Writable {
        characteristic: sig_uuid(0xFF01),
        values: &[&[0x99, 0x00, 0x19], &[0x99, 0x01, 0x1A]],
        what: "Beurer PO60: send the first, the next ten records (never 99 7F, which deletes them)",
    },
    Writable {
        characteristic: Uuid::from_u128(0x54C2_1001_A720_4B4F_11E4_9FE2_0002_A5D5),
        values: &[&[0x77, 0x02, 0x01, 0x07], &[0x77, 0x05, 0x03, 0x1F, 0x00, 0x03, 0xD6]],
        what: "Masimo MightySat: tell about yourself, start (never 77 02 07 15, which clears its memory)",
    },
    Writable {
        characteristic: Uuid::from_u128(0x8B00_ACE7_EB0B_49B0_BBE9_9AEE_0A26_E1A3),
        values: &[&[0xAA, 0x17, 0xE8, 0x00, 0x00, 0x00, 0x00, 0x1B]],
        what: "Viatom O2Ring and Checkme O2: tell what is measured now",
    },
];

/// What the procedures write begins with one of these.
struct Asked {
    characteristic: Uuid,
    prefixes: &'static [&'static [u8]],
}

/// What the standard services' procedures write; no profile may.
const PROCEDURES: &[Asked] = &[
    // Record Access Control Point: report records; abort (never 02, which deletes them).
    Asked { characteristic: sig_uuid(0x2A52), prefixes: &[&[0x01], &[0x03, 0x00]] },
    // User Control Point: consent of a user (never 01, 03 and 05, which register and delete).
    Asked { characteristic: sig_uuid(0x2A9F), prefixes: &[&[0x02]] },
];

/// How long what sets a clock is; a sensor's is the start of its session, where it has none.
const CLOCK_OCTETS: &[(Uuid, &[usize])] = &[(sig_uuid(0x2A08), &[7]), (sig_uuid(0x2A2B), &[10]), (sig_uuid(0x2AAA), &[9, 11])];

/// Whether a write may leave the gateway at all.
pub fn passes(characteristic: Uuid, octets: &[u8]) -> bool {
    let asks = |row: &Asked| row.characteristic == characteristic && row.prefixes.iter().any(|prefix| octets.starts_with(prefix));
    let is_clock = |(uuid, lengths): &(Uuid, &[usize])| *uuid == characteristic && lengths.contains(&octets.len());
    may_write(characteristic, octets) || PROCEDURES.iter().any(asks) || CLOCK_OCTETS.iter().any(is_clock)
}

pub fn may_write(characteristic: Uuid, octets: &[u8]) -> bool {
    WRITABLE.iter().any(|row| row.characteristic == characteristic && row.values.contains(&octets))
}

/// A clock may be set where the standard has one.
pub fn may_set_clock(characteristic: Uuid) -> bool {
    WRITABLE.iter().any(|row| row.characteristic == characteristic && row.values.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{
        Bound, CgmQuestion, CgmSessionStartTime, ConsentCode, RecordAccessControlPoint, StoredRecords, UserControlPoint,
    };

    #[test]
    fn nothing_therapeutic_and_nothing_that_deletes_leaves_the_gateway() {
        for (what, uuid, octets) in [
            ("delete all records", 0x2A52, &[0x02, 0x01][..]),
            ("delete all records, combined", 0x2A52, &[0x07, 0x01]),
            ("register a user", 0x2A9F, &[0x01, 0, 0]),
            ("delete a user's data", 0x2A9F, &[0x03]),
            ("delete a user", 0x2A9F, &[0x05, 1]),
            ("calibrate a sensor", 0x2AAC, &[0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("start a session", 0x2AAC, &[0x1A]),
            ("stop a session", 0x2AAC, &[0x1B]),
            ("silence an alert", 0x2AAC, &[0x19]),
            ("command an insulin pump", 0x2B25, &[0x0F, 0x55]),
            ("half a clock", 0x2A2B, &[0xEA, 0x07]),
            ("nothing", 0x2A52, &[]),
            ("a name", 0x2A00, b"cuff"),
        ] {
            assert!(!passes(sig_uuid(uuid), octets), "{what}");
        }
    }

    #[test]
    fn what_the_procedures_ask_passes() {
        let requests = [StoredRecords::All, StoredRecords::Last, StoredRecords::From(Bound::Sequence16(7))];
        let asked = requests.map(|records| RecordAccessControlPoint::Report(records).encode());
        assert!(asked.iter().all(|octets| passes(sig_uuid(0x2A52), octets)));
        assert!(passes(sig_uuid(0x2A52), &RecordAccessControlPoint::Abort.encode()));
        let consent = UserControlPoint::Consent(1, ConsentCode(1234)).encode().expect("it is written");
        assert!(passes(sig_uuid(0x2A9F), &consent));
        assert!(passes(sig_uuid(0x2AAA), &CgmSessionStartTime::encode([0xEA, 7, 1, 1, 0, 0, 0], 4, 0, true)));
        assert!(!passes(sig_uuid(0x2AAC), &CgmQuestion::PatientHigh.encode(false)), "even questions of that point are not asked");
    }
}
