//! Announces gateway and devices to a Home Assistant (MQTT discovery): one retained config an entity, which says where in
//! bedrail's own topics its state is. Nothing here is a measured value of a patient.
//!
//! Source of the rules: homeassistant.components.mqtt, whose schemas `make long-ha` holds these configs against.

use serde::Serialize;

use super::{Notice, Topics};
use crate::reading::DeviceId;

/// A device of the config.
#[derive(Clone, Debug)]
pub struct Announced {
    pub name: String,
    pub kind: &'static str,
    pub id: DeviceId,
}

/// The configs, under `prefix`, which is Home Assistant's own setting.
pub fn discovery(prefix: &str, topics: &Topics, gateway: &str, devices: &[Announced]) -> Vec<Notice> {
    let gateway_topic = topics.gateway(gateway);
    let node = format!("bedrail_{}", plain(gateway));
    let owner = Owner {
        identifiers: [node.clone()],
        name: format!("bedrail {gateway}"),
        manufacturer: "bedrail",
        model: "gateway",
        sw_version: Some(env!("CARGO_PKG_VERSION")),
        via_device: None,
    };
    let of_gateway =
        Source { prefix, node: &node, object: "", state_topic: &gateway_topic, availability: &gateway_topic, owner: &owner };
    let mut notices = vec![of_gateway.notice(&CONNECTION_OF_GATEWAY), of_gateway.notice(&PROBLEM), of_gateway.notice(&UPDATED)];
    for device in devices {
        let id = device.id.to_string().replace(':', "").to_lowercase();
        let owner = Owner {
            identifiers: [format!("{node}_{id}")],
            name: device.name.clone(),
            manufacturer: "bedrail",
            model: device.kind,
            sw_version: None,
            via_device: Some(&node),
        };
        let state_topic = topics.device(gateway, &device.name);
        let source =
            Source { prefix, node: &node, object: &id, state_topic: &state_topic, availability: &gateway_topic, owner: &owner };
        notices.extend([CONNECTION, PROBLEM, BATTERY, LAST_READING].iter().map(|entity| source.notice(entity)));
    }
    notices
}

/// One thing to be shown.
struct Entity {
    component: &'static str,
    /// Part of topic and id.
    object: &'static str,
    name: &'static str,
    device_class: &'static str,
    state_class: Option<&'static str>,
    unit: Option<&'static str>,
    template: &'static str,
    attributes: Option<&'static str>,
    /// It is unavailable while the gateway is offline.
    available: bool,
}

const CONNECTION_OF_GATEWAY: Entity =
    Entity { template: "{{ 'ON' if value_json.state == 'online' else 'OFF' }}", available: false, ..CONNECTION };

const CONNECTION: Entity = Entity {
    component: "binary_sensor",
    object: "connection",
    name: "Connection",
    device_class: "connectivity",
    state_class: None,
    unit: None,
    template: "{{ 'ON' if value_json.state == 'connected' else 'OFF' }}",
    attributes: None,
    available: true,
};

const PROBLEM: Entity = Entity {
    object: "problem",
    name: "Problem",
    device_class: "problem",
    template: "{{ 'ON' if value_json.conditions | default([]) else 'OFF' }}",
    attributes: Some("{{ {'conditions': value_json.conditions | default([])} | tojson }}"),
    ..CONNECTION
};

/// `None` is how a sensor is told that nothing is known.
const UPDATED: Entity = Entity {
    component: "sensor",
    object: "updated",
    name: "Last report",
    device_class: "timestamp",
    template: "{{ value_json.updated_at | default(None) }}",
    ..CONNECTION
};

const LAST_READING: Entity = Entity {
    object: "last_reading",
    name: "Last reading",
    template: "{{ value_json.last_reading_at | default(None) }}",
    ..UPDATED
};

const BATTERY: Entity = Entity {
    object: "battery",
    name: "Battery",
    device_class: "battery",
    state_class: Some("measurement"),
    unit: Some("%"),
    template: "{{ value_json.battery_percent | default(None) }}",
    ..UPDATED
};

/// Where an entity's state comes from and whose it is.
struct Source<'s> {
    prefix: &'s str,
    node: &'s str,
    object: &'s str,
    state_topic: &'s str,
    availability: &'s str,
    owner: &'s Owner<'s>,
}

impl Source<'_> {
    fn notice(&self, entity: &Entity) -> Notice {
        let object = [self.object, entity.object].join("_");
        let object = object.trim_start_matches('_');
        let availability = Availability {
            topic: self.availability,
            value_template: "{{ value_json.state }}",
            payload_available: "online",
            payload_not_available: "offline",
        };
        let config = Config {
            unique_id: format!("{}_{object}", self.node),
            name: entity.name,
            state_topic: self.state_topic,
            value_template: entity.template,
            device_class: entity.device_class,
            state_class: entity.state_class,
            unit_of_measurement: entity.unit,
            json_attributes_topic: entity.attributes.map(|_| self.state_topic),
            json_attributes_template: entity.attributes,
            entity_category: "diagnostic",
            availability: entity.available.then_some([availability]),
            device: self.owner,
            origin: Origin { name: "bedrail", sw_version: env!("CARGO_PKG_VERSION") },
        };
        let topic = format!("{}/{}/{}/{object}/config", self.prefix, entity.component, self.node);
        Notice { topic: topic.into(), payload: serde_json::to_vec(&config).expect("text serialises").into(), stamp: 0 }
    }
}

#[derive(Serialize)]
struct Config<'c> {
    unique_id: String,
    name: &'c str,
    state_topic: &'c str,
    value_template: &'c str,
    device_class: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_class: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_of_measurement: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_attributes_topic: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_attributes_template: Option<&'c str>,
    entity_category: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability: Option<[Availability<'c>; 1]>,
    device: &'c Owner<'c>,
    origin: Origin<'c>,
}

#[derive(Serialize)]
struct Availability<'a> {
    topic: &'a str,
    value_template: &'a str,
    payload_available: &'a str,
    payload_not_available: &'a str,
}

#[derive(Serialize)]
struct Owner<'o> {
    identifiers: [String; 1],
    name: String,
    manufacturer: &'o str,
    model: &'o str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sw_version: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via_device: Option<&'o str>,
}

#[derive(Serialize)]
struct Origin<'o> {
    name: &'o str,
    sw_version: &'o str,
}

/// Letters, digits, `_` and `-` are all that ids in discovery topics may hold; two names stay two.
fn plain(name: &str) -> String {
    name.replace('_', "__").replace('.', "_-")
}
