//! The FHIR destination: what the flow asks goes to the server, what the server answers goes to the flow, and what the flow says goes to
//! the route.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::answer::{Answer, Head};
use super::client::FhirClient;
use super::flow::{AskId, Flow, Persons, Said, Wishes};
use crate::deliver::{Capabilities, Destination, Fault, Happened, Item, Lane, NotSent, Sent, Token, Verdict};
use crate::monitor::Notice;
use crate::reading::Timestamp;

type Asking = Pin<Box<dyn Future<Output = (AskId, Result<(Head, Bytes), Fault>)> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

pub struct FhirDestination<P> {
    client: Arc<FhirClient>,
    flow: Flow,
    persons: P,
    state: State,
    asking: FuturesUnordered<Asking>,
    said: VecDeque<Happened>,
    spent: Sent,
    max_entries: usize,
    amends: bool,
    /// Times of the flow count from here.
    started: Instant,
    clock: fn() -> Option<Timestamp>,
}

enum State {
    Gone,
    Opening(Opening),
    Up,
}

impl<P: Persons + Send> FhirDestination<P> {
    pub fn new(client: FhirClient, wishes: Wishes, persons: P, clock: fn() -> Option<Timestamp>) -> Self {
        Self {
            client: Arc::new(client),
            max_entries: wishes.max_entries,
            amends: wishes.amend == super::flow::Amend::Send,
            flow: Flow::new(wishes),
            persons,
            state: State::Gone,
            asking: FuturesUnordered::new(),
            said: VecDeque::new(),
            spent: Sent::default(),
            started: Instant::now(),
            clock,
        }
    }

    /// Asks as much as may be asked now.
    fn ask(&mut self) {
        while let Some((id, request)) = self.flow.ask(&mut self.persons, self.started.elapsed()) {
            let octets = request.path.expose().len() + request.body.as_ref().map_or(0, |body| body.expose().len());
            self.spent += Sent { messages: 1, octets: octets as u64 };
            let client = self.client.clone();
            self.asking.push(Box::pin(async move { (id, client.ask(&request).await) }));
        }
        self.listen();
    }

    /// What the flow has to say since.
    fn listen(&mut self) {
        while let Some(said) = self.flow.said() {
            let (token, verdict) = match said {
                Said::Settled(token) => (token, Verdict::Settled),
                Said::Nothing(token) => (token, Verdict::NotCharted),
                Said::Dead { token, reason, detail } => (token, Verdict::Dead { reason, detail }),
                Said::Waits { token, why, detail } => (token, Verdict::Waits { why, detail }),
                Said::Held { token, reason } => (token, Verdict::Held(reason)),
                Said::Again(token) => (token, Verdict::Again),
                Said::Down(fault) => {
                    self.state = State::Gone;
                    self.said.push_back(Happened::Down(fault));
                    return;
                }
            };
            self.said.push_back(Happened::Answered { token, verdict });
        }
    }

    fn answered(&mut self, id: AskId, answer: Result<(Head, Bytes), Fault>) {
        match answer {
            Ok((head, body)) => {
                let answer = Answer::read(&head, &body, (self.clock)());
                self.flow.answered(id, &answer, &body, &mut self.persons, self.started.elapsed());
                self.ask();
            }
            // Whether it was done is not known: it goes again, and makes no second one.
            Err(fault) => {
                self.state = State::Gone;
                self.said.push_back(Happened::Down(fault));
            }
        }
    }
}

impl<P: Persons + Send> Destination for FhirDestination<P> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: self.amends, retract: true, order: true, batch: self.max_entries }
    }

    fn connect(&mut self) {
        self.flow.link_down();
        self.asking.clear();
        self.said.clear();
        let client = self.client.clone();
        self.state = State::Opening(Box::pin(async move { client.open().await }));
    }

    fn room(&self) -> usize {
        if matches!(self.state, State::Up) { self.flow.room(self.started.elapsed()) } else { 0 }
    }

    /// One order for all: there is one lane.
    fn room_for(&self, _lane: Lane) -> usize {
        self.room()
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        if self.room() == 0 {
            return Err(NotSent::NoRoom);
        }
        self.flow.add(token, item.clone());
        Ok(std::mem::take(&mut self.spent))
    }

    fn flush(&mut self) -> Sent {
        if matches!(self.state, State::Up) {
            self.ask();
        }
        std::mem::take(&mut self.spent)
    }

    fn preview(&self, item: &Item) -> (String, String) {
        self.flow.preview(item)
    }

    fn announce(&mut self, _notice: &Notice) -> bool {
        false
    }

    async fn event(&mut self) -> Happened {
        loop {
            if let Some(said) = self.said.pop_front() {
                return said;
            }
            match &mut self.state {
                State::Gone => return std::future::pending().await,
                State::Opening(opening) => {
                    let opened = opening.as_mut().await;
                    self.state = State::Gone;
                    return match opened {
                        Ok(()) => {
                            self.state = State::Up;
                            Happened::Up
                        }
                        Err(fault) => Happened::Down(fault),
                    };
                }
                State::Up => match self.asking.next().await {
                    Some((id, answer)) => self.answered(id, answer),
                    None => return std::future::pending().await,
                },
            }
        }
    }

    async fn close(&mut self, _farewell: Option<&Notice>) {
        self.state = State::Gone;
        self.asking.clear();
    }
}
