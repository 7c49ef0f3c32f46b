//! The FHIR R4 shapes that are sent, as far as they are used. Field order is the order on the wire. There is no field for a
//! modifier extension: some servers refuse any resource that has one.

use serde::Serialize;

use crate::deliver::json::{Number, Time};

pub const LOINC: &str = "http://loinc.org";
pub const MDC: &str = "urn:iso:std:iso:11073:10101";
pub const UCUM: &str = "http://unitsofmeasure.org";
pub const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
pub const PHD_CATEGORY: &str = "http://hl7.org/fhir/uv/phd/CodeSystem/PhdObservationCategories";
pub const ABSENT: &str = "http://terminology.hl7.org/CodeSystem/data-absent-reason";
pub const STATISTICS: &str = "http://terminology.hl7.org/CodeSystem/observation-statistics";
/// The guides for personal and for acute devices differ in this URL since 2026-03; this is what the former asks for.
pub const MEASUREMENT_STATUS: &str = "http://hl7.org/fhir/uv/pocd/CodeSystem/measurement-status";
pub const STATUS_BITS: &str = "http://terminology.hl7.org/CodeSystem/ASN1ToHL7";
pub const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
pub const GATEWAY_DEVICE: &str = "http://hl7.org/fhir/StructureDefinition/observation-gatewayDevice";
pub const COINCIDENT_TIME: &str = "http://hl7.org/fhir/uv/phd/StructureDefinition/CoincidentTimeStampReference";
pub const US_CORE: &str = "http://hl7.org/fhir/us/core/StructureDefinition/";
pub const PHD: &str = "http://hl7.org/fhir/uv/phd/StructureDefinition/";

#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    pub resource_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contained: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extension: Vec<Extension>,
    pub identifier: Vec<Identifier>,
    pub status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<CodeableConcept>,
    pub code: CodeableConcept,
    pub subject: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encounter: Option<Reference>,
    #[serde(flatten)]
    pub effective: Effective,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_absent_reason: Option<CodeableConcept>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interpretation: Vec<CodeableConcept>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub note: Vec<Annotation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub derived_from: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub component: Vec<ObservationComponent>,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub enum Effective {
    #[serde(rename = "effectiveDateTime")]
    At(Time),
    #[serde(rename = "effectivePeriod")]
    Period { start: Time, end: Time },
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub enum Value {
    #[serde(rename = "valueQuantity")]
    Quantity(Quantity),
    #[serde(rename = "valueInteger")]
    Integer(u32),
    #[serde(rename = "valueBoolean")]
    Boolean(bool),
    #[serde(rename = "valueCodeableConcept")]
    Concept(CodeableConcept),
    #[serde(rename = "valueSampledData")]
    Samples(SampledData),
    #[serde(rename = "valueDateTime")]
    DateTime(Time),
}

#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservationComponent {
    pub code: CodeableConcept,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_absent_reason: Option<CodeableConcept>,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Meta {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security: Vec<Coding>,
}

impl Meta {
    fn is_empty(&self) -> bool {
        self.profile.is_empty() && self.security.is_empty()
    }
}

#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    pub url: &'static str,
    pub value_reference: Reference,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Identifier {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<CodeableConcept>,
    pub system: String,
    pub value: String,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
}

impl Reference {
    pub fn to(reference: &str) -> Self {
        Reference { reference: Some(reference.to_owned()), display: None }
    }
}

#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct CodeableConcept {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub coding: Vec<Coding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'static str>,
}

impl CodeableConcept {
    pub fn of(system: &'static str, code: impl Into<String>, display: Option<&'static str>) -> Self {
        CodeableConcept { coding: vec![Coding { system, code: code.into(), display }], text: None }
    }
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Coding {
    pub system: &'static str,
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Quantity {
    pub value: Number,
    pub unit: String,
    pub system: &'static str,
    pub code: &'static str,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SampledData {
    pub origin: Quantity,
    /// Milliseconds.
    pub period: Number,
    pub factor: Number,
    pub dimensions: u32,
    pub data: String,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Annotation {
    pub text: String,
}

#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub resource_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    pub identifier: Vec<Identifier>,
    pub status: &'static str,
    pub device_name: Vec<DeviceName>,
    #[serde(rename = "type")]
    pub kind: CodeableConcept,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub specialization: Vec<Specialization>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub version: Vec<DeviceVersion>,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct DeviceName {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Specialization {
    pub system_type: CodeableConcept,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct DeviceVersion {
    #[serde(rename = "type")]
    pub kind: CodeableConcept,
    pub value: String,
}
