//! Frames that come in several packets, put together in bounded memory and time; what does not fit together is dropped and
//! said, and never guessed at.

use super::Profile;
use super::frame::{Condition, Source};
use crate::gatt::SegmentFault;
use crate::reading::BootMillis;

/// A frame is no longer, in however many packets it comes: an attribute of Bluetooth is no longer either (Core
/// Specification, Vol 3, Part F, 3.2.9).
pub const MAX_FRAME: usize = 512;
/// The packets of a frame follow each other within a connection interval, which is at most 4 s.
const WAIT_MS: u64 = 10_000;

/// How the frames of a source lie in its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packets {
    /// A frame says how long it is, and ends in a checksum; the next may begin in the same packet.
    Told { begins: Vec<Condition>, length: Told },
    /// A packet begins with an octet that says whether it is the frame's first, its last, and perhaps which.
    Headed { first: u8, last: u8, counter_shift: Option<u8> },
}

/// Where a frame says how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub at: usize,
    pub octets: usize,
    pub big: bool,
    /// And so many octets more.
    pub add: usize,
}

impl Told {
    /// `None` while it has not come.
    fn of(self, octets: &[u8]) -> Option<usize> {
        let told = octets.get(self.at..self.at + self.octets)?;
        let fold = |sum: usize, octet: &u8| sum << 8 | usize::from(*octet);
        let told = if self.big { told.iter().fold(0, fold) } else { told.iter().rev().fold(0, fold) };
        Some(told + self.add)
    }
}

/// Puts together what a device tells, by its profile.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// What is under way of each.
    sources: Vec<(Source, Packets, Option<Open>)>,
}

#[derive(Clone, Debug)]
struct Open {
    octets: Vec<u8>,
    counter: u8,
    heard: BootMillis,
}

/// What a packet came to: the frames it completed, and why something was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    pub frames: Vec<Vec<u8>>,
    pub fault: Option<SegmentFault>,
}

impl Assembly {
    pub fn new(profile: &Profile) -> Self {
        let sources = profile.packets.iter().map(|(source, packets)| (source.clone(), packets.clone(), None));
        Self { sources: sources.collect() }
    }

    /// `None` where a packet is a frame.
    pub fn push(&mut self, now: BootMillis, source: &Source, packet: &[u8]) -> Option<Assembled> {
        let (_, packets, open) = self.sources.iter_mut().find(|(of, ..)| of == source)?;
        let (before, late) = match open.take() {
            Some(open) if now.0.saturating_sub(open.heard.0) > WAIT_MS => (None, Some(SegmentFault::NoLast)),
            before => (before, None),
        };
        let (assembled, goes_on) = match packets {
            Packets::Told { begins, length } => told(begins, *length, before, now, packet),
            Packets::Headed { first, last, counter_shift } => headed((*first, *last, *counter_shift), before, now, packet),
        };
        *open = goes_on;
        Some(Assembled { fault: late.or(assembled.fault), ..assembled })
    }

    /// A frame of this source is under way.
    pub fn is_open(&self, source: &Source) -> bool {
        self.sources.iter().any(|(of, _, open)| of == source && open.is_some())
    }

    /// The link is gone: drops what is under way, and says of how many frames.
    pub fn finish(&mut self) -> usize {
        self.sources.iter_mut().filter_map(|(.., open)| open.take()).count()
    }
}

fn told(begins: &[Condition], length: Told, before: Option<Open>, now: BootMillis, packet: &[u8]) -> (Assembled, Option<Open>) {
    let mut octets = before.map(|open| open.octets).unwrap_or_default();
    octets.extend_from_slice(packet);
    let mut assembled = Assembled::default();
    let needed = begins.iter().map(|condition| condition.at + condition.eq.len()).fold(length.at + length.octets, usize::max);
    while !octets.is_empty() {
        let begun = octets.len() < needed || begins.iter().all(|condition| condition.holds(&octets));
        let whole = length.of(&octets);
        // A frame that ends before it has said how long it is, is none.
        let bad = !begun || whole.is_some_and(|whole| whole < needed || whole > MAX_FRAME);
        if bad {
            assembled.fault = Some(if begun { SegmentFault::TooLong } else { SegmentFault::NoFirst });
            return (assembled, None);
        }
        match whole {
            Some(whole) if octets.len() >= whole => {
                let rest = octets.split_off(whole);
                assembled.frames.push(std::mem::replace(&mut octets, rest));
            }
            _ => return (assembled, Some(Open { octets, counter: 0, heard: now })),
        }
    }
    (assembled, None)
}

fn headed(
    (first, last, counter_shift): (u8, u8, Option<u8>),
    before: Option<Open>,
    now: BootMillis,
    packet: &[u8],
) -> (Assembled, Option<Open>) {
    let fault = |fault| (Assembled { fault: Some(fault), ..Assembled::default() }, None);
    let Some((header, body)) = packet.split_first() else { return fault(SegmentFault::Empty) };
    let counter = counter_shift.map_or(0, |shift| header >> shift);
    let counters = counter_shift.map_or(0, |shift| u8::MAX >> shift);
    let mut assembled = Assembled::default();
    let mut octets = match before {
        before if header & first != 0 => {
            assembled.fault = before.map(|_| SegmentFault::Interrupted);
            Vec::new()
        }
        None => return fault(SegmentFault::NoFirst),
        Some(open) if counter != open.counter.wrapping_add(1) & counters && counters > 0 => return fault(SegmentFault::Skipped),
        Some(open) => open.octets,
    };
    if octets.len() + body.len() > MAX_FRAME {
        return fault(SegmentFault::TooLong);
    }
    octets.extend_from_slice(body);
    if header & last != 0 {
        assembled.frames.push(octets);
        return (assembled, None);
    }
    (assembled, Some(Open { octets, counter, heard: now }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gatt::sig_uuid;

    const SOURCE: Source = Source::Characteristic(sig_uuid(0xFFF1));

    fn assembly(packets: Packets) -> Assembly {
        Assembly { sources: vec![(SOURCE, packets, None)] }
    }

    /// `77`, how many octets follow, those.
    fn told() -> Assembly {
        let begins = vec![Condition { at: 0, mask: vec![0xFF], eq: vec![0x77] }];
        assembly(Packets::Told { begins, length: Told { at: 1, octets: 1, big: false, add: 2 } })
    }

    fn headed() -> Assembly {
        assembly(Packets::Headed { first: 1, last: 2, counter_shift: Some(2) })
    }

    fn push(assembly: &mut Assembly, at: u64, packet: &[u8]) -> (Vec<Vec<u8>>, Option<SegmentFault>) {
        let Assembled { frames, fault } = assembly.push(BootMillis(at), &SOURCE, packet).unwrap();
        (frames, fault)
    }

    #[test]
    fn a_frame_that_says_its_length_waits_for_all_of_it_and_not_for_ever() {
        let mut told = told();
        assert_eq!(push(&mut told, 0, &[0x77]), (vec![], None));
        assert_eq!(push(&mut told, 1, &[2, 5]), (vec![], None));
        assert_eq!(push(&mut told, WAIT_MS + 1, &[6, 0x77, 1]), (vec![vec![0x77, 2, 5, 6]], None));
        assert_eq!(push(&mut told, 2 * WAIT_MS + 2, &[9]), (vec![], Some(SegmentFault::NoLast)), "too late for what was begun");
        assert_eq!(push(&mut told, 0, &[0x78, 1, 9]), (vec![], Some(SegmentFault::NoFirst)));
        assert_eq!(push(&mut told, 0, &[0x77, 9, 9]), (vec![], None));
        assert_eq!((told.finish(), told.finish()), (1, 0));
        assert!(told.push(BootMillis(0), &Source::Manufacturer(1), &[1]).is_none(), "another source's packet is a frame");
    }

    #[test]
    fn packets_with_a_counter_make_a_frame_and_one_missing_drops_it() {
        let mut headed = headed();
        assert_eq!(push(&mut headed, 0, &[1, 10]), (vec![], None));
        assert_eq!(push(&mut headed, 0, &[4, 11]), (vec![], None));
        assert_eq!(push(&mut headed, 0, &[2 | 2 << 2, 12]), (vec![vec![10, 11, 12]], None));
        assert_eq!(push(&mut headed, 0, &[3, 10]), (vec![vec![10]], None));
        assert_eq!(push(&mut headed, 0, &[4, 10]), (vec![], Some(SegmentFault::NoFirst)));
        push(&mut headed, 0, &[1, 10]);
        assert_eq!(push(&mut headed, 0, &[2 | 2 << 2, 10]), (vec![], Some(SegmentFault::Skipped)));
        push(&mut headed, 0, &[1 | 63 << 2, 10]);
        assert_eq!(push(&mut headed, 0, &[2, 11]), (vec![vec![10, 11]], None), "after the last number comes 0");
        push(&mut headed, 0, &[1, 10]);
        assert_eq!(push(&mut headed, 0, &[3, 11]), (vec![vec![11]], Some(SegmentFault::Interrupted)));
        assert_eq!(push(&mut headed, 0, &[]), (vec![], Some(SegmentFault::Empty)));
    }

    proptest! {
        #[test]
        fn however_frames_are_cut_into_packets_they_come_out_as_they_went_in(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8),
            cuts in prop::collection::vec(1usize..40, 1..40),
        ) {
            let frames: Vec<Vec<u8>> = frames.into_iter().map(|body| [vec![0x77, body.len() as u8], body].concat()).collect();
            let (mut assembly, mut left, mut out) = (told(), &frames.concat()[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (packet, rest) = left.split_at((*cut).min(left.len()));
                let (frames, fault) = push(&mut assembly, 0, packet);
                prop_assert_eq!(fault, None);
                out.extend(frames);
                left = rest;
                if left.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((out, assembly.finish()), (frames, 0));
        }

        #[test]
        fn no_packets_make_it_hold_more_than_a_frame(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40)) {
            for mut assembly in [told(), headed()] {
                for (at, packet) in packets.iter().enumerate() {
                    let (frames, _) = push(&mut assembly, at as u64, packet);
                    prop_assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME));
                    let held = assembly.sources[0].2.as_ref().map_or(0, |open| open.octets.len());
                    prop_assert!(held <= MAX_FRAME, "{held}");
                }
            }
        }
    }
}
