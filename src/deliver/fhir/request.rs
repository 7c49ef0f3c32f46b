//! What is asked of a server, as plain values: pure.

use percent_encoding::utf8_percent_encode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::resource::Observation;
use crate::net::UNRESERVED;
use crate::ward::Phi;

/// AWS HealthLake's header for a key of our own.
const IDEMPOTENCY_KEY: &str = "x-amz-fhir-idempotency-key";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
}

/// Path and body speak of patients: neither is ever printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Below the base address.
    pub path: Phi<String>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Phi<Vec<u8>>>,
}

/// How a repeat is kept from making a second Observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Under an id of our own: a repeat writes the same again.
    Put,
    /// Only where nothing has the identifier.
    IfNoneExist,
    /// After a look for the identifier, where the server knows no conditions.
    SearchFirst,
    /// With a key that the server remembers.
    IdempotencyHeader,
}

/// How many records are asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it or nothing.
    Transaction,
    /// Each by itself, in one message.
    Batch,
    Single,
}

/// One Observation to be made: in a bundle, or by itself.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The chart id: its identifier's value, and its id where that is ours to give.
    pub id: String,
    pub resource: Box<RawValue>,
}

impl Entry {
    pub fn new(observation: &Observation) -> Self {
        let resource = serde_json::value::to_raw_value(observation).expect("text, integers and decimal digits always serialise");
        Self { id: observation.identifier[0].value.clone(), resource }
    }
}

impl Request {
    pub fn get(path: String) -> Self {
        Self { method: Method::Get, path: Phi::new(path), headers: vec![], body: None }
    }

    /// `Patient?identifier=SYSTEM|VALUE`, of one or several.
    pub fn search<'a>(kind: &str, system: &str, values: impl Iterator<Item = &'a str>, count: usize) -> Self {
        Self::get(format!("{kind}?{}&_count={count}", identifiers(system, values)))
    }

    pub fn one(entry: &Entry, create: Create, system: &str) -> Self {
        let body = Some(Phi::new(entry.resource.get().as_bytes().to_vec()));
        let post = |headers| Self { method: Method::Post, path: Phi::new("Observation".to_owned()), headers, body: body.clone() };
        match create {
            Create::Put => Self::put(&entry.id, entry.resource.get().as_bytes().to_vec(), None),
            Create::IfNoneExist => post(vec![("if-none-exist", identifiers(system, std::iter::once(entry.id.as_str())))]),
            Create::SearchFirst => post(vec![]),
            Create::IdempotencyHeader => post(vec![(IDEMPOTENCY_KEY, key(&entry.id))]),
        }
    }

    /// In place of what is there; `version`: only if that is still this one.
    pub fn put(id: &str, body: Vec<u8>, version: Option<&str>) -> Self {
        let headers = version.map(|version| ("if-match", format!("W/\"{version}\""))).into_iter().collect();
        Self { method: Method::Put, path: Phi::new(format!("Observation/{id}")), headers, body: Some(Phi::new(body)) }
    }

    pub fn bundle(entries: &[&Entry], form: Form, create: Create, system: &str) -> Self {
        let put = create == Create::Put;
        let bundle = Bundle {
            resource_type: "Bundle",
            kind: if form == Form::Transaction { "transaction" } else { "batch" },
            entry: entries
                .iter()
                .map(|entry| BundleEntry {
                    full_url: (!put).then(|| format!("urn:uuid:{}", key(&entry.id))),
                    resource: &entry.resource,
                    request: BundleRequest {
                        method: if put { "PUT" } else { "POST" },
                        url: if put { format!("Observation/{}", entry.id) } else { "Observation".to_owned() },
                        if_none_exist: (create == Create::IfNoneExist)
                            .then(|| identifiers(system, std::iter::once(entry.id.as_str()))),
                    },
                })
                .collect(),
        };
        let body = serde_json::to_vec(&bundle).expect("what was JSON is JSON in a bundle");
        Self { method: Method::Post, path: Phi::new(String::new()), headers: vec![], body: Some(Phi::new(body)) }
    }

    /// Only where no Device has the identifier.
    pub fn device(device: &super::resource::Device) -> Self {
        let identifier = &device.identifier[0];
        let condition = identifiers(&identifier.system, std::iter::once(identifier.value.as_str()));
        let body = serde_json::to_vec(device).expect("text always serialises");
        Self {
            method: Method::Post,
            path: Phi::new("Device".to_owned()),
            headers: vec![("if-none-exist", condition)],
            body: Some(Phi::new(body)),
        }
    }
}

fn identifiers<'a>(system: &str, values: impl Iterator<Item = &'a str>) -> String {
    // A `+` in an identifier would be read as a space, and match nothing; a comma means "or".
    let token = |value| utf8_percent_encode(&format!("{system}|{value}"), &UNRESERVED).to_string();
    format!("identifier={}", values.map(token).collect::<Vec<_>>().join(","))
}

/// 32 hexadecimal digits as a UUID.
fn key(id: &str) -> String {
    uuid::Uuid::parse_str(id).map_or_else(|_| id.to_owned(), |uuid| uuid.hyphenated().to_string())
}

#[derive(Serialize)]
struct Bundle<'a> {
    #[serde(rename = "resourceType")]
    resource_type: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    entry: Vec<BundleEntry<'a>>,
}

#[derive(Serialize)]
struct BundleEntry<'a> {
    #[serde(rename = "fullUrl", skip_serializing_if = "Option::is_none")]
    full_url: Option<String>,
    resource: &'a RawValue,
    request: BundleRequest,
}

#[derive(Serialize)]
struct BundleRequest {
    method: &'static str,
    url: String,
    #[serde(rename = "ifNoneExist", skip_serializing_if = "Option::is_none")]
    if_none_exist: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_encoded_so_that_no_character_is_read_as_another() {
        let condition = identifiers("urn:oid:2.999", ["a+b c", "d&e|f,g"].into_iter());
        assert_eq!(condition, "identifier=urn%3Aoid%3A2.999%7Ca%2Bb%20c,urn%3Aoid%3A2.999%7Cd%26e%7Cf%2Cg");
    }

    #[test]
    fn a_request_prints_neither_path_nor_body() {
        let request = Request::search("Patient", "urn:oid:1", std::iter::once("MRN-4711"), 2);
        assert!(!format!("{request:?}").contains("4711"), "{request:?}");
        assert_eq!(request.path.expose(), "Patient?identifier=urn%3Aoid%3A1%7CMRN-4711&_count=2");
    }
}
