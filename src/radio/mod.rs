//! BlueZ: adapter, scan and one session a device. It hands on octets with the time they arrived and knows no patients.

mod boot;
mod event;

pub use boot::BootClock;
pub use event::{Heard, InformationField, RadioEvent};
