//! The clocks of all devices, by place, and how what is known of them is kept over restarts.

use std::collections::BTreeMap;

use super::{CollectedDevice, Dated, DeviceClock};
use crate::gatt::Observed;
use crate::procedure::ClockOutcome;
use crate::radio::Heard;
use crate::reading::{BootMillis, DeviceId, Metric, Timestamp};
use crate::store::{Store, StoreError};

pub struct Clocks(Vec<Clock>);

struct Clock {
    device: DeviceId,
    clock: DeviceClock,
    /// Up to which reading of it that takes account of.
    read_at: Option<BootMillis>,
    unwritten: bool,
}

impl Clocks {
    pub fn of_store(store: &Store, devices: &[CollectedDevice]) -> Result<Self, StoreError> {
        let clock = |device: &CollectedDevice| {
            let marks: BTreeMap<String, u64> = store.marks(&mark(device.id, ""))?.into_iter().collect();
            let clock = DeviceClock::of_marks(|name| marks.get(&mark(device.id, name)).copied());
            Ok(Clock { device: device.id, clock, read_at: None, unwritten: false })
        };
        devices.iter().map(clock).collect::<Result<_, _>>().map(Self)
    }

    /// Takes in that it was read in this connection; says by how many milliseconds somebody moved it since it was last.
    pub fn read(&mut self, place: usize, heard: &Heard, true_time: impl Fn(BootMillis) -> Option<Timestamp>) -> Option<i64> {
        let (shown, read_at) = heard.device_clock?;
        let known = self.0.get_mut(place).filter(|known| known.read_at != Some(read_at))?;
        let now = true_time(read_at)?;
        (known.read_at, known.unwritten) = (Some(read_at), true);
        known.clock.read(shown, now)
    }

    /// We were to set it; says by how many milliseconds we did.
    pub fn set(&mut self, place: usize, outcome: ClockOutcome) -> Option<i64> {
        let (known, ClockOutcome::Set { before, after }) = (self.0.get_mut(place)?, outcome) else { return None };
        known.unwritten = true;
        known.clock.set(before, after)
    }

    /// The value as it is to be understood where the clock, as it was read, does not date it.
    pub fn dated(
        &self,
        device: &CollectedDevice,
        place: usize,
        heard: &Heard,
        record: &Observed,
        now: Timestamp,
    ) -> Option<(Heard, Observed)> {
        let ((shown, read_at), measured) = (heard.device_clock?, record.device_time?);
        // A sensor's session has a clock of its own.
        if record.values.iter().any(|value| value.metric == Metric::GlucoseInterstitial) {
            return None;
        }
        match self.0.get(place)?.clock.dated(measured, now, &device.zone) {
            Dated::AsRead => None,
            Dated::AsItStood(by_ms) => {
                let stood = shown.plus_seconds(by_ms / 1_000)?;
                Some((Heard { device_clock: Some((stood, read_at)), ..heard.clone() }, record.clone()))
            }
            Dated::Unclear => Some((Heard { device_clock: None, ..heard.clone() }, Observed { stored: true, ..record.clone() })),
        }
    }

    /// What became known goes with the records it dates, in one commit.
    pub fn marks(&self) -> impl Iterator<Item = (String, u64)> {
        let of = |known: &Clock| {
            let device = known.device;
            known.clock.marks().into_iter().map(move |(name, value)| (mark(device, &name), value))
        };
        self.0.iter().filter(|known| known.unwritten).flat_map(of)
    }

    pub fn written(&mut self) {
        self.0.iter_mut().for_each(|known| known.unwritten = false);
    }
}

fn mark(device: DeviceId, name: &str) -> String {
    format!("clock.{device}.{name}")
}
