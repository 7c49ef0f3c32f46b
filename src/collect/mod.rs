//! The collect half behind the radio: decode, class, identity, group commit, windows, clock anchors. It knows no patients.
//!
//! The rule it keeps: whatever leaves the gateway was committed first, and what a device sends only once is committed
//! before anything else is done.

mod clock;
mod intake;
mod overhear;
mod retain;
mod status;
mod trouble;
mod windows;
mod writer;

pub use clock::{ClockReport, watch_clock};
pub use intake::{Taken, take};
pub use overhear::{Batch, Busy, MOST_S, Overheard, Overhearing};
pub use retain::{Pass, Retain, RetainSettings};
pub use status::{AdapterStatus, CollectStatus, DeviceState, DeviceStatus, DiskState, DiskStatus, Retrieved, StoreStatus};
pub use trouble::{Missed, RING, Reaction, decide};
pub use windows::Windows;
pub use writer::{CollectError, CollectSettings, CollectedDevice, Collector};
