//! The FHIR route: Observations a chart keeps. `chart`, `render`, `beside` and `device` are pure.

mod beside;
mod chart;
mod device;
mod render;
mod resource;

pub use chart::{Category, ChartMap, ChartRow, Charted, chart_row, label};
pub use device::{BLUETOOTH, address, clock, gateway, sensor};
pub use render::{DeviceSaid, NotCharted, References, Rendered, Revision, Shape, render};
pub use resource::{Device, Observation};
