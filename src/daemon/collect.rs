//! Starts the collect half: radio, clock, writer, socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::device_secrets::DeviceSecrets;
use super::tasks::Tasks;
use super::{DaemonError, Keys, bell};
use crate::api;
use crate::collect::{
    AdvertFormat, Audit, CollectSettings, CollectStatus, CollectedDevice, Collector, Missed, Overhearing, Reads, RetainSettings,
    Windows, kept_bonds, watch_clock,
};
use crate::config::{AdvertName, Bond, DeviceKind, DeviceSettings, Priority, Settings};
use crate::gatt;
use crate::profile::Mode;
use crate::radio::{
    self, Bonds, BootClock, Consents, Deadlines, Durable, Pace, RadioDevice, RadioSettings, Requests, SetsClock, Sharing,
    TrueTime,
};
use crate::reading::{METRICS, Metric};
use crate::store::Store;

/// Values between radio and writer: seconds of a full ward while the card is busy. Beyond it the radio waits.
const HEARD: usize = 4_096;

/// Where a device shows its clock: Current Time, Date Time.
const CLOCKS: [uuid::Uuid; 2] = [gatt::sig_uuid(0x2A2B), gatt::sig_uuid(0x2A08)];

pub fn start(
    settings: &Settings,
    keys: &Keys,
    boot: BootClock,
    missed: Option<Missed>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<(), DaemonError> {
    let gateway = &settings.gateway;
    let store = Store::open(&gateway.state_dir, &keys.log, keys.site.clone(), &gateway.id)?;
    let lengths = METRICS.iter().map(|row| (row.metric, settings.window_lengths(row.metric).into_iter().collect())).collect();
    let zones: BTreeMap<_, _> = settings.devices.iter().map(|device| (device.id, device.timezone.clone())).collect();
    let windows = Windows::new(gateway.id.clone(), lengths, zones, gateway.timezone.clone(), settings.store.horizon, &store)?;
    let nameplates = settings.devices.iter().map(|device| (device.id, device.nameplate.clone())).collect();
    let windows = windows.admitting(nameplates, &store)?;
    let (publish, status) = watch::channel(CollectStatus::default());
    let ring = bell::ringer(gateway.runtime_dir.join(bell::NAME));
    let (durable, bonds, time) = (Durable::default(), bonds(settings, &store)?, TrueTime::default());
    let overhearing = Overhearing::default();
    let collected = CollectSettings {
        durable: durable.clone(),
        bonds: bonds.clone(),
        time: time.clone(),
        overhearing: overhearing.clone(),
        ..collect_settings(settings, &keys.of_devices)
    };
    let collector = Collector::new(collected, store, windows, boot, publish, ring).map_err(collect_error)?;
    let collector = collector.after(missed);

    let requests = Requests::default();
    let (audit, to_audit) = Audit::channel();
    let devices: BTreeMap<_, _> = settings.devices.iter().map(|device| (device.name.clone(), device.id)).collect();
    let devices = Arc::new(devices);
    let learn = api::LearnState { overhearing, clock: boot, devices: devices.clone(), audit: audit.clone() };
    let state = api::CollectState { status, radio: requests.clone(), devices, audit };
    let path = gateway.runtime_dir.join(api::COLLECT_SOCKET);
    let listener = api::bind(&path).map_err(|source| DaemonError::Socket { path: path.clone(), source })?;
    let (serve_stop, radio_stop, clock_stop) = (stop.clone(), stop.clone(), stop.clone());
    tasks.spawn(async move {
        let router = api::collect_router(state).merge(api::learn_router(learn));
        let served = api::serve(listener, router, serve_stop).await;
        served.map_err(|source| DaemonError::Socket { path, source })
    });

    let (heard, from_radio) = mpsc::channel(HEARD);
    let (reports, clock) = mpsc::channel(4);
    // The writer ends after the radio, so that what was heard is on the card.
    let writer_stop = CancellationToken::new();
    let radio_done = writer_stop.clone();
    let radio_settings = radio_settings(settings, &keys.of_devices, requests, durable, bonds, &time);
    tasks.spawn(async move {
        let result = radio::run(radio_settings, heard, radio_stop).await;
        radio_done.cancel();
        Ok(result?)
    });
    tasks.spawn(async move {
        watch_clock(boot, reports, clock_stop).await;
        Ok(())
    });
    tasks.spawn_thread("bedrail-writer", async move {
        collector.run(from_radio, clock, to_audit, writer_stop).await.map_err(collect_error)
    });
    Ok(())
}

fn collect_error(error: crate::collect::CollectError) -> DaemonError {
    match error {
        crate::collect::CollectError::Store(error) => DaemonError::Store(error),
    }
}

/// Of a device that may not pair any more no bond is waited for.
fn bonds(settings: &Settings, store: &Store) -> Result<Bonds, DaemonError> {
    let mut kept = kept_bonds(store)?;
    kept.retain(|id, _| settings.device(*id).is_some_and(|device| device.bond != Bond::None));
    Ok(Bonds::new(kept))
}

/// With nothing in what the radio shares.
fn collect_settings(settings: &Settings, secrets: &DeviceSecrets) -> CollectSettings {
    let device = |device: &DeviceSettings| CollectedDevice {
        id: device.id,
        name: device.name.clone(),
        kind: device.kind.name().to_owned(),
        zone: device.timezone.clone(),
        profile: device.profile.clone(),
        fault: device.profile_fault.as_ref().map(|fault| format!("not read: {fault}; `bedrail check` says all that is wrong")),
        advert: advert_format(device, secrets),
        nameplate: device.nameplate.clone(),
    };
    CollectSettings {
        gateway: settings.gateway.id.clone(),
        commit_interval: settings.store.commit_interval,
        commit_records: settings.store.commit_records,
        devices: settings.devices.iter().map(device).collect(),
        retain: retain_settings(settings),
        durable: Durable::default(),
        bonds: Bonds::default(),
        time: TrueTime::default(),
        overhearing: Overhearing::default(),
    }
}

/// A device is read by what it advertises because the config says so, or its profile does.
fn reads(device: &DeviceSettings) -> Option<Reads> {
    let by_profile = device.profile.clone().filter(|profile| profile.link.mode == Mode::Advert).map(Reads::Profile);
    let standard = || gatt::ADVERTISEMENTS.iter().find(|row| Some(row.name) == device.advert.map(AdvertName::name));
    by_profile.or_else(|| standard().map(Reads::Standard))
}

fn advert_format(device: &DeviceSettings, secrets: &DeviceSecrets) -> Option<AdvertFormat> {
    let measures = match device.kind {
        DeviceKind::Thermometer => Some(Metric::BodyTemperature),
        DeviceKind::WeightScale => Some(Metric::BodyWeight),
        _ => None,
    };
    let key = secrets.advert_keys.get(&device.id).copied();
    let context = gatt::Context { key, mac: Some(device.id.octets()), measures, ..gatt::Context::default() };
    Some(AdvertFormat { reads: reads(device)?, context, counter: device.advert_counter })
}

fn advertised(device: &DeviceSettings) -> Vec<gatt::Source> {
    match reads(device) {
        Some(Reads::Standard(row)) => vec![row.source],
        Some(Reads::Profile(profile)) => profile.adverts(),
        None => Vec::new(),
    }
}

fn retain_settings(settings: &Settings) -> RetainSettings {
    let lengths: Vec<_> = METRICS.iter().map(|row| (row.metric, settings.window_lengths(row.metric))).collect();
    let longest = lengths.iter().flat_map(|(_, lengths)| lengths).max().copied().unwrap_or(0);
    RetainSettings {
        state_dir: settings.gateway.state_dir.clone(),
        horizon: settings.store.horizon,
        keep: settings.store.keep,
        max_bytes: settings.store.max_bytes,
        free_floor: settings.store.free_floor,
        condensed: lengths.iter().filter(|(_, lengths)| !lengths.is_empty()).map(|(metric, _)| *metric).collect(),
        longest_window: Duration::from_secs(u64::from(longest)),
    }
}

fn radio_settings(
    settings: &Settings,
    secrets: &DeviceSecrets,
    requests: Requests,
    durable: Durable,
    bonds: Bonds,
    time: &TrueTime,
) -> RadioSettings {
    let device = |device: &DeviceSettings| {
        let kind = gatt::device_kinds().iter().find(|kind| kind.name == device.kind.name());
        let asked = kind.into_iter().flat_map(|kind| kind.features.iter().chain(kind.read));
        let (clock, read) = asked.partition(|uuid| CLOCKS.contains(uuid));
        RadioDevice {
            id: device.id,
            name: device.name.clone(),
            adapter: device.adapter,
            subscribe: match &device.profile {
                Some(profile) => profile.subscriptions().collect(),
                None => kind.map_or(&[][..], |kind| kind.subscribe).to_vec(),
            },
            profile: device.profile.clone(),
            read,
            clock,
            adverts: advertised(device),
            ask_nameplate: !device.nameplate.is_blank(),
            bond: match device.bond {
                Bond::None => radio::Bond::None,
                Bond::JustWorks => radio::Bond::JustWorks,
                Bond::Passkey => {
                    secrets.passkeys.get(&device.id).map_or(radio::Bond::None, |passkey| radio::Bond::Passkey(*passkey))
                }
            },
            priority: match device.priority.unwrap_or(device.kind.priority()) {
                Priority::Low => radio::Priority::Low,
                Priority::Normal => radio::Priority::Normal,
                Priority::High => radio::Priority::High,
            },
            streams: device.kind.streams(),
            visit: visits(device, kind.filter(|_| device.profile.is_none()), secrets, time),
            // One that is switched off and one that is not heard advertise alike: without a person's word neither is doubted.
            expect_every: device.expect_every.or_else(|| device.kind.expect_every().filter(|_| reads(device).is_none())),
        }
    };
    RadioSettings {
        adapters: settings.radio.adapters.clone(),
        devices: settings.devices.iter().filter(|device| device.profile_fault.is_none()).map(device).collect(),
        sharing: Sharing { slots: settings.radio.connections, ..Sharing::default() },
        clock_decoder: gatt::device_clock,
        deadlines: Deadlines::default(),
        pace: Pace::default(),
        durable,
        bonds,
        requests,
    }
}

fn visits(
    device: &crate::config::DeviceSettings,
    kind: Option<&gatt::DeviceKind>,
    secrets: &DeviceSecrets,
    time: &TrueTime,
) -> radio::Visits {
    radio::Visits {
        consents: Consents::new(secrets.consents.get(&device.id).cloned().unwrap_or_default()),
        session: kind.is_some_and(|kind| kind.session),
        memory: kind.and_then(|kind| kind.memory),
        set_clock: device.set_clock.then(|| SetsClock { zone: device.timezone.clone(), time: time.clone() }),
    }
}
