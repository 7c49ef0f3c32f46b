//! The way of a value from its device into the one channel out of the radio.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};
use uuid::Uuid;

use super::boot::boot_now;
use super::central::{Central, CentralError, Found, Handle};
use super::event::{Heard, InformationField, RadioEvent};
use super::settings::{ClockDecoder, RadioDevice};
use crate::gatt::told_better_by;
use crate::reading::{BootMillis, DeviceId, DeviceTime, SecurityLevel};

/// A serial number has some twenty characters; a text beyond this makes no sense.
const TEXT_LIMIT: usize = 64;

/// What is known of the connection when a value arrives.
#[derive(Clone, Default)]
pub struct Facts(Arc<Mutex<Known>>);

pub struct Known {
    /// The device's clock, read in this connection.
    pub clock: Option<(DeviceTime, BootMillis)>,
    pub indicates_only: BTreeSet<Uuid>,
    pub security: SecurityLevel,
    /// Where a procedure under way listens in.
    pub tap: Option<mpsc::Sender<(Uuid, Vec<u8>)>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { clock: None, indicates_only: BTreeSet::new(), security: SecurityLevel::None, tap: None }
    }
}

impl Facts {
    pub fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("nobody panics while holding the facts")
    }

    pub fn heard(&self, device: DeviceId, characteristic: Uuid, octets: Vec<u8>) -> RadioEvent {
        let known = self.lock();
        RadioEvent::Heard(Heard {
            device,
            characteristic,
            octets,
            arrived: boot_now(),
            indicated: known.indicates_only.contains(&characteristic),
            device_clock: known.clock,
            security: known.security,
        })
    }
}

/// How an opened handle is passed on: `None` while it is being opened.
pub type Opening = watch::Sender<Option<Result<Handle, CentralError>>>;

/// Opens the device's one handle and stream under `path` and hands its values on for the life of the process. A task of its
/// own, so that no deadline can drop the stream. It waits for a slow receiver; btleplug's queue then holds what comes.
pub async fn hand_on(
    central: Arc<Central>,
    path: String,
    device: Arc<RadioDevice>,
    facts: Facts,
    events: mpsc::Sender<RadioEvent>,
    opening: Opening,
) {
    let opened = async {
        let handle = central.peripheral(&path).await?;
        let values = handle.values().await?;
        Ok((handle, values))
    };
    let values = match opened.await {
        Ok((handle, values)) => {
            opening.send_replace(Some(Ok(handle)));
            values
        }
        Err(error) => {
            opening.send_replace(Some(Err(error)));
            return;
        }
    };
    let mut values = pin!(values);
    while let Some((characteristic, octets)) = values.next().await {
        let tap = facts.lock().tap.clone();
        if let Some(tap) = tap {
            // Whoever listened may just have ended.
            let _ = tap.send((characteristic, octets.clone())).await;
        }
        // BlueZ may tell values before this connection subscribed: it renews what the last one had. They count.
        if !device.subscribe.contains(&characteristic) {
            continue;
        }
        if events.send(facts.heard(device.id, characteristic, octets)).await.is_err() {
            return;
        }
    }
}

/// Finds what the device offers, reads its clock and subscribes to everything wanted that it has.
pub async fn subscribe(
    handle: &Handle,
    device: &RadioDevice,
    facts: &Facts,
    decoder: ClockDecoder,
) -> Result<Vec<Found>, CentralError> {
    let found = handle.discover().await?;
    facts.lock().indicates_only = found.iter().filter(|f| f.indicates_only).map(|f| f.uuid).collect();
    read_clock(handle, device, &found, facts, decoder).await;
    let mut refused = None;
    let mut subscribed = 0;
    let better = |uuid| told_better_by(uuid).filter(|better| device.subscribe.contains(better));
    let offered = |uuid| found.iter().any(|f| f.uuid == uuid && f.tells);
    for uuid in device.subscribe.iter().filter(|uuid| !better(**uuid).is_some_and(offered)) {
        let Some(wanted) = found.iter().find(|f| f.uuid == *uuid && f.tells) else {
            debug!(device = %device.id, characteristic = %uuid, "the device does not offer it");
            continue;
        };
        match handle.subscribe(wanted).await {
            Ok(()) => subscribed += 1,
            Err(error) if error.is_refusal() => {
                warn!(device = %device.id, characteristic = %uuid, %error, "subscription refused");
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) if subscribed == 0 => Err(error),
        _ if subscribed == 0 && !device.subscribe.is_empty() => Err(CentralError::nothing_offered()),
        _ => Ok(found),
    }
}

async fn read_clock(handle: &Handle, device: &RadioDevice, found: &[Found], facts: &Facts, decoder: ClockDecoder) {
    for clock in device.clock.iter().filter_map(|uuid| found.iter().find(|f| f.uuid == *uuid && f.readable)) {
        match handle.read(clock).await {
            Ok(octets) => {
                let read_at = boot_now();
                if let Some(time) = decoder(clock.uuid, &octets) {
                    facts.lock().clock = Some((time, read_at));
                    return;
                }
                debug!(device = %device.id, characteristic = %clock.uuid, "the device's clock shows no time");
            }
            Err(error) => debug!(device = %device.id, characteristic = %clock.uuid, %error, "clock not read"),
        }
    }
}

/// Reads what is worth knowing once a connection, but not worth delaying a measurement for.
pub async fn read(handle: Handle, device: Arc<RadioDevice>, found: Vec<Found>, facts: Facts, events: mpsc::Sender<RadioEvent>) {
    for found in device.read.iter().filter_map(|uuid| found.iter().find(|found| found.readable && found.uuid == *uuid)) {
        let octets = match handle.read(found).await {
            Ok(octets) => octets,
            Err(error) => {
                debug!(device = %device.id, characteristic = %found.uuid, %error, "not read");
                continue;
            }
        };
        let event = match information_field(found.uuid) {
            Some(field) => RadioEvent::Information { device: device.id, field, text: information_text(&octets) },
            // What is read shows up in the stream as well, and is handed on from there.
            None if device.subscribe.contains(&found.uuid) => continue,
            None => facts.heard(device.id, found.uuid, octets),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Device Information Service 1.1, section 3: which of its characteristics are texts for people.
fn information_field(characteristic: Uuid) -> Option<InformationField> {
    let short = bluetooth_short(characteristic)?;
    Some(match short {
        0x2A29 => InformationField::Manufacturer,
        0x2A24 => InformationField::Model,
        0x2A25 => InformationField::SerialNumber,
        0x2A26 => InformationField::FirmwareRevision,
        0x2A27 => InformationField::HardwareRevision,
        0x2A28 => InformationField::SoftwareRevision,
        _ => return None,
    })
}

/// The 16-bit form of a UUID that the Bluetooth SIG assigned.
fn bluetooth_short(uuid: Uuid) -> Option<u16> {
    const BASE: u128 = 0x0000_0000_0000_1000_8000_0080_5F9B_34FB;
    let short = u16::try_from(uuid.as_u128() >> 96).ok()?;
    (uuid.as_u128() == BASE | u128::from(short) << 96).then_some(short)
}

/// Devices pad with NULs and mix encodings; what cannot be read becomes U+FFFD.
fn information_text(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).chars().filter(|c| !c.is_control()).take(TEXT_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_texts_lose_padding_and_stay_short() {
        assert_eq!(information_text(b"SN0042\0\0\0"), "SN0042");
        assert_eq!(information_text(b" Acme\xFF \n\0"), "Acme\u{FFFD}");
        assert_eq!(information_text(&[b'x'; 500]).len(), TEXT_LIMIT);
        assert_eq!(information_text(b""), "");
    }

    #[test]
    fn only_uuids_of_the_sig_have_a_short_form() {
        let serial: Uuid = "00002a25-0000-1000-8000-00805f9b34fb".parse().unwrap();
        assert_eq!(information_field(serial), Some(InformationField::SerialNumber));
        let other: Uuid = "00002a25-0000-1000-8000-00805f9b34fc".parse().unwrap();
        assert_eq!(information_field(other), None);
    }
}
