//! What a route asks of its server, in which order, and what becomes of each record: a state machine without a socket or a clock.
//!
//! Records of one patient and device are a **line**: one request of it is under way at a time, in the order the records came,
//! and what one line waits for holds up no other. Patient, encounter and devices are found before anything is sent; what was
//! not found is never sent.

mod find;
mod make;
mod revise;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::answer::Answer;
use super::found::Person;
use super::known::Known;
use super::outcome::{Outcome, Pace};
use super::render::{DeviceSaid, References, Revision, Shape, render};
use super::request::{Create, Entry, Form, Request};
use crate::deliver::{Fault, FaultClass, Item, Token, Why};
use crate::reading::{Body, DeviceId, Op, SubjectKey};
use crate::ward::HoldReason;

/// Records under way at most: what waits beyond them waits in the log.
pub const UNDER_WAY: usize = 64;
/// Somebody else changing the same Observation at the same moment is rare; twice in a row is a loop.
const MAX_READS: u8 = 3;

/// What a route wants.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub shape: Shape,
    pub create: Create,
    pub form: Form,
    /// Observations in one bundle.
    pub max_entries: usize,
    pub device: DeviceMode,
    /// The encounter the patient is in, where there is exactly one.
    pub encounter: bool,
    pub amend: Amend,
    /// Requests under way at once.
    pub parallel: usize,
    /// This gateway's name.
    pub gateway: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMode {
    /// Found on the server, else the records wait.
    Resolve,
    /// Found, or made.
    Create,
    /// Inside each Observation.
    Contained,
    /// Its name only.
    Display,
    Omit,
}

/// What becomes of a later version of what is in the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amend {
    /// In its place.
    Send,
    /// The first stays.
    Skip,
    /// The first stays, and a person is told: a dead letter.
    Alert,
}

/// Who a patient is; `None`: nobody said, or it was forgotten.
pub trait Persons {
    fn person(&mut self, subject: &SubjectKey) -> Option<Person>;
}

/// What became of a record, or of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Settled(Token),
    /// There is nothing in it for a chart.
    Nothing(Token),
    Dead {
        token: Token,
        reason: &'static str,
        detail: String,
    },
    Waits {
        token: Token,
        why: Why,
        detail: String,
    },
    Held {
        token: Token,
        reason: HoldReason,
    },
    /// It stays owed, behind what failed before it.
    Again(Token),
    Down(Fault),
}

pub type AskId = u64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    subject: Option<SubjectKey>,
    device: DeviceId,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<(Token, Item)>,
    busy: bool,
    /// What follows from the last answer, before anything else.
    next: Option<(Step, Request)>,
    /// Sizes of the next bundles, while one that is refused is looked for.
    pieces: VecDeque<usize>,
    /// Observations of the record at the front that are done: it may make several, sent one by one.
    done: usize,
    /// Patient and devices were found anew after the server did not know them.
    found_anew: bool,
    reads: u8,
}

enum Step {
    Patient,
    Gateway {
        make: bool,
    },
    Sensor {
        make: bool,
    },
    Encounter,
    /// Which of these are there already.
    Look(Vec<Piece>),
    Make(Vec<Piece>),
    /// What is to be replaced or taken back.
    Read,
    Replace,
    /// Several have our identifier, the server said.
    Count(Token),
}

/// Whether all that is needed was found.
enum Search {
    Done,
    Ask(Step, Request),
    Wait,
}

/// One Observation of a record in a request.
#[derive(Clone)]
struct Piece {
    token: Token,
    entry: Entry,
    /// With it all of the record is there.
    last: bool,
}

pub struct Flow {
    wishes: Wishes,
    lines: BTreeMap<Line, Waiting>,
    known: Known,
    asked: BTreeMap<AskId, (Line, Step)>,
    next_ask: AskId,
    max_entries: usize,
    not_before: Duration,
    said: VecDeque<Said>,
    /// Identifiers that more than one Observation has.
    doubled: u64,
}

impl Flow {
    pub fn new(wishes: Wishes) -> Self {
        Self {
            max_entries: wishes.max_entries.max(1),
            wishes,
            lines: BTreeMap::new(),
            known: Known::default(),
            asked: BTreeMap::new(),
            next_ask: 0,
            not_before: Duration::ZERO,
            said: VecDeque::new(),
            doubled: 0,
        }
    }

    /// A new link: what was under way is owed again, by whoever keeps the log. What was found stays found.
    pub fn link_down(&mut self) {
        self.lines.clear();
        self.asked.clear();
        self.said.clear();
        self.max_entries = self.wishes.max_entries.max(1);
        self.not_before = Duration::ZERO;
    }

    pub fn room(&self, now: Duration) -> usize {
        let under_way: usize = self.lines.values().map(|line| line.queue.len()).sum();
        if now < self.not_before { 0 } else { UNDER_WAY.saturating_sub(under_way) }
    }

    pub fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Where it would go and as what. What is found on the server stands as `…`: it would name the patient.
    pub fn preview(&self, item: &Item) -> (String, String) {
        let device = match self.wishes.device {
            DeviceMode::Resolve | DeviceMode::Create => DeviceSaid::Resource("Device/…".to_owned()),
            DeviceMode::Contained => DeviceSaid::Contained,
            DeviceMode::Display => DeviceSaid::Display,
            DeviceMode::Omit => DeviceSaid::Omitted,
        };
        let found = matches!(device, DeviceSaid::Resource(_)).then(|| "Device/…".to_owned());
        let to = References { patient: "Patient/…".to_owned(), encounter: None, device, gateway: found, clock: None };
        let revision = if item.record.version > 1 { Revision::Later } else { Revision::First };
        match render(item, &self.wishes.shape, &to, revision) {
            Err(error) => ("nothing is sent".to_owned(), error.to_string()),
            Ok(rendered) => {
                let observation = serde_json::to_string(&rendered.observation).expect("text and digits always serialise");
                let target = match self.wishes.create {
                    Create::Put => format!("PUT Observation/{}", item.chart),
                    Create::IfNoneExist => format!("POST Observation, only if none has {}", item.chart),
                    Create::SearchFirst => format!("POST Observation, after a look for {}", item.chart),
                    Create::IdempotencyHeader => format!("POST Observation, with the key {}", item.chart),
                };
                (target, observation)
            }
        }
    }

    pub fn add(&mut self, token: Token, item: Item) {
        let line = Line { subject: item.subject.clone(), device: item.record.device };
        self.lines.entry(line).or_default().queue.push_back((token, item));
    }

    pub fn said(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    /// The next thing to ask, until there is nothing more for now.
    pub fn ask(&mut self, persons: &mut dyn Persons, now: Duration) -> Option<(AskId, Request)> {
        if now < self.not_before {
            return None;
        }
        let mut idle: Vec<Line> = self.lines.iter().filter(|(_, line)| !line.busy).map(|(name, _)| name.clone()).collect();
        while self.asked.len() < self.wishes.parallel.max(1) && !idle.is_empty() {
            let line = idle.remove(0);
            if let Some((step, request)) = self.next_step(&line, persons, now) {
                let id = self.next_ask;
                self.next_ask += 1;
                self.lines.get_mut(&line)?.busy = true;
                self.asked.insert(id, (line, step));
                return Some((id, request));
            }
            if self.lines.get(&line).is_some_and(|waiting| waiting.queue.is_empty()) {
                self.lines.remove(&line);
            }
        }
        None
    }

    fn next_step(&mut self, line: &Line, persons: &mut dyn Persons, now: Duration) -> Option<(Step, Request)> {
        if let Some(next) = self.lines.get_mut(line)?.next.take() {
            return Some(next);
        }
        loop {
            let (token, item) = self.lines.get(line)?.queue.front()?;
            let (token, retracts) = (*token, is_retraction(item));
            if retracts {
                return Some(self.read(line));
            }
            let Some(person) = line.subject.as_ref().and_then(|subject| persons.person(subject)) else {
                self.done(line, Said::Held { token, reason: HoldReason::PatientUnknown });
                continue;
            };
            if let Some(reason) = self.known.refused(line.subject.as_ref(), now) {
                self.done(line, Said::Held { token, reason });
                continue;
            }
            match self.find(line, &person, now) {
                Search::Done => {}
                Search::Ask(step, request) => return Some((step, request)),
                Search::Wait => return None,
            }
            let (_, item) = self.lines.get(line)?.queue.front()?;
            if item.record.version > 1 {
                match self.wishes.amend {
                    Amend::Send => return Some(self.read(line)),
                    Amend::Skip => self.done(line, Said::Nothing(token)),
                    Amend::Alert => {
                        let detail = "a later version of what is in the chart, and the route has amend = \"alert\"".to_owned();
                        self.done(line, Said::Dead { token, reason: "amended", detail });
                    }
                }
                continue;
            }
            if let Some(step) = self.make(line, &person, now) {
                return Some(step);
            }
        }
    }

    /// An answer to what was asked; what it asks for next comes from [`Flow::ask`].
    pub fn answered(&mut self, id: AskId, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
        let Some((line, step)) = self.asked.remove(&id) else { return };
        if let Some(waiting) = self.lines.get_mut(&line) {
            waiting.busy = false;
        }
        match step {
            Step::Patient => self.patient(&line, answer, body, persons, now),
            Step::Gateway { make } => self.device(&line, answer, body, make, true, now),
            Step::Sensor { make } => self.device(&line, answer, body, make, false, now),
            Step::Encounter => self.encounter(&line, answer, body, persons, now),
            Step::Look(pieces) => self.looked(&line, pieces, answer, body, now),
            Step::Make(pieces) => self.made(&line, &pieces, answer, body, now),
            Step::Read => self.was_read(&line, answer, body, persons, now),
            Step::Replace => self.replaced(&line, answer, now),
            Step::Count(token) => self.counted(&line, token, answer, body, now),
        }
    }

    fn follow(&mut self, line: &Line, step: Step, request: Request) {
        self.lines.entry(line.clone()).or_default().next = Some((step, request));
    }

    /// All that is not about one record alone.
    fn trouble(&mut self, line: &Line, said: Outcome, answer: &Answer, pieces: usize, now: Duration) {
        let detail = format!("the server answered {}", answer.scrubbed(&BTreeSet::new()));
        match said {
            Outcome::Sent | Outcome::Search => {}
            Outcome::Retry(pace) => {
                if let (Pace::All, Some(wait)) | (Pace::This, Some(wait)) = (pace, answer.retry_after) {
                    self.not_before = self.not_before.max(now + wait);
                }
                self.wait_all(line, if pace == Pace::All { Why::Quota } else { Why::Refused }, &detail);
            }
            Outcome::NewToken => {
                self.down(FaultClass::Login, "it refuses our token or password (401), also a new one; check auth")
            }
            Outcome::Stop(FaultClass::NotAuthorized) => self.wait_all(line, Why::Forbidden, &detail),
            Outcome::Stop(class) => {
                let remedy = match class {
                    FaultClass::Moved => "it leads elsewhere, which is not followed; write the address it names into url",
                    FaultClass::Broken => {
                        "that is no FHIR: check that url is the base of a FHIR R4 server, and what stands before it"
                    }
                    _ => "check that url is the base of a FHIR R4 server and that it takes what the route sends",
                };
                self.down(class, &format!("{detail}; {remedy}"));
            }
            Outcome::ReadAgain => {
                let Some(waiting) = self.lines.get_mut(line) else { return };
                waiting.reads += 1;
                if waiting.reads >= MAX_READS {
                    waiting.reads = 0;
                    self.wait_all(line, Why::Refused, &detail);
                }
            }
            Outcome::Split => {
                self.max_entries = (pieces / 2).max(1);
            }
            Outcome::Bisect => {
                let Some(waiting) = self.lines.get_mut(line) else { return };
                waiting.pieces.push_front(pieces - pieces / 2);
                waiting.pieces.push_front(pieces / 2);
            }
            Outcome::Poison(reason) => {
                if let Some((token, _)) = self.lines.get(line).and_then(|waiting| waiting.queue.front()) {
                    let token = *token;
                    self.done(line, Said::Dead { token, reason, detail });
                }
            }
            Outcome::Stale => {
                self.known.forget(line.subject.as_ref(), line.device);
                let Some(waiting) = self.lines.get_mut(line) else { return };
                if std::mem::replace(&mut waiting.found_anew, true) {
                    self.hold_all(line, HoldReason::PatientUnknown);
                }
            }
        }
    }

    /// Nothing of this line is under way any more, and all of it stays owed.
    fn wait_all(&mut self, line: &Line, why: Why, detail: &str) {
        let Some(mut waiting) = self.lines.remove(line) else { return };
        if let Some((token, _)) = waiting.queue.pop_front() {
            self.said.push_back(Said::Waits { token, why, detail: detail.to_owned() });
        }
        self.said.extend(waiting.queue.into_iter().map(|(token, _)| Said::Again(token)));
    }

    fn hold_all(&mut self, line: &Line, reason: HoldReason) {
        let Some(waiting) = self.lines.remove(line) else { return };
        self.said.extend(waiting.queue.into_iter().map(|(token, _)| Said::Held { token, reason }));
    }

    fn down(&mut self, class: FaultClass, text: &str) {
        self.said.push_back(Said::Down(Fault { class, text: text.to_owned() }));
    }

    /// A record is done with, one way or another.
    fn done(&mut self, line: &Line, said: Said) {
        let token = match &said {
            Said::Settled(token) | Said::Nothing(token) | Said::Again(token) => *token,
            Said::Dead { token, .. } | Said::Waits { token, .. } | Said::Held { token, .. } => *token,
            Said::Down(_) => return self.said.push_back(said),
        };
        let Some(waiting) = self.lines.get_mut(line) else { return };
        let Some(at) = waiting.queue.iter().position(|(of, _)| *of == token) else { return };
        if at == 0 {
            waiting.done = 0;
            waiting.reads = 0;
        }
        waiting.queue.remove(at);
        self.said.push_back(said);
    }
}

/// Names of what may stand beside a record.
const BESIDE: [&str; 2] = ["status", "meal"];

fn is_retraction(item: &Item) -> bool {
    item.op == Op::Retract || matches!(item.record.body, Body::Retraction(_))
}
