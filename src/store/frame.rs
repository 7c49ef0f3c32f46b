//! A frame: the records of one commit as one compressed, checksummed value.
//!
//! Format 1 is zstd over postcard of the [`Record`]s in order. A record's layout is the format: a changed field is a new
//! format number and a branch in [`decode`], never a silent change. Format 2 has behind the records what each one's device told
//! of itself; it is written only where some device was asked.

use ring::digest;
use zstd::zstd_safe::get_frame_content_size;

use super::StoreError;
use crate::reading::{Nameplate, Record};

const RECORDS: i64 = 1;
const WITH_NAMEPLATES: i64 = 2;
/// The records of a frame at most: one full commit of a burst. It bounds what a reader holds at once.
pub const MAX_RECORDS: usize = 4_096;
/// A frame never unpacks to more than this; a damaged length can't ask for memory.
const MAX_BODY: u64 = 32 << 20;
/// Level 3 is zstd's own default: the next levels cost more CPU on a Pi than the octets they save.
const LEVEL: i32 = 3;

/// The format, and the records in it.
pub fn encode(records: &[Record]) -> (i64, Vec<u8>) {
    let nameplates: Vec<Option<&Nameplate>> = records.iter().map(|record| record.nameplate.as_ref()).collect();
    let (format, plain) = match nameplates.iter().any(Option::is_some) {
        false => (RECORDS, postcard::to_stdvec(records)),
        true => (WITH_NAMEPLATES, postcard::to_stdvec(&(records, nameplates))),
    };
    let plain = plain.expect("records are plain data");
    (format, zstd::bulk::compress(&plain, LEVEL).expect("zstd compresses any octets"))
}

pub fn decode(first: u64, format: i64, body: &[u8]) -> Result<Vec<Record>, StoreError> {
    let bad = |what| StoreError::BadFrame { first, what };
    if ![RECORDS, WITH_NAMEPLATES].contains(&format) {
        return Err(bad("written in a format this bedrail does not know"));
    }
    let length = get_frame_content_size(body).ok().flatten().filter(|length| *length <= MAX_BODY);
    let length = length.and_then(|length| usize::try_from(length).ok()).ok_or_else(|| bad("does not unpack"))?;
    let plain = zstd::bulk::decompress(body, length).map_err(|_| bad("does not unpack"))?;
    if format == RECORDS {
        return postcard::from_bytes(&plain).map_err(|_| bad("does not decode"));
    }
    let (mut records, nameplates): (Vec<Record>, Vec<Option<Nameplate>>) =
        postcard::from_bytes(&plain).map_err(|_| bad("does not decode"))?;
    if records.len() != nameplates.len() {
        return Err(bad("does not decode"));
    }
    records.iter_mut().zip(nameplates).for_each(|(record, nameplate)| record.nameplate = nameplate);
    Ok(records)
}

/// The first eight octets of SHA-256 over the body: damage that page authentication does not see (a bug, bad memory).
pub fn checksum(body: &[u8]) -> [u8; 8] {
    digest::digest(&digest::SHA256, body).as_ref()[..8].try_into().expect("SHA-256 is longer than eight octets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Body, BootId, BootMillis, DeviceId, Event, NoValue, RecordId, Stamp};

    fn record(nameplate: Option<Nameplate>) -> Record {
        Record {
            id: RecordId([3; 16]),
            version: 1,
            device: DeviceId::new([1; 6]),
            stream: None,
            stamp: Stamp { boot: BootId([0; 16]), arrived: BootMillis(0), device_time: None, device_clock: None, stored: false },
            body: Body::Event(Event::NoValue(NoValue::SensorOff)),
            nameplate,
        }
    }

    #[test]
    fn a_frame_is_of_the_first_format_where_no_device_was_asked_and_both_are_read() {
        let told = Some(Nameplate { serial: Some("501482210".to_owned()), model: None });
        for (records, wanted) in [(vec![record(None), record(None)], 1), (vec![record(None), record(told)], 2)] {
            let (format, body) = encode(&records);
            assert_eq!((format, decode(1, format, &body).unwrap()), (wanted, records));
        }
        let (_, body) = encode(&[record(None)]);
        assert!(decode(1, 3, &body).is_err(), "a format of a later bedrail");
    }
}
