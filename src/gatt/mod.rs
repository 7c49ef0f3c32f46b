//! One file a service: octets of a characteristic → what the device said. Pure; no I/O, no panic on any input.

mod observed;

pub use observed::{Measured, Number, Numbers, Observed, Status};
