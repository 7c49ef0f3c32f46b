//! Values longer than a notification come in segments: an octet that says first, last and a rolling counter, then a piece. A
//! joiner puts the pieces of one value together in bounded memory and time; a gap drops what was there, and says so.

use super::crc::{START, crc16_on};
use super::{DecodeError, SegmentFault};
use crate::reading::BootMillis;

const FIRST: u8 = 1 << 0;
const LAST: u8 = 1 << 1;
const COUNTER_SHIFT: u8 = 2;
const COUNTERS: u8 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: bool,
    pub last: bool,
    pub counter: u8,
}

impl Segment {
    pub const fn of_header(octet: u8) -> Self {
        Self { first: octet & FIRST != 0, last: octet & LAST != 0, counter: octet >> COUNTER_SHIFT }
    }
}

/// Puts the segments of one characteristic of one device together. `PREFIX` octets after the header repeat in every segment
/// and are kept once.
#[derive(Clone, Debug, Default)]
pub struct SegmentJoiner<const PREFIX: usize = 0> {
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    octets: Vec<u8>,
    /// Over all octets so far, headers and all.
    crc: u16,
    counter: u8,
    heard: BootMillis,
}

impl<const PREFIX: usize> SegmentJoiner<PREFIX> {
    /// Two seconds of a three-lead ECG at 500 Hz are 6 KB: nothing a bedside device sends at once is longer.
    pub const MAX_OCTETS: usize = 16 * 1024;
    /// Segments follow each other within a connection interval, which is at most 4 s.
    pub const WAIT_MS: u64 = 10_000;

    /// Takes a segment. A value under way that it does not continue is dropped; a first segment begins the next all the same.
    pub fn push(&mut self, now: BootMillis, octets: &[u8]) -> Pushed {
        let late = self.due(now);
        let pushed = self.push_in_time(now, octets);
        Pushed { fault: late.or(pushed.fault), ..pushed }
    }

    fn push_in_time(&mut self, now: BootMillis, octets: &[u8]) -> Pushed {
        let before = self.open.take();
        let Some((header, body)) = octets.split_first() else { return Pushed::fault(SegmentFault::Empty) };
        let Segment { first, last, counter } = Segment::of_header(*header);
        if first {
            let fault = before.map(|_| SegmentFault::Interrupted);
            return Pushed { value: self.begin(now, octets, counter, last), fault };
        }
        let Some(mut open) = before else { return Pushed::fault(SegmentFault::NoFirst) };
        if counter != (open.counter + 1) % COUNTERS {
            return Pushed::fault(SegmentFault::Skipped);
        }
        let Some((prefix, piece)) = body.split_at_checked(PREFIX) else { return Pushed::fault(SegmentFault::Mixed) };
        if open.octets.get(..PREFIX) != Some(prefix) {
            return Pushed::fault(SegmentFault::Mixed);
        }
        if open.octets.len() + piece.len() > Self::MAX_OCTETS {
            return Pushed::fault(SegmentFault::TooLong);
        }
        open.octets.extend_from_slice(piece);
        if last {
            return Pushed { value: Some(Joined::new(open.octets, open.crc, octets)), fault: None };
        }
        self.open = Some(Open { crc: crc16_on(open.crc, octets), counter, heard: now, ..open });
        Pushed::default()
    }

    fn begin(&mut self, now: BootMillis, octets: &[u8], counter: u8, last: bool) -> Option<Joined> {
        let body = octets.get(1..).unwrap_or_default().to_vec();
        if last {
            return Some(Joined::new(body, START, octets));
        }
        self.open = Some(Open { octets: body, crc: crc16_on(START, octets), counter, heard: now });
        None
    }

    /// Drops a value whose next segment is overdue, and says so.
    pub fn due(&mut self, now: BootMillis) -> Option<SegmentFault> {
        let open = self.open.as_ref()?;
        if now.0.saturating_sub(open.heard.0) > Self::WAIT_MS { self.finish() } else { None }
    }

    /// The link is gone: drops a value under way, and says so.
    pub fn finish(&mut self) -> Option<SegmentFault> {
        self.open.take().map(|_| SegmentFault::NoLast)
    }
}

/// A value put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Without the headers, and the prefix once.
    pub octets: Vec<u8>,
    /// Over all octets of all segments but the last two, where a service puts a checksum.
    pub crc: u16,
}

impl Joined {
    fn new(octets: Vec<u8>, crc: u16, last_segment: &[u8]) -> Self {
        let checked = last_segment.len().saturating_sub(2);
        Self { octets, crc: crc16_on(crc, &last_segment[..checked]) }
    }
}

/// What a segment came to: the value it completed, and why a value under way was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    pub value: Option<Joined>,
    pub fault: Option<SegmentFault>,
}

impl Pushed {
    const fn fault(fault: SegmentFault) -> Self {
        Self { value: None, fault: Some(fault) }
    }
}

/// The one value that all these segments make.
pub fn join<const PREFIX: usize>(segments: &[&[u8]]) -> Result<Joined, DecodeError> {
    let mut joiner = SegmentJoiner::<PREFIX>::default();
    let mut value = None;
    for segment in segments {
        if value.is_some() {
            return Err(DecodeError::Segment(SegmentFault::AfterLast));
        }
        let pushed = joiner.push_in_time(BootMillis(0), segment);
        if let Some(fault) = pushed.fault {
            return Err(DecodeError::Segment(fault));
        }
        value = pushed.value;
    }
    value.ok_or(DecodeError::Segment(SegmentFault::NoLast))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::crc::crc16;
    use proptest::prelude::*;

    fn header(first: bool, last: bool, counter: u8) -> u8 {
        u8::from(first) | u8::from(last) << 1 | counter << COUNTER_SHIFT
    }

    fn fault(pushed: &Pushed) -> Option<SegmentFault> {
        assert_eq!(pushed.value, None);
        pushed.fault
    }

    fn value(pushed: Pushed) -> Option<Vec<u8>> {
        pushed.value.map(|joined| joined.octets)
    }

    #[test]
    fn a_gap_drops_the_value_and_says_what_is_missing() {
        let mut joiner = SegmentJoiner::<0>::default();
        let now = BootMillis(0);
        assert_eq!(fault(&joiner.push(now, &[])), Some(SegmentFault::Empty));
        assert_eq!(fault(&joiner.push(now, &[header(false, true, 1), 2])), Some(SegmentFault::NoFirst));
        assert_eq!(joiner.push(now, &[header(true, false, 0), 1]), Pushed::default());
        assert_eq!(fault(&joiner.push(now, &[header(false, true, 2), 2])), Some(SegmentFault::Skipped));
        assert_eq!(joiner.push(now, &[header(true, false, 5), 1]), Pushed::default());
        assert_eq!(fault(&joiner.push(now, &[header(true, false, 6), 7])), Some(SegmentFault::Interrupted));
        assert_eq!(value(joiner.push(now, &[header(false, true, 7), 8])), Some(vec![7, 8]), "the new one goes on");
        assert_eq!(joiner.push(now, &[header(true, false, 0), 1]), Pushed::default());
        assert_eq!(joiner.finish(), Some(SegmentFault::NoLast));
    }

    #[test]
    fn a_whole_value_after_a_broken_one_is_not_lost_with_it() {
        let mut joiner = SegmentJoiner::<0>::default();
        joiner.push(BootMillis(0), &[header(true, false, 0), 1]);
        let pushed = joiner.push(BootMillis(1), &[header(true, true, 1), 2]);
        assert_eq!((pushed.fault, value(pushed)), (Some(SegmentFault::Interrupted), Some(vec![2])));
        joiner.push(BootMillis(2), &[header(true, false, 2), 1]);
        let pushed = joiner.push(BootMillis(60_000), &[header(true, true, 3), 4]);
        assert_eq!((pushed.fault, value(pushed)), (Some(SegmentFault::NoLast), Some(vec![4])));
    }

    #[test]
    fn a_value_that_stops_coming_is_dropped_after_its_time() {
        let mut joiner = SegmentJoiner::<0>::default();
        joiner.push(BootMillis(0), &[header(true, false, 0), 1]);
        assert_eq!(joiner.due(BootMillis(SegmentJoiner::<0>::WAIT_MS)), None);
        assert_eq!(joiner.due(BootMillis(SegmentJoiner::<0>::WAIT_MS + 1)), Some(SegmentFault::NoLast));
        assert_eq!(joiner.finish(), None);
    }

    #[test]
    fn segments_of_two_records_are_never_one() {
        let segments: [&[u8]; 2] = [&[header(true, false, 0), 1, 0, 9], &[header(false, true, 1), 2, 0, 9]];
        assert_eq!(join::<2>(&segments), Err(DecodeError::Segment(SegmentFault::Mixed)));
        let segments: [&[u8]; 2] = [&[header(true, false, 0), 1, 0, 9], &[header(false, true, 1), 1, 0, 8]];
        let joined = join::<2>(&segments).expect("one value");
        assert_eq!((joined.octets, joined.crc), (vec![1, 0, 9, 8], crc16(&[header(true, false, 0), 1, 0, 9, 6, 1])));
        let segments: [&[u8]; 2] = [&[header(true, true, 0), 1], &[header(true, true, 1), 1]];
        assert_eq!(join::<0>(&segments), Err(DecodeError::Segment(SegmentFault::AfterLast)));
    }

    #[test]
    fn no_device_makes_a_joiner_grow_without_end() {
        let mut joiner = SegmentJoiner::<0>::default();
        let faults: Vec<_> = (0..40u8)
            .map_while(|at| Some(joiner.push(BootMillis(0), &[&[header(at == 0, false, at)][..], &[0; 500]].concat()).fault))
            .take_while(Option::is_none)
            .collect();
        assert_eq!(faults.len(), SegmentJoiner::<0>::MAX_OCTETS / 500);
    }

    proptest! {
        #[test]
        fn any_value_cut_anywhere_is_put_together_again(
            value in proptest::collection::vec(any::<u8>(), 1..300),
            size in 1usize..40,
            start in 0u8..64,
        ) {
            let pieces: Vec<&[u8]> = value.chunks(size).collect();
            let segments: Vec<Vec<u8>> = pieces.iter().enumerate().map(|(at, piece)| {
                let counter = u8::try_from((usize::from(start) + at) % 64).expect("below 64");
                [&[header(at == 0, at + 1 == pieces.len(), counter)][..], piece].concat()
            }).collect();
            let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(join::<0>(&segments).map(|joined| joined.octets), Ok(value));
        }
    }
}
