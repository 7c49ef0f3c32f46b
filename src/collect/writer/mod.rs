//! The one writer of readings: collects drafts into group commits, keeps the windows in step and answers for its state.
//!
//! It runs on a thread of its own, because a card may take seconds for one fsync; what the radio brings waits meanwhile in
//! the bounded channel between them.

mod commit;
mod events;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::commit::COMMIT;
use super::adverts::{self, AdvertFormat, Adverts};
use super::clocks::Clocks;
use super::numbers::Numbers;
use super::trouble::{Missed, Reaction, Ring, Trouble, decide};
use super::{
    ClockReport, CollectStatus, DeviceStatus, Joining, NotAudited, Overhearing, Retain, RetainSettings, StoreStatus, ToAudit,
    Windows,
};
use crate::monitor::machine::Process;
use crate::profile::{Assembly, Profile};
use crate::radio::{BondState, Bonds, BootClock, Durable, RadioEvent, TrueTime};
use crate::reading::{Anchor, Anchors, ClockQuality, DeviceId, Nameplate, Stamp};
use crate::store::ballast::Ballast;
use crate::store::{AuditEntry, Damage, Store, StoreError};

/// Windows are made and the status is renewed once a second.
const TICK: Duration = Duration::from_secs(1);
/// Clock anchors that wait for a disk that takes no writes.
const MAX_ANCHORS: usize = 64;
/// The clock has moved against the boot clock: a step, or drift worth a new anchor.
const MOVED_MS: i64 = 250;

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
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
