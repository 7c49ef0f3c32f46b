//! A FHIR server of ours, as far as a gateway speaks to one: it keeps Patients, Devices and Observations with their versions, refuses
//! what the table of rules finds wrong, and fails as it is told to. No socket in it.

use std::collections::{BTreeMap, VecDeque};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::rules::broken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing reaches the server.
    Unheard,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// This status, and nothing is done.
    Status(u16),
    /// It is done, and this status says that it was not.
    DoneAnd(u16),
}

#[derive(Clone, Debug, Default)]
pub struct Question {
    pub method: String,
    /// Below the base.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Stored {
    pub id: String,
    pub version: u64,
    pub resource: Value,
}

#[derive(Default)]
pub struct Server {
    pub stored: BTreeMap<&'static str, Vec<Stored>>,
    /// Of the next requests, in turn; then all goes well.
    pub troubles: VecDeque<Option<Trouble>>,
    /// Observations with this value in them are refused.
    pub refuses: Option<i64>,
    /// Entries a bundle may have.
    pub most_entries: usize,
    /// A transaction that fails leaves what came before the failure, as one real server does.
    pub keeps_half: bool,
    keys: BTreeMap<String, String>,
    next: u64,
    pub requests: u64,
    /// Method and path of each request.
    pub seen: Vec<(String, String)>,
}

impl Server {
    pub fn new() -> Self {
        Self { most_entries: 500, ..Self::default() }
    }

    pub fn patient(&mut self, system: &str, value: &str, birth_date: &str) -> String {
        let patient =
            json!({ "resourceType": "Patient", "birthDate": birth_date, "identifier": [{ "system": system, "value": value }] });
        format!("Patient/{}", self.keep("Patient", None, patient).id)
    }

    pub fn all(&self, kind: &str) -> &[Stored] {
        self.stored.get(kind).map_or(&[], Vec::as_slice)
    }

    /// `None`: the line broke.
    pub fn hear(&mut self, question: &Question) -> Option<Reply> {
        self.requests += 1;
        self.seen.push((question.method.clone(), question.path.clone()));
        match self.troubles.pop_front().flatten() {
            None => Some(self.answer(question)),
            Some(Trouble::Unheard) => None,
            Some(Trouble::AnswerLost) => {
                self.answer(question);
                None
            }
            Some(Trouble::Status(status)) => Some(failed(status)),
            Some(Trouble::DoneAnd(status)) => {
                self.answer(question);
                Some(failed(status))
            }
        }
    }

    pub fn answer(&mut self, question: &Question) -> Reply {
        let (path, query) = question.path.split_once('?').unwrap_or((&question.path, ""));
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match (question.method.as_str(), &parts[..]) {
            ("GET", [kind @ ("Patient" | "Device" | "Observation" | "Encounter")]) => self.search(kind, query),
            ("GET", [kind, id]) => match self.all(kind).iter().find(|stored| stored.id == *id) {
                Some(stored) => reply(200, stored.resource.to_string()),
                None => outcome(404, "not-found", "no such resource"),
            },
            ("POST", []) => self.bundle(&question.body),
            ("POST", [kind @ ("Device" | "Observation")]) => self.create(
                kind,
                &question.body,
                question.headers.get("if-none-exist").map(String::as_str),
                question.headers.get("x-amz-fhir-idempotency-key"),
            ),
            ("PUT", ["Observation", id]) => self.put(id, &question.body, question.headers.get("if-match").map(String::as_str)),
            _ => outcome(404, "not-supported", "no such address"),
        }
    }

    fn search(&self, kind: &str, query: &str) -> Reply {
        let found = matches(self.all(kind), query);
        let entries: Vec<Value> =
            found.iter().map(|stored| json!({ "resource": stored.resource, "search": { "mode": "match" } })).collect();
        reply(200, json!({ "resourceType": "Bundle", "type": "searchset", "entry": entries }).to_string())
    }

    fn create(&mut self, kind: &str, body: &[u8], condition: Option<&str>, key: Option<&String>) -> Reply {
        if let Some(reply) = self.refused(kind, body) {
            return reply;
        }
        if let Some(known) = key.and_then(|key| self.keys.get(key)) {
            return outcome(409, "duplicate", &format!("made before as {known}"));
        }
        if let Some(condition) = condition {
            match matches(self.all(kind), condition)[..] {
                [] => {}
                [one] => return made(200, kind, one),
                _ => return outcome(412, "multiple-matches", "several match"),
            }
        }
        let Ok(resource) = serde_json::from_slice(body) else { return outcome(400, "structure", "no JSON") };
        let stored = self.keep(kind, None, resource);
        if let Some(key) = key {
            self.keys.insert(key.clone(), stored.id.clone());
        }
        made(201, kind, &stored)
    }

    fn put(&mut self, id: &str, body: &[u8], version: Option<&str>) -> Reply {
        if let Some(reply) = self.refused("Observation", body) {
            return reply;
        }
        let Ok(resource) = serde_json::from_slice::<Value>(body) else { return outcome(400, "structure", "no JSON") };
        let there = self.all("Observation").iter().find(|stored| stored.id == id).map(|stored| stored.version);
        if let Some(version) = version
            && there.is_none_or(|there| format!("W/\"{there}\"") != version)
        {
            return outcome(412, "conflict", "another version");
        }
        let stored = self.keep("Observation", Some(id), resource);
        made(if there.is_some() { 200 } else { 201 }, "Observation", &stored)
    }

    fn bundle(&mut self, body: &[u8]) -> Reply {
        let Ok(bundle) = serde_json::from_slice::<Value>(body) else { return outcome(400, "structure", "no JSON") };
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        if entries.len() > self.most_entries {
            return outcome(400, "invalid", "Transaction requires strict isolation but has too many entries");
        }
        let whole = bundle["type"] == "transaction";
        let before = (self.stored.clone(), self.next);
        let mut answers = Vec::new();
        for entry in &entries {
            let request = &entry["request"];
            let text = entry["resource"].to_string();
            let question = Question {
                method: request["method"].as_str().unwrap_or_default().to_owned(),
                path: request["url"].as_str().unwrap_or_default().to_owned(),
                headers: request["ifNoneExist"]
                    .as_str()
                    .map(|condition| ("if-none-exist".to_owned(), condition.to_owned()))
                    .into_iter()
                    .collect(),
                body: text.into_bytes(),
            };
            let answer = self.answer(&question);
            if whole && answer.status >= 300 {
                if !self.keeps_half {
                    (self.stored, self.next) = before;
                }
                return answer;
            }
            let location = answer.headers.iter().find(|(name, _)| name == "location").map(|(_, value)| value.clone());
            let outcome: Option<Value> = (answer.status >= 300).then(|| serde_json::from_slice(&answer.body).unwrap());
            let mut response = json!({ "status": answer.status.to_string() });
            if let Some(location) = location {
                response["location"] = location.into();
            }
            if let Some(outcome) = outcome {
                response["outcome"] = outcome;
            }
            answers.push(json!({ "response": response }));
        }
        reply(200, json!({ "resourceType": "Bundle", "type": format!("{}-response", bundle["type"].as_str().unwrap_or_default()), "entry": answers }).to_string())
    }

    /// What a server that validates would say.
    fn refused(&self, kind: &str, body: &[u8]) -> Option<Reply> {
        if kind != "Observation" {
            return None;
        }
        let Ok(observation) = serde_json::from_slice::<Value>(body) else { return Some(outcome(400, "structure", "no JSON")) };
        if let Some(wrong) = broken(&observation).first() {
            return Some(outcome(422, "invariant", wrong));
        }
        let subject = observation["subject"]["reference"].as_str().unwrap_or_default();
        let known = self.all("Patient").iter().any(|patient| format!("Patient/{}", patient.id) == subject);
        if !known {
            return Some(outcome(
                400,
                "processing",
                &format!("HAPI-1094: Resource {subject} not found, specified in path: Observation.subject"),
            ));
        }
        let poison = self.refuses.is_some() && observation["valueQuantity"]["value"].as_i64() == self.refuses;
        poison.then(|| outcome(422, "business-rule", "value out of range"))
    }

    fn keep(&mut self, kind: &str, id: Option<&str>, mut resource: Value) -> Stored {
        let kind = ["Patient", "Device", "Observation", "Encounter"].into_iter().find(|known| *known == kind).expect("a kind");
        let of_kind = self.stored.entry(kind).or_default();
        let version = id.and_then(|id| of_kind.iter().find(|stored| stored.id == id)).map_or(1, |stored| stored.version + 1);
        self.next += 1;
        let id = id.map_or_else(|| format!("s{}", self.next), str::to_owned);
        resource["id"] = id.clone().into();
        resource["meta"]["versionId"] = version.to_string().into();
        let stored = Stored { id: id.clone(), version, resource };
        match of_kind.iter_mut().find(|stored| stored.id == id) {
            Some(there) => *there = stored.clone(),
            None => of_kind.push(stored.clone()),
        }
        stored
    }
}

fn made(status: u16, kind: &str, stored: &Stored) -> Reply {
    let location = ("location".to_owned(), format!("{kind}/{}/_history/{}", stored.id, stored.version));
    Reply { status, headers: vec![location], body: vec![] }
}

fn failed(status: u16) -> Reply {
    let wait = (status == 429).then(|| ("retry-after".to_owned(), "1".to_owned()));
    Reply { status, headers: wait.into_iter().collect(), body: vec![] }
}

fn reply(status: u16, body: String) -> Reply {
    Reply { status, headers: vec![("content-type".to_owned(), "application/fhir+json".to_owned())], body: body.into_bytes() }
}

fn outcome(status: u16, code: &str, text: &str) -> Reply {
    let issue = json!({ "severity": "error", "code": code, "diagnostics": text });
    reply(status, json!({ "resourceType": "OperationOutcome", "issue": [issue] }).to_string())
}

/// Those that have one of the identifiers of the query; of an encounter, those of the patient.
fn matches<'a>(stored: &'a [Stored], query: &str) -> Vec<&'a Stored> {
    let mut found = Vec::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let tokens: Vec<String> =
            value.split(',').map(|token| percent_decode_str(token).decode_utf8_lossy().into_owned()).collect();
        match name {
            "identifier" => found.extend(stored.iter().filter(|stored| {
                let identifiers = stored.resource["identifier"].as_array().cloned().unwrap_or_default();
                let token = |identifier: &Value| {
                    format!(
                        "{}|{}",
                        identifier["system"].as_str().unwrap_or_default(),
                        identifier["value"].as_str().unwrap_or_default()
                    )
                };
                identifiers.iter().any(|identifier| tokens.contains(&token(identifier)))
            })),
            "patient" => found.extend(
                stored.iter().filter(|stored| stored.resource["subject"]["reference"] == format!("Patient/{}", tokens[0])),
            ),
            _ => {}
        }
    }
    found
}
