//! The MQTT route: `render`, `status` and `topic` are pure, `connection` is the one file that knows the client library, and
//! `link` is all the rest of bedrail sees of it.

pub mod batch;
pub mod connection;
mod json;
mod link;
mod receipt;
pub mod render;
mod send;
pub mod status;
mod topic;

use connection::packet_len;
pub use connection::{MqttLink, connect};
pub use link::{AckReason, Link, LinkEvent, LinkSettings, Login, LostReason, Message, NotTaken, RefusalCode, Will};
pub use receipt::{Deaf, Ears, Heard};
pub use render::{Rendered, render};
pub use send::{BatchOptions, MqttDestination, MqttOptions, classify, ended_by};
pub use topic::{TopicError, TopicTemplate};
