//! The MQTT route: `render`, `topic` and `sas` are pure, `connection` is the one folder that knows the client library,
//! and `link` is all the rest of bedrail sees of it.

pub mod batch;
pub mod connection;
mod json;
mod link;
mod receipt;
pub mod render;
mod sas;
mod send;
mod topic;

pub use connection::{Inbox, InboxEvent, MqttLink, Received, Subscription, connect, subscribe};
pub use link::{AckReason, Link, LinkEvent, LinkSettings, Login, LostReason, Message, NotTaken, RefusalCode, Will};
pub use receipt::{Deaf, Ears, Heard};
pub use render::{Rendered, render};
pub use sas::{NotBase64, Sas};
pub use send::{BatchOptions, MqttDestination, MqttOptions, classify, ended_by};
pub use topic::{TopicError, TopicTemplate};
