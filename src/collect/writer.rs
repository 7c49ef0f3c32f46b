//! The one writer of readings: collects drafts into group commits, keeps the windows in step and answers for its state.
//!
//! It runs on a thread of its own, because a card may take seconds for one fsync; what the radio brings waits meanwhile in
//! the bounded channel between them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{AdapterStatus, ClockReport, CollectStatus, DeviceState, DeviceStatus, StoreStatus, Taken, Windows, take};
use crate::radio::{BootClock, Heard, InformationField, RadioEvent};
use crate::reading::{Anchor, Anchors, Body, ClockQuality, DeviceId, Metric, Value};
use crate::store::{Damage, Draft, MAX_RECORDS, Store, StoreError};

/// Windows are made and the status is renewed once a second.
const TICK: Duration = Duration::from_secs(1);
/// The clock has moved against the boot clock: a step, or drift worth a new anchor.
const MOVED_MS: i64 = 250;
/// Reject and warning names a device may fill its status with: the decoders' own names are fewer.
const MAX_REASONS: usize = 32;

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
}

#[derive(Clone, Debug)]
pub struct CollectedDevice {
    pub id: DeviceId,
    pub name: String,
    pub kind: String,
}

pub struct Collector {
    settings: CollectSettings,
    store: Store,
    windows: Windows,
    anchors: Anchors,
    boot: BootClock,
    buffer: Vec<Draft>,
    /// When the oldest draft in the buffer must be on the card.
    due: Option<Instant>,
    status: CollectStatus,
    places: BTreeMap<DeviceId, usize>,
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
        let places = settings.devices.iter().enumerate().map(|(place, device)| (device.id, place)).collect();
        let devices = settings.devices.iter().map(|device| DeviceStatus {
            name: device.name.clone(),
            kind: device.kind.clone(),
            address: device.id.to_string(),
            ..DeviceStatus::default()
        });
        let status = CollectStatus {
            gateway: settings.gateway.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: ClockQuality::Unsynced.name().to_owned(),
            devices: devices.collect(),
            ..CollectStatus::default()
        };
        Ok(Self { settings, store, windows, anchors, boot, buffer: Vec::new(), due: None, status, places, publish, bell })
    }

    /// Runs until told to stop; then commits what it holds.
    pub async fn run(
        mut self,
        mut radio: mpsc::Receiver<RadioEvent>,
        mut clock: mpsc::Receiver<ClockReport>,
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
                Some(event) = radio.recv() => self.radio(event, &mut radio)?,
            }
        }
        // The radio has been stopped first: what it had already handed over still belongs on the card.
        while let Ok(event) = radio.try_recv() {
            self.radio(event, &mut radio)?;
        }
        self.commit()
    }

    /// Takes in an event and whatever else waits already, up to one commit: what came while the card was busy with the last
    /// commit is on it with the next, however much it is.
    fn radio(&mut self, event: RadioEvent, waiting: &mut mpsc::Receiver<RadioEvent>) -> Result<(), CollectError> {
        let full = self.settings.commit_records.min(MAX_RECORDS / 2);
        let (mut next, mut at_once) = (Some(event), false);
        while let Some(event) = next.take() {
            at_once |= self.take_in(event);
            if self.buffer.len() < full {
                next = waiting.try_recv().ok();
            }
        }
        if at_once || self.buffer.len() >= full {
            return self.commit();
        }
        if !self.buffer.is_empty() && self.due.is_none() {
            self.due = Some(Instant::now() + self.settings.commit_interval);
        }
        Ok(())
    }

    /// `true`: the device sends it only once, and it is committed now.
    fn take_in(&mut self, event: RadioEvent) -> bool {
        match event {
            RadioEvent::Heard(heard) => return self.heard(&heard),
            RadioEvent::Ready { device } => self.state(device, DeviceState::Connected, None),
            RadioEvent::Lost { device, reason } => self.state(device, DeviceState::Lost, Some(reason)),
            RadioEvent::Information { device, field, text } => {
                if let Some(device) = self.device(device) {
                    device.information.insert(information_name(field).to_owned(), text);
                }
            }
            RadioEvent::Adapter { usable, detail } => self.status.adapter = AdapterStatus { usable, detail },
        }
        false
    }

    fn heard(&mut self, heard: &Heard) -> bool {
        let Some(&place) = self.places.get(&heard.device) else { return false };
        let taken = match take(self.store.site_key(), self.boot.id(), heard) {
            None => return false,
            Some(Err(error)) => {
                tracing::debug!(device = %heard.device, characteristic = %heard.characteristic, error = error.name(), "value not taken");
                count(&mut self.status.devices[place].rejected, error.name());
                return false;
            }
            Some(Ok(taken)) => taken,
        };
        self.note(place, heard, &taken);
        self.buffer.extend(taken.drafts);
        taken.at_once
    }

    fn note(&mut self, place: usize, heard: &Heard, taken: &Taken) {
        let at = self.anchors.wall(self.boot.id(), heard.arrived).map(|wall| wall.at.to_string());
        let device = &mut self.status.devices[place];
        taken.discarded.iter().for_each(|reason| count(&mut device.rejected, reason.name()));
        taken.warnings.iter().for_each(|warning| count(&mut device.warnings, warning));
        for draft in &taken.drafts {
            let Body::Reading(reading) = &draft.body else { continue };
            match (draft.stream.map(|stream| stream.metric), &reading.value) {
                (Some(Metric::BatteryLevel), Value::Number { value, .. }) => {
                    device.battery_percent = u8::try_from(value.mantissa()).ok();
                }
                _ => {
                    device.readings += 1;
                    device.last_reading_at.clone_from(&at);
                }
            }
        }
    }

    fn commit(&mut self) -> Result<(), CollectError> {
        self.due = None;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let drafts = std::mem::take(&mut self.buffer);
        let sources: Vec<DeviceId> = drafts.iter().map(|draft| draft.device).collect();
        let appended = self.store.append(drafts)?;
        self.status.commits += 1;
        for (record, source) in appended.records.iter().zip(sources) {
            match record {
                Some(_) => self.status.durable += 1,
                None => self.device(source).into_iter().for_each(|device| device.duplicates += 1),
            }
        }
        if appended.records.iter().any(Option::is_some) {
            (self.bell)();
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), CollectError> {
        let now = self.boot.now();
        if self.windows.advance(&mut self.store, &self.anchors, self.boot.id(), now)? > 0 {
            (self.bell)();
        }
        let stats = self.store.stats()?;
        self.status.head = stats.head.0;
        self.status.database_octets = stats.database_octets;
        self.status.wal_octets = stats.wal_octets;
        let detail: Vec<String> = self.store.damage()?.iter().map(Damage::summary).collect();
        self.status.store = StoreStatus { state: if detail.is_empty() { "ok" } else { "damaged" }.to_owned(), detail };
        self.publish.send_replace(self.status.clone());
        Ok(())
    }

    /// An anchor is kept when the clock is first known, gets better or worse, or was moved; never just because time passes.
    fn clock(&mut self, report: ClockReport) -> Result<(), CollectError> {
        self.status.clock = report.quality.name().to_owned();
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
        self.store.add_anchor(&anchor)?;
        self.anchors.push(anchor);
        (self.bell)();
        Ok(())
    }

    fn state(&mut self, device: DeviceId, state: DeviceState, detail: Option<String>) {
        if let Some(status) = self.device(device) {
            (status.state, status.detail) = (state, detail);
        }
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
