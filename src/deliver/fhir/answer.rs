//! A server's answer as it is read: status, how long to wait, and what its OperationOutcome says. The text of an outcome may quote
//! the patient, so that only what is known to be harmless is kept of it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::fmt::rfc2822;
use serde::Deserialize;

use crate::reading::Timestamp;

/// A server that asks for more is asked again all the same: nothing else would tell that it is back.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Issues of an outcome that are read; the first says what is wrong.
const MAX_ISSUES: usize = 4;
/// Characters of a text that is kept.
const MAX_TEXT: usize = 300;

/// One answer, or that of one entry of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Of what was made: `Observation/17/_history/1`.
    pub location: Option<String>,
    pub etag: Option<String>,
    pub content: Content,
    pub issues: Vec<Issue>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    #[default]
    Empty,
    Fhir,
    /// A page of a proxy, a login form: whoever answers speaks no FHIR.
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Issue {
    pub severity: String,
    pub code: String,
    pub diagnostics: String,
    pub details: Details,
    pub expression: Vec<String>,
    pub location: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Details {
    pub text: String,
}

#[derive(Deserialize)]
struct OperationOutcome {
    #[serde(default)]
    issue: Vec<Issue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any {
    resource_type: String,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    response: Option<EntryResponse>,
}

#[derive(Deserialize)]
struct EntryResponse {
    status: String,
    location: Option<String>,
    etag: Option<String>,
    outcome: Option<OperationOutcome>,
}

/// What is read of the headers.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub status: u16,
    pub retry_after: Option<String>,
    pub location: Option<String>,
    pub etag: Option<String>,
}

impl Answer {
    pub fn read(head: &Head, body: &[u8], now: Option<Timestamp>) -> Self {
        let resource = resource_type(body);
        let content = match &resource {
            None if body.trim_ascii().is_empty() => Content::Empty,
            None => Content::Other,
            Some(_) => Content::Fhir,
        };
        let outcome = resource.filter(|name| name == "OperationOutcome").and_then(|_| serde_json::from_slice(body).ok());
        Self {
            status: head.status,
            retry_after: head.retry_after.as_deref().and_then(|text| retry_after(text, now)),
            location: head.location.clone(),
            etag: head.etag.clone(),
            content,
            issues: issues(outcome),
        }
    }

    /// The answers to the entries of a bundle, in their order; `None`: it is no answer to a bundle of so many.
    pub fn entries(body: &[u8], count: usize) -> Option<Vec<Self>> {
        resource_type(body).filter(|name| name == "Bundle")?;
        let bundle: Bundle = serde_json::from_slice(body).ok()?;
        if bundle.entry.len() != count {
            return None;
        }
        let read = |entry: Entry| {
            let response = entry.response?;
            Some(Self {
                status: response.status.split_ascii_whitespace().next()?.parse().ok()?,
                retry_after: None,
                location: response.location,
                etag: response.etag,
                content: Content::Fhir,
                issues: issues(response.outcome),
            })
        };
        bundle.entry.into_iter().map(read).collect()
    }

    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    pub fn has_code(&self, codes: &[&str]) -> bool {
        self.issues.iter().any(|issue| codes.contains(&issue.code.as_str()))
    }

    /// Whether the outcome says this, whatever the case.
    pub fn says(&self, text: &str) -> bool {
        self.issues.iter().any(|issue| {
            let said = [&issue.diagnostics, &issue.details.text];
            said.iter().any(|said| said.to_ascii_lowercase().contains(&text.to_ascii_lowercase()))
        })
    }

    /// What a person may read of it. `sent` are words that were sent and are no patient's: codes, units, names of elements.
    pub fn scrubbed(&self, sent: &BTreeSet<String>) -> String {
        let mut text = self.status.to_string();
        for issue in self.issues.iter().filter(|issue| issue.severity != "information" && issue.severity != "warning") {
            text.push_str(&format!("; {}", word(&issue.code)));
            let elements = issue.expression.iter().chain(&issue.location).filter(|path| is_path(path));
            elements.take(2).for_each(|path| text.push_str(&format!(" at {path}")));
            for said in [&issue.details.text, &issue.diagnostics].into_iter().filter(|said| !said.is_empty()) {
                text.push_str(": ");
                text.push_str(&harmless(said, sent));
            }
        }
        text.chars().take(MAX_TEXT).collect()
    }
}

fn resource_type(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Any>(body).ok().map(|any| any.resource_type)
}

fn issues(outcome: Option<OperationOutcome>) -> Vec<Issue> {
    let mut issues = outcome.map_or_else(Vec::new, |outcome| outcome.issue);
    issues.truncate(MAX_ISSUES);
    issues
}

/// Seconds, or a date (RFC 9110, 10.2.3), which says nothing to a gateway that doesn't know the time.
fn retry_after(text: &str, now: Option<Timestamp>) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = rfc2822::parse(text.trim()).ok()?.timestamp().as_millisecond();
            Duration::from_millis(u64::try_from(at - now?.0).unwrap_or(0))
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

fn is_path(text: &str) -> bool {
    let of_ours = ["Observation", "Bundle", "Device", "Patient", "Encounter"].iter().any(|name| text.starts_with(name));
    // A path with a quoted text in it may hold anything.
    of_ours && text.len() < 120 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".[]_-".contains(&byte))
}

fn word(text: &str) -> &str {
    if text.len() < 32 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') { text } else { "…" }
}

/// Words of error messages that name nobody.
const WORDS: &str = "a allowed already an and any are array as at available be bundle but by can cannot cardinality chart code \
    codes coding conflict constraint content could create date datetime decimal denied device did display does duplicate element \
    elements empty encounter entries entry error exactly exceeded exist exists expected extension failed field fhir for format found has \
    have header identifier if in index integer invalid is it json key known large limit list logic many match matched matches \
    maximum message minimum missing more multiple must no not null number observation of on one only operation or parameter parse \
    path patient payload permitted process processing profile property quantity rate read reference request required resource \
    resources retry rule schema search server set size slice specified status strict string structure supported system than \
    the this time timeout to too transaction type unable unexpected unit unknown update url validation value valueset version vital was \
    were with without";

/// Whatever is not known to be harmless becomes `…`.
fn harmless(text: &str, sent: &BTreeSet<String>) -> String {
    let words: BTreeSet<&str> = WORDS.split_ascii_whitespace().collect();
    let mut kept = String::new();
    for token in text.split_ascii_whitespace() {
        let bare = token.trim_matches(|c: char| c.is_ascii_punctuation());
        let of_server = bare.strip_prefix("HAPI-").is_some_and(|n| n.len() <= 4 && n.bytes().all(|byte| byte.is_ascii_digit()));
        let is_harmless = of_server || words.contains(bare.to_ascii_lowercase().as_str()) || sent.contains(bare);
        let next = if is_harmless { token } else { "…" };
        if !(next == "…" && kept.ends_with('…')) {
            if !kept.is_empty() {
                kept.push(' ');
            }
            kept.push_str(next);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer::read(&Head { status: 422, ..Head::default() }, body.as_bytes(), None)
    }

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date_and_never_believed_for_ever() {
        let now = Some(Timestamp(1_445_412_420_000)); // 2015-10-21T07:27:00Z
        let wait = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait(" 0 "), Some(0));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(wait("Wed, 21 Oct 2015 07:26:00 GMT"), Some(0), "it is over");
        assert_eq!(wait("99999999999"), Some(3_600));
        assert_eq!(wait("Wed, 21 Oct 2065 07:28:00 GMT"), Some(3_600));
        assert_eq!((wait("soon"), wait("-5"), wait("1.5")), (None, None, None));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", None), None, "a gateway without a clock can't tell");
    }

    #[test]
    fn what_a_dead_letter_keeps_of_an_answer_names_no_patient() {
        let body = r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid",
            "diagnostics":"HAPI-0507: Patient Åsa Lind (MRN 19450312-1234, Patient/4711) does not match; value 140 of code 8867-4 not allowed",
            "details":{"text":"born 1945-03-12, Mrs. Lind"},
            "expression":["Observation.subject","Patient.where(name='Lind')"],"location":["Observation.component[1].valueQuantity"]}]}"#;
        let sent = ["8867-4".to_owned()].into();
        let text = answer(body).scrubbed(&sent);
        for patient in ["Åsa", "Lind", "19450312", "1234", "4711", "1945", "140", "Mrs"] {
            assert!(!text.contains(patient), "{patient} in {text}");
        }
        assert_eq!(
            text,
            "422; invalid at Observation.subject at Observation.component[1].valueQuantity: …: HAPI-0507: Patient … does not match; value … of code \
             8867-4 not allowed"
        );
        // Not even by a code, or at length.
        let odd = format!(
            r#"{{"resourceType":"OperationOutcome","issue":[{{"code":"Lind-1945","diagnostics":"{}"}}]}}"#,
            "the value ".repeat(500)
        );
        let text = answer(&odd).scrubbed(&BTreeSet::new());
        assert!(!text.contains("Lind") && text.chars().count() <= MAX_TEXT, "{text}");
    }

    #[test]
    fn whoever_speaks_no_fhir_is_told_from_a_server_that_says_nothing() {
        assert_eq!(answer("").content, Content::Empty);
        assert_eq!(answer("<html>login</html>").content, Content::Other);
        assert_eq!(answer(r#"{"error":"x"}"#).content, Content::Other);
        assert_eq!(answer(r#"{"resourceType":"Observation"}"#).content, Content::Fhir);
    }

    #[test]
    fn each_entry_of_a_bundle_has_its_answer_or_none_has() {
        let body = r#"{"resourceType":"Bundle","entry":[{"response":{"status":"201 Created","location":"Observation/1/_history/1"}},
            {"response":{"status":"400","outcome":{"resourceType":"OperationOutcome","issue":[{"code":"invalid"}]}}}]}"#;
        let entries = Answer::entries(body.as_bytes(), 2).unwrap();
        assert_eq!((entries[0].status, entries[1].status), (201, 400));
        assert!(entries[1].has_code(&["invalid"]));
        assert_eq!(Answer::entries(body.as_bytes(), 3), None);
        assert_eq!(Answer::entries(br#"{"resourceType":"Bundle","entry":[{}]}"#, 1), None);
        assert_eq!(Answer::entries(br#"{"resourceType":"Observation"}"#, 1), None);
    }
}
