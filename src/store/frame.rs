//! A frame: the records of one commit as one compressed, checksummed value.
//!
//! Format 1 is zstd over postcard of the [`Record`]s in order. A record's layout is the format: a changed field is a new
//! format number and a branch in [`decode`], never a silent change.

use ring::digest;
use zstd::zstd_safe::get_frame_content_size;

use super::StoreError;
use crate::reading::Record;

pub const FORMAT: i64 = 1;
/// The records of a frame at most: one full commit of a burst. It bounds what a reader holds at once.
pub const MAX_RECORDS: usize = 4_096;
/// A frame never unpacks to more than this; a damaged length can't ask for memory.
const MAX_BODY: u64 = 32 << 20;
/// Level 3 is zstd's own default: the next levels cost more CPU on a Pi than the octets they save.
const LEVEL: i32 = 3;

pub fn encode(records: &[Record]) -> Vec<u8> {
    let plain = postcard::to_stdvec(records).expect("records are plain data");
    zstd::bulk::compress(&plain, LEVEL).expect("zstd compresses any octets")
}

pub fn decode(first: u64, format: i64, body: &[u8]) -> Result<Vec<Record>, StoreError> {
    let bad = |what| StoreError::BadFrame { first, what };
    if format != FORMAT {
        return Err(bad("written in a format this bedrail does not know"));
    }
    let length = get_frame_content_size(body).ok().flatten().filter(|length| *length <= MAX_BODY);
    let length = length.and_then(|length| usize::try_from(length).ok()).ok_or_else(|| bad("does not unpack"))?;
    let plain = zstd::bulk::decompress(body, length).map_err(|_| bad("does not unpack"))?;
    postcard::from_bytes(&plain).map_err(|_| bad("does not decode"))
}

/// The first eight octets of SHA-256 over the body: damage that page authentication does not see (a bug, bad memory).
pub fn checksum(body: &[u8]) -> [u8; 8] {
    digest::digest(&digest::SHA256, body).as_ref()[..8].try_into().expect("SHA-256 is longer than eight octets")
}
