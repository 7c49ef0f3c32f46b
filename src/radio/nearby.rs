//! What is to be heard nearby, from the list of BlueZ's objects. Pure. It is told to who asks and written nowhere: the list
//! holds the phones of the ward.

use std::collections::HashMap;

use uuid::Uuid;
use zbus::OwnedObjectPath;

use super::bluez::DEVICE;
use super::watch::{Interfaces, Properties, flag, text};
use crate::reading::DeviceId;

/// A place full of people has hundreds of devices in the air; nobody reads a longer table.
pub const MAX_NEARBY: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearby {
    pub address: DeviceId,
    /// `public` or `random`.
    pub address_type: String,
    pub name: Option<String>,
    /// Absent for one that is known and not heard now.
    pub rssi: Option<i16>,
    pub services: Vec<Uuid>,
    pub connected: bool,
    pub paired: bool,
}

/// The strongest first.
pub fn nearby(objects: &HashMap<OwnedObjectPath, Interfaces>) -> Vec<Nearby> {
    let devices = objects.values().filter_map(|interfaces| interfaces.get(DEVICE));
    let mut found: Vec<Nearby> = devices.filter_map(device).collect();
    found.sort_by_key(|device| (std::cmp::Reverse(device.rssi), device.address));
    found.truncate(MAX_NEARBY);
    found
}

fn device(properties: &Properties) -> Option<Nearby> {
    let services: Vec<String> =
        properties.get("UUIDs").and_then(|value| value.try_clone().ok()?.try_into().ok()).unwrap_or_default();
    Some(Nearby {
        address: text(properties, "Address")?.parse().ok()?,
        address_type: text(properties, "AddressType").unwrap_or("unknown").to_owned(),
        name: text(properties, "Name").map(str::to_owned),
        rssi: properties.get("RSSI").and_then(|value| value.downcast_ref::<i16>().ok()),
        services: services.iter().filter_map(|uuid| uuid.parse().ok()).collect(),
        connected: flag(properties, "Connected").unwrap_or(false),
        paired: flag(properties, "Paired").unwrap_or(false),
    })
}
