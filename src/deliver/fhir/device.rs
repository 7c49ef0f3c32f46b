//! Devices of a chart: the sensor, the gateway, and the comparison of the sensor's clock with the gateway's.

use jiff::tz::TimeZone;

use super::render::{Shape, mdc};
use super::resource::{
    CodeableConcept, Device, DeviceName, DeviceVersion, Effective, Identifier, Meta, Observation, PHD, Reference, Specialization,
    Value,
};
use crate::deliver::Item;
use crate::deliver::json::Time;
use crate::reading::{ChartId, DeviceId, Timestamp};

const CONTINUA: &str = "http://terminology.hl7.org/CodeSystem/ContinuaDeviceIdentifiers";
/// The system of a Bluetooth device address, written in upper case with dashes.
pub const BLUETOOTH: &str = "http://hl7.org/fhir/sid/eui-48/bluetooth";

/// Kinds of the configuration and their device specialization (IEEE 11073-104xx).
const SPECIALIZATIONS: &[(&str, u32, &str)] = &[
    ("heart-rate", 528_425, "MDC_DEV_SPEC_PROFILE_HF_CARDIO"),
    ("thermometer", 528_392, "MDC_DEV_SPEC_PROFILE_TEMP"),
    ("blood-pressure", 528_391, "MDC_DEV_SPEC_PROFILE_BP"),
    ("pulse-oximeter", 528_388, "MDC_DEV_SPEC_PROFILE_PULS_OXIM"),
    ("weight-scale", 528_399, "MDC_DEV_SPEC_PROFILE_SCALE"),
    ("glucose-meter", 528_401, "MDC_DEV_SPEC_PROFILE_GLUCOSE"),
];

/// What people call it: its configured name, else its address.
pub fn name(item: &Item) -> String {
    item.device.as_ref().map_or_else(|| item.record.device.to_string(), |label| label.name.clone())
}

pub fn address(device: DeviceId) -> String {
    device.to_string().replace(':', "-")
}

/// The profile PhdDevice is not claimed: it wants manufacturer and model, which are not known here.
pub fn sensor(item: &Item, id: Option<&str>) -> Device {
    let kind = item.device.as_ref().map(|label| label.kind.as_str());
    let specialization = SPECIALIZATIONS
        .iter()
        .filter(|(name, ..)| kind == Some(name))
        .map(|(_, code, refid)| Specialization { system_type: CodeableConcept { coding: vec![mdc(*code, refid)], text: None } });
    Device {
        resource_type: "Device",
        id: id.map(str::to_owned),
        meta: Meta::default(),
        identifier: vec![Identifier {
            kind: Some(CodeableConcept::of(CONTINUA, "BTMAC", None)),
            system: BLUETOOTH.to_owned(),
            value: address(item.record.device),
        }],
        status: "active",
        device_name: vec![DeviceName { name: name(item), kind: "user-friendly-name" }],
        kind: CodeableConcept { coding: vec![mdc(65_573, "MDC_MOC_VMS_MDS_SIMP")], text: None },
        specialization: specialization.collect(),
        version: vec![],
    }
}

/// Found by its configured name under the route's own identifier system.
pub fn gateway(id: &str, shape: &Shape) -> Device {
    let version = CodeableConcept { coding: vec![mdc(531_975, "MDC_ID_PROD_SPEC_SW")], text: None };
    let generic = CodeableConcept { coding: vec![mdc(528_457, "MDC_DEV_SPEC_PROFILE_GENERIC")], text: None };
    Device {
        resource_type: "Device",
        id: None,
        meta: Meta { profile: if shape.phd { vec![format!("{PHD}PhgDevice")] } else { vec![] }, security: vec![] },
        identifier: vec![Identifier { kind: None, system: shape.identifier_system.clone(), value: id.to_owned() }],
        status: "active",
        device_name: vec![DeviceName { name: id.to_owned(), kind: "user-friendly-name" }],
        kind: CodeableConcept { coding: vec![mdc(531_981, "MDC_MOC_VMS_MDS_AHD")], text: None },
        specialization: vec![Specialization { system_type: generic }],
        version: vec![DeviceVersion { kind: version, value: env!("CARGO_PKG_VERSION").to_owned() }],
    }
}

/// What the sensor's clock, in its `zone`, showed when the gateway's showed `compared`, for a value whose time was moved by it. It is about
/// the sensor, and never about a patient.
pub fn clock(
    item: &Item,
    shape: &Shape,
    zone: &TimeZone,
    compared: Timestamp,
    sensor: &str,
    gateway: &str,
) -> Option<Observation> {
    let (shown, read_at) = item.record.stamp.device_clock?;
    let of_boot = [item.record.stamp.boot.0.as_slice(), &item.record.device.octets(), &read_at.0.to_be_bytes()].concat();
    let id = ChartId::of_clock(&of_boot).to_string();
    Some(Observation {
        resource_type: "Observation",
        id: shape.own_ids.then(|| id.clone()),
        meta: Meta {
            profile: if shape.phd { vec![format!("{PHD}PhdCoincidentTimeStampObservation")] } else { vec![] },
            security: vec![],
        },
        contained: vec![],
        extension: vec![],
        identifier: vec![Identifier { kind: None, system: shape.identifier_system.clone(), value: id }],
        status: "final",
        category: vec![],
        code: CodeableConcept { coding: vec![mdc(67_975, "MDC_ATTR_TIME_ABS")], text: None },
        subject: Reference::to(sensor),
        encounter: None,
        effective: Effective::At(Time(compared)),
        value: Some(Value::DateTime(Time(shown.in_zone(zone)?))),
        data_absent_reason: None,
        interpretation: vec![],
        note: vec![],
        device: Some(Reference::to(gateway)),
        derived_from: vec![],
        component: vec![],
    })
}
