//! What a route asks of its server, in which order, and what becomes of each record: a state machine without a socket or a clock.
//!
//! Records of one patient and device are a **line**: one request of it is under way at a time, in the order the records came,
//! and what one line waits for holds up no other. Patient, encounter and devices are found before anything is sent; what was
//! not found is never sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::answer::{Answer, Content};
use super::found::{self, Existing, Found, Person};
use super::known::Known;
use super::outcome::{Asked, Outcome, Pace, outcome};
use super::render::{DeviceSaid, NotCharted, References, Revision, Shape, render};
use super::request::{Create, Entry, Form, Request};
use super::{device, resource};
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

    /// What has to be found before a record of this line may go. A device that another line looks for is waited for: looked for
    /// twice at once it would be made twice.
    fn find(&self, line: &Line, person: &Person, now: Duration) -> Search {
        let Some(subject) = line.subject.as_ref() else { return Search::Wait };
        let by_identifier = |kind: &str, system: &str, value: &str| Request::search(kind, system, std::iter::once(value), 2);
        let Some(patient) = self.known.patient(subject, person) else {
            return Search::Ask(Step::Patient, by_identifier("Patient", &person.system, person.value.expose()));
        };
        if matches!(self.wishes.device, DeviceMode::Resolve | DeviceMode::Create) {
            if self.known.gateway.is_none() {
                let request = by_identifier("Device", &self.wishes.shape.identifier_system, &self.wishes.gateway);
                let step = Step::Gateway { make: false };
                return if self.is_sought(|step, _| matches!(step, Step::Gateway { .. })) {
                    Search::Wait
                } else {
                    Search::Ask(step, request)
                };
            }
            if self.known.device(line.device).is_none() {
                let request = by_identifier("Device", device::BLUETOOTH, &device::address(line.device));
                let same = |step: &Step, of: &Line| matches!(step, Step::Sensor { .. }) && of.device == line.device;
                return if self.is_sought(same) { Search::Wait } else { Search::Ask(Step::Sensor { make: false }, request) };
            }
        }
        if self.wishes.encounter && self.known.encounter(patient, now).is_none() {
            let id = patient.trim_start_matches("Patient/");
            let path = format!("Encounter?patient={id}&status=in-progress&_count=2");
            return Search::Ask(Step::Encounter, Request::get(path));
        }
        Search::Done
    }

    fn is_sought(&self, is: impl Fn(&Step, &Line) -> bool) -> bool {
        let next = |(line, waiting): (&Line, &Waiting)| waiting.next.as_ref().is_some_and(|(step, _)| is(step, line));
        self.asked.values().any(|(line, step)| is(step, line)) || self.lines.iter().any(next)
    }

    fn references(&self, line: &Line, person: &Person, now: Duration) -> Option<References> {
        let patient = self.known.patient(line.subject.as_ref()?, person)?.to_owned();
        let device = match self.wishes.device {
            DeviceMode::Resolve | DeviceMode::Create => DeviceSaid::Resource(self.known.device(line.device)?.to_owned()),
            DeviceMode::Contained => DeviceSaid::Contained,
            DeviceMode::Display => DeviceSaid::Display,
            DeviceMode::Omit => DeviceSaid::Omitted,
        };
        let encounter = self.known.encounter(&patient, now).flatten().map(str::to_owned);
        Some(References { encounter, device, gateway: self.known.gateway.clone(), patient, clock: None })
    }

    /// The next records of a line as one request. `None`: what was at the front is done with.
    fn make(&mut self, line: &Line, person: &Person, now: Duration) -> Option<(Step, Request)> {
        let to = self.references(line, person, now)?;
        let waiting = self.lines.get_mut(line)?;
        let single = self.wishes.form == Form::Single || self.wishes.create == Create::IdempotencyHeader;
        let most = if single { 1 } else { waiting.pieces.front().copied().unwrap_or(self.max_entries).max(1) };
        let mut pieces: Vec<Piece> = Vec::new();
        let mut refused = Vec::new();
        let (mut together, mut ends_group, mut full) = (0, true, false);
        for (index, (token, item)) in waiting.queue.iter().enumerate() {
            if item.record.version > 1 || is_retraction(item) {
                break;
            }
            if starts_group(item) {
                together = pieces.len();
            }
            match render(item, &self.wishes.shape, &to, Revision::First) {
                Err(error) => refused.push(not_charted(*token, error)),
                Ok(rendered) => {
                    let skip = if index == 0 { waiting.done } else { 0 };
                    let of_item = std::iter::once(&rendered.observation).chain(&rendered.beside).skip(skip);
                    let piece = |one| Piece { token: *token, entry: Entry::new(one), last: false };
                    let mut of_item: Vec<Piece> = of_item.map(piece).collect();
                    of_item.iter_mut().last().into_iter().for_each(|piece| piece.last = true);
                    if pieces.len() + of_item.len() > most && !pieces.is_empty() {
                        full = true;
                        break;
                    }
                    of_item.truncate(most);
                    pieces.extend(of_item);
                    ends_group = ends_its_group(item);
                }
            }
            if pieces.len() >= most {
                full = true;
                break;
            }
        }
        // What was measured together goes together, unless it is too much for one bundle.
        if full && !ends_group && together > 0 {
            pieces.truncate(together);
        }
        waiting.pieces.pop_front();
        refused.into_iter().for_each(|said| self.done(line, said));
        if pieces.is_empty() {
            return None;
        }
        if self.wishes.create == Create::SearchFirst {
            let ids = pieces.iter().map(|piece| piece.entry.id.as_str());
            let request = Request::search("Observation", &self.wishes.shape.identifier_system, ids, 2 * pieces.len());
            return Some((Step::Look(pieces), request));
        }
        let request = self.request(&pieces);
        Some((Step::Make(pieces), request))
    }

    fn request(&self, pieces: &[Piece]) -> Request {
        let system = &self.wishes.shape.identifier_system;
        match pieces {
            [one] => Request::one(&one.entry, self.wishes.create, system),
            _ => {
                let entries: Vec<&Entry> = pieces.iter().map(|piece| &piece.entry).collect();
                Request::bundle(&entries, self.wishes.form, self.wishes.create, system)
            }
        }
    }

    /// What stands in the chart under the id of the record at the front, or of what was sent beside it.
    fn read(&self, line: &Line) -> (Step, Request) {
        let waiting = &self.lines[line];
        let chart = waiting.queue[0].1.chart;
        let id = match waiting.done {
            0 => chart,
            n => chart.beside(BESIDE[n - 1]),
        }
        .to_string();
        let request = if self.wishes.create == Create::Put {
            Request::get(format!("Observation/{id}"))
        } else {
            Request::search("Observation", &self.wishes.shape.identifier_system, std::iter::once(id.as_str()), 2)
        };
        (Step::Read, request)
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

    fn patient(&mut self, line: &Line, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
        let Some(subject) = &line.subject else { return };
        // Changed meanwhile: it is asked for again.
        let Some(person) = persons.person(subject) else { return };
        let Some(found) = self.searched(line, answer, found::patient(body, &person), now) else { return };
        match found {
            Found::One(patient) => self.known.found_patient(subject.clone(), person, patient),
            Found::None => self.known.refuse(subject.clone(), HoldReason::PatientUnknown, now),
            Found::Several | Found::Another => self.known.refuse(subject.clone(), HoldReason::IdentityMismatch, now),
        }
    }

    fn device(&mut self, line: &Line, answer: &Answer, body: &[u8], make: bool, gateway: bool, now: Duration) {
        let found = if make {
            let made = found::made("Device", answer.location.as_deref(), body).map(Found::One);
            self.searched(line, answer, made, now)
        } else {
            self.searched(line, answer, found::one(body, "Device"), now)
        };
        match found {
            None => {}
            Some(Found::One(device)) if gateway => self.known.gateway = Some(device),
            Some(Found::One(device)) => self.known.found_device(line.device, device),
            Some(Found::None) if self.wishes.device == DeviceMode::Create && !make => self.make_device(line, gateway),
            Some(Found::None | Found::Several | Found::Another) => self.hold_all(line, HoldReason::DeviceMismatch),
        }
    }

    fn make_device(&mut self, line: &Line, gateway: bool) {
        let Some(waiting) = self.lines.get_mut(line) else { return };
        let Some((_, item)) = waiting.queue.front() else { return };
        let (step, device) = if gateway {
            (Step::Gateway { make: true }, device::gateway(&self.wishes.gateway, &self.wishes.shape))
        } else {
            (Step::Sensor { make: true }, device::sensor(item, None))
        };
        waiting.next = Some((step, Request::device(&device)));
    }

    fn encounter(&mut self, line: &Line, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
        let Some(found) = self.searched(line, answer, found::one(body, "Encounter"), now) else { return };
        let person = line.subject.as_ref().and_then(|subject| persons.person(subject));
        let patient = line.subject.as_ref().zip(person).and_then(|(subject, person)| self.known.patient(subject, &person));
        let encounter = if let Found::One(encounter) = found { Some(encounter) } else { None };
        if let Some(patient) = patient.map(str::to_owned) {
            self.known.found_encounter(patient, encounter, now);
        }
    }

    /// The result of a search; what is no result is dealt with.
    fn searched<T>(&mut self, line: &Line, answer: &Answer, result: Option<T>, now: Duration) -> Option<T> {
        let said = outcome(answer, &Asked { records: 1, keyed: false, replaces: false, references: &[] });
        match (said, result) {
            (Outcome::Sent, Some(result)) => Some(result),
            (Outcome::Sent, None) => {
                self.down(
                    FaultClass::Broken,
                    "it answered a search with something else than its result; check that url is the base of a FHIR R4 server",
                );
                None
            }
            (other, _) => {
                self.trouble(line, other, answer, 1, now);
                None
            }
        }
    }

    fn looked(&mut self, line: &Line, pieces: Vec<Piece>, answer: &Answer, body: &[u8], now: Duration) {
        let system = self.wishes.shape.identifier_system.clone();
        let Some(existing) = self.searched(line, answer, found::observations(body, &system), now) else { return };
        let there: BTreeSet<&String> = existing.iter().flat_map(|one| &one.charts).collect();
        let ends: BTreeSet<Token> = pieces.iter().filter(|piece| piece.last).map(|piece| piece.token).collect();
        let (done, mut missing): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(|piece| there.contains(&piece.entry.id));
        self.doubled += (existing.len().saturating_sub(done.len())) as u64;
        // Of a record of which a part is there the rest goes, and then all of it is.
        for at in 0..missing.len() {
            let token = missing[at].token;
            missing[at].last = ends.contains(&token) && missing.get(at + 1).is_none_or(|next| next.token != token);
        }
        let of_missing: BTreeSet<Token> = missing.iter().map(|piece| piece.token).collect();
        let whole: Vec<Piece> = done.into_iter().filter(|piece| !of_missing.contains(&piece.token)).collect();
        self.sent(line, &whole);
        if !missing.is_empty() {
            let request = self.request(&missing);
            self.follow(line, Step::Make(missing), request);
        }
    }

    fn made(&mut self, line: &Line, pieces: &[Piece], answer: &Answer, body: &[u8], now: Duration) {
        let references = self.known.references(line.subject.as_ref(), line.device);
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        let keyed = self.wishes.create == Create::IdempotencyHeader;
        let asked = |records| Asked { records, keyed, replaces: false, references: &references };
        let whole = outcome(answer, &asked(pieces.len()));
        if whole != Outcome::Sent {
            return self.refused(line, pieces, whole, answer, now);
        }
        if pieces.len() == 1 {
            return self.sent(line, pieces);
        }
        let Some(entries) = Answer::entries(body, pieces.len()) else {
            return self.down(
                FaultClass::Broken,
                "it answered a bundle with something else than an answer to each of its entries; write form = \"single\"",
            );
        };
        let mut sent = Vec::new();
        for (piece, entry) in pieces.iter().zip(&entries) {
            match outcome(entry, &asked(1)) {
                Outcome::Sent => sent.push(piece.clone()),
                // The others were taken or have answers of their own, and all may go again.
                Outcome::Poison(reason) => self.bury(line, piece, reason, entry),
                other => {
                    self.sent(line, &sent);
                    return self.refused(line, std::slice::from_ref(piece), other, entry, now);
                }
            }
        }
        self.sent(line, &sent);
    }

    fn refused(&mut self, line: &Line, pieces: &[Piece], said: Outcome, answer: &Answer, now: Duration) {
        match said {
            Outcome::Poison(reason) => self.bury(line, &pieces[0], reason, answer),
            Outcome::Search => {
                let id = pieces[0].entry.id.clone();
                if pieces.len() > 1 {
                    return self.trouble(line, Outcome::Bisect, answer, pieces.len(), now);
                }
                let system = self.wishes.shape.identifier_system.clone();
                let request = Request::search("Observation", &system, std::iter::once(id.as_str()), 10);
                self.follow(line, Step::Count(pieces[0].token), request);
            }
            other => self.trouble(line, other, answer, pieces.len(), now),
        }
    }

    /// Several Observations have our identifier: the record is in the chart, and somebody has to tidy up.
    fn counted(&mut self, line: &Line, token: Token, answer: &Answer, body: &[u8], now: Duration) {
        let system = self.wishes.shape.identifier_system.clone();
        let Some(existing) = self.searched(line, answer, found::observations(body, &system), now) else { return };
        if existing.is_empty() {
            let detail = "the server says that several have its identifier, and finds none".to_owned();
            return self.done(line, Said::Dead { token, reason: "refused", detail });
        }
        self.doubled += existing.len() as u64 - 1;
        self.done(line, Said::Settled(token));
    }

    fn was_read(&mut self, line: &Line, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
        let system = self.wishes.shape.identifier_system.clone();
        let by_id = self.wishes.create == Create::Put;
        let existing = if by_id && matches!(answer.status, 404 | 410) && answer.content != Content::Other {
            vec![]
        } else if by_id {
            let one = found::observation(body, &system).map(|one| vec![one]);
            let Some(one) = self.searched(line, answer, one, now) else { return };
            one
        } else {
            let Some(found) = self.searched(line, answer, found::observations(body, &system), now) else { return };
            found
        };
        let Some((token, item)) = self.lines.get(line).and_then(|waiting| waiting.queue.front()) else { return };
        let (token, retracts) = (*token, is_retraction(item));
        self.doubled += existing.len().saturating_sub(1) as u64;
        let Some(existing) = existing.into_iter().next() else {
            if retracts {
                return self.part_retracted(line, token);
            }
            // It never came there: it is made, as the version it is.
            let made = self.first_of_later(line, persons, now);
            return match made {
                Ok(pieces) => {
                    let request = self.request(&pieces);
                    self.follow(line, Step::Make(pieces), request);
                }
                Err(said) => self.done(line, said),
            };
        };
        let body = if retracts { self.take_back(&existing, token, line) } else { self.amended(&existing, line, persons, now) };
        let Some(body) = body else { return };
        let request = Request::put(&existing.id, body, existing.version.as_deref());
        self.follow(line, Step::Replace, request);
    }

    fn follow(&mut self, line: &Line, step: Step, request: Request) {
        self.lines.entry(line.clone()).or_default().next = Some((step, request));
    }

    fn take_back(&mut self, existing: &Existing, token: Token, line: &Line) -> Option<Vec<u8>> {
        const GONE: &str = "entered-in-error";
        if found::status(existing).as_deref() == Some(GONE) {
            self.part_retracted(line, token);
            return None;
        }
        let body = found::with_status(existing, GONE);
        if body.is_none() {
            self.down(FaultClass::Broken, "it answered with an Observation that can't be read");
        }
        body
    }

    /// What was sent beside a record is taken back with it.
    fn part_retracted(&mut self, line: &Line, token: Token) {
        let beside = if self.wishes.shape.beside { BESIDE.len() } else { 0 };
        let Some(waiting) = self.lines.get_mut(line) else { return };
        if waiting.done < beside {
            waiting.done += 1;
            waiting.reads = 0;
            return;
        }
        self.done(line, Said::Settled(token));
    }

    fn amended(&mut self, existing: &Existing, line: &Line, persons: &mut dyn Persons, now: Duration) -> Option<Vec<u8>> {
        let person = line.subject.as_ref().and_then(|subject| persons.person(subject))?;
        let to = self.references(line, &person, now)?;
        let (token, item) = self.lines.get(line)?.queue.front()?;
        let token = *token;
        match render(item, &self.wishes.shape, &to, Revision::Later) {
            Ok(rendered) => {
                let observation = resource::Observation { id: Some(existing.id.clone()), ..rendered.observation };
                serde_json::to_vec(&observation).ok()
            }
            Err(error) => {
                self.done(line, not_charted(token, error));
                None
            }
        }
    }

    fn first_of_later(&self, line: &Line, persons: &mut dyn Persons, now: Duration) -> Result<Vec<Piece>, Said> {
        let (token, item) = &self.lines[line].queue[0];
        let again = || Said::Again(*token);
        let person = line.subject.as_ref().and_then(|subject| persons.person(subject)).ok_or_else(again)?;
        let to = self.references(line, &person, now).ok_or_else(again)?;
        let rendered = render(item, &self.wishes.shape, &to, Revision::First).map_err(|error| not_charted(*token, error))?;
        Ok(vec![Piece { token: *token, entry: Entry::new(&rendered.observation), last: true }])
    }

    fn replaced(&mut self, line: &Line, answer: &Answer, now: Duration) {
        let said = outcome(answer, &Asked { records: 1, keyed: false, replaces: true, references: &[] });
        let Some((token, item)) = self.lines.get(line).and_then(|waiting| waiting.queue.front()) else { return };
        let (token, retracts) = (*token, is_retraction(item));
        match said {
            Outcome::Sent if retracts => self.part_retracted(line, token),
            Outcome::Sent => self.done(line, Said::Settled(token)),
            Outcome::Poison(reason) => {
                let detail = answer.scrubbed(&BTreeSet::new());
                self.done(line, Said::Dead { token, reason, detail });
            }
            other => self.trouble(line, other, answer, 1, now),
        }
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

    fn sent(&mut self, line: &Line, pieces: &[Piece]) {
        let Some(waiting) = self.lines.get_mut(line) else { return };
        waiting.found_anew = false;
        waiting.reads = 0;
        for piece in pieces {
            if piece.last {
                self.done(line, Said::Settled(piece.token));
            } else if let Some(waiting) = self.lines.get_mut(line)
                && waiting.queue.front().is_some_and(|(front, _)| *front == piece.token)
            {
                waiting.done += 1;
            }
        }
    }

    fn bury(&mut self, line: &Line, piece: &Piece, reason: &'static str, answer: &Answer) {
        let detail = format!("the server answered {}", answer.scrubbed(&words(&piece.entry)));
        self.done(line, Said::Dead { token: piece.token, reason, detail });
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

/// The first of what one value of a device says.
fn starts_group(item: &Item) -> bool {
    !matches!(&item.record.body, Body::Reading(reading) if reading.parts > 1 && reading.part > 0)
}

fn ends_its_group(item: &Item) -> bool {
    !matches!(&item.record.body, Body::Reading(reading) if reading.part + 1 < reading.parts)
}

fn not_charted(token: Token, error: NotCharted) -> Said {
    if error.is_nothing() { Said::Nothing(token) } else { Said::Dead { token, reason: "not_charted", detail: error.to_string() } }
}

/// Codes, units and names of elements of what was sent: none of them is a patient's.
fn words(entry: &Entry) -> BTreeSet<String> {
    let Ok(serde_json::Value::Object(sent)) = serde_json::from_str(entry.resource.get()) else { return BTreeSet::new() };
    let mut words = BTreeSet::new();
    let harmless = ["code", "category", "meta", "component", "valueQuantity", "dataAbsentReason", "interpretation", "status"];
    for (name, value) in sent {
        if harmless.contains(&name.as_str()) {
            collect(&value, &mut words);
        }
        words.insert(name);
    }
    words
}

fn collect(value: &serde_json::Value, words: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::String(text) => {
            words.insert(text.clone());
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, words)),
        serde_json::Value::Object(map) => map.values().for_each(|value| collect(value, words)),
        // A number is what was measured.
        _ => {}
    }
}
