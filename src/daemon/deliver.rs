//! Starts the deliver half: bell, desk, one thread a route, status, socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::monitor::Monitor;
use super::tasks::Tasks;
use super::{DaemonError, Keys, bell, link};
use crate::api::{self, DeliverState};
use crate::config::{self, Bind, MqttSettings, Order, Questionable, Settings, Settle, SpotSettings, Start};
use crate::deliver::mqtt::{BatchOptions, MqttDestination, MqttOptions, TopicTemplate, batch, connect, subscribe};
use crate::deliver::{
    Announcements, Carry, Desk, DeskInputs, DeskRoute, DeskSettings, DeviceLabel, Route, RouteDevice, RouteInputs, RouteSettings,
    RouteStatus, Rules, ScanSettings, SpotRules, StreamPreference, usual_agreement,
};
use crate::monitor::home_assistant::{Announced, discovery};
use crate::monitor::{Absence, Notice, Notices, Topics, offline};
use crate::radio::BootClock;
use crate::reading::METRICS;
use crate::store::{AuditEntry, RouteRow, Store, WARD_FILE, WardStore};
use crate::ward::{CodeFormats, Guards, Standing, Wanted, Ward};

/// Requests of people waiting for the desk.
const REQUESTS: usize = 16;

/// Records under way at once where they go in batches: eight full ones, six of them for the backlog.
const BATCHED_WINDOW: usize = 8 * batch::MAX_RECORDS;

/// Why a route to patients is paused after `ward.db` was damaged.
const WARD_LOST: &str = "assignments were lost when ward.db was damaged; check `bedrail ward`, then resume";

pub fn start(
    settings: &Settings,
    keys: &Keys,
    boot: BootClock,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<(), DaemonError> {
    let gateway = &settings.gateway;
    let open = || Store::open(&gateway.state_dir, &keys.log, keys.site.clone(), &gateway.id);
    let mut store = open()?;
    let mut ward_store = WardStore::open(&gateway.state_dir.join(WARD_FILE), &keys.ward()?)?;
    let names: Vec<(&str, &str, bool)> =
        settings.routes.iter().map(|route| (route.name.as_str(), route.kind.name(), route.start == Start::Oldest)).collect();
    let mut rows = store.register_routes(&names, jiff::Timestamp::now().as_millisecond())?;
    if ward_store.is_incomplete()? {
        pause_for_patients(settings, &mut store, &mut rows, boot)?;
        ward_store.is_seen_to()?;
    }

    let (rings, bell_socket, ringing) = bell::listen(&gateway.runtime_dir.join(bell::NAME))?;
    tasks.spawn(bell::hear(bell_socket, ringing, stop.clone()));
    let (ward, ward_now) = watch::channel(Arc::new(Ward::default()));
    let (publish_notices, notices) = watch::channel(Arc::new(Notices::new()));
    let (mut desk_routes, mut states) = (BTreeMap::new(), Vec::new());
    let mut routes = Vec::new();
    for (route, row) in settings.routes.iter().zip(rows) {
        let Some(mqtt) = route.mqtt() else { continue };
        let link = link::settings(settings, route, mqtt)?;
        let (commands, from_desk) = mpsc::channel(4);
        let (publish, state) = watch::channel(RouteStatus::default());
        let inputs = RouteInputs {
            ward: ward_now.clone(),
            bell: rings.clone(),
            commands: from_desk,
            announce: mqtt.announce.then(|| announcements(settings, mqtt, notices.clone())),
            publish,
            stop: stop.clone(),
        };
        states.push(state.clone());
        desk_routes.insert(route.name.clone(), DeskRoute { bind: route.bind, commands, status: state });
        let topic: TopicTemplate =
            mqtt.topic.parse().map_err(|source| DaemonError::Topic { route: route.name.clone(), source })?;
        let compressed = mqtt.compression.is_some();
        let batch = compressed.then(|| BatchOptions { topic: mqtt.batch_topic.clone(), all_lanes: route.order == Order::Strict });
        let options = MqttOptions { topic, topic_text: mqtt.topic.clone(), unheard: mqtt.unheard, batch };
        let receipts = (mqtt.settle == Settle::Receipt).then(|| link::of_receipts(&link, mqtt));
        let (wanted, store, connect) = (route_settings(settings, route, mqtt), open()?, move || connect(&link));
        routes.push(match receipts {
            None => Route::new(wanted, store, row, boot, inputs, MqttDestination::new(connect, options))?.run().boxed(),
            Some((link, subscription)) => {
                let listen = move || subscribe(&link, subscription.clone());
                let destination = MqttDestination::with_receipts(connect, listen, options);
                Route::new(wanted, store, row, boot, inputs, destination)?.run().boxed()
            }
        });
    }
    let (publish_raised, conditions) = watch::channel(Vec::new());
    let monitor = Monitor::new(settings, open()?, boot, states, publish_notices, publish_raised)?;
    let monitor_stop = stop.clone();
    tasks.spawn_thread("bedrail-monitor", async move { Ok(monitor.run(monitor_stop).await?) });
    let (desk, requests) = mpsc::channel(REQUESTS);
    let inputs = DeskInputs { requests, routes: desk_routes, ward, stop: stop.clone() };
    let desk_actor = Desk::new(desk_settings(settings), store, ward_store, boot, inputs)?;
    tasks.spawn_thread("bedrail-desk", async move { Ok(desk_actor.run().await?) });
    for (number, route) in routes.into_iter().enumerate() {
        tasks.spawn_thread(&format!("bedrail-route-{number}"), async move { Ok(route.await?) });
    }

    let path = gateway.runtime_dir.join(api::DELIVER_SOCKET);
    let listener = api::bind(&path).map_err(|source| DaemonError::Socket { path: path.clone(), source })?;
    let serve_stop = stop.clone();
    tasks.spawn(async move {
        let served = api::serve(listener, api::deliver_router(DeliverState { desk, conditions }), serve_stop).await;
        served.map_err(|source| DaemonError::Socket { path, source })
    });
    Ok(())
}

/// Events of the ward are gone, so who measured whom is not known for certain: nothing goes to a patient until a person has
/// looked and resumes the route.
fn pause_for_patients(settings: &Settings, store: &mut Store, rows: &mut [RouteRow], boot: BootClock) -> Result<(), DaemonError> {
    for (_, row) in settings.routes.iter().zip(rows).filter(|(route, _)| route.bind == Bind::Patient) {
        let entry = AuditEntry {
            boot: boot.id(),
            at: boot.now(),
            wall: None,
            actor: "bedrail".to_owned(),
            action: "route pause".to_owned(),
            object: row.name.clone(),
            detail: WARD_LOST.to_owned(),
        };
        store.set_paused(row.n, Some(WARD_LOST), &entry)?;
        row.paused = Some(WARD_LOST.to_owned());
        tracing::error!(route = row.name, "paused: {WARD_LOST}");
    }
    Ok(())
}

/// What a route publishes of the gateway's state; to a Home Assistant also where to find it.
fn announcements(settings: &Settings, mqtt: &MqttSettings, notices: watch::Receiver<Arc<Notices>>) -> Announcements {
    let last_word = offline(&settings.gateway.id, Absence::Stopped);
    let topics = Topics::new(&settings.monitor.topic);
    let device =
        |device: &config::DeviceSettings| Announced { name: device.name.clone(), kind: device.kind.name(), id: device.id };
    let devices: Vec<Announced> = settings.devices.iter().map(device).collect();
    let standing = mqtt.home_assistant.as_ref().map(|prefix| discovery(prefix, &topics, &settings.gateway.id, &devices));
    Announcements {
        notices,
        standing: standing.unwrap_or_default().into(),
        stopped: Notice { topic: gateway_topic(settings).into(), payload: last_word.into(), stamp: 0 },
    }
}

pub fn gateway_topic(settings: &Settings) -> String {
    Topics::new(&settings.monitor.topic).gateway(&settings.gateway.id)
}

fn route_settings(settings: &Settings, route: &config::RouteSettings, mqtt: &MqttSettings) -> RouteSettings {
    let devices = settings.devices.iter().map(|device| {
        let label = DeviceLabel { name: device.name.clone(), kind: device.kind.name().to_owned() };
        let (zone, nameplate) = (device.timezone.clone(), device.nameplate.clone());
        (device.id, RouteDevice { label, zone, history: device.history, nameplate })
    });
    let preferences = METRICS.iter().map(|row| {
        let metric = settings.metric(row.metric);
        let agree_within = metric.agree_within.map(|within| (within.value, within.unit));
        (row.metric, StreamPreference { prefer: metric.prefer.clone(), agree_within })
    });
    RouteSettings {
        name: route.name.clone(),
        gateway: settings.gateway.id.clone(),
        rules: rules(settings, route),
        order: route.order,
        // Records, where the destination counts messages.
        window: if mqtt.compression.is_some() { BATCHED_WINDOW } else { usize::from(mqtt.window) },
        ack_interval: settings.store.ack_interval,
        max_rate: route.max_rate,
        when: route.when,
        daily_bytes: route.daily_bytes,
        receipt_within: (mqtt.settle == Settle::Receipt).then_some(mqtt.receipt_within),
        devices: devices.collect(),
        default_zone: settings.gateway.timezone.clone(),
        preferences: preferences.collect(),
        min_coverage_permille: u16::from(route.min_coverage) * 10,
        retract: route.retract,
    }
}

fn rules(settings: &Settings, route: &config::RouteSettings) -> Rules {
    let mut carry = Carry::default();
    for wanted in &route.carry {
        match wanted {
            config::Carry::Readings => carry.readings = true,
            config::Carry::Episodic => carry.episodic = true,
            config::Carry::Events => carry.events = true,
            config::Carry::Windows(length_s) => {
                carry.windows.insert(*length_s);
            }
        }
    }
    let filter = &route.filter;
    let passes = |device: &&config::DeviceSettings| {
        let by_name = filter.devices.is_empty() || filter.devices.contains(&device.name);
        let by_bed = filter.beds.is_empty() || device.bed.as_ref().is_some_and(|bed| filter.beds.contains(bed));
        by_name && by_bed
    };
    let filtered = !filter.devices.is_empty() || !filter.beds.is_empty();
    Rules {
        bind: route.bind,
        carry,
        metrics: (!filter.metrics.is_empty()).then(|| filter.metrics.iter().copied().collect::<BTreeSet<_>>()),
        devices: filtered.then(|| settings.devices.iter().filter(passes).map(|device| device.id).collect()),
        hold_questionable: route.questionable == Questionable::Hold,
        per_patient: route.per_patient && route.bind == Bind::Patient,
        spots: settings
            .devices
            .iter()
            .filter_map(|device| Some((device.id, spot_rules(settings, device.spot.as_ref()?))))
            .collect(),
    }
}

fn spot_rules(settings: &Settings, spot: &SpotSettings) -> SpotRules {
    let within = METRICS.iter().filter_map(|row| {
        let written = settings.metric(row.metric).agree_within.map(|within| (within.value, within.unit));
        Some((row.metric, written.or_else(|| usual_agreement(row.metric))?))
    });
    SpotRules {
        max_uncertainty_ms: spot.max_uncertainty.map(|most| u32::try_from(most.as_millis()).unwrap_or(u32::MAX)),
        stable_for_ms: spot.stable_for.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        within: within.collect(),
    }
}

fn desk_settings(settings: &Settings) -> DeskSettings {
    let mut wanted = Vec::new();
    for device in &settings.devices {
        let from = device.from;
        if let Some(subject) = &device.patient {
            let standing = Standing::Pair { device: device.id, user: device.user, subject: subject.clone() };
            wanted.push(Wanted { standing, from });
        }
        if let Some(bed) = &device.bed {
            wanted.push(Wanted { standing: Standing::Place { device: device.id, bed: bed.clone() }, from });
        }
    }
    let scan = settings.scan.patterns.clone().map(|(patient, device)| ScanSettings {
        formats: CodeFormats { patient, device },
        within: settings.scan.within,
        assets: settings.devices.iter().filter_map(|device| Some((device.asset.clone()?, device.name.clone()))).collect(),
    });
    DeskSettings {
        scan,
        gateway: settings.gateway.id.clone(),
        devices: settings.devices.iter().map(|device| (device.name.clone(), device.id)).collect(),
        spots: settings.devices.iter().filter_map(|device| Some((device.id, device.spot?))).collect(),
        beds: settings.beds.iter().map(|bed| bed.id.clone()).collect(),
        zones: settings.devices.iter().map(|device| (device.id, device.timezone.clone())).collect(),
        default_zone: settings.gateway.timezone.clone(),
        back_dating: settings.ward.back_dating,
        guards: guards(&settings.ward.guards),
        stale_after: settings.ward.stale_after,
        wanted,
        patients: settings.patients.iter().map(|patient| (patient.key.clone(), patient.test)).collect(),
    }
}

fn guards(settings: &config::GuardSettings) -> Guards {
    let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Guards {
        command_ms: ms(settings.command),
        scan_ms: ms(settings.scan),
        import_ms: ms(settings.import),
        with_event_time_ms: ms(settings.with_event_time),
        keyed_before_ms: ms(settings.keyed_before),
        keyed_after_ms: ms(settings.keyed_after),
    }
}
