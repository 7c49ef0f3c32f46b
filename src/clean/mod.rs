//! Classes, window arithmetic and the choice of one stream per patient: pure functions over readings, without patients or
//! clocks. What a value is was decided by its device and the table of metrics; nothing here repairs, clamps or averages one.

mod classify;

pub use classify::{DiscardReason, Outcome, classify};
