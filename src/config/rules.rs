//! How keys fit together: what must be there, what must be unique, what must exist elsewhere in the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::broker::{Broker, is_host, proxy_address};
use super::document::{Document, Section};
use super::keys::{self, Preset};
use super::settings::{AdvertName, Agreement, Bind, Bond, Carry, DeviceKind, Protocol, RouteKind, Settle, Use};
use super::typed::{FromValue, WindowLength};
use super::value::{did_you_mean, shown, unknown_metric};
use crate::reading::{DeviceId, Metric, SubjectKey, Summary};

pub fn check(document: &mut Document) {
    for schema in ["gateway", "bed[]", "patient[]", "device[]", "route[]"] {
        for section in sections(document, schema) {
            required(document, &section);
        }
    }
    unique::<String>(document, "bed[]", "id");
    unique::<SubjectKey>(document, "patient[]", "key");
    unique::<String>(document, "device[]", "name");
    unique::<DeviceId>(document, "device[]", "address");
    unique::<String>(document, "device[]", "asset");
    unique::<String>(document, "route[]", "name");
    store(document);
    monitor(document);
    scan(document);
    for section in sections(document, "device[]") {
        device(document, &section);
    }
    for section in sections(document, "metric.*") {
        metric(document, &section);
    }
    for section in sections(document, "route[]") {
        route(document, &section);
    }
}

fn sections(document: &Document, schema: &str) -> Vec<Section> {
    document.sections(schema).cloned().collect()
}

fn required(document: &mut Document, section: &Section) {
    if document.has(section, "") {
        return; // It is no section at all, and that was said.
    }
    for key in keys::of_section(section.schema).filter(|key| key.default == Preset::Required) {
        let local = &key.path[section.schema.len() + 1..];
        if !document.has(section, local) {
            document.error(section, local, format!("it is missing; write {}", key.kind.wants()));
        }
    }
}

fn unique<T: FromValue + Ord>(document: &mut Document, schema: &str, key: &str) {
    let mut first: BTreeMap<T, Option<usize>> = BTreeMap::new();
    for section in sections(document, schema) {
        let Some(value) = document.written::<T>(&section, key) else { continue };
        if let Some(line) = first.get(&value) {
            let there = line.map(|line| format!(" (line {line})")).unwrap_or_default();
            let word = schema.trim_end_matches("[]");
            document.error(&section, key, format!("another {word} has the same{there}; give each its own"));
        } else {
            first.insert(value, section.line);
        }
    }
}

fn store(document: &mut Document) {
    let store = document.single("store").clone();
    let (keep, horizon) = (document.effective::<Duration>(&store, "keep"), document.effective::<Duration>(&store, "horizon"));
    if keep < horizon {
        let message = "it is shorter than store.horizon: what is gone can't be corrected; write at least that";
        document.error(&store, "keep", message);
    }
}

fn scan(document: &mut Document) {
    let scan = document.single("scan").clone();
    match (document.has(&scan, "patient"), document.has(&scan, "device")) {
        (true, false) => document.error(&scan, "patient", "a wristband alone ties nothing; write `device` as well, or remove it"),
        (false, true) => document.error(&scan, "device", "a label alone ties nothing; write `patient` as well, or remove it"),
        _ => {}
    }
    if document.written::<PathBuf>(&scan, "input").is_some_and(|input| input.starts_with("/dev/input")) {
        let message = "a scanner there is a keyboard, and types wristbands into whatever console is open; set it to its serial mode (USB-COM) \
                       and write its path under \"/dev/serial/by-id\"";
        document.error(&scan, "input", message);
    }
}

/// Whoever watches many gateways finds each by one level of the topic.
fn monitor(document: &mut Document) {
    let monitor = document.single("monitor").clone();
    let Some(topic) = document.written::<String>(&monitor, "topic") else { return };
    let by_gateway = topic.split('/').filter(|level| *level == "{gateway}").count() == 1;
    if !by_gateway || topic.matches('{').count() != 1 || topic.split('/').any(str::is_empty) {
        let message = "it needs {gateway} as one whole level, once, and no other placeholder; write for example \"bedrail/{gateway}/status\"";
        document.error(&monitor, "topic", message);
    }
}

fn device(document: &mut Document, device: &Section) {
    let beds: Vec<String> = names(document, "bed[]", "id");
    if let Some(bed) = document.written::<String>(device, "bed")
        && !beds.contains(&bed)
    {
        let hint = did_you_mean(&bed, beds.iter().map(String::as_str));
        document.error(device, "bed", format!("there is no [[bed]] with id \"{}\"; add it{hint}", shown(&bed)));
    }
    let patients: Vec<SubjectKey> = names(document, "patient[]", "key");
    if let Some(patient) = document.written::<SubjectKey>(device, "patient")
        && !patients.contains(&patient)
    {
        let hint = did_you_mean(patient.as_str(), patients.iter().map(SubjectKey::as_str));
        document.error(device, "patient", format!("there is no [[patient]] with this key; add it{hint}"));
    }

    let (bed, patient) = (document.has(device, "bed"), document.has(device, "patient"));
    if bed && patient {
        document.error(device, "patient", "a device is at a bed or on a person; remove `bed` or `patient`");
    }
    match document.written::<Use>(device, "use") {
        Some(Use::Shared) if bed || patient => {
            document.error(
                device,
                "use",
                "a shared device is nobody's; remove `bed` and `patient`, or write use = \"bed\" or \"personal\"",
            );
        }
        Some(Use::Bed) if patient => {
            document.error(device, "use", "it is on a patient; write use = \"personal\", or remove `patient`");
        }
        Some(Use::Personal) if bed => {
            document.error(device, "use", "it is at a bed; write use = \"bed\", or remove `bed`");
        }
        _ => {}
    }
    spot(document, device);
    bond(document, device);
    advert(document, device);
    if document.has(device, "user") && !patient {
        document.error(device, "user", "it says which slot is the patient's; add `patient`, or remove it");
    }
    if document.has(device, "from") && !patient && !bed {
        document.error(device, "from", "it says when an assignment starts; add `patient` or `bed`, or remove it");
    }
}

fn spot(document: &mut Document, device: &Section) {
    let written = ["for", "readings", "max_uncertainty", "stable_for"].map(|key| format!("spot.{key}"));
    let shared = document.effective::<Use>(device, "use") == Some(Use::Shared);
    if !shared && let Some(key) = written.iter().find(|key| document.has(device, key)) {
        document.error(device, key, "a scan ties readings of a shared device alone; write use = \"shared\", or remove it");
    }
    let streams = document.written::<DeviceKind>(device, "kind").is_none_or(DeviceKind::streams);
    if shared && !streams && document.has(device, "spot.stable_for") {
        document.error(device, "spot.stable_for", "a device of this kind measures one by one, and each value counts; remove it");
    }
}

fn bond(document: &mut Document, device: &Section) {
    let passkey = document.effective::<Bond>(device, "bond") == Some(Bond::Passkey);
    match (passkey, document.has(device, "passkey")) {
        (true, false) => document.error(
            device,
            "passkey",
            "bond = \"passkey\" needs it; write { credential = \"NAME\" } or { file = \"/PATH\" }, a secret of six digits",
        ),
        (false, true) => document.error(device, "passkey", "it is not used; write bond = \"passkey\", or remove it"),
        _ => {}
    }
}

fn advert(document: &mut Document, device: &Section) {
    let (has_key, counts) = (document.has(device, "advert_key"), document.has(device, "advert_counter"));
    let Some(format) = document.written::<AdvertName>(device, "advert") else {
        for key in [("advert_key", has_key), ("advert_counter", counts)].into_iter().filter_map(|(key, has)| has.then_some(key)) {
            document.error(device, key, "it is not used; write `advert`, or remove it");
        }
        return;
    };
    if document.has(device, "profile") {
        document.error(device, "profile", "it is read by `advert` or by a profile; remove one of them");
    }
    if document.effective::<Bond>(device, "bond").is_some_and(|bond| bond != Bond::None) {
        document.error(device, "bond", "a device that is read by what it advertises is never connected to; remove it");
    }
    for key in ["serial", "model"] {
        if document.has(device, key) {
            let message = "a device that is read by what it advertises is never asked what it is; remove it";
            document.error(device, key, message);
        }
    }
    if let Some(kind) = document.written::<DeviceKind>(device, "kind")
        && !format.kinds().contains(&kind)
    {
        let kinds: Vec<String> = format.kinds().iter().map(|kind| format!("\"{}\"", kind.name())).collect();
        let message = format!("{} says nothing of such a device; it is of kind {}", format.name(), kinds.join(" or "));
        document.error(device, "advert", message);
    }
    match (format.encrypted(), has_key) {
        (Some(true), false) => document.error(
            device,
            "advert_key",
            "this format is encrypted; write { credential = \"NAME\" } or { file = \"/PATH\" }, a secret of 32 hexadecimal digits",
        ),
        (Some(false), true) => document.error(device, "advert_key", "this format is never encrypted; remove it"),
        (_, false) if counts => document.error(device, "advert_counter", "only what is encrypted is counted; remove it"),
        _ => {}
    }
}

fn metric(document: &mut Document, section: &Section) {
    let Some(name) = &section.name else { return };
    let Some(metric) = Metric::from_name(name) else {
        return document.error(section, "", unknown_metric(name));
    };
    if metric.row().summary == Summary::None && document.has(section, "windows") {
        document.error(section, "windows", "this metric is never condensed, every value passes by itself; remove the key");
    }
    if document.written::<Vec<WindowLength>>(section, "windows").is_some_and(|windows| twice(&windows)) {
        document.error(section, "windows", TWICE);
    }
    let units = metric.row().units;
    if let Some(agreement) = document.written::<Agreement>(section, "agree_within")
        && !units.contains(&agreement.unit)
    {
        let units: Vec<_> = units.iter().map(|unit| unit.ucum()).collect();
        document.error(section, "agree_within", format!("this metric has no such unit; write it in {}", units.join(" or ")));
    }
    let mut known: Vec<String> = names(document, "device[]", "name");
    known.extend(DeviceKind::WORDS.iter().map(|word| (*word).to_owned()));
    listed(document, section, "prefer", &known, "device or kind of device");
}

fn route(document: &mut Document, route: &Section) {
    match document.written::<Vec<Carry>>(route, "carry") {
        Some(carry) if carry.is_empty() => {
            document.error(route, "carry", "it carries nothing; write for example [\"readings\"]");
        }
        Some(carry) if twice(&carry) => document.error(route, "carry", TWICE),
        _ => {}
    }
    let bind = document.effective::<Bind>(route, "bind");
    if document.written(route, "per_patient") == Some(true) && bind != Some(Bind::Patient) {
        document.error(route, "per_patient", "this needs a patient; write bind = \"patient\", or remove it");
    }
    let (devices, beds) = (names(document, "device[]", "name"), names(document, "bed[]", "id"));
    listed(document, route, "filter.devices", &devices, "device");
    listed(document, route, "filter.beds", &beds, "bed");
    match (document.has(route, "tls.cert"), document.has(route, "tls.key")) {
        (true, false) => document.error(
            route,
            "tls.key",
            "a certificate needs its key; write { credential = \"NAME\" } or { file = \"/PATH\" }",
        ),
        (false, true) => document.error(route, "tls.cert", "a key needs its certificate; write the path of a PEM file"),
        _ => {}
    }
    if document.written(route, "kind") == Some(RouteKind::Mqtt) {
        mqtt(document, route);
    }
}

fn mqtt(document: &mut Document, route: &Section) {
    if let Some(prefix) = document.written::<String>(route, "home_assistant") {
        if prefix.contains('{') || prefix.split('/').any(str::is_empty) {
            let message = "it is a plain prefix without placeholders; write for example \"homeassistant\"";
            document.error(route, "home_assistant", message);
        }
        if document.written(route, "announce") == Some(false) {
            document.error(route, "home_assistant", "it shows what monitoring publishes; remove it, or announce = false");
        }
    }
    let Some(url) = document.written::<String>(route, "url") else {
        if !document.has(route, "url") {
            document.error(route, "url", "it is missing; write where the broker is, such as \"mqtts://broker.example:8883\"");
        }
        return;
    };
    let broker = match Broker::parse(&url) {
        Ok(broker) => broker,
        Err(message) => return document.error(route, "url", message),
    };
    promise(document, route);
    login(document, route, &broker);
    proxy(document, route, &broker);
    tls(document, route);
    if broker.tls {
        return;
    }
    let secure = if broker.path.is_some() { "wss" } else { "mqtts" };
    if !broker.is_this_machine() {
        let message = format!(
            "without TLS values go in the clear, which is for this machine only; write \"{secure}://{}\"",
            shown(&broker.host)
        );
        document.error(route, "url", message);
    } else if ["tls.ca", "tls.cert", "tls.key", "tls.alpn", "tls.server_name"].iter().any(|key| document.has(route, key)) {
        document.error(route, "url", format!("there is no TLS in it; write \"{secure}\", or remove the keys under `tls`"));
    }
}

/// What an acknowledgement is worth, and where there is none.
fn promise(document: &mut Document, route: &Section) {
    let settle = document.effective::<Settle>(route, "settle");
    match (document.effective::<u8>(route, "max_qos"), settle) {
        (Some(0), Some(Settle::Puback)) => document.error(
            route,
            "settle",
            "at QoS 0 nothing is acknowledged; write settle = \"receipt\", or settle = \"sent\" to count as arrived what has left",
        ),
        (Some(1), Some(Settle::Sent)) => {
            document.error(route, "settle", "at QoS 1 the broker acknowledges; write settle = \"puback\", or max_qos = 0");
        }
        (_, Some(Settle::Sent)) => {
            document.note(route, "settle", "nothing confirms what was sent: what is lost on the way or at the broker stays lost");
        }
        (_, Some(Settle::Puback)) if document.effective(route, "protocol") == Some(Protocol::V311) => document.note(
            route,
            "protocol",
            "a 3.1.1 broker acknowledges even what its access rules refuse, and then it is lost; write protocol = \"5\" if the broker can, or settle = \"receipt\"",
        ),
        _ => {}
    }
}

fn login(document: &mut Document, route: &Section, broker: &Broker) {
    if document.has(route, "sas.ttl") && !document.has(route, "sas.key") {
        document.error(route, "sas.key", "a token needs a key; write { credential = \"NAME\" } or { file = \"/PATH\" }");
    }
    if document.has(route, "sas.key") && document.has(route, "password") {
        document.error(route, "password", "with `sas` the password is a token; remove one of the two");
    }
    if document.has(route, "sas.key") && !broker.tls {
        document.error(route, "sas.key", "a token is for TLS only; write \"mqtts\" or \"wss\" in url");
    }
}

fn proxy(document: &mut Document, route: &Section, broker: &Broker) {
    match document.written::<String>(route, "proxy.url") {
        Some(url) => {
            if let Err(message) = proxy_address(&url) {
                document.error(route, "proxy.url", message);
            } else if !broker.tls {
                document.error(route, "proxy.url", "a broker on this machine is behind no proxy; remove `proxy`");
            }
        }
        None if document.has(route, "proxy.url") => {}
        None if document.has(route, "proxy.username") || document.has(route, "proxy.password") => {
            document.error(route, "proxy.url", "it is missing; write \"http://HOST:PORT\"");
        }
        None => {}
    }
    if document.has(route, "proxy.password") && !document.has(route, "proxy.username") {
        document.error(route, "proxy.username", "a password needs its user name; write it");
    }
}

fn tls(document: &mut Document, route: &Section) {
    if document.written::<String>(route, "tls.server_name").is_some_and(|name| !is_host(&name)) {
        document.error(route, "tls.server_name", "it is no host name; write one that is in the certificate");
    }
    // RFC 7301, 3.1: one octet says how long a name is.
    if document.written::<Vec<String>>(route, "tls.alpn").is_some_and(|names| names.iter().any(|name| name.len() > 255)) {
        document.error(route, "tls.alpn", "a name is longer than 255 octets; write the one the destination documents");
    }
}

fn names<T: FromValue>(document: &Document, schema: &str, key: &str) -> Vec<T> {
    document.sections(schema).filter_map(|section| document.written(section, key)).collect()
}

const TWICE: &str = "one length stands there twice; write each once";

fn twice<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().any(|(n, item)| items[..n].contains(item))
}

fn listed(document: &mut Document, section: &Section, key: &str, known: &[String], what: &str) {
    for name in document.written::<Vec<String>>(section, key).unwrap_or_default() {
        if !known.contains(&name) {
            let hint = did_you_mean(&name, known.iter().map(String::as_str));
            document.error(
                section,
                key,
                format!("there is no {what} \"{}\"; write one that is in this file{hint}", shown(&name)),
            );
        }
    }
}
