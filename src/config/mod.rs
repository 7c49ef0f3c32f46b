//! bedrail.toml to typed settings; every error names file, line, key and remedy.
//!
//! [`parse`] is pure: text in, settings or all errors out. What a key may be is said once, in the table of keys; what a
//! secret contains is never said here at all.

mod broker;
mod build;
mod document;
mod error;
mod keys;
pub mod profiles;
mod recognise;
mod rules;
pub mod secret;
mod settings;
mod typed;
mod value;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

pub use error::{ConfigError, ConfigErrors};
pub use keys::{KEYS, Key, Preset, Status};
pub use recognise::{Recognised, recognise};
pub use secret::{CredentialsDir, SecretError, SecretRef};
pub use settings::{
    AdvertName, Agreement, BedSettings, Bind, Bond, Carry, ClientCertificate, Compression, DeviceKind, DeviceSettings,
    Environment, FilterSettings, GatewaySettings, GuardSettings, History, MetricSettings, Mode, MonitorSettings, MqttSettings,
    Order, PatientSettings, Priority, Protocol, ProxySettings, Questionable, RadioSettings, Retract, RouteKind, RouteSettings,
    SasSettings, ScanSettings, Settings, Settle, SpotSettings, Start, StoreSettings, Target, TlsSettings, Unheard, Use,
    WardSettings, When,
};
pub use value::{Kind, TOPIC_FIELDS};

pub const DEFAULT_PATH: &str = "/etc/bedrail/bedrail.toml";
/// A config with every device of a large ward has a tenth of it; more is another file.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A config without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub file: String,
    pub settings: Settings,
    /// Keys of work that is not built yet.
    pub later: Vec<LaterKey>,
    /// What is right, and weaker than it looks.
    pub notes: Vec<ConfigError>,
    /// Profiles that are wrong: what names them is not read, and everything else runs.
    pub faults: Vec<ConfigError>,
    pub explain: Vec<Explained>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaterKey {
    pub file: String,
    pub line: usize,
    pub section: String,
    pub key: String,
    /// The work it waits for.
    pub why: String,
}

/// An effective value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its path in the table of keys: `device[].address`.
    pub path: &'static str,
    pub section: String,
    pub key: String,
    /// As TOML.
    pub value: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// The default of this `gateway.mode`.
    Mode,
    /// `$CREDENTIALS_DIRECTORY`.
    Environment,
    File {
        file: String,
        line: usize,
    },
}

/// What a config takes from the environment.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `$CREDENTIALS_DIRECTORY`, as systemd sets it for a service.
    pub credentials_directory: Option<PathBuf>,
}

impl Env {
    pub fn of_process() -> Self {
        Self {
            credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }
}

pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let file = path.display().to_string();
    let fail = |message: String| {
        let (section, key) = (String::new(), String::new());
        Err(ConfigErrors(vec![ConfigError { file: file.clone(), line: None, section, key, message }]))
    };
    let mut octets = Vec::new();
    let opened = std::fs::File::open(path).and_then(|opened| opened.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut octets));
    if let Err(error) = opened {
        return fail(format!("it cannot be read: {error}; name the config with --config PATH"));
    }
    if octets.len() as u64 > MAX_CONFIG_BYTES {
        return fail("it is larger than 1 MiB; name the config with --config PATH".to_owned());
    }
    let Ok(text) = String::from_utf8(octets) else {
        return fail("it is not UTF-8 text; save it as UTF-8".to_owned());
    };
    let mut loaded = parse(&text, &file, &Env::of_process())?;
    loaded.faults = profiles::attach(&mut loaded);
    Ok(loaded)
}

/// `name` is how messages call the file.
pub fn parse(text: &str, name: &str, env: &Env) -> Result<Loaded, ConfigErrors> {
    let mut document = document::Document::read(text, name);
    if !document.is_broken() {
        rules::check(&mut document);
    }
    if !document.errors.is_empty() {
        return Err(ConfigErrors::sorted(document.errors));
    }
    let (settings, explain) = (build::settings(&document, env), build::explain(&document, env));
    let (mut later, notes) = (document.later, ConfigErrors::sorted(document.notes).0);
    later.sort_by_key(|key| key.line);
    Ok(Loaded { file: document.file, settings, later, notes, faults: Vec::new(), explain })
}

impl Loaded {
    /// Nothing of it is wrong, profiles included.
    pub fn sound(self) -> Result<Self, ConfigErrors> {
        if self.faults.is_empty() { Ok(self) } else { Err(ConfigErrors(self.faults)) }
    }

    /// A config that asks for work not built yet can be checked, not run.
    pub fn runnable(&self) -> Result<(), ConfigErrors> {
        if self.later.is_empty() {
            return Ok(());
        }
        let errors = self.later.iter().map(|later| ConfigError {
            file: later.file.clone(),
            line: Some(later.line),
            section: later.section.clone(),
            key: later.key.clone(),
            message: format!("not yet: it waits for {}; remove it to run this version", later.why),
        });
        Err(ConfigErrors(errors.collect()))
    }
}

impl fmt::Display for LaterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, section, key, why } = self;
        write!(f, "not yet: {file}:{line}: {section}: {key}: waits for {why}")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Mode => f.write_str("mode"),
            Origin::Environment => f.write_str("$CREDENTIALS_DIRECTORY"),
            Origin::File { file, line } => write!(f, "{file}:{line}"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
