//! What a configured device tells, octet by octet, for a person who asked: of one device, for a while, so many values. The
//! octets may be a patient's: they are in memory alone, go to who asked and nowhere else, and are gone with the time asked for.

use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::hex;
use crate::radio::Heard;
use crate::reading::{BootMillis, DeviceId};

/// As many as a profile may have tests; who asks fetches them every second.
const MAX_WAITING: usize = 256;
/// Nobody stands by a device for longer.
pub const MOST_S: u64 = 600;

/// One door for whoever hears and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Overhearing(Arc<Mutex<Option<Listening>>>);

#[derive(Debug)]
struct Listening {
    device: DeviceId,
    until: BootMillis,
    waiting: Vec<Overheard>,
    lost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overheard {
    /// UUID of the characteristic.
    pub source: String,
    /// Hexadecimal.
    pub octets: String,
    pub boot_ms: u64,
}

/// What came since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub values: Vec<Overheard>,
    /// Values for which there was no room.
    pub lost: u64,
}

/// Somebody listens to another device, and for how long still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    pub seconds: u64,
}

impl Overhearing {
    /// Whoever asks again for the same device begins anew.
    pub fn begin(&self, now: BootMillis, device: DeviceId, seconds: u64) -> Result<(), Busy> {
        let mut listening = self.listening();
        if let Some(other) = listening.as_ref().filter(|other| other.device != device && other.until > now) {
            return Err(Busy { seconds: (other.until.0 - now.0).div_ceil(1_000) });
        }
        let until = BootMillis(now.0 + seconds.min(MOST_S) * 1_000);
        *listening = Some(Listening { device, until, waiting: Vec::new(), lost: 0 });
        Ok(())
    }

    /// `None`: nobody asked for this device, or its time is over and everything was fetched.
    pub fn take(&self, now: BootMillis, device: DeviceId) -> Option<Batch> {
        let mut slot = self.listening();
        let listening = slot.as_mut().filter(|listening| listening.device == device)?;
        let batch = Batch { values: std::mem::take(&mut listening.waiting), lost: std::mem::take(&mut listening.lost) };
        let over = listening.until <= now;
        if over {
            *slot = None;
        }
        (!over || batch != Batch::default()).then_some(batch)
    }

    pub fn hear(&self, heard: &Heard) {
        let mut slot = self.listening();
        let Some(listening) = slot.as_mut() else { return };
        // Nobody came for the rest.
        if listening.until.0 + MOST_S * 1_000 < heard.arrived.0 {
            *slot = None;
            return;
        }
        if listening.device != heard.device || listening.until < heard.arrived {
            return;
        }
        if listening.waiting.len() >= MAX_WAITING {
            listening.lost += 1;
            return;
        }
        let (source, octets) = (heard.characteristic.to_string(), hex::encode(&heard.octets));
        listening.waiting.push(Overheard { source, octets, boot_ms: heard.arrived.0 });
    }

    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.0.lock().expect("nobody panics while holding the door")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::sig_uuid;
    use crate::reading::SecurityLevel;

    const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 1]);
    const OTHER: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 2]);

    fn heard(device: DeviceId, at: u64) -> Heard {
        Heard {
            device,
            characteristic: sig_uuid(0xFF02),
            octets: vec![0xEB, 1],
            arrived: BootMillis(at),
            indicated: false,
            device_clock: None,
            security: SecurityLevel::None,
            nameplate: None,
        }
    }

    #[test]
    fn octets_are_kept_of_one_device_while_somebody_asked_and_no_longer() {
        let overhearing = Overhearing::default();
        overhearing.hear(&heard(DEVICE, 0));
        assert_eq!(overhearing.take(BootMillis(0), DEVICE), None);
        overhearing.begin(BootMillis(1_000), DEVICE, 10).unwrap();
        assert_eq!(overhearing.begin(BootMillis(2_000), OTHER, 10), Err(Busy { seconds: 9 }));
        for (device, at) in [(DEVICE, 2_000), (OTHER, 2_000), (DEVICE, 11_001)] {
            overhearing.hear(&heard(device, at));
        }
        assert_eq!(overhearing.take(BootMillis(3_000), OTHER), None);
        let batch = overhearing.take(BootMillis(12_000), DEVICE).unwrap();
        let value = Overheard { source: sig_uuid(0xFF02).to_string(), octets: "eb01".to_owned(), boot_ms: 2_000 };
        assert_eq!(batch, Batch { values: vec![value], lost: 0 });
        assert_eq!(overhearing.take(BootMillis(12_000), DEVICE), None, "its time is over");
        overhearing.begin(BootMillis(12_000), OTHER, 10).unwrap();
    }

    #[test]
    fn what_nobody_fetches_is_bounded_counted_and_forgotten() {
        let overhearing = Overhearing::default();
        overhearing.begin(BootMillis(0), DEVICE, u64::MAX).unwrap();
        (0..300).for_each(|at| overhearing.hear(&heard(DEVICE, at)));
        let batch = overhearing.take(BootMillis(1_000), DEVICE).unwrap();
        assert_eq!((batch.values.len(), batch.lost), (MAX_WAITING, 44));
        overhearing.hear(&heard(DEVICE, 2_000));
        overhearing.hear(&heard(OTHER, 3 * MOST_S * 1_000));
        assert_eq!(overhearing.take(BootMillis(3_000), DEVICE), None);
    }
}
