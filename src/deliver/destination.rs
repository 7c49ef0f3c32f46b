//! What a kind of destination brings to a route: plan → render → send → classify. The plan is the same for all; how a record
//! is written, how it travels and what an answer means is the kind's own.

use std::future::Future;

use super::mqtt::status::Status;
use super::{Fault, Item, Token};

/// What a kind can do with what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// A newer version replaces an older one.
    pub amend: bool,
    /// A record can be taken back.
    pub retract: bool,
    /// Messages arrive in the order they were sent.
    pub order: bool,
    /// Records in one message at most.
    pub batch: usize,
}

/// One destination of one route. A connection is made, ends once, and is never mended: after [`Happened::Down`] the route
/// asks for a new one and sends again whatever was not settled.
pub trait Destination: Send {
    fn capabilities(&self) -> Capabilities;

    /// Begins a new connection; what is left of the one before is dropped.
    fn connect(&mut self);

    /// Messages it takes now; 0 while it is not up.
    fn room(&self) -> usize;

    /// Renders a record and sends it; `token` comes back with the answer.
    fn send(&mut self, token: Token, item: &Item) -> Result<(), NotSent>;

    /// Says how the gateway is, where the destination wants to know. `false`: not now.
    fn announce(&mut self, status: &Status) -> bool;

    /// The next thing that happened. Cancel safe.
    fn event(&mut self) -> impl Future<Output = Happened> + Send;

    /// Ends the connection in order; `farewell` when the gateway itself stops.
    fn close(&mut self, farewell: bool) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is no room any more: the connection has just ended.
    NoRoom,
    /// This record will never go; the text says why.
    TooLarge(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Up,
    Answered {
        token: Token,
        verdict: Verdict,
    },
    /// The connection ended, or never came to be.
    Down(Fault),
}

/// What an answer means for the record it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Settled,
    /// The record itself is refused and always will be: a dead letter.
    Dead {
        reason: &'static str,
        detail: String,
    },
    /// It stays owed: the route can't go on until something changes, and the text says what.
    Owed(String),
}
