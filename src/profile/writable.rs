//! What a profile may write, by characteristic and first octets. What is not here is not written, whoever asks: a device
//! that also gives therapy is told nothing but the time and "send your measurements".

use uuid::Uuid;

use crate::gatt::sig_uuid;

#[derive(Clone, Copy, Debug)]
pub struct Writable {
    pub characteristic: Uuid,
    /// The octets must begin with one of these; empty: anything that sets a clock.
    pub prefixes: &'static [&'static [u8]],
    pub what: &'static str,
}

/// Sources of vendors' opcodes: the open drivers named in docs/profiles.md.
pub const WRITABLE: &[Writable] = &[
    Writable { characteristic: sig_uuid(0x2A08), prefixes: &[], what: "Date Time: the clock" },
    Writable { characteristic: sig_uuid(0x2A2B), prefixes: &[], what: "Current Time: the clock" },
    Writable {
        characteristic: sig_uuid(0xFF01),
        prefixes: &[&[0x9B, 0x01, 0x1C], &[0x99, 0x00], &[0x99, 0x01]],
        what: "Contec CMS50D: start; Beurer PO60: send the first, the next ten records (never 99 7F, which deletes them)",
    },
];

pub fn may_write(characteristic: Uuid, octets: &[u8]) -> bool {
    let of = |row: &&Writable| row.characteristic == characteristic;
    WRITABLE.iter().filter(of).any(|row| row.prefixes.iter().any(|prefix| octets.starts_with(prefix)))
}

/// A clock may be set where the standard has one.
pub fn may_set_clock(characteristic: Uuid) -> bool {
    WRITABLE.iter().any(|row| row.characteristic == characteristic && row.prefixes.is_empty())
}
