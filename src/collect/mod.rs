//! The collect half behind the radio: decode, class, identity, group commit, windows, clock anchors. It knows no patients.
//!
//! The rule it keeps: whatever leaves the gateway was committed first, and what a device sends only once is committed
//! before anything else is done.

mod adverts;
mod audit;
mod bonds;
mod clock;
mod clocks;
mod device_clock;
mod intake;
mod joining;
mod numbers;
mod overhear;
mod retain;
mod status;
mod trouble;
mod windows;
mod writer;

pub use adverts::{AdvertFormat, Reads};
pub use audit::{Action, Audit, NotAudited, ToAudit};
pub use bonds::kept as kept_bonds;
pub use clock::{ClockReport, watch_clock};
pub use device_clock::{Dated, DeviceClock};
pub use intake::{Taken, observe, take, take_records};
pub use joining::{Joined, Joining, Whole};
pub use overhear::{Batch, Busy, MOST_S, Overheard, Overhearing};
pub use retain::{Pass, Retain, RetainSettings};
pub use status::{
    AdapterStatus, CollectStatus, DeviceState, DeviceStatus, DiskState, DiskStatus, NameplateState, Retrieved, StoreStatus,
};
pub use trouble::{Missed, RING, Reaction, decide};
pub use windows::Windows;
pub use writer::{CollectError, CollectSettings, CollectedDevice, Collector};
