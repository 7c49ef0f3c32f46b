//! What a device nearby is, as far as its advertisements tell, and the section of the config that adds it. Pure.

use uuid::Uuid;

use super::profiles::must_set_clock;
use super::settings::{AdvertName, DeviceKind};
use crate::gatt::{self, ADVERTISEMENTS, Source};
use crate::profile::{Advertised, Library, Profile};
use crate::radio::Nearby;
use crate::reading::Metric;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// A kind, a profile, or the format of what it advertises.
    pub what: String,
    /// Ready to paste; absent where a person has to say what it measures or what its key is, and for one that changes its address.
    pub section: Option<String>,
}

/// A profile says more than a service, and a service more than the format of an advertisement.
pub fn recognise(device: &Nearby, library: &Library) -> Option<Recognised> {
    let Nearby { name, services, service_data, manufacturers, .. } = device;
    let advertised = Advertised { name: name.as_deref(), services, service_data, manufacturers };
    let known: Vec<&Profile> =
        library.iter().map(|known| &*known.profile).filter(|profile| profile.matches(&advertised)).collect();
    if let Some((profile, kind)) = known.iter().find_map(|profile| Some((profile, kind_of(profile)?))) {
        let bond = if profile.link.needs_bond { "bond = \"just-works\"\n" } else { "" };
        let clock = if must_set_clock(profile) { "set_clock = true\n" } else { "" };
        let further = format!("profile = \"{}\"\n{bond}{clock}", profile.id);
        return Some(Recognised { what: profile.id.clone(), section: section(device, kind.name(), &further) });
    }
    if let Some(kind) = kind(services) {
        return Some(Recognised { what: kind.to_owned(), section: section(device, kind, "") });
    }
    if let Some(profile) = known.first() {
        return Some(Recognised { what: profile.id.clone(), section: None });
    }
    let format = format(service_data, manufacturers)?;
    let section = only_kind(format).and_then(|kind| section(device, kind.name(), &format!("advert = \"{format}\"\n")));
    Some(Recognised { what: format.to_owned(), section })
}

/// What a device of a format must be, where the format leaves nothing to ask a person for.
fn only_kind(format: &str) -> Option<DeviceKind> {
    let format = AdvertName::from_name(format)?;
    let [kind] = format.kinds() else { return None };
    (format.encrypted() == Some(false)).then_some(*kind)
}

/// By the first of a kind's services, the one that no other has for its first. A device that has several is what is rarer: an
/// oximeter also tells a heart rate.
fn kind(services: &[Uuid]) -> Option<&'static str> {
    gatt::device_kinds()
        .iter()
        .rfind(|kind| kind.services.first().is_some_and(|first| services.contains(first)))
        .map(|kind| kind.name)
}

/// What kind a profile's values are of.
fn kind_of(profile: &Profile) -> Option<DeviceKind> {
    profile.metrics().find_map(|metric| match metric {
        Metric::BodyTemperature => Some(DeviceKind::Thermometer),
        Metric::BloodPressure => Some(DeviceKind::BloodPressure),
        Metric::Spo2 | Metric::PulseRateOximeter => Some(DeviceKind::PulseOximeter),
        Metric::BodyWeight => Some(DeviceKind::WeightScale),
        Metric::Glucose => Some(DeviceKind::GlucoseMeter),
        Metric::HeartRate => Some(DeviceKind::HeartRate),
        _ => None,
    })
}

fn format(service_data: &[Uuid], manufacturers: &[u16]) -> Option<&'static str> {
    let known = ADVERTISEMENTS.iter().find(|known| match known.source {
        Source::ServiceData(uuid) => service_data.contains(&uuid),
        Source::Manufacturer(company) => manufacturers.contains(&company),
    });
    known.map(|known| known.name)
}

/// Named after what it is: what it calls itself may be anything.
fn section(device: &Nearby, kind: &str, further: &str) -> Option<String> {
    let address = device.address;
    let name = address.to_string().replace(':', "").split_off(6).to_lowercase();
    let stays = !changes_its_address(device);
    stays.then(|| format!("[[device]]\nname = \"{kind}-{name}\"\nkind = \"{kind}\"\naddress = \"{address}\"\n{further}"))
}

/// A random address is a static one if its two highest bits say so (Core 5.4, vol. 6 B 1.3.2). BlueZ shows the real one of
/// a device that is bonded.
fn changes_its_address(device: &Nearby) -> bool {
    let [first, ..] = device.address.octets();
    device.address_type == "random" && first >> 6 != 0b11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, Loaded, load, parse};
    use crate::gatt::Advertisement;
    use crate::profile::Match;

    fn device(services: &[u16]) -> Nearby {
        Nearby {
            address: "C0:FF:EE:00:2A:1B".parse().unwrap(),
            address_type: "random".to_owned(),
            name: None,
            rssi: Some(-60),
            services: services.iter().map(|short| gatt::sig_uuid(*short)).collect(),
            service_data: vec![],
            manufacturers: vec![],
            connected: false,
            paired: false,
        }
    }

    #[test]
    fn every_kind_is_recognised_by_its_service_and_its_section_is_a_right_config() {
        let library = Library::shipped().unwrap();
        for kind in gatt::device_kinds() {
            let recognised = recognise(&Nearby { services: kind.services.to_vec(), ..device(&[]) }, &library).unwrap();
            assert_eq!(recognised.what, kind.name);
            let text = format!("[gateway]\nid = \"gw\"\n\n{}", recognised.section.unwrap());
            let loaded = parse(&text, "bedrail.toml", &Env::default()).unwrap_or_else(|errors| panic!("{text}: {errors}"));
            assert_eq!(loaded.settings.devices[0].kind.name(), kind.name);
            assert!(loaded.later.is_empty(), "{text}");
        }
        assert_eq!(recognise(&device(&[0x180D, 0x1822]), &library).unwrap().what, "pulse-oximeter");
        assert_eq!(recognise(&device(&[0x180F, 0x180A]), &library), None);
    }

    #[test]
    fn a_device_with_a_profile_is_recognised_by_it() {
        let library = Library::shipped().unwrap();
        let named = |name: &str| Nearby { name: Some(name.to_owned()), ..device(&[0x181D]) };
        let scale = recognise(&named("A&D_UC-352BLE_1A2B"), &library).unwrap();
        assert_eq!(scale.what, "and-uc352ble");
        let section = scale.section.unwrap();
        let wanted =
            "kind = \"weight-scale\"\naddress = \"C0:FF:EE:00:2A:1B\"\nprofile = \"and-uc352ble\"\nbond = \"just-works\"\n";
        assert!(section.ends_with(wanted), "{section}");
        assert_eq!(recognise(&named("Scale"), &library).unwrap().what, "weight-scale");
        let advertises = Nearby { service_data: vec![gatt::sig_uuid(0x181B)], ..device(&[0x181B]) };
        let section = recognise(&advertises, &library).unwrap().section.unwrap();
        assert!(section.ends_with("profile = \"xiaomi-mibcs\"\n"), "{section}");
    }

    /// As `bedrail check` reads it, profiles included.
    fn is_right(section: &str) -> bool {
        let site = tempfile::tempdir().unwrap();
        let file = site.path().join("bedrail.toml");
        let radio = format!("[radio]\nprofiles = {:?}\n", site.path().join("profiles.d"));
        std::fs::write(&file, format!("[gateway]\nid = \"gw\"\n{radio}{section}")).unwrap();
        let loaded = load(&file).and_then(Loaded::sound).unwrap_or_else(|errors| panic!("{section}: {errors}"));
        loaded.later.is_empty() && loaded.settings.devices.len() == 1
    }

    #[test]
    fn the_section_of_every_profile_is_a_right_config() {
        let library = Library::shipped().unwrap();
        for known in library.iter() {
            for rule in &known.profile.matches {
                let nothing = device(&[]);
                let shown = match rule.clone() {
                    Match::NamePrefix(name) => Nearby { name: Some(name), ..nothing },
                    Match::Service(uuid) => Nearby { services: vec![uuid], ..nothing },
                    Match::ServiceData(uuid) => Nearby { service_data: vec![uuid], ..nothing },
                    Match::Manufacturer(company) => Nearby { manufacturers: vec![company], ..nothing },
                    Match::Model(_) => continue,
                };
                let section = recognise(&shown, &library).unwrap().section.unwrap_or_else(|| panic!("{rule:?}"));
                assert!(section.contains("profile = ") && is_right(&section), "{section}");
            }
        }
    }

    #[test]
    fn what_is_advertised_has_a_section_where_it_says_what_the_device_is_and_is_never_encrypted() {
        let advertising = |format: &Advertisement| match format.source {
            Source::ServiceData(uuid) => Nearby { service_data: vec![uuid], ..device(&[]) },
            Source::Manufacturer(company) => Nearby { manufacturers: vec![company], ..device(&[]) },
        };
        let recognised = ADVERTISEMENTS.iter().map(|format| recognise(&advertising(format), &Library::default()).unwrap());
        let mut offered = vec![];
        for Recognised { what, section } in recognised {
            if let Some(section) = section {
                assert!(section.ends_with(&format!("advert = \"{what}\"\n")) && is_right(&section), "{section}");
                offered.push(what);
            }
        }
        assert_eq!(offered, ["xoss_adv"]);
    }

    #[test]
    fn an_address_that_changes_is_not_offered_for_the_config() {
        let library = Library::shipped().unwrap();
        for (address, kind, offered) in [
            ("C0:FF:EE:00:2A:1B", "random", true),
            ("40:FF:EE:00:2A:1B", "random", false),
            ("00:FF:EE:00:2A:1B", "random", false),
            ("40:FF:EE:00:2A:1B", "public", true),
        ] {
            let device = Nearby { address: address.parse().unwrap(), address_type: kind.to_owned(), ..device(&[0x180D]) };
            assert_eq!(recognise(&device, &library).unwrap().section.is_some(), offered, "{address} {kind}");
        }
    }
}
