//! What a profile may write, octet by octet; what the procedures may is in [`crate::procedure::writable`], the gate of both. A
//! device that also gives therapy is told nothing but the time and "send your measurements".

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

pub fn may_write(characteristic: Uuid, octets: &[u8]) -> bool {
    WRITABLE.iter().any(|row| row.characteristic == characteristic && row.values.contains(&octets))
}

/// A clock may be set where the standard has one.
pub fn may_set_clock(characteristic: Uuid) -> bool {
    WRITABLE.iter().any(|row| row.characteristic == characteristic && row.values.is_empty())
}
