//! What a kind of destination brings to a route: plan → render → send → classify. The plan is the same for all; how a record
//! is written, how it travels and what an answer means is the kind's own.

use std::future::Future;

use super::{Fault, Item, Lane, Token, Why};
use crate::monitor::Notice;
use crate::reading::DeliveryId;
use crate::ward::HoldReason;

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

    /// Messages it takes now of one lane: the backlog never gets more than three quarters of what there is.
    fn room_for(&self, lane: Lane) -> usize;

    /// Renders a record and sends it, or collects it; `token` comes back with the answer.
    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent>;

    /// Sends what was collected: nothing more comes for now.
    fn flush(&mut self) -> Sent;

    /// Where a record would go and what would be sent, as text: shown to an operator, so without a patient's identifiers.
    fn preview(&self, item: &Item) -> (String, String);

    /// Publishes a notice that whoever comes later finds too, whatever it says; [`Happened::Announced`] answers. `false`:
    /// not now.
    fn announce(&mut self, notice: &Notice) -> bool;

    /// The next thing that happened. Cancel safe.
    fn event(&mut self) -> impl Future<Output = Happened> + Send;

    /// Ends the connection in order, after a last notice.
    fn close(&mut self, farewell: Option<&Notice>) -> impl Future<Output = ()> + Send;
}

/// What went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub messages: u32,
    /// As packets of the destination's protocol, before TLS.
    pub octets: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, more: Self) {
        self.messages += more.messages;
        self.octets += more.octets;
    }
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
    /// The notice was taken, or refused with a text that says what to do.
    Announced(Result<(), String>),
    /// The receiving application confirmed these; `unreadable` counts what was said beside them and made no sense.
    Received {
        deliveries: Vec<DeliveryId>,
        unreadable: u64,
    },
    /// Whether confirmations are heard, and why not.
    Hears(Result<(), Fault>),
    /// The connection ended, or never came to be.
    Down(Fault),
}

/// What an answer means for the record it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Settled,
    /// Taken, nobody listened, and the route counts that as arrived.
    SettledUnheard,
    /// The record itself is refused and always will be: a dead letter.
    Dead {
        reason: &'static str,
        detail: String,
    },
    /// It stays owed, and the connection stands; the text says what has to change.
    Waits {
        why: Why,
        detail: String,
    },
    /// The destination has no place for it, and that is as it should be.
    NotCharted,
    /// It may not go before something is found or put right there; it is looked at again now and then.
    Held(HoldReason),
    /// It stays owed and goes again at once, in another way.
    Again,
    /// It stays owed, and the connection is of no more use.
    Owed(String),
}
