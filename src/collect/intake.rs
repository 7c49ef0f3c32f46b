//! From octets to drafts of records: decode, class, identity. Pure; what is refused is named and counted by the caller.

use ring::digest;

use crate::clean::{DiscardReason, Outcome, classify};
use crate::gatt::{self, DecodeError, Measured, Observed};
use crate::profile::{Profile, Source};
use crate::radio::Heard;
use crate::reading::{Body, BootId, DeviceId, Event, Metric, Reading, SiteKey, Stamp, StreamKey};
use crate::store::{Draft, Identity};

/// What one characteristic value comes to.
#[derive(Debug, Default)]
pub struct Taken {
    pub drafts: Vec<Draft>,
    /// The device sends it only once: it is committed before anything else is done.
    pub at_once: bool,
    pub discarded: Vec<DiscardReason>,
    /// Names of what the decoder noticed and let pass.
    pub warnings: Vec<&'static str>,
}

/// Turns a characteristic value into drafts; `None` for a characteristic that carries no measurement. What a device's profile
/// reads is read by it alone.
pub fn take(key: &SiteKey, boot: BootId, profile: Option<&Profile>, heard: &Heard) -> Option<Result<Taken, DecodeError>> {
    let source = Source::Characteristic(heard.characteristic);
    let by_profile = profile.and_then(|profile| profile.observe(&source, &heard.octets));
    let (records, warnings) = match by_profile.or_else(|| gatt::observe(heard.characteristic, &heard.octets))? {
        Ok(decoded) => decoded,
        Err(error) => return Some(Err(error)),
    };
    let mut taken =
        Taken { at_once: heard.indicated, warnings: warnings.iter().map(|warning| warning.name()).collect(), ..Taken::default() };
    for observed in &records {
        take_record(key, boot, heard, observed, &mut taken);
    }
    Some(Ok(taken))
}

fn take_record(key: &SiteKey, boot: BootId, heard: &Heard, observed: &Observed, taken: &mut Taken) {
    let stamp = Stamp {
        boot,
        arrived: heard.arrived,
        device_time: observed.device_time,
        device_clock: heard.device_clock,
        stored: observed.stored,
    };
    taken.at_once |= observed.stored;
    let mut bodies: Vec<(StreamKey, Body)> = Vec::new();
    for measured in &observed.values {
        let stream = stream_of(heard.device, observed, measured);
        match classify(measured) {
            Outcome::Discard(reason) => taken.discarded.push(reason),
            Outcome::NoValue(why) => bodies.push((stream, Body::Event(Event::NoValue(why)))),
            Outcome::Reading { value, class, flags } => {
                let (sequence, security) = (observed.sequence, heard.security);
                bodies.push((stream, Body::Reading(Reading { value, class, flags, sequence, part: 0, parts: 0, security })));
            }
        }
    }
    let parts = u8::try_from(bodies.len()).unwrap_or(u8::MAX);
    for (index, (stream, mut body)) in bodies.into_iter().enumerate() {
        if let Body::Reading(reading) = &mut body {
            (reading.part, reading.parts) = (u8::try_from(index).unwrap_or(u8::MAX), parts);
        }
        let identity = identity(key, heard, observed, stream.metric, index);
        taken.drafts.push(Draft { identity, device: heard.device, stream: Some(stream), stamp, body });
    }
}

fn stream_of(device: DeviceId, observed: &Observed, measured: &Measured) -> StreamKey {
    StreamKey { device, user: observed.user, metric: measured.metric, site: measured.site, modality: measured.modality }
}

/// A device names a value by its sequence number or by a full date. A date it does not know names nothing: two equal
/// measurements of a cuff without a clock are two.
fn identity(key: &SiteKey, heard: &Heard, observed: &Observed, metric: Metric, index: usize) -> Identity {
    let dated = observed.device_time.is_some_and(|time| time.since_ms(time).is_some());
    if !dated && observed.sequence.is_none() {
        return Identity::Arrival;
    }
    let id = key.sent_id(
        heard.device,
        observed.user,
        heard.characteristic.as_u128(),
        observed.sequence,
        observed.base_time.as_deref(),
        metric,
        u8::try_from(index).unwrap_or(u8::MAX),
    );
    let octets = observed.octets.as_ref().unwrap_or(&heard.octets);
    let digest = digest::digest(&digest::SHA256, octets);
    let digest = digest.as_ref()[..8].try_into().expect("SHA-256 is longer than eight octets");
    Identity::Sent { id, digest, conflict: key.conflict_id(id, octets) }
}
