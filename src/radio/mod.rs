//! BlueZ: adapter, scan and one session a device. It hands on octets with the time they arrived and knows no patients.
//!
//! Values travel through btleplug (`central`); links, adapters, the scan and the bonding agent are asked for and watched on
//! a D-Bus connection of our own (`bluez`, `watch`), because btleplug does not tell when a device, an adapter or bluetoothd
//! goes away. What to do next is decided without I/O in `session`; `device` and `supervisor` carry it out.

mod adverts;
mod agent;
mod bluez;
mod bond;
mod boot;
mod central;
mod device;
mod error;
mod event;
mod fetch;
mod flood;
mod listen;
mod liveness;
mod nearby;
mod overseer;
mod pairing;
mod place;
mod queue;
mod requests;
mod session;
mod settings;
mod steps;
mod supervisor;
mod true_time;
mod turns;
mod values;
mod visit;
mod watch;

pub use bond::{Bond, BondState, NoPasskey, Passkey};
pub use boot::BootClock;
pub use error::RadioError;
pub use event::{AdapterLoad, Advertised, Heard, InformationField, RadioEvent, RadioHealth};
pub use fetch::Durable;
pub use liveness::Rung;
pub use nearby::{MAX_NEARBY, Nearby};
pub use overseer::MANY_RULES;
pub use place::Bonds;
pub use requests::{RequestError, Requests, STANDS_BY, What};
pub use settings::{ClockDecoder, Consents, Deadlines, Pace, Priority, RadioDevice, RadioSettings, SetsClock, Sharing, Visits};
pub use supervisor::{EVENT_QUEUE, run};
pub use true_time::TrueTime;
