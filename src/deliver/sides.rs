//! Windows where patients come in: one that an assignment edge cuts is made again as its sides, and of several streams of
//! one patient one is chosen. The arithmetic is `clean`'s; this file fetches and appends.

use jiff::tz::TimeZone;

use super::route::RouteSettings;
use super::{Choice, DeviceLabel};
use crate::clean::{Candidate, Point, Preference, Slot, choose as choose_stream, cut, make_window};
use crate::radio::BootClock;
use crate::reading::{Anchors, Body, DeviceId, Instant, Nameplate, Record, Seq, Stamp, StreamKey, Timestamp, Window};
use crate::store::{Draft, Identity, Store, StoreError};
use crate::ward::{Binding, Ward};

/// Windows of one slot are appended in one commit; after a restart or late data they may lie a few commits apart. This many
/// records on either side are looked through.
const LOOK_AROUND: u64 = 512;

/// Makes the sides of a window from the readings and appends them. The side at the window's start keeps its id.
pub fn make(
    store: &mut Store,
    anchors: &Anchors,
    boot: BootClock,
    settings: &RouteSettings,
    record: &Record,
    edges: &[Timestamp],
) -> Result<(), StoreError> {
    let (Body::Window(window), Some(stream)) = (&record.body, record.stream) else { return Ok(()) };
    let zone = settings.devices.get(&record.device).map_or(&settings.default_zone, |device| &device.zone);
    let slot = Slot { start: window.start, length_s: window.length_s };
    let wanted = settings.devices.get(&record.device).map(|device| &device.nameplate);
    let points = points(store, anchors, zone, wanted, &stream, slot)?;
    let stamp = Stamp { boot: boot.id(), arrived: boot.now(), device_time: None, device_clock: None, stored: false };
    let key = store.site_key().clone();
    let whole = key.window_id(&settings.gateway, &stream, window.length_s, window.start);
    let sides = cut(slot, edges).into_iter().filter_map(|(from, to)| {
        let side = make_window(&stream, slot, from, to, &points)?;
        let id = if from == slot.start { whole } else { key.side_id(whole, from) };
        let identity = Identity::Window { id, side: true };
        Some(Draft { identity, device: record.device, stream: Some(stream), stamp, body: Body::Window(side), nameplate: None })
    });
    store.append(sides.collect())?;
    Ok(())
}

fn points(
    store: &Store,
    anchors: &Anchors,
    zone: &TimeZone,
    wanted: Option<&Nameplate>,
    stream: &StreamKey,
    slot: Slot,
) -> Result<Vec<Point>, StoreError> {
    let from = slot.reads_from(stream.metric);
    let mut points = Vec::new();
    let reaches_back = |boot, arrived| anchors.wall(boot, arrived).is_none_or(|wall| wall.at >= from);
    store.read_stream_back(stream, reaches_back, |seq, record| {
        let at = match anchors.of(&record.stamp, record.stream, zone) {
            Instant::Ambiguous(_) | Instant::Unknown => None,
            instant => instant.wall().map(|wall| wall.at),
        };
        let point = at.filter(|at| *at >= from && *at < slot.end()).and_then(|at| Point::of(&record, seq, at, wanted));
        points.extend(point);
    })?;
    Ok(points)
}

/// Compares `record` with the other streams' windows of its slot: `None` when another one speaks for the patient, or none
/// covers enough of it.
#[allow(clippy::too_many_arguments)]
pub fn choose<'a>(
    store: &Store,
    ward: &Ward,
    seq: Seq,
    head: Seq,
    record: &Record,
    binding: &Binding,
    preference: &Preference<'_>,
    label: impl Fn(DeviceId) -> Option<&'a DeviceLabel>,
) -> Result<Option<Choice>, StoreError> {
    let (Body::Window(window), Some(stream)) = (&record.body, record.stream) else { return Ok(None) };
    let around = store.read(Seq(seq.0.saturating_sub(LOOK_AROUND)), head.min(Seq(seq.0 + LOOK_AROUND)), usize::MAX)?;
    let mut same_slot: Vec<(Record, Window)> = Vec::new();
    for (_, other) in around {
        let (Body::Window(found), Some(of)) = (&other.body, other.stream) else { continue };
        let same = of.metric == stream.metric
            && (found.start, found.length_s, found.from, found.to) == (window.start, window.length_s, window.from, window.to);
        let bound = || ward.bind_span(other.device, of.user, found.from, found.to);
        if !same || bound().map(|other| other.subject) != Ok(binding.subject.clone()) {
            continue;
        }
        let found = found.clone();
        same_slot.retain(|(known, _)| known.id != other.id || known.version > other.version);
        if !same_slot.iter().any(|(known, _)| known.id == other.id) {
            same_slot.push((other, found));
        }
    }
    let unnamed = DeviceLabel { name: String::new(), kind: String::new() };
    let candidates: Vec<Candidate<'_>> = same_slot
        .iter()
        .map(|(record, window)| {
            let label = label(record.device).unwrap_or(&unnamed);
            Candidate { device: record.device, device_name: &label.name, device_kind: &label.kind, window }
        })
        .collect();
    let choice = choose_stream(&candidates, preference);
    let speaks = choice.chosen.is_some_and(|place| same_slot[place].0.id == record.id);
    Ok(speaks.then_some(Choice { others: choice.others, sources_disagree: choice.sources_disagree }))
}
