//! The retained status of a gateway: what is at work and what waits, for whoever watches the installation. No patient is
//! in it, not even by key.

use serde::{Serialize, Serializer};

use super::topic::push_level;
use crate::reading::Timestamp;

pub const SCHEMA: &str = "bedrail.status/1";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub gateway: String,
    /// Of the program.
    pub version: String,
    pub devices: Vec<DeviceStatus>,
    pub routes: Vec<RouteStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    pub name: String,
    pub kind: String,
    /// One of the link states the radio names, such as `connected`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub last_reading_at: Option<Timestamp>,
    /// Per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub battery: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    pub name: String,
    /// Such as `up`, `retrying` or `paused`.
    pub state: String,
    /// Records that may go and have not gone.
    pub backlog: u64,
    /// Records that may not go yet.
    pub held: u64,
}

/// `bedrail/{gateway}/status`.
pub fn topic(gateway: &str) -> String {
    let mut topic = "bedrail/".to_owned();
    push_level(&mut topic, gateway);
    topic + "/status"
}

/// Published, retained, when a connection is up and whenever it changes.
pub fn online(status: &Status) -> Vec<u8> {
    let devices = Some(status.devices.as_slice());
    let routes = Some(status.routes.as_slice());
    bytes(&Payload { schema: SCHEMA, gateway: &status.gateway, version: &status.version, state: "online", devices, routes })
}

/// The last will, and the message of an orderly end. It claims nothing about devices and routes: nobody looks any more.
pub fn offline(gateway: &str, version: &str) -> Vec<u8> {
    bytes(&Payload { schema: SCHEMA, gateway, version, state: "offline", devices: None, routes: None })
}

#[derive(Serialize)]
struct Payload<'a> {
    schema: &'static str,
    gateway: &'a str,
    version: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<&'a [DeviceStatus]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<&'a [RouteStatus]>,
}

fn bytes(payload: &Payload<'_>) -> Vec<u8> {
    serde_json::to_vec(payload).expect("text and integers always serialise")
}

fn time<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_at_work_and_what_waits() {
        let status = Status {
            gateway: "3w-gw-01".into(),
            version: "0.1.0".into(),
            devices: vec![DeviceStatus {
                name: "oxi-07".into(),
                kind: "pulse-oximeter".into(),
                state: "connected".into(),
                last_reading_at: Some(Timestamp(1_774_000_000_005)),
                battery: None,
            }],
            routes: vec![RouteStatus { name: "live".into(), state: "up".into(), backlog: 12, held: 0 }],
        };
        let expected = concat!(
            r#"{"schema":"bedrail.status/1","gateway":"3w-gw-01","version":"0.1.0","state":"online","#,
            r#""devices":[{"name":"oxi-07","kind":"pulse-oximeter","state":"connected","last_reading_at":"2026-03-20T09:46:40.005Z"}],"#,
            r#""routes":[{"name":"live","state":"up","backlog":12,"held":0}]}"#
        );
        assert_eq!(String::from_utf8(online(&status)).unwrap(), expected);
    }

    #[test]
    fn the_will_claims_nothing_about_devices_and_routes() {
        assert_eq!(
            offline("3w-gw-01", "0.1.0"),
            br#"{"schema":"bedrail.status/1","gateway":"3w-gw-01","version":"0.1.0","state":"offline"}"#
        );
        assert_eq!(topic("3w/gw#1"), "bedrail/3w_gw_1/status");
    }
}
