//! bedrail: an edge gateway for bedside devices. Readings flow one way, left to right, through a pure core; the store in
//! the middle is the only thing through which a reading passes from one half to the other. See ARCHITECTURE.md.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod api;
pub mod clean;
pub mod cli;
pub mod collect;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod gatt;
pub mod hex;
pub mod monitor;
pub mod net;
pub mod procedure;
pub mod profile;
pub mod radio;
pub mod reading;
pub mod store;
pub mod ward;
mod words;
