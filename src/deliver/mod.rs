//! From log to destination: planning and retry are pure, one folder a kind of destination renders and sends.

mod announce;
mod budget;
mod convert;
mod correct;
mod decide;
mod desk;
mod destination;
mod fault;
pub mod fhir;
mod held;
mod item;
mod json;
pub mod mqtt;
mod placed;
mod plan;
mod rate;
mod receipts;
mod retry;
mod route;
mod schedule;
mod sides;
mod spot;
mod stand;
mod status;

pub use announce::Announcements;
pub use convert::{convert, converts};
pub use correct::{AUTO_AGE_MS, AUTO_RECORDS, HORIZON_MS, Verdict as Correction, judge, stays};
pub use decide::{Carry, Decision, Known, Rules, Settled, decide, unless_forgotten};
pub use desk::{Desk, DeskError, DeskInputs, DeskRequest, DeskRoute, DeskSettings, LetterPlace, ScanSettings, Target};
pub use destination::{Capabilities, Destination, Happened, NotSent, Sent, Verdict};
pub use fault::{Fault, FaultClass};
pub use held::Source;
pub use item::{Choice, DeviceLabel, Item, Lane};
pub use placed::Placements;
pub use plan::{Planner, Token};
pub use retry::Backoff;
pub use route::{
    LetterCommand, LettersDone, MAX_RETRIED, Preview, Route, RouteCommand, RouteDevice, RouteInputs, RouteSettings,
    StreamPreference,
};
pub use spot::{Sample, Share, SpotRules, usual_agreement};
pub use stand::Why;
pub use status::{RouteState, RouteStatus};
