//! What is done with a device besides listening, as state machines without I/O: `poll(now, event) -> actions`. And the gate
//! that every write to one passes.

mod consent;
mod local_now;
mod retrieve;
mod session;
mod set_clock;
pub mod writable;

pub use consent::{Consent, ConsentAction, ConsentAnswer, ConsentEvent};
pub use local_now::LocalNow;
pub use retrieve::{Action, Event, Outcome, Retrieve};
pub use session::{CgmSessionSetup, SessionAction, SessionEvent, SessionKnown};
pub use set_clock::{ClockAction, ClockEvent, ClockOutcome, SetClock};
