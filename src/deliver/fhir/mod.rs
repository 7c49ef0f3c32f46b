//! The FHIR route.
