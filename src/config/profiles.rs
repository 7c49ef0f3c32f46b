//! The profiles devices name: read from files, and whether a device is configured for what its profile asks.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::value::did_you_mean;
use super::{Bond, ConfigError, ConfigErrors, DeviceSettings, Loaded, Origin};
use crate::profile::{Library, Mode, Profile, ProfileErrors, What};

/// A profile's text may be half as long (`profile::check`); this bounds what is read at all.
const MAX_FILE: u64 = 128 << 10;
const MAX_FILES: usize = 256;
const PATH: &str = "device[].profile";

/// Bedrail's own profiles and those in `directory`, if there is one; all of them right.
pub fn library(directory: &Path) -> Result<Library, ConfigErrors> {
    let Read { library, errors, .. } = read(directory);
    if errors.is_empty() { Ok(library) } else { Err(ConfigErrors(errors)) }
}

/// What there is, beside what is wrong.
#[derive(Default)]
struct Read {
    library: Library,
    errors: Vec<ConfigError>,
    /// Ids of files that are wrong: what bedrail has under such an id is not what the site means.
    meant: BTreeSet<String>,
}

fn read(directory: &Path) -> Read {
    let mut read = Read::default();
    match Library::shipped() {
        Ok(library) => read.library = library,
        Err(errors) => read.errors.extend(of_profile(errors).0),
    }
    let paths = match own_files(directory) {
        Ok(paths) => paths,
        Err(message) => {
            read.errors.push(error(directory.display().to_string(), message));
            return read;
        }
    };
    for path in paths {
        let file = path.display().to_string();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (id, added) = match text(&path) {
            Ok(text) => (id(&text), read.library.add_own(&text, &file).map_err(of_profile)),
            Err(message) => (None, Err(ConfigErrors(vec![error(file, message)]))),
        };
        if let Err(errors) = added {
            read.errors.extend(errors.0);
            read.meant.insert(id.unwrap_or(stem));
        }
    }
    read
}

fn own_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("it can't be read: {error}; mend its permissions, or radio.profiles")),
        Ok(entries) => entries,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("it can't be read: {error}"))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(format!("it holds {} profiles; at most {MAX_FILES} are read", paths.len()));
    }
    paths.sort();
    Ok(paths)
}

/// Of a file that may be wrong otherwise.
fn id(text: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    Some(table.get("profile")?.get("id")?.as_str()?.to_owned())
}

/// The text of a profile, or why there is none.
pub fn text(path: &Path) -> Result<String, String> {
    let mut octets = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut octets));
    read.map_err(|error| format!("it can't be read: {error}"))?;
    String::from_utf8(octets).map_err(|_| "it is not UTF-8 text; save it as UTF-8".to_owned())
}

/// Gives each device its profile, and says what is wrong.
pub(super) fn attach(loaded: &mut Loaded) -> Vec<ConfigError> {
    if loaded.settings.devices.iter().all(|device| device.profile_id.is_none()) {
        return Vec::new();
    }
    let Read { library, mut errors, meant } = read(&loaded.settings.radio.profiles);
    for device in &mut loaded.settings.devices {
        let Some(id) = device.profile_id.clone() else { continue };
        let section = format!("device \"{}\"", device.name);
        let written = loaded.explain.iter().find(|value| value.path == PATH && value.section == section);
        let line = written.and_then(|value| if let Origin::File { line, .. } = &value.origin { Some(*line) } else { None });
        let fault = match library.get(&id) {
            _ if meant.contains(&id) => Some(format!("the file of profile \"{id}\" is wrong; mend it")),
            None => {
                let known: Vec<&str> = library.iter().map(|known| known.profile.id.as_str()).collect();
                let hint = did_you_mean(&id, known.iter().copied());
                Some(format!("there is no profile \"{id}\"; known are {}{hint}", known.join(", ")))
            }
            Some(known) => match unfit(&known.profile, device) {
                Some(why) => Some(format!("profile \"{id}\" {why}")),
                None => {
                    device.profile = Some(known.profile.clone());
                    None
                }
            },
        };
        if let Some(message) = fault {
            device.profile_fault = Some(message.clone());
            errors.push(ConfigError { file: loaded.file.clone(), line, section, key: "profile".to_owned(), message });
        }
    }
    errors
}

/// It tells nothing before its clock was set.
pub(super) fn must_set_clock(profile: &Profile) -> bool {
    profile.init.iter().any(|step| matches!(step.what, What::Clock(_)) && !step.optional)
}

/// Why the device can't be read by it as it is configured.
fn unfit(profile: &Profile, device: &DeviceSettings) -> Option<&'static str> {
    if profile.link.mode == Mode::Advert {
        return unfit_for_adverts(device);
    }
    if profile.link.needs_bond && device.bond == Bond::None {
        return Some("is of a device that answers only after bonding; write bond = \"just-works\" or \"passkey\"");
    }
    if must_set_clock(profile) && !device.set_clock {
        return Some("has to set the device's clock; write set_clock = true");
    }
    None
}

/// As the rules have it for `advert`: nobody can pair with it or ask it anything.
fn unfit_for_adverts(device: &DeviceSettings) -> Option<&'static str> {
    if device.bond != Bond::None {
        return Some("reads what the device advertises, and it is never connected to; remove `bond`");
    }
    if !device.nameplate.is_blank() {
        return Some("reads what the device advertises, and it is never asked what it is; remove `serial` and `model`");
    }
    None
}

fn of_profile(errors: ProfileErrors) -> ConfigErrors {
    let error = |error: crate::profile::ProfileError| ConfigError {
        file: error.file,
        line: error.line,
        section: error.place,
        key: String::new(),
        message: error.message,
    };
    ConfigErrors(errors.0.into_iter().map(error).collect())
}

fn error(file: String, message: String) -> ConfigError {
    ConfigError { file, line: None, section: String::new(), key: String::new(), message }
}
