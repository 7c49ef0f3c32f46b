//! Who was where when: events folded in event-time order, and the binding of a reading to a patient. Pure.

mod event;
mod phi;

pub use event::{Change, EventSource, HoldReason, WardEvent};
pub use phi::Phi;
