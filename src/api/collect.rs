//! What the collect half answers, and what people may ask of its radio.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Actor;
use crate::collect::{Action, Audit, CollectStatus};
use crate::radio::{Nearby, Requests, What};
use crate::reading::DeviceId;

/// No request of this half is larger.
const MAX_BODY: usize = 4 << 10;
/// Of the 2 s there are for an answer: for the audit trail, for the radio, and for noting what the radio refused.
const AUDIT_LIMIT: Duration = Duration::from_secs(1);
const RADIO_LIMIT: Duration = Duration::from_millis(600);
const NOTE_LIMIT: Duration = Duration::from_millis(200);
/// Nobody stands by a device for longer.
pub const MOST_SECONDS: u64 = 600;

#[derive(Clone)]
pub struct CollectState {
    pub status: watch::Receiver<CollectStatus>,
    pub radio: Requests,
    /// The configured devices.
    pub devices: Arc<BTreeMap<String, DeviceId>>,
    pub audit: Audit,
}

pub fn router(state: CollectState) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/devices/{name}/pair", post(pair))
        .route("/v1/devices/{name}/forget", post(forget))
        .route("/v1/nearby", get(nearby))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

/// While there is no radio: the status, and to anything else why not.
pub fn router_without_radio(status: CollectStatus, why: String) -> Router {
    let told = get(move || std::future::ready(Json(status.clone())));
    let refused = move || std::future::ready((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": why }))));
    Router::new().route("/v1/status", told).fallback(refused)
}

async fn status(State(state): State<CollectState>) -> Json<CollectStatus> {
    Json(state.status.borrow().clone())
}

/// A device nearby, and what the config calls it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    #[serde(flatten)]
    pub device: Nearby,
    pub configured: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PairBody {
    /// How long whoever asks stands by the device.
    seconds: u64,
}

async fn pair(
    State(state): State<CollectState>,
    Actor(actor): Actor,
    Path(name): Path<String>,
    Json(PairBody { seconds }): Json<PairBody>,
) -> Response {
    if !(1..=MOST_SECONDS).contains(&seconds) {
        return refused(StatusCode::BAD_REQUEST, &format!("stand by the device for 1 to {MOST_SECONDS} seconds"));
    }
    state.act(actor, "pair", name, What::Pair(Duration::from_secs(seconds))).await
}

async fn forget(State(state): State<CollectState>, Actor(actor): Actor, Path(name): Path<String>) -> Response {
    state.act(actor, "forget", name, What::Forget).await
}

async fn nearby(State(state): State<CollectState>) -> Response {
    if let Some(refusal) = state.without_adapter() {
        return refusal;
    }
    match timeout(AUDIT_LIMIT + RADIO_LIMIT, state.radio.nearby()).await {
        Ok(Ok(found)) => Json(found.into_iter().map(|device| state.listed(device)).collect::<Vec<_>>()).into_response(),
        Ok(Err(error)) => refused(StatusCode::CONFLICT, &error.to_string()),
        Err(_) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "bluetoothd does not answer; `bedrail status` says what is done about it")
        }
    }
}

/// Puts it into the audit trail, or says why it is not to be done.
#[allow(clippy::result_large_err)]
pub(super) async fn audited(audit: &Audit, action: Action) -> Result<(), Response> {
    match timeout(AUDIT_LIMIT, audit.write(action)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refused(StatusCode::CONFLICT, &error.to_string())),
        Err(_) => {
            let message = "the log did not take the audit row in time, so nothing was done; try again";
            Err(refused(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

impl CollectState {
    /// Audits it, then has the radio do it. The answer says how often the bond had changed before, by which whoever waits for
    /// what comes of it tells the new from the old.
    async fn act(&self, actor: String, action: &'static str, name: String, what: What) -> Response {
        let Some(&device) = self.devices.get(&name) else {
            return unknown(&name);
        };
        if let Some(refusal) = self.without_adapter() {
            return refusal;
        }
        let entry = |detail: String| Action { actor: actor.clone(), action, object: name.clone(), detail };
        if let Err(refusal) = audited(&self.audit, entry("asked".to_owned())).await {
            return refusal;
        }
        let before = self.bond_changes(device);
        match timeout(RADIO_LIMIT, self.radio.ask(device, what)).await {
            Ok(Err(error)) => {
                // That it was asked is in the trail in any case.
                let _ = timeout(NOTE_LIMIT, self.audit.write(entry(format!("refused: {error}")))).await;
                refused(StatusCode::CONFLICT, &error.to_string())
            }
            // BlueZ may take longer: what comes of it is in the status.
            Ok(Ok(())) | Err(_) => Json(json!({ "bond_changes": before })).into_response(),
        }
    }

    /// Why no device can be heard. Just after a start that is not known yet.
    fn without_adapter(&self) -> Option<Response> {
        let adapter = self.status.borrow().adapter.clone();
        let unusable = !adapter.usable && !adapter.detail.is_empty();
        unusable.then(|| refused(StatusCode::CONFLICT, &format!("no device can be heard: {}", adapter.detail)))
    }

    fn bond_changes(&self, device: DeviceId) -> u64 {
        let (status, address) = (self.status.borrow(), device.to_string());
        status.devices.iter().find(|device| device.address == address).map_or(0, |device| device.bond_changes)
    }

    fn listed(&self, device: Nearby) -> Listed {
        let configured = self.devices.iter().find(|(_, id)| **id == device.address).map(|(name, _)| name.clone());
        Listed { device, configured }
    }
}

pub(super) fn unknown(device: &str) -> Response {
    refused(StatusCode::NOT_FOUND, &format!("the config has no device \"{device}\"; `bedrail devices` lists those it has"))
}

pub(super) fn refused(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({ "error": message }))).into_response()
}
