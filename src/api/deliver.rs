//! What the deliver half answers, and what people may ask of it. Each request goes to the desk, one after the other.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::Actor;
use crate::deliver::{DeskError, DeskRequest, RouteStatus, Target};
use crate::monitor::ListedCondition;
use crate::reading::{Seq, SubjectKey, Timestamp, UserIndex};
use crate::ward::{CensusFormat, MAX_CENSUS, Phi};

/// A little more than the largest identity document.
const MAX_BODY: usize = 128 << 10;

/// As of any other name.
const MAX_STATION_NAME: usize = 64;

#[derive(Clone)]
pub struct DeliverState {
    pub desk: mpsc::Sender<(DeskRequest, oneshot::Sender<Result<Value, DeskError>>)>,
    pub conditions: watch::Receiver<Vec<ListedCondition>>,
}

pub fn router(state: DeliverState) -> Router {
    Router::new()
        .route("/v1/status", get(routes))
        .route("/v1/assignments", get(who_is_where).post(assign).delete(unassign))
        .route("/v1/patients", get(patients))
        .route("/v1/patients/{key}", put(set_patient).delete(forget_patient))
        .route("/v1/devices/{name}/replace", post(replace_device))
        .route("/v1/devices/{name}/retire", post(retire_device))
        .route("/v1/devices/{name}/clean", post(clean_device))
        .route("/v1/conditions", get(conditions))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/{name}", axum::routing::delete(drop_route))
        .route("/v1/routes/{name}/pause", post(pause_route))
        .route("/v1/routes/{name}/resume", post(resume_route))
        .route("/v1/routes/{name}/replay", post(replay_route))
        .route("/v1/held", get(held))
        .route("/v1/held/{route}/{seq}", get(held_run).post(name_held))
        .route("/v1/records/{seq}", get(record))
        .route("/v1/records/named/{id}", get(find_record))
        .route("/v1/census", post(census).layer(DefaultBodyLimit::max(MAX_CENSUS + 1)))
        .route("/v1/census/{n}", post(confirm_census))
        .route("/v1/scans", post(scan))
        .route("/v1/decisions", get(decisions))
        .route("/v1/decisions/{route}/{seq}", post(decide))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/v1/dead-letters/{route}/{seq}", get(dead_letter))
        .route("/v1/dead-letters/{route}/retry", post(retry_letters))
        .route("/v1/dead-letters/{route}/drop", post(drop_letters))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

/// While there is no desk: the routes as they are given, and to anything else why not.
pub fn router_without_desk(routes: Vec<RouteStatus>, why: String) -> Router {
    let listed = get(move || std::future::ready(Json(routes.clone())));
    let refused = move || std::future::ready((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": why }))));
    Router::new().route("/v1/status", listed.clone()).route("/v1/routes", listed).fallback(refused)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssignmentBody {
    device: Option<String>,
    user: Option<UserIndex>,
    bed: Option<String>,
    patient: Option<SubjectKey>,
    #[serde(default)]
    spot: bool,
    at: Option<String>,
    yes: Option<u64>,
}

impl AssignmentBody {
    #[allow(clippy::result_large_err, reason = "a refusal is the answer itself")]
    fn target(&self) -> Result<Target, Response> {
        match (&self.device, &self.bed) {
            (Some(name), None) if self.spot && self.user.is_none() => Ok(Target::Spot(name.clone())),
            _ if self.spot => Err(bad_request("a shared device has no user slots and no bed; name the device alone")),
            (Some(name), None) => Ok(Target::Device { name: name.clone(), user: self.user }),
            (None, Some(bed)) => Ok(Target::Bed(bed.clone())),
            _ => Err(bad_request("name either a device or a bed")),
        }
    }
}

async fn assign(State(state): State<DeliverState>, Actor(actor): Actor, Json(body): Json<AssignmentBody>) -> Response {
    let (target, from) = match (body.target(), time(body.at.as_deref())) {
        (Ok(target), Ok(from)) => (target, from),
        (Err(refusal), _) | (_, Err(refusal)) => return refusal,
    };
    let Some(patient) = body.patient else { return bad_request("name a patient by key") };
    state.ask(DeskRequest::Assign { target, patient, from, yes: body.yes, actor }).await
}

async fn unassign(State(state): State<DeliverState>, Actor(actor): Actor, Json(body): Json<AssignmentBody>) -> Response {
    match (body.target(), time(body.at.as_deref())) {
        (Ok(target), Ok(at)) => state.ask(DeskRequest::Unassign { target, at, yes: body.yes, actor }).await,
        (Err(refusal), _) | (_, Err(refusal)) => refusal,
    }
}

#[derive(Deserialize)]
struct At {
    at: Option<String>,
}

async fn who_is_where(State(state): State<DeliverState>, Query(query): Query<At>) -> Response {
    match time(query.at.as_deref()) {
        Ok(at) => state.ask(DeskRequest::WhoIsWhere { at }).await,
        Err(refusal) => refusal,
    }
}

async fn patients(State(state): State<DeliverState>) -> Response {
    state.ask(DeskRequest::Patients).await
}

async fn set_patient(State(state): State<DeliverState>, Actor(actor): Actor, Path(key): Path<String>, body: Bytes) -> Response {
    match key.parse() {
        Ok(key) => state.ask(DeskRequest::SetPatient { key, document: Phi::new(body.to_vec()), actor }).await,
        Err(error) => bad_request(&format!("{error}")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    yes: Option<u64>,
}

async fn forget_patient(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(key): Path<String>,
    Query(Confirmed { yes }): Query<Confirmed>,
) -> Response {
    match key.parse() {
        Ok(key) => state.ask(DeskRequest::ForgetPatient { key, yes, actor }).await,
        Err(error) => bad_request(&format!("{error}")),
    }
}

async fn routes(State(state): State<DeliverState>) -> Response {
    state.ask(DeskRequest::Routes).await
}

async fn conditions(State(state): State<DeliverState>) -> Json<Vec<ListedCondition>> {
    Json(state.conditions.borrow().clone())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    reason: Option<String>,
}

async fn pause_route(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(name): Path<String>,
    Json(body): Json<PauseBody>,
) -> Response {
    let reason = body.reason.unwrap_or_else(|| format!("paused by {actor}"));
    state.ask(DeskRequest::PauseRoute { name, reason, actor }).await
}

async fn resume_route(State(state): State<DeliverState>, Actor(actor): Actor, Path(name): Path<String>) -> Response {
    state.ask(DeskRequest::ResumeRoute { name, actor }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    from: String,
    to: String,
}

async fn replay_route(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(name): Path<String>,
    Json(body): Json<ReplayBody>,
) -> Response {
    match (time(Some(&body.from)), time(Some(&body.to))) {
        (Ok(Some(from)), Ok(Some(to))) => state.ask(DeskRequest::ReplayRoute { name, from, to, actor }).await,
        (Err(refusal), _) | (_, Err(refusal)) => refusal,
        _ => bad_request("name both ends of the time to replay"),
    }
}

async fn drop_route(State(state): State<DeliverState>, Actor(actor): Actor, Path(name): Path<String>) -> Response {
    state.ask(DeskRequest::DropRoute { name, actor }).await
}

async fn held(State(state): State<DeliverState>) -> Response {
    state.ask(DeskRequest::Held).await
}

async fn held_run(State(state): State<DeliverState>, Path((route, seq)): Path<(String, u64)>) -> Response {
    state.ask(DeskRequest::HeldRun { route, seq: Seq(seq) }).await
}

async fn record(State(state): State<DeliverState>, Path(seq): Path<u64>) -> Response {
    state.ask(DeskRequest::Record { seq: Seq(seq) }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Below {
    below: Option<u64>,
}

async fn find_record(State(state): State<DeliverState>, Path(id): Path<String>, Query(query): Query<Below>) -> Response {
    match id.parse() {
        Ok(id) => state.ask(DeskRequest::FindRecord { id, below: query.below.map(Seq) }).await,
        Err(_) => bad_request("a record id is 32 hexadecimal digits"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameBody {
    /// Absent: nobody's.
    patient: Option<SubjectKey>,
}

async fn name_held(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path((route, seq)): Path<(String, u64)>,
    Json(NameBody { patient }): Json<NameBody>,
) -> Response {
    state.ask(DeskRequest::NameHeld { route, seq: Seq(seq), patient, actor }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CensusQuery {
    format: Option<String>,
}

async fn census(State(state): State<DeliverState>, Query(query): Query<CensusQuery>, body: Bytes) -> Response {
    let format = match query.format.as_deref() {
        None | Some("csv") => CensusFormat::Csv,
        Some("ndjson") => CensusFormat::Ndjson,
        Some(_) => return bad_request("`format` is csv or ndjson"),
    };
    state.ask(DeskRequest::Census { file: Phi::new(body.to_vec().into()), format }).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ConfirmBody {
    #[serde(default)]
    yes: u64,
}

async fn confirm_census(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(n): Path<u64>,
    Json(ConfirmBody { yes }): Json<ConfirmBody>,
) -> Response {
    state.ask(DeskRequest::ConfirmCensus { n, yes, actor }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScanBody {
    station: String,
    code: String,
}

async fn scan(State(state): State<DeliverState>, Actor(actor): Actor, body: Bytes) -> Response {
    // The parser's own message might quote the code.
    let Ok(ScanBody { station, code }) = serde_json::from_slice(&body) else {
        return bad_request("a scan is {\"station\": NAME, \"code\": TEXT}");
    };
    if station.is_empty() || station.len() > MAX_STATION_NAME {
        return bad_request("a station has a name of at most 64 octets");
    }
    state.ask(DeskRequest::Scan { station, code: Phi::new(code), actor }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceBody {
    by: String,
}

async fn replace_device(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(old): Path<String>,
    Json(ReplaceBody { by }): Json<ReplaceBody>,
) -> Response {
    state.ask(DeskRequest::Replace { old, new: by, actor }).await
}

async fn retire_device(State(state): State<DeliverState>, Actor(actor): Actor, Path(device): Path<String>) -> Response {
    state.ask(DeskRequest::Retire { device, actor }).await
}

async fn clean_device(State(state): State<DeliverState>, Actor(actor): Actor, Path(device): Path<String>) -> Response {
    state.ask(DeskRequest::Clean { device, actor }).await
}

async fn decisions(State(state): State<DeliverState>) -> Response {
    state.ask(DeskRequest::Decisions).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecideBody {
    accept: bool,
}

async fn decide(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path((route, seq)): Path<(String, u64)>,
    Json(DecideBody { accept }): Json<DecideBody>,
) -> Response {
    state.ask(DeskRequest::Decide { route, seq: Seq(seq), accept, actor }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LettersQuery {
    route: Option<String>,
    from: Option<String>,
    limit: Option<usize>,
}

async fn dead_letters(State(state): State<DeliverState>, Query(query): Query<LettersQuery>) -> Response {
    let LettersQuery { route, from, limit } = query;
    match from.map(|text| text.parse()).transpose() {
        Ok(from) => state.ask(DeskRequest::DeadLetters { route, from, limit: limit.unwrap_or(usize::MAX) }).await,
        Err(_) => bad_request("`from` is what `next` of the page before said"),
    }
}

async fn dead_letter(State(state): State<DeliverState>, Path((route, seq)): Path<(String, u64)>) -> Response {
    state.ask(DeskRequest::DeadLetter { route, seq: Seq(seq) }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LettersBody {
    seqs: Vec<Seq>,
    yes: Option<u64>,
}

async fn retry_letters(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(route): Path<String>,
    Json(body): Json<LettersBody>,
) -> Response {
    state.ask(DeskRequest::RetryLetters { route, seqs: body.seqs, actor }).await
}

async fn drop_letters(
    State(state): State<DeliverState>,
    Actor(actor): Actor,
    Path(route): Path<String>,
    Json(body): Json<LettersBody>,
) -> Response {
    let Some(yes) = body.yes else { return bad_request("say by `yes` how many records are given up") };
    state.ask(DeskRequest::DropLetters { route, seqs: body.seqs, yes, actor }).await
}

impl DeliverState {
    async fn ask(&self, request: DeskRequest) -> Response {
        let (done, answer) = oneshot::channel();
        let sent = self.desk.send((request, done)).await.is_ok();
        match (sent, answer.await) {
            (true, Ok(Ok(value))) => Json(value).into_response(),
            (true, Ok(Err(error))) => (StatusCode::CONFLICT, Json(json!({ "error": error.to_string() }))).into_response(),
            _ => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "bedrail is stopping" }))).into_response(),
        }
    }
}

#[allow(clippy::result_large_err, reason = "a refusal is the answer itself")]
fn time(text: Option<&str>) -> Result<Option<Timestamp>, Response> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(Some(Timestamp(at.as_millisecond()))),
        // It is not repeated: whatever somebody put in the place of a time may be anything.
        Err(_) => Err(bad_request("what stands for the time is not a time with an offset such as 2026-11-23T10:30:00+01:00")),
    }
}

fn bad_request(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": message }))).into_response()
}
