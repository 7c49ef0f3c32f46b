//! The FHIR route: Observations a chart keeps. `client` and `send` are the shell; everything else is pure.

mod answer;
mod auth;
mod beside;
mod chart;
mod client;
mod device;
mod flow;
mod found;
mod known;
mod outcome;
mod render;
mod request;
mod resource;
mod send;

pub use answer::{Answer, Content, Details, Head, Issue, LONGEST_WAIT};
pub use auth::{Algorithm, Auth, AuthError, ClientSecret, SmartClient, Token as AccessToken, token_endpoint};
pub use chart::{Category, ChartMap, ChartRow, Charted, chart_row, label};
pub use client::{Base, FhirClient, Way};
pub use device::{BLUETOOTH, address, clock, gateway, sensor};
pub use flow::{Amend, AskId, DeviceMode, Flow, Persons, Said, UNDER_WAY, Wishes};
pub use found::{Existing, Found, Person};
pub use outcome::{Asked, Outcome, Pace, outcome};
pub use render::{DeviceSaid, NotCharted, References, Rendered, Revision, Shape, render};
pub use request::{Create, Entry, Form, Method, Request};
pub use resource::{Device, Observation};
pub use send::FhirDestination;
