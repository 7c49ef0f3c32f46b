//! HTTP over the one way out: connections are kept for the next request, no redirect is followed, nothing compressed is asked for, and
//! an answer has a limit.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::dial::{DialError, Dialled, dial};

/// DNS, TCP and TLS over a poor mobile line.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// Connections kept idle: as many as a route has requests under way, and no more.
const MAX_IDLE: usize = 8;

type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// One server and the connections to it.
pub struct HttpClient {
    to: Dialled,
    idle: Mutex<Vec<Connection>>,
    answer_within: Duration,
    max_answer: usize,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the octets; it is polled only while a request is under way. `None`: the server hung up.
    driver: Option<Driver>,
}

pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug)]
pub enum HttpError {
    Dial(DialError),
    ConnectDeadline(Duration),
    /// It may have been done or not.
    AnswerDeadline(Duration),
    /// The line broke: it may have been done or not.
    Broken(String),
    /// Most often with a [`rustls::Error`] inside.
    Line(io::Error),
    TooLarge(usize),
    /// Compressed, though nobody asked for that.
    Encoded,
}

impl HttpClient {
    pub fn new(to: Dialled, answer_within: Duration, max_answer: usize) -> Self {
        Self { to, idle: Mutex::default(), answer_within, max_answer }
    }

    /// Asks, and reads all of the answer. Dropped, it takes its connection along.
    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Result<HttpAnswer, HttpError> {
        let mut connection = match self.idle_connection() {
            Some(connection) => connection,
            None => timeout(CONNECT_WITHIN, self.connect()).await.map_err(|_| HttpError::ConnectDeadline(CONNECT_WITHIN))??,
        };
        let answered = answered(&mut connection, request, self.max_answer);
        let answer = timeout(self.answer_within, answered).await.map_err(|_| HttpError::AnswerDeadline(self.answer_within))??;
        self.keep(connection);
        Ok(answer)
    }

    /// Makes a connection for the next request, where there is none.
    pub async fn open(&self) -> Result<(), HttpError> {
        let connection = match self.idle_connection() {
            Some(connection) => connection,
            None => timeout(CONNECT_WITHIN, self.connect()).await.map_err(|_| HttpError::ConnectDeadline(CONNECT_WITHIN))??,
        };
        self.keep(connection);
        Ok(())
    }

    /// One that the server has not hung up meanwhile.
    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut connection) = idle.pop() {
            let lives = connection.driver.as_mut().is_some_and(|driver| driver.now_or_never().is_none());
            if lives && connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && connection.driver.is_some() {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<Connection, HttpError> {
        let line = dial(&self.to).await.map_err(HttpError::Dial)?;
        let (sender, driver) = http1::handshake(TokioIo::new(line)).await.map_err(|error| broken(&error))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }
}

async fn answered(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
    max_answer: usize,
) -> Result<HttpAnswer, HttpError> {
    let hung_up = || HttpError::Broken("the server hung up".to_owned());
    let Connection { sender, driver } = connection;
    let mut asked = pin!(exchange(sender, request, max_answer));
    let Some(moving) = driver else { return Err(hung_up()) };
    let ended = tokio::select! {
        biased;
        answer = &mut asked => return answer,
        ended = moving => ended,
    };
    *driver = None;
    // It may have hung up right behind its answer.
    match (asked.now_or_never(), ended) {
        (Some(Ok(answer)), _) => Ok(answer),
        (_, Err(error)) => Err(broken(&error)),
        (Some(Err(error)), Ok(())) => Err(error),
        (None, Ok(())) => Err(hung_up()),
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    max_answer: usize,
) -> Result<HttpAnswer, HttpError> {
    sender.ready().await.map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let (head, body) = response.into_parts();
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(HttpError::Encoded);
    }
    let body = Limited::new(body, max_answer).collect().await.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => broken(&error),
        Err(error) if error.is::<LengthLimitError>() => HttpError::TooLarge(max_answer),
        Err(error) => HttpError::Broken(error.to_string()),
    })?;
    Ok(HttpAnswer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// What TLS has to say of our certificate comes with the first read, deep inside.
fn broken(error: &hyper::Error) -> HttpError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) => HttpError::Line(io::Error::other(tls.clone())),
                None => HttpError::Broken(io.to_string()),
            };
        }
        source = inner.source();
    }
    HttpError::Broken(error.to_string())
}
