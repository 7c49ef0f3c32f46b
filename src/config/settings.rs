//! What a checked bedrail.toml says, as plain values the other rooms build on. Secrets are references, never contents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::secret::{CredentialsDir, SecretRef};
use crate::profile::Profile;
use crate::reading::{Decimal, DeviceId, Metric, Nameplate, SubjectKey, Summary, Timestamp, Unit, UserIndex};

#[derive(Clone, Debug)]
pub struct Settings {
    pub gateway: GatewaySettings,
    pub store: StoreSettings,
    pub ward: WardSettings,
    pub scan: ScanSettings,
    pub radio: RadioSettings,
    pub monitor: MonitorSettings,
    pub beds: Vec<BedSettings>,
    pub patients: Vec<PatientSettings>,
    pub devices: Vec<DeviceSettings>,
    pub routes: Vec<RouteSettings>,
    /// One for every metric of the table, written or not.
    pub metrics: BTreeMap<Metric, MetricSettings>,
}

impl Settings {
    pub fn metric(&self, metric: Metric) -> &MetricSettings {
        &self.metrics[&metric]
    }

    /// Every window length, in seconds, to make of a metric: its own and those the routes carry; none of a metric that is
    /// never condensed.
    pub fn window_lengths(&self, metric: Metric) -> BTreeSet<u32> {
        if metric.row().summary == Summary::None {
            return BTreeSet::new();
        }
        let carried = self.routes.iter().flat_map(|route| &route.carry).filter_map(|carry| match carry {
            Carry::Windows(length_s) => Some(*length_s),
            Carry::Readings | Carry::Episodic | Carry::Events => None,
        });
        self.metric(metric).windows_s.iter().copied().chain(carried).collect()
    }

    pub fn device(&self, id: DeviceId) -> Option<&DeviceSettings> {
        self.devices.iter().find(|device| device.id == id)
    }
}

#[derive(Clone, Debug)]
pub struct GatewaySettings {
    pub id: String,
    pub mode: Mode,
    /// For devices and feeds that know only local time.
    pub timezone: TimeZone,
    pub site_key: SecretRef,
    pub state_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub credentials: CredentialsDir,
}

#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub key: SecretRef,
    pub commit_interval: Duration,
    pub commit_records: usize,
    pub ack_interval: Duration,
    /// How long a record can still be corrected.
    pub horizon: Duration,
    pub keep: Duration,
    pub max_bytes: u64,
    pub free_floor: u64,
}

#[derive(Clone, Debug)]
pub struct WardSettings {
    pub key: SecretRef,
    pub back_dating: Duration,
    pub guards: GuardSettings,
    pub stale_after: Option<Duration>,
}

/// How far a change of patient may be off in time, by who told it.
#[derive(Clone, Copy, Debug)]
pub struct GuardSettings {
    pub command: Duration,
    pub scan: Duration,
    pub import: Duration,
    pub with_event_time: Duration,
    pub keyed_before: Duration,
    pub keyed_after: Duration,
}

#[derive(Clone, Debug)]
pub struct ScanSettings {
    pub input: Option<PathBuf>,
    /// Of a wristband, and of a device's label; both or neither.
    pub patterns: Option<(regex::Regex, regex::Regex)>,
    pub within: Duration,
}

#[derive(Clone, Debug)]
pub struct RadioSettings {
    /// None: all there are.
    pub adapters: Vec<DeviceId>,
    /// Directory of the site's own device profiles.
    pub profiles: PathBuf,
    /// Links an adapter holds at once.
    pub connections: usize,
}

/// What others may know of the gateway, and when a condition of it is raised.
#[derive(Clone, Debug)]
pub struct MonitorSettings {
    /// With the level `{gateway}`.
    pub topic: String,
    pub silent_after: Duration,
    /// Per cent.
    pub battery_low: u8,
    pub route_down_after: Duration,
    pub held_after: Duration,
}

#[derive(Clone, Debug)]
pub struct BedSettings {
    pub id: String,
}

#[derive(Clone, Debug)]
pub struct PatientSettings {
    pub key: SubjectKey,
    /// Nobody's chart: the only patients test messages may be sent to.
    pub test: bool,
}

#[derive(Clone, Debug)]
pub struct DeviceSettings {
    pub name: String,
    pub kind: DeviceKind,
    pub id: DeviceId,
    pub usage: Use,
    /// How a scan ties its readings to a patient; of a shared device alone.
    pub spot: Option<SpotSettings>,
    pub bed: Option<String>,
    pub patient: Option<SubjectKey>,
    pub user: Option<UserIndex>,
    /// Start of the configured assignment; absent: when it is first applied, never "always".
    pub from: Option<Timestamp>,
    pub history: History,
    /// What it must tell of itself; blank: anything.
    pub nameplate: Nameplate,
    pub asset: Option<String>,
    /// How it is read, where it has no standard service, and by which file once that is read.
    pub profile_id: Option<String>,
    pub profile: Option<Arc<Profile>>,
    /// Why it is not read: its profile is missing, wrong, or not for it.
    pub profile_fault: Option<String>,
    /// It is read by what it advertises, in this format.
    pub advert: Option<AdvertName>,
    pub advert_key: Option<SecretRef>,
    /// Raised when it began to count anew.
    pub advert_counter: u8,
    /// Absent: as its kind does.
    pub expect_every: Option<Duration>,
    /// The one adapter through which it is reached; absent: any of them.
    pub adapter: Option<DeviceId>,
    /// Absent: as its kind does.
    pub priority: Option<Priority>,
    pub bond: Bond,
    pub passkey: Option<SecretRef>,
    /// Codes that open users' slots of it.
    pub consent: Option<SecretRef>,
    pub set_clock: bool,
    pub timezone: TimeZone,
    /// Without a reading for so long it is silent.
    pub silent_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotSettings {
    pub lasts: Duration,
    /// Of each stream.
    pub readings: u16,
    /// Absent: only what reaches over the scan's time waits.
    pub max_uncertainty: Option<Duration>,
    /// Absent: every value counts.
    pub stable_for: Option<Duration>,
}

impl SpotSettings {
    pub fn lasts_ms(&self) -> i64 {
        i64::try_from(self.lasts.as_millis()).unwrap_or(i64::MAX)
    }
}

/// What a route that binds to patients does with records a device stored before its first assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    New,
    All,
    Since(Timestamp),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSettings {
    pub windows_s: Vec<u32>,
    /// Names or kinds of devices, best first.
    pub prefer: Vec<String>,
    pub agree_within: Option<Agreement>,
}

/// The largest difference at which two sources still agree, in a unit of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub value: Decimal,
    pub unit: Unit,
}

#[derive(Clone, Debug)]
pub struct RouteSettings {
    pub name: String,
    pub kind: RouteKind,
    pub environment: Environment,
    pub bind: Bind,
    pub carry: Vec<Carry>,
    pub order: Order,
    pub start: Start,
    pub when: When,
    /// Messages a second; absent: as fast as the destination takes them.
    pub max_rate: Option<u32>,
    /// Octets a day; absent: no limit.
    pub daily_bytes: Option<u64>,
    pub per_patient: bool,
    /// Least coverage, in percent, at which a window may speak for a patient.
    pub min_coverage: u8,
    pub questionable: Questionable,
    pub retract: Retract,
    pub filter: FilterSettings,
    pub target: Target,
}

impl RouteSettings {
    pub fn mqtt(&self) -> Option<&MqttSettings> {
        match &self.target {
            Target::Mqtt(mqtt) => Some(mqtt),
            Target::NotYet => None,
        }
    }
}

/// Where a route leads, with the keys of that kind only.
#[derive(Clone, Debug)]
pub enum Target {
    Mqtt(Box<MqttSettings>),
    /// A kind that is not built yet: it can be checked, never run.
    NotYet,
}

/// What passes; an empty list lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct FilterSettings {
    pub metrics: Vec<Metric>,
    pub devices: Vec<String>,
    pub beds: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carry {
    /// Every reading.
    Readings,
    /// Readings that are never condensed: blood pressure, weight, spot values.
    Episodic,
    Events,
    /// Windows of this length in seconds.
    Windows(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    AtOnce,
    Every(Duration),
    Daily { hour: u8, minute: u8 },
}

#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// As written; the parts below are taken from it.
    pub url: String,
    pub host: String,
    pub port: u16,
    /// Absent: plain TCP, to this machine only.
    pub tls: Option<TlsSettings>,
    /// Path of a WebSocket; absent: MQTT itself.
    pub websocket: Option<String>,
    pub proxy: Option<ProxySettings>,
    pub protocol: Protocol,
    pub username: Option<String>,
    pub password: Option<SecretRef>,
    pub sas: Option<SasSettings>,
    /// With `{gateway}`, `{device}` and `{metric}`.
    pub topic: String,
    pub settle: Settle,
    /// Whether, and how, many records go as one message.
    pub compression: Option<Compression>,
    /// Filled in, as the next.
    pub batch_topic: String,
    pub receipt_topic: String,
    pub receipt_within: Duration,
    pub unheard: Unheard,
    pub client_id: String,
    /// Whether the gateway's state is published there.
    pub announce: bool,
    /// Discovery prefix of a Home Assistant.
    pub home_assistant: Option<String>,
    pub keep_alive: Duration,
    pub max_packet: u32,
    /// Publishes on their way at once.
    pub window: u16,
    pub max_qos: u8,
    pub retain: bool,
}

#[derive(Clone, Debug)]
pub struct ProxySettings {
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    pub password: Option<SecretRef>,
}

/// Logins by tokens that a device key signs.
#[derive(Clone, Debug)]
pub struct SasSettings {
    pub key: SecretRef,
    pub ttl: Duration,
}

#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub ca: PathBuf,
    pub client: Option<ClientCertificate>,
    pub alpn: Vec<String>,
    pub server_name: Option<String>,
}

#[derive(Clone, Debug)]
pub struct ClientCertificate {
    pub cert: PathBuf,
    pub key: SecretRef,
}

/// An enum whose variants are words of the config.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == name)
            }
        }
    )+};
}

words! {
    /// Where the gateway works; it sets defaults.
    Mode { Ward = "ward", Home = "home" }
    DeviceKind {
        HeartRate = "heart-rate",
        Thermometer = "thermometer",
        BloodPressure = "blood-pressure",
        PulseOximeter = "pulse-oximeter",
        WeightScale = "weight-scale",
        BodyComposition = "body-composition",
        GlucoseMeter = "glucose-meter",
        GlucoseSensor = "glucose-sensor",
    }
    /// Whom a device serves: whoever lies in its bed, one person, or whoever is next.
    Use { Bed = "bed", Personal = "personal", Shared = "shared" }
    /// Who connects first when several want to.
    Priority { Low = "low", Normal = "normal", High = "high" }
    /// A format of advertisements.
    AdvertName {
        Bthome = "bthome_v2",
        MiBeacon = "mi_beacon",
        MiBodyScale = "mi_body_scale_adv",
        Xoss = "xoss_adv",
    }
    Bond { None = "none", JustWorks = "just-works", Passkey = "passkey" }
    RouteKind { Mqtt = "mqtt", Fhir = "fhir", Hl7 = "hl7", Http = "http" }
    Environment { Test = "test", Production = "production" }
    /// What a reading must be tied to before it may go.
    Bind { Device = "device", Bed = "bed", Patient = "patient" }
    /// The version of MQTT.
    Protocol { V5 = "5", V311 = "3.1.1" }
    Order { LiveFirst = "live-first", Strict = "strict" }
    /// What makes a message count as arrived.
    Settle { Puback = "puback", Sent = "sent", Receipt = "receipt" }
    Compression { Zstd = "zstd" }
    /// What a message nobody listens to is: not arrived, or done with.
    Unheard { Wait = "wait", Settle = "settle" }
    /// Where a new route begins in the log.
    Start { Now = "now", Oldest = "oldest" }
    Questionable { Send = "send", Hold = "hold" }
    /// What is done about what went to a wrong chart; `never` where it can't be taken back.
    Retract { Auto = "auto", Ask = "ask", Never = "never" }
}

impl AdvertName {
    /// Kinds of devices of which it says something.
    pub const fn kinds(self) -> &'static [DeviceKind] {
        match self {
            AdvertName::Bthome => &[DeviceKind::Thermometer, DeviceKind::WeightScale],
            AdvertName::MiBeacon | AdvertName::MiBodyScale => &[DeviceKind::WeightScale, DeviceKind::BodyComposition],
            AdvertName::Xoss => &[DeviceKind::HeartRate],
        }
    }

    /// `None`: as the device is set up.
    pub const fn encrypted(self) -> Option<bool> {
        match self {
            AdvertName::Bthome => None,
            AdvertName::MiBeacon => Some(true),
            AdvertName::MiBodyScale | AdvertName::Xoss => Some(false),
        }
    }
}

impl DeviceKind {
    /// It goes on telling values while it is worn; the others tell what was measured and are done.
    pub const fn streams(self) -> bool {
        matches!(self, DeviceKind::HeartRate | DeviceKind::PulseOximeter | DeviceKind::GlucoseSensor)
    }

    /// What streams and is not heard is lost; what was measured one by one is kept by most devices until somebody takes it.
    pub const fn priority(self) -> Priority {
        if self.streams() { Priority::High } else { Priority::Normal }
    }

    /// How long a connected device of this kind may say nothing; `None` where it tells only what was measured. An oximeter
    /// without a finger in it says nothing for hours.
    pub const fn expect_every(self) -> Option<Duration> {
        match self {
            DeviceKind::HeartRate => Some(Duration::from_secs(60)),
            _ => None,
        }
    }
}
