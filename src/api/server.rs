//! Serving a router on a unix socket, and who is on the other end of it.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Owner and group; others may not even connect.
const MODE: u32 = 0o660;

/// The process that asks, by the kernel's word.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|cred| cred.uid()) }
    }
}

/// The name an action is audited under.
#[derive(Clone, Debug)]
pub struct Actor(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().and_then(|info| info.0.uid);
        Ok(Actor(peer.map_or_else(|| "unknown".to_owned(), user_name)))
    }
}

/// Binds the socket; one that a dead process left behind is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

pub async fn serve(listener: UnixListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let service = router.layer(axum::middleware::map_response(without_quotes)).into_make_service_with_connect_info::<Peer>();
    // Connections are not waited for: a command line that hangs must not hold up the end.
    tokio::select! {
        result = axum::serve(listener, service) => result,
        () = stop.cancelled() => Ok(()),
    }
}

/// What the framework says of a request it does not understand quotes it, and somebody may have sent a patient's name. Our own
/// answers are JSON.
async fn without_quotes(response: Response) -> Response {
    let status = response.status();
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if status.is_success() || ours {
        return response;
    }
    let error = match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "there is no such request",
        StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
        _ => "path, query or body of the request are not of the form this takes",
    };
    (status, Json(json!({ "error": error }))).into_response()
}

fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let field = uid.to_string();
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some(&field));
    entry.and_then(|line| line.split(':').next()).map_or_else(|| format!("uid {uid}"), str::to_owned)
}
