//! From log to destination: planning and retry are pure, one folder a kind of destination renders and sends.

mod item;
pub mod mqtt;

pub use item::{DeviceLabel, Item, Lane};
