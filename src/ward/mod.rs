//! Who was where when: events folded in event-time order, and the binding of a reading to a patient. Pure: no I/O, no clock.
//! A reading is bound for its own time and when it is sent, never to "the last patient"; what is in doubt is held.

mod bind;
mod census;
mod config_sync;
mod event;
mod fold;
mod identity;
mod phi;
mod scan;
#[cfg(test)]
mod tests;
mod words;

pub use bind::{Affected, Binding, Guards, Rule};
pub use census::{CensusError, CensusFormat, CensusRow, MAX_CENSUS, difference, one_person, parse as parse_census, with};
pub use config_sync::{Standing, Wanted, sync};
pub use event::{Change, EventSource, HoldReason, Movement, WardEvent};
pub use fold::{Evidence, Interval, Spot, Ward};
pub use identity::{Identity, IdentityError, SecondIdentifier};
pub use phi::Phi;
pub use scan::{Code, CodeFormats, CodeReader, MAX_CODE, Scanned, Station, Step};
