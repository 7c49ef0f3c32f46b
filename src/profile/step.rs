//! What is done on a connection before values come.

use std::time::Duration;

use uuid::Uuid;

use super::Source;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Subscribe { characteristic: Uuid },
    Read { characteristic: Uuid, optional: bool },
    Write { characteristic: Uuid, octets: Octets, expect: Option<Expect>, optional: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Octets {
    Fixed(Vec<u8>),
    Now(Clock),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Seven octets, as Date Time (2A08).
    DateTime,
    /// Ten octets, as Current Time (2A2B).
    CurrentTime,
}

/// An answer that must come before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub source: Source,
    pub prefix: Vec<u8>,
    pub within: Duration,
}
