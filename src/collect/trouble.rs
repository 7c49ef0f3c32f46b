//! What the writer does when the card takes no more: pure. A store error is told apart in one place, and what cannot be
//! written waits in a ring of bounded size, from which streams go first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::reading::{Anchors, Body, BootMillis, DeviceId, Gap, GapReason, Stamp, StreamKey};
use crate::store::{DiskFault, Draft, Identity, StoreError};

/// Drafts that wait in memory at most: 10,000 of some 300 octets are 3 MB, and minutes of a full ward.
pub const RING: usize = 10_000;
/// The first wait before a write is tried again, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Somebody else is writing: the same again soon.
    Wait,
    /// Make room and try again; keep what is new in memory meanwhile.
    MakeRoom,
    /// The disk takes no writes: keep what is new in memory and look again now and then.
    Hold,
    /// The file is not to be trusted any more: end, and let the next start find out what is durable.
    End,
}

pub fn decide(error: &StoreError) -> Reaction {
    match error {
        error if error.is_busy() => Reaction::Wait,
        error if error.is_full() => Reaction::MakeRoom,
        error if error.is_read_only() => Reaction::Hold,
        _ => Reaction::End,
    }
}

/// A time in which nothing could be written.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub reaction: Reaction,
    wait: Duration,
}

impl Trouble {
    pub const fn new(reaction: Reaction) -> Self {
        Self { reaction, wait: FIRST_WAIT }
    }

    /// How long until the next attempt; twice as long each time.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        wait
    }

    /// What a gap made in it is called.
    pub const fn gap_reason(&self) -> GapReason {
        match self.reaction {
            Reaction::MakeRoom => GapReason::DiskFull,
            Reaction::Hold => GapReason::ReadOnly,
            Reaction::Wait | Reaction::End => GapReason::Overrun,
        }
    }
}

/// A time before the start in which nobody listened, because the store could not be opened: how much was missed is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    pub since: BootMillis,
    pub reason: GapReason,
}

impl Missed {
    pub const fn new(since: BootMillis, fault: DiskFault) -> Self {
        let reason = match fault {
            DiskFault::Full => GapReason::DiskFull,
            DiskFault::ReadOnly | DiskFault::Failing => GapReason::ReadOnly,
        };
        Self { since, reason }
    }

    /// Says so in the log. `stamp` is now.
    pub fn gap(&self, stamp: Stamp, anchors: &Anchors) -> Draft {
        let wall = |at| anchors.wall(stamp.boot, at).map(|wall| wall.at);
        let (from, to) = (wall(self.since), wall(stamp.arrived));
        let gap = Gap { reason: self.reason, run: None, from, to, count: 0, routes: Vec::new() };
        Draft {
            identity: Identity::Arrival,
            device: DeviceId::GATEWAY,
            stream: None,
            stamp,
            body: Body::Gap(gap),
            nameplate: None,
        }
    }
}

/// Drafts on their way to the card, in order.
#[derive(Debug, Default)]
pub struct Ring {
    waiting: VecDeque<(Draft, bool)>,
    dropped: BTreeMap<(DeviceId, Option<StreamKey>), Dropped>,
    dropped_ever: u64,
}

#[derive(Clone, Copy, Debug)]
struct Dropped {
    count: u64,
    from: Stamp,
    to: BootMillis,
}

impl Ring {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Drafts there was no room for, ever.
    pub fn dropped(&self) -> u64 {
        self.dropped_ever
    }

    /// Nothing waits, and nothing is to be reported.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped.is_empty()
    }

    /// `at_once`: the device sends it only once. Such drafts are the last to be dropped.
    pub fn push(&mut self, draft: Draft, at_once: bool) {
        if self.waiting.len() >= RING {
            self.drop_one();
        }
        self.waiting.push_back((draft, at_once));
    }

    /// The oldest `limit` drafts; they stay until [`Ring::written`].
    pub fn front(&self, limit: usize) -> Vec<Draft> {
        self.waiting.iter().take(limit).map(|(draft, _)| draft.clone()).collect()
    }

    /// What was dropped, a gap a stream, to be written with the drafts.
    pub fn gaps(&self, reason: GapReason, stamp: Stamp, anchors: &Anchors) -> Vec<Draft> {
        let gap = |(source, dropped): (&(DeviceId, Option<StreamKey>), &Dropped)| Draft {
            identity: Identity::Arrival,
            device: source.0,
            stream: source.1,
            stamp,
            body: Body::Gap(Gap {
                reason,
                run: None,
                from: anchors.wall(dropped.from.boot, dropped.from.arrived).map(|wall| wall.at),
                to: anchors.wall(dropped.from.boot, dropped.to).map(|wall| wall.at),
                count: dropped.count,
                routes: Vec::new(),
            }),
            nameplate: None,
        };
        self.dropped.iter().map(gap).collect()
    }

    /// The first `count` drafts are on the card, and so are the gaps.
    pub fn written(&mut self, count: usize) {
        self.waiting.drain(..count);
        self.dropped.clear();
    }

    fn drop_one(&mut self) {
        let place = self.waiting.iter().position(|(_, at_once)| !at_once).unwrap_or(0);
        let Some((draft, _)) = self.waiting.remove(place) else { return };
        let arrived = draft.stamp.arrived;
        let none = Dropped { count: 0, from: draft.stamp, to: arrived };
        let dropped = self.dropped.entry((draft.device, draft.stream)).or_insert(none);
        dropped.count += 1;
        self.dropped_ever += 1;
        dropped.to = dropped.to.max(arrived);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{BootId, Event, Metric, Modality, NoValue};
    use rusqlite::ffi;

    fn error(code: i32) -> StoreError {
        StoreError::Sql(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn each_error_of_the_card_has_one_reaction_and_a_failed_fsync_is_the_end() {
        for (code, reaction) in [
            (ffi::SQLITE_FULL, Reaction::MakeRoom),
            (ffi::SQLITE_IOERR_SHMSIZE, Reaction::MakeRoom),
            (ffi::SQLITE_READONLY, Reaction::Hold),
            (ffi::SQLITE_IOERR_WRITE, Reaction::Hold),
            (ffi::SQLITE_BUSY, Reaction::Wait),
            (ffi::SQLITE_IOERR_FSYNC, Reaction::End),
            (ffi::SQLITE_IOERR_DIR_FSYNC, Reaction::End),
            (ffi::SQLITE_IOERR_READ, Reaction::End),
            (ffi::SQLITE_READONLY_DBMOVED, Reaction::End),
            (ffi::SQLITE_CORRUPT, Reaction::End),
            (ffi::SQLITE_NOTADB, Reaction::End),
        ] {
            assert_eq!(decide(&error(code)), reaction, "{}", error(code));
        }
        assert_eq!(decide(&StoreError::BadFrame { first: 1, what: "checksum" }), Reaction::End);
        let io = |kind: std::io::ErrorKind| StoreError::Io { path: "x".into(), source: kind.into() };
        assert_eq!(decide(&io(std::io::ErrorKind::StorageFull)), Reaction::MakeRoom);
        assert_eq!(decide(&io(std::io::ErrorKind::ReadOnlyFilesystem)), Reaction::Hold);
    }

    #[test]
    fn attempts_come_less_and_less_often() {
        let mut trouble = Trouble::new(Reaction::MakeRoom);
        let waits: Vec<u64> = (0..7).map(|_| trouble.next_wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    fn draft(device: u8, at: u64) -> Draft {
        let device = DeviceId::new([device; 6]);
        let stream = StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Spot };
        let stamp =
            Stamp { boot: BootId([0; 16]), arrived: BootMillis(at), device_time: None, device_clock: None, stored: false };
        let body = Body::Event(Event::NoValue(NoValue::SensorOff));
        Draft { identity: Identity::Arrival, device, stream: Some(stream), stamp, body, nameplate: None }
    }

    #[test]
    fn a_full_ring_drops_the_oldest_of_the_streams_and_counts_it() {
        let mut ring = Ring::default();
        let (once, streamed, more) = (100, RING - 100, 50);
        (0..once).for_each(|at| ring.push(draft(1, at as u64), true));
        (0..streamed + more).for_each(|at| ring.push(draft(2, 1_000 + at as u64), false));
        assert_eq!(ring.len(), RING);
        let kept = ring.front(RING);
        assert_eq!(kept.iter().filter(|draft| draft.device == DeviceId::new([1; 6])).count(), once);
        assert_eq!(kept[once].stamp.arrived, BootMillis(1_000 + more as u64), "the oldest went");
        let stamp = draft(0, 9).stamp;
        let gaps = ring.gaps(GapReason::DiskFull, stamp, &Anchors::default());
        let [Draft { device, body: Body::Gap(gap), .. }] = &gaps[..] else { panic!("{gaps:?}") };
        assert_eq!((*device, gap.count, gap.reason), (DeviceId::new([2; 6]), more as u64, GapReason::DiskFull));
        ring.written(10);
        assert_eq!(ring.len(), RING - 10);
        assert!(ring.gaps(GapReason::DiskFull, stamp, &Anchors::default()).is_empty(), "told once");
        (0..streamed + 20).for_each(|at| ring.push(draft(1, at as u64), true));
        assert!(ring.front(RING).iter().all(|draft| draft.device == DeviceId::new([1; 6])), "what is sent once went last");
    }
}
