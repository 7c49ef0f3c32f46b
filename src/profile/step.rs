//! What is done on a connection besides listening: before values come, while they do, and before it is ended.

use std::time::Duration;

use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub what: What,
    /// It goes on without.
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Subscribe(Uuid),
    /// Its value is taken in like one that was told.
    Read(Uuid),
    Write(Write),
    /// The device has a clock there. It is set like that of any device: after its memory was read, and only if the config
    /// says so; not in the order of the steps.
    Clock(Uuid),
}

/// Octets of the list in `writable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub characteristic: Uuid,
    pub octets: Vec<u8>,
    pub expect: Option<Expect>,
}

/// An answer that must come before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// It is subscribed to before.
    pub characteristic: Uuid,
    pub prefix: Vec<u8>,
    pub within: Duration,
}

/// A question that is repeated while the device is connected: a `Read`, or a `Write` whose answer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    pub every: Duration,
    pub what: What,
}
