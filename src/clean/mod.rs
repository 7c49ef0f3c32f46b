//! Classes, window arithmetic and the choice of one stream per patient: pure functions over readings, without patients or
//! clocks. What a value is was decided by its device and the table of metrics; nothing here repairs, clamps or averages one.

mod choice;
mod classify;
mod window;
mod windower;

pub use choice::{Candidate, Choice, MIN_COVERAGE_PERMILLE, Preference, choose};
pub use classify::{DiscardReason, Outcome, classify};
pub use window::{Point, PointKind, Slot, cut, make_window};
pub use windower::{CLOSE_AFTER_MS, Closed, DEFAULT_LENGTHS_S, Late, MAX_POINTS, Windower};
