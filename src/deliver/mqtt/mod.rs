//! The MQTT route: `render`, `status` and `topic` are pure, `connection` is the one file that knows the client library.

pub mod connection;
pub mod render;
pub mod status;
mod topic;

pub use render::{Rendered, render};
pub use topic::{TopicError, TopicTemplate};
