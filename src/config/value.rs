//! The types a key can have: how each is written, read and explained. The same code reads what a user writes and the
//! defaults in the table of keys, so a default can't be something a user could not have written.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use toml::de::DeValue;

use super::secret::{SecretRef, is_credential_name};
use super::settings::{Agreement, Carry, When};
use crate::reading::{Decimal, DeviceId, Metric, Nameplate, SubjectKey, Timestamp, Unit};
pub use crate::words::{did_you_mean, nearest, shown};

const DAY_S: u64 = 86_400;
/// A shorter window would cost the log more than the readings it condenses.
const MIN_WINDOW_S: u64 = 10;
/// A pattern of a label takes a few kilobytes; this is what a gateway has to spare.
const PATTERN_OCTETS: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text of at most 256 characters.
    Text,
    /// What a device tells of itself, as the radio reads it.
    Told,
    /// A name of ours: in topics, file names and commands.
    Name,
    Integer {
        min: u64,
        max: u64,
        unit: &'static str,
    },
    Boolean,
    /// Shortest and longest, in milliseconds.
    Duration {
        min: u64,
        max: u64,
    },
    /// A length of a window: divides a day.
    WindowLength,
    /// Smallest and largest, in octets.
    Size {
        min: u64,
        max: u64,
    },
    Percent,
    Address,
    Time,
    History,
    Zone,
    /// Absolute.
    Path,
    Url,
    Topic,
    /// One topic of a gateway and route.
    OneTopic,
    Secret,
    /// An opaque patient key. Never echoed: it might be an identifier.
    Patient,
    Metric,
    Carry,
    /// A regular expression with one of these groups.
    Pattern(&'static [&'static str]),
    When,
    Agreement,
    /// `later`: words of work not built yet, with the name of that work.
    Choice {
        words: &'static [&'static str],
        later: &'static [(&'static str, &'static str)],
    },
    List(&'static Kind),
    /// A table whose keys are not bedrail's.
    Free,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Integer(u64),
    Boolean(bool),
    Time(Timestamp),
    Secret(SecretRef),
    List(Vec<Value>),
    Free,
}

impl Value {
    /// As it can be written; a table of somebody else's keys is not repeated.
    pub fn to_toml(&self) -> String {
        match self {
            Value::Text(text) => format!("{text:?}"),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(value) => value.to_string(),
            Value::Time(at) => at.to_string(),
            Value::Secret(secret) => secret.to_string(),
            Value::List(items) => format!("[{}]", items.iter().map(Value::to_toml).collect::<Vec<_>>().join(", ")),
            Value::Free => "{ … }".to_owned(),
        }
    }
}

/// Placeholders of a topic template.
pub const TOPIC_FIELDS: &[&str] = &["gateway", "device", "metric"];
/// Placeholders of a topic that is one for a whole route.
const ONE_TOPIC_FIELDS: &[&str] = &["gateway", "route"];

impl Kind {
    /// How it is written, for messages and for the commented default file.
    pub fn wants(&self) -> String {
        match self {
            Kind::Text => "text in quotes".to_owned(),
            Kind::Told => format!("text of at most {} characters, as the device tells it", Nameplate::MAX_CHARS),
            Kind::Name => "a name of letters, digits, `-`, `_` and `.`, at most 64 characters".to_owned(),
            Kind::Integer { min, max, unit } => format!("a whole number of {unit} from {min} to {max}"),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Duration { min, max } => {
                format!("a duration from \"{}\" to \"{}\"", show_duration(*min), show_duration(*max))
            }
            Kind::WindowLength => "a length that divides a day, such as \"1 min\", \"15 min\" or \"1 d\"".to_owned(),
            Kind::Size { min, max } => format!("a size from \"{}\" to \"{}\"", show_size(*min), show_size(*max)),
            Kind::Percent => "a percentage such as \"50 %\"".to_owned(),
            Kind::Address => "a Bluetooth device address such as \"A4:C1:38:11:22:33\"".to_owned(),
            Kind::Time => "a time with its offset and without quotes, such as 2026-11-23T09:00:00+01:00".to_owned(),
            Kind::History => "\"new\", \"all\" or a time such as 2026-11-23T09:00:00+01:00".to_owned(),
            Kind::Zone => "a time zone such as \"Europe/Vienna\"".to_owned(),
            Kind::Path => "an absolute path such as \"/etc/bedrail/tls/ca.pem\"".to_owned(),
            Kind::Url => "a URL such as \"mqtts://broker.example:8883\"".to_owned(),
            Kind::OneTopic => "a topic such as \"bedrail/{gateway}/receipt/{route}\"".to_owned(),
            Kind::Topic => "a topic such as \"bedrail/{gateway}/{device}/{metric}\"".to_owned(),
            Kind::Secret => "{ credential = \"NAME\" } or { file = \"/PATH\" }".to_owned(),
            Kind::Patient => "an opaque patient key such as \"p-017\"".to_owned(),
            Kind::Metric => "a metric such as \"spo2\"".to_owned(),
            Kind::Carry => "\"readings\", \"episodic\", \"events\" or \"windows:15m\"".to_owned(),
            Kind::Pattern(groups) => {
                let groups: Vec<String> = groups.iter().map(|group| format!("(?<{group}>…)")).collect();
                format!("a regular expression in single quotes, with a group {}", groups.join(" or "))
            }
            Kind::When => "\"at-once\", \"every 15 min\" or \"daily 06:00\"".to_owned(),
            Kind::Agreement => "a difference in a unit of the metric, such as \"4 %\" or \"5 /min\"".to_owned(),
            Kind::Choice { words, .. } => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Kind::List(of) => format!("a list in brackets, each {}", of.wants()),
            Kind::Free => "a table".to_owned(),
        }
    }

    /// Reads a value, or says what is wrong and what to write instead.
    pub fn read(&self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self, value) {
            (Kind::Integer { min, max, .. }, DeValue::Integer(n)) => {
                let number = i64::from_str_radix(n.as_str(), n.radix()).ok().and_then(|n| u64::try_from(n).ok());
                let Some(number) = number.filter(|n| (*min..=*max).contains(n)) else {
                    return Err(format!("{} is out of range; write {}", shown(n.as_str()), self.wants()));
                };
                Ok(Value::Integer(number))
            }
            (Kind::Boolean, DeValue::Boolean(value)) => Ok(Value::Boolean(*value)),
            (Kind::Time | Kind::History, DeValue::Datetime(time)) => {
                let Ok(at) = time.to_string().parse::<jiff::Timestamp>() else {
                    return Err(format!("`{time}` does not name one moment; write {}", self.wants()));
                };
                Ok(Value::Time(Timestamp(at.as_millisecond())))
            }
            (Kind::Secret, DeValue::Table(table)) => secret(table),
            (Kind::Secret, _) => Err(format!("a secret is never written into the config; write {}", self.wants())),
            (Kind::List(of), DeValue::Array(items)) => {
                let read = items.iter().map(|item| of.read(item.get_ref()));
                let values = read.collect::<Result<Vec<_>, _>>()?;
                let twice = values.iter().enumerate().any(|(n, value)| values[..n].contains(value));
                if twice { Err("an entry stands there twice; write each once".to_owned()) } else { Ok(Value::List(values)) }
            }
            (Kind::Free, DeValue::Table(_)) => Ok(Value::Free),
            (Kind::Integer { .. } | Kind::Boolean | Kind::Time | Kind::List(_) | Kind::Free, _) => Err(self.wrong_type(value)),
            (_, DeValue::String(text)) => self.text(text).map(|()| Value::Text(text.to_string())),
            _ => Err(self.wrong_type(value)),
        }
    }

    fn wrong_type(&self, value: &DeValue<'_>) -> String {
        let article = if matches!(value.type_str(), "integer" | "array") { "an" } else { "a" };
        format!("it is {article} {}; write {}", value.type_str(), self.wants())
    }

    /// Checks what is written as text.
    fn text(&self, text: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("`{}` is {what}; write {}", shown(text), self.wants()));
        let in_range = |value: Option<u64>, (min, max): (u64, u64), what: &str| match value {
            None => wrong(&format!("not {what}")),
            Some(value) if (min..=max).contains(&value) => Ok(()),
            Some(_) => wrong("out of range"),
        };
        match self {
            Kind::Text | Kind::Told if text.trim().is_empty() => Err("it is empty; write text, or leave the key out".to_owned()),
            Kind::Text if text.chars().count() > 256 || text.chars().any(char::is_control) => {
                Err("it is no single line of at most 256 characters; shorten it".to_owned())
            }
            Kind::Told if text.trim() != text || text.chars().any(char::is_control) => {
                wrong("not what a device can tell: it begins or ends with a space, or holds a control character")
            }
            Kind::Told if text.chars().count() > Nameplate::MAX_CHARS => wrong("longer than what is read of a device"),
            Kind::Name if !is_name(text) => wrong("not a name"),
            Kind::Duration { min, max } => in_range(duration_ms(text), (*min, *max), "a duration"),
            Kind::WindowLength if window_length_s(text).is_none() => wrong("no length of a window"),
            Kind::Size { min, max } => in_range(size(text), (*min, *max), "a size"),
            Kind::Percent => in_range(percent(text), (0, 100), "a percentage"),
            Kind::Address => address(text),
            Kind::History if !matches!(text, "new" | "all") => wrong("no choice here"),
            Kind::Zone if zone(text).is_none() => wrong("not a time zone in this machine's tzdata (is it installed?)"),
            Kind::Path if !text.starts_with('/') || text.contains('\0') => wrong("not an absolute path"),
            Kind::Url => url(text),
            Kind::Topic => topic(text, TOPIC_FIELDS),
            Kind::OneTopic => topic(text, ONE_TOPIC_FIELDS),
            Kind::Patient => text.parse::<SubjectKey>().map(drop).map_err(|error| error.to_string()),
            Kind::Metric if Metric::from_name(text).is_none() => Err(unknown_metric(text)),
            Kind::Carry if carry(text).is_none() => wrong("nothing a route can carry"),
            Kind::Pattern(groups) => match pattern(text) {
                None => wrong("no regular expression"),
                Some(found) if !found.capture_names().flatten().any(|name| groups.contains(&name)) => wrong("without its group"),
                Some(_) => Ok(()),
            },
            Kind::When if when(text).is_none() => wrong("no time to send"),
            Kind::Agreement if agreement(text).is_none() => wrong("no difference with a unit"),
            Kind::Choice { words, later } => choice(text, words, later).map_err(|hint| {
                let wanted = self.wants();
                format!("`{}` is no choice here; write {wanted}{hint}", shown(text))
            }),
            _ => Ok(()),
        }
    }
}

/// Of one code; what is compiled is bounded.
pub fn pattern(text: &str) -> Option<regex::Regex> {
    regex::RegexBuilder::new(text).size_limit(PATTERN_OCTETS).build().ok()
}

pub fn unknown_metric(text: &str) -> String {
    let names = || crate::reading::METRICS.iter().map(|row| row.name);
    match nearest(text, names()) {
        Some(name) => format!("`{}` is no metric; did you mean \"{name}\"?", shown(text)),
        None => format!("`{}` is no metric; write one of {}", shown(text), names().collect::<Vec<_>>().join(", ")),
    }
}

/// `500 ms`, `90 s`, `5 min` or `5 m`, `12 h`, `30 d`; the space may be missing.
pub fn duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_S * 1_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

pub fn duration(text: &str) -> Option<Duration> {
    duration_ms(text).map(Duration::from_millis)
}

pub fn window_length_s(text: &str) -> Option<u32> {
    let ms = duration_ms(text)?;
    let seconds = ms / 1_000;
    let fits = ms % 1_000 == 0 && (MIN_WINDOW_S..=DAY_S).contains(&seconds) && DAY_S.is_multiple_of(seconds);
    if fits { u32::try_from(seconds).ok() } else { None }
}

/// `8 MiB`, `64 KiB`, `2 GiB`, `512 B`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

pub fn percent(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    (unit == "%").then_some(number)
}

pub fn carry(text: &str) -> Option<Carry> {
    match text {
        "readings" => Some(Carry::Readings),
        "episodic" => Some(Carry::Episodic),
        "events" => Some(Carry::Events),
        _ => window_length_s(text.strip_prefix("windows:")?).map(Carry::Windows),
    }
}

pub fn when(text: &str) -> Option<When> {
    if text == "at-once" {
        return Some(When::AtOnce);
    }
    if let Some(every) = text.strip_prefix("every ") {
        return duration(every).filter(|every| !every.is_zero()).map(When::Every);
    }
    let (hour, minute) = text.strip_prefix("daily ")?.split_once(':')?;
    let two_digits = |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u8>().ok()).flatten();
    let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
    (hour < 24 && minute < 60).then_some(When::Daily { hour, minute })
}

pub fn agreement(text: &str) -> Option<Agreement> {
    let (number, unit) = text.trim().split_once(' ')?;
    let value: Decimal = number.parse().ok()?;
    let unit = Unit::from_ucum(unit.trim())?;
    (value.mantissa() >= 0).then_some(Agreement { value, unit })
}

pub fn zone(text: &str) -> Option<TimeZone> {
    zone_of(jiff::tz::db(), text)
}

/// UTC, which is the default, has no need of tzdata: a small machine may be without.
fn zone_of(tzdata: &TimeZoneDatabase, text: &str) -> Option<TimeZone> {
    if text == "UTC" { Some(TimeZone::UTC) } else { tzdata.get(text).ok() }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

fn address(text: &str) -> Result<(), String> {
    match text.parse::<DeviceId>() {
        Ok(DeviceId::GATEWAY) => Err("all zeros stand for the gateway itself; write the device's own address".to_owned()),
        Ok(_) => Ok(()),
        Err(_) => {
            let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
            let octets = digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
            let fixed = octets.collect::<Vec<_>>().join(":");
            let example = if fixed.parse::<DeviceId>().is_ok() { fixed.as_str() } else { "A4:C1:38:11:22:33" };
            Err(format!("`{}` is not a Bluetooth device address; write it as \"{example}\"", shown(text)))
        }
    }
}

/// Only what is true of every kind of route; the rest is checked where the kind is known.
fn url(text: &str) -> Result<(), String> {
    let Some((_, rest)) = text.split_once("://") else {
        return Err(format!("`{}` has no scheme; write {}", shown(text), Kind::Url.wants()));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("a URL may not hold a login; use the keys `username` and `password`".to_owned());
    }
    if authority.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("`{}` names no host; write {}", shown(text), Kind::Url.wants()));
    }
    Ok(())
}

fn topic(text: &str, known: &[&str]) -> Result<(), String> {
    if text.is_empty() || text.len() > 256 || text.starts_with('$') || text.contains(['+', '#', '\0']) {
        return Err(format!("`{}` is no topic to publish to; write {}", shown(text), Kind::Topic.wants()));
    }
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let after = &rest[open + 1..];
        let field = after.split('}').next().unwrap_or_default();
        if !rest[open..].starts_with('{') || field.len() == after.len() || !known.contains(&field) {
            let fields = known.iter().map(|f| format!("{{{f}}}")).collect::<Vec<_>>().join(", ");
            return Err(format!("`{}` holds a placeholder that does not exist; there are {fields}", shown(text)));
        }
        rest = &after[field.len() + 1..];
    }
    Ok(())
}

fn choice(text: &str, words: &[&str], later: &[(&str, &str)]) -> Result<(), String> {
    let known = words.iter().copied().chain(later.iter().map(|(word, _)| *word));
    if known.clone().any(|word| word == text) { Ok(()) } else { Err(did_you_mean(text, known)) }
}

fn secret(table: &toml::de::DeTable<'_>) -> Result<Value, String> {
    let wrong = || format!("this does not say where the secret is; write {}", Kind::Secret.wants());
    let (1, Some((key, value))) = (table.len(), table.iter().next()) else { return Err(wrong()) };
    match (key.get_ref().as_ref(), value.get_ref().as_str()) {
        ("credential", Some(name)) if is_credential_name(name) => Ok(Value::Secret(SecretRef::Credential(name.to_owned()))),
        ("credential", Some(_)) => {
            Err("a credential name holds only letters, digits, `.`, `_` and `-`; for a path use { file = \"/PATH\" }".to_owned())
        }
        ("file", Some(path)) if path.starts_with('/') => Ok(Value::Secret(SecretRef::File(PathBuf::from(path)))),
        ("file", Some(_)) => Err("the path of a secret is absolute; write { file = \"/PATH\" }".to_owned()),
        _ => Err(wrong()),
    }
}

fn show_duration(ms: u64) -> String {
    let units = [("d", DAY_S * 1_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor));
    let (unit, factor) = unit.unwrap_or(("ms", 1));
    format!("{} {unit}", ms / factor)
}

fn show_size(octets: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, factor)| octets > 0 && octets.is_multiple_of(*factor));
    let (unit, factor) = unit.unwrap_or(("B", 1));
    format!("{} {unit}", octets / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_needs_no_tzdata() {
        assert_eq!(zone_of(&TimeZoneDatabase::none(), "UTC"), Some(TimeZone::UTC));
        assert_eq!(zone_of(&TimeZoneDatabase::none(), "Europe/Vienna"), None);
    }

    #[test]
    fn durations_sizes_and_windows_read_as_people_write_them() {
        assert_eq!(duration_ms("500 ms"), Some(500));
        assert_eq!(duration_ms("5 min"), duration_ms("5m"));
        assert_eq!(duration_ms("30 d"), Some(30 * 86_400_000));
        for wrong in
            ["", "5", "min", "5 min ", "5  min", "-5 min", "1.5 h", "99999999999999999999 d", "99999999999999999 d", "５ min"]
        {
            assert_eq!(duration_ms(wrong), None, "{wrong}");
        }
        assert_eq!(size("8 MiB"), Some(8 << 20));
        assert_eq!(size("8 MB"), None);
        assert_eq!(carry("windows:15m"), Some(Carry::Windows(900)));
        assert_eq!(carry("windows:1d"), Some(Carry::Windows(86_400)));
        for wrong in ["windows:7m", "windows:2d", "windows:1s", "windows:", "window:1m", "windows:0m"] {
            assert_eq!(carry(wrong), None, "{wrong}");
        }
        assert_eq!(when("daily 06:00"), Some(When::Daily { hour: 6, minute: 0 }));
        for wrong in ["daily 24:00", "daily 6:00", "daily +6:00", "every 0 s", "every"] {
            assert_eq!(when(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_in_another_spelling_is_written_out_for_the_user() {
        assert_eq!(
            address("a4-c1-38-11-22-33"),
            Err("`a4-c1-38-11-22-33` is not a Bluetooth device address; write it as \"A4:C1:38:11:22:33\"".to_owned())
        );
        assert!(address("00:00:00:00:00:00").is_err());
    }

    #[test]
    fn a_topic_holds_only_placeholders_that_exist() {
        assert_eq!(topic("bedrail/{gateway}/{device}/{metric}", TOPIC_FIELDS), Ok(()));
        assert_eq!(topic("bedrail/{gateway}/receipt/{route}", ONE_TOPIC_FIELDS), Ok(()));
        assert!(topic("bedrail/{gateway}/{device}", ONE_TOPIC_FIELDS).is_err());
        for wrong in ["", "a/#", "a/+/b", "$SYS/a", "a/{patient}", "a/{device", "a/device}", "a/{}", "{{device}}"] {
            assert!(topic(wrong, TOPIC_FIELDS).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_with_a_login_is_refused_without_repeating_it() {
        let error = url("mqtts://ward:hunter2@broker.example").expect_err("a login");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
