//! What is known of a device's clock over its connections. A comparison with ours holds for what was measured since the clock
//! was last moved: what lies before is dated by the clock as it was, and what could be of either is dated by nobody.

use jiff::tz::TimeZone;

use crate::reading::{DeviceTime, Timestamp};

/// A clock that was read to the second, over a link of some hundred milliseconds, by people who set it to the minute.
const WAVERS_MS: i64 = 2 * 60_000;
/// Ten seconds a day: the worst of quartzes.
const DRIFTS_MS_A_DAY: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;
/// Where a clock was moved is known to the second.
const EDGE_MS: i64 = 2_000;
/// More moves than a device has in the time its memory spans.
const MAX_MOVES: usize = 4;
const EPOCH: DeviceTime = DeviceTime { year: Some(1970), month: Some(1), day: Some(1), hour: 0, minute: 0, second: 0 };

/// Of one device. All offsets are what its clock shows, read as UTC, less the true time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceClock {
    known: Option<Known>,
    /// Oldest first.
    moves: Vec<Move>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    offset_ms: i64,
    at: Timestamp,
    /// Since when every move of it was seen.
    since: Timestamp,
}

/// It was moved at some time between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    before_ms: i64,
    after_ms: i64,
    from: Timestamp,
    to: Timestamp,
    /// By us, after the device had told all it had stored: what comes later is of later.
    told_all: bool,
}

/// By which clock a time on a value is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dated {
    /// The one that was read in the connection.
    AsRead,
    /// That, moved by so many milliseconds: as it stood when the value was measured.
    AsItStood(i64),
    /// It could be either.
    Unclear,
}

impl DeviceClock {
    /// It was read; says by how many milliseconds somebody moved it since it was last.
    pub fn read(&mut self, shown: DeviceTime, now: Timestamp) -> Option<i64> {
        let offset_ms = shown.since_ms(EPOCH)? - now.0;
        let before = self.known.replace(Known { offset_ms, at: now, since: self.known.map_or(now, |known| known.since) })?;
        let moved = offset_ms - before.offset_ms;
        let days = (now.0 - before.at.0).max(0) / DAY_MS + 1;
        if moved.abs() <= WAVERS_MS + days * DRIFTS_MS_A_DAY {
            return None;
        }
        self.add(Move { before_ms: before.offset_ms, after_ms: offset_ms, from: before.at, to: now, told_all: false });
        Some(moved)
    }

    /// We set it, after the device had told all it had stored; says by how many milliseconds. One that showed no time before has measured nothing that has one.
    pub fn set(&mut self, before: Option<(DeviceTime, Timestamp)>, after: (DeviceTime, Timestamp)) -> Option<i64> {
        let offset = |(shown, at): (DeviceTime, Timestamp)| Some((shown.since_ms(EPOCH)? - at.0, at));
        let (after_ms, to) = offset(after)?;
        let since = self.known.map_or(to, |known| known.since);
        self.known = Some(Known { offset_ms: after_ms, at: to, since });
        let (before_ms, from) = offset(before?)?;
        self.add(Move { before_ms, after_ms, from, to, told_all: true });
        Some(after_ms - before_ms)
    }

    /// `zone` is the clock's: before it was known, it may have followed summer time or not.
    pub fn dated(&self, measured: DeviceTime, now: Timestamp, zone: &TimeZone) -> Dated {
        let (Some(known), Some(shown_ms)) = (self.known, measured.since_ms(EPOCH)) else { return Dated::AsRead };
        let fitting = self.fitting(known, now, shown_ms);
        let Some(last) = fitting.first() else { return Dated::Unclear };
        if fitting.iter().any(|era| (era.offset_ms - last.offset_ms).abs() > WAVERS_MS) {
            return Dated::Unclear;
        }
        let measured_at = Timestamp(shown_ms - last.offset_ms);
        if measured_at < known.since && offset_s(zone, measured_at) != offset_s(zone, known.since) {
            return Dated::Unclear;
        }
        match last.offset_ms - known.offset_ms {
            moved if moved.abs() <= WAVERS_MS => Dated::AsRead,
            moved => Dated::AsItStood(moved),
        }
    }

    /// The times between its moves in which it may have shown this, latest first. What was before a device had told all
    /// comes into question only where nothing later does.
    fn fitting(&self, known: Known, now: Timestamp, shown_ms: i64) -> Vec<Era> {
        let mut fitting = vec![];
        let mut to = now.plus_ms(WAVERS_MS);
        let mut offset_ms = self.moves.last().map_or(known.offset_ms, |last| last.after_ms);
        for moved in self.moves.iter().rev() {
            fitting.extend(Some(Era { offset_ms, from: moved.from, to }).filter(|era| era.may_have_shown(shown_ms)));
            if moved.told_all && !fitting.is_empty() {
                return fitting;
            }
            (offset_ms, to) = (moved.before_ms, moved.to);
        }
        let first = Era { offset_ms, from: Timestamp(i64::MIN), to };
        fitting.extend(Some(first).filter(|era| era.may_have_shown(shown_ms)));
        fitting
    }

    fn add(&mut self, moved: Move) {
        if self.moves.len() == MAX_MOVES {
            self.moves.remove(0);
        }
        self.moves.push(moved);
    }

    /// As numbers under names, to be kept over a restart.
    pub fn marks(&self) -> Vec<(String, u64)> {
        let Some(known) = self.known else { return vec![] };
        let of_move = |(at, moved): (usize, &Move)| {
            let told_all = i64::from(moved.told_all);
            let (from, to) = (moved.from.0, moved.to.0);
            [("before", moved.before_ms), ("after", moved.after_ms), ("from", from), ("to", to), ("told_all", told_all)]
                .map(|(name, value)| (format!("move.{at}.{name}"), value))
        };
        let known = [("offset", known.offset_ms), ("at", known.at.0), ("since", known.since.0)];
        let known = known.map(|(name, value)| (name.to_owned(), value));
        let all = known.into_iter().chain(self.moves.iter().enumerate().flat_map(of_move));
        all.map(|(name, value)| (name, value.cast_unsigned())).collect()
    }

    /// What [`Self::marks`] named; what is missing was never known.
    pub fn of_marks(mark: impl Fn(&str) -> Option<u64>) -> Self {
        let read = |name: &str| mark(name).map(u64::cast_signed);
        let known = || Some(Known { offset_ms: read("offset")?, at: Timestamp(read("at")?), since: Timestamp(read("since")?) });
        let moved = |at: usize| {
            let read = |name: &str| read(&format!("move.{at}.{name}"));
            let (from, to) = (Timestamp(read("from")?), Timestamp(read("to")?));
            let told_all = read("told_all")? != 0;
            Some(Move { before_ms: read("before")?, after_ms: read("after")?, from, to, told_all })
        };
        Self { known: known(), moves: (0..MAX_MOVES).map_while(moved).collect() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Era {
    offset_ms: i64,
    from: Timestamp,
    to: Timestamp,
}

impl Era {
    fn may_have_shown(self, shown_ms: i64) -> bool {
        let at = shown_ms - self.offset_ms;
        at >= self.from.0.saturating_sub(EDGE_MS) && at <= self.to.0.saturating_add(EDGE_MS)
    }
}

fn offset_s(zone: &TimeZone, at: Timestamp) -> Option<i32> {
    jiff::Timestamp::from_millisecond(at.0).ok().map(|at| zone.to_offset(at).seconds())
}

#[cfg(test)]
mod tests;
