//! Fetching the records a device stored, over its Record Access Control Point: from the first one not durable yet, or all where
//! the device can't count, until it says that it is done or falls silent.
//!
//! Nothing is ever deleted. How many records there are is not asked: some devices answer with a number that is none. What comes
//! twice is told apart by its identity, so asking for too many costs time and nothing else.

use std::time::{Duration, Instant};

use crate::gatt::{Bound, RecordAccessControlPoint, RecordAccessResult, StoredRecords, Width, read};

/// Since the last record, or since the question (Glucose Profile 1.0: the attribute protocol's own limit).
const SILENCE: Duration = Duration::from_secs(30);
/// A device that is asked to stop does it in one connection interval; a few seconds later it never will.
const ABORT_ANSWER: Duration = Duration::from_secs(5);
/// Before a busy device is asked again.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// A device busy for longer is so for another reason than a measurement under way.
const BUSY_TRIES: u32 = 6;
/// More records than any device stores: one that sends without end is stopped.
const MAX_RECORDS: u32 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Everything is subscribed.
    Begin,
    /// The device took what was written to its control point, or refused it.
    Written(bool),
    /// A value of the control point.
    Answer(&'a [u8]),
    /// A stored record came, with its number where it has one.
    Record(Option<u32>),
    /// A piece of a stored record came, or what belongs to one.
    Piece,
    /// Time passed.
    Tick,
    /// Whoever is in charge wants the device for something else.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the control point, with response.
    Write(Vec<u8>),
    Done(Outcome),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked for came; how many records.
    Complete(u32),
    /// The device fell silent after so many. The rest comes next time.
    Silent(u32),
    /// It refused, with the code of the control point.
    Refused(u8),
    /// It was busy all the time.
    Busy,
    /// It does not take writes to its control point: not bonded, or not subscribed.
    NotWritable,
    /// It sent more than it can have.
    Endless,
    Stopped,
}

impl Outcome {
    /// How many records came.
    pub const fn records(self) -> u32 {
        match self {
            Outcome::Complete(records) | Outcome::Silent(records) => records,
            _ => 0,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Complete(_) => "complete",
            Outcome::Silent(_) => "silent",
            Outcome::Refused(_) => "refused",
            Outcome::Busy => "busy",
            Outcome::NotWritable => "not_writable",
            Outcome::Endless => "endless",
            Outcome::Stopped => "stopped",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Asking {
        asked: Ask,
        since: Instant,
    },
    /// It goes on after a while.
    Waiting {
        ask: Ask,
        until: Instant,
    },
    /// It was told to stop, and this is what is told when it has.
    Aborting {
        outcome: Outcome,
        since: Instant,
    },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// From the one behind the last durable.
    From(u32),
    All,
    /// Nothing came from there on: is what is there older, or numbered anew?
    Newest(u32),
}

#[derive(Debug)]
pub struct Retrieve {
    width: Width,
    /// The highest sequence number that is durable; `None` for a device nothing is known of.
    last: Option<u32>,
    state: State,
    records: u32,
    /// Of the newest record, where that was asked for.
    newest: Option<u32>,
    busy: u32,
}

impl Retrieve {
    pub const fn new(width: Width, last: Option<u32>) -> Self {
        Self { width, last, state: State::Idle, records: 0, newest: None, busy: 0 }
    }

    pub fn poll(&mut self, now: Instant, event: Event<'_>) -> Vec<Action> {
        match (self.state, event) {
            (State::Idle, Event::Begin) => self.ask(now, self.first()),
            (State::Idle | State::Ended, Event::Stop) => self.end(Outcome::Stopped),
            (State::Idle | State::Ended, _) => vec![],
            (State::Asking { asked: Ask::Newest(_), .. }, Event::Record(number)) => {
                self.newest = number;
                vec![]
            }
            (State::Asking { .. } | State::Aborting { .. }, Event::Record(_)) => self.record(now),
            (State::Asking { asked, .. }, Event::Piece) => {
                self.state = State::Asking { asked, since: now };
                vec![]
            }
            (State::Asking { asked, .. }, Event::Answer(octets)) => self.answered(now, asked, octets),
            (State::Asking { asked: Ask::From(_), .. }, Event::Written(false)) => self.ask(now, Ask::All),
            (State::Asking { asked: Ask::Newest(_), .. }, Event::Written(false)) => self.end(Outcome::Complete(0)),
            (State::Asking { .. }, Event::Written(false)) => self.end(Outcome::NotWritable),
            (State::Asking { asked, since }, Event::Tick) if now >= since + SILENCE => self.silent(now, asked),
            (State::Asking { .. }, Event::Stop) => self.abort(now, Outcome::Stopped),
            (State::Waiting { ask, until }, Event::Tick) if now >= until => self.ask(now, ask),
            (State::Waiting { .. }, Event::Stop) => self.end(Outcome::Stopped),
            (State::Aborting { outcome, .. }, Event::Answer(_) | Event::Written(false)) => self.end(outcome),
            (State::Aborting { outcome, since }, Event::Tick) if now >= since + ABORT_ANSWER => self.end(outcome),
            _ => vec![],
        }
    }

    /// When the next `Tick` is due.
    pub fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Ended => None,
            State::Asking { since, .. } => Some(since + SILENCE),
            State::Waiting { until, .. } => Some(until),
            State::Aborting { since, .. } => Some(since + ABORT_ANSWER),
        }
    }

    /// A number at the end of its range says nothing of what is behind it: the device begins again at zero, or not.
    fn first(&self) -> Ask {
        let next = self.last.and_then(|last| match self.width {
            Width::U16 => u16::try_from(last).ok()?.checked_add(1).map(u32::from),
            Width::U32 => last.checked_add(1),
        });
        next.map_or(Ask::All, Ask::From)
    }

    fn ask(&mut self, now: Instant, ask: Ask) -> Vec<Action> {
        self.state = State::Asking { asked: ask, since: now };
        let records = match (ask, self.width) {
            (Ask::All, _) => StoredRecords::All,
            (Ask::Newest(_), _) => StoredRecords::Last,
            (Ask::From(first), Width::U16) => StoredRecords::From(Bound::Sequence16(first as u16)),
            (Ask::From(first), Width::U32) => StoredRecords::From(Bound::Sequence32(first)),
        };
        vec![Action::Write(RecordAccessControlPoint::Report(records).encode())]
    }

    fn record(&mut self, now: Instant) -> Vec<Action> {
        self.records = self.records.saturating_add(1);
        if let State::Asking { since, .. } = &mut self.state {
            *since = now;
            if self.records > MAX_RECORDS {
                return self.abort(now, Outcome::Endless);
            }
        }
        vec![]
    }

    fn answered(&mut self, now: Instant, asked: Ask, octets: &[u8]) -> Vec<Action> {
        // What is no answer to our question is none: the device may speak of something else.
        let Some(result) = read::<RecordAccessControlPoint>(octets).ok().and_then(|(answer, _)| answer.result()) else {
            return vec![];
        };
        match (result, asked) {
            (_, Ask::Newest(from)) if result != RecordAccessResult::Busy => match self.newest {
                // Its memory was cleared, or its battery out: what it has now nobody has.
                Some(newest) if newest < from.saturating_sub(1) => self.ask(now, Ask::All),
                _ => self.end(Outcome::Complete(0)),
            },
            (RecordAccessResult::Success | RecordAccessResult::NoRecordsFound, Ask::From(from)) if self.records == 0 => {
                self.ask(now, Ask::Newest(from))
            }
            (RecordAccessResult::Success | RecordAccessResult::NoRecordsFound, _) => self.end(Outcome::Complete(self.records)),
            (RecordAccessResult::NotSupported, Ask::From(_)) => self.ask(now, Ask::All),
            (RecordAccessResult::Busy, ask) => {
                self.busy += 1;
                if self.busy > BUSY_TRIES {
                    return self.end(Outcome::Busy);
                }
                self.state = State::Waiting { ask, until: now + BUSY_WAIT };
                vec![]
            }
            (RecordAccessResult::NotSupported | RecordAccessResult::Failed(_), _) => {
                self.end(Outcome::Refused(octets.last().copied().unwrap_or_default()))
            }
        }
    }

    /// A device that can't count may say nothing at all to a question with a number in it.
    fn silent(&mut self, now: Instant, asked: Ask) -> Vec<Action> {
        match asked {
            Ask::From(_) if self.records == 0 => self.ask(now, Ask::All),
            Ask::Newest(_) => self.abort(now, Outcome::Complete(0)),
            _ => self.abort(now, Outcome::Silent(self.records)),
        }
    }

    fn abort(&mut self, now: Instant, outcome: Outcome) -> Vec<Action> {
        self.state = State::Aborting { outcome, since: now };
        vec![Action::Write(RecordAccessControlPoint::Abort.encode())]
    }

    fn end(&mut self, outcome: Outcome) -> Vec<Action> {
        if self.state == State::Ended {
            return vec![];
        }
        self.state = State::Ended;
        vec![Action::Done(outcome)]
    }
}

#[cfg(test)]
mod tests;
