//! What the collect half answers.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::watch;

use crate::collect::CollectStatus;

pub fn router(status: watch::Receiver<CollectStatus>) -> Router {
    Router::new().route("/v1/status", get(answer)).with_state(status)
}

async fn answer(State(status): State<watch::Receiver<CollectStatus>>) -> Json<CollectStatus> {
    Json(status.borrow().clone())
}
