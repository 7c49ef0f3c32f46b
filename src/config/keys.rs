//! The one table of keys. What can be written, its default and its meaning are decided here; reading, suggestions,
//! `check --explain` and the test of the commented default file all follow it.
//!
//! A path names its sections: `device[].address` is a key of every `[[device]]`, `metric.*.windows` of every `[metric.NAME]`.

use Kind::{Address, Agreement, Boolean, Carry, Free, History, List, Metric, Name, Patient, Percent, Secret, Text, Time};
use Kind::{OneTopic, Path, Topic, Url, When, WindowLength, Zone};

use super::settings::{
    AdvertName, Bind, Bond, Compression, Environment, Mode, Order, Priority, Protocol, Questionable, Retract, Start, Unheard, Use,
};
use super::value::Kind;

#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub path: &'static str,
    pub kind: Kind,
    pub default: Preset,
    pub doc: &'static str,
    pub status: Status,
}

/// The value of a key nobody wrote, as TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// It must be written.
    Required,
    /// Absent is a meaning of its own, said in the key's doc.
    Absent,
    Toml(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Now,
    /// Known and checked, but what it asks for is not built yet: the name of that work.
    Later(&'static str),
}

const fn need(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: Preset::Required, doc, status: Status::Now }
}

const fn may(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: Preset::Absent, doc, status: Status::Now }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Preset::Toml(default), doc, status: Status::Now }
}

const fn later(path: &'static str, kind: Kind, why: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Preset::Absent, doc, status: Status::Later(why) }
}

const fn words(words: &'static [&'static str]) -> Kind {
    Kind::Choice { words, later: &[] }
}

const fn duration(min: u64, max: u64) -> Kind {
    Kind::Duration { min, max }
}

const S: u64 = 1_000;
const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

const ADT: &str = "admissions, transfers and discharges by HL7";
const CHART: &str = "routes to a chart";
const FHIR: &str = "the FHIR route";
const HL7: &str = "the HL7 route";
const HTTP: &str = "the HTTP route";

const ROUTE_KINDS: Kind = Kind::Choice { words: &["mqtt"], later: &[("fhir", FHIR), ("hl7", HL7), ("http", HTTP)] };
const DEVICE_KINDS: Kind = Kind::Choice {
    words: &[
        "heart-rate",
        "thermometer",
        "blood-pressure",
        "pulse-oximeter",
        "weight-scale",
        "body-composition",
        "glucose-meter",
        "glucose-sensor",
    ],
    later: &[],
};
const SETTLE: Kind = Kind::Choice { words: &["puback", "sent", "receipt"], later: &[] };

pub const KEYS: &[Key] = &[
    // The gateway itself.
    need("gateway.id", Name, "Name of this gateway: in topics, payloads and the ids of windows. Never change it in use."),
    key("gateway.mode", words(Mode::WORDS), r#""ward""#, "Where it works; sets other defaults."),
    key("gateway.timezone", Zone, r#""UTC""#, "For devices and feeds that know only local time."),
    key("gateway.site_key", Secret, r#"{ credential = "site-key" }"#, "The same on every gateway of the site: ids agree."),
    key("gateway.state_dir", Path, r#""/var/lib/bedrail""#, "Where the log and the ward's file are."),
    key("gateway.runtime_dir", Path, r#""/run/bedrail""#, "Where the sockets are."),
    key(
        "gateway.credentials_dir",
        Path,
        r#""/etc/bedrail/credentials""#,
        "Where { credential = \"NAME\" } is looked up; under systemd the default is the service's own directory.",
    ),
    // The log.
    key("store.key", Secret, r#"{ credential = "store-key" }"#, "Opens the log."),
    key("store.commit_interval", duration(10, 10 * S), r#""500 ms""#, "Longest time a streamed reading waits to be durable."),
    key(
        "store.commit_records",
        Kind::Integer { min: 1, max: 1_000, unit: "records" },
        "256",
        "A commit is made at once when so many records wait.",
    ),
    key("store.ack_interval", duration(100, 60 * S), r#""1 s""#, "How often acknowledgements are written; a crash sends again."),
    key("store.horizon", duration(HOUR, 30 * DAY), r#""72 h""#, "How long a window is made again when late values come."),
    key(
        "store.keep",
        duration(HOUR, 3_650 * DAY),
        r#""30 d""#,
        "How long what every route has settled is kept; not below horizon.",
    ),
    key(
        "store.max_bytes",
        Kind::Size { min: 16 * MIB, max: 1 << 42 },
        r#""2 GiB""#,
        "Largest size of the log; beyond it what is settled goes, then what is worth least.",
    ),
    key(
        "store.free_floor",
        Kind::Size { min: 0, max: 1 << 42 },
        r#""256 MiB""#,
        "Disk space left to others: below it the log grows no more.",
    ),
    // Patients, beds and who may change the past.
    key("ward.key", Secret, r#"{ credential = "ward-key" }"#, "Opens the file with patients and assignments."),
    key("ward.back_dating", duration(0, DAY), r#""2 h""#, "How far back an assignment may begin."),
    key("ward.guard.command", duration(0, HOUR), r#""0 s""#, "Doubt around a change that somebody gave as a command."),
    key("ward.guard.scan", duration(0, HOUR), r#""0 s""#, "Doubt around a change by a scan."),
    key("ward.guard.import", duration(0, HOUR), r#""0 s""#, "Doubt around a change by a census."),
    may(
        "ward.stale_after",
        duration(10 * S, 7 * DAY),
        "Without a census of all beds for so long, what rests on one waits; absent: a census speaks until it is contradicted.",
    ),
    // The scan station.
    may("scan.input", Path, "The scanner's serial line, for `bedrail scan-station`; absent: given there."),
    may(
        "scan.patient",
        Kind::Pattern(&["visit", "key"]),
        "Pattern of a wristband, with a group `visit` (the number of a visit) or `key` (the patient's key).",
    ),
    may(
        "scan.device",
        Kind::Pattern(&["asset", "name"]),
        "Pattern of a device's label, with a group `asset` (device.asset) or `name` (device.name).",
    ),
    key("scan.within", duration(5 * S, 5 * MINUTE), r#""30 s""#, "How long a wristband waits for the device scanned after it."),
    // What others may know of the gateway, and when a condition of it is raised.
    key(
        "monitor.topic",
        Topic,
        r#""bedrail/{gateway}/status""#,
        "Where the gateway's state is published; its devices and routes are below it.",
    ),
    key("monitor.silent_after", duration(60 * S, 365 * DAY), r#""24 h""#, "A device without a reading for so long is silent."),
    key("monitor.battery_low", Percent, r#""20 %""#, "A device's battery is low at this and below."),
    key("monitor.route_down_after", duration(10 * S, DAY), r#""5 min""#, "A route that is not up for so long is down."),
    key("monitor.held_after", duration(60 * S, 30 * DAY), r#""1 h""#, "Records that may not go for so long are told of."),
    key("radio.profiles", Path, r#""/etc/bedrail/profiles.d""#, "Directory of the site's own device profiles (*.toml)."),
    may("radio.adapters", List(&Address), "Addresses of the Bluetooth adapters to use; absent: all there are."),
    key(
        "radio.connections",
        Kind::Integer { min: 1, max: 64, unit: "links" },
        "10",
        "How many links an adapter holds at once; further devices take turns.",
    ),
    need("bed[].id", Text, "Name of the bed."),
    later("bed[].location", Text, ADT, "The bed as the admission feed writes it (PV1-3)."),
    need("patient[].key", Patient, "Opaque key; the identity enters by `bedrail patient set KEY --identifiers-file -`."),
    key("patient[].test", Boolean, "false", "Nobody's chart: test messages may go there."),
    // Devices.
    need("device[].name", Name, "What people call it: in topics, payloads and commands."),
    need("device[].kind", DEVICE_KINDS, "What it measures."),
    need("device[].address", Address, "Its Bluetooth device address; part of the identity of its readings."),
    key(
        "device[].use",
        words(Use::WORDS),
        r#""bed""#,
        "For whom: a bed, one person, or whoever is next. From `patient` or `bed`, else by mode.",
    ),
    may("device[].bed", Text, "Id of the [[bed]] it stands at."),
    may("device[].patient", Patient, "Key of the [[patient]] it measures."),
    may(
        "device[].user",
        Kind::Integer { min: 0, max: 254, unit: "the device's user slots" },
        "Only this user slot is the patient's; absent: all.",
    ),
    may("device[].from", Time, "Start of this assignment; absent: when this line is first applied, never \"always\"."),
    key(
        "device[].history",
        History,
        r#""new""#,
        "What it stored before its first assignment: never to a chart, all of it, or since a time.",
    ),
    may("device[].timezone", Zone, "Zone of its clock; absent: the gateway's."),
    may(
        "device[].silent_after",
        duration(60 * S, 365 * DAY),
        "Without a reading for so long it is silent; absent: monitor.silent_after.",
    ),
    may("device[].profile", Name, "Id of the profile that says how it is read, in place of its kind's standard service."),
    may(
        "device[].advert",
        words(AdvertName::WORDS),
        "It is read by what it advertises, in this format of docs/devices.md, and never connected to.",
    ),
    may("device[].advert_key", Secret, "For an encrypted format: 32 hexadecimal digits. What is not encrypted is then refused."),
    key(
        "device[].advert_counter",
        Kind::Integer { min: 0, max: 255, unit: "times" },
        "0",
        "How often it began to count anew, as after new batteries: raise it when everything of it is rejected as `replayed`.",
    ),
    may("device[].asset", Text, "Your inventory number; a label."),
    may(
        "device[].expect_every",
        duration(5 * S, DAY),
        "While it is connected a value comes at least this often, or the radio is doubted; absent: 1 min for a heart-rate device, \
         never for the others.",
    ),
    may(
        "device[].adapter",
        Address,
        "Address of the one Bluetooth adapter through which it is reached; absent: any of radio.adapters.",
    ),
    may(
        "device[].priority",
        words(Priority::WORDS),
        "Who connects first: \"high\", \"normal\", \"low\"; absent: high for a kind that streams, else normal.",
    ),
    may(
        "device[].serial",
        Kind::Told,
        "Serial number (2A25) it must tell in Device Information, letter by letter; else its readings are held.",
    ),
    may("device[].model", Kind::Told, "Model number (2A24) it must tell in Device Information; else its readings are held."),
    key(
        "device[].bond",
        words(Bond::WORDS),
        r#""none""#,
        "How it may pair: \"none\", \"just-works\" when it asks to, \"passkey\" with the secret below and not without.",
    ),
    may("device[].passkey", Secret, "For bond = \"passkey\": the six digits the device shows or has printed on it."),
    may(
        "device[].consent",
        Secret,
        "For a scale with users: one line a user, the number of its slot on the device and its consent code, such as `1 4711`.",
    ),
    key("device[].set_clock", Boolean, "false", "Set its clock, once all it stored was read and while ours is synchronised."),
    key(
        "device[].spot.for",
        duration(S, DAY),
        r#""5 min""#,
        "How long after a scan a shared device's readings belong to that patient.",
    ),
    key("device[].spot.readings", Kind::Integer { min: 1, max: 100, unit: "readings" }, "1", "Of each metric at most so many."),
    may("device[].spot.max_uncertainty", duration(S, HOUR), "With a worse clock a reading waits; absent: any clock will do."),
    may(
        "device[].spot.stable_for",
        duration(S, HOUR),
        "A stream gives one value when it is stable so long; absent: each value counts.",
    ),
    // How a metric is condensed and chosen.
    key(
        "metric.*.windows",
        List(&WindowLength),
        r#"["1 min", "15 min"]"#,
        "Window lengths made of it, beside those a route carries.",
    ),
    key("metric.*.prefer", List(&Text), "[]", "Devices, by name or kind, that speak for the patient, best first."),
    may("metric.*.agree_within", Agreement, "Two sources further apart are flagged; absent: never compared."),
    // Routes, whatever their kind.
    need("route[].name", Name, "Stable name: what is unsent is kept under it."),
    need("route[].kind", ROUTE_KINDS, "What speaks at the other end."),
    key("route[].environment", words(Environment::WORDS), r#""test""#, "Whether the values are for care."),
    may("route[].url", Url, "Where to; required for mqtt."),
    key("route[].bind", words(Bind::WORDS), r#""patient""#, "What a reading must be tied to before it goes; mqtt: \"device\"."),
    key(
        "route[].carry",
        List(&Carry),
        r#"["readings"]"#,
        "\"readings\", \"episodic\" (never condensed ones), \"events\", \"windows:15m\".",
    ),
    key(
        "route[].order",
        words(Order::WORDS),
        r#""strict""#,
        "Live values before the backlog, or one order; mqtt: \"live-first\".",
    ),
    key("route[].start", words(Start::WORDS), r#""now""#, "Where a new route begins in the log."),
    key("route[].when", When, r#""at-once""#, "\"at-once\", \"every 15 min\", \"daily 06:00\" (of the gateway's zone)."),
    may(
        "route[].max_rate",
        Kind::Integer { min: 1, max: 10_000, unit: "messages a second" },
        "Messages a second at most; absent: as fast as the destination takes them.",
    ),
    may(
        "route[].daily_bytes",
        Kind::Size { min: 64 << 10, max: 128 << 30 },
        "Octets a day at most, the backlog three quarters of it; absent: no limit.",
    ),
    key("route[].per_patient", Boolean, "false", "One stream a patient, metric and slot; needs bind = \"patient\"."),
    key("route[].min_coverage", Percent, r#""50 %""#, "Least coverage at which a window may speak for a patient."),
    key(
        "route[].questionable",
        words(Questionable::WORDS),
        r#""send""#,
        "Values the device or bedrail doubts: flagged, or held.",
    ),
    key(
        "route[].retract",
        words(Retract::WORDS),
        r#""auto""#,
        "What went to a wrong chart: taken back where it is little and recent, or asked, or never.",
    ),
    key("route[].filter.metrics", List(&Metric), "[]", "Only these metrics; empty: all."),
    key("route[].filter.devices", List(&Text), "[]", "Only these devices, by name; empty: all."),
    key("route[].filter.beds", List(&Text), "[]", "Only these beds, by id; empty: all."),
    key("route[].announce", Boolean, "true", "Whether the gateway's state is published there, with a last will."),
    may(
        "route[].home_assistant",
        Topic,
        "Discovery prefix of a Home Assistant, usually \"homeassistant\"; absent: nothing is announced to one.",
    ),
    // TLS and login.
    key("route[].tls.ca", Path, r#""/etc/ssl/certs/ca-certificates.crt""#, "Certificates (PEM) that may sign the destination's."),
    may("route[].tls.cert", Path, "Our certificate (PEM), with `key`; absent: none is shown."),
    may("route[].tls.key", Secret, "The key of our certificate."),
    key(
        "route[].tls.alpn",
        List(&Text),
        "[]",
        "Application protocols to offer (ALPN), best first, where the destination wants one.",
    ),
    may("route[].tls.server_name", Text, "Name to ask for (SNI) and to find in the certificate; absent: the host in `url`."),
    may("route[].proxy.url", Url, "HTTP proxy to go through, \"http://HOST:PORT\"; absent: none."),
    may("route[].proxy.username", Text, "Login at the proxy."),
    may("route[].proxy.password", Secret, "Password of that login."),
    may("route[].username", Text, "Login at the destination."),
    may("route[].password", Secret, "Password of the login."),
    // Routes of kind mqtt.
    key("route[].topic", Topic, r#""bedrail/{gateway}/{device}/{metric}""#, "Where values are published."),
    key(
        "route[].protocol",
        words(Protocol::WORDS),
        r#""5""#,
        "Version of MQTT; a 3.1.1 broker acknowledges even what its access rules refuse.",
    ),
    key("route[].settle", SETTLE, r#""puback""#, "What counts as arrived."),
    key(
        "route[].max_qos",
        Kind::Integer { min: 0, max: 1, unit: "QoS" },
        "1",
        "Best quality of service the broker takes; at 0 nothing is acknowledged.",
    ),
    key("route[].retain", Boolean, "true", "Whether the broker keeps retained messages; false: none is sent as such."),
    key(
        "route[].receipt_topic",
        OneTopic,
        r#""bedrail/{gateway}/receipt/{route}""#,
        "Where the receiver publishes its receipts; for settle = \"receipt\".",
    ),
    key("route[].receipt_within", duration(5 * S, DAY), r#""2 min""#, "Without a receipt for so long a record goes again."),
    key(
        "route[].unheard",
        words(Unheard::WORDS),
        r#""wait""#,
        "What is published and nobody listens to: it waits until somebody does, or counts as arrived.",
    ),
    may("route[].client_id", Name, "Client id at the broker; absent: gateway id and route name."),
    key("route[].keep_alive", duration(5 * S, 18 * HOUR), r#""30 s""#, "Longest silence on the link."),
    key("route[].max_packet", Kind::Size { min: 4 << 10, max: 16 * MIB }, r#""128 KiB""#, "Largest packet sent or accepted."),
    key(
        "route[].window",
        Kind::Integer { min: 1, max: 1_024, unit: "messages" },
        "64",
        "Messages on their way at once; the broker may allow fewer.",
    ),
    may("route[].sas.key", Secret, "Device key of Azure IoT Hub, in base64: each login is a token signed with it."),
    key(
        "route[].sas.ttl",
        duration(2 * MINUTE, 30 * DAY),
        r#""1 h""#,
        "How long a token is good for; the link is made anew before that.",
    ),
    may(
        "route[].compression",
        words(Compression::WORDS),
        "\"zstd\": the backlog goes as compressed batches; absent: one record a message.",
    ),
    key(
        "route[].batch_topic",
        OneTopic,
        r#""bedrail/{gateway}/batch""#,
        "Where batches are published; for compression = \"zstd\".",
    ),
    // Routes of kinds to come.
    later("route[].map.*", Free, CHART, "Unit and label of a metric at the destination."),
    later("route[].late", words(&["send", "hold"]), CHART, "Values older than the destination expects."),
    later("route[].delay", duration(0, HOUR), CHART, "Settle time before charting."),
    later("route[].value", words(&["median-sample"]), CHART, "Which value speaks for a window."),
    later("route[].auth.kind", words(&["none", "bearer", "client-secret", "smart-backend"]), FHIR, "How to log in."),
    later("route[].auth.token", Secret, FHIR, "For \"bearer\": the token."),
    later("route[].auth.client_id", Text, FHIR, "Name of this client at the token server."),
    later("route[].auth.secret", Secret, FHIR, "For \"client-secret\": the client's secret."),
    later("route[].auth.key", Secret, FHIR, "For \"smart-backend\": the client's private key (PEM)."),
    later("route[].auth.alg", words(&["ES384", "RS384"]), FHIR, "What the key signs with."),
    later("route[].auth.kid", Text, FHIR, "Name of the key among those the token server knows."),
    later("route[].auth.scope", Text, FHIR, "Rights to ask for."),
    later("route[].auth.token_url", Url, FHIR, "The token server; absent: the one the FHIR server names."),
    later("route[].identifier_system", Text, FHIR, "System (URI) of the identifiers of Observations."),
    later("route[].verify", words(&["birth-date"]), FHIR, "Second identifier compared with the matched patient."),
    later(
        "route[].create",
        words(&["put", "if-none-exist", "search-first", "idempotency-header", "at-most-once"]),
        FHIR,
        "How a resource is made once.",
    ),
    later("route[].amend", words(&["send", "skip", "alert"]), FHIR, "What to do with late data."),
    later("route[].device", words(&["resolve", "create", "contained", "display", "omit"]), FHIR, "How the device is named."),
    later("route[].encounter", words(&["omit", "resolve"]), FHIR, "Whether the encounter a patient is in is named."),
    later("route[].status", words(&["final", "preliminary"]), FHIR, "Status of an Observation."),
    later("route[].form", words(&["transaction", "batch", "single"]), FHIR, "How many go at once, and whether all or none."),
    later("route[].max_entries", Kind::Integer { min: 1, max: 1_000, unit: "entries" }, FHIR, "Entries of a bundle."),
    later("route[].format", Text, HL7, "Message profile."),
    later("route[].observation_status", Text, HL7, "OBX-11."),
    later("route[].template", Text, HTTP, "Shape of the request."),
    // Feeds and stations to come.
    later("adt.listen", Text, ADT, "Address and port to listen at."),
    later("adt.tls.cert", Path, ADT, "Our certificate (PEM)."),
    later("adt.tls.key", Secret, ADT, "The key of our certificate."),
    later("adt.tls.client_ca", Path, ADT, "Certificates that may sign the engine's."),
    later("adt.timezone", Zone, ADT, "Zone of times without offset."),
    later("adt.quiet_max", duration(60 * S, 7 * DAY), ADT, "A feed silent for longer is stale."),
    later("adt.units", List(&Text), ADT, "Nursing units that concern this gateway."),
    key("adt.guard.with_event_time", duration(0, HOUR), r#""2 min""#, "Doubt around an event with a time of its own."),
    key("adt.guard.keyed_before", duration(0, DAY), r#""30 min""#, "Doubt before an event that was keyed later."),
    key("adt.guard.keyed_after", duration(0, DAY), r#""5 min""#, "Doubt after an event that was keyed later."),
];

/// The key a path belongs to.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names that can follow a path, sections and keys alike: `device[]` has `name`, `spot`, …
pub fn children(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let rest = if section.is_empty() { key.path } else { key.path.strip_prefix(section)?.strip_prefix('.')? };
        Some(rest.split(['.', '[']).next().unwrap_or(rest))
    })
}

/// The keys of a section and its sub-tables: of `device[]`, of `metric.*`, of `gateway`.
pub fn of_section(section: &'static str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

/// The default as TOML, where the mode or the kind of route decides it before the table does.
pub fn default_of(key: &Key, mode: Mode, mqtt: bool) -> (Preset, bool) {
    match key.path {
        "device[].use" if mode == Mode::Home => (Preset::Toml(r#""personal""#), true),
        "route[].bind" if mqtt => (Preset::Toml(r#""device""#), false),
        "route[].order" if mqtt => (Preset::Toml(r#""live-first""#), false),
        _ => (key.default, false),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::settings::{DeviceKind, RouteKind, Settle};

    #[test]
    fn every_path_stands_once_and_every_default_is_what_a_user_could_write() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        for key in KEYS {
            assert!(!key.doc.is_empty(), "{}", key.path);
            for mode in Mode::ALL {
                for mqtt in [false, true] {
                    let (Preset::Toml(toml), _) = default_of(key, *mode, mqtt) else { continue };
                    let value = toml::de::DeValue::parse(toml).unwrap_or_else(|e| panic!("{}: {e}", key.path));
                    key.kind.read(value.get_ref()).unwrap_or_else(|e| panic!("{}: {e}", key.path));
                }
            }
        }
    }

    #[test]
    fn every_word_of_a_setting_can_be_written() {
        for (path, words) in
            [("route[].kind", RouteKind::WORDS), ("device[].kind", DeviceKind::WORDS), ("route[].settle", Settle::WORDS)]
        {
            let Some(Key { kind: Kind::Choice { words: now, later }, .. }) = find(path) else { panic!("{path} is a choice") };
            let known: Vec<_> = now.iter().copied().chain(later.iter().map(|(word, _)| *word)).collect();
            assert_eq!(known, words, "{path}");
        }
    }
}
