//! Keeps the windows of all streams in step with the log: fed by each commit, rebuilt from the log after a restart, made
//! again when late values arrive. The arithmetic is `clean`'s; this file only fetches and appends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::clean::{Late, Point, PointKind, Slot, Windower, make_window};
use crate::reading::{
    Anchors, Body, BootId, BootMillis, DeviceId, Exclusion, Instant, Metric, Nameplate, Record, Seq, Stamp, StreamKey, Timestamp,
    Window,
};
use crate::store::{Draft, Identity, OPEN, READ_LIMIT, Store, StoreError};

/// Marks in the store, moved in the commit that appends windows: where a restart replays from, up to where late values have
/// been dealt with, and until when slots are closed (milliseconds).
const FROM: &str = "windows_from";
const SEEN: &str = "windows_seen";
pub(super) const UNTIL: &str = "windows_until";
/// What the config wanted each device to tell of itself when windows were last held against it.
const NAMEPLATE: &str = "windows_nameplate:";
/// Reads of the log, and windows made again, a second, while the past is held against a config that changed: what is new does not
/// wait for it.
const READS_AGAIN: usize = 8;
const MADE_AGAIN: usize = 64;

/// The past held against a config that wants a device to tell something else of itself.
struct Again {
    /// These devices, and the marks that say that it is done.
    marks: BTreeMap<DeviceId, u64>,
    /// Where to go on reading; `None` before the first time.
    next: Option<Seq>,
    read: bool,
    slots: BTreeSet<Late>,
}

pub struct Windows {
    gateway: String,
    lengths: BTreeMap<Metric, Vec<u32>>,
    zones: BTreeMap<DeviceId, TimeZone>,
    default_zone: TimeZone,
    /// What devices must say of themselves for their values to take part.
    nameplates: BTreeMap<DeviceId, Nameplate>,
    again: Option<Again>,
    /// Windows that ended longer ago are not made again.
    horizon_ms: i64,
    /// Made when this boot first has a clock.
    windower: Option<Windower>,
    /// The next record to take in; records of a boot without a clock wait here, in the log.
    next: Seq,
    /// Below it, a replay only fills open slots: late values were dealt with before the restart.
    seen: Seq,
}

impl Windows {
    /// `lengths` in seconds for the metrics that differ from the default; `zones` are of devices that know only local time.
    pub fn new(
        gateway: String,
        lengths: BTreeMap<Metric, Vec<u32>>,
        zones: BTreeMap<DeviceId, TimeZone>,
        default_zone: TimeZone,
        horizon: Duration,
        store: &Store,
    ) -> Result<Self, StoreError> {
        let next = Seq(store.mark(FROM)?.unwrap_or(1));
        let seen = Seq(store.mark(SEEN)?.unwrap_or(0));
        let horizon_ms = i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX);
        let nameplates = BTreeMap::new();
        Ok(Self { gateway, lengths, zones, default_zone, nameplates, again: None, horizon_ms, windower: None, next, seen })
    }

    /// What devices must have told of themselves for their values to take part. Where that is another than before, windows of the
    /// horizon are made again.
    pub fn admitting(self, nameplates: BTreeMap<DeviceId, Nameplate>, store: &Store) -> Result<Self, StoreError> {
        let mut marks = BTreeMap::new();
        for (device, nameplate) in &nameplates {
            let (before, now) = (store.mark(&format!("{NAMEPLATE}{device}"))?.unwrap_or(0), nameplate.fingerprint());
            if before != now {
                marks.insert(*device, now);
            }
        }
        let again = Again { marks, next: None, read: false, slots: BTreeSet::new() };
        Ok(Self { nameplates, again: Some(again).filter(|again| !again.marks.is_empty()), ..self })
    }

    /// Takes in what was appended since the last call, once this boot has a clock, and appends the windows that are due.
    /// Answers how many there were.
    pub fn advance(&mut self, store: &mut Store, anchors: &Anchors, boot: BootId, now: BootMillis) -> Result<usize, StoreError> {
        let Some(wall) = anchors.wall(boot, now) else { return Ok(0) };
        let mut windower = match self.windower.take() {
            Some(windower) => windower,
            None => self.windower_from(store, anchors, wall.at)?,
        };
        let late = self.take_in(store, anchors, &mut windower)?;
        let closed = windower.close(wall.at);
        let stamp = Stamp { boot, arrived: now, device_time: None, device_clock: None, stored: false };
        let mut drafts: Vec<Draft> =
            closed.windows.into_iter().map(|(stream, window)| self.draft(store, stamp, stream, window)).collect();
        let mut again: Vec<Late> = late.into_iter().chain(closed.late).collect();
        again.sort();
        again.dedup();
        for late in again.iter().filter(|late| late.slot.end().0 > wall.at.0 - self.horizon_ms) {
            drafts.extend(self.remake(store, anchors, late)?.map(|window| self.draft(store, stamp, late.stream, window)));
        }
        let made = drafts.len();
        if made > 0 {
            let from = windower.oldest_open().unwrap_or(self.next);
            let until = u64::try_from(windower.closed_until().0).unwrap_or(0);
            store.append_and_mark(drafts, &[(FROM, from.0), (SEEN, self.next.0), (UNTIL, until)])?;
        }
        let again = self.go_over_again(store, anchors, &mut windower, stamp, wall.at)?;
        self.windower = Some(windower);
        Ok(made + again)
    }

    /// A step of it; an error leaves the rest to the next start.
    fn go_over_again(
        &mut self,
        store: &mut Store,
        anchors: &Anchors,
        windower: &mut Windower,
        stamp: Stamp,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let Some(mut again) = self.again.take() else { return Ok(0) };
        let oldest = now.plus_ms(-self.horizon_ms);
        for _ in 0..READS_AGAIN {
            let long_ago = |boot, arrived| anchors.wall(boot, arrived).is_some_and(|wall| wall.at < oldest);
            let next = again.next.map_or_else(|| store.first_after(long_ago), Ok)?;
            let records = if again.read { Vec::new() } else { store.read(next, OPEN, READ_LIMIT)? };
            let Some((last, _)) = records.last() else {
                again.read = true;
                break;
            };
            again.next = Some(last.next());
            let of_these = records.iter().filter(|(_, record)| again.marks.contains_key(&record.device));
            let slots: Vec<Late> = of_these.flat_map(|(seq, record)| self.doubtful(record, *seq, anchors, windower)).collect();
            again.slots.extend(slots);
        }
        let closed = |slot: Slot| slot.end() <= windower.closed_until() && slot.end() > oldest;
        let mut drafts = Vec::new();
        for _ in 0..if again.read { MADE_AGAIN } else { 0 } {
            let Some(late) = again.slots.pop_first() else { break };
            if closed(late.slot) {
                drafts.extend(self.remake(store, anchors, &late)?.map(|window| self.draft(store, stamp, late.stream, window)));
            }
        }
        let made = drafts.len();
        let done = again.read && again.slots.is_empty();
        let marks: Vec<(String, u64)> =
            again.marks.iter().map(|(device, mark)| (format!("{NAMEPLATE}{device}"), *mark)).collect();
        let marks: Vec<(&str, u64)> = marks.iter().filter(|_| done).map(|(name, mark)| (name.as_str(), *mark)).collect();
        if made > 0 || done {
            store.append_and_mark(drafts, &marks)?;
        }
        self.again = Some(again).filter(|_| !done);
        Ok(made)
    }

    /// Slots whose windows may say something else now: those of what does not fit now, and those that left something out.
    fn doubtful(&self, record: &Record, seq: Seq, anchors: &Anchors, windower: &mut Windower) -> Vec<Late> {
        let Some(stream) = record.stream else { return Vec::new() };
        if let Body::Window(window) = &record.body {
            let left_out = window.excluded.iter().any(|(why, _)| *why == Exclusion::DeviceMismatch);
            let slot = Slot { start: window.start, length_s: window.length_s };
            // A value speaks into the next slot.
            return [slot, slot.next()].into_iter().filter(|_| left_out).map(|slot| Late { stream, slot }).collect();
        }
        let point = self.measured(record, anchors).and_then(|at| self.point(record, seq, at));
        let fits_not = point.filter(|point| point.kind == PointKind::Excluded(Exclusion::DeviceMismatch));
        fits_not.map(|point| windower.push(stream, point)).unwrap_or_default()
    }

    /// Begins again from the marks in the store, as after a restart: what was made last did not reach it.
    pub fn reset(&mut self, store: &Store) -> Result<(), StoreError> {
        self.windower = None;
        self.next = Seq(store.mark(FROM)?.unwrap_or(1));
        self.seen = Seq(store.mark(SEEN)?.unwrap_or(0));
        Ok(())
    }

    /// A first start closes nothing that lies before its first record.
    fn windower_from(&self, store: &Store, anchors: &Anchors, now: Timestamp) -> Result<Windower, StoreError> {
        let until = match store.mark(UNTIL)? {
            Some(ms) => Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)),
            None => {
                let first = store.read(self.next, OPEN, 1)?;
                let first = first.first().and_then(|(_, record)| self.measured(record, anchors));
                first.map_or(now, |at| at.min(now)).plus_ms(-self.horizon_ms)
            }
        };
        Ok(Windower::new(self.lengths.clone(), until))
    }

    fn take_in(&mut self, store: &Store, anchors: &Anchors, windower: &mut Windower) -> Result<Vec<Late>, StoreError> {
        let mut all_late = Vec::new();
        loop {
            let records = store.read(self.next, OPEN, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { return Ok(all_late) };
            self.next = last.next();
            for (seq, record) in &records {
                let Some(stream) = record.stream else { continue };
                let point = self.measured(record, anchors).and_then(|at| self.point(record, *seq, at));
                let late = point.map(|point| windower.push(stream, point)).unwrap_or_default();
                if *seq >= self.seen {
                    all_late.extend(late);
                }
            }
        }
    }

    fn point(&self, record: &Record, seq: Seq, at: Timestamp) -> Option<Point> {
        Point::of(record, seq, at, self.nameplates.get(&record.device))
    }

    /// A time that nobody vouches for puts a value into no window.
    fn measured(&self, record: &Record, anchors: &Anchors) -> Option<Timestamp> {
        let zone = self.zones.get(&record.device).unwrap_or(&self.default_zone);
        match anchors.of(&record.stamp, record.stream, zone) {
            Instant::Ambiguous(_) | Instant::Unknown => None,
            instant => instant.wall().map(|wall| wall.at),
        }
    }

    /// Values came for a slot that was closed before: it is made again, from all of them; `None` if nothing changed.
    fn remake(&self, store: &Store, anchors: &Anchors, late: &Late) -> Result<Option<Window>, StoreError> {
        let Late { stream, slot } = late;
        let from = slot.reads_from(stream.metric);
        let (mut points, mut newest) = (Vec::new(), None::<(u32, Window)>);
        let reaches_back = |boot, arrived| anchors.wall(boot, arrived).is_none_or(|wall| wall.at >= from);
        store.read_stream_back(stream, reaches_back, |seq, record| match &record.body {
            Body::Window(window) if window.start == slot.start && window.length_s == slot.length_s && window.to == slot.end() => {
                if window.from == slot.start && newest.as_ref().is_none_or(|(version, _)| record.version > *version) {
                    newest = Some((record.version, window.clone()));
                }
            }
            _ => {
                let at = self.measured(&record, anchors).filter(|at| *at >= from && *at < slot.end());
                points.extend(at.and_then(|at| self.point(&record, seq, at)));
            }
        })?;
        let window = make_window(stream, *slot, slot.start, slot.end(), &points);
        Ok(window.filter(|window| newest.is_none_or(|(_, before)| before != *window)))
    }

    fn draft(&self, store: &Store, stamp: Stamp, stream: StreamKey, window: Window) -> Draft {
        let id = store.site_key().window_id(&self.gateway, &stream, window.length_s, window.start);
        Draft {
            identity: Identity::Window { id, side: false },
            device: stream.device,
            stream: Some(stream),
            stamp,
            body: Body::Window(window),
            nameplate: None,
        }
    }
}
