//! BlueZ: adapter, scan and one session a device. It hands on octets with the time they arrived and knows no patients.

mod event;

pub use event::{Heard, InformationField, RadioEvent};
