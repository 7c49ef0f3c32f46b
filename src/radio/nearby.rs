//! What is to be heard nearby, from the list of BlueZ's objects. Pure. It is told to who asks and written nowhere: the list
//! holds the phones of the ward.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zbus::{OwnedObjectPath, OwnedVariant};

use super::bluez::DEVICE;
use super::watch::{Interfaces, Properties, flag, text};
use crate::reading::DeviceId;

/// A place full of people has hundreds of devices in the air; nobody reads a longer table.
pub const MAX_NEARBY: usize = 512;
/// Of a name, in characters: more is no name, and the table has other columns.
const MAX_NAME: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearby {
    #[serde(with = "as_text")]
    pub address: DeviceId,
    /// `public` or `random`.
    pub address_type: String,
    /// As the device calls itself, with nothing in it that would do something to a terminal.
    pub name: Option<String>,
    /// Absent for one that is known and not heard now.
    pub rssi: Option<i16>,
    #[serde(with = "as_texts")]
    pub services: Vec<Uuid>,
    /// Services of which data is in what it advertises.
    #[serde(with = "as_texts")]
    pub service_data: Vec<Uuid>,
    /// Companies of which data is in what it advertises.
    pub manufacturers: Vec<u16>,
    pub connected: bool,
    pub paired: bool,
}

/// The strongest first; one that several adapters know is one.
pub fn nearby(objects: &HashMap<OwnedObjectPath, Interfaces>) -> Vec<Nearby> {
    let mut found: BTreeMap<DeviceId, Nearby> = BTreeMap::new();
    for device in objects.values().filter_map(|interfaces| device(interfaces.get(DEVICE)?)) {
        let known = found.entry(device.address).or_insert_with(|| device.clone());
        let (connected, paired) = (known.connected || device.connected, known.paired || device.paired);
        if device.rssi > known.rssi {
            *known = device;
        }
        (known.connected, known.paired) = (connected, paired);
    }
    let mut found: Vec<Nearby> = found.into_values().collect();
    found.sort_by_key(|device| (std::cmp::Reverse(device.rssi), device.address));
    found.truncate(MAX_NEARBY);
    found
}

fn device(properties: &Properties) -> Option<Nearby> {
    let list = |name| properties.get(name).and_then(|value| value.try_clone().ok());
    let services: Vec<String> = list("UUIDs").and_then(|value| value.try_into().ok()).unwrap_or_default();
    let service_data: HashMap<String, OwnedVariant> =
        list("ServiceData").and_then(|value| value.try_into().ok()).unwrap_or_default();
    let companies: HashMap<u16, OwnedVariant> =
        list("ManufacturerData").and_then(|value| value.try_into().ok()).unwrap_or_default();
    let mut manufacturers: Vec<u16> = companies.into_keys().collect();
    manufacturers.sort_unstable();
    Some(Nearby {
        address: text(properties, "Address")?.parse().ok()?,
        address_type: text(properties, "AddressType").unwrap_or("unknown").to_owned(),
        name: text(properties, "Name").and_then(printable),
        rssi: properties.get("RSSI").and_then(|value| value.downcast_ref::<i16>().ok()),
        services: uuids(services),
        service_data: uuids(service_data.into_keys()),
        manufacturers,
        connected: flag(properties, "Connected").unwrap_or(false),
        paired: flag(properties, "Paired").unwrap_or(false),
    })
}

fn uuids(texts: impl IntoIterator<Item = String>) -> Vec<Uuid> {
    let mut uuids: Vec<Uuid> = texts.into_iter().filter_map(|text| text.parse().ok()).collect();
    uuids.sort_unstable();
    uuids
}

/// A name is whatever somebody in radio range likes to send. What moves a cursor, colours, hides or reverses text goes.
fn printable(name: &str) -> Option<String> {
    let (mut kept, mut rest) = (String::new(), name.chars());
    while let Some(c) = rest.next() {
        match c {
            '\u{1B}' | '\u{9B}' => skip_sequence(c, &mut rest),
            _ if c.is_control() || is_invisible(c) => {}
            _ => kept.push(c),
        }
    }
    let kept = kept.trim();
    let short: String = kept.chars().take(MAX_NAME).collect();
    let dots = if short.len() < kept.len() { "…" } else { "" };
    (!short.is_empty()).then(|| short + dots)
}

/// The rest of a control sequence of ECMA-48: parameters up to a final letter. Others are two characters long.
fn skip_sequence(begin: char, rest: &mut std::str::Chars<'_>) {
    if begin == '\u{9B}' || rest.next() == Some('[') {
        rest.find(|c| matches!(c, '\u{40}'..='\u{7E}'));
    }
}

/// Characters without a picture of their own that change the text around them: joiners, marks of direction, tags.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}'
    )
}

/// On the wire as people write it.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod as_texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(T::to_string))
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zbus::Variant;

    use super::*;

    #[test]
    fn a_name_that_would_do_something_to_a_terminal_is_only_a_name() {
        let cases = [
            ("Polar H10 2A1B", Some("Polar H10 2A1B")),
            ("\u{1B}[31;1mred\u{1B}[0m \u{1B}[2J", Some("red")),
            ("a\u{1B}]0;title\u{7}b", Some("a0;titleb")),
            ("\u{9B}2Jgone\r\n\tline\u{0}", Some("goneline")),
            ("cuff\u{202E}gnp.\u{2066}x\u{200D}", Some("cuffgnp.x")),
            ("  Blutdruck Zimmer 3 – Größe \u{2028}", Some("Blutdruck Zimmer 3 – Größe")),
            ("\u{1B}[", None),
            ("\u{7}\u{8}", None),
            ("", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(printable(name).as_deref(), wanted, "{name:?}");
        }
        assert_eq!(printable(&"x".repeat(248)).unwrap().chars().count(), MAX_NAME + 1);
    }

    proptest! {
        #[test]
        fn no_name_leaves_a_character_without_a_picture(name in "(\\PC|\\pC|\u{1B}|\\[|[0-9;]|m)*") {
            let printed = printable(&name).unwrap_or_default();
            prop_assert!(!printed.chars().any(|c| c.is_control() || is_invisible(c)), "{printed:?}");
            prop_assert!(printed.chars().count() <= MAX_NAME + 1);
        }
    }

    #[test]
    fn a_device_that_two_adapters_know_is_one_as_the_better_of_them_hears_it() {
        let variant = |value: Variant<'_>| value.try_to_owned().unwrap();
        let seen = |hci: &str, rssi: Option<i16>, connected: bool| {
            let mut properties: Properties = [
                ("Address".to_owned(), variant("C0:FF:EE:00:00:21".into())),
                ("Connected".to_owned(), variant(connected.into())),
            ]
            .into();
            properties.extend(rssi.map(|rssi| ("RSSI".to_owned(), variant(rssi.into()))));
            let path = OwnedObjectPath::try_from(format!("/org/bluez/{hci}/dev_C0_FF_EE_00_00_21")).unwrap();
            (path, Interfaces::from([(DEVICE.to_owned(), properties)]))
        };
        let objects = [seen("hci0", None, true), seen("hci1", Some(-70), false), seen("hci2", Some(-50), false)];
        let found = nearby(&objects.into());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].rssi, found[0].connected), (Some(-50), true));
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.contains("\"C0:FF:EE:00:00:21\""), "{text}");
        assert_eq!(serde_json::from_str::<Vec<Nearby>>(&text).unwrap(), found);
    }
}
