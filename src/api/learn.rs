//! The octets of a device for a person who writes its profile, while they ask and no longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::Actor;
use super::collect::{audited, refused, unknown};
use crate::collect::{Action, Audit, MOST_S, Overhearing};
use crate::radio::BootClock;
use crate::reading::DeviceId;

/// No request here is larger.
const MAX_BODY: usize = 4 << 10;

#[derive(Clone)]
pub struct LearnState {
    pub overhearing: Overhearing,
    pub clock: BootClock,
    /// The configured devices.
    pub devices: Arc<BTreeMap<String, DeviceId>>,
    pub audit: Audit,
}

pub fn router(state: LearnState) -> Router {
    let routes = post(begin).get(fetch);
    Router::new().route("/v1/devices/{name}/octets", routes).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(state)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    seconds: u64,
}

async fn begin(
    State(state): State<LearnState>,
    Actor(actor): Actor,
    Path(name): Path<String>,
    Json(Begin { seconds }): Json<Begin>,
) -> Response {
    let Some(device) = state.devices.get(&name) else { return unknown(&name) };
    if !(1..=MOST_S).contains(&seconds) {
        return refused(StatusCode::BAD_REQUEST, &format!("listen for 1 to {MOST_S} seconds"));
    }
    let action = Action { actor, action: "profile learn", object: name, detail: format!("{seconds} s") };
    if let Err(refusal) = audited(&state.audit, action).await {
        return refusal;
    }
    match state.overhearing.begin(state.clock.now(), *device, seconds) {
        Err(busy) => {
            let message = format!("somebody listens to another device for another {} s; try again then", busy.seconds);
            refused(StatusCode::CONFLICT, &message)
        }
        Ok(()) => {
            tracing::info!(device = %device, seconds, "its octets are told to who asked");
            Json(json!({})).into_response()
        }
    }
}

async fn fetch(State(state): State<LearnState>, Path(name): Path<String>) -> Response {
    let Some(device) = state.devices.get(&name) else { return unknown(&name) };
    match state.overhearing.take(state.clock.now(), *device) {
        Some(batch) => Json(batch).into_response(),
        None => refused(StatusCode::CONFLICT, "nobody listens to this device any more"),
    }
}
