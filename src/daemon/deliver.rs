//! Starts the deliver half: bell, desk, one thread a route, status, socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::tasks::Tasks;
use super::{DaemonError, Keys, bell};
use crate::api::{self, DeliverState};
use crate::collect::CollectStatus;
use crate::config::{self, Bind, MqttSettings, Order, Questionable, Settings, Start, secret};
use crate::deliver::mqtt::{
    BatchOptions, LinkSettings, Login, MqttDestination, MqttOptions, TopicTemplate, Will, batch, connect, status,
};
use crate::deliver::{
    Carry, Desk, DeskInputs, DeskRoute, DeskSettings, DeviceLabel, Route, RouteDevice, RouteInputs, RouteSettings, RouteStatus,
    Rules, StreamPreference,
};
use crate::net::{ClientIdentity, TlsSettings, client_config};
use crate::radio::BootClock;
use crate::reading::{METRICS, Timestamp};
use crate::store::{AuditEntry, RouteRow, Store, WARD_FILE, WardStore};
use crate::ward::{Standing, Wanted, Ward};

/// Requests of people waiting for the desk.
const REQUESTS: usize = 16;
/// The gateway's status is put together this often, and published when it changed.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Records under way at once where they go in batches: eight full ones, six of them for the backlog.
const BATCHED_WINDOW: usize = 8 * batch::MAX_RECORDS;

/// Why a route to patients is paused after `ward.db` was damaged.
const WARD_LOST: &str = "assignments were lost when ward.db was damaged; check `bedrail assignments`, then resume";

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
    let (publish_status, gateway_status) = watch::channel(None);
    let (mut desk_routes, mut states) = (BTreeMap::new(), Vec::new());
    let mut routes = Vec::new();
    for (route, row) in settings.routes.iter().zip(rows) {
        let Some(mqtt) = route.mqtt() else { continue };
        let link = link_settings(settings, route, mqtt)?;
        let (commands, from_desk) = mpsc::channel(4);
        let (publish, state) = watch::channel(RouteStatus::default());
        let inputs = RouteInputs {
            ward: ward_now.clone(),
            bell: rings.clone(),
            commands: from_desk,
            gateway_status: gateway_status.clone(),
            publish,
            stop: stop.clone(),
        };
        states.push(state.clone());
        desk_routes.insert(route.name.clone(), DeskRoute { bind: route.bind, commands, status: state });
        let topic: TopicTemplate =
            mqtt.topic.parse().map_err(|source| DaemonError::Topic { route: route.name.clone(), source })?;
        let compressed = mqtt.compression.is_some();
        let batch = compressed.then(|| BatchOptions { topic: mqtt.batch_topic.clone(), all_lanes: route.order == Order::Strict });
        let options =
            MqttOptions { topic, topic_text: mqtt.topic.clone(), gateway: gateway.id.clone(), unheard: mqtt.unheard, batch };
        let destination = MqttDestination::new(move || connect(&link), options);
        let route = Route::new(route_settings(settings, route, mqtt), open()?, row, boot, inputs, destination)?;
        routes.push(route);
    }
    let (desk, requests) = mpsc::channel(REQUESTS);
    let inputs = DeskInputs { requests, routes: desk_routes, ward, stop: stop.clone() };
    let desk_actor = Desk::new(desk_settings(settings), store, ward_store, boot, inputs)?;
    tasks.spawn_thread("bedrail-desk", async move { Ok(desk_actor.run().await?) });
    for (number, route) in routes.into_iter().enumerate() {
        tasks.spawn_thread(&format!("bedrail-route-{number}"), async move { Ok(route.run().await?) });
    }

    let path = gateway.runtime_dir.join(api::DELIVER_SOCKET);
    let listener = api::bind(&path).map_err(|source| DaemonError::Socket { path: path.clone(), source })?;
    let serve_stop = stop.clone();
    tasks.spawn(async move {
        let served = api::serve(listener, api::deliver_router(DeliverState { desk }), serve_stop).await;
        served.map_err(|source| DaemonError::Socket { path, source })
    });
    tasks.spawn(watch_status(settings.clone(), states, publish_status, stop.clone()));
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

/// Puts the gateway's status together from both halves; the other one is asked over its socket, wherever it runs.
async fn watch_status(
    settings: Settings,
    routes: Vec<watch::Receiver<RouteStatus>>,
    publish: watch::Sender<Option<Arc<status::Status>>>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let socket = settings.gateway.runtime_dir.join(api::COLLECT_SOCKET);
    let mut every = tokio::time::interval(STATUS_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        let collect = api::call(&socket, "GET", "/v1/status", Vec::new()).await.ok();
        let collect: CollectStatus = collect.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
        let status = Some(Arc::new(gateway_status(&settings, &collect, &routes)));
        publish.send_if_modified(|published| {
            let changed = *published != status;
            published.clone_from(&status);
            changed
        });
    }
}

fn gateway_status(settings: &Settings, collect: &CollectStatus, routes: &[watch::Receiver<RouteStatus>]) -> status::Status {
    let device = |device: &crate::collect::DeviceStatus| status::DeviceStatus {
        name: device.name.clone(),
        kind: device.kind.clone(),
        state: device.state.name().to_owned(),
        last_reading_at: device
            .last_reading_at
            .as_ref()
            .and_then(|at| at.parse::<jiff::Timestamp>().ok())
            .map(|at| Timestamp(at.as_millisecond())),
        battery: device.battery_percent,
    };
    let route = |route: &watch::Receiver<RouteStatus>| {
        let route = route.borrow();
        status::RouteStatus {
            name: route.name.clone(),
            state: route.state.name().to_owned(),
            backlog: route.backlog,
            held: route.held.values().sum(),
        }
    };
    status::Status {
        gateway: settings.gateway.id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        devices: collect.devices.iter().map(device).collect(),
        routes: routes.iter().map(route).collect(),
    }
}

fn link_settings(settings: &Settings, route: &config::RouteSettings, mqtt: &MqttSettings) -> Result<LinkSettings, DaemonError> {
    let credentials = &settings.gateway.credentials;
    let tls = match &mqtt.tls {
        None => None,
        Some(tls) => {
            let client = match &tls.client {
                None => None,
                Some(client) => Some(ClientIdentity { cert: client.cert.clone(), key: secret::read(&client.key, credentials)? }),
            };
            Some(client_config(&TlsSettings { route: route.name.clone(), ca: Some(tls.ca.clone()), client, alpn: Vec::new() })?)
        }
    };
    let login = match (&mqtt.username, &mqtt.password) {
        (Some(username), password) => {
            let password = password.as_ref().map(|password| secret::read(password, credentials)).transpose()?;
            let text = password.map(|octets| String::from_utf8_lossy(&octets).trim_end_matches(['\r', '\n']).to_owned());
            Some(Login { username: username.clone(), password: Zeroizing::new(text.unwrap_or_default()) })
        }
        (None, _) => None,
    };
    let will = Will {
        topic: status::topic(&settings.gateway.id),
        payload: status::offline(&settings.gateway.id, env!("CARGO_PKG_VERSION")),
    };
    let mut link = LinkSettings::new(mqtt.host.clone(), mqtt.port, tls, mqtt.client_id.clone());
    link.login = login;
    link.will = Some(will);
    link.keep_alive = mqtt.keep_alive;
    link.window = mqtt.window;
    link.max_packet = mqtt.max_packet;
    Ok(link)
}

fn route_settings(settings: &Settings, route: &config::RouteSettings, mqtt: &MqttSettings) -> RouteSettings {
    let devices = settings.devices.iter().map(|device| {
        let label = DeviceLabel { name: device.name.clone(), kind: device.kind.name().to_owned() };
        (device.id, RouteDevice { label, zone: device.timezone.clone(), history: device.history })
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
        receipt_within: None,
        devices: devices.collect(),
        default_zone: settings.gateway.timezone.clone(),
        preferences: preferences.collect(),
        min_coverage_permille: u16::from(route.min_coverage) * 10,
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
    DeskSettings {
        gateway: settings.gateway.id.clone(),
        devices: settings.devices.iter().map(|device| (device.name.clone(), device.id)).collect(),
        beds: settings.beds.iter().map(|bed| bed.id.clone()).collect(),
        zones: settings.devices.iter().map(|device| (device.id, device.timezone.clone())).collect(),
        default_zone: settings.gateway.timezone.clone(),
        back_dating: settings.ward.back_dating,
        wanted,
        patients: settings.patients.iter().map(|patient| (patient.key.clone(), patient.test)).collect(),
    }
}
