//! Asking a half over its socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// Time to the first answer; a half that takes longer is told to be unreachable.
const ANSWER: Duration = Duration::from_secs(2);
/// No answer of a half is larger.
const MAX_ANSWER: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{}: unreachable ({why}); is bedrail running (`systemctl status bedrail.target`), and may you open its sockets (group bedrail)?", path.display())]
    Unreachable { path: PathBuf, why: String },
    /// The half understood and said no.
    #[error("{0}")]
    Refused(String),
}

/// One request; the answer is JSON.
pub async fn call(socket: &Path, method: &str, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
    let unreachable = |why: String| ClientError::Unreachable { path: socket.into(), why };
    let exchange = async {
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| unreachable(error.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "bedrail")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(error.to_string()))?;
        // The connection lives as long as this exchange and no longer.
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok::<_, hyper::Error>((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        tokio::pin!(answer);
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            _ = connection => answer.await,
        };
        answered.map_err(|error| unreachable(error.to_string()))
    };
    let (status, body) =
        tokio::time::timeout(ANSWER, exchange).await.map_err(|_| unreachable("no answer within 2 s".to_owned()))??;
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(value);
    }
    let text = value.get("error").and_then(Value::as_str).map_or_else(|| format!("answered {status}"), str::to_owned);
    Err(ClientError::Refused(text))
}
