//! The profiles devices name: read from files, and whether this version can do what they ask.

use std::io::Read;
use std::path::Path;

use super::{Bond, ConfigError, ConfigErrors, DeviceSettings, Loaded, Origin};
use crate::profile::{Library, Mode, Profile, ProfileErrors, What};

/// A profile's text may be half as long (`profile::check`); this bounds what is read at all.
const MAX_FILE: u64 = 128 << 10;
const MAX_FILES: usize = 256;
const PATH: &str = "device[].profile";

/// Bedrail's own profiles and those in `directory`, if there is one.
pub fn library(directory: &Path) -> Result<Library, ConfigErrors> {
    let mut library = Library::shipped().map_err(of_profile)?;
    let fail = |message: String| ConfigErrors(vec![error(directory.display().to_string(), message)]);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(library),
        Err(error) => return Err(fail(format!("it can't be read: {error}; mend its permissions, or radio.profiles"))),
        Ok(entries) => entries,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fail(format!("it can't be read: {error}")))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(fail(format!("it holds {} profiles; at most {MAX_FILES} are read", paths.len())));
    }
    paths.sort();
    let mut errors = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        let added = match text(&path) {
            Ok(text) => library.add_own(&text, &file).map_err(of_profile),
            Err(message) => Err(ConfigErrors(vec![error(file, message)])),
        };
        errors.extend(added.err().into_iter().flat_map(|errors| errors.0));
    }
    if errors.is_empty() { Ok(library) } else { Err(ConfigErrors(errors)) }
}

/// The text of a profile, or why there is none.
pub fn text(path: &Path) -> Result<String, String> {
    let mut octets = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut octets));
    read.map_err(|error| format!("it can't be read: {error}"))?;
    String::from_utf8(octets).map_err(|_| "it is not UTF-8 text; save it as UTF-8".to_owned())
}

/// Gives each device its profile.
pub(super) fn attach(loaded: &mut Loaded) -> Result<(), ConfigErrors> {
    if loaded.settings.devices.iter().all(|device| device.profile_id.is_none()) {
        return Ok(());
    }
    let library = library(&loaded.settings.radio.profiles)?;
    let mut errors = Vec::new();
    for device in &mut loaded.settings.devices {
        let Some(id) = &device.profile_id else { continue };
        let section = format!("device \"{}\"", device.name);
        let written = loaded.explain.iter().find(|value| value.path == PATH && value.section == section);
        let line = written.and_then(|value| if let Origin::File { line, .. } = &value.origin { Some(*line) } else { None });
        let mut wrong = |message| {
            let (file, section, key) = (loaded.file.clone(), section.clone(), "profile".to_owned());
            errors.push(ConfigError { file, line, section, key, message });
        };
        match library.get(id) {
            None => {
                let known: Vec<&str> = library.iter().map(|known| known.profile.id.as_str()).collect();
                wrong(format!("there is no profile \"{id}\"; known are {}", known.join(", ")));
            }
            Some(known) => match unfit(&known.profile, device) {
                Some(why) => wrong(format!("profile \"{id}\" {why}")),
                None => device.profile = Some(known.profile.clone()),
            },
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

/// What this version can't do of what it asks for.
pub(super) fn not_yet(profile: &Profile) -> Option<&'static str> {
    (profile.link.mode == Mode::Advert).then_some("reads advertisements, which this version does not do")
}

/// It tells nothing before its clock was set.
pub(super) fn must_set_clock(profile: &Profile) -> bool {
    profile.init.iter().any(|step| matches!(step.what, What::Clock(_)) && !step.optional)
}

/// Why the device can't be read by it as it is configured.
fn unfit(profile: &Profile, device: &DeviceSettings) -> Option<&'static str> {
    if let Some(why) = not_yet(profile) {
        return Some(why);
    }
    if profile.link.needs_bond && device.bond == Bond::None {
        return Some("is of a device that answers only after bonding; write bond = \"just-works\" or \"passkey\"");
    }
    if must_set_clock(profile) && !device.set_clock {
        return Some("has to set the device's clock; write set_clock = true");
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
