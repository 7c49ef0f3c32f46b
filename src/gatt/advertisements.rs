//! What devices broadcast to everybody: the data of a service or of a company inside an advertisement. Nobody vouches for it
//! unless it is encrypted.

use uuid::Uuid;

use super::sig_uuid;
use super::table::Decoder;
use super::{BthomeAdvertisement, MiBeacon, MiBodyScale, XossAdvertisement};

#[derive(Clone, Copy, Debug)]
pub struct Advertisement {
    pub source: Source,
    /// The name on the command line and in test vectors.
    pub name: &'static str,
    pub decoder: Decoder,
    /// Whether the octets hold a number of their own that is no counter: the same octets are then the same value.
    pub is_numbered: fn(&[u8]) -> bool,
}

const fn no_number(_: &[u8]) -> bool {
    false
}

/// Random, so that it is nobody's UUID.
const COMPANIES: u128 = 0x6D9C_1B52_8E0F_4A7B_BED2_A11C_57E0_0000;

impl Source {
    /// One number for it among characteristics: those of services are given out from the same list.
    pub const fn uuid(self) -> Uuid {
        match self {
            Source::ServiceData(uuid) => uuid,
            Source::Manufacturer(company) => Uuid::from_u128(COMPANIES | company as u128),
        }
    }
}

/// Where in an advertisement the octets stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    ServiceData(Uuid),
    /// Manufacturer data of a company; its number is the first two octets.
    Manufacturer(u16),
}

/// Every advertisement bedrail can read.
pub const ADVERTISEMENTS: &[Advertisement] = &[
    Advertisement {
        source: Source::ServiceData(sig_uuid(0xFCD2)),
        name: "bthome_v2",
        decoder: Decoder::measurement::<BthomeAdvertisement>(),
        is_numbered: BthomeAdvertisement::has_packet_id,
    },
    Advertisement {
        source: Source::ServiceData(sig_uuid(0x181B)),
        name: "mi_body_scale_adv",
        decoder: Decoder::measurement::<MiBodyScale>(),
        is_numbered: no_number,
    },
    Advertisement {
        source: Source::ServiceData(sig_uuid(0xFE95)),
        name: "mi_beacon",
        decoder: Decoder::measurement::<MiBeacon>(),
        is_numbered: no_number,
    },
    Advertisement {
        source: Source::Manufacturer(0xFF04),
        name: "xoss_adv",
        decoder: Decoder::measurement::<XossAdvertisement>(),
        is_numbered: no_number,
    },
];
