//! The one writer of readings: collects drafts into group commits, keeps the windows in step and answers for its state.
//!
//! It runs on a thread of its own, because a card may take seconds for one fsync; what the radio brings waits meanwhile in
//! the bounded channel between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::adverts::{self, Advert, AdvertFormat, Adverts};
use super::bonds;
use super::clocks::Clocks;
use super::numbers::{Numbers, numbered};
use super::trouble::{Missed, Reaction, Ring, Trouble, decide};
use super::{
    AdapterStatus, ClockReport, CollectStatus, DeviceState, DeviceStatus, DiskState, Joined, Joining, NameplateState, NotAudited,
    Overhearing, Retain, RetainSettings, Retrieved, StoreStatus, Taken, ToAudit, Windows, observe, take_records,
};
use crate::gatt::{Observed, Warning};
use crate::monitor::machine::Process;
use crate::procedure::{ClockOutcome, ConsentAnswer, Outcome};
use crate::profile::{Assembly, Profile, Source};
use crate::radio::{Advertised, BondState, Bonds, BootClock, Durable, Heard, InformationField, RadioEvent, TrueTime};
use crate::reading::{
    Anchor, Anchors, Body, BootMillis, ClockQuality, DeviceId, DeviceTime, Event, Metric, Nameplate, Stamp, Timestamp, UserIndex,
    Value,
};
use crate::store::ballast::Ballast;
use crate::store::{AuditEntry, Damage, Draft, Identity, MAX_RECORDS, Store, StoreError};

/// Windows are made and the status is renewed once a second.
const TICK: Duration = Duration::from_secs(1);
/// Retention is looked at this often, in ticks; while it has more to do, at every one.
const RETAIN_EVERY: u32 = 10;
/// Drafts in one commit at most, gaps not counted.
const COMMIT: usize = MAX_RECORDS / 2;
/// Twice what the write-ahead log may hold before SQLite writes it back by itself.
const WRITE_BACK_BELOW: u64 = 8 << 20;
/// Written after trouble.
const PROBE: &str = "writable";
/// Clock anchors that wait for a disk that takes no writes.
const MAX_ANCHORS: usize = 64;
/// The clock has moved against the boot clock: a step, or drift worth a new anchor.
const MOVED_MS: i64 = 250;
/// Reject and warning names a device may fill its status with: the decoders' own names are fewer.
const MAX_REASONS: usize = 32;
/// Why values beyond the radio's limit are rejected.
const FLOOD: &str = "flood";
/// Why advertisements are that came while there was no room for them.
const MISSED: &str = "missed";
/// Why what is missing packets is, as a decoder calls it.
const BROKEN: &str = "segment_error";

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug)]
pub struct CollectSettings {
    pub gateway: String,
    pub commit_interval: Duration,
    pub commit_records: usize,
    pub devices: Vec<CollectedDevice>,
    pub retain: RetainSettings,
    /// What is durable of what devices number, for whoever asks them for more.
    pub durable: Durable,
    /// With which adapter devices are bonded, kept for the next start.
    pub bonds: Bonds,
    /// What the time truly is, for whoever tells it to devices.
    pub time: TrueTime,
    /// Who writes the profile of a device may ask for its octets.
    pub overhearing: Overhearing,
}

#[derive(Clone, Debug)]
pub struct CollectedDevice {
    pub id: DeviceId,
    pub name: String,
    pub kind: String,
    /// Of its clock.
    pub zone: TimeZone,
    /// How its values are read, where no standard says it.
    pub profile: Option<Arc<Profile>>,
    /// How its advertisements are read, where it is read by them.
    pub advert: Option<AdvertFormat>,
    /// What it must tell of itself; blank: anything.
    pub nameplate: Nameplate,
    /// Why it is not read.
    pub fault: Option<String>,
}

pub struct Collector {
    settings: CollectSettings,
    store: Store,
    windows: Windows,
    anchors: Anchors,
    boot: BootClock,
    ring: Ring,
    bonds_kept: BTreeMap<DeviceId, DeviceId>,
    /// When the oldest draft in the ring must be on the card, or be tried again.
    due: Option<Instant>,
    /// Since a write failed that may succeed later.
    trouble: Option<Trouble>,
    /// The write-ahead log was written back in this attempt, to be used again from its beginning.
    written_back: bool,
    unwritten_anchors: Vec<Anchor>,
    /// Until it is in the log.
    missed: Option<Missed>,
    retain: Retain,
    ballast: Ballast,
    adverts: Adverts,
    /// Ticks until the next look at retention.
    rest: u32,
    status: CollectStatus,
    places: BTreeMap<DeviceId, usize>,
    /// What waits for its other part, by place.
    joining: Vec<Joining>,
    /// What is known of the devices' clocks, by place.
    clocks: Clocks,
    numbers: Numbers,
    /// Of devices with a profile.
    assemblies: BTreeMap<DeviceId, Assembly>,
    publish: watch::Sender<CollectStatus>,
    bell: Box<dyn Fn() + Send>,
}

impl Collector {
    pub fn new(
        settings: CollectSettings,
        store: Store,
        windows: Windows,
        boot: BootClock,
        publish: watch::Sender<CollectStatus>,
        bell: Box<dyn Fn() + Send>,
    ) -> Result<Self, CollectError> {
        let anchors = store.anchors()?;
        let clocks = Clocks::of_store(&store, &settings.devices)?;
        let numbers = Numbers::of_store(&store, &settings.devices, settings.durable.clone())?;
        let joining = settings.devices.iter().map(|_| Joining::default()).collect();
        let formats = settings.devices.iter().filter_map(|device| Some((device.id, device.advert.clone()?)));
        let adverts = Adverts::new(formats, &store.marks(adverts::MARKS)?.into_iter().collect());
        let places = settings.devices.iter().enumerate().map(|(place, device)| (device.id, place)).collect();
        let assembly = |device: &CollectedDevice| Some((device.id, Assembly::new(device.profile.as_deref()?)));
        let assemblies = settings.devices.iter().filter_map(assembly).collect();
        let devices = settings.devices.iter().map(|device| DeviceStatus {
            name: device.name.clone(),
            kind: device.kind.clone(),
            address: device.id.to_string(),
            bond: BondState::None.name().to_owned(),
            detail: device.fault.clone(),
            ..DeviceStatus::default()
        });
        let status = CollectStatus {
            gateway: settings.gateway.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: ClockQuality::Unsynced.name().to_owned(),
            devices: devices.collect(),
            listened_from_ms: boot.now().0,
            ..CollectStatus::default()
        };
        let retain = Retain::new(settings.retain.clone());
        let mut ballast = Ballast::find(&settings.retain.state_dir);
        ballast.restore(retain.disk());
        let bonds_kept = settings.bonds.all();
        Ok(Self {
            bonds_kept,
            settings,
            store,
            windows,
            anchors,
            boot,
            ring: Ring::default(),
            due: None,
            trouble: None,
            written_back: false,
            unwritten_anchors: Vec::new(),
            missed: None,
            retain,
            ballast,
            adverts,
            rest: 0,
            status,
            places,
            joining,
            clocks,
            numbers,
            assemblies,
            publish,
            bell,
        })
    }

    /// The store could not be opened before now: told in the log as soon as the clock says since when.
    pub fn after(mut self, missed: Option<Missed>) -> Self {
        self.missed = missed;
        self
    }

    /// Runs until told to stop; then commits what it holds.
    pub async fn run(
        mut self,
        mut radio: mpsc::Receiver<RadioEvent>,
        mut clock: mpsc::Receiver<ClockReport>,
        mut audit: mpsc::Receiver<ToAudit>,
        stop: CancellationToken,
    ) -> Result<(), CollectError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What is due goes first, then the clock that stamps it, then what is new.
                biased;
                () = stop.cancelled() => break,
                () = until(self.due) => self.commit()?,
                Some(report) = clock.recv() => self.clock(report)?,
                _ = tick.tick() => self.tick()?,
                Some(action) = audit.recv() => self.audit(action)?,
                Some(event) = radio.recv() => self.radio(event, &mut radio)?,
            }
        }
        // The radio has been stopped first: what it had already handed over still belongs on the card.
        while let Ok(event) = radio.try_recv() {
            self.radio(event, &mut radio)?;
        }
        for place in 0..self.joining.len() {
            let joined = self.joining[place].finish();
            self.joined(place, joined);
        }
        self.tell_missed();
        self.commit()?;
        if !self.ring.is_empty() {
            tracing::error!(readings = self.ring.len(), "the disk takes nothing, and these readings end with the process");
        }
        Ok(())
    }

    /// Whoever gave up waiting was told that nothing was done.
    fn audit(&mut self, ToAudit { action, written }: ToAudit) -> Result<(), CollectError> {
        if written.is_closed() {
            return Ok(());
        }
        let (boot, at) = (self.boot.id(), self.boot.now());
        let entry = AuditEntry {
            boot,
            at,
            wall: self.anchors.wall(boot, at).map(|wall| wall.at),
            actor: action.actor,
            action: action.action.to_owned(),
            object: action.object,
            detail: action.detail,
        };
        let outcome = self.store.audit(&entry);
        let _ = written.send(outcome.as_ref().copied().map_err(|error| NotAudited::Store(error.to_string())));
        match outcome {
            Err(error) if decide(&error) == Reaction::End => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes in an event and whatever else waits already, up to one commit: what came while the card was busy with the last
    /// commit is on it with the next, however much it is.
    fn radio(&mut self, event: RadioEvent, waiting: &mut mpsc::Receiver<RadioEvent>) -> Result<(), CollectError> {
        let full = self.settings.commit_records.min(COMMIT);
        let (mut next, mut at_once) = (Some(event), false);
        while let Some(event) = next.take() {
            at_once |= self.take_in(event);
            if self.ring.len() < full {
                next = waiting.try_recv().ok();
            }
        }
        if self.trouble.is_some() {
            return Ok(());
        }
        if at_once || self.ring.len() >= full {
            return self.commit();
        }
        if !self.ring.is_empty() && self.due.is_none() {
            self.due = Some(Instant::now() + self.settings.commit_interval);
        }
        Ok(())
    }

    /// `true`: the device sends it only once, and it is committed now.
    fn take_in(&mut self, event: RadioEvent) -> bool {
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

    fn joined(&mut self, place: usize, joined: Joined) -> bool {
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

    /// Puts everything that waits on the card, oldest first.
    fn commit(&mut self) -> Result<(), CollectError> {
        (self.due, self.written_back) = (None, false);
        while !self.ring.is_empty() || self.trouble.is_some() {
            if !self.commit_some()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `false`: the disk does not take it now; it is tried again later.
    fn commit_some(&mut self) -> Result<bool, CollectError> {
        let now = self.stamp();
        let mut drafts = self.ring.front(COMMIT);
        let taken = drafts.len();
        let sources: Vec<_> = drafts.iter().map(|draft| (draft.device, self.numbered(draft))).collect();
        if let Some(trouble) = &self.trouble {
            drafts.extend(self.ring.gaps(trouble.gap_reason(), now, &self.anchors));
        }
        // With nothing to append, a mark shows whether the disk takes writes again.
        // A counter is durable with the values it stands for, and not before; only what is all of it makes true that all was told.
        let all = taken == self.ring.len();
        let counters = if all { self.adverts.moved() } else { vec![] };
        let numbers = if all { self.numbers.marks(drafts.iter().filter(|draft| self.is_admitted(draft))) } else { vec![] };
        let marked = !numbers.is_empty();
        let probe = self.trouble.is_some().then(|| (PROBE.to_owned(), now.arrived.0));
        let marks: Vec<(String, u64)> = self.clocks.marks().chain(counters).chain(numbers).chain(probe).collect();
        let marks: Vec<(&str, u64)> = marks.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let appended = match self.store.append_and_mark(drafts, &marks) {
            Ok(appended) => appended,
            Err(error) => return self.failed(error),
        };
        self.ring.written(taken);
        if self.ring.is_empty() {
            self.adverts.kept();
        }
        self.clocks.written();
        let numbered =
            sources.iter().filter_map(|(device, numbered)| numbered.map(|(session, number)| (*device, session, number)));
        self.numbers.written(numbered, marked);
        self.recovered()?;
        self.write_back_while_there_is_room()?;
        self.status.commits += 1;
        for (record, (source, _)) in appended.records.iter().zip(sources) {
            match record {
                Some(_) => self.status.durable += 1,
                None => self.device(source).into_iter().for_each(|device| device.duplicates += 1),
            }
        }
        if appended.records.iter().any(Option::is_some) {
            (self.bell)();
        }
        Ok(true)
    }

    /// On the last of a disk the write-ahead log is not let grow: one that can't be written back for want of room leaves none
    /// to delete in either.
    fn write_back_while_there_is_room(&mut self) -> Result<(), CollectError> {
        if self.retain.disk().free >= WRITE_BACK_BELOW {
            return Ok(());
        }
        match self.store.checkpoint() {
            Err(error) if decide(&error) == Reaction::End => Err(error.into()),
            // What is committed is durable where it is.
            _ => Ok(()),
        }
    }

    /// A write failed: what it means is decided in [`decide`]. `true`: there may be room now.
    fn failed(&mut self, error: StoreError) -> Result<bool, CollectError> {
        let reaction = decide(&error);
        if reaction == Reaction::End {
            return Err(error.into());
        }
        if reaction == Reaction::MakeRoom && self.ballast.free() {
            tracing::warn!("the disk is full: the ballast is given away");
            return Ok(true);
        }
        if reaction == Reaction::MakeRoom
            && !std::mem::replace(&mut self.written_back, true)
            && self.store.checkpoint().unwrap_or(false)
        {
            return Ok(true);
        }
        let first = self.trouble.is_none();
        let mut trouble = self.trouble.filter(|trouble| trouble.reaction == reaction).unwrap_or_else(|| Trouble::new(reaction));
        let wait = trouble.next_wait();
        (self.trouble, self.due) = (Some(trouble), Some(Instant::now() + wait));
        if first {
            tracing::error!(%error, "degraded: what is new waits in memory until the disk takes it");
        }
        let state_dir = &self.settings.retain.state_dir;
        let told = error.disk_fault().map_or_else(|| error.to_string(), |fault| error.of_disk(fault, state_dir));
        let disk = &mut self.status.disk;
        disk.degraded = Some(told);
        disk.state = match reaction {
            Reaction::MakeRoom => DiskState::Full,
            Reaction::Hold => DiskState::ReadOnly,
            Reaction::Wait | Reaction::End => disk.state,
        };
        // Room may have been made in the file itself, which needs none on the disk.
        self.rest = 0;
        Ok(false)
    }

    fn recovered(&mut self) -> Result<(), CollectError> {
        if self.trouble.take().is_some() {
            tracing::info!("the disk takes writes again");
            self.status.disk.degraded = None;
            self.rest = 0;
            self.windows.reset(&self.store)?;
        }
        self.write_anchors()
    }

    /// An anchor that can't be written now holds in memory and is written after the next commit that succeeds.
    fn write_anchors(&mut self) -> Result<(), CollectError> {
        while let Some(anchor) = self.unwritten_anchors.first() {
            match self.store.add_anchor(anchor) {
                Ok(()) => drop(self.unwritten_anchors.remove(0)),
                Err(error) if decide(&error) == Reaction::End => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), CollectError> {
        self.waited()?;
        if self.trouble.is_none() {
            self.make_windows()?;
            self.keep_bonds()?;
        }
        self.retain()?;
        if let Ok(stats) = self.store.stats() {
            self.status.head = stats.head.0;
            self.status.database_octets = stats.database_octets;
            self.status.wal_octets = stats.wal_octets;
        }
        if let Ok(damage) = self.store.damage() {
            let detail: Vec<String> = damage.iter().map(Damage::summary).collect();
            self.status.store = StoreStatus { state: if detail.is_empty() { "ok" } else { "damaged" }.to_owned(), detail };
        }
        self.status.disk.waiting = if self.trouble.is_some() { self.ring.len() as u64 } else { 0 };
        self.status.disk.ballast = self.ballast.is_kept();
        self.status.process = Process::current();
        self.publish.send_replace(self.status.clone());
        Ok(())
    }

    /// What has waited for its other part for too long goes without it.
    fn waited(&mut self) -> Result<(), CollectError> {
        let (now, mut any) = (self.boot.now(), false);
        for place in 0..self.joining.len() {
            let joined = self.joining[place].due(now);
            any |= self.joined(place, joined);
        }
        if any && self.trouble.is_none() { self.commit() } else { Ok(()) }
    }

    fn keep_bonds(&mut self) -> Result<(), CollectError> {
        let bonds = self.settings.bonds.all();
        if bonds == self.bonds_kept {
            return Ok(());
        }
        match bonds::keep(&mut self.store, &self.bonds_kept, &bonds) {
            Ok(()) => self.bonds_kept = bonds,
            Err(error) if decide(&error) == Reaction::End => return Err(error.into()),
            // It is tried again at the next tick.
            Err(_) => {}
        }
        Ok(())
    }

    fn make_windows(&mut self) -> Result<(), CollectError> {
        match self.windows.advance(&mut self.store, &self.anchors, self.boot.id(), self.boot.now()) {
            Ok(0) => Ok(()),
            Ok(_) => {
                (self.bell)();
                Ok(())
            }
            Err(error) => {
                self.failed(error)?;
                Ok(self.windows.reset(&self.store)?)
            }
        }
    }

    /// Keeps the log within its limits, and the ballast where there is room for it.
    fn retain(&mut self) -> Result<(), CollectError> {
        if self.rest > 0 {
            self.rest -= 1;
            return Ok(());
        }
        self.rest = RETAIN_EVERY - 1;
        if self.ballast.is_needed(self.retain.disk()) && self.ballast.free() {
            tracing::warn!("the disk is all but full: the ballast is given away");
        }
        let pass = match self.retain.pass(&mut self.store, &self.anchors, self.boot.id(), self.boot.now()) {
            Ok(pass) => pass,
            // Deleting needs room too; it is tried again at the next tick.
            Err(error) if decide(&error) != Reaction::End => {
                self.rest = 0;
                self.status.disk.free_octets = self.retain.disk().free;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.ballast.restore(pass.disk) {
            tracing::info!("the ballast is in place");
        }
        if pass.evicted.unsettled > 0 {
            tracing::warn!(records = pass.evicted.unsettled, "records that were still owed made room for new ones");
            (self.bell)();
        }
        let floor = self.settings.retain.free_floor;
        let disk = &mut self.status.disk;
        disk.evicted += pass.evicted.records;
        disk.evicted_unsettled += pass.evicted.unsettled;
        (disk.free_octets, disk.live_octets, disk.limit_octets) = (pass.disk.free, pass.room.live(), pass.limit);
        if self.trouble.is_none() {
            disk.state = match pass.disk {
                disk if disk.read_only => DiskState::ReadOnly,
                _ if !self.ballast.is_kept() => DiskState::Full,
                disk if disk.free < floor => DiskState::NearFull,
                _ => DiskState::Ok,
            };
        }
        if pass.unfinished {
            self.rest = 0;
        }
        if self.trouble.is_some_and(|trouble| trouble.reaction == Reaction::MakeRoom) && pass.evicted.frames > 0 {
            self.due = Some(Instant::now());
        }
        Ok(())
    }

    fn clock(&mut self, report: ClockReport) -> Result<(), CollectError> {
        self.status.clock = report.quality.name().to_owned();
        self.settings.time.note((report.quality == ClockQuality::Ntp).then_some((report.at, report.wall)));
        self.anchor(report)?;
        if self.tell_missed() && self.trouble.is_none() {
            self.commit()?;
        }
        Ok(())
    }

    /// `true`: there was something to tell.
    fn tell_missed(&mut self) -> bool {
        let gap = self.missed.take().map(|missed| missed.gap(self.stamp(), &self.anchors));
        gap.map(|gap| self.ring.push(gap, true)).is_some()
    }

    fn stamp(&self) -> Stamp {
        Stamp { boot: self.boot.id(), arrived: self.boot.now(), device_time: None, device_clock: None, stored: false }
    }

    /// An anchor is kept when the clock is first known, gets better or worse, or was moved; never just because time passes.
    fn anchor(&mut self, report: ClockReport) -> Result<(), CollectError> {
        let boot = self.boot.id();
        let known = self.anchors.iter().filter(|anchor| anchor.boot == boot).last().copied();
        let moved = known.is_none_or(|anchor| {
            let expected = anchor.wall.0 + (report.at.0 as i64 - anchor.at.0 as i64);
            anchor.quality != report.quality || (report.wall.0 - expected).abs() > MOVED_MS
        });
        if !moved {
            return Ok(());
        }
        let anchor =
            Anchor { boot, at: report.at, wall: report.wall, quality: report.quality, uncertainty_ms: report.uncertainty_ms };
        tracing::info!(quality = report.quality.name(), wall = %report.wall, "clock anchor");
        self.anchors.push(anchor);
        if self.unwritten_anchors.len() < MAX_ANCHORS {
            self.unwritten_anchors.push(anchor);
        }
        if self.trouble.is_none() {
            self.write_anchors()?;
        }
        (self.bell)();
        Ok(())
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

    /// The number the device gave it. Those of another device under its address say nothing of what it has told.
    fn numbered(&self, draft: &Draft) -> Option<(Option<DeviceTime>, u32)> {
        numbered(draft).filter(|_| self.is_admitted(draft))
    }

    fn is_admitted(&self, draft: &Draft) -> bool {
        let place = self.places.get(&draft.device);
        place.is_some_and(|place| self.settings.devices[*place].nameplate.admits(draft.nameplate.as_ref()))
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

    fn device(&mut self, device: DeviceId) -> Option<&mut DeviceStatus> {
        self.places.get(&device).map(|place| &mut self.status.devices[*place])
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
