//! What a route does with a FHIR destination, as far as the tests of it need: it sends again whatever is owed until all is settled.

#![allow(dead_code)]

use std::time::Duration;

use bedrail::deliver::fhir::{
    Amend, Auth, Base, Charted, Create, DeviceMode, FhirClient, FhirDestination, Form, Person, Persons, Shape, Way, Wishes,
    chart_row,
};
use bedrail::deliver::{Destination, Fault, Happened, Item, Lane, Token, Verdict};
use bedrail::net::{TlsSettings, client_config};
use bedrail::reading::*;
use bedrail::ward::{Identity, Phi};
use tokio::time::timeout;

/// The system of the patients' numbers.
pub const MRN: &str = "urn:oid:2.999.1.2.3";
/// No answer here takes longer; only a test that fails waits so long.
const SOON: Duration = Duration::from_secs(20);

pub struct Route {
    pub destination: FhirDestination<Everybody>,
    pub settled: Vec<Token>,
    pub dead: Vec<String>,
    pub downs: Vec<Fault>,
}

impl Route {
    pub fn new(destination: FhirDestination<Everybody>) -> Self {
        Self { destination, settled: vec![], dead: vec![], downs: vec![] }
    }

    /// Until all are settled, whatever breaks.
    pub async fn carry(&mut self, items: &[Item]) {
        let mut owed: Vec<Token> = (0..items.len() as Token).collect();
        for _ in 0..60 {
            if owed.is_empty() {
                return;
            }
            if let Some(fault) = self.attempt(items, &mut owed).await {
                self.downs.push(fault);
            }
        }
        panic!("it goes on for ever: {:?}", self.downs);
    }

    /// The fault that ends the first connection.
    pub async fn fails(&mut self, items: &[Item]) -> Fault {
        let mut owed: Vec<Token> = (0..items.len() as Token).collect();
        self.attempt(items, &mut owed).await.expect("a connection that ends")
    }

    async fn attempt(&mut self, items: &[Item], owed: &mut Vec<Token>) -> Option<Fault> {
        self.destination.connect();
        let mut waiting: Vec<Token> = owed.clone();
        waiting.reverse();
        loop {
            if owed.is_empty() {
                self.destination.close(None).await;
                return None;
            }
            while self.destination.room_for(Lane::Live) > 0 && !waiting.is_empty() {
                let token = waiting.pop().expect("one");
                self.destination.send(token, &items[token as usize]).expect("room");
            }
            self.destination.flush();
            match timeout(SOON, self.destination.event()).await.expect("something happens") {
                Happened::Up => {}
                Happened::Down(fault) => return Some(fault),
                Happened::Answered { token, verdict } => match verdict {
                    Verdict::Settled => {
                        owed.retain(|of| *of != token);
                        self.settled.push(token);
                    }
                    Verdict::Dead { detail, .. } => {
                        owed.retain(|of| *of != token);
                        self.dead.push(detail);
                    }
                    // A moment later, all of it again.
                    Verdict::Waits { .. } => {
                        self.destination.close(None).await;
                        return None;
                    }
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
    }
}

pub struct Everybody;

impl Persons for Everybody {
    fn person(&mut self, subject: &SubjectKey) -> Option<Person> {
        let number = subject.as_str().trim_start_matches("p-");
        let value = Phi::new(format!("MRN-{number}"));
        Some(Person { system: MRN.to_owned(), value, identity: Identity::default(), second: None })
    }
}

pub fn destination(url: &str, tls: Option<&TlsSettings>, auth: Auth, wishes: Wishes) -> FhirDestination<Everybody> {
    let clock = || Some(Timestamp(jiff::Timestamp::now().as_millisecond()));
    let way = Way { tls: tls.map(|tls| client_config(tls).expect("a configuration")), server_name: None, proxy: None };
    let client = FhirClient::new(Base::parse(url).expect("an address"), way, auth, None, clock);
    FhirDestination::new(client, wishes, Everybody, clock)
}

pub fn shape(create: Create) -> Shape {
    let map = METRICS.iter().filter(|row| chart_row(row.metric).is_some()).map(|row| (row.metric, Charted::default()));
    Shape {
        identifier_system: "urn:oid:2.999.9.1".to_owned(),
        preliminary: false,
        map: map.collect(),
        us_core: true,
        phd: true,
        periods: false,
        test: false,
        waveforms: false,
        beside: false,
        own_ids: create == Create::Put,
    }
}

pub fn wishes(create: Create, form: Form) -> Wishes {
    Wishes {
        shape: shape(create),
        create,
        form,
        max_entries: 8,
        device: DeviceMode::Create,
        encounter: false,
        amend: Amend::Send,
        parallel: 4,
        gateway: "3w-gw-01".to_owned(),
    }
}
