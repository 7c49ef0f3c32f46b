//! What a device says to everybody: the parts of its advertisements that somebody wants, and their way to the overseer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use uuid::Uuid;
use zbus::OwnedVariant;

use super::event::{Advertised, RadioEvent};
use super::watch::Properties;
use crate::gatt::Source;
use crate::reading::DeviceId;

/// Advertisements on their way to the overseer: seconds of a ward of devices that are read by them, while the writer is busy.
pub const IN_THE_AIR: usize = 1_024;

/// Of `wanted`, what the properties that BlueZ tells hold.
pub fn parts(properties: &Properties, wanted: &[Source]) -> Vec<(Source, Vec<u8>)> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let services: HashMap<String, OwnedVariant> = map(properties, "ServiceData");
    let companies: HashMap<u16, OwnedVariant> = map(properties, "ManufacturerData");
    let of = |source: &Source| match source {
        Source::ServiceData(uuid) => {
            let (_, data) = services.iter().find(|(key, _)| key.parse::<Uuid>().is_ok_and(|key| key == *uuid))?;
            Some((*source, octets(data)?))
        }
        // BlueZ takes the company's number off, and a decoder wants the octets of the air.
        Source::Manufacturer(company) => {
            let data = octets(companies.get(company)?)?;
            Some((*source, [&company.to_le_bytes()[..], &data].concat()))
        }
    };
    wanted.iter().filter_map(of).collect()
}

fn map<T: TryFrom<OwnedVariant> + Default>(properties: &Properties, name: &str) -> T {
    properties.get(name).and_then(|value| value.try_clone().ok()?.try_into().ok()).unwrap_or_default()
}

fn octets(value: &OwnedVariant) -> Option<Vec<u8>> {
    value.try_clone().ok()?.try_into().ok()
}

/// Whoever reads the bus puts them in and never waits: the connection would stand still. What finds no room is counted.
#[derive(Clone)]
pub struct Air {
    events: mpsc::Sender<RadioEvent>,
    missed: Missed,
}

/// Advertisements there was no room for, by device.
#[derive(Clone, Default)]
pub struct Missed(Arc<Mutex<BTreeMap<DeviceId, u64>>>);

impl Air {
    pub fn new(events: mpsc::Sender<RadioEvent>, missed: Missed) -> Self {
        Self { events, missed }
    }

    pub fn hand_on(&self, advertised: Advertised) {
        let device = advertised.device;
        if self.events.try_send(RadioEvent::Advertised(advertised)).is_err() {
            *self.missed.counts().entry(device).or_default() += 1;
        }
    }
}

impl Missed {
    pub fn by_address(&self) -> BTreeMap<String, u64> {
        self.counts().iter().map(|(device, count)| (device.to_string(), *count)).collect()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<DeviceId, u64>> {
        self.0.lock().expect("nobody panics while holding the counts")
    }
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;
    use crate::gatt::sig_uuid;
    use crate::reading::BootMillis;

    fn owned<'a>(value: impl Into<Variant<'a>>) -> OwnedVariant {
        value.into().try_to_owned().expect("no file descriptor")
    }

    #[test]
    fn only_what_is_wanted_is_taken_and_a_company_stands_before_its_data() {
        let scale = Source::ServiceData(sig_uuid(0x181B));
        let data: HashMap<String, Variant<'_>> = [
            (sig_uuid(0x181B).to_string(), Variant::from(vec![1u8, 2])),
            (sig_uuid(0xFCD2).to_string(), Variant::from(vec![3u8])),
        ]
        .into();
        let companies: HashMap<u16, Variant<'_>> = [(0xFF04, Variant::from(vec![9u8]))].into();
        let told: Properties =
            [("ServiceData".to_owned(), owned(data)), ("ManufacturerData".to_owned(), owned(companies))].into();
        assert_eq!(parts(&told, &[scale]), [(scale, vec![1, 2])]);
        let xoss = Source::Manufacturer(0xFF04);
        assert_eq!(parts(&told, &[xoss]), [(xoss, vec![0x04, 0xFF, 9])]);
        assert_eq!(parts(&told, &[]), []);
        let odd: Properties = [("ServiceData".to_owned(), owned("text"))].into();
        assert_eq!(parts(&odd, &[scale]), []);
    }

    #[test]
    fn what_finds_no_room_is_counted_by_device() {
        let (sender, mut events) = mpsc::channel(1);
        let missed = Missed::default();
        let air = Air::new(sender, missed.clone());
        let device = DeviceId::new([1; 6]);
        let advertised = Advertised { device, source: Source::Manufacturer(1), octets: vec![], arrived: BootMillis(0) };
        (0..3).for_each(|_| air.hand_on(advertised.clone()));
        assert_eq!(missed.by_address(), [(device.to_string(), 2)].into());
        assert_eq!(events.try_recv(), Ok(RadioEvent::Advertised(advertised)));
    }
}
