//! Carries out [`Retrieve`] on a device that is connected: writes to its control point, and listens to what comes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, info};
use uuid::Uuid;

use super::central::{Found, Handle};
use super::event::RadioEvent;
use super::settings::RadioDevice;
use super::steps::Link;
use crate::gatt::{Told, Width, sig_uuid, stored_record};
use crate::procedure::{Action, Event, Outcome, Retrieve};
use crate::reading::DeviceId;

/// Record Access Control Point.
const CONTROL_POINT: Uuid = sig_uuid(0x2A52);
/// Values between the stream and the procedure: it only looks at them, so none waits long.
const TAPPED: usize = 64;

/// The highest sequence number of each device that is durable. Whoever commits writes it, whoever asks a device for more
/// reads it; a process that has just started knows of none, and asks for everything: what comes twice is one record.
#[derive(Clone, Debug, Default)]
pub struct Durable(Arc<Mutex<BTreeMap<DeviceId, u32>>>);

impl Durable {
    pub fn note(&self, device: DeviceId, sequence: u32) {
        let mut known = self.known();
        let last = known.entry(device).or_insert(sequence);
        *last = sequence.max(*last);
    }

    pub fn last(&self, device: DeviceId) -> Option<u32> {
        self.known().get(&device).copied()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<DeviceId, u32>> {
        self.0.lock().expect("nobody panics while holding the numbers")
    }
}

/// Fetches what the device stored; ends with the procedure, or with the link, when it is dropped.
pub async fn stored(Link { handle, device, found, facts, events }: &Link, durable: Durable) {
    let Some(memory) = device.retrieve else { return };
    let Some(control_point) = found.iter().find(|found| found.uuid == CONTROL_POINT && found.tells && found.writable) else {
        debug!(device = %device.id, "it has no Record Access Control Point");
        return;
    };
    if let Some((features, bits)) = memory.announced
        && !announces(handle, found, features, bits).await
    {
        debug!(device = %device.id, "it does not say that it stores what can be told apart");
        return;
    }
    let (tap, mut tapped) = mpsc::channel(TAPPED);
    facts.lock().tap = Some(tap);
    let last = memory.numbers.and_then(|_| durable.last(device.id));
    let mut retrieve = Retrieve::new(memory.numbers.unwrap_or(Width::U16), last);
    let begun = match handle.subscribe(control_point).await {
        Ok(()) => retrieve.poll(Instant::now(), Event::Begin),
        Err(error) => {
            debug!(device = %device.id, %error, "its control point is not subscribed to");
            vec![Action::Done(Outcome::NotWritable)]
        }
    };
    let outcome = run(&mut retrieve, begun, handle, control_point, device, &mut tapped).await;
    facts.lock().tap = None;
    info!(device = %device.id, outcome = outcome.name(), records = outcome.records(), "stored records");
    let _ = events.send(RadioEvent::Retrieved { device: device.id, outcome }).await;
}

/// Whether the device says that it does, in the low two octets of its features.
async fn announces(handle: &Handle, found: &[Found], features: Uuid, bits: u16) -> bool {
    let Some(features) = found.iter().find(|found| found.uuid == features && found.readable) else { return false };
    match handle.read(features).await.as_deref() {
        Ok([low, high, ..]) => u16::from_le_bytes([*low, *high]) & bits == bits,
        _ => false,
    }
}

async fn run(
    retrieve: &mut Retrieve,
    mut actions: Vec<Action>,
    handle: &Handle,
    control_point: &Found,
    device: &RadioDevice,
    tapped: &mut mpsc::Receiver<(Uuid, Vec<u8>)>,
) -> Outcome {
    loop {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Done(outcome) => return outcome,
                Action::Write(octets) => {
                    let written = handle.write(control_point, &octets).await;
                    if let Err(error) = &written {
                        debug!(device = %device.id, %error, "its control point does not take it");
                    }
                    actions.extend(retrieve.poll(Instant::now(), Event::Written(written.is_ok())));
                }
            }
        }
        if !actions.is_empty() {
            continue;
        }
        let due = retrieve.timeout().unwrap_or_else(Instant::now);
        actions = tokio::select! {
            value = tapped.recv() => match value {
                Some((CONTROL_POINT, octets)) => retrieve.poll(Instant::now(), Event::Answer(&octets)),
                // What is read shows up in the stream as well, and is no record.
                Some((uuid, _)) if !device.subscribe.contains(&uuid) => vec![],
                Some((uuid, octets)) => match stored_record(uuid, &octets) {
                    Some(Told::Record(number)) => retrieve.poll(Instant::now(), Event::Record(number)),
                    Some(Told::Piece) => retrieve.poll(Instant::now(), Event::Piece),
                    None => vec![],
                },
                None => retrieve.poll(Instant::now(), Event::Stop),
            },
            () = tokio::time::sleep_until(due.into()) => retrieve.poll(Instant::now(), Event::Tick),
        };
    }
}
