//! From a profile as written to one that can be used: everything wrong is told, each with its line.

mod fields;
mod frames;
mod packets;
mod steps;
mod written;

use toml::Spanned;

use super::proof::Trial;
use super::{Link, Match, Mode, Profile, ProfileError, ProfileErrors, text};

/// Ten times the longest profile there is.
const MAX_TEXT: usize = 64 << 10;
const MAX_FRAMES: usize = 16;
const MAX_TRIALS: usize = 256;
/// Packets of one test.
const MAX_SEGMENTS: usize = 32;

pub fn profile(text: &str, file: &str) -> Result<Profile, ProfileErrors> {
    let mut check = Check { text, file, place: String::new(), line: None, errors: Vec::new() };
    if text.len() > MAX_TEXT {
        check.wrong(format!("it is {} KiB long; a profile has at most {} KiB", text.len() >> 10, MAX_TEXT >> 10));
        return Err(ProfileErrors(check.errors));
    }
    let written: text::File = match toml::from_str(text) {
        Ok(written) => written,
        Err(error) => {
            check.line = error.span().map(|span| check.line_at(span.start));
            check.wrong(format!("{}; mend this line", error.message().trim_end()));
            return Err(ProfileErrors(check.errors));
        }
    };
    let profile = check.file(written);
    check.errors.sort_by_key(|error| error.line);
    if check.errors.is_empty() { Ok(profile) } else { Err(ProfileErrors(check.errors)) }
}

struct Check<'t> {
    text: &'t str,
    file: &'t str,
    place: String,
    line: Option<usize>,
    errors: Vec<ProfileError>,
}

impl Check<'_> {
    fn line_at(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|octet| **octet == b'\n').count() + 1
    }

    fn wrong(&mut self, message: impl Into<String>) {
        let (place, message) = (self.place.clone(), message.into());
        self.errors.push(ProfileError { file: self.file.to_owned(), line: self.line, place, message });
    }

    fn at<T>(&mut self, place: impl Into<String>, written: &Spanned<T>) {
        (self.place, self.line) = (place.into(), Some(self.line_at(written.span().start)));
    }

    fn at_most<T>(&mut self, what: &str, items: &[T], most: usize) {
        if items.len() > most {
            (self.place, self.line) = (String::new(), None);
            self.wrong(format!("it has {} {what}; at most {most} are allowed", items.len()));
        }
    }

    fn file(&mut self, written: text::File) -> Profile {
        let steps = self.steps(&written);
        self.at("profile", &written.profile);
        let head = written.profile.into_inner();
        self.head(&head);
        self.at("match", &written.matches);
        let matches = written.matches.get_ref().any.iter().filter_map(|row| self.matches(row)).collect::<Vec<_>>();
        if written.matches.get_ref().any.is_empty() {
            self.wrong("`any` is empty; say by what a device of this kind is recognised");
        }
        let link = self.link(written.link.as_ref());
        let mode = link.mode;
        self.at_most("frames", &written.frame, MAX_FRAMES);
        self.at_most("tests", &written.test, MAX_TRIALS);
        let number = |index: usize| index + 1;
        if mode == Mode::Advert
            && let Some(step) = written.init.iter().chain(&written.poll).chain(&written.end).next()
        {
            self.at("link", step);
            self.wrong(
                "mode = \"advert\" is never connected to; leave [[init]], [[poll]] and [[end]] out, or write mode = \"gatt\"",
            );
        }
        let (mut frames, mut packets) = (Vec::new(), Vec::new());
        for (index, frame) in written.frame.iter().take(MAX_FRAMES).enumerate() {
            self.at(format!("frame {}", number(index)), frame);
            let Some(read) = self.frame(number(index), frame, mode, &steps) else { continue };
            self.at(format!("frame {}", number(index)), frame);
            self.packets(frame.get_ref(), &read, &mut packets);
            frames.push(read);
        }
        let mut trials = Vec::new();
        for (index, trial) in written.test.iter().take(MAX_TRIALS).enumerate() {
            self.at(format!("test {}", number(index)), trial);
            trials.extend(self.trial(trial.get_ref(), self.line.unwrap_or(0)));
        }
        let packets = packets.into_iter().filter_map(|(source, packets)| Some((source, packets?))).collect();
        let profile = Profile {
            id: head.id,
            version: head.version,
            name: head.name,
            matches,
            link,
            init: steps.init,
            polls: steps.polls,
            end: steps.end,
            frames,
            packets,
            trials,
        };
        self.trials(&profile);
        profile
    }

    fn link(&mut self, written: Option<&Spanned<text::Link>>) -> Link {
        let Some(written) = written else { return Link { mode: Mode::Gatt, needs_bond: false } };
        let text::Link { mode, bond } = written.get_ref();
        let mode = match mode {
            text::Mode::Gatt => Mode::Gatt,
            text::Mode::Advert => Mode::Advert,
        };
        let needs_bond = *bond == text::Bond::Required;
        if mode == Mode::Advert && needs_bond {
            self.at("link", written);
            self.wrong(
                "mode = \"advert\" is never connected to, and bonds with nobody; leave `bond` out, or write mode = \"gatt\"",
            );
        }
        Link { mode, needs_bond }
    }

    fn head(&mut self, head: &text::Head) {
        let is_name = (1..=64).contains(&head.id.len())
            && head.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_name {
            self.wrong("`id` must be a name of small letters, digits and `-`, at most 64 characters, such as \"nonin-3230\"");
        }
        for (key, text) in [("name", &head.name), ("source", &head.source)] {
            if text.trim().is_empty() || text.chars().count() > 256 || text.chars().any(char::is_control) {
                self.wrong(format!("`{key}` must be a line of text of at most 256 characters"));
            }
        }
        if head.version == 0 {
            self.wrong("`version` counts from 1");
        }
    }

    fn matches(&mut self, row: &text::Match) -> Option<Match> {
        let mut found = Vec::new();
        found.extend(row.name_prefix.clone().map(Match::NamePrefix));
        found.extend(row.model_number.clone().map(Match::Model));
        found.extend(row.manufacturer_id.map(Match::Manufacturer));
        found.extend(row.service_uuid.as_ref().and_then(|uuid| self.uuid(uuid)).map(Match::Service));
        found.extend(row.service_data_uuid.as_ref().and_then(|uuid| self.uuid(uuid)).map(Match::ServiceData));
        if found.len() != 1 {
            self.wrong(
                "each row of `any` says one thing: name_prefix, service_uuid, service_data_uuid, manufacturer_id or model_number",
            );
            return None;
        }
        found.pop()
    }

    fn trial(&mut self, test: &text::Test, line: usize) -> Option<Trial> {
        let source = self.source(&test.source)?;
        let packets = match (&test.hex, &test.segments) {
            (Some(hex), None) => vec![self.octets("hex", hex)?],
            (None, Some(segments)) if (1..=MAX_SEGMENTS).contains(&segments.len()) => {
                segments.iter().map(|hex| self.octets("segments", hex)).collect::<Option<_>>()?
            }
            _ => {
                self.wrong(format!("a test has either `hex` (one packet) or `segments` (1 to {MAX_SEGMENTS} packets)"));
                return None;
            }
        };
        if test.expect.is_some() == test.error.is_some() {
            self.wrong("a test has either `expect` (what is read; {} for nothing) or `error` (its name)");
            return None;
        }
        Some(Trial { line, source, packets, expect: test.expect.clone(), error: test.error.clone() })
    }

    /// A profile that was never tried, or fails its own tests, is no profile; a frame without a test is not known to work.
    fn trials(&mut self, profile: &Profile) {
        let Profile { trials, frames, .. } = profile;
        if !self.errors.is_empty() {
            return;
        }
        for (index, trial) in trials.iter().enumerate() {
            (self.place, self.line) = (format!("test {}", index + 1), Some(trial.line));
            if let Err(message) = trial.run(profile).outcome {
                self.wrong(message);
            }
        }
        (self.place, self.line) = (String::new(), None);
        for (index, frame) in frames.iter().enumerate() {
            if !trials.iter().any(|trial| trial.source == frame.source && trial.expect.is_some()) {
                self.wrong(format!(
                    "frame {} has no [[test]] with `expect`; add octets of a real device and what they say",
                    index + 1
                ));
            }
        }
    }
}
