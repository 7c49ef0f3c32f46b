//! What is asked of a server and what becomes of each record, against a server of ours that fails in every way: one Observation a
//! chart id, in the right chart, whatever happens.

mod facts;
mod items;
#[path = "fhir/rules.rs"]
mod rules;
#[path = "fhir/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bedrail::deliver::fhir::{
    Amend, Answer, Charted, Create, DeviceMode, Flow, Form, Head, Method, Person, Persons, Request, Said, Shape, Wishes,
    chart_row,
};
use bedrail::deliver::{Item, Token};
use bedrail::reading::*;
use bedrail::ward::{HoldReason, Identity, Phi, SecondIdentifier};
use proptest::prelude::*;

use items::{NOON, item, reading, stream, window};
use server::{Question, Server, Trouble};

const SYSTEM: &str = "urn:oid:2.999.9.1";
const MRN: &str = "urn:oid:2.999.1.2.3";

/// Every way of making an Observation that can be told from a repeat, in every form it goes in.
const WAYS: [(Create, Form); 8] = [
    (Create::Put, Form::Transaction),
    (Create::Put, Form::Batch),
    (Create::Put, Form::Single),
    (Create::IfNoneExist, Form::Transaction),
    (Create::IfNoneExist, Form::Batch),
    (Create::IfNoneExist, Form::Single),
    (Create::SearchFirst, Form::Single),
    (Create::IdempotencyHeader, Form::Single),
];

#[test]
fn every_record_is_in_its_chart_once_in_every_way_and_form() {
    for (create, form) in WAYS {
        for device in [DeviceMode::Create, DeviceMode::Display] {
            let mut rig = Rig::new(Wishes { device, ..wishes(create, form) });
            rig.carry(readings(40, 4));
            rig.holds(40);
            assert_eq!(rig.server.all("Device").len(), if device == DeviceMode::Create { 2 } else { 0 }, "{create:?} {form:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn nothing_is_lost_doubled_or_in_a_wrong_chart_whatever_the_server_does(
        way in 0..WAYS.len(),
        troubles in proptest::collection::vec(prop_oneof![
            3 => Just(None),
            1 => Just(Some(Trouble::Unheard)),
            2 => Just(Some(Trouble::AnswerLost)),
            1 => prop_oneof![Just(429), Just(503), Just(500), Just(408), Just(504)].prop_map(|status| Some(Trouble::Status(status))),
            1 => prop_oneof![Just(502), Just(500)].prop_map(|status| Some(Trouble::DoneAnd(status))),
        ], 0..60),
        keeps_half: bool,
        most_entries in 1usize..12,
        beside: bool,
    ) {
        let (create, form) = WAYS[way];
        let mut wishes = Wishes { device: DeviceMode::Create, ..wishes(create, form) };
        wishes.shape.beside = beside;
        let mut rig = Rig::new(wishes);
        rig.server.keeps_half = keeps_half;
        rig.server.most_entries = most_entries;
        rig.server.troubles = troubles.into();
        rig.carry(readings(30, 3));
        rig.holds(30);
    }
}

#[test]
fn one_that_is_refused_is_found_among_others_and_holds_up_none() {
    for (create, form) in WAYS {
        let mut rig = Rig::new(wishes(create, form));
        // Of the eight of a bundle, the one with this value.
        rig.server.refuses = Some(83);
        rig.carry(readings(24, 1));
        let dead: Vec<_> = rig.dead.values().cloned().collect();
        assert_eq!(dead, ["refused: the server answered 422; business-rule: value … of …"], "{create:?} {form:?}");
        assert_eq!(rig.settled.len(), 23, "{create:?} {form:?}");
        assert_eq!(rig.server.all("Observation").len(), 23);
    }
}

#[test]
fn a_bundle_that_is_too_large_is_halved_until_it_is_taken() {
    let mut rig = Rig::new(Wishes { max_entries: 64, ..wishes(Create::Put, Form::Transaction) });
    rig.server.most_entries = 8;
    rig.carry(readings(40, 1));
    rig.holds(40);
    // Forty, twenty and ten are refused, and then eight of five are taken.
    let bundles = rig.server.seen.iter().filter(|(method, path)| method == "POST" && path.is_empty()).count();
    assert_eq!(bundles, 11);
}

#[test]
fn an_unknown_patient_waits_and_nobody_else_does() {
    let mut rig = Rig::new(wishes(Create::Put, Form::Transaction));
    rig.server.stored.get_mut("Patient").unwrap().remove(0);
    rig.carry(readings(20, 2));
    assert_eq!(rig.held.values().collect::<BTreeSet<_>>(), [&HoldReason::PatientUnknown].into());
    assert_eq!((rig.held.len(), rig.settled.len()), (10, 10));
    let searches = rig.server.seen.iter().filter(|(_, path)| path.starts_with("Patient")).count();
    assert_eq!(searches, 2, "not once for each record");
    // Admitted meanwhile, and looked at again.
    rig.server.patient(MRN, "MRN-0", "1940-01-01");
    rig.now += Duration::from_secs(61);
    let held: Vec<Item> =
        rig.items.iter().filter(|(token, _)| rig.held.contains_key(token)).map(|(_, item)| item.clone()).collect();
    rig.carry(held);
    assert_eq!(rig.server.all("Observation").len(), 20);
}

#[test]
fn a_patient_who_is_not_the_one_that_was_meant_gets_nothing() {
    type Change = fn(&mut Server);
    let changes: [(&str, Change); 3] = [
        ("another birth date", |server| server.stored.get_mut("Patient").unwrap()[0].resource["birthDate"] = "1941-01-01".into()),
        ("two with one number", |server| {
            server.patient(MRN, "MRN-0", "1940-01-01");
        }),
        ("merged into another", |server| {
            let link = serde_json::json!([{ "type": "replaced-by", "other": { "reference": "Patient/s9" } }]);
            server.stored.get_mut("Patient").unwrap()[0].resource["link"] = link;
        }),
    ];
    for (name, change) in changes {
        let mut rig = Rig::new(wishes(Create::Put, Form::Transaction));
        rig.persons.verify = true;
        change(&mut rig.server);
        rig.carry(readings(4, 1));
        assert_eq!(rig.held.values().collect::<BTreeSet<_>>(), [&HoldReason::IdentityMismatch].into(), "{name}");
        assert!(rig.server.all("Observation").is_empty(), "{name}");
    }
    // Of nobody who was identified, and who was forgotten: nothing is asked at all.
    let mut rig = Rig::new(wishes(Create::Put, Form::Transaction));
    rig.persons.forgotten = true;
    rig.carry(readings(4, 1));
    assert_eq!((rig.held.len(), rig.server.requests), (4, 0));
}

#[test]
fn a_patient_whose_record_moved_is_found_again_and_once() {
    let mut rig = Rig::new(wishes(Create::IfNoneExist, Form::Transaction));
    rig.carry(readings(4, 1));
    // The server gives the same person another id.
    rig.server.stored.get_mut("Patient").unwrap().remove(0);
    let moved = rig.server.patient(MRN, "MRN-0", "1940-01-01");
    let later: Vec<Item> = readings(8, 1).into_iter().skip(4).collect();
    rig.carry(later);
    assert_eq!(rig.server.all("Observation").iter().filter(|stored| stored.resource["subject"]["reference"] == moved).count(), 4);
    assert!(rig.dead.is_empty() && rig.held.is_empty());
}

#[test]
fn a_device_nobody_registered_waits_where_the_route_makes_none() {
    let mut rig = Rig::new(Wishes { device: DeviceMode::Resolve, ..wishes(Create::Put, Form::Transaction) });
    rig.carry(readings(4, 1));
    assert_eq!(rig.held.values().collect::<BTreeSet<_>>(), [&HoldReason::DeviceMismatch].into());
    assert!(rig.server.all("Observation").is_empty() && rig.server.all("Device").is_empty());
}

#[test]
fn a_later_version_stands_in_place_of_the_first_and_never_beside_it() {
    for (create, form) in WAYS {
        let mut rig = Rig::new(wishes(create, form));
        rig.carry(vec![slot(1, 970)]);
        let first = rig.only();
        assert_eq!((first["status"].as_str(), first["valueQuantity"]["value"].to_string()), (Some("final"), "97.0".to_owned()));
        rig.server.troubles = [None, Some(Trouble::AnswerLost)].into();
        rig.carry(vec![slot(2, 965)]);
        let second = rig.only();
        assert_eq!(
            (second["status"].as_str(), second["valueQuantity"]["value"].to_string()),
            (Some("amended"), "96.5".to_owned()),
            "{create:?}"
        );
        // The first was skipped: what comes is the first the chart sees.
        let mut rig = Rig::new(wishes(create, form));
        rig.server.troubles = [None, None, Some(Trouble::AnswerLost)].into();
        rig.carry(vec![slot(2, 965)]);
        assert_eq!(rig.only()["status"], "final", "{create:?}: a lost answer is no amendment");
        assert_eq!(rig.server.all("Observation")[0].version, 1);
    }
}

#[test]
fn a_route_that_does_not_amend_leaves_the_chart_and_says_so() {
    for (amend, dead) in [(Amend::Skip, 0), (Amend::Alert, 1)] {
        let mut rig = Rig::new(Wishes { amend, ..wishes(Create::Put, Form::Transaction) });
        rig.carry(vec![slot(1, 970)]);
        rig.carry(vec![slot(2, 965)]);
        assert_eq!((rig.only()["valueQuantity"]["value"].to_string(), rig.dead.len()), ("97.0".to_owned(), dead));
    }
}

#[test]
fn what_is_taken_back_is_marked_as_an_error_and_keeps_its_digits() {
    for (create, form) in WAYS {
        for beside in [false, true] {
            let mut wishes = wishes(create, form);
            wishes.shape.beside = beside;
            let mut rig = Rig::new(wishes);
            let mut reading = readings(1, 1).remove(0);
            flag(&mut reading);
            rig.carry(vec![reading.clone()]);
            let before = rig.server.all("Observation").len();
            assert_eq!(before, if beside { 2 } else { 1 }, "{create:?} {form:?}");
            rig.server.troubles = [Some(Trouble::AnswerLost), None, Some(Trouble::AnswerLost)].into();
            rig.carry(vec![retraction(&reading)]);
            assert_eq!(rig.server.all("Observation").len(), before, "nothing is made by taking back");
            for stored in rig.server.all("Observation") {
                assert_eq!(stored.resource["status"], "entered-in-error", "{create:?} {form:?}");
            }
            // Once more, and of something that never came there.
            rig.carry(vec![retraction(&reading), retraction(&readings(9, 1)[8])]);
            assert_eq!(rig.settled.len(), 4);
        }
    }
}

#[test]
fn what_goes_to_one_patient_and_then_to_another_and_back_is_in_each_chart_once() {
    for (create, form) in WAYS {
        let mut rig = Rig::new(wishes(create, form));
        let at = |subject: usize, times: u8| {
            let mut item = readings(1, 1).remove(0);
            item.subject = Some(key(subject));
            item.placement = Placement([times * 16 + subject as u8; 16]);
            item.chart = ChartId::of(item.record.id, item.placement);
            item
        };
        let (a, b, again) = (at(0, 0), at(1, 0), at(0, 1));
        rig.server.troubles =
            [None, Some(Trouble::AnswerLost), None, None, Some(Trouble::AnswerLost), None, Some(Trouble::DoneAnd(500))].into();
        for item in [a.clone(), retraction(&a), b.clone(), retraction(&b), again.clone()] {
            rig.carry(vec![item]);
        }
        let stands: BTreeMap<String, String> = rig
            .server
            .all("Observation")
            .iter()
            .map(|stored| {
                (
                    stored.resource["identifier"][0]["value"].as_str().unwrap().to_owned(),
                    stored.resource["status"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let wanted = [(a.chart, "entered-in-error"), (b.chart, "entered-in-error"), (again.chart, "final")];
        assert_eq!(stands, wanted.map(|(chart, status)| (chart.to_string(), status.to_owned())).into(), "{create:?} {form:?}");
        assert_eq!(rig.server.all("Observation").len(), 3);
    }
}

#[test]
fn one_request_of_a_patient_and_device_is_under_way_at_a_time() {
    let mut rig = Rig::new(Wishes { max_entries: 2, parallel: 8, ..wishes(Create::IfNoneExist, Form::Transaction) });
    let mut open: Vec<(u64, Request)> = Vec::new();
    for (token, item) in readings(48, 4).into_iter().enumerate() {
        rig.flow.add(token as Token, item);
    }
    let (mut most, mut settled, mut step) = (0, 0, 0);
    loop {
        while let Some(ask) = rig.flow.ask(&mut rig.persons, rig.now) {
            open.push(ask);
        }
        let lines: Vec<String> = open.iter().filter_map(|(_, request)| patient_of(request)).collect();
        assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), lines.len(), "two of one patient at once");
        most = most.max(lines.len());
        if open.is_empty() {
            break;
        }
        // In an order of their own: none may matter.
        step += 7;
        let (id, request) = open.remove(step % open.len());
        let reply = rig.server.hear(&question(&request)).expect("an answer");
        rig.flow.answered(id, &read(&reply), &reply.body, &mut rig.persons, rig.now);
        while let Some(said) = rig.flow.said() {
            assert!(matches!(said, Said::Settled(_)), "{said:?}");
            settled += 1;
        }
    }
    assert_eq!((settled, most), (48, 4));
}

#[test]
fn a_server_that_asks_for_peace_gets_it() {
    let mut rig = Rig::new(wishes(Create::Put, Form::Transaction));
    rig.server.troubles = [None, Some(Trouble::Status(429))].into();
    rig.flow.add(0, readings(1, 1).remove(0));
    for _ in 0..2 {
        let (id, request) = rig.flow.ask(&mut rig.persons, rig.now).expect("something to ask");
        let reply = rig.server.hear(&question(&request)).expect("an answer");
        rig.flow.answered(id, &read(&reply), &reply.body, &mut rig.persons, rig.now);
    }
    assert!(matches!(rig.flow.said(), Some(Said::Waits { .. })));
    rig.flow.add(0, readings(1, 1).remove(0));
    assert!(rig.flow.ask(&mut rig.persons, rig.now).is_none() && rig.flow.room(rig.now) == 0);
    let later = rig.now + Duration::from_secs(1);
    assert!(rig.flow.ask(&mut rig.persons, later).is_some());
}

#[test]
fn a_route_says_why_its_server_is_of_no_use() {
    for (status, class) in [(301, "moved"), (404, "refused"), (405, "refused"), (401, "login")] {
        let mut rig = Rig::new(wishes(Create::Put, Form::Single));
        rig.server.troubles = [Some(Trouble::Status(status))].into();
        rig.carry(readings(1, 1));
        assert_eq!(rig.downs.first().map(String::as_str), Some(class), "{status}");
        assert!(rig.dead.is_empty(), "nothing is buried for what a person can mend");
        rig.holds(1);
    }
}

#[test]
fn what_a_value_says_together_goes_together() {
    let mut rig = Rig::new(Wishes { max_entries: 4, ..wishes(Create::Put, Form::Transaction) });
    // Three values of three parts each.
    let mut parts = readings(9, 1);
    for (n, item) in parts.iter_mut().enumerate() {
        if let Body::Reading(reading) = &mut item.record.body {
            (reading.part, reading.parts) = ((n % 3) as u8, 3);
        }
    }
    let mut sizes = Vec::new();
    parts.into_iter().enumerate().for_each(|(token, item)| rig.flow.add(token as Token, item));
    while let Some((id, request)) = rig.flow.ask(&mut rig.persons, rig.now) {
        let reply = rig.server.hear(&question(&request)).expect("an answer");
        if let Some(body) = request.body.as_ref().filter(|_| request.path.expose().is_empty()) {
            sizes.push(serde_json::from_slice::<serde_json::Value>(body.expose()).unwrap()["entry"].as_array().unwrap().len());
        }
        rig.flow.answered(id, &read(&reply), &reply.body, &mut rig.persons, rig.now);
    }
    assert_eq!(sizes, [3, 3, 3]);
}

/// A flow, its server, and a route that sends again whatever it was not told to be done with.
struct Rig {
    flow: Flow,
    server: Server,
    persons: Everybody,
    now: Duration,
    items: BTreeMap<Token, Item>,
    next: Token,
    settled: BTreeSet<Token>,
    held: BTreeMap<Token, HoldReason>,
    dead: BTreeMap<Token, String>,
    downs: Vec<String>,
}

impl Rig {
    fn new(wishes: Wishes) -> Self {
        let mut server = Server::new();
        (0..4).for_each(|n| {
            server.patient(MRN, &format!("MRN-{n}"), "1940-01-01");
        });
        Self {
            flow: Flow::new(wishes),
            server,
            persons: Everybody::default(),
            now: Duration::ZERO,
            items: BTreeMap::new(),
            next: 0,
            settled: BTreeSet::new(),
            held: BTreeMap::new(),
            dead: BTreeMap::new(),
            downs: vec![],
        }
    }

    fn carry(&mut self, items: Vec<Item>) {
        let mut owed: BTreeSet<Token> = BTreeSet::new();
        for item in items {
            self.items.insert(self.next, item);
            owed.insert(self.next);
            self.next += 1;
        }
        for _ in 0..500 {
            if owed.is_empty() {
                return;
            }
            owed.iter().for_each(|token| self.flow.add(*token, self.items[token].clone()));
            self.turn(&mut owed);
            self.now += Duration::from_secs(2);
        }
        panic!("it goes on for ever with {owed:?}");
    }

    /// Until nothing is asked any more, or the line breaks.
    fn turn(&mut self, owed: &mut BTreeSet<Token>) {
        while let Some((id, request)) = self.flow.ask(&mut self.persons, self.now) {
            match self.server.hear(&question(&request)) {
                None => return self.flow.link_down(),
                Some(reply) => self.flow.answered(id, &read(&reply), &reply.body, &mut self.persons, self.now),
            }
            if self.hear(owed) {
                return self.flow.link_down();
            }
        }
        self.hear(owed);
        self.flow.link_down();
    }

    fn hear(&mut self, owed: &mut BTreeSet<Token>) -> bool {
        while let Some(said) = self.flow.said() {
            match said {
                Said::Settled(token) | Said::Nothing(token) => {
                    owed.remove(&token);
                    assert!(self.settled.insert(token), "settled twice");
                }
                Said::Dead { token, reason, detail } => {
                    owed.remove(&token);
                    self.dead.insert(token, format!("{reason}: {detail}"));
                }
                Said::Held { token, reason } => {
                    owed.remove(&token);
                    self.held.insert(token, reason);
                }
                Said::Waits { .. } | Said::Again(_) => {}
                Said::Down(fault) => {
                    self.downs.push(fault.class.name().to_owned());
                    return true;
                }
            }
        }
        false
    }

    /// Each record is in the chart it belongs to, once, and no other is.
    fn holds(&self, count: usize) {
        assert_eq!(self.settled.len(), count);
        let mut charts: BTreeMap<String, usize> = BTreeMap::new();
        for stored in self.server.all("Observation") {
            *charts.entry(stored.resource["identifier"][0]["value"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for item in self.items.values() {
            assert_eq!(charts.get(&item.chart.to_string()), Some(&1), "{:?}", item.seq);
            let of_item = self
                .server
                .all("Observation")
                .iter()
                .find(|stored| stored.resource["identifier"][0]["value"] == item.chart.to_string());
            let subject = item.subject.as_ref().unwrap().as_str().trim_start_matches("p-").to_owned();
            let patient = self
                .server
                .all("Patient")
                .iter()
                .find(|patient| patient.resource["identifier"][0]["value"] == format!("MRN-{subject}"));
            assert_eq!(of_item.unwrap().resource["subject"]["reference"], format!("Patient/{}", patient.unwrap().id));
        }
        let beside = charts.len() - self.items.len();
        assert!(charts.values().all(|count| *count == 1) && beside <= self.items.len(), "{charts:?}");
    }

    fn only(&self) -> serde_json::Value {
        let [stored] = self.server.all("Observation") else { panic!("not one: {}", self.server.all("Observation").len()) };
        stored.resource.clone()
    }
}

#[derive(Default)]
struct Everybody {
    verify: bool,
    forgotten: bool,
}

impl Persons for Everybody {
    fn person(&mut self, subject: &SubjectKey) -> Option<Person> {
        let number = subject.as_str().trim_start_matches("p-");
        (!self.forgotten).then(|| Person {
            system: MRN.to_owned(),
            value: Phi::new(format!("MRN-{number}")),
            identity: Identity { birth_date: Some(Phi::new("1940-01-01".parse().expect("a date"))), ..Identity::default() },
            second: self.verify.then_some(SecondIdentifier::BirthDate),
        })
    }
}

fn question(request: &Request) -> Question {
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
    };
    Question {
        method: method.to_owned(),
        path: request.path.expose().clone(),
        headers: request.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        body: request.body.as_ref().map(|body| body.expose().clone()).unwrap_or_default(),
    }
}

fn read(reply: &server::Reply) -> Answer {
    let header = |wanted: &str| reply.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let head =
        Head { status: reply.status, retry_after: header("retry-after"), location: header("location"), etag: header("etag") };
    Answer::read(&head, &reply.body, None)
}

fn patient_of(request: &Request) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(request.body.as_ref()?.expose()).ok()?;
    body["entry"][0]["resource"]["subject"]["reference"].as_str().map(str::to_owned)
}

/// Of so many patients in turn, each with a device at the same bed.
fn readings(count: usize, patients: usize) -> Vec<Item> {
    (0..count)
        .map(|n| {
            let value = Value::Number { value: Decimal::new(70 + n as i64, 0), unit: Unit::PerMinute };
            let mut item = item(Some(stream(Metric::HeartRate, Modality::Spot)), Body::Reading(reading(value, Class::Measured)));
            item.seq = Seq(n as u64 + 1);
            item.record.id = RecordId([n as u8 + 1; 16]);
            item.subject = Some(key(n % patients));
            item.chart = ChartId::of(item.record.id, item.placement);
            item
        })
        .collect()
}

fn key(n: usize) -> SubjectKey {
    format!("p-{n}").parse().unwrap()
}

/// So that something stands beside it.
fn flag(item: &mut Item) {
    let value = Value::Number { value: Decimal::new(970, -1), unit: Unit::Percent };
    let body = Reading { flags: vec![Flag::PoorSignal], ..reading(value, Class::Questionable) };
    item.record.stream = Some(stream(Metric::Spo2, Modality::Spot));
    item.record.body = Body::Reading(body);
}

fn slot(version: u32, median: i64) -> Item {
    let sample = |mantissa| Sample { at: NOON, value: Decimal::new(mantissa, -1) };
    let summary =
        WindowSummary::Stats { median: sample(median), min: sample(940), max: sample(990), mean: Decimal::new(9685, -2) };
    let mut item = item(Some(stream(Metric::Spo2, Modality::Continuous)), Body::Window(window(Some(summary))));
    item.record.version = version;
    item.subject = Some(key(0));
    item
}

fn retraction(of: &Item) -> Item {
    let body = Body::Retraction(Retraction {
        of: of.record.id,
        version: of.record.version,
        placement: of.placement,
        route: "emr".to_owned(),
    });
    let mut item = item(of.record.stream, body);
    item.chart = of.chart;
    item
}

fn wishes(create: Create, form: Form) -> Wishes {
    let map = METRICS.iter().filter(|row| chart_row(row.metric).is_some()).map(|row| (row.metric, Charted::default()));
    Wishes {
        shape: Shape {
            identifier_system: SYSTEM.to_owned(),
            preliminary: false,
            map: map.collect(),
            us_core: true,
            phd: true,
            periods: false,
            test: false,
            waveforms: false,
            beside: false,
            own_ids: create == Create::Put,
        },
        create,
        form,
        max_entries: 8,
        device: DeviceMode::Display,
        encounter: false,
        amend: Amend::Send,
        parallel: 4,
        gateway: "3w-gw-01".to_owned(),
    }
}
