//! Keeps the log within its limits: reads a few pages of frames, lets [`retention::plan`] name what goes, and deletes it in
//! short transactions. It works a little at a time, because the same thread writes what the radio brings.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::reading::{Anchors, BootId, BootMillis, Metric, Record, RecordId, Seq, Stamp, Timestamp};
use crate::store::ballast::{self, Disk};
use crate::store::retention::{Candidate, Frame, Open, Rule, Turn, Worth, plan, trusted_now};
use crate::store::{EVICT_FRAMES, EVICT_OCTETS, Evicted, Room, Store, StoreError};

/// How long one pass may hold up the writer: well within a commit interval.
const PASS: Duration = Duration::from_millis(200);
/// Frames looked at in one read, and such reads in one pass.
const PAGE: usize = 256;
const PAGES: usize = 16;
/// Under pressure a little more is made free than needed: 1/256 of the limit, so that there is something to do only now and then.
const SLACK: u64 = 256;
/// A log that grows slowly is rid of what is aged within the hour.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Rows of old window versions looked at in one pass.
const VERSIONS: usize = 500;

#[derive(Clone, Debug)]
pub struct RetainSettings {
    pub state_dir: PathBuf,
    pub horizon: Duration,
    pub keep: Duration,
    pub max_bytes: u64,
    pub free_floor: u64,
    /// Metrics of which windows are made, and the longest of these.
    pub condensed: BTreeSet<Metric>,
    pub longest_window: Duration,
}

/// What a pass found and did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    pub evicted: Evicted,
    pub room: Room,
    pub disk: Disk,
    pub limit: u64,
    /// There is more to do than fitted into the pass.
    pub unfinished: bool,
}

pub struct Retain {
    settings: RetainSettings,
    /// How far the search for settled frames has come, and whether it found any since it began at the first frame.
    settled_from: Seq,
    settled_found: bool,
    /// How far the search for each worth has come: a frame that was worth more is not opened again.
    owed_from: [Seq; Worth::ALL.len()],
    /// Everything up to here is beyond correction.
    final_to: Seq,
    versions_after: RecordId,
}

/// A batch of candidates, and whether nothing else could have been one.
struct Found {
    candidates: Vec<Candidate>,
    complete: bool,
}

impl Retain {
    pub fn new(settings: RetainSettings) -> Self {
        Self {
            settings,
            settled_from: Seq(1),
            settled_found: false,
            owed_from: [Seq(1); Worth::ALL.len()],
            final_to: Seq(0),
            versions_after: RecordId([0; 16]),
        }
    }

    pub fn disk(&self) -> Disk {
        ballast::disk(&self.settings.state_dir).unwrap_or_default()
    }

    /// Deletes what is due, for a fraction of a second.
    pub fn pass(&mut self, store: &mut Store, anchors: &Anchors, boot: BootId, at: BootMillis) -> Result<Pass, StoreError> {
        let started = Instant::now();
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let now = trusted_now(anchors, boot, at);
        let rule = Rule {
            now,
            horizon_ms: millis(self.settings.horizon),
            keep_ms: millis(self.settings.keep),
            patience_ms: millis(PATIENCE),
        };
        let stamp = Stamp { boot, arrived: at, device_time: None, device_clock: None, stored: false };
        let mut pass = Pass { disk: self.disk(), ..Pass::default() };
        let mut target = None;
        loop {
            pass.room = Room { disk_free: pass.disk.free, ..store.room()? };
            pass.limit = pass.room.limit(self.settings.max_bytes, self.settings.free_floor);
            if pass.room.live() > pass.limit {
                target.get_or_insert(pass.limit - pass.limit / SLACK);
            }
            let need = target.map_or(0, |target| pass.room.live().saturating_sub(target));
            let head = store.head()?;
            let open = store.open_runs(now)?;
            let settled = self.settled(store, anchors, head, &open, &rule, need)?;
            let mut planned = plan(&settled.candidates, head, &open, &rule, need);
            let mut complete = settled.complete;
            if planned.is_empty() && need > 0 && complete {
                let owed = self.owed(store, anchors, head, &open, need)?;
                planned = plan(&owed.candidates, head, &open, &rule, need);
                complete = owed.complete;
            }
            // Without need, what was found and not planned waits for others to go with it.
            let waits = need == 0 && planned.is_empty() && !settled.candidates.is_empty();
            pass.unfinished = !complete && !waits;
            if planned.is_empty() {
                break;
            }
            let evicted = store.evict(&planned, now, stamp)?;
            self.note(&planned);
            pass.evicted.frames += evicted.frames;
            pass.evicted.records += evicted.records;
            pass.evicted.unsettled += evicted.unsettled;
            if evicted.frames == 0 || started.elapsed() > PASS {
                pass.unfinished = true;
                break;
            }
        }
        if self.final_to > Seq(0) {
            let next = store.forget_versions(self.versions_after, self.final_to.next(), VERSIONS)?;
            self.versions_after = next.unwrap_or(RecordId([0; 16]));
        }
        Ok(pass)
    }

    /// Frames that nobody owes, the oldest first: without need only those that are aged.
    fn settled(
        &mut self,
        store: &Store,
        anchors: &Anchors,
        head: Seq,
        open: &Open,
        rule: &Rule,
        need: u64,
    ) -> Result<Found, StoreError> {
        let pending = open.pending();
        let mut candidates = Vec::new();
        let mut octets = 0;
        for _ in 0..PAGES {
            if let Some(end) = pending.end_of(self.settled_from) {
                self.settled_from = if end >= head { head } else { end.next() };
            }
            let page = store.frames(anchors, self.settled_from, PAGE)?;
            let mut ended = page.len() < PAGE;
            for frame in page {
                if frame.last() >= head || (need == 0 && !rule.is_aged(&frame)) {
                    ended = true;
                    break;
                }
                let next = frame.last().next();
                if !open.owes_any(&frame) {
                    octets += frame.octets;
                    candidates.push(Candidate { frame, worth: None });
                    self.settled_found = true;
                }
                self.settled_from = next;
                if candidates.len() >= EVICT_FRAMES || octets >= EVICT_OCTETS {
                    return Ok(Found { candidates, complete: false });
                }
                if pending.contains(next) {
                    ended = false;
                    break;
                }
            }
            if ended {
                let found = std::mem::take(&mut self.settled_found);
                self.settled_from = Seq(1);
                if !found || !candidates.is_empty() {
                    return Ok(Found { candidates, complete: !found });
                }
            }
        }
        Ok(Found { candidates, complete: false })
    }

    /// Frames somebody still owes, of the least worth there is: asked only when nothing settled is left.
    fn owed(&mut self, store: &Store, anchors: &Anchors, head: Seq, open: &Open, need: u64) -> Result<Found, StoreError> {
        let longest_ms = i64::try_from(self.settings.longest_window.as_millis()).unwrap_or(i64::MAX);
        let until = windows_until(store)?.map(|until| until.plus_ms(-longest_ms));
        let mut pages = 0;
        for worth in Worth::ALL {
            let (mut candidates, mut octets) = (Vec::new(), 0);
            let mut from = self.owed_from[worth as usize];
            'pages: loop {
                let page = store.frames(anchors, from, EVICT_FRAMES)?;
                if page.is_empty() {
                    break;
                }
                pages += 1;
                for frame in page {
                    // Windows of what came later are not in the log yet; they are looked at again next time.
                    let early = worth == Worth::Condensed && !is_before(&frame, until);
                    if frame.last() >= head || early {
                        break 'pages;
                    }
                    from = frame.last().next();
                    let found = if open.owes_any(&frame) { self.worth(store, &frame, until)? } else { None };
                    if found.is_some_and(|found| found <= worth) {
                        octets += frame.octets;
                        candidates.push(Candidate { frame, worth: found });
                    } else if candidates.is_empty() {
                        self.owed_from[worth as usize] = from;
                    }
                    if candidates.len() >= EVICT_FRAMES || octets >= EVICT_OCTETS.min(need) {
                        return Ok(Found { candidates, complete: false });
                    }
                }
                if pages >= PAGES {
                    return Ok(Found { candidates, complete: false });
                }
            }
            if !candidates.is_empty() {
                return Ok(Found { candidates, complete: false });
            }
        }
        Ok(Found { candidates: Vec::new(), complete: true })
    }

    fn worth(&self, store: &Store, frame: &Frame, until: Option<Timestamp>) -> Result<Option<Worth>, StoreError> {
        let windowed = is_before(frame, until);
        let is_condensed =
            |record: &Record| windowed && record.stream.is_some_and(|stream| self.settings.condensed.contains(&stream.metric));
        store.worth(frame.first, is_condensed)
    }

    fn note(&mut self, planned: &[(Frame, Turn)]) {
        let corrected = planned.iter().filter(|(_, turn)| matches!(turn, Turn::Aged | Turn::Final));
        self.final_to = corrected.map(|(frame, _)| frame.last()).fold(self.final_to, Seq::max);
    }
}

fn is_before(frame: &Frame, until: Option<Timestamp>) -> bool {
    frame.arrived.zip(until).is_some_and(|(arrived, until)| arrived < until)
}

/// Until when windows are closed.
fn windows_until(store: &Store) -> Result<Option<Timestamp>, StoreError> {
    Ok(store.mark(super::windows::UNTIL)?.map(|ms| Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))))
}
