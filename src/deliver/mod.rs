//! From log to destination: planning and retry are pure, one folder a kind of destination renders and sends.

mod item;
pub mod mqtt;
mod plan;

pub use item::{DeviceLabel, Item, Lane};
pub use plan::{Order, Planner, Token};
