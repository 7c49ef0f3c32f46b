//! From what devices advertise to drafts of records: which advertisement is new, which was heard before, and which nobody who
//! has the key made. Pure but for the counters it is given and gives back; who commits keeps them.
//!
//! The rule it keeps: what is repeated is taken once, and where a device is encrypted, nothing is taken that is not, or that
//! may have been recorded and played again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::intake::{Taken, take_records};
use crate::gatt::{Advertisement, Context, Freshness, Observed, ReplayGuard, Source, Warning};
use crate::profile::{self, Profile};
use crate::radio::{Advertised, Heard};
use crate::reading::{BootId, BootMillis, DeviceId, Modality, SecurityLevel, SiteKey};

/// A stream that says neither number nor time: the same octets after this are the next value, which happens to be the same.
const NEXT_VALUE: Duration = Duration::from_secs(1);
/// What was measured one by one is repeated until the device switches off: after so long without a word, the same octets are
/// another measurement.
const NEXT_MEASUREMENT: Duration = Duration::from_secs(5 * 60);
/// The device is encrypted, and this was not.
const NOT_ENCRYPTED: &str = "not_encrypted";
/// Its counter is not above the last one.
const REPLAYED: &str = "replayed";

/// How the advertisements of a device are read.
#[derive(Clone, Debug)]
pub struct AdvertFormat {
    pub reads: Reads,
    /// The key of what is encrypted, and whatever else the octets do not say.
    pub context: Context,
    /// Raised by a person when the device began to count anew.
    pub counter: u8,
}

#[derive(Clone, Debug)]
pub enum Reads {
    Standard(&'static Advertisement),
    Profile(Arc<Profile>),
}

#[derive(Debug)]
pub enum Advert {
    Taken {
        heard: Heard,
        taken: Taken,
        warnings: Vec<Warning>,
    },
    /// The same as before.
    Repeated,
    Refused(&'static str),
    /// Not of a device that is read by its advertisements.
    Unknown,
}

#[derive(Default)]
pub struct Adverts {
    devices: BTreeMap<DeviceId, Listening>,
}

struct Listening {
    format: AdvertFormat,
    guard: ReplayGuard,
    /// The counter has moved since it was last kept.
    moved: bool,
    last: BTreeMap<Source, Last>,
}

struct Last {
    octets: Vec<u8>,
    heard: BootMillis,
    /// When it was last taken for a value.
    taken: BootMillis,
    repeats: Repeats,
}

/// What the same octets once more are.
#[derive(Clone, Copy)]
enum Repeats {
    /// The same value, however late: it has a number or a time.
    Named,
    Stream,
    Measurement,
}

impl Adverts {
    /// `kept`: the last counter of a device, by the name of its mark.
    pub fn new(formats: impl IntoIterator<Item = (DeviceId, AdvertFormat)>, kept: &BTreeMap<String, u64>) -> Self {
        let listening = |(device, format): (DeviceId, AdvertFormat)| {
            let last = kept.get(&mark(device, &format)).and_then(|last| u32::try_from(*last).ok());
            let guard = last.map_or_else(ReplayGuard::default, ReplayGuard::after);
            (device, Listening { format, guard, moved: false, last: BTreeMap::new() })
        };
        Self { devices: formats.into_iter().map(listening).collect() }
    }

    pub fn take(&mut self, key: &SiteKey, boot: BootId, advertised: &Advertised) -> Advert {
        match self.devices.get_mut(&advertised.device) {
            Some(listening) => listening.take(key, boot, advertised),
            None => Advert::Unknown,
        }
    }

    /// Counters to keep with the next commit, which has the values that go with them.
    pub fn moved(&self) -> Vec<(String, u64)> {
        let moved = self.devices.iter().filter(|(_, listening)| listening.moved);
        moved.filter_map(|(device, it)| Some((mark(*device, &it.format), it.guard.last()?.into()))).collect()
    }

    pub fn kept(&mut self) {
        self.devices.values_mut().for_each(|listening| listening.moved = false);
    }
}

impl Listening {
    fn take(&mut self, key: &SiteKey, boot: BootId, advertised: &Advertised) -> Advert {
        let now = advertised.arrived;
        if let Some(last) = self.last.get_mut(&advertised.source)
            && last.octets == advertised.octets
        {
            let repeated = last.is_repeated(now);
            last.heard = now;
            if repeated {
                return Advert::Repeated;
            }
        }
        let read = match &self.format.reads {
            Reads::Standard(row) => row.decoder.observe(&advertised.octets, &self.format.context),
            Reads::Profile(profile) => profile.observe(&profile::Source::from(advertised.source), &advertised.octets),
        };
        let (records, warnings) = match read {
            None => return Advert::Unknown,
            Some(Err(error)) => return Advert::Refused(error.name()),
            Some(Ok(read)) => read,
        };
        if let Some(refused) = self.refuses(&records) {
            return refused;
        }
        let (octets, repeats) = (advertised.octets.clone(), Repeats::of(&records, &advertised.octets, &self.format));
        self.last.insert(advertised.source, Last { octets, heard: now, taken: now, repeats });
        let heard = Heard {
            device: advertised.device,
            characteristic: advertised.source.uuid(),
            octets: advertised.octets.clone(),
            arrived: now,
            indicated: false,
            device_clock: None,
            // Who has the key made it: a person gave it to both.
            security: if self.is_encrypted() { SecurityLevel::Authenticated } else { SecurityLevel::None },
            // It can't be asked.
            nameplate: None,
        };
        let taken = take_records(key, boot, &heard, &self.named(records));
        Advert::Taken { heard, taken, warnings }
    }

    const fn is_encrypted(&self) -> bool {
        self.format.context.key.is_some()
    }

    /// What it says was decrypted by then, and only then has it a counter.
    fn refuses(&mut self, records: &[Observed]) -> Option<Advert> {
        if !self.is_encrypted() {
            return None;
        }
        let Some(counter) = records.iter().find_map(|record| record.sequence) else {
            let says_nothing = records.iter().all(|record| record.values.is_empty());
            return (!says_nothing).then_some(Advert::Refused(NOT_ENCRYPTED));
        };
        match self.guard.take(counter) {
            Freshness::Fresh => {
                self.moved = true;
                None
            }
            Freshness::Repeated => Some(Advert::Repeated),
            Freshness::Replayed => Some(Advert::Refused(REPLAYED)),
        }
    }

    /// A counter that began anew names other values.
    fn named(&self, mut records: Vec<Observed>) -> Vec<Observed> {
        let counter = self.format.counter;
        if counter > 0 {
            let of_a_number = records.iter_mut().filter(|record| record.sequence.is_some());
            of_a_number.for_each(|record| record.base_time.get_or_insert_default().push(counter));
        }
        records
    }
}

impl Last {
    fn is_repeated(&self, now: BootMillis) -> bool {
        let since = |at: BootMillis| Duration::from_millis(now.0.saturating_sub(at.0));
        match self.repeats {
            Repeats::Named => true,
            Repeats::Stream => since(self.taken) < NEXT_VALUE,
            Repeats::Measurement => since(self.heard) < NEXT_MEASUREMENT,
        }
    }
}

impl Repeats {
    fn of(records: &[Observed], octets: &[u8], format: &AdvertFormat) -> Self {
        let dated = |record: &Observed| record.device_time.is_some_and(|time| time.since_ms(time).is_some());
        let numbered = match &format.reads {
            Reads::Standard(row) => (row.is_numbered)(octets),
            Reads::Profile(_) => false,
        };
        if numbered || records.iter().any(|record| record.sequence.is_some() || dated(record)) {
            return Repeats::Named;
        }
        let streams = records.iter().flat_map(|record| &record.values).any(|value| value.modality == Modality::Continuous);
        if streams { Repeats::Stream } else { Repeats::Measurement }
    }
}

/// Whatever may have begun to count anew has another.
fn mark(device: DeviceId, format: &AdvertFormat) -> String {
    format!("{MARKS}{device}/{}", format.counter)
}

/// What the names of all these marks begin with.
pub const MARKS: &str = "advert/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{ADVERTISEMENTS, sig_uuid};
    use crate::reading::Metric;
    use crate::store::Identity;

    const DEVICE: DeviceId = DeviceId::new([0x54, 0x48, 0xE6, 0x8F, 0x80, 0xA5]);
    const BTHOME: Source = Source::ServiceData(sig_uuid(0xFCD2));
    /// The example of bthome.io/encryption: 25.06 °C under counter 0x33221100.
    const SEALED: [u8; 15] = [0x41, 0xA4, 0x72, 0x66, 0xC9, 0x5F, 0x73, 0x00, 0x11, 0x22, 0x33, 0x78, 0x23, 0x72, 0x14];
    const COUNTER: u64 = 0x3322_1100;

    fn format(name: &str, key: bool, counter: u8) -> AdvertFormat {
        let row = ADVERTISEMENTS.iter().find(|row| row.name == name).expect("a known one");
        let mut context = Context { measures: Some(Metric::BodyTemperature), mac: Some(DEVICE.octets()), ..Context::default() };
        if key {
            context.set("key", "231d39c1d7cc1ab1aee224cd096db932").expect("a key");
        }
        AdvertFormat { reads: Reads::Standard(row), context, counter }
    }

    fn listening(name: &str, key: bool, kept: &[(&str, u64)]) -> Adverts {
        let kept = kept.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Adverts::new([(DEVICE, format(name, key, 0))], &kept)
    }

    fn hear(adverts: &mut Adverts, source: Source, octets: &[u8], at_ms: u64) -> Advert {
        let advertised = Advertised { device: DEVICE, source, octets: octets.to_vec(), arrived: BootMillis(at_ms) };
        adverts.take(&SiteKey::new(&[7; 32]), BootId([1; 16]), &advertised)
    }

    fn drafts(advert: &Advert) -> usize {
        let Advert::Taken { taken, .. } = advert else { panic!("{advert:?}") };
        taken.drafts.len()
    }

    fn refused(advert: &Advert) -> &'static str {
        let Advert::Refused(why) = advert else { panic!("{advert:?}") };
        why
    }

    #[test]
    fn what_is_encrypted_is_taken_once_kept_by_its_counter_and_never_again() {
        let mut adverts = listening("bthome_v2", true, &[]);
        let taken = hear(&mut adverts, BTHOME, &SEALED, 0);
        let Advert::Taken { taken: first, .. } = &taken else { panic!("{taken:?}") };
        assert!(matches!(first.drafts[0].identity, Identity::Sent { .. }), "two gateways that hear it name it alike");
        assert!(matches!(hear(&mut adverts, BTHOME, &SEALED, 10_000_000), Advert::Repeated));
        let marks = adverts.moved();
        assert_eq!(marks, [("advert/54:48:E6:8F:80:A5/0".to_owned(), COUNTER)]);
        adverts.kept();
        assert_eq!(adverts.moved(), []);

        // After a restart, and after something newer was heard before it.
        let mut again = listening("bthome_v2", true, &[(&marks[0].0, COUNTER)]);
        assert!(matches!(hear(&mut again, BTHOME, &SEALED, 0), Advert::Repeated));
        let mut later = listening("bthome_v2", true, &[(&marks[0].0, COUNTER + 1)]);
        assert_eq!(refused(&hear(&mut later, BTHOME, &SEALED, 0)), REPLAYED);
        // A person says that it counts anew.
        let kept = BTreeMap::from([(marks[0].0.clone(), COUNTER + 1)]);
        let mut anew = Adverts::new([(DEVICE, format("bthome_v2", true, 1))], &kept);
        let renewed = hear(&mut anew, BTHOME, &SEALED, 0);
        let Advert::Taken { taken: renewed, .. } = &renewed else { panic!("{renewed:?}") };
        assert_ne!(renewed.drafts[0].identity, first.drafts[0].identity);
    }

    #[test]
    fn what_is_forged_or_not_encrypted_is_refused_where_there_is_a_key() {
        let mut adverts = listening("bthome_v2", true, &[]);
        let mut forged = SEALED;
        forged[2] ^= 1;
        assert_eq!(refused(&hear(&mut adverts, BTHOME, &forged, 0)), "decrypt_failed");
        let clear = [0x40, 0x02, 0x42, 0x0E];
        assert_eq!(refused(&hear(&mut adverts, BTHOME, &clear, 0)), NOT_ENCRYPTED);
        assert_eq!(adverts.moved(), [], "neither moves the counter");
        assert_eq!(drafts(&hear(&mut listening("bthome_v2", false, &[]), BTHOME, &clear, 0)), 1);
        assert_eq!(refused(&hear(&mut listening("bthome_v2", false, &[]), BTHOME, &SEALED, 0)), "key_required");
    }

    #[test]
    fn the_same_in_the_clear_is_one_measurement_until_it_was_silent_and_with_a_packet_id_for_ever() {
        let mut adverts = listening("bthome_v2", false, &[]);
        let (plain, numbered) = ([0x40, 0x02, 0x42, 0x0E], [0x40, 0x00, 0x09, 0x02, 0x42, 0x0E]);
        assert_eq!(drafts(&hear(&mut adverts, BTHOME, &plain, 0)), 1);
        let silent = NEXT_MEASUREMENT.as_millis() as u64;
        for at in 1..20 {
            assert!(matches!(hear(&mut adverts, BTHOME, &plain, at * (silent - 1)), Advert::Repeated), "it never stopped");
        }
        assert_eq!(drafts(&hear(&mut adverts, BTHOME, &plain, 20 * silent)), 1);
        assert_eq!(drafts(&hear(&mut adverts, BTHOME, &numbered, 30 * silent)), 1);
        assert!(matches!(hear(&mut adverts, BTHOME, &numbered, 90 * silent), Advert::Repeated));
    }

    #[test]
    fn the_same_heart_rate_a_second_later_is_the_next_value() {
        let (mut adverts, octets) = (listening("xoss_adv", false, &[]), [0x04, 0xFF, 0, 80, 0, 72]);
        let xoss = Source::Manufacturer(0xFF04);
        assert_eq!(drafts(&hear(&mut adverts, xoss, &octets, 0)), 2);
        assert!(matches!(hear(&mut adverts, xoss, &octets, 400), Advert::Repeated));
        assert!(matches!(hear(&mut adverts, xoss, &octets, 800), Advert::Repeated));
        assert_eq!(drafts(&hear(&mut adverts, xoss, &octets, 1_000)), 2);
    }

    #[test]
    fn a_profile_reads_what_its_device_advertises_by_the_same_door() {
        let library = profile::Library::shipped().expect("checked profiles");
        let scale = library.get("xiaomi-mibcs").expect("one of them").profile.clone();
        assert_eq!(scale.adverts(), [Source::ServiceData(sig_uuid(0x181B))]);
        let format = AdvertFormat { reads: Reads::Profile(scale.clone()), context: Context::default(), counter: 0 };
        let mut adverts = Adverts::new([(DEVICE, format)], &BTreeMap::new());
        let octets = [0x02, 0x26, 0xE6, 7, 2, 14, 16, 41, 58, 0xF7, 1, 0x9A, 0x38];
        let taken = hear(&mut adverts, scale.adverts()[0], &octets, 0);
        assert_eq!(drafts(&taken), 2, "weight and impedance");
        assert!(matches!(hear(&mut adverts, scale.adverts()[0], &octets, 10_000_000), Advert::Repeated), "it says the time");
    }

    #[test]
    fn nothing_is_taken_of_who_is_not_read_by_it() {
        assert!(matches!(hear(&mut Adverts::default(), BTHOME, &SEALED, 0), Advert::Unknown));
    }
}
