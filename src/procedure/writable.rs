//! The gate that every write to a device passes: what the procedures of the standard services write, what sets a clock, and
//! what a profile may ([`crate::profile::WRITABLE`]). What is on none of these lists is not written, whoever asks: a device that
//! also gives therapy is told nothing but the time, a user's consent and "send your measurements", and nothing on it is ever
//! deleted.

use uuid::Uuid;

use crate::gatt::sig_uuid;
use crate::profile;

/// Characteristic and first octets of what the procedures write; no profile may.
const PROCEDURES: &[(Uuid, &[&[u8]])] = &[
    // Record Access Control Point: report records; abort. Never 02, which deletes them.
    (sig_uuid(0x2A52), &[&[0x01], &[0x03, 0x00]]),
    // User Control Point: consent of a user. Never 01, 03 and 05, which register and delete.
    (sig_uuid(0x2A9F), &[&[0x02]]),
];

/// Date Time, Current Time, and the start of a glucose sensor's session where it has none: how many octets set them.
const CLOCKS: &[(Uuid, &[usize])] = &[(sig_uuid(0x2A08), &[7]), (sig_uuid(0x2A2B), &[10]), (sig_uuid(0x2AAA), &[9, 11])];

pub fn passes(characteristic: Uuid, octets: &[u8]) -> bool {
    let begins = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| octets.starts_with(prefix));
    PROCEDURES.iter().any(|(uuid, prefixes)| *uuid == characteristic && begins(prefixes))
        || CLOCKS.iter().any(|(uuid, lengths)| *uuid == characteristic && lengths.contains(&octets.len()))
        || profile::may_write(characteristic, octets)
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
