//! The world around the daemon, for the tests and the demo: a private D-Bus with a fake BlueZ and simulated devices on
//! it, a real mosquitto with throw-away certificates, an independent subscriber, a proxy that misbehaves, and the ledger
//! that compares what was made with what arrived. None of it is part of the release binary.
//!
//! A test file says `mod support;`, an example `#[path = "../tests/support/mod.rs"] mod support;`.

// Each test file and example compiles its own copy and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod beacons;
pub mod bluez;
pub mod broker;
pub mod bus;
pub mod chaos;
pub mod chart;
pub mod daemon;
pub mod devices;
pub mod faults;
pub mod ledger;
pub mod link;
pub mod pki;
pub mod probe;
pub mod process;
pub mod proxy;
pub mod radio;
pub mod receipts;
pub mod rig;
pub mod room;
pub mod scanner;
pub mod subscriber;
pub mod timedate;
pub mod unbatch;
pub mod vm;
