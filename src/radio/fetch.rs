//! Carries out [`Retrieve`] on a device that is connected: writes to its control point, and listens to what comes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, info};
use uuid::Uuid;

use super::central::{Found, Handle};
use super::event::RadioEvent;
use super::steps::Link;
use crate::gatt::{Told, Width, sig_uuid, stored_record};
use crate::procedure::{Action, Event, Outcome, Retrieve};
use crate::reading::{DeviceId, DeviceTime};

/// Record Access Control Point.
const CONTROL_POINT: Uuid = sig_uuid(0x2A52);

/// The highest sequence number of each device that is durable. Whoever commits writes it, whoever asks a device for more
/// reads it; what comes twice is one record, so a number too low costs time and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Durable(Arc<Mutex<BTreeMap<DeviceId, Numbered>>>);

#[derive(Clone, Copy, Debug)]
struct Numbered {
    /// When the session began in which a sensor counts; a new one counts from zero.
    session: Option<DeviceTime>,
    last: u32,
}

impl Durable {
    pub fn note(&self, device: DeviceId, session: Option<DeviceTime>, sequence: u32) {
        let mut known = self.known();
        let numbered = known.entry(device).or_insert(Numbered { session, last: sequence });
        let last = if numbered.session == session { sequence.max(numbered.last) } else { sequence };
        *numbered = Numbered { session, last };
    }

    pub fn last(&self, device: DeviceId, session: Option<DeviceTime>) -> Option<u32> {
        self.known().get(&device).filter(|numbered| numbered.session == session).map(|numbered| numbered.last)
    }

    pub fn known_of(&self, device: DeviceId) -> Option<(Option<DeviceTime>, u32)> {
        self.known().get(&device).map(|numbered| (numbered.session, numbered.last))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Numbered>> {
        self.0.lock().expect("nobody panics while holding the numbers")
    }
}

/// Fetches what the device stored; ends with the procedure, or with the link, when it is dropped. `None`: it keeps nothing
/// that can be asked for.
pub async fn stored(link: &Link, durable: &Durable, session: Option<DeviceTime>) -> Option<Outcome> {
    let (device, memory) = (&link.device, link.device.visit.memory?);
    let Some(control_point) = link.offered(CONTROL_POINT).filter(|found| found.tells && found.writable) else {
        debug!(device = %device.id, "it has no Record Access Control Point");
        return None;
    };
    if let Some((features, bits)) = memory.announced
        && !announces(&link.handle, &link.found, features, bits).await
    {
        debug!(device = %device.id, "it does not say that it stores what can be told apart");
        return None;
    }
    let mut tapped = link.tap();
    let last = memory.numbers.and_then(|_| durable.last(device.id, session));
    let mut retrieve = Retrieve::new(memory.numbers.unwrap_or(Width::U16), last);
    let begun = match link.handle.subscribe(control_point).await {
        Ok(()) => retrieve.poll(Instant::now(), Event::Begin),
        Err(error) => {
            debug!(device = %device.id, %error, "its control point is not subscribed to");
            vec![Action::Done(Outcome::NotWritable)]
        }
    };
    let outcome = run(&mut retrieve, begun, link, control_point, &mut tapped).await;
    link.untap();
    info!(device = %device.id, outcome = outcome.name(), records = outcome.records(), "stored records");
    let _ = link.events.send(RadioEvent::Retrieved { device: device.id, outcome }).await;
    Some(outcome)
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
    link: &Link,
    control_point: &Found,
    tapped: &mut mpsc::Receiver<(Uuid, Vec<u8>)>,
) -> Outcome {
    loop {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Done(outcome) => return outcome,
                Action::Write(octets) => {
                    let written = link.ask(control_point, &octets).await;
                    actions.extend(retrieve.poll(Instant::now(), Event::Written(written)));
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
                Some((uuid, _)) if !link.device.subscribe.contains(&uuid) => vec![],
                Some((uuid, octets)) => told(retrieve, stored_record(uuid, &octets)),
                None => retrieve.poll(Instant::now(), Event::Stop),
            },
            () = tokio::time::sleep_until(due.into()) => retrieve.poll(Instant::now(), Event::Tick),
        };
    }
}

fn told(retrieve: &mut Retrieve, what: Option<Told>) -> Vec<Action> {
    let now = Instant::now();
    match what {
        Some(Told::Records { count, last }) => (0..count).flat_map(|_| retrieve.poll(now, Event::Record(last))).collect(),
        Some(Told::Piece) => retrieve.poll(now, Event::Piece),
        None => vec![],
    }
}
