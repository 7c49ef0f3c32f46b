//! The FHIR route against somebody else's server and validator (`make test-fhir`): Medplum's router, which refuses a transaction of
//! more than eight conditional entries and does not roll back, and its check of R4 and R4's vital signs.

mod items;
#[path = "fhir/route.rs"]
mod route;
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Moment};

use bedrail::deliver::Item;
use bedrail::deliver::fhir::{Auth, Create, Form, Wishes, chart_row};
use bedrail::reading::*;
use serde_json::Value as Json;

use items::{NOON, blood_pressure, item, reading, stream, window};
use route::{MRN, Route, destination, wishes};

/// Ways in which Medplum makes one of a repeat.
const WAYS: [(Create, Form); 6] = [
    (Create::Put, Form::Transaction),
    (Create::Put, Form::Single),
    (Create::IfNoneExist, Form::Transaction),
    (Create::IfNoneExist, Form::Batch),
    (Create::IfNoneExist, Form::Single),
    (Create::SearchFirst, Form::Single),
];

#[tokio::test]
async fn what_somebody_elses_server_keeps_is_one_observation_a_record_valid_by_r4() {
    let Some(directory) = directory("what_somebody_elses_server_keeps_is_one_observation_a_record_valid_by_r4") else { return };
    for (create, form) in WAYS {
        let server = Medplum::start(&directory);
        // All of it once; of the other ways a part, since each Observation takes its validator a while.
        let all = (create, form) == WAYS[0];
        let items: Vec<Item> =
            everything().into_iter().enumerate().filter(|(n, _)| all || n % 6 == 0).map(|(_, item)| item).collect();
        let mut route = Route::new(destination(&server.url(), None, Auth::None, wishes(create, form)));
        route.carry(&items).await;
        assert!(route.dead.is_empty() && route.downs.is_empty(), "{create:?} {form:?}: {:?} {:?}", route.dead, route.downs);
        // The same once more, as after a lost answer.
        route.carry(&items).await;
        let kept = server.everything();
        let observations = kept["observations"].as_array().expect("a list");
        assert_eq!((observations.len(), kept["devices"].as_array().unwrap().len()), (items.len(), 2), "{create:?} {form:?}");
        for item in &items {
            let of_item = observations.iter().filter(|kept| kept["identifier"][0]["value"] == item.chart.to_string());
            assert_eq!(of_item.count(), 1, "{create:?} {form:?}: {:?}", item.record.stream);
        }
    }
}

#[tokio::test]
async fn somebody_elses_limit_of_eight_entries_is_found_by_halves() {
    let Some(directory) = directory("somebody_elses_limit_of_eight_entries_is_found_by_halves") else { return };
    let server = Medplum::start(&directory);
    let items = everything();
    let wishes = Wishes { max_entries: 40, ..wishes(Create::IfNoneExist, Form::Transaction) };
    let mut route = Route::new(destination(&server.url(), None, Auth::None, wishes));
    route.carry(&items).await;
    assert!(route.dead.is_empty() && route.downs.is_empty(), "{:?} {:?}", route.dead, route.downs);
    assert_eq!(server.everything()["observations"].as_array().unwrap().len(), items.len());
}

/// What the validator is worth: it refuses these, and the record is a dead letter that names no patient.
#[tokio::test]
async fn somebody_elses_validator_refuses_what_is_wrong_with_a_vital_sign() {
    let Some(directory) = directory("somebody_elses_validator_refuses_what_is_wrong_with_a_vital_sign") else { return };
    let server = Medplum::start(&directory);
    let pulse = serde_json::json!({
        "resourceType": "Observation", "status": "final", "subject": { "reference": "Patient/1" },
        "category": [{ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs" }] }],
        "code": { "coding": [{ "system": "http://loinc.org", "code": "8867-4" }] }, "effectiveDateTime": "2026-11-23T12:00:00Z",
        "valueQuantity": { "value": 72, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min" },
    });
    let ask = |observation: &Json| server.http("POST", "/fhir/Observation", &observation.to_string()).0;
    assert_eq!(ask(&pulse), 201);
    type Change = fn(&mut Json);
    // A wrong unit is not among them: it does not look into the value of a profile. The rules of tests/fhir/rules.rs do.
    let wrong: [(&str, Change); 5] = [
        ("no category", |json| {
            json.as_object_mut().unwrap().remove("category");
        }),
        ("another category", |json| json["category"][0]["coding"][0]["code"] = "exam".into()),
        ("neither a value nor a reason", |json| {
            json.as_object_mut().unwrap().remove("valueQuantity");
        }),
        ("no time", |json| {
            json.as_object_mut().unwrap().remove("effectiveDateTime");
        }),
        ("an element of no such name", |json| json["flavour"] = "sweet".into()),
    ];
    for (name, change) in wrong {
        let mut changed = pulse.clone();
        change(&mut changed);
        assert_eq!(ask(&changed), 400, "{name}");
    }
}

/// Where npm put the server; `None`: it did not.
fn directory(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("BEDRAIL_MEDPLUM").map(PathBuf::from);
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: the server is fetched by make test-fhir");
    }
    found
}

/// Every metric that a chart takes, as a value, a doubted one, one without a number, and a window.
fn everything() -> Vec<Item> {
    let mut items = Vec::new();
    for row in METRICS.iter().filter(|row| chart_row(row.metric).is_some()) {
        let unit = row.units[0];
        let number = Value::Number { value: Decimal::new(971, -1), unit };
        let mut bodies = vec![(Modality::Spot, Body::Reading(reading(number.clone(), Class::Measured)))];
        if row.components.is_empty() {
            let doubted = Reading { flags: vec![Flag::PoorSignal], ..reading(number, Class::Questionable) };
            let out = reading(Value::NoNumber { unit }, Class::OutOfRange(OutOfRange::High));
            bodies.extend([doubted, out].map(|reading| (Modality::Spot, Body::Reading(reading))));
        } else {
            bodies = vec![(Modality::Spot, blood_pressure())];
        }
        if row.summary == Summary::Stats {
            let sample = Sample { at: NOON, value: Decimal::new(971, -1) };
            let summary = WindowSummary::Stats { median: sample, min: sample, max: sample, mean: sample.value };
            bodies.push((Modality::Continuous, Body::Window(Window { unit, ..window(Some(summary)) })));
        }
        let site = (row.metric == Metric::Glucose).then_some(Site::CapillaryWholeBlood);
        items.extend(
            bodies.into_iter().map(|(modality, body)| item(Some(StreamKey { site, ..stream(row.metric, modality) }), body)),
        );
    }
    for (n, item) in items.iter_mut().enumerate() {
        item.record.id = RecordId([n as u8 + 1; 16]);
        item.subject = Some(format!("p-{}", n % 2).parse().unwrap());
        item.chart = ChartId::of(item.record.id, item.placement);
    }
    items
}

struct Medplum {
    process: Child,
    port: u16,
}

impl Medplum {
    /// With two patients in it.
    fn start(directory: &Path) -> Self {
        let mut command = Command::new("node");
        command.arg("server.mjs").current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("node is there");
        let mut said = String::new();
        let out = process.stdout.as_mut().expect("piped");
        let limit = Moment::now() + Duration::from_secs(60);
        while !said.ends_with('\n') {
            let mut octet = [0];
            assert!(out.read(&mut octet).expect("it speaks") == 1 && Moment::now() < limit, "it did not start: {said}");
            said.push(char::from(octet[0]));
        }
        let port = said.trim().rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port");
        let server = Self { process, port };
        for n in 0..2 {
            let patient =
                serde_json::json!({ "resourceType": "Patient", "identifier": [{ "system": MRN, "value": format!("MRN-{n}") }] });
            assert_eq!(server.http("POST", "/fhir/Patient", &patient.to_string()).0, 201);
        }
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/fhir", self.port)
    }

    fn everything(&self) -> Json {
        serde_json::from_str(&self.http("GET", "/everything", "").1).expect("JSON")
    }

    fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let head =
            format!("{method} {path} HTTP/1.0\r\ncontent-type: application/fhir+json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
    }
}

impl Drop for Medplum {
    fn drop(&mut self) {
        // It ends with its standard input, and at the latest now.
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
