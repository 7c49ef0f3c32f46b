//! Patient, encounter and devices: looked for before anything is sent, once, and again when the server does not know them any more.

use std::time::Duration;

use super::{DeviceMode, Flow, Line, Persons, Search, Step, Waiting};
use crate::deliver::FaultClass;
use crate::deliver::fhir::answer::Answer;
use crate::deliver::fhir::device;
use crate::deliver::fhir::found::{self, Found, Person};
use crate::deliver::fhir::outcome::{Asked, Outcome, outcome};
use crate::deliver::fhir::render::{DeviceSaid, References};
use crate::deliver::fhir::request::Request;
use crate::ward::HoldReason;

impl Flow {
    /// What has to be found before a record of this line may go. A device that another line looks for is waited for: looked for
    /// twice at once it would be made twice.
    pub(super) fn find(&self, line: &Line, person: &Person, now: Duration) -> Search {
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

    pub(super) fn is_sought(&self, is: impl Fn(&Step, &Line) -> bool) -> bool {
        let next = |(line, waiting): (&Line, &Waiting)| waiting.next.as_ref().is_some_and(|(step, _)| is(step, line));
        self.asked.values().any(|(line, step)| is(step, line)) || self.lines.iter().any(next)
    }

    pub(super) fn references(&self, line: &Line, person: &Person, now: Duration) -> Option<References> {
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

    pub(super) fn patient(&mut self, line: &Line, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
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

    pub(super) fn device(&mut self, line: &Line, answer: &Answer, body: &[u8], make: bool, gateway: bool, now: Duration) {
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

    pub(super) fn make_device(&mut self, line: &Line, gateway: bool) {
        let Some(waiting) = self.lines.get_mut(line) else { return };
        let Some((_, item)) = waiting.queue.front() else { return };
        let (step, device) = if gateway {
            (Step::Gateway { make: true }, device::gateway(&self.wishes.gateway, &self.wishes.shape))
        } else {
            (Step::Sensor { make: true }, device::sensor(item, None))
        };
        waiting.next = Some((step, Request::device(&device)));
    }

    pub(super) fn encounter(&mut self, line: &Line, answer: &Answer, body: &[u8], persons: &mut dyn Persons, now: Duration) {
        let Some(found) = self.searched(line, answer, found::one(body, "Encounter"), now) else { return };
        let person = line.subject.as_ref().and_then(|subject| persons.person(subject));
        let patient = line.subject.as_ref().zip(person).and_then(|(subject, person)| self.known.patient(subject, &person));
        let encounter = if let Found::One(encounter) = found { Some(encounter) } else { None };
        if let Some(patient) = patient.map(str::to_owned) {
            self.known.found_encounter(patient, encounter, now);
        }
    }

    /// The result of a search; what is no result is dealt with.
    pub(super) fn searched<T>(&mut self, line: &Line, answer: &Answer, result: Option<T>, now: Duration) -> Option<T> {
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
}
