//! What is done with a device besides listening, as state machines without I/O: `poll(now, event) -> actions`.

mod retrieve;

pub use retrieve::{Action, Event, Outcome, Retrieve};
