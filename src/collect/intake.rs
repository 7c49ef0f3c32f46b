//! From octets to drafts of records: decode, class, identity. Pure; what is refused is named and counted by the caller.

use ring::digest;
use uuid::Uuid;

use crate::clean::{DiscardReason, Outcome, classify};
use crate::gatt::{self, DecodeError, Measured, Observed, Read};
use crate::profile::{Profile, Source};
use crate::radio::Heard;
use crate::reading::{Body, BootId, DeviceId, Event, Metric, Reading, SiteKey, Stamp, StreamKey};
use crate::store::{Draft, Identity};

/// Told with a number only where it comes out of the memory: by its time it is the same value.
const NAMED_BY_TIME: [Uuid; 2] = [gatt::sig_uuid(0x2A35), gatt::sig_uuid(0x2B34)];
/// A value told as it is measured comes within seconds, and a device counts in minutes.
const KEPT_MS: i64 = 120_000;

/// What the records of one value come to.
#[derive(Debug, Default)]
pub struct Taken {
    pub drafts: Vec<Draft>,
    /// The device sends it only once: it is committed before anything else is done.
    pub at_once: bool,
    pub discarded: Vec<DiscardReason>,
}

/// What a characteristic value says; `None` for a characteristic that carries no measurement. What a device's profile reads
/// is read by it alone.
pub fn observe(profile: Option<&Profile>, heard: &Heard) -> Option<Read<Vec<Observed>>> {
    let source = Source::Characteristic(heard.characteristic);
    let by_profile = profile.and_then(|profile| profile.observe(&source, &heard.octets));
    by_profile.or_else(|| gatt::observe(heard.characteristic, &heard.octets))
}

/// A value that stands by itself, from octets to drafts; `None` for a characteristic that carries no measurement.
pub fn take(key: &SiteKey, boot: BootId, profile: Option<&Profile>, heard: &Heard) -> Option<Result<Taken, DecodeError>> {
    let read = observe(profile, heard)?;
    Some(read.map(|(records, _)| take_records(key, boot, heard, &records)))
}

/// Turns what a value says into drafts.
pub fn take_records(key: &SiteKey, boot: BootId, heard: &Heard, records: &[Observed]) -> Taken {
    let mut taken = Taken { at_once: heard.indicated, ..Taken::default() };
    for observed in records {
        take_record(key, boot, heard, observed, &mut taken);
    }
    taken
}

fn take_record(key: &SiteKey, boot: BootId, heard: &Heard, observed: &Observed, taken: &mut Taken) {
    let stamp = Stamp {
        boot,
        arrived: heard.arrived,
        device_time: observed.device_time,
        device_clock: heard.device_clock,
        stored: observed.stored || waited(heard, observed),
    };
    taken.at_once |= stamp.stored;
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
        let nameplate = heard.nameplate.clone();
        taken.drafts.push(Draft { identity, device: heard.device, stream: Some(stream), stamp, body, nameplate });
    }
}

/// The device's own clock says that it had kept the value for a while: it is backlog, whatever characteristic brings it.
fn waited(heard: &Heard, observed: &Observed) -> bool {
    let age = || {
        let (clock, read_at) = heard.device_clock?;
        let since = i64::try_from(heard.arrived.0).ok()? - i64::try_from(read_at.0).ok()?;
        Some(clock.since_ms(observed.device_time?)? + since)
    };
    age().is_some_and(|age| age > KEPT_MS)
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
    let named_by_time = dated && NAMED_BY_TIME.contains(&heard.characteristic);
    let id = key.sent_id(
        heard.device,
        observed.user,
        heard.characteristic.as_u128(),
        observed.sequence.filter(|_| !named_by_time),
        observed.base_time.as_deref(),
        metric,
        u8::try_from(index).unwrap_or(u8::MAX),
    );
    let octets = observed.octets.as_ref().unwrap_or(&heard.octets);
    let digest = digest::digest(&digest::SHA256, octets);
    let digest = digest.as_ref()[..8].try_into().expect("SHA-256 is longer than eight octets");
    Identity::Sent { id, digest, conflict: key.conflict_id(id, octets) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::sig_uuid;
    use crate::reading::{BootMillis, Class, DeviceTime, SecurityLevel};

    const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0x11, 0x22, 0x33]);

    fn heard(uuid16: u16, octets: &[u8]) -> Heard {
        Heard {
            device: DEVICE,
            characteristic: sig_uuid(uuid16),
            octets: octets.to_vec(),
            arrived: BootMillis(1_000),
            indicated: false,
            device_clock: None,
            security: SecurityLevel::Encrypted,
            nameplate: None,
        }
    }

    fn taken(uuid16: u16, octets: &[u8], indicated: bool) -> Taken {
        let heard = Heard { indicated, ..heard(uuid16, octets) };
        taken_of(&heard)
    }

    fn taken_of(heard: &Heard) -> Taken {
        let taken = take(&SiteKey::new(&[7; 32]), BootId([1; 16]), None, heard);
        taken.expect("a measurement").expect("readable")
    }

    fn metrics(taken: &Taken) -> Vec<Metric> {
        taken.drafts.iter().filter_map(|draft| draft.stream).map(|stream| stream.metric).collect()
    }

    fn parts(taken: &Taken) -> Vec<(u8, u8)> {
        let part = |draft: &Draft| match &draft.body {
            Body::Reading(reading) => Some((reading.part, reading.parts)),
            _ => None,
        };
        taken.drafts.iter().filter_map(part).collect()
    }

    #[test]
    fn one_weighing_is_three_readings_that_belong_together() {
        let octets = [0x0E, 0xB0, 0x36, 0xE7, 0x07, 0x0C, 0x19, 0x0E, 0x1E, 0x2D, 0x05, 0xF5, 0x00, 0xD6, 0x06];
        let taken = taken(0x2A9D, &octets, true);
        assert_eq!(metrics(&taken), [Metric::BodyWeight, Metric::BodyMassIndex, Metric::BodyHeight]);
        assert_eq!(parts(&taken), [(0, 3), (1, 3), (2, 3)]);
        assert!(taken.at_once, "the scale counts an indication as delivered");
        assert!(taken.drafts.iter().all(|draft| draft.stream.is_some_and(|stream| stream.user == Some(5))));
    }

    #[test]
    fn control_solution_is_counted_and_no_reading() {
        let record = |sample| [0x02, 1, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x6E, 0xB0, sample];
        let control = taken(0x2A18, &record(0x4A), false);
        assert_eq!((control.drafts.len(), control.discarded), (0, vec![DiscardReason::ControlSolution]));
        let blood = taken(0x2A18, &record(0x11), false);
        assert!(blood.at_once && blood.drafts[0].stamp.stored, "a meter's records come out of its memory");
    }

    #[test]
    fn a_glucose_beyond_the_meter_is_a_result_without_a_number() {
        let high = taken(0x2A18, &[0x0A, 3, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0xFE, 0x07, 0x11, 0x20, 0], false);
        let Body::Reading(reading) = &high.drafts[0].body else { panic!("no reading") };
        assert!(matches!(reading.class, Class::OutOfRange(crate::reading::OutOfRange::High)), "{:?}", reading.class);
    }

    #[test]
    fn a_record_out_of_a_meters_memory_is_the_same_however_often_it_is_read() {
        let record = [0x02, 1, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x6E, 0xB0, 0x11];
        let identity = || taken(0x2A18, &record, false).drafts.remove(0).identity;
        assert!(matches!(identity(), Identity::Sent { .. }));
        assert_eq!(identity(), identity());
    }

    #[test]
    fn minutes_of_a_session_that_nobody_knows_name_no_record() {
        let taken = taken(0x2AA7, &[6, 0, 12, 16, 5, 0, 6, 0, 12, 16, 5, 0], false);
        assert_eq!(metrics(&taken), [Metric::GlucoseInterstitial, Metric::GlucoseInterstitial]);
        assert!(taken.drafts.iter().all(|draft| draft.identity == Identity::Arrival));
        assert_eq!(parts(&taken), [(0, 1), (0, 1)], "each record is whole by itself");
    }

    #[test]
    fn what_a_thermometer_had_kept_is_backlog_by_its_own_clock() {
        let clock = DeviceTime { year: Some(2011), month: Some(3), day: Some(1), hour: 10, minute: 0, second: 0 };
        let stored = |minute: u8, arrived: u64| {
            let octets = [0b10, 0x72, 0x01, 0, 0xFF, 0xDB, 0x07, 3, 1, 9, minute, 0];
            let heard =
                Heard { arrived: BootMillis(arrived), device_clock: Some((clock, BootMillis(1_000))), ..heard(0x2A1C, &octets) };
            let taken = taken_of(&heard);
            (taken.drafts[0].stamp.stored, taken.at_once)
        };
        assert_eq!(stored(59, 1_500), (false, false), "a minute ago is now, whatever year the clock shows");
        assert_eq!(stored(57, 1_500), (true, true));
        assert_eq!(stored(59, 121_500), (true, true), "and the connection went on");
    }

    #[test]
    fn a_stored_blood_pressure_is_the_one_that_was_told_live() {
        let octets = [0x02, 120, 0, 80, 0, 93, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0];
        let live = taken(0x2A35, &octets, true).drafts.remove(0).identity;
        let heard = heard(0x2A35, &octets);
        let (records, _) = gatt::observe(heard.characteristic, &octets).expect("a measurement").expect("readable");
        let stored: Vec<Observed> = records.into_iter().map(|o| Observed { sequence: Some(9), stored: true, ..o }).collect();
        let read = take_records(&SiteKey::new(&[7; 32]), BootId([1; 16]), &heard, &stored).drafts.remove(0);
        assert_eq!(read.identity, live);
        assert!(matches!(read.body, Body::Reading(Reading { sequence: Some(9), .. })), "and its number is known");
    }
}
