//! What was found on the server, for as long as it is believed. Pure: time is what has passed since the route began.

use std::collections::BTreeMap;
use std::time::Duration;

use super::found::Person;
use crate::reading::{DeviceId, SubjectKey};
use crate::ward::HoldReason;

/// More patients than a gateway has in a month; beyond it all is found anew.
const MAX_KNOWN: usize = 1_024;
/// How long a patient who was not found is not asked for again: somebody has to be admitted first.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How long an encounter is believed: a patient is not transferred more often than that.
const ENCOUNTER_FOR: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Known {
    patients: BTreeMap<SubjectKey, (Person, String)>,
    refused: BTreeMap<SubjectKey, (HoldReason, Duration)>,
    devices: BTreeMap<DeviceId, String>,
    encounters: BTreeMap<String, (Option<String>, Duration)>,
    pub gateway: Option<String>,
}

impl Known {
    /// `Patient/17`; `None` also where the person has other identifiers since.
    pub fn patient(&self, subject: &SubjectKey, person: &Person) -> Option<&str> {
        self.patients.get(subject).filter(|(found, _)| found == person).map(|(_, patient)| patient.as_str())
    }

    pub fn found_patient(&mut self, subject: SubjectKey, person: Person, patient: String) {
        if self.patients.len() >= MAX_KNOWN {
            self.patients.clear();
        }
        self.refused.remove(&subject);
        self.patients.insert(subject, (person, patient));
    }

    pub fn refused(&self, subject: Option<&SubjectKey>, now: Duration) -> Option<HoldReason> {
        self.refused.get(subject?).filter(|(_, until)| now < *until).map(|(reason, _)| *reason)
    }

    pub fn refuse(&mut self, subject: SubjectKey, reason: HoldReason, now: Duration) {
        if self.refused.len() >= MAX_KNOWN {
            self.refused.clear();
        }
        self.refused.insert(subject, (reason, now + REFUSED_FOR));
    }

    pub fn device(&self, device: DeviceId) -> Option<&str> {
        self.devices.get(&device).map(String::as_str)
    }

    pub fn found_device(&mut self, device: DeviceId, reference: String) {
        if self.devices.len() >= MAX_KNOWN {
            self.devices.clear();
        }
        self.devices.insert(device, reference);
    }

    /// `Some(None)`: the patient is in none, or in several.
    pub fn encounter(&self, patient: &str, now: Duration) -> Option<Option<&str>> {
        let (encounter, until) = self.encounters.get(patient)?;
        (now < *until).then_some(encounter.as_deref())
    }

    pub fn found_encounter(&mut self, patient: String, encounter: Option<String>, now: Duration) {
        if self.encounters.len() >= MAX_KNOWN {
            self.encounters.clear();
        }
        self.encounters.insert(patient, (encounter, now + ENCOUNTER_FOR));
    }

    /// The server does not know what was found there.
    pub fn forget(&mut self, subject: Option<&SubjectKey>, device: DeviceId) {
        if let Some((_, patient)) = subject.and_then(|subject| self.patients.remove(subject)) {
            self.encounters.remove(&patient);
        }
        self.devices.remove(&device);
        self.gateway = None;
    }

    /// What may have been sent as a reference of this line.
    pub fn references(&self, subject: Option<&SubjectKey>, device: DeviceId) -> Vec<String> {
        let patient = subject.and_then(|subject| self.patients.get(subject)).map(|(_, patient)| patient.clone());
        let encounter = patient.as_ref().and_then(|patient| self.encounters.get(patient)).and_then(|(found, _)| found.clone());
        [patient, encounter, self.devices.get(&device).cloned(), self.gateway.clone()].into_iter().flatten().collect()
    }
}
