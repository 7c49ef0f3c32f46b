//! What a search found: exactly one patient who is the one that was meant, a device, Observations. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ward::{Identity, Phi, SecondIdentifier};

/// Who a patient is, as far as a chart is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub system: String,
    pub value: Phi<String>,
    /// What is on file of the person.
    pub identity: Identity,
    /// What of it has to agree with the patient that is found. What either side does not know does not agree.
    pub second: Option<SecondIdentifier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// `Patient/17`.
    One(String),
    None,
    Several,
    /// One has the identifier, and is somebody else, or was merged into another.
    Another,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    resource_type: String,
    #[serde(borrow, default)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resource {
    resource_type: String,
    id: String,
    birth_date: Option<String>,
    name: Vec<Name>,
    link: Vec<Link>,
    meta: Meta,
    identifier: Vec<Identifier>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    version_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Identifier {
    system: Option<String>,
    value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Name {
    family: Option<String>,
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "type")]
    kind: String,
}

/// An Observation that is in the chart already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    pub id: String,
    pub version: Option<String>,
    /// Chart ids among its identifiers.
    pub charts: Vec<String>,
    /// All of it, digit by digit.
    pub resource: Phi<String>,
}

/// `None`: the answer is no result of a search.
pub fn patient(body: &[u8], person: &Person) -> Option<Found> {
    let found = resources(body, "Patient")?;
    let [(patient, _)] = &found[..] else {
        return Some(if found.is_empty() { Found::None } else { Found::Several });
    };
    let merged = patient.link.iter().any(|link| link.kind == "replaced-by");
    Some(if merged || !is_the_one(patient, person) { Found::Another } else { Found::One(format!("Patient/{}", patient.id)) })
}

fn is_the_one(patient: &Resource, person: &Person) -> bool {
    let Some(second) = person.second else { return true };
    // A year, or a year and a month, is no date that agrees.
    let birth_date = patient.birth_date.as_ref().and_then(|date| date.parse().ok()).map(Phi::new);
    let agrees = |family: Option<&String>| {
        let found = Identity { birth_date: birth_date.clone(), family: family.cloned().map(Phi::new), ..Identity::default() };
        person.identity.agrees(&found, second).is_ok()
    };
    // A maiden name may stand beside the one that is used.
    agrees(None) || patient.name.iter().any(|name| agrees(name.family.as_ref()))
}

/// Of whatever kind, by its identifier alone.
pub fn one(body: &[u8], kind: &str) -> Option<Found> {
    let found = resources(body, kind)?;
    Some(match &found[..] {
        [] => Found::None,
        [(one, _)] => Found::One(format!("{kind}/{}", one.id)),
        _ => Found::Several,
    })
}

pub fn observations(body: &[u8], system: &str) -> Option<Vec<Existing>> {
    Some(resources(body, "Observation")?.into_iter().map(|found| existing(found, system)).collect())
}

/// One that was read by its id.
pub fn observation(body: &[u8], system: &str) -> Option<Existing> {
    let text = std::str::from_utf8(body).ok()?;
    let resource: Resource = serde_json::from_str(text).ok()?;
    (resource.resource_type == "Observation" && is_id(&resource.id)).then(|| existing((resource, text), system))
}

/// The id in `Location` of what was made, or else in the resource that was given back.
pub fn made(kind: &str, location: Option<&str>, body: &[u8]) -> Option<String> {
    let of_location = location.and_then(|location| {
        let mut parts = location.split('/').skip_while(|part| *part != kind);
        parts.nth(1).filter(|id| is_id(id)).map(str::to_owned)
    });
    let of_body = || {
        let resource: Resource = serde_json::from_slice(body).ok()?;
        (resource.resource_type == kind && is_id(&resource.id)).then_some(resource.id)
    };
    of_location.or_else(of_body).map(|id| format!("{kind}/{id}"))
}

/// With another status and nothing else changed: not a digit.
pub fn with_status(existing: &Existing, status: &str) -> Option<Vec<u8>> {
    let mut elements: BTreeMap<&str, &RawValue> = serde_json::from_str(existing.resource.expose()).ok()?;
    let status = serde_json::value::to_raw_value(status).ok()?;
    elements.insert("status", &status);
    serde_json::to_vec(&elements).ok()
}

pub fn status(existing: &Existing) -> Option<String> {
    let elements: BTreeMap<&str, &RawValue> = serde_json::from_str(existing.resource.expose()).ok()?;
    serde_json::from_str(elements.get("status")?.get()).ok()
}

fn existing((resource, text): (Resource, &str), system: &str) -> Existing {
    let ours = resource.identifier.into_iter().filter(|identifier| identifier.system.as_deref() == Some(system));
    Existing {
        id: resource.id,
        version: resource.meta.version_id,
        charts: ours.filter_map(|identifier| identifier.value).collect(),
        resource: Phi::new(text.to_owned()),
    }
}

/// Others come beside them: what a server includes, or has to say.
fn resources<'a>(body: &'a [u8], kind: &str) -> Option<Vec<(Resource, &'a str)>> {
    let bundle: Bundle<'a> = serde_json::from_slice(body).ok().filter(|bundle: &Bundle<'a>| bundle.resource_type == "Bundle")?;
    let mut found = Vec::new();
    for raw in bundle.entry.into_iter().filter_map(|entry| entry.resource) {
        let resource: Resource = serde_json::from_str(raw.get()).ok()?;
        if resource.resource_type == kind {
            if !is_id(&resource.id) {
                return None;
            }
            found.push((resource, raw.get()));
        }
    }
    Some(found)
}

/// FHIR R4, 2.24.0.1: whatever else would end up in an address.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(document: &str, second: Option<SecondIdentifier>) -> Person {
        let identity = Identity::parse(&Phi::new(document.as_bytes().to_vec())).unwrap();
        Person { system: "urn:oid:1".to_owned(), value: Phi::new("MRN-1".to_owned()), identity, second }
    }

    fn born(date: Option<&str>) -> Person {
        let document = date.map(|date| format!(r#"{{"birth_date":"{date}"}}"#));
        person(document.as_deref().unwrap_or("{}"), date.map(|_| SecondIdentifier::BirthDate))
    }

    fn bundle(resources: &[&str]) -> Vec<u8> {
        let entries: Vec<String> = resources.iter().map(|resource| format!(r#"{{"resource":{resource}}}"#)).collect();
        format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{}]}}"#, entries.join(",")).into_bytes()
    }

    const LIND: &str = r#"{"resourceType":"Patient","id":"17","birthDate":"1945-03-12"}"#;

    #[test]
    fn a_patient_is_exactly_one_and_the_one_that_was_meant() {
        let find = |resources: &[&str], born| patient(&bundle(resources), &self::born(born));
        assert_eq!(find(&[LIND], None), Some(Found::One("Patient/17".to_owned())));
        assert_eq!(find(&[LIND], Some("1945-03-12")), Some(Found::One("Patient/17".to_owned())));
        assert_eq!(find(&[LIND], Some("1945-12-03")), Some(Found::Another), "the other birth date");
        assert_eq!(find(&[r#"{"resourceType":"Patient","id":"17"}"#], Some("1945-03-12")), Some(Found::Another), "none on file");
        assert_eq!(find(&[], None), Some(Found::None));
        assert_eq!(find(&[LIND, r#"{"resourceType":"Patient","id":"18"}"#], None), Some(Found::Several));
        let merged = r#"{"resourceType":"Patient","id":"17","link":[{"type":"replaced-by","other":{"reference":"Patient/18"}}]}"#;
        assert_eq!(find(&[merged], None), Some(Found::Another), "the chart of a patient who was merged takes nothing more");
        let warning = r#"{"resourceType":"OperationOutcome","issue":[]}"#;
        assert_eq!(find(&[LIND, warning], None), Some(Found::One("Patient/17".to_owned())), "what a server has to say beside it");
        for nonsense in
            ["", "[]", "{}", r#"{"resourceType":"Patient","id":"17"}"#, r#"{"resourceType":"Bundle","entry":[{"resource":7}]}"#]
        {
            assert_eq!(patient(nonsense.as_bytes(), &born(None)), None, "{nonsense}");
        }
        assert_eq!(find(&[r#"{"resourceType":"Patient","id":"../17?x"}"#], None), None, "no id that leads elsewhere");
    }

    #[test]
    fn a_second_identifier_that_either_side_does_not_know_does_not_agree() {
        let find = |resource: &str, document: &str, second| patient(&bundle(&[resource]), &person(document, Some(second)));
        let one = Some(Found::One("Patient/17".to_owned()));
        let (date, family) = (SecondIdentifier::BirthDate, SecondIdentifier::Family);
        assert_eq!(find(LIND, "{}", date), Some(Found::Another), "nobody told us the birth date");
        let year = r#"{"resourceType":"Patient","id":"17","birthDate":"1945"}"#;
        assert_eq!(find(year, r#"{"birth_date":"1945-03-12"}"#, date), Some(Found::Another), "a year is not enough");
        let named = r#"{"resourceType":"Patient","id":"17","name":[{"family":"Berg"},{"text":"Asa"},{"family":"LIND"}]}"#;
        assert_eq!(find(named, r#"{"family":"Lind"}"#, family), one);
        assert_eq!(find(named, r#"{"family":"Lindt"}"#, family), Some(Found::Another));
        assert_eq!(find(LIND, r#"{"family":"Lind"}"#, family), Some(Found::Another), "no name on file there");
        assert_eq!(find(named, r#"{"visit":"V1"}"#, SecondIdentifier::Visit), Some(Found::Another), "a Patient tells no visit");
    }

    #[test]
    fn what_was_made_is_found_in_the_location_or_in_the_answer() {
        let of = |location, body: &str| made("Device", location, body.as_bytes());
        assert_eq!(of(Some("https://x/fhir/Device/9/_history/1"), ""), Some("Device/9".to_owned()));
        assert_eq!(of(Some("Device/9"), ""), Some("Device/9".to_owned()));
        assert_eq!(of(None, r#"{"resourceType":"Device","id":"9"}"#), Some("Device/9".to_owned()));
        assert_eq!(of(Some("https://x/fhir/Patient/9"), ""), None);
    }

    #[test]
    fn a_status_is_changed_and_no_digit_beside_it() {
        let text = r#"{"id":"1","meta":{"versionId":"3"},"resourceType":"Observation","status":"final","valueQuantity":{"value":36.60}}"#;
        let existing = observation(text.as_bytes(), "urn:oid:1").unwrap();
        assert_eq!((existing.version.as_deref(), status(&existing).as_deref()), (Some("3"), Some("final")));
        let changed = String::from_utf8(with_status(&existing, "entered-in-error").unwrap()).unwrap();
        assert_eq!(changed, text.replace("final", "entered-in-error"));
    }
}
