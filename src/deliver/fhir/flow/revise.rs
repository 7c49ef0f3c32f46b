//! What is in the chart already: replaced by a later version, or marked as an error where it was taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::make::not_charted;
use super::{BESIDE, Flow, Line, Persons, Piece, Said, Step, is_retraction};
use crate::deliver::fhir::answer::{Answer, Content};
use crate::deliver::fhir::found::{self, Existing};
use crate::deliver::fhir::outcome::{Asked, Outcome, outcome};
use crate::deliver::fhir::render::{Revision, render};
use crate::deliver::fhir::request::{Create, Entry, Request};
use crate::deliver::fhir::resource;
use crate::deliver::{FaultClass, Token};

impl Flow {
    /// What stands in the chart under the id of the record at the front, or of what was sent beside it.
    pub(super) fn read(&self, line: &Line) -> (Step, Request) {
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

    pub(super) fn was_read(&mut self, line: &Line, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
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

    pub(super) fn take_back(&mut self, existing: &Existing, token: Token, line: &Line) -> Option<Vec<u8>> {
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
    pub(super) fn part_retracted(&mut self, line: &Line, token: Token) {
        let beside = if self.wishes.shape.beside { BESIDE.len() } else { 0 };
        let Some(waiting) = self.lines.get_mut(line) else { return };
        if waiting.done < beside {
            waiting.done += 1;
            waiting.reads = 0;
            return;
        }
        self.done(line, Said::Settled(token));
    }

    pub(super) fn amended(
        &mut self,
        existing: &Existing,
        line: &Line,
        persons: &mut dyn Persons,
        now: Duration,
    ) -> Option<Vec<u8>> {
        let person = line.subject.as_ref().and_then(|subject| persons.person(subject))?;
        let to = self.references(line, &person, now)?;
        let (token, item) = self.lines.get(line)?.queue.front()?;
        let token = *token;
        match render(item, &self.wishes.shape, &to, Revision::Later) {
            Ok(rendered) if is_there(existing, &rendered.observation) => {
                self.done(line, Said::Settled(token));
                None
            }
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

    pub(super) fn first_of_later(&self, line: &Line, persons: &mut dyn Persons, now: Duration) -> Result<Vec<Piece>, Said> {
        let (token, item) = &self.lines[line].queue[0];
        let again = || Said::Again(*token);
        let person = line.subject.as_ref().and_then(|subject| persons.person(subject)).ok_or_else(again)?;
        let to = self.references(line, &person, now).ok_or_else(again)?;
        let rendered = render(item, &self.wishes.shape, &to, Revision::First).map_err(|error| not_charted(*token, error))?;
        Ok(vec![Piece { token: *token, entry: Entry::new(&rendered.observation), last: true }])
    }

    pub(super) fn replaced(&mut self, line: &Line, answer: &Answer, now: Duration) {
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
}

/// Whether it was sent before and the answer lost: then it is what it is, `final` where it was the first the chart saw.
fn is_there(existing: &Existing, observation: &resource::Observation) -> bool {
    let there = serde_json::from_str::<serde_json::Value>(existing.resource.expose());
    let (Ok(there), Ok(serde_json::Value::Object(ours))) = (there, serde_json::to_value(observation)) else { return false };
    let same = |(name, value): (&String, &serde_json::Value)| {
        matches!(name.as_str(), "id" | "meta" | "status") || there.get(name) == Some(value)
    };
    there["status"] != "entered-in-error" && ours.iter().all(same)
}
