//! How the gateway, its devices and its routes are: conditions, what is published of them, discovery, the view of a whole
//! fleet, and logs. Pure but for `logs`, `machine` and `certificate`; never patient data, in a topic or in a line of log.

mod board;
pub mod certificate;
mod condition;
pub mod fleet;
pub mod home_assistant;
pub mod logs;
pub mod machine;
mod report;
mod snapshot;
mod topics;

pub use board::{Board, Notice, Notices};
pub use condition::{ConditionName, Conditions, Key, Raised, Thresholds, Transition};
pub use report::{Absence, CertificateReport, DeviceReport, DiskReport, GatewayReport, ListedCondition, RouteReport, offline};
pub use snapshot::{CertificateFacts, CollectFacts, DeviceFacts, RouteFacts, Snapshot};
pub use topics::{Subject, Topics};
