//! What devices broadcast to everybody: the data of a service or of a company inside an advertisement. Nobody vouches for it
//! unless it is encrypted.

use super::table::Decoder;
use super::{BthomeAdvertisement, MiBeacon, MiBodyScale, XossAdvertisement};

#[derive(Clone, Copy, Debug)]
pub struct Advertisement {
    pub source: Source,
    /// The name on the command line and in test vectors.
    pub name: &'static str,
    pub decoder: Decoder,
}

/// Where in an advertisement the octets stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Service data of a 16-bit UUID.
    ServiceData(u16),
    /// Manufacturer data of a company; its number is the first two octets.
    Manufacturer(u16),
}

/// Every advertisement bedrail can read.
pub const ADVERTISEMENTS: &[Advertisement] = &[
    Advertisement {
        source: Source::ServiceData(0xFCD2),
        name: "bthome_v2",
        decoder: Decoder::measurement::<BthomeAdvertisement>(),
    },
    Advertisement {
        source: Source::ServiceData(0x181B),
        name: "mi_body_scale_adv",
        decoder: Decoder::measurement::<MiBodyScale>(),
    },
    Advertisement { source: Source::ServiceData(0xFE95), name: "mi_beacon", decoder: Decoder::measurement::<MiBeacon>() },
    Advertisement {
        source: Source::Manufacturer(0xFF04),
        name: "xoss_adv",
        decoder: Decoder::measurement::<XossAdvertisement>(),
    },
];
