//! From log to destination: planning and retry are pure, one folder a kind of destination renders and sends.

mod decide;
mod held;
mod item;
pub mod mqtt;
mod plan;
mod retry;
mod route;
mod sides;
mod status;

pub use decide::{Bind, Carry, Decision, History, Known, Rules, Settled, decide};
pub use item::{Choice, DeviceLabel, Item, Lane};
pub use plan::{Order, Planner, Token};
pub use retry::Backoff;
pub use route::{Connector, Route, RouteCommand, RouteDevice, RouteInputs, RouteSettings};
pub use status::{RouteState, RouteStatus};
