//! Starts the collect half: radio, clock, writer, socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::passkeys::Passkeys;
use super::tasks::Tasks;
use super::{DaemonError, Keys, bell};
use crate::api;
use crate::collect::{
    CollectSettings, CollectStatus, CollectedDevice, Collector, Missed, Overhearing, RetainSettings, Windows, watch_clock,
};
use crate::config::{Bond, Priority, Settings};
use crate::gatt;
use crate::radio::{self, BootClock, Deadlines, Durable, Pace, RadioDevice, RadioSettings, Requests, Sharing};
use crate::reading::METRICS;
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
    let (publish, status) = watch::channel(CollectStatus::default());
    let ring = bell::ringer(gateway.runtime_dir.join(bell::NAME));
    let durable = Durable::default();
    let overhearing = Overhearing::default();
    let collect_settings = collect_settings(settings, durable.clone(), overhearing.clone());
    let collector = Collector::new(collect_settings, store, windows, boot, publish, ring).map_err(collect_error)?;
    let collector = collector.after(missed);

    let path = gateway.runtime_dir.join(api::COLLECT_SOCKET);
    let listener = api::bind(&path).map_err(|source| DaemonError::Socket { path: path.clone(), source })?;
    let devices = settings.devices.iter().map(|device| (device.name.clone(), device.id)).collect::<BTreeMap<_, _>>();
    let learn = api::LearnState { overhearing, clock: boot, devices: Arc::new(devices) };
    let (serve_stop, radio_stop, clock_stop) = (stop.clone(), stop.clone(), stop.clone());
    tasks.spawn(async move {
        let served = api::serve(listener, api::collect_router(status).merge(api::learn_router(learn)), serve_stop).await;
        served.map_err(|source| DaemonError::Socket { path, source })
    });

    let (heard, from_radio) = mpsc::channel(HEARD);
    let (reports, clock) = mpsc::channel(4);
    // The writer ends after the radio, so that what was heard is on the card.
    let writer_stop = CancellationToken::new();
    let radio_done = writer_stop.clone();
    let requests = Requests::default();
    let radio_settings = radio_settings(settings, &keys.passkeys, requests, durable);
    tasks.spawn(async move {
        let result = radio::run(radio_settings, heard, radio_stop).await;
        radio_done.cancel();
        Ok(result?)
    });
    tasks.spawn(async move {
        watch_clock(boot, reports, clock_stop).await;
        Ok(())
    });
    tasks.spawn_thread(
        "bedrail-writer",
        async move { collector.run(from_radio, clock, writer_stop).await.map_err(collect_error) },
    );
    Ok(())
}

fn collect_error(error: crate::collect::CollectError) -> DaemonError {
    match error {
        crate::collect::CollectError::Store(error) => DaemonError::Store(error),
    }
}

fn collect_settings(settings: &Settings, durable: Durable, overhearing: Overhearing) -> CollectSettings {
    let device = |device: &crate::config::DeviceSettings| CollectedDevice {
        id: device.id,
        name: device.name.clone(),
        kind: device.kind.name().to_owned(),
        zone: device.timezone.clone(),
        profile: device.profile.clone(),
        fault: device.profile_fault.as_ref().map(|fault| format!("not read: {fault}; `bedrail check` says all that is wrong")),
    };
    CollectSettings {
        gateway: settings.gateway.id.clone(),
        commit_interval: settings.store.commit_interval,
        commit_records: settings.store.commit_records,
        devices: settings.devices.iter().map(device).collect(),
        retain: retain_settings(settings),
        durable,
        overhearing,
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

fn radio_settings(settings: &Settings, passkeys: &Passkeys, requests: Requests, durable: Durable) -> RadioSettings {
    let device = |device: &crate::config::DeviceSettings| {
        let kind = gatt::device_kinds().iter().find(|kind| kind.name == device.kind.name());
        let (clock, read) = kind.map_or(&[][..], |kind| kind.read).iter().partition(|uuid| CLOCKS.contains(uuid));
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
            bond: match device.bond {
                Bond::None => radio::Bond::None,
                Bond::JustWorks => radio::Bond::JustWorks,
                Bond::Passkey => passkeys.get(&device.id).map_or(radio::Bond::None, |passkey| radio::Bond::Passkey(*passkey)),
            },
            priority: match device.priority.unwrap_or(device.kind.priority()) {
                Priority::Low => radio::Priority::Low,
                Priority::Normal => radio::Priority::Normal,
                Priority::High => radio::Priority::High,
            },
            streams: device.kind.streams(),
            retrieve: kind.and_then(|kind| kind.retrieve),
            expect_every: device.expect_every.or_else(|| device.kind.expect_every()),
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
        requests,
    }
}
