//! What the radio tells: of each event, what becomes a draft in the ring and what it changes in the status of its device.

use std::collections::BTreeMap;

use super::Collector;
use crate::collect::adverts::Advert;
use crate::collect::{
    AdapterStatus, DeviceState, DeviceStatus, Joined, Joining, NameplateState, Retrieved, Taken, observe, take_records,
};
use crate::gatt::{Observed, Warning};
use crate::procedure::{ClockOutcome, ConsentAnswer, Outcome};
use crate::profile::{Assembly, Source};
use crate::radio::{Advertised, BondState, BootClock, Heard, InformationField, RadioEvent};
use crate::reading::{Anchors, Body, BootMillis, ClockQuality, DeviceId, Event, Metric, Nameplate, Timestamp, UserIndex, Value};
use crate::store::{Draft, Identity};

/// Reject and warning names a device may fill its status with: the decoders' own names are fewer.
const MAX_REASONS: usize = 32;
/// Why values beyond the radio's limit are rejected.
const FLOOD: &str = "flood";
/// Why advertisements are that came while there was no room for them.
const MISSED: &str = "missed";
/// Why what is missing packets is, as a decoder calls it.
const BROKEN: &str = "segment_error";

impl Collector {
    /// `true`: the device sends it only once, and it is committed now.
    pub(super) fn take_in(&mut self, event: RadioEvent) -> bool {
        match event {
            RadioEvent::Heard(heard) => return self.packet(heard),
            RadioEvent::Advertised(advertised) => self.advertised(&advertised),
            RadioEvent::Ready { device } => self.state(device, DeviceState::Connected, None),
            RadioEvent::Lost { device, reason } => {
                self.lost(device, reason);
                return self.join(device, Joining::finish);
            }
            RadioEvent::Bond { device, state } => self.bond(device, state),
            RadioEvent::Retrieved { device: id, outcome } => {
                if let Some(device) = self.device(id) {
                    device.retrieved = Some(Retrieved { outcome: outcome.name().to_owned(), records: outcome.records() });
                }
                if matches!(outcome, Outcome::Complete(_)) {
                    self.numbers.told_all(id);
                }
                return self.join(id, Joining::told_all);
            }
            RadioEvent::Consent { device, user, answer } => self.consent(device, user, answer),
            RadioEvent::ClockSet { device, outcome } => self.clock_set(device, outcome),
            RadioEvent::Information { device, field, text } => {
                if let Some(device) = self.device(device) {
                    device.information.insert(information_name(field).to_owned(), text);
                }
            }
            RadioEvent::Told { device, nameplate } => self.told(device, &nameplate),
            RadioEvent::Health(health) => {
                for device in &mut self.status.devices {
                    if let Some(count) = health.flooded.get(&device.address) {
                        device.rejected.insert(FLOOD.to_owned(), *count);
                    }
                    if let Some(count) = health.missed_advertisements.get(&device.address) {
                        device.rejected.insert(MISSED.to_owned(), *count);
                    }
                }
                self.status.radio = *health;
            }
            RadioEvent::Adapter { usable, detail } => self.status.adapter = AdapterStatus { usable, detail },
        }
        false
    }

    /// What a profile reads may come in other pieces than it means.
    fn packet(&mut self, heard: Heard) -> bool {
        self.settings.overhearing.hear(&heard);
        let source = Source::Characteristic(heard.characteristic);
        let assembly = self.assemblies.get_mut(&heard.device);
        let Some(assembled) = assembly.and_then(|assembly| assembly.push(heard.arrived, &source, &heard.octets)) else {
            return self.heard(&heard);
        };
        self.broken(heard.device, usize::from(assembled.fault.is_some()));
        let mut at_once = false;
        for octets in assembled.frames {
            at_once |= self.heard(&Heard { octets, ..heard.clone() });
        }
        at_once
    }

    /// Frames of which not all came.
    fn broken(&mut self, device: DeviceId, frames: usize) {
        let Some(device) = self.device(device) else { return };
        (0..frames).for_each(|_| count(&mut device.rejected, BROKEN));
    }

    fn heard(&mut self, heard: &Heard) -> bool {
        let Some(&place) = self.places.get(&heard.device) else { return false };
        let profile = self.settings.devices.get(place).and_then(|device| device.profile.as_deref());
        if profile.is_none() && Joining::joins(heard.characteristic) {
            let joined = self.joining[place].take(heard.clone());
            return self.joined(place, joined);
        }
        let (records, warnings) = match observe(profile, heard) {
            None => return false,
            Some(Err(error)) => {
                tracing::debug!(device = %heard.device, characteristic = %heard.characteristic, error = error.name(), "value not taken");
                count(&mut self.status.devices[place].rejected, error.name());
                return false;
            }
            Some(Ok(read)) => read,
        };
        self.warned(place, &warnings);
        self.keep(place, heard, &records)
    }

    fn join(&mut self, device: DeviceId, what: impl FnOnce(&mut Joining) -> Joined) -> bool {
        let Some(&place) = self.places.get(&device) else { return false };
        let joined = what(&mut self.joining[place]);
        self.joined(place, joined)
    }

    pub(super) fn joined(&mut self, place: usize, joined: Joined) -> bool {
        self.warned(place, &joined.warnings);
        let device = &mut self.status.devices[place];
        joined.errors.iter().for_each(|error| count(&mut device.rejected, error.name()));
        let mut at_once = false;
        for whole in &joined.wholes {
            at_once |= self.keep(place, &whole.heard, &whole.records);
        }
        at_once
    }

    fn warned(&mut self, place: usize, warnings: &[Warning]) {
        let device = &mut self.status.devices[place];
        warnings.iter().for_each(|warning| count(&mut device.warnings, warning.name()));
    }

    /// `true`: the device sends it only once.
    fn keep(&mut self, place: usize, heard: &Heard, records: &[Observed]) -> bool {
        let moved = self.clocks.read(place, heard, |at| true_time(&self.anchors, self.boot, at));
        self.clock_moved(place, moved, false);
        let now = true_time(&self.anchors, self.boot, heard.arrived);
        let mut at_once = false;
        for record in records {
            let device = &self.settings.devices[place];
            let dated = now.and_then(|now| self.clocks.dated(device, place, heard, record, now));
            let (heard, record) = dated.as_ref().map_or((heard, record), |(heard, record)| (heard, record));
            let taken = take_records(self.store.site_key(), self.boot.id(), heard, std::slice::from_ref(record));
            at_once |= self.push(place, heard, taken);
        }
        at_once
    }

    fn clock_moved(&mut self, place: usize, moved_ms: Option<i64>, by_bedrail: bool) {
        let Some(moved_ms) = moved_ms else { return };
        let (device, by_s) = (self.settings.devices[place].id, moved_ms / 1_000);
        tracing::info!(%device, by_s, by_bedrail, "the device's clock was moved");
        let body = Body::Event(Event::ClockMoved { by_s, by_bedrail });
        self.ring
            .push(Draft { identity: Identity::Arrival, device, stream: None, stamp: self.stamp(), body, nameplate: None }, true);
    }

    fn push(&mut self, place: usize, heard: &Heard, taken: Taken) -> bool {
        self.note(place, heard, &taken);
        let at_once = taken.at_once;
        self.put(taken);
        at_once
    }

    /// Its device repeats it: nothing of it needs to be committed at once.
    fn advertised(&mut self, advertised: &Advertised) {
        let Some(&place) = self.places.get(&advertised.device) else { return };
        let advert = self.adverts.take(self.store.site_key(), self.boot.id(), advertised);
        let device = &mut self.status.devices[place];
        device.state = DeviceState::Heard;
        match advert {
            Advert::Unknown => {}
            Advert::Repeated => device.duplicates += 1,
            Advert::Refused(why) => {
                tracing::debug!(device = %advertised.device, why, "advertisement not taken");
                count(&mut device.rejected, why);
            }
            Advert::Taken { heard, taken, warnings } => {
                self.warned(place, &warnings);
                self.note(place, &heard, &taken);
                self.put(taken);
            }
        }
    }

    fn put(&mut self, taken: Taken) {
        let before = self.ring.dropped();
        taken.drafts.into_iter().for_each(|draft| self.ring.push(draft, taken.at_once));
        self.status.disk.dropped += self.ring.dropped() - before;
    }

    fn note(&mut self, place: usize, heard: &Heard, taken: &Taken) {
        let at = self.anchors.wall(self.boot.id(), heard.arrived).map(|wall| wall.at.to_string());
        let offset = self.clock_offset_s(place, heard);
        let device = &mut self.status.devices[place];
        device.clock_offset_s = offset.or(device.clock_offset_s);
        device.security = Some(heard.security);
        taken.discarded.iter().for_each(|reason| count(&mut device.rejected, reason.name()));
        for draft in &taken.drafts {
            let Body::Reading(reading) = &draft.body else { continue };
            match (draft.stream.map(|stream| stream.metric), &reading.value) {
                (Some(Metric::BatteryLevel), Value::Number { value, .. }) => {
                    device.battery_percent = u8::try_from(value.mantissa()).ok();
                }
                _ => {
                    device.readings += 1;
                    device.last_reading_at.clone_from(&at);
                    device.heard_ms = Some(heard.arrived.0);
                }
            }
        }
    }

    fn clock_offset_s(&self, place: usize, heard: &Heard) -> Option<i64> {
        let (shown, read_at) = heard.device_clock?;
        let wall = self.anchors.wall(self.boot.id(), read_at)?.at;
        Some((shown.in_zone(&self.settings.devices[place].zone)?.0 - wall.0) / 1_000)
    }

    fn state(&mut self, device: DeviceId, state: DeviceState, detail: Option<String>) {
        if let Some(status) = self.device(device) {
            (status.state, status.detail) = (state, detail);
        }
    }

    /// What is wrong with its bond says more than how the last link ended.
    fn lost(&mut self, device: DeviceId, reason: String) {
        let broken = self.assemblies.get_mut(&device).map_or(0, Assembly::finish);
        self.broken(device, broken);
        let Some(status) = self.device(device) else { return };
        let keeps = status.state == DeviceState::BondLost || status.bond == BondState::Refused(String::new()).name();
        if !keeps {
            (status.state, status.detail) = (DeviceState::Lost, Some(reason));
        }
    }

    fn bond(&mut self, device: DeviceId, bond: BondState) {
        let Some(status) = self.device(device) else { return };
        bond.name().clone_into(&mut status.bond);
        status.bond_changes += 1;
        match bond {
            BondState::Lost(remedy) => {
                tracing::warn!(device = %device, remedy, "bond lost");
                (status.state, status.detail) = (DeviceState::BondLost, Some(remedy));
            }
            BondState::Refused(remedy) => {
                tracing::warn!(device = %device, remedy, "not paired");
                (status.state, status.detail) = (DeviceState::Lost, Some(remedy));
            }
            BondState::None | BondState::Bonding | BondState::Bonded if status.state == DeviceState::BondLost => {
                (status.state, status.detail) = (DeviceState::Lost, None);
            }
            // What was wrong with it before is tried anew.
            BondState::Bonding => status.detail = None,
            BondState::None | BondState::Bonded => {}
        }
    }

    /// What a device told of itself in this connection, held against the config.
    fn told(&mut self, device: DeviceId, told: &Nameplate) {
        let Some(&place) = self.places.get(&device) else { return };
        let difference = self.settings.devices[place].nameplate.difference(told);
        let status = &mut self.status.devices[place];
        for (field, text) in [(InformationField::SerialNumber, &told.serial), (InformationField::Model, &told.model)] {
            let name = information_name(field);
            match text {
                Some(text) => drop(status.information.insert(name.to_owned(), text.clone())),
                None => drop(status.information.remove(name)),
            }
        }
        status.nameplate = Some(if difference.is_some() { NameplateState::Differs } else { NameplateState::Fits });
        status.mismatch = difference.map(|difference| {
            tracing::warn!(%device, difference, "another device than the config names: what it measures is held");
            format!(
                "it tells {difference}: its readings are held. If this is the device meant, correct the config and restart bedrail; \
                 else take the device away and see `bedrail held list`"
            )
        });
    }

    fn consent(&mut self, device: DeviceId, user: UserIndex, answer: ConsentAnswer) {
        if answer != ConsentAnswer::Granted {
            tracing::warn!(%device, user, answer = answer.name(), "a user's slot is not open: what waits in it stays there");
        }
        if let Some(status) = self.device(device) {
            status.consent.insert(user, answer.name().to_owned());
        }
    }

    fn clock_set(&mut self, device: DeviceId, outcome: ClockOutcome) {
        if matches!(outcome, ClockOutcome::Refused | ClockOutcome::Unreadable) {
            tracing::warn!(%device, outcome = outcome.name(), "its clock is not set");
        }
        let Some(&place) = self.places.get(&device) else { return };
        self.status.devices[place].clock_set = Some(outcome.name().to_owned());
        let moved = self.clocks.set(place, outcome);
        self.clock_moved(place, moved, true);
    }

    pub(super) fn device(&mut self, device: DeviceId) -> Option<&mut DeviceStatus> {
        self.places.get(&device).map(|place| &mut self.status.devices[*place])
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(n) = counts.get_mut(name) {
        *n += 1;
    } else if counts.len() < MAX_REASONS {
        counts.insert(name.to_owned(), 1);
    }
}

/// While our own clock is vouched for.
fn true_time(anchors: &Anchors, boot: BootClock, at: BootMillis) -> Option<Timestamp> {
    let wall = anchors.wall(boot.id(), at)?;
    (wall.quality == ClockQuality::Ntp).then_some(wall.at)
}

const fn information_name(field: InformationField) -> &'static str {
    match field {
        InformationField::Manufacturer => "manufacturer",
        InformationField::Model => "model",
        InformationField::SerialNumber => "serial_number",
        InformationField::FirmwareRevision => "firmware_revision",
        InformationField::HardwareRevision => "hardware_revision",
        InformationField::SoftwareRevision => "software_revision",
    }
}
