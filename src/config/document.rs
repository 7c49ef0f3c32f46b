//! TOML to checked values: each key is looked up in the table of keys and read by its kind, every error is kept with its
//! line, and nothing is decided about how keys fit together.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::keys::{self, Key, Preset, Status};
use super::settings::{Mode, RouteKind};
use super::typed::FromValue;
use super::value::{Kind, Value, did_you_mean, nearest, shown};
use super::{LaterKey, Origin};
use crate::reading::Metric;

/// Sections that stand once, whether they are written or not.
const SINGLE: &[&str] = &["gateway", "store", "ward", "monitor", "radio", "adt", "scan"];
/// Sections that stand once each thing, written `[[device]]`.
const REPEATED: &[(&str, &str)] = &[("bed", "bed[]"), ("patient", "patient[]"), ("device", "device[]"), ("route", "route[]")];
const METRIC: &str = "metric.*";

#[derive(Debug)]
pub struct Document {
    pub file: String,
    pub errors: Vec<ConfigError>,
    pub later: Vec<LaterKey>,
    pub notes: Vec<ConfigError>,
    sections: Vec<Section>,
    values: BTreeMap<String, Entry>,
    /// Keys that were written but could not be read: they have their error already.
    refused: BTreeSet<String>,
}

/// One table of the file: `[gateway]`, the second `[[device]]`, `[metric.spo2]`.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its path in the table of keys: `device[]`.
    pub schema: &'static str,
    /// Its place among its like, from 0.
    pub index: usize,
    /// What the user calls it, where that can be read.
    pub name: Option<String>,
    /// For messages: `device "cuff"`.
    pub label: String,
    /// Absent when the section is not in the file.
    pub line: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    line: usize,
}

impl Document {
    /// Reads everything readable; `errors` says what was not.
    pub fn read(text: &str, file: &str) -> Self {
        let mut document = Self {
            file: file.to_owned(),
            errors: Vec::new(),
            later: Vec::new(),
            notes: Vec::new(),
            sections: Vec::new(),
            values: BTreeMap::new(),
            refused: BTreeSet::new(),
        };
        match DeTable::parse(text) {
            Ok(table) => Reader { text, document: &mut document }.top(table.get_ref()),
            Err(error) => {
                let line = error.span().map(|span| line_at(text, span.start));
                let message = format!("this is not TOML: {}; mend this line", error.message());
                document.errors.push(ConfigError {
                    file: file.to_owned(),
                    line,
                    section: String::new(),
                    key: String::new(),
                    message,
                });
            }
        }
        document
    }

    /// Whether it could not be parsed at all: then nothing can be said about its keys.
    pub fn is_broken(&self) -> bool {
        self.sections.is_empty()
    }

    pub fn sections(&self, schema: &str) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(move |section| section.schema == schema)
    }

    pub fn single(&self, schema: &str) -> &Section {
        self.sections(schema).next().expect("every single section is made when a document is read")
    }

    /// What was written and could be read.
    pub fn written<T: FromValue>(&self, section: &Section, key: &str) -> Option<T> {
        T::from_value(&self.values.get(&section.place(key))?.value)
    }

    /// Whether the user wrote it, readable or not.
    pub fn has(&self, section: &Section, key: &str) -> bool {
        let place = section.place(key);
        self.values.contains_key(&place) || self.refused.contains(&place)
    }

    /// What was written, else the default.
    pub fn effective<T: FromValue>(&self, section: &Section, key: &str) -> Option<T> {
        let key_of_table = keys::find(&format!("{}.{key}", section.schema))?;
        self.written(section, key)
            .or_else(|| T::from_value(&default_value(key_of_table, self.default_toml(section, key_of_table)?.0)))
    }

    /// The effective value as TOML, and where it comes from; `None` for a key that is absent and has no default.
    pub fn explained(&self, section: &Section, key: &'static Key) -> Option<(String, Origin)> {
        let rest = key.path.strip_prefix(section.schema)?.strip_prefix('.')?;
        if let Some(entry) = self.values.get(&section.place(rest)) {
            return Some((entry.value.to_toml(), Origin::File { file: self.file.clone(), line: entry.line }));
        }
        let (toml, by_mode) = self.default_toml(section, key)?;
        Some((toml.to_owned(), if by_mode { Origin::Mode } else { Origin::Default }))
    }

    pub fn mode(&self) -> Mode {
        self.written(self.single("gateway"), "mode").unwrap_or(Mode::Ward)
    }

    /// Says what is wrong with a key, at its own line where it was written. One error a key: the first must go first.
    pub fn error(&mut self, section: &Section, key: &str, message: impl Into<String>) {
        let place = section.place(key);
        if self.refused.contains(&place) {
            return;
        }
        let error = self.remark(section, key, message.into());
        self.errors.push(error);
    }

    /// It is right, and somebody should know what it means.
    pub fn note(&mut self, section: &Section, key: &str, message: impl Into<String>) {
        let note = self.remark(section, key, message.into());
        self.notes.push(note);
    }

    fn remark(&self, section: &Section, key: &str, message: String) -> ConfigError {
        let line = self.values.get(&section.place(key)).map(|entry| entry.line).or(section.line);
        ConfigError { file: self.file.clone(), line, section: section.label.clone(), key: key.to_owned(), message }
    }

    fn default_toml(&self, section: &Section, key: &Key) -> Option<(&'static str, bool)> {
        if key.path == "device[].use" && self.has(section, "patient") {
            return Some((r#""personal""#, false));
        }
        if key.path == "device[].use" && self.has(section, "bed") {
            return Some((r#""bed""#, false));
        }
        let mqtt = section.schema == "route[]" && self.written(section, "kind") == Some(RouteKind::Mqtt);
        match keys::default_of(key, self.mode(), mqtt) {
            (Preset::Toml(toml), by_mode) => Some((toml, by_mode)),
            (Preset::Required | Preset::Absent, _) => None,
        }
    }
}

impl Section {
    /// A section nobody wrote: everything in it has its default.
    pub fn unwritten(schema: &'static str) -> Self {
        Self { schema, index: usize::MAX, name: None, label: String::new(), line: None }
    }

    fn place(&self, key: &str) -> String {
        format!("{}#{}.{key}", self.schema, self.index)
    }
}

struct Reader<'d> {
    text: &'d str,
    document: &'d mut Document,
}

impl Reader<'_> {
    fn top(&mut self, table: &DeTable<'_>) {
        for schema in SINGLE {
            let found = table.iter().find(|(key, _)| key.get_ref() == schema);
            let section = self.section(schema, 0, None, found.map(|(key, _)| key.span().start));
            match found.map(|(_, value)| value.get_ref()) {
                None => {}
                Some(DeValue::Table(table)) => self.table(&section, schema, "", table),
                Some(_) => self.refuse(&section, "", section.line, format!("it is a section of its own; write [{schema}]")),
            }
        }
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let at = key.span().start;
            if let Some((_, schema)) = REPEATED.iter().find(|(repeated, _)| *repeated == name) {
                self.repeated(name, schema, at, value);
            } else if name == "metric" {
                self.metrics(at, value);
            } else if !SINGLE.contains(&name) {
                let top = Section::unwritten("");
                self.unknown(&top, "", name, key, value);
            }
        }
    }

    fn repeated(&mut self, name: &str, schema: &'static str, at: usize, value: &Spanned<DeValue<'_>>) {
        let tables: Option<Vec<_>> = value
            .get_ref()
            .as_array()
            .map(|items| items.iter().filter_map(|item| Some((item.span().start, item.get_ref().as_table()?))).collect());
        let whole = value.get_ref().as_array().map(|items| items.len()) == tables.as_ref().map(Vec::len);
        let (Some(tables), true) = (tables, whole) else {
            let top = Section::unwritten("");
            return self.refuse(&top, name, Some(line_at(self.text, at)), format!("there can be many; write [[{name}]]"));
        };
        for (index, (at, table)) in tables.into_iter().enumerate() {
            let named = match schema {
                "device[]" | "route[]" => table.get("name"),
                "bed[]" => table.get("id"),
                _ => None,
            };
            let named = named.and_then(|value| value.get_ref().as_str()).map(str::to_owned);
            let section = self.section(schema, index, named, Some(at));
            self.table(&section, schema, "", table);
        }
    }

    fn metrics(&mut self, at: usize, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else {
            let top = Section::unwritten("");
            return self.refuse(&top, "metric", Some(line_at(self.text, at)), "write [metric.NAME]");
        };
        for (index, (key, value)) in table.iter().enumerate() {
            let name = key.get_ref().to_string();
            let section = self.section(METRIC, index, Some(name.clone()), Some(key.span().start));
            match value.get_ref() {
                DeValue::Table(table) => self.table(&section, METRIC, "", table),
                _ => self.refuse(&section, "", section.line, format!("write [metric.{name:?}]")),
            }
        }
    }

    /// `schema` is the path in the table of keys, `prefix` the part of it below the section.
    fn table(&mut self, section: &Section, schema: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{schema}.{name}");
            let local = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let any = format!("{schema}.*");
            if let Some(known) = keys::find(&path).or_else(|| keys::find(&any)) {
                self.value(section, known, &local, key.span().start, value);
            } else if keys::children(&path).next().is_some() {
                match value.get_ref() {
                    DeValue::Table(table) => self.table(section, &path, &local, table),
                    other => {
                        let line = Some(line_at(self.text, key.span().start));
                        let inner = keys::children(&path).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
                        let message = format!("it is a {}; write a table with {inner}", other.type_str());
                        self.refuse(section, &local, line, message);
                    }
                }
            } else {
                self.unknown(section, prefix, name, key, value);
            }
        }
    }

    fn value(&mut self, section: &Section, key: &'static Key, local: &str, at: usize, value: &Spanned<DeValue<'_>>) {
        let line = line_at(self.text, at);
        let read = match key.kind.read(value.get_ref()) {
            Ok(read) => read,
            Err(message) => return self.refuse(section, local, Some(line), message),
        };
        if let (Kind::Free, DeValue::Table(table)) = (key.kind, value.get_ref()) {
            self.free(section, local, table);
        }
        if let Some(why) = not_yet(key, &read) {
            self.document.later.push(LaterKey {
                file: self.document.file.clone(),
                line,
                section: section.label.clone(),
                key: local.to_owned(),
                why: why.to_owned(),
            });
        }
        self.document.values.insert(section.place(local), Entry { value: read, line });
    }

    /// A table whose keys are not bedrail's: all that can be told is a secret in plain text.
    fn free(&mut self, section: &Section, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let local = format!("{prefix}.{}", key.get_ref());
            match value.get_ref() {
                DeValue::String(_) if names_a_secret(key.get_ref()) => {
                    self.refuse(section, &local, Some(line_at(self.text, key.span().start)), plain_secret());
                }
                DeValue::Table(table) => self.free(section, &local, table),
                _ => {}
            }
        }
    }

    /// The value of an unknown key is never repeated: nobody knows what it is.
    fn unknown<K>(&mut self, section: &Section, prefix: &str, name: &str, key: &Spanned<K>, value: &Spanned<DeValue<'_>>) {
        let line = Some(line_at(self.text, key.span().start));
        let known: Vec<_> = if section.schema.is_empty() {
            keys::children("").collect()
        } else {
            let schema = if prefix.is_empty() { section.schema.to_owned() } else { format!("{}.{prefix}", section.schema) };
            keys::children(&schema).collect()
        };
        let metric = section.name.as_ref().map(|metric| format!("{metric}.{name}"));
        let message = if section.schema == "patient[]" {
            "identifiers do not belong into the config, only `key` and `test` do; remove this line and use `bedrail patient set KEY --identifiers-file -`".to_owned()
        } else if names_a_secret(name) && value.get_ref().is_str() {
            plain_secret()
        } else if let Some(metric) = metric.filter(|metric| section.schema == METRIC && Metric::from_name(metric).is_some()) {
            format!("a metric with a dot in its name needs quotes; write [metric.{metric:?}]")
        } else if nearest(name, known.iter().copied()).is_some() {
            format!("there is no such key{}", did_you_mean(name, known))
        } else {
            let known: BTreeSet<_> = known.into_iter().collect();
            format!("there is no such key; there are {}", known.into_iter().collect::<Vec<_>>().join(", "))
        };
        // A key that is no word of a config could itself be somebody's name.
        let word = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-'));
        let shown_name = if section.schema != "patient[]" || word { shown(name) } else { "(a key)".to_owned() };
        let local = if prefix.is_empty() { shown_name } else { format!("{prefix}.{shown_name}") };
        self.refuse(section, &local, line, message);
    }

    fn refuse(&mut self, section: &Section, key: &str, line: Option<usize>, message: impl Into<String>) {
        self.document.refused.insert(section.place(key));
        self.document.errors.push(ConfigError {
            file: self.document.file.clone(),
            line,
            section: section.label.clone(),
            key: key.to_owned(),
            message: message.into(),
        });
    }

    fn section(&mut self, schema: &'static str, index: usize, name: Option<String>, at: Option<usize>) -> Section {
        let word = schema.split(['[', '.']).next().unwrap_or(schema);
        let label = match &name {
            Some(name) => format!("{word} \"{}\"", shown(name)),
            None if SINGLE.contains(&schema) => word.to_owned(),
            None => format!("{word} {}", index + 1),
        };
        let section = Section { schema, index, name, label, line: at.map(|at| line_at(self.text, at)) };
        self.document.sections.push(section.clone());
        section
    }
}

fn not_yet(key: &Key, value: &Value) -> Option<&'static str> {
    match (key.status, key.kind, value) {
        (Status::Later(why), _, _) => Some(why),
        (Status::Now, Kind::Choice { later, .. }, Value::Text(word)) => {
            later.iter().find(|(later, _)| later == word).map(|(_, why)| *why)
        }
        (Status::Now, _, _) => None,
    }
}

fn default_value(key: &Key, toml: &str) -> Value {
    let value = DeValue::parse(toml).ok().and_then(|value| key.kind.read(value.get_ref()).ok());
    value.expect("a test of the table of keys reads every default")
}

fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "secret", "token"].iter().any(|word| key.contains(word))
}

fn plain_secret() -> String {
    format!("a secret is never written into the config; write {}", Kind::Secret.wants())
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|octet| **octet == b'\n').count()
}
