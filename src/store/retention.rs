//! Which frames may go, and in what order: pure. The shell ([`super::evict`]) reads frames and deletes what is named here.
//!
//! Settled everywhere and beyond the correction horizon goes first, then settled, and what somebody still owes goes only when
//! the room is needed: what windows speak for already, other streams, windows, values measured one by one, and last the
//! records that say what happened. Never the newest frame: the next number is counted from it.

use super::runs::Runs;
use crate::reading::{Anchors, BootId, BootMillis, ClockQuality, Seq, Timestamp};

/// The smallest `store.max_bytes` there is. As long as the disk has room at all, a log may be this large, whatever the floor.
pub const LEAST_LIMIT: u64 = 16 << 20;
/// Below this the disk counts as full for the log: what a checkpoint of the write-ahead log may need at once.
pub const DISK_FULL: u64 = 4 << 20;
/// Kept free inside a file that may not grow: more than a full ward appends between two passes.
const GROWTH: u64 = 1 << 20;
/// What is aged goes in such numbers: each deletion rewrites a few pages beside those it frees, so many at once wear the card
/// less than a few now and then.
const AGED_TOGETHER: usize = 64;
/// Large frames free many pages each, and need not wait for others.
const AGED_OCTETS: u64 = 256 << 10;
/// After a clock step larger than this, times are left to settle for [`STEP_REST_MS`] before anything goes by age.
const STEP_MS: i64 = 3_600_000;
const STEP_REST_MS: u64 = 600_000;

/// One frame, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: Seq,
    pub n: u64,
    /// When its last record arrived; `None` while its boot has no clock.
    pub arrived: Option<Timestamp>,
    pub octets: u64,
    /// Numbers of its streams.
    pub streams: Vec<u32>,
}

impl Frame {
    pub const fn last(&self) -> Seq {
        Seq(self.first.0 + self.n - 1)
    }
}

/// What one route still owes. Dead letters are not in it: their rows hold the record themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenRoute {
    pub name: String,
    pub pending: Runs,
    /// (stream, first, last): the records of one stream between the ends.
    pub held: Vec<(u32, Seq, Seq)>,
}

impl OpenRoute {
    pub fn owes(&self, seq: Seq, stream: u32) -> bool {
        let held = |(of, first, last): &(u32, Seq, Seq)| *of == stream && *first <= seq && seq <= *last;
        self.pending.contains(seq) || self.held.iter().any(held)
    }

    fn owes_any(&self, frame: &Frame) -> bool {
        let held =
            |(of, first, last): &(u32, Seq, Seq)| *first <= frame.last() && frame.first <= *last && frame.streams.contains(of);
        self.pending.next_from(frame.first).is_some_and(|seq| seq <= frame.last()) || self.held.iter().any(held)
    }
}

/// What all routes still owe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open(pub Vec<OpenRoute>);

impl Open {
    pub fn owes_any(&self, frame: &Frame) -> bool {
        self.0.iter().any(|route| route.owes_any(frame))
    }

    /// The runs pending on any route.
    pub fn pending(&self) -> Runs {
        self.0.iter().flat_map(|route| route.pending.iter()).collect()
    }
}

/// What an unsettled frame is worth, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Continuous values, all of whose windows are in the log.
    Condensed,
    /// Continuous values.
    Streamed,
    /// Windows.
    Windows,
    /// Values measured one by one.
    Episodic,
    /// Gaps, retractions, conditions: what says what happened.
    Account,
}

impl Worth {
    pub const ALL: [Self; 5] = [Self::Condensed, Self::Streamed, Self::Windows, Self::Episodic, Self::Account];
}

/// In which turn a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// Settled and older than it is to be kept: goes whether or not the room is needed.
    Aged,
    /// Settled, and nobody corrects it any more.
    Final,
    /// Settled, still within the correction horizon.
    Settled,
    /// Somebody still owes it.
    Unsettled(Worth),
}

#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `None` while the clock is not to be trusted: then nothing is old.
    pub now: Option<Timestamp>,
    pub horizon_ms: i64,
    pub keep_ms: i64,
    /// How long an aged frame waits for others to go with it.
    pub patience_ms: i64,
}

impl Rule {
    pub fn is_aged(&self, frame: &Frame) -> bool {
        self.older(frame, self.keep_ms)
    }

    fn has_waited(&self, frame: &Frame) -> bool {
        self.older(frame, self.keep_ms.saturating_add(self.patience_ms))
    }

    fn older(&self, frame: &Frame, than_ms: i64) -> bool {
        self.now.zip(frame.arrived).is_some_and(|(now, arrived)| now.0.saturating_sub(arrived.0) > than_ms)
    }
}

/// A frame that may go; `worth` is looked up only for what is not settled.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub frame: Frame,
    pub worth: Option<Worth>,
}

/// Names the frames to delete, in their turns, the oldest of a turn first: all that are aged once there are enough of them, and
/// others until `need` octets are free. An unsettled frame that nobody looked into stays, and so does the one that holds `head`.
pub fn plan(candidates: &[Candidate], head: Seq, open: &Open, rule: &Rule, need: u64) -> Vec<(Frame, Turn)> {
    let mut turns: Vec<(Turn, &Frame)> = candidates
        .iter()
        .filter(|candidate| candidate.frame.last() < head)
        .filter_map(|candidate| Some((turn(candidate, open, rule)?, &candidate.frame)))
        .collect();
    turns.sort_by_key(|(turn, frame)| (*turn, frame.first));
    let due = is_due(&turns, rule);
    let (mut freed, mut planned) = (0, Vec::new());
    for (turn, frame) in turns {
        if freed >= need && !(due && turn == Turn::Aged) {
            break;
        }
        freed += frame.octets;
        planned.push((frame.clone(), turn));
    }
    planned
}

/// Whether what is aged goes now, without need.
fn is_due(turns: &[(Turn, &Frame)], rule: &Rule) -> bool {
    let aged = || turns.iter().filter(|(turn, _)| *turn == Turn::Aged).map(|(_, frame)| *frame);
    aged().count() >= AGED_TOGETHER
        || aged().map(|frame| frame.octets).sum::<u64>() >= AGED_OCTETS
        || aged().any(|frame| rule.has_waited(frame))
}

fn turn(candidate: &Candidate, open: &Open, rule: &Rule) -> Option<Turn> {
    if open.owes_any(&candidate.frame) {
        return candidate.worth.map(Turn::Unsettled);
    }
    Some(match &candidate.frame {
        frame if rule.is_aged(frame) => Turn::Aged,
        frame if rule.older(frame, rule.horizon_ms) => Turn::Final,
        _ => Turn::Settled,
    })
}

/// The time by which ages are told: `None` while the clock of this boot is unsynced or was stepped just now.
pub fn trusted_now(anchors: &Anchors, boot: BootId, now: BootMillis) -> Option<Timestamp> {
    let of_boot: Vec<_> = anchors.iter().filter(|anchor| anchor.boot == boot && anchor.at <= now).collect();
    if of_boot.last()?.quality == ClockQuality::Unsynced {
        return None;
    }
    let stepped = of_boot.windows(2).any(|pair| {
        let [before, after] = pair else { return false };
        let step = (after.wall.0 - before.wall.0).saturating_sub(after.at.0 as i64 - before.at.0 as i64);
        step.abs() > STEP_MS && now.0 - after.at.0 < STEP_REST_MS
    });
    if stepped { None } else { anchors.wall(boot, now).map(|wall| wall.at) }
}

/// Where the octets are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Of the file.
    pub file: u64,
    /// Of it, in pages without content: they are used again before the file grows.
    pub unused: u64,
    /// Left on the disk.
    pub disk_free: u64,
}

impl Room {
    pub const fn live(&self) -> u64 {
        self.file.saturating_sub(self.unused)
    }

    /// The largest the log may be now: `max_bytes`, and what leaves `floor` free on the disk. Evicting gives the disk nothing
    /// back (the file keeps its size), so below the floor the file just may not grow, and a log of [`LEAST_LIMIT`] is left
    /// alone as long as the disk is not full outright.
    pub fn limit(&self, max_bytes: u64, floor: u64) -> u64 {
        let frozen = self.file - GROWTH.min(self.file / 8);
        if self.disk_free < DISK_FULL {
            return max_bytes.min(frozen);
        }
        let above = self.disk_free.saturating_sub(floor);
        let by_floor = if above > 0 { self.file.saturating_add(above) } else { frozen };
        max_bytes.min(by_floor.max(LEAST_LIMIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Anchor;
    use crate::store::OPEN;
    use proptest::prelude::*;

    const BOOT: BootId = BootId([1; 16]);
    const RULE: Rule = Rule { now: Some(Timestamp(1_000)), horizon_ms: 100, keep_ms: 500, patience_ms: 0 };

    fn candidate(first: u64, n: u64, arrived: i64, worth: Option<Worth>) -> Candidate {
        let frame = Frame { first: Seq(first), n, arrived: Some(Timestamp(arrived)), octets: 100, streams: vec![1] };
        Candidate { frame, worth }
    }

    fn open(runs: &[(u64, u64)]) -> Open {
        let pending = runs.iter().map(|(first, last)| (Seq(*first), Seq(*last))).collect();
        Open(vec![OpenRoute { name: "r".into(), pending, held: vec![] }])
    }

    fn firsts(plan: &[(Frame, Turn)]) -> Vec<u64> {
        plan.iter().map(|(frame, _)| frame.first.0).collect()
    }

    #[test]
    fn what_is_old_and_settled_goes_without_need_and_nothing_else_does() {
        let frames = [
            candidate(1, 4, 100, Some(Worth::Condensed)),
            candidate(5, 4, 200, None),
            candidate(9, 4, 600, None),
            candidate(13, 4, 100, None),
        ];
        assert_eq!(firsts(&plan(&frames, Seq(16), &open(&[(1, 4)]), &RULE, 0)), [5], "owed, young and newest stay");
        let unsynced = Rule { now: None, ..RULE };
        assert!(plan(&frames, Seq(16), &open(&[]), &unsynced, 0).is_empty(), "without a clock nothing is old");
    }

    #[test]
    fn what_is_owed_goes_lowest_worth_first_and_the_oldest_of_it() {
        let frames = [
            candidate(1, 1, 990, Some(Worth::Account)),
            candidate(2, 1, 990, Some(Worth::Episodic)),
            candidate(3, 1, 990, Some(Worth::Windows)),
            candidate(4, 1, 990, Some(Worth::Streamed)),
            candidate(5, 1, 990, Some(Worth::Condensed)),
            candidate(6, 1, 990, Some(Worth::Condensed)),
            candidate(7, 1, 990, None),
            candidate(8, 1, 850, None),
            candidate(9, 1, 990, None),
        ];
        let owed = open(&[(1, 6)]);
        assert_eq!(firsts(&plan(&frames, Seq(9), &owed, &RULE, 100)), [8], "beyond the horizon before within it");
        assert_eq!(firsts(&plan(&frames, Seq(9), &owed, &RULE, 800)), [8, 7, 5, 6, 4, 3, 2, 1]);
    }

    #[test]
    fn what_is_aged_waits_for_others_but_not_for_ever_and_not_when_room_is_needed() {
        let aged = |n: u64| (0..n).map(|i| candidate(1 + i, 1, 400, None)).collect::<Vec<_>>();
        let patient = Rule { patience_ms: 1_000, ..RULE };
        let count = |n, rule: &Rule, need| plan(&aged(n), Seq(1_000), &open(&[]), rule, need).len() as u64;
        let batch = AGED_TOGETHER as u64;
        assert_eq!(count(batch - 1, &patient, 0), 0);
        assert_eq!(count(batch, &patient, 0), batch);
        assert_eq!(count(batch - 1, &Rule { now: Some(Timestamp(1_901)), ..patient }, 0), batch - 1, "it has waited long enough");
        assert_eq!(count(3, &patient, 150), 2, "no more than needed");
        let mut large = aged(1);
        large[0].frame.octets = AGED_OCTETS;
        assert_eq!(plan(&large, Seq(1_000), &open(&[]), &patient, 0).len(), 1);
    }

    #[test]
    fn a_held_stream_pins_only_the_frames_it_is_in() {
        let held = |stream| Open(vec![OpenRoute { held: vec![(stream, Seq(1), Seq(100))], ..OpenRoute::default() }]);
        let frames = [candidate(1, 4, 100, None)];
        assert!(plan(&frames, Seq(9), &held(1), &RULE, 100).is_empty());
        assert_eq!(firsts(&plan(&frames, Seq(9), &held(2), &RULE, 100)), [1]);
    }

    #[test]
    fn nothing_is_old_by_a_clock_that_is_unsynced_or_was_just_stepped() {
        let anchor =
            |at, wall, quality| Anchor { boot: BOOT, at: BootMillis(at), wall: Timestamp(wall), quality, uncertainty_ms: 0 };
        let day = 86_400_000;
        let now = |anchors: Vec<Anchor>, at| trusted_now(&Anchors::new(anchors), BOOT, BootMillis(at));
        let synced = anchor(1_000, day, ClockQuality::Ntp);
        assert_eq!(now(vec![], 5_000), None);
        assert_eq!(now(vec![anchor(0, 0, ClockQuality::Unsynced)], 5_000), None);
        assert_eq!(now(vec![synced], 5_000), Some(Timestamp(day + 4_000)));
        assert_eq!(now(vec![synced, anchor(2_000, day + 1_000, ClockQuality::Unsynced)], 5_000), None, "sync was lost");
        for years in [10, -10] {
            let stepped = vec![synced, anchor(2_000, day + years * 365 * day, ClockQuality::Ntp)];
            assert_eq!(now(stepped.clone(), 2_000 + STEP_REST_MS - 1), None, "{years} years");
            assert!(now(stepped, 2_000 + STEP_REST_MS).is_some());
        }
        let nudged = vec![synced, anchor(2_000, day + 61_000, ClockQuality::Ntp)];
        assert!(now(nudged, 3_000).is_some(), "a minute is no such step");
    }

    #[test]
    fn the_limit_is_max_bytes_the_floor_and_never_less_than_a_small_log() {
        const MIB: u64 = 1 << 20;
        let room = |file, disk_free| Room { file: file * MIB, unused: 0, disk_free: disk_free * MIB };
        assert_eq!(room(100, 10_000).limit(2_048 * MIB, 256 * MIB), 2_048 * MIB);
        assert_eq!(room(100, 300).limit(2_048 * MIB, 256 * MIB), 144 * MIB, "44 MiB more, then the floor");
        assert_eq!(room(100, 200).limit(2_048 * MIB, 256 * MIB), 99 * MIB, "below the floor it does not grow");
        assert_eq!(room(3, 200).limit(2_048 * MIB, 256 * MIB), 16 * MIB, "a small log may grow all the same");
        assert_eq!(room(3, 1).limit(2_048 * MIB, 256 * MIB), 3 * MIB - 3 * MIB / 8, "unless the disk is full");
    }

    proptest! {
        /// Whatever is owed, held, old and needed: the newest frame stays, nothing unsettled goes while anything settled is
        /// left, nothing of more worth goes while something of less is left, and no frame more than needed.
        #[test]
        fn nothing_unsettled_goes_while_anything_settled_remains(
            sizes in proptest::collection::vec((1u64..9, 1u64..5_000, 0i64..1_000, 0usize..5), 1..40),
            runs in proptest::collection::vec((1u64..200, 0u64..20, any::<bool>()), 0..12),
            need in 0u64..60_000, synced in any::<bool>(),
        ) {
            let (mut next, mut frames) = (1, Vec::new());
            for (n, octets, arrived, worth) in sizes {
                let mut frame = candidate(next, n, arrived, Some(Worth::ALL[worth]));
                frame.frame.octets = octets;
                frames.push(frame);
                next += n;
            }
            let head = Seq(next - 1);
            let mut route = OpenRoute { pending: [(Seq(next), OPEN)].into_iter().collect(), ..OpenRoute::default() };
            for (first, length, held) in runs {
                if held { route.held.push((1, Seq(first), Seq(first + length))); } else { route.pending.insert(Seq(first), Seq(first + length)); }
            }
            let open = Open(vec![route]);
            let rule = Rule { now: synced.then_some(Timestamp(1_000)), ..RULE };
            let planned = plan(&frames, head, &open, &rule, need);
            let gone = |frame: &Frame| planned.iter().any(|(planned, _)| planned.first == frame.first);
            let stays = |wanted: &dyn Fn(&Candidate) -> bool| frames.iter().any(|c| c.frame.last() < head && !gone(&c.frame) && wanted(c));
            prop_assert!(planned.iter().all(|(frame, _)| frame.last() < head));
            for (frame, turn) in &planned {
                match turn {
                    Turn::Unsettled(worth) => {
                        prop_assert!(!stays(&|c| !open.owes_any(&c.frame)));
                        prop_assert!(!stays(&|c| c.worth.is_some_and(|w| w < *worth)));
                    }
                    _ => prop_assert!(!open.owes_any(frame)),
                }
            }
            let freed: u64 = planned.iter().map(|(frame, _)| frame.octets).sum();
            if let Some((last, turn)) = planned.last() && *turn > Turn::Aged {
                prop_assert!(freed - last.octets < need, "one frame too many");
            }
            if freed < need {
                prop_assert_eq!(planned.len(), frames.len() - 1, "there was more to take");
            }
        }
    }
}
