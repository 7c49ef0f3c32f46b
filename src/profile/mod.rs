//! Devices without a standard service, described in a file: which octets mean what, checked before they are believed.
//!
//! A profile is data. It has no expressions and no loops, every offset is checked when it is loaded, and it is refused
//! unless its own tests pass. What it says of a value is the same [`crate::gatt::Observed`] that a decoder gives.

mod check;
mod draft;
mod error;
mod frame;
mod library;
mod packets;
mod proof;
mod step;
mod text;
mod writable;

use std::collections::BTreeSet;

use uuid::Uuid;

pub use draft::Draft;
pub use error::{ProfileError, ProfileErrors};
pub use frame::{Frame, Source};
pub use library::{Known, Library, SHIPPED};
pub use packets::{Assembled, Assembly, MAX_FRAME};
pub use proof::{Shown, Trial, Verdict};
pub use step::{Expect, Poll, Step, What, Write};
pub use writable::{WRITABLE, Writable, may_write};

use crate::gatt::{self, Observed, Read};
use crate::reading::Metric;
use packets::Packets;

/// A checked profile: its tests passed.
#[derive(Clone, Debug)]
pub struct Profile {
    pub id: String,
    pub version: u32,
    /// For people.
    pub name: String,
    pub matches: Vec<Match>,
    pub link: Link,
    /// In this order, once a connection.
    pub init: Vec<Step>,
    /// Each again and again, while it is connected.
    pub polls: Vec<Poll>,
    /// In this order, before bedrail ends a connection.
    pub end: Vec<Step>,
    pub frames: Vec<Frame>,
    /// Sources of which a packet is not simply a frame.
    pub packets: Vec<(Source, Packets)>,
    pub trials: Vec<Trial>,
}

/// By what a device of the kind is recognised while scanning; any of them is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    NamePrefix(String),
    Service(Uuid),
    ServiceData(Uuid),
    Manufacturer(u16),
    Model(String),
}

/// What a device says of itself to everybody in range.
#[derive(Clone, Copy, Debug)]
pub struct Advertised<'a> {
    pub name: Option<&'a str>,
    pub services: &'a [Uuid],
    pub service_data: &'a [Uuid],
    pub manufacturers: &'a [u16],
}

impl Match {
    fn holds(&self, advertised: &Advertised<'_>) -> bool {
        match self {
            Match::NamePrefix(prefix) => advertised.name.is_some_and(|name| name.starts_with(prefix)),
            Match::Service(uuid) => advertised.services.contains(uuid),
            Match::ServiceData(uuid) => advertised.service_data.contains(uuid),
            Match::Manufacturer(company) => advertised.manufacturers.contains(company),
            // It is read from a device that is connected.
            Match::Model(_) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub mode: Mode,
    /// The device answers nobody it is not bonded with.
    pub needs_bond: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is connected to.
    Gatt,
    /// It says everything in what it advertises.
    Advert,
}

impl Profile {
    /// Reads and checks a file; every error of it is told, not only the first.
    pub fn read(text: &str, file: &str) -> Result<Self, ProfileErrors> {
        check::profile(text, file)
    }

    /// What a frame says; `None` for a source the profile knows nothing of.
    pub fn observe(&self, source: &Source, octets: &[u8]) -> Option<Read<Vec<Observed>>> {
        frame::observe(&self.frames, source, octets)
    }

    /// Whether a device that advertises this may be one of the kind.
    pub fn matches(&self, advertised: &Advertised<'_>) -> bool {
        self.matches.iter().any(|one| one.holds(advertised))
    }

    /// What it gives, in the order of its frames.
    pub fn metrics(&self) -> impl Iterator<Item = Metric> {
        let fields = self.frames.iter().flat_map(|frame| &frame.fields);
        fields.filter_map(|field| if let frame::Code::Value(value) = &field.code { Some(value.metric) } else { None })
    }

    /// Of which advertised data it has frames.
    pub fn adverts(&self) -> Vec<gatt::Source> {
        let advertised = |frame: &Frame| match frame.source {
            Source::Characteristic(_) => None,
            Source::Manufacturer(company) => Some(gatt::Source::Manufacturer(company)),
            Source::ServiceData(uuid) => Some(gatt::Source::ServiceData(uuid)),
        };
        let all: BTreeSet<gatt::Source> = self.frames.iter().filter_map(advertised).collect();
        all.into_iter().collect()
    }

    /// Characteristics to subscribe to.
    pub fn subscriptions(&self) -> impl Iterator<Item = Uuid> {
        self.init
            .iter()
            .filter_map(|step| if let What::Subscribe(characteristic) = step.what { Some(characteristic) } else { None })
    }
}

#[cfg(test)]
mod tests;
