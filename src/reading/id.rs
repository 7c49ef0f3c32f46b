//! Identity is minted once, when a record is first stored, under a key the whole site shares: two gateways that hear one
//! cuff, or a rebuilt store that re-reads a meter, mint the same id.

use std::fmt;

use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

use super::{BootId, DeviceId, Metric, Seq, StreamKey, SubjectKey, Timestamp, UserIndex};

/// 128 bits of HMAC-SHA-256, written as 32 hex digits.
macro_rules! hashed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let value = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
                value.map(|v| Self(v.to_be_bytes())).ok_or(ParseIdError)
            }
        }
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct ParseIdError;

hashed_id!(
    /// The identity of a record, the same in every version of it.
    RecordId
);
hashed_id!(
    /// Where a record was placed: an opaque hash of the subject (or none) and how often it came to that subject before.
    Placement
);
hashed_id!(
    /// What a chart knows a record by: FHIR identifier, HL7 filler number.
    ChartId
);

impl ChartId {
    /// Both parts are keyed hashes already, so that this one needs no key: whoever has them can tell the chart's name.
    pub fn of(record: RecordId, placement: Placement) -> Self {
        Self::hashed(&[b"bedrail chart".as_slice(), &record.0, &placement.0])
    }

    /// Of what stands in the chart beside this, by a name of its own.
    pub fn beside(self, name: &str) -> Self {
        Self::hashed(&[b"bedrail beside".as_slice(), &self.0, name.as_bytes()])
    }

    /// Of the comparison of a device's clock with the gateway's: `octets` say which.
    pub fn of_clock(octets: &[u8]) -> Self {
        Self::hashed(&[b"bedrail clock".as_slice(), octets])
    }

    fn hashed(parts: &[&[u8]]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&digest::digest(&digest::SHA256, &parts.concat()).as_ref()[..16]);
        Self(id)
    }

    /// The first 100 bits in base 32 (Crockford's digits), for formats that allow twenty characters.
    pub fn short(&self) -> String {
        const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let bits = u128::from_be_bytes(self.0);
        (0..20).map(|i| char::from(DIGITS[(bits >> (123 - 5 * i)) as usize & 31])).collect()
    }
}

/// What a delivery does at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Put,
    Retract,
}

impl Op {
    pub const fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Retract => "retract",
        }
    }
}

/// What makes a message recognisable as the one sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    pub record: RecordId,
    pub placement: Placement,
    pub version: u32,
    pub op: Op,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.record, self.placement, self.version, self.op.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a delivery id is RECORD.PLACEMENT.VERSION.OP, as in a payload's fields")]
pub struct ParseDeliveryError;

impl std::str::FromStr for DeliveryId {
    type Err = ParseDeliveryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(ParseDeliveryError);
        let (record, placement, version, op) = (next()?, next()?, next()?, next()?);
        let op = [Op::Put, Op::Retract].into_iter().find(|known| known.name() == op);
        let id = Self {
            record: record.parse().map_err(|_| ParseDeliveryError)?,
            placement: placement.parse().map_err(|_| ParseDeliveryError)?,
            version: version.parse().map_err(|_| ParseDeliveryError)?,
            op: op.ok_or(ParseDeliveryError)?,
        };
        parts.next().is_none().then_some(id).ok_or(ParseDeliveryError)
    }
}

/// The key all gateways of a site share. It names things; it opens nothing.
#[derive(Clone)]
pub struct SiteKey(hmac::Key);

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<site key>")
    }
}

impl SiteKey {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Id of a value the device itself identifies: by its sequence number and base time, exactly as sent. The metric tells
    /// apart the readings of one characteristic value, `part` those of one metric.
    #[allow(clippy::too_many_arguments)]
    pub fn sent_id(
        &self,
        device: DeviceId,
        user: Option<UserIndex>,
        characteristic: u128,
        sequence: Option<u32>,
        base_time: Option<&[u8]>,
        metric: Metric,
        part: u8,
    ) -> RecordId {
        RecordId(
            self.hash("sent")
                .field(&device.octets())
                .optional(user.as_ref().map(std::slice::from_ref))
                .field(&characteristic.to_be_bytes())
                .optional(sequence.map(u32::to_be_bytes).as_ref().map(|s| &s[..]))
                .optional(base_time)
                .field(&metric.row().mdc.to_be_bytes())
                .field(&[part])
                .done(),
        )
    }

    /// Id of a value that re-uses the identity of another with other octets: both are kept.
    pub fn conflict_id(&self, first: RecordId, octets: &[u8]) -> RecordId {
        RecordId(self.hash("conflict").field(&first.0).field(octets).done())
    }

    /// Id of a value its device does not identify, or of an event or gap of the gateway: by its place in this log. `log`
    /// is drawn when a store is made, so that a store rebuilt within one boot does not count over the same numbers.
    pub fn arrival_id(&self, gateway: &str, device: DeviceId, log: [u8; 16], boot: BootId, seq: Seq) -> RecordId {
        RecordId(
            self.hash("arrival")
                .field(gateway.as_bytes())
                .field(&device.octets())
                .field(&log)
                .field(&boot.0)
                .field(&seq.0.to_be_bytes())
                .done(),
        )
    }

    pub fn window_id(&self, gateway: &str, stream: &StreamKey, length_s: u32, start: Timestamp) -> RecordId {
        RecordId(
            self.hash("window")
                .field(gateway.as_bytes())
                .field(&stream.device.octets())
                .optional(stream.user.as_ref().map(std::slice::from_ref))
                .field(&stream.metric.mdc_at(stream.site).to_be_bytes())
                .field(stream.modality.name().as_bytes())
                .field(&length_s.to_be_bytes())
                .field(&start.0.to_be_bytes())
                .done(),
        )
    }

    /// Id of a later side of a window that an assignment edge cut; the side at the window's start keeps the window's id.
    pub fn side_id(&self, window: RecordId, side_start: Timestamp) -> RecordId {
        RecordId(self.hash("side").field(&window.0).field(&side_start.0.to_be_bytes()).done())
    }

    /// The key of the patient of a visit: the same on every gateway of the site, and nobody can tell the visit from it. All
    /// letters, so that it never looks like a number of one's own.
    pub fn subject_of_visit(&self, visit: &str) -> SubjectKey {
        let hash = self.hash("visit").field(visit.as_bytes()).done();
        let letters = hash[..12].iter().flat_map(|octet| [octet >> 4, octet & 15]).map(|half| char::from(b'a' + half));
        let key: String = "v-".chars().chain(letters).collect();
        key.parse().expect("a letter first and no digit")
    }

    /// `times` counts how often the record already came to that subject, from 0.
    pub fn placement(&self, subject: Option<&SubjectKey>, times: u32) -> Placement {
        Placement(self.hash("placement").optional(subject.map(|s| s.as_str().as_bytes())).field(&times.to_be_bytes()).done())
    }

    /// Links each row of the audit table to the one before it.
    pub fn audit_link(&self, previous: &[u8; 32], row: &[u8]) -> [u8; 32] {
        let mut hash = self.hash("audit");
        hash = hash.field(previous).field(row);
        let mut link = [0; 32];
        link.copy_from_slice(hash.0.sign().as_ref());
        link
    }

    fn hash(&self, label: &str) -> Hash {
        Hash(hmac::Context::with_key(&self.0)).field(label.as_bytes())
    }
}

/// Fields are framed by their length, so that no two field lists hash alike.
struct Hash(hmac::Context);

impl Hash {
    fn field(mut self, octets: &[u8]) -> Self {
        self.0.update(&(octets.len() as u64).to_be_bytes());
        self.0.update(octets);
        self
    }

    fn optional(self, octets: Option<&[u8]>) -> Self {
        match octets {
            Some(octets) => self.field(&[1]).field(octets),
            None => self.field(&[0]),
        }
    }

    fn done(self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0.sign().as_ref()[..16]);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
    const BP: u128 = 0x2A35;

    #[test]
    fn two_gateways_with_one_site_key_mint_one_id() {
        let mint = |key: &SiteKey| key.sent_id(CUFF, Some(1), BP, Some(7), Some(&[1, 2]), Metric::BloodPressure, 0);
        assert_eq!(mint(&SiteKey::new(&[7; 32])), mint(&SiteKey::new(&[7; 32])));
        assert_ne!(mint(&SiteKey::new(&[7; 32])), mint(&SiteKey::new(&[8; 32])));
    }

    #[test]
    fn every_part_of_an_identity_counts() {
        let key = SiteKey::new(&[7; 32]);
        let ids = [
            key.sent_id(CUFF, Some(1), BP, Some(7), Some(&[1, 2]), Metric::BloodPressure, 0),
            key.sent_id(CUFF, Some(2), BP, Some(7), Some(&[1, 2]), Metric::BloodPressure, 0),
            key.sent_id(CUFF, None, BP, Some(7), Some(&[1, 2]), Metric::BloodPressure, 0),
            key.sent_id(CUFF, Some(1), BP, Some(8), Some(&[1, 2]), Metric::BloodPressure, 0),
            key.sent_id(CUFF, Some(1), BP, None, Some(&[1, 2]), Metric::BloodPressure, 0),
            key.sent_id(CUFF, Some(1), BP, Some(7), Some(&[1, 3]), Metric::BloodPressure, 0),
            key.sent_id(CUFF, Some(1), BP, Some(7), None, Metric::BloodPressure, 0),
            key.sent_id(CUFF, Some(1), BP, Some(7), Some(&[1, 2]), Metric::PulseRateCuff, 0),
            key.sent_id(CUFF, Some(1), BP, Some(7), Some(&[1, 2]), Metric::BloodPressure, 1),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn a_placement_depends_on_the_subject_and_on_how_often() {
        let key = SiteKey::new(&[7; 32]);
        let subject: SubjectKey = "p-017".parse().expect("a key");
        let all = [key.placement(None, 0), key.placement(Some(&subject), 0), key.placement(Some(&subject), 1)];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn a_delivery_id_prints_and_parses() {
        let placement = SiteKey::new(&[7; 32]).placement(None, 0);
        for (version, op) in [(1, Op::Put), (u32::MAX, Op::Retract)] {
            let id = DeliveryId { record: RecordId([5; 16]), placement, version, op };
            assert_eq!(id.to_string().parse(), Ok(id));
            for wrong in [format!("{id}."), id.to_string().to_uppercase(), id.to_string().replace('.', ":"), String::new()] {
                assert_eq!(wrong.parse::<DeliveryId>(), Err(ParseDeliveryError), "{wrong}");
            }
        }
    }

    #[test]
    fn an_id_prints_and_parses_and_a_chart_id_has_a_short_form() {
        let key = SiteKey::new(&[7; 32]);
        let id = key.placement(None, 0);
        assert_eq!(id.to_string().parse(), Ok(id));
        let chart = ChartId::of(RecordId([1; 16]), id);
        assert_ne!(chart, ChartId::of(RecordId([1; 16]), key.placement(None, 1)));
        assert_eq!(chart.short().len(), 20);
        assert_eq!(ChartId([0xFF; 16]).short(), "Z".repeat(20));
        assert_eq!("xyz".parse::<RecordId>(), Err(ParseIdError));
        assert_eq!(format!("+{}", "0".repeat(31)).parse::<RecordId>(), Err(ParseIdError), "a sign is no digit");
    }
}
