//! Up to which number each device has told all it stored, kept over restarts: a process that starts goes on from there. It is
//! moved only with a transfer that was complete, so that nothing missing lies below it.

use std::collections::{BTreeMap, BTreeSet};

use super::CollectedDevice;
use crate::radio::Durable;
use crate::reading::{Body, DeviceId, DeviceTime};
use crate::store::{Draft, STORED_MARKS, Store, StoreError};

/// What a device counts in: `None`, or the session of a sensor.
type Session = Option<DeviceTime>;

pub struct Numbers {
    durable: Durable,
    /// Devices that told all, of which that is not in the store yet.
    complete: BTreeSet<DeviceId>,
}

impl Numbers {
    /// Tells what is in the store to whoever asks devices for more.
    pub fn of_store(store: &Store, devices: &[CollectedDevice], durable: Durable) -> Result<Self, StoreError> {
        for device in devices {
            let marks: BTreeMap<String, u64> = store.marks(&mark(device.id, ""))?.into_iter().collect();
            let read = |name| marks.get(&mark(device.id, name)).copied();
            let session = read("session").map(u64::cast_signed).filter(|seconds| *seconds != NO_SESSION);
            if let Some(last) = read("last").and_then(|last| u32::try_from(last).ok()) {
                durable.note(device.id, session.and_then(|seconds| EPOCH.plus_seconds(seconds)), last);
            }
        }
        Ok(Self { durable, complete: BTreeSet::new() })
    }

    /// It has told all it stored.
    pub fn told_all(&mut self, device: DeviceId) {
        self.complete.insert(device);
    }

    /// What a commit of all that waits makes true.
    pub fn marks<'a>(&self, drafts: impl Iterator<Item = &'a Draft> + Clone) -> Vec<(String, u64)> {
        self.complete.iter().flat_map(|device| self.of_device(*device, drafts.clone())).flatten().collect()
    }

    fn of_device<'a>(&self, device: DeviceId, drafts: impl Iterator<Item = &'a Draft>) -> Option<[(String, u64); 2]> {
        let (mut session, mut last) = self.durable.known_of(device).unzip();
        for (of, number) in drafts.filter(|draft| draft.device == device).filter_map(numbered) {
            last = if session == Some(of) { last.max(Some(number)) } else { Some(number) };
            session = Some(of);
        }
        let seconds = session?.map_or(Some(NO_SESSION), |began| Some(began.since_ms(EPOCH)? / 1_000))?;
        Some([(mark(device, "session"), seconds.cast_unsigned()), (mark(device, "last"), u64::from(last?))])
    }

    /// They are on the card, and the marks with them if there were any.
    pub fn written(&mut self, numbered: impl IntoIterator<Item = (DeviceId, Session, u32)>, marked: bool) {
        numbered.into_iter().for_each(|(device, session, number)| self.durable.note(device, session, number));
        if marked {
            self.complete.clear();
        }
    }
}

/// The number a device gave its value, and for a sensor that counts minutes the start of the session they are of.
pub fn numbered(draft: &Draft) -> Option<(Session, u32)> {
    let Body::Reading(reading) = &draft.body else { return None };
    let (sequence, stream) = (reading.sequence?, draft.stream?);
    let session =
        draft.stamp.device_time.filter(|_| stream.counts_minutes()).and_then(|time| time.plus_minutes(-i64::from(sequence)));
    Some((session, sequence))
}

fn mark(device: DeviceId, name: &str) -> String {
    format!("{STORED_MARKS}{device}.{name}")
}

const EPOCH: DeviceTime = DeviceTime { year: Some(1970), month: Some(1), day: Some(1), hour: 0, minute: 0, second: 0 };
/// No session begins then.
const NO_SESSION: i64 = i64::MIN;
