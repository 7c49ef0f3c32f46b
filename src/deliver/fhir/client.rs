//! A FHIR server on the line: addresses, tokens, one request and its answer. The only file of the route that knows HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method as HttpMethod, Request as HttpRequest, StatusCode, Uri};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::Head;
use super::auth::{Auth, Token, token_endpoint};
use super::request::{Method, Request};
use crate::deliver::{Fault, FaultClass};
use crate::net::{self, DialError, Dialled, HttpAnswer, HttpClient, HttpError, classify};
use crate::reading::Timestamp;

/// A server that checks a bundle against profiles takes seconds; one that takes longer is as good as gone, and what it did is found
/// out by sending again.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// A patient with a photograph has a megabyte; a bundle's answer a few kilobytes.
const MAX_ANSWER: usize = 4 << 20;
const FHIR_JSON: HeaderValue = HeaderValue::from_static("application/fhir+json");
const SMART_CONFIGURATION: &str = ".well-known/smart-configuration";

/// The base of a FHIR server: scheme, host, port and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// Without a slash at its end.
    path: String,
    authority: String,
}

impl Base {
    /// `https://HOST[:PORT][/PATH]`; `http` only to this machine.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{what}; write for example \"https://fhir.example.org/R4\""));
        let Ok(uri) = url.parse::<Uri>() else { return wrong("it is no address") };
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return wrong("it begins with neither https:// nor http://"),
        };
        let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@')) else {
            return wrong("it has no host, or a login in it");
        };
        if uri.query().is_some() {
            return wrong("it has a query in it");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !tls && !net::is_this_machine(&host) {
            return Err(format!(
                "without TLS what is sent goes in the clear, which is for this machine only; write \"https://{authority}\""
            ));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port, tls, path, authority: authority.to_string() })
    }

    fn uri(&self, path: &str) -> String {
        match path {
            "" if self.path.is_empty() => "/".to_owned(),
            "" => self.path.clone(),
            path => format!("{}/{path}", self.path),
        }
    }
}

/// How the line is made, whatever the server: the token server may be another one.
#[derive(Clone)]
pub struct Way {
    /// `None` only to this machine.
    pub tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    pub server_name: Option<String>,
    pub proxy: Option<net::Proxy>,
}

impl Way {
    fn to(&self, base: &Base, server_name: Option<String>) -> Dialled {
        Dialled {
            host: base.host.clone(),
            port: base.port,
            tls: if base.tls { self.tls.clone() } else { None },
            server_name,
            websocket: None,
            proxy: self.proxy.clone(),
        }
    }
}

pub struct FhirClient {
    base: Base,
    way: Way,
    http: HttpClient,
    auth: Auth,
    /// Absent: asked of the server itself.
    token_url: Option<String>,
    token: Mutex<Option<(Token, Instant)>>,
    clock: fn() -> Option<Timestamp>,
}

impl FhirClient {
    pub fn new(base: Base, way: Way, auth: Auth, token_url: Option<String>, clock: fn() -> Option<Timestamp>) -> Self {
        let http = HttpClient::new(way.to(&base, way.server_name.clone()), ANSWER_WITHIN, MAX_ANSWER);
        Self { base, way, http, auth, token_url, token: Mutex::default(), clock }
    }

    /// The server answers and takes us for who we are.
    pub async fn open(&self) -> Result<(), Fault> {
        self.login(None).await?;
        self.http.open().await.map_err(fault)
    }

    /// Asks once, and once more with a new token where the old one is refused.
    pub async fn ask(&self, request: &Request) -> Result<(Head, Bytes), Fault> {
        let login = self.login(None).await?;
        let mut answer = self.ask_as(request, login.as_ref()).await?;
        if answer.status == StatusCode::UNAUTHORIZED && matches!(self.auth, Auth::Secret(_) | Auth::Smart(_)) {
            let login = self.login(login.as_ref()).await?;
            answer = self.ask_as(request, login.as_ref()).await?;
        }
        let header = |name: HeaderName| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let head = Head {
            status: answer.status.as_u16(),
            retry_after: header(header::RETRY_AFTER),
            location: header(header::LOCATION),
            etag: header(header::ETAG),
        };
        Ok((head, answer.body))
    }

    async fn ask_as(&self, request: &Request, login: Option<&Zeroizing<String>>) -> Result<HttpAnswer, Fault> {
        let method = match request.method {
            Method::Get => HttpMethod::GET,
            Method::Post => HttpMethod::POST,
            Method::Put => HttpMethod::PUT,
        };
        let mut asked = HttpRequest::builder()
            .method(method)
            .uri(self.base.uri(request.path.expose()))
            .header(header::HOST, &self.base.authority)
            .header(header::USER_AGENT, concat!("bedrail/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, FHIR_JSON)
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(login) = login {
            asked = asked.header(header::AUTHORIZATION, secret(login)?);
        }
        for (name, value) in &request.headers {
            asked = asked.header(*name, value);
        }
        let body = request.body.as_ref().map(|body| Bytes::from(body.expose().clone()));
        if body.is_some() {
            asked = asked.header(header::CONTENT_TYPE, FHIR_JSON).header("prefer", "return=minimal");
        }
        let asked = asked.body(Full::new(body.unwrap_or_default())).map_err(|error| broken(&error.to_string()))?;
        self.http.ask(asked).await.map_err(fault)
    }

    /// The value of the authorization header, and not the one that was refused.
    async fn login(&self, refused: Option<&Zeroizing<String>>) -> Result<Option<Zeroizing<String>>, Fault> {
        match &self.auth {
            Auth::None => return Ok(None),
            Auth::Bearer(token) => return Ok(Some(Zeroizing::new(format!("Bearer {}", token.trim())))),
            Auth::Secret(_) | Auth::Smart(_) => {}
        }
        let header = |token: &Token| Zeroizing::new(format!("Bearer {}", *token.value));
        // Whoever comes second finds what the first was given.
        let mut kept = self.token.lock().await;
        let good = kept.as_ref().filter(|(token, until)| Instant::now() < *until && refused != Some(&header(token)));
        if good.is_none() {
            *kept = None;
            let token = self.token().await?;
            if !token.may_create() {
                return Err(Fault {
                    class: FaultClass::NotAuthorized,
                    text: "the token server grants no right to make Observations; have it allow the client system/Observation.c (or .write)"
                        .to_owned(),
                });
            }
            let until = Instant::now() + token.renew_after;
            *kept = Some((token, until));
        }
        Ok(kept.as_ref().map(|(token, _)| header(token)))
    }

    async fn token(&self) -> Result<Token, Fault> {
        let url = match &self.token_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let of_token = |text: &str| login(&format!("the token server {text}"));
        let server = Base::parse(&url).map_err(|error| of_token(&format!("has a bad address: {error}")))?;
        let (body, header_login) = match &self.auth {
            Auth::Secret(client) => (client.form(), Some(client.login())),
            Auth::Smart(client) => {
                let now = (self.clock)().ok_or_else(|| Fault {
                    class: FaultClass::Clock,
                    text: "this gateway does not know what time it is, so no token can be asked for; check time synchronisation"
                        .to_owned(),
                })?;
                let jti = uuid::Uuid::from_bytes(crate::store::key::random::<16>().map_err(|error| broken(&error.to_string()))?);
                let assertion = client.assertion(&url, now, &jti.to_string()).map_err(|error| login(&error.to_string()))?;
                (client.form(&assertion), None)
            }
            Auth::None | Auth::Bearer(_) => return Err(login("no token is asked for")),
        };
        let mut asked = HttpRequest::builder()
            .method(HttpMethod::POST)
            .uri(server.uri(""))
            .header(header::HOST, &server.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(header_login) = header_login {
            asked = asked.header(header::AUTHORIZATION, secret(&header_login)?);
        }
        let asked = asked.body(Full::new(Bytes::from(body.to_vec()))).map_err(|error| broken(&error.to_string()))?;
        let http = HttpClient::new(self.way.to(&server, None), ANSWER_WITHIN, MAX_ANSWER);
        let answer = http.ask(asked).await.map_err(fault)?;
        if answer.status != StatusCode::OK {
            let remedy = "check client_id, scope, that the key is the registered one, and this gateway's clock";
            return Err(of_token(&format!("answered {}{}; {remedy}", answer.status.as_u16(), oauth_error(&answer.body))));
        }
        Token::read(&answer.body).ok_or_else(|| of_token("answered with something else than a bearer token; check token_url"))
    }

    async fn discover(&self) -> Result<String, Fault> {
        let asked = HttpRequest::builder()
            .uri(self.base.uri(SMART_CONFIGURATION))
            .header(header::HOST, &self.base.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Full::default())
            .map_err(|error| broken(&error.to_string()))?;
        let answer = self.http.ask(asked).await.map_err(fault)?;
        let found = (answer.status == StatusCode::OK).then(|| token_endpoint(&answer.body)).flatten();
        found.ok_or_else(|| {
            login(&format!("the server has no {SMART_CONFIGURATION} with a token_endpoint; write token_url in auth"))
        })
    }
}

/// A word of RFC 6749, 5.2; a description may say anything.
fn oauth_error(body: &[u8]) -> String {
    const KNOWN: [&str; 6] =
        ["invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"];
    let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = answer.as_ref().and_then(|answer| answer["error"].as_str()).unwrap_or_default();
    KNOWN.iter().find(|known| **known == error).map(|known| format!(" ({known})")).unwrap_or_default()
}

fn secret(text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| login("the token holds characters that no header may"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn login(text: &str) -> Fault {
    Fault { class: FaultClass::Login, text: text.to_owned() }
}

fn broken(text: &str) -> Fault {
    Fault { class: FaultClass::Broken, text: format!("the connection broke: {text}") }
}

fn fault(error: HttpError) -> Fault {
    let (class, text) = match error {
        HttpError::Dial(DialError::Unreachable(text)) => {
            (FaultClass::Unreachable, format!("cannot reach the server: {text}; check url, the network and that the server runs"))
        }
        HttpError::Dial(DialError::Proxy(text)) => (FaultClass::Proxy, format!("the proxy on the way: {text}")),
        HttpError::Dial(DialError::WebSocket(text)) => return broken(&text),
        HttpError::Dial(DialError::Tls(error)) | HttpError::Line(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let Some(tls) = inner else {
                return Fault { class: FaultClass::Tls, text: format!("TLS: {error}") };
            };
            let fault = classify(tls);
            (FaultClass::of_tls(fault), format!("TLS: {fault} ({tls})"))
        }
        HttpError::ConnectDeadline(within) => {
            let text = format!("no connection within {} s; check url, firewalls and that the server runs", within.as_secs());
            (FaultClass::Unreachable, text)
        }
        HttpError::AnswerDeadline(within) => {
            (FaultClass::NoProgress, format!("no answer within {} s; the server hangs or the line is dead", within.as_secs()))
        }
        HttpError::Broken(text) => return broken(&text),
        HttpError::TooLarge(most) => (
            FaultClass::Broken,
            format!("an answer is larger than {} MiB; check that url is the base of a FHIR server", most >> 20),
        ),
        HttpError::Encoded => (
            FaultClass::Broken,
            "an answer is compressed, which was not asked for; check what stands between here and the server".to_owned(),
        ),
    };
    Fault { class, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_an_address_that_leaves_this_machine_only_with_tls() {
        let base =
            |url: &str| Base::parse(url).map(|base| (base.host.clone(), base.port, base.uri(""), base.uri("Observation/1")));
        assert_eq!(
            base("https://fhir.example.org/R4/"),
            Ok(("fhir.example.org".to_owned(), 443, "/R4".to_owned(), "/R4/Observation/1".to_owned()))
        );
        assert_eq!(
            base("http://127.0.0.1:8080"),
            Ok(("127.0.0.1".to_owned(), 8080, "/".to_owned(), "/Observation/1".to_owned()))
        );
        assert_eq!(base("https://[2001:db8::1]:8443/fhir").map(|base| base.0), Ok("2001:db8::1".to_owned()));
        for (url, word) in [
            ("http://fhir.example.org/R4", "in the clear"),
            ("fhir.example.org", "https://"),
            ("https://user:secret@fhir.example.org", "login"),
            ("https://fhir.example.org/R4?x=1", "query"),
            ("", "https://"),
        ] {
            assert!(Base::parse(url).unwrap_err().contains(word), "{url}: {:?}", Base::parse(url));
        }
    }

    #[test]
    fn a_token_server_says_a_known_word_or_nothing() {
        assert_eq!(oauth_error(br#"{"error":"invalid_client","error_description":"Mrs. Lind"}"#), " (invalid_client)");
        assert_eq!(oauth_error(br#"{"error":"Mrs. Lind"}"#), "");
        assert_eq!(oauth_error(b"<html>"), "");
    }
}
