//! Records as requests, and what the answers mean for each of them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Flow, Line, Piece, Said, Step, is_retraction};
use crate::deliver::fhir::answer::Answer;
use crate::deliver::fhir::found::{self, Person};
use crate::deliver::fhir::outcome::{Asked, Outcome, outcome};
use crate::deliver::fhir::render::{NotCharted, Revision, render};
use crate::deliver::fhir::request::{Create, Entry, Form, Request};
use crate::deliver::{FaultClass, Item, Token};
use crate::reading::Body;

impl Flow {
    /// The next records of a line as one request. `None`: what was at the front is done with.
    pub(super) fn make(&mut self, line: &Line, person: &Person, now: Duration) -> Option<(Step, Request)> {
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

    pub(super) fn request(&self, pieces: &[Piece]) -> Request {
        let system = &self.wishes.shape.identifier_system;
        match pieces {
            [one] => Request::one(&one.entry, self.wishes.create, system),
            _ => {
                let entries: Vec<&Entry> = pieces.iter().map(|piece| &piece.entry).collect();
                Request::bundle(&entries, self.wishes.form, self.wishes.create, system)
            }
        }
    }

    pub(super) fn looked(&mut self, line: &Line, pieces: Vec<Piece>, answer: &Answer, body: &[u8], now: Duration) {
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

    pub(super) fn made(&mut self, line: &Line, pieces: &[Piece], answer: &Answer, body: &[u8], now: Duration) {
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

    pub(super) fn refused(&mut self, line: &Line, pieces: &[Piece], said: Outcome, answer: &Answer, now: Duration) {
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
    pub(super) fn counted(&mut self, line: &Line, token: Token, answer: &Answer, body: &[u8], now: Duration) {
        let system = self.wishes.shape.identifier_system.clone();
        let Some(existing) = self.searched(line, answer, found::observations(body, &system), now) else { return };
        if existing.is_empty() {
            let detail = "the server says that several have its identifier, and finds none".to_owned();
            return self.done(line, Said::Dead { token, reason: "refused", detail });
        }
        self.doubled += existing.len() as u64 - 1;
        self.done(line, Said::Settled(token));
    }

    pub(super) fn sent(&mut self, line: &Line, pieces: &[Piece]) {
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

    pub(super) fn bury(&mut self, line: &Line, piece: &Piece, reason: &'static str, answer: &Answer) {
        let detail = format!("the server answered {}", answer.scrubbed(&words(&piece.entry)));
        self.done(line, Said::Dead { token: piece.token, reason, detail });
    }
}

/// The first of what one value of a device says.
fn starts_group(item: &Item) -> bool {
    !matches!(&item.record.body, Body::Reading(reading) if reading.parts > 1 && reading.part > 0)
}

fn ends_its_group(item: &Item) -> bool {
    !matches!(&item.record.body, Body::Reading(reading) if reading.part + 1 < reading.parts)
}

pub(super) fn not_charted(token: Token, error: NotCharted) -> Said {
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
