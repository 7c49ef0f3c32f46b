//! Who was where when: events folded in event-time order, and the binding of a reading to a patient. Pure: no I/O, no clock.
//! A reading is bound for its own time and when it is sent, never to "the last patient"; what is in doubt is held.

mod bind;
mod config_sync;
mod event;
mod fold;
mod identity;
mod phi;
#[cfg(test)]
mod tests;

pub use bind::{Affected, Binding, Guards, Rule};
pub use config_sync::{Standing, Wanted, sync};
pub use event::{Change, EventSource, HoldReason, Movement, WardEvent};
pub use fold::{Evidence, Interval, Spot, Ward};
pub use identity::{Identity, IdentityError, SecondIdentifier};
pub use phi::Phi;
