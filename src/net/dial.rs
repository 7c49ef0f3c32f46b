//! The way to a destination: TCP, perhaps through a proxy, TLS, perhaps a WebSocket. What comes out carries octets.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use zeroize::Zeroizing;

/// A name with more addresses than this is tried at the first of them.
const MAX_ADDRESSES: usize = 8;
/// How long one address is tried before the next one is tried beside it (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The one name that needs no name server, and whom it stands for.
const LOCALHOST: &str = "localhost";

/// Where to, and which way.
#[derive(Clone)]
pub struct Dialled {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
    /// Instead of `host`, in the handshake (SNI) and in the certificate.
    pub server_name: Option<String>,
    /// Path of a WebSocket that speaks MQTT.
    pub websocket: Option<String>,
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy that passes connections on (CONNECT). It sees the host, the port and, with TLS, nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// User name and password.
    pub login: Option<(String, Zeroizing<String>)>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let login = self.login.as_ref().map(|_| "<login>");
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).field("login", &login).finish()
    }
}

#[derive(Debug)]
pub enum DialError {
    Unreachable(String),
    /// What the proxy said, and what to do.
    Proxy(String),
    /// Most often with a [`rustls::Error`] inside.
    Tls(io::Error),
    WebSocket(String),
}

/// Octets both ways.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

pub async fn dial(to: &Dialled) -> Result<Box<dyn Line>, DialError> {
    let tcp: Box<dyn Line> = match &to.proxy {
        None => Box::new(tcp(host(to), to.port).await?),
        Some(proxy) => through(proxy, &to.host, to.port).await?,
    };
    let line: Box<dyn Line> = match &to.tls {
        None => tcp,
        Some(tls) => handshake(tls.clone(), to.server_name.as_ref().unwrap_or(&to.host), tcp).await?,
    };
    match &to.websocket {
        None => Ok(line),
        Some(path) => websocket(to, path, line).await,
    }
}

/// Whether no octet leaves the machine.
pub fn is_this_machine(host: &str) -> bool {
    host == LOCALHOST || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Who `localhost` is, is not asked of a name server where no certificate would tell.
fn host(to: &Dialled) -> &str {
    if to.tls.is_none() && to.host == LOCALHOST { "127.0.0.1" } else { &to.host }
}

/// All addresses of a name, the next one beside the last while that does not answer: one dead address must not use up the time
/// of the others.
async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let unreachable = |error: io::Error| DialError::Unreachable(error.to_string());
    let mut addresses: VecDeque<_> = lookup_host((host, port)).await.map_err(unreachable)?.take(MAX_ADDRESSES).collect();
    let (mut attempts, mut failed) = (FuturesUnordered::new(), None);
    loop {
        attempts.extend(addresses.pop_front().map(connect));
        if attempts.is_empty() {
            return Err(failed.unwrap_or_else(|| DialError::Unreachable("the name has no address".to_owned())));
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(unreachable(error)),
            },
            // The last address is waited for as long as it takes; the caller has a deadline.
            () = sleep(ATTEMPT_DELAY), if !addresses.is_empty() => {}
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(config: Arc<ClientConfig>, name: &str, line: Box<dyn Line>) -> Result<Box<dyn Line>, DialError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| DialError::Tls(io::Error::other(error)))?;
    let line = TlsConnector::from(config).connect(name, line).await.map_err(DialError::Tls)?;
    Ok(Box::new(line))
}

async fn through(proxy: &Proxy, host: &str, port: u16) -> Result<Box<dyn Line>, DialError> {
    let refused = |text: String| DialError::Proxy(text);
    let line = tcp(&proxy.host, proxy.port).await.map_err(|error| match error {
        DialError::Unreachable(text) => refused(format!("{text}; check proxy.url and that the proxy runs")),
        other => other,
    })?;
    let broken = |error: hyper::Error| refused(format!("{error}; check that proxy.url is an HTTP proxy"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(line)).await.map_err(broken)?;
    let authority = authority(host, port);
    let mut request = Request::builder().method(Method::CONNECT).uri(&authority).header(header::HOST, &authority);
    if let Some((username, password)) = &proxy.login {
        let login = STANDARD.encode(Zeroizing::new(format!("{username}:{}", password.as_str())).as_bytes());
        request = request.header(header::PROXY_AUTHORIZATION, format!("Basic {login}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| refused(error.to_string()))?;
    // It ends when it has handed the line over, which may be before its answer is taken.
    let mut connection = std::pin::pin!(connection.with_upgrades().fuse());
    let response = match select(std::pin::pin!(sender.send_request(request)), connection.as_mut()).await {
        Either::Left((response, _)) => response,
        Either::Right((_, response)) => response.await,
    };
    let response = response.map_err(broken)?;
    match response.status() {
        status if status.is_success() => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            return Err(refused("it asks for a login; check proxy.username and proxy.password".to_owned()));
        }
        status => return Err(refused(format!("it does not connect to {authority}: {status}; allow that in the proxy"))),
    }
    let upgraded = match select(hyper::upgrade::on(response), connection).await {
        Either::Left((upgraded, _)) => upgraded,
        Either::Right((_, upgraded)) => upgraded.await,
    };
    Ok(Box::new(TokioIo::new(upgraded.map_err(broken)?)))
}

async fn websocket(to: &Dialled, path: &str, line: Box<dyn Line>) -> Result<Box<dyn Line>, DialError> {
    let wrong = |error: WsError| DialError::WebSocket(error.to_string());
    let scheme = if to.tls.is_some() { "wss" } else { "ws" };
    let name = to.server_name.as_ref().unwrap_or(&to.host);
    let mut request = format!("{scheme}://{}{path}", authority(name, to.port)).into_client_request().map_err(wrong)?;
    // MQTT 5, 6: the subprotocol is "mqtt", each message binary, packets regardless of the bounds of messages.
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static("mqtt"));
    let (socket, _) = tokio_tungstenite::client_async(request, line).await.map_err(wrong)?;
    let (sink, stream) = socket.split();
    let octets = stream.filter_map(async |frame| match frame {
        Ok(Frame::Binary(octets)) => Some(Ok(octets)),
        Ok(Frame::Text(_)) => Some(Err(io::Error::other("text on a WebSocket for MQTT"))),
        Ok(_) => None,
        Err(error) => Some(Err(io_error(error))),
    });
    let frames = sink.sink_map_err(io_error).with(async |octets: Bytes| Ok::<_, io::Error>(Frame::Binary(octets)));
    let reader = StreamReader::new(Box::pin(octets));
    let writer = SinkWriter::new(CopyToBytes::new(Box::pin(frames)));
    Ok(Box::new(tokio::io::join(reader, writer)))
}

fn io_error(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        other => io::Error::other(other),
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
