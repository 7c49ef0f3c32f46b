//! Checked values to settings, and where each value came from.

use super::broker::{Broker, proxy_address};
use super::document::{Document, Section};
use super::keys::{self, Key, Status};
use super::secret::CredentialsDir;
use super::settings::{
    BedSettings, ClientCertificate, DeviceSettings, FilterSettings, GatewaySettings, GuardSettings, MetricSettings,
    MonitorSettings, MqttSettings, PatientSettings, ProxySettings, RadioSettings, RouteKind, RouteSettings, SasSettings,
    ScanSettings, Settings, SpotSettings, StoreSettings, Target, TlsSettings, Use, WardSettings,
};
use super::typed::{FromValue, WindowLength};
use super::value::pattern;
use super::{Env, Explained, Origin};
use crate::reading::{METRICS, Nameplate};

/// Only for a document without errors.
pub fn settings(document: &Document, env: &Env) -> Settings {
    let gateway = gateway(document, env);
    let monitor = monitor(document);
    let all = |schema| document.sections(schema);
    Settings {
        store: store(document),
        ward: ward(document),
        scan: scan(document),
        radio: radio(document),
        beds: all("bed[]").map(|section| BedSettings { id: Of(document, section).need("id") }).collect(),
        patients: all("patient[]").map(|section| patient(document, section)).collect(),
        devices: all("device[]").map(|section| device(document, section, &gateway, &monitor)).collect(),
        metrics: METRICS.iter().map(|row| (row.metric, metric(document, row.name))).collect(),
        routes: all("route[]").map(|section| route(document, section, &gateway.id)).collect(),
        gateway,
        monitor,
    }
}

fn gateway(document: &Document, env: &Env) -> GatewaySettings {
    let gateway = Of(document, document.single("gateway"));
    let from_systemd = env.credentials_directory.clone();
    let credentials = match (document.written(document.single("gateway"), "credentials_dir"), from_systemd) {
        (None, Some(path)) => CredentialsDir { path, systemd: true },
        (Some(path), from_systemd) => CredentialsDir { systemd: from_systemd.as_ref() == Some(&path), path },
        (None, None) => CredentialsDir { path: gateway.need("credentials_dir"), systemd: false },
    };
    GatewaySettings {
        id: gateway.need("id"),
        mode: gateway.need("mode"),
        timezone: gateway.need("timezone"),
        site_key: gateway.need("site_key"),
        state_dir: gateway.need("state_dir"),
        runtime_dir: gateway.need("runtime_dir"),
        credentials,
    }
}

fn store(document: &Document) -> StoreSettings {
    let store = Of(document, document.single("store"));
    StoreSettings {
        key: store.need("key"),
        commit_interval: store.need("commit_interval"),
        commit_records: store.need("commit_records"),
        ack_interval: store.need("ack_interval"),
        horizon: store.need("horizon"),
        keep: store.need("keep"),
        max_bytes: store.need("max_bytes"),
        free_floor: store.need("free_floor"),
    }
}

fn ward(document: &Document) -> WardSettings {
    let ward = Of(document, document.single("ward"));
    let adt = Of(document, document.single("adt"));
    let guards = GuardSettings {
        command: ward.need("guard.command"),
        scan: ward.need("guard.scan"),
        import: ward.need("guard.import"),
        with_event_time: adt.need("guard.with_event_time"),
        keyed_before: adt.need("guard.keyed_before"),
        keyed_after: adt.need("guard.keyed_after"),
    };
    WardSettings { key: ward.need("key"), back_dating: ward.need("back_dating"), guards, stale_after: ward.get("stale_after") }
}

fn scan(document: &Document) -> ScanSettings {
    let scan = Of(document, document.single("scan"));
    let compiled = |key| scan.get::<String>(key).and_then(|text| pattern(&text));
    ScanSettings { input: scan.get("input"), patterns: compiled("patient").zip(compiled("device")), within: scan.need("within") }
}

fn monitor(document: &Document) -> MonitorSettings {
    let monitor = Of(document, document.single("monitor"));
    MonitorSettings {
        topic: monitor.need("topic"),
        silent_after: monitor.need("silent_after"),
        battery_low: monitor.need("battery_low"),
        route_down_after: monitor.need("route_down_after"),
        held_after: monitor.need("held_after"),
    }
}

fn radio(document: &Document) -> RadioSettings {
    let radio = Of(document, document.single("radio"));
    RadioSettings {
        adapters: radio.get("adapters").unwrap_or_default(),
        profiles: radio.need("profiles"),
        connections: radio.need("connections"),
    }
}

fn patient(document: &Document, section: &Section) -> PatientSettings {
    let patient = Of(document, section);
    PatientSettings { key: patient.need("key"), test: patient.need("test") }
}

fn device(document: &Document, section: &Section, gateway: &GatewaySettings, monitor: &MonitorSettings) -> DeviceSettings {
    let device = Of(document, section);
    let usage: Use = device.need("use");
    let spot = || SpotSettings {
        lasts: device.need("spot.for"),
        readings: device.need("spot.readings"),
        max_uncertainty: device.get("spot.max_uncertainty"),
        stable_for: device.get("spot.stable_for"),
    };
    DeviceSettings {
        name: device.need("name"),
        kind: device.need("kind"),
        id: device.need("address"),
        usage,
        spot: (usage == Use::Shared).then(spot),
        bed: device.get("bed"),
        patient: device.get("patient"),
        user: device.get("user"),
        from: device.get("from"),
        history: device.need("history"),
        nameplate: Nameplate { serial: device.get("serial"), model: device.get("model") },
        asset: device.get("asset"),
        profile_id: device.get("profile"),
        profile: None,
        profile_fault: None,
        advert: device.get("advert"),
        advert_key: device.get("advert_key"),
        advert_counter: device.need("advert_counter"),
        expect_every: device.get("expect_every"),
        adapter: device.get("adapter"),
        priority: device.get("priority"),
        bond: device.need("bond"),
        passkey: device.get("passkey"),
        consent: device.get("consent"),
        set_clock: device.need("set_clock"),
        timezone: device.get("timezone").unwrap_or_else(|| gateway.timezone.clone()),
        silent_after: device.get("silent_after").unwrap_or(monitor.silent_after),
    }
}

fn metric(document: &Document, name: &str) -> MetricSettings {
    let unwritten = Section::unwritten("metric.*");
    let section = document.sections("metric.*").find(|section| section.name.as_deref() == Some(name));
    let metric = Of(document, section.unwrap_or(&unwritten));
    MetricSettings {
        windows_s: metric.need::<Vec<WindowLength>>("windows").into_iter().map(|length| length.0).collect(),
        prefer: metric.need("prefer"),
        agree_within: metric.get("agree_within"),
    }
}

fn route(document: &Document, section: &Section, gateway: &str) -> RouteSettings {
    let route = Of(document, section);
    let kind = route.need("kind");
    RouteSettings {
        name: route.need("name"),
        kind,
        environment: route.need("environment"),
        bind: route.need("bind"),
        carry: route.need("carry"),
        order: route.need("order"),
        start: route.need("start"),
        when: route.need("when"),
        max_rate: route.get("max_rate"),
        daily_bytes: route.get("daily_bytes"),
        per_patient: route.need("per_patient"),
        min_coverage: route.need("min_coverage"),
        questionable: route.need("questionable"),
        retract: route.need("retract"),
        filter: FilterSettings {
            metrics: route.need("filter.metrics"),
            devices: route.need("filter.devices"),
            beds: route.need("filter.beds"),
        },
        target: match kind {
            RouteKind::Mqtt => Target::Mqtt(Box::new(mqtt(&route, gateway))),
            RouteKind::Fhir | RouteKind::Hl7 | RouteKind::Http => Target::NotYet,
        },
    }
}

fn mqtt(route: &Of<'_>, gateway: &str) -> MqttSettings {
    let url: String = route.need("url");
    let broker = Broker::parse(&url).expect("the rules parsed it");
    let tls = broker.tls.then(|| TlsSettings {
        ca: route.need("tls.ca"),
        client: route.get("tls.cert").map(|cert| ClientCertificate { cert, key: route.need("tls.key") }),
        alpn: route.need("tls.alpn"),
        server_name: route.get("tls.server_name"),
    });
    let proxy = route.get::<String>("proxy.url").map(|url| {
        let (host, port) = proxy_address(&url).expect("the rules parsed it");
        ProxySettings { host, port, username: route.get("proxy.username"), password: route.get("proxy.password") }
    });
    MqttSettings {
        url,
        host: broker.host,
        port: broker.port,
        tls,
        websocket: broker.path,
        proxy,
        protocol: route.need("protocol"),
        username: route.get("username"),
        password: route.get("password"),
        sas: route.get("sas.key").map(|key| SasSettings { key, ttl: route.need("sas.ttl") }),
        topic: route.need("topic"),
        settle: route.need("settle"),
        compression: route.get("compression"),
        batch_topic: one_topic(route, gateway, "batch_topic"),
        receipt_topic: one_topic(route, gateway, "receipt_topic"),
        receipt_within: route.need("receipt_within"),
        unheard: route.need("unheard"),
        client_id: route.get("client_id").unwrap_or_else(|| format!("{gateway}-{}", route.need::<String>("name"))),
        announce: route.need("announce"),
        home_assistant: route.get("home_assistant"),
        keep_alive: route.need("keep_alive"),
        max_packet: route.need("max_packet"),
        window: route.need("window"),
        max_qos: route.need("max_qos"),
        retain: route.need("retain"),
    }
}

/// Names of gateways and routes hold nothing a topic may not.
fn one_topic(route: &Of<'_>, gateway: &str, key: &str) -> String {
    let template: String = route.need(key);
    template.replace("{gateway}", gateway).replace("{route}", &route.need::<String>("name"))
}

struct Of<'d>(&'d Document, &'d Section);

impl Of<'_> {
    fn get<T: FromValue>(&self, key: &str) -> Option<T> {
        self.0.effective(self.1, key)
    }

    fn need<T: FromValue>(&self, key: &str) -> T {
        self.get(key).expect("the rules refuse a config without a required key, and the table of keys has every default")
    }
}

/// The effective value of every key that has one, in the order of the table of keys.
pub fn explain(document: &Document, env: &Env) -> Vec<Explained> {
    let schemas =
        ["gateway", "store", "ward", "monitor", "radio", "adt", "scan", "bed[]", "patient[]", "device[]", "metric.*", "route[]"];
    let other_metrics = Section { label: "metric (any other)".to_owned(), ..Section::unwritten("metric.*") };
    let mut explained = Vec::new();
    for schema in schemas {
        let unwritten = (schema == other_metrics.schema).then_some(&other_metrics);
        for section in document.sections(schema).chain(unwritten) {
            explained.extend(keys::of_section(schema).filter_map(|key| explain_key(document, env, section, key)));
        }
    }
    explained
}

fn explain_key(document: &Document, env: &Env, section: &Section, key: &'static Key) -> Option<Explained> {
    let local = key.path[section.schema.len() + 1..].to_owned();
    let (mut value, mut origin) = document.explained(section, key)?;
    if !matches!(origin, Origin::File { .. }) {
        if key.status != Status::Now || does_not_concern(document, section, &local) {
            return None;
        }
        if let ("gateway.credentials_dir", Some(path)) = (key.path, &env.credentials_directory) {
            (value, origin) = (format!("{:?}", path.display().to_string()), Origin::Environment);
        }
    }
    Some(Explained { path: key.path, section: section.label.clone(), key: local, value, origin })
}

/// Keys of routes of kind mqtt.
const MQTT: &[&str] = &[
    "topic",
    "protocol",
    "settle",
    "receipt_topic",
    "receipt_within",
    "batch_topic",
    "unheard",
    "client_id",
    "keep_alive",
    "max_packet",
    "window",
    "max_qos",
    "retain",
    "announce",
];

/// A default that means nothing there: a topic where no MQTT is spoken, a CA where no TLS is.
fn does_not_concern(document: &Document, route: &Section, key: &str) -> bool {
    if route.schema == "device[]" {
        return key.starts_with("spot.") && document.effective(route, "use") != Some(Use::Shared);
    }
    if route.schema != "route[]" {
        return false;
    }
    let mqtt = document.written(route, "kind") == Some(RouteKind::Mqtt);
    let plain =
        document.written::<String>(route, "url").is_none_or(|url| ["mqtt://", "ws://"].iter().any(|s| url.starts_with(s)));
    (!mqtt && MQTT.contains(&key)) || (plain && key.starts_with("tls.")) || (key == "sas.ttl" && !document.has(route, "sas.key"))
}
