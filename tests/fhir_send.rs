//! The FHIR destination over real sockets: lines that break, logins, certificates, and servers that are none.

mod facts;
mod items;
#[path = "fhir/line.rs"]
mod line;
#[path = "fhir/route.rs"]
mod route;
#[path = "fhir/rules.rs"]
mod rules;
#[path = "fhir/server.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bedrail::deliver::fhir::{Algorithm, Auth, ClientSecret, Create, FhirDestination, Form, SmartClient};
use bedrail::deliver::{FaultClass, Item};
use bedrail::net::{ClientIdentity, TlsSettings};
use bedrail::reading::*;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value as Json;
use zeroize::Zeroizing;

use items::{item, reading, stream};
use line::{Endpoint, Raw};
use route::{Everybody, MRN, Route, wishes};
use server::{Reply, Server, Trouble};
use support::pki::{Identity, Pki};

#[tokio::test]
async fn records_are_in_their_charts_once_through_lost_answers_and_cut_lines() {
    for create in [Create::Put, Create::IfNoneExist, Create::SearchFirst, Create::IdempotencyHeader] {
        let endpoint = Endpoint::start(server(), None);
        let cut = [Trouble::AnswerLost, Trouble::Unheard, Trouble::AnswerLost, Trouble::DoneAnd(502), Trouble::Status(503)];
        endpoint.server().troubles = cut.into_iter().flat_map(|trouble| [None, None, Some(trouble)]).collect();
        let mut route = Route::new(destination(&endpoint.url("http"), None, Auth::None, create));
        route.carry(&readings(60)).await;
        let server = endpoint.server();
        assert_eq!(server.all("Observation").len(), 60, "{create:?}");
        assert!(
            route.downs.iter().all(|fault| fault.class == FaultClass::Broken) && !route.downs.is_empty(),
            "{:?}",
            route.downs
        );
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let endpoint = Endpoint::start(server(), None);
    let mut route = Route::new(destination(&endpoint.url("http"), None, Auth::None, Create::Put));
    route.carry(&readings(30)).await;
    route.carry(&readings(30)).await;
    assert!(endpoint.connections() <= 4, "{} connections for {} requests", endpoint.connections(), endpoint.server().requests);
    // What is sent asks for nothing compressed and says what it is.
    let headers = endpoint.headers();
    assert!(headers.iter().all(|head| head["accept"] == "application/fhir+json" && head["accept-encoding"] == "identity"));
    assert!(headers.iter().all(|head| head["user-agent"].starts_with("bedrail/") && !head.contains_key("authorization")));
}

#[tokio::test]
async fn an_answer_without_an_end_or_compressed_is_refused_and_a_redirect_leads_nowhere() {
    let elsewhere = Endpoint::start(server(), None);
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: application/fhir+json\r\n{rest}\r\n").into_bytes();
    let moved = Reply { status: 307, headers: vec![("location".to_owned(), elsewhere.url("http"))], body: vec![] };
    type Answer = (&'static str, FaultClass, Box<dyn Fn() -> Raw + Send>);
    let answers: [Answer; 5] = [
        ("larger than 4 MiB", FaultClass::Broken, Box::new(move || Raw::Endless(head("content-length: 1073741824\r\n")))),
        (
            "compressed",
            FaultClass::Broken,
            Box::new(move || Raw::Octets(head("content-encoding: gzip\r\ncontent-length: 1000\r\n"))),
        ),
        ("leads elsewhere", FaultClass::Moved, Box::new(move || Raw::Reply(moved.clone()))),
        ("no FHIR", FaultClass::Broken, Box::new(|| Raw::Reply(page()))),
        ("connection broke", FaultClass::Broken, Box::new(|| Raw::Octets(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()))),
    ];
    for (text, class, answer) in answers {
        let endpoint = Endpoint::start(server(), None);
        endpoint.before(move |_| Some(answer()));
        let mut route = Route::new(destination(&endpoint.url("http"), None, Auth::None, Create::Put));
        let fault = route.fails(&readings(4)).await;
        assert!(fault.class == class && fault.text.contains(text), "{text}: {fault:?}");
        assert!(route.settled.is_empty() && route.dead.is_empty());
    }
    assert_eq!((elsewhere.connections(), elsewhere.server().requests), (0, 0), "nothing goes where nobody configured it");
}

fn page() -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: b"<html>log in</html>".to_vec(),
    }
}

#[tokio::test]
async fn a_certificate_is_checked_and_ours_is_shown() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let cases = [
        (pki.server(), None),
        (pki.expired_server(), Some(FaultClass::TlsExpired)),
        (pki.server_of_another_host(), Some(FaultClass::TlsName)),
        (pki.server_not_valid_yet(), Some(FaultClass::Clock)),
        (foreign.server(), Some(FaultClass::TlsUntrusted)),
    ];
    for (identity, wrong) in cases {
        let endpoint = Endpoint::start(server(), Some(server_tls(&identity, None)));
        let tls = TlsSettings { route: "emr".into(), ca: Some(pki.ca()), ..TlsSettings::default() };
        let mut route = Route::new(destination(&endpoint.url("https"), Some(&tls), Auth::None, Create::Put));
        match wrong {
            None => route.carry(&readings(8)).await,
            Some(class) => assert_eq!(route.fails(&readings(8)).await.class, class),
        }
        assert_eq!(endpoint.server().all("Observation").len(), if wrong.is_none() { 8 } else { 0 });
    }
    // One that wants to see ours.
    for shown in [false, true] {
        let endpoint = Endpoint::start(server(), Some(server_tls(&pki.server(), Some(&pki))));
        let ours = pki.client("gw-1");
        let client =
            shown.then(|| ClientIdentity { cert: ours.cert.clone(), key: Zeroizing::new(std::fs::read(&ours.key).unwrap()) });
        let tls = TlsSettings { route: "emr".into(), ca: Some(pki.ca()), client, ..TlsSettings::default() };
        let mut route = Route::new(destination(&endpoint.url("https"), Some(&tls), Auth::None, Create::Put));
        if shown {
            route.carry(&readings(2)).await;
        } else {
            assert_eq!(route.fails(&readings(2)).await.class, FaultClass::TlsClientCertificate);
        }
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_renewed_once_when_refused_and_then_a_person_is_asked() {
    let pem = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"])
        .output()
        .unwrap()
        .stdout;
    let smart = || {
        let scope = "system/Observation.cu system/Patient.rs".to_owned();
        Auth::Smart(Box::new(SmartClient::new("gw-1".to_owned(), scope, Some("k1".to_owned()), Algorithm::Es384, &pem).unwrap()))
    };
    let secret = || {
        Auth::Secret(ClientSecret {
            client_id: "gw-1".to_owned(),
            secret: Zeroizing::new("s3cret".to_owned()),
            scope: "system/*.write".to_owned(),
        })
    };
    for auth in [smart(), secret()] {
        let tokens = Tokens::default();
        let endpoint = Endpoint::start(server(), None);
        tokens.stand_before(&endpoint);
        let mut route = Route::new(destination(&endpoint.url("http"), None, auth, Create::Put));
        route.carry(&readings(40)).await;
        assert_eq!(tokens.given(), 1, "one token for all");
        // It is taken back: one new one, and nothing is lost.
        tokens.revoke();
        route.carry(&readings(40)).await;
        assert_eq!((tokens.given(), route.downs.len()), (2, 0));
        // None is good any more.
        tokens.0.lock().unwrap().refuse_all = true;
        let fault = route.fails(&readings(1)).await;
        assert_eq!((fault.class, tokens.given()), (FaultClass::Login, 3), "{fault:?}");
        assert!(route.dead.is_empty());
        assert!(tokens.0.lock().unwrap().wrong.is_empty(), "{:?}", tokens.0.lock().unwrap().wrong);
    }
}

#[tokio::test]
async fn a_token_that_allows_too_little_or_a_client_nobody_knows_is_named_and_nothing_is_sent() {
    let auth = || {
        Auth::Secret(ClientSecret {
            client_id: "gw-1".to_owned(),
            secret: Zeroizing::new("s3cret".to_owned()),
            scope: "s".to_owned(),
        })
    };
    let tokens = Tokens::default();
    tokens.0.lock().unwrap().scope = Some("system/Observation.rs".to_owned());
    let endpoint = Endpoint::start(server(), None);
    tokens.stand_before(&endpoint);
    let fault = Route::new(destination(&endpoint.url("http"), None, auth(), Create::Put)).fails(&readings(1)).await;
    assert!(fault.class == FaultClass::NotAuthorized && fault.text.contains("system/Observation.c"), "{fault:?}");
    tokens.0.lock().unwrap().unknown = true;
    let fault = Route::new(destination(&endpoint.url("http"), None, auth(), Create::Put)).fails(&readings(1)).await;
    assert!(fault.class == FaultClass::Login && fault.text.contains("401 (invalid_client)"), "{fault:?}");
    assert_eq!(endpoint.server().requests, 0);
}

#[tokio::test]
async fn a_token_of_a_file_is_shown_as_it_is() {
    let endpoint = Endpoint::start(server(), None);
    let mut route =
        Route::new(destination(&endpoint.url("http"), None, Auth::Bearer(Zeroizing::new("abc\n".to_owned())), Create::Put));
    route.carry(&readings(2)).await;
    assert!(endpoint.headers().iter().all(|head| head["authorization"] == "Bearer abc"));
}

/// A token server that checks what it is told: who, for whom, until when, and never twice the same.
#[derive(Clone, Default)]
struct Tokens(Arc<Mutex<TokenState>>);

#[derive(Default)]
struct TokenState {
    given: u64,
    revoked: u64,
    refuse_all: bool,
    unknown: bool,
    scope: Option<String>,
    seen: Vec<String>,
    wrong: Vec<String>,
}

impl Tokens {
    fn given(&self) -> u64 {
        self.0.lock().unwrap().given
    }

    fn revoke(&self) {
        let mut state = self.0.lock().unwrap();
        state.revoked = state.given;
    }

    fn stand_before(&self, endpoint: &Endpoint) {
        let (state, url) = (self.0.clone(), endpoint.url("http"));
        endpoint.before(move |question| {
            let mut state = state.lock().unwrap();
            if question.path.ends_with(".well-known/smart-configuration") {
                return Some(Raw::Reply(json(200, serde_json::json!({ "token_endpoint": format!("{url}/token") }))));
            }
            if question.path == "/fhir/token" {
                return Some(Raw::Reply(state.token(question, &format!("{url}/token"))));
            }
            let good = format!("Bearer token-{}", state.given);
            let known = question.headers.get("authorization") == Some(&good) && state.given > state.revoked && !state.refuse_all;
            (!known).then(|| Raw::Reply(Reply { status: 401, ..Reply::default() }))
        });
    }
}

impl TokenState {
    fn token(&mut self, question: &server::Question, audience: &str) -> Reply {
        if self.unknown {
            return json(401, serde_json::json!({ "error": "invalid_client" }));
        }
        let form: BTreeMap<String, String> = String::from_utf8_lossy(&question.body)
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()))
            .collect();
        if form["grant_type"] != "client_credentials" {
            self.wrong.push("grant_type".to_owned());
        }
        match form.get("client_assertion") {
            Some(assertion) => self.assertion(assertion, audience),
            None if question.headers.get("authorization").is_some_and(|login| login == "Basic Z3ctMTpzM2NyZXQ=") => {}
            None => self.wrong.push("no login".to_owned()),
        }
        self.given += 1;
        let scope = self.scope.clone().unwrap_or_else(|| form["scope"].clone());
        json(
            200,
            serde_json::json!({ "access_token": format!("token-{}", self.given), "token_type": "bearer", "expires_in": 300, "scope": scope }),
        )
    }

    fn assertion(&mut self, assertion: &str, audience: &str) {
        let claims: Json =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap()).unwrap();
        let left = claims["exp"].as_i64().unwrap() - jiff::Timestamp::now().as_second();
        let jti = claims["jti"].as_str().unwrap().to_owned();
        let wrong = [
            ("aud", claims["aud"] != *audience),
            ("iss", claims["iss"] != "gw-1" || claims["sub"] != "gw-1"),
            ("exp", !(1..=300).contains(&left)),
            ("jti", self.seen.contains(&jti)),
        ];
        self.wrong.extend(wrong.into_iter().filter(|(_, wrong)| *wrong).map(|(name, _)| name.to_owned()));
        self.seen.push(jti);
    }
}

fn json(status: u16, body: Json) -> Reply {
    Reply {
        status,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}

fn destination(url: &str, tls: Option<&TlsSettings>, auth: Auth, create: Create) -> FhirDestination<Everybody> {
    route::destination(url, tls, auth, wishes(create, Form::Transaction))
}

fn server() -> Server {
    let mut server = Server::new();
    (0..4).for_each(|n| {
        server.patient(MRN, &format!("MRN-{n}"), "1940-01-01");
    });
    server
}

fn server_tls(identity: &Identity, clients: Option<&Pki>) -> Arc<rustls::ServerConfig> {
    let pem = |path: &std::path::Path| std::fs::read(path).unwrap();
    let chain = CertificateDer::pem_slice_iter(&pem(&identity.cert)).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem(&identity.key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pki) => {
            let mut roots = rustls::RootCertStore::empty();
            CertificateDer::pem_slice_iter(&pem(&pki.ca())).for_each(|authority| roots.add(authority.unwrap()).unwrap());
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

fn readings(count: usize) -> Vec<Item> {
    (0..count)
        .map(|n| {
            let value = Value::Number { value: Decimal::new(70 + n as i64, 0), unit: Unit::PerMinute };
            let mut item = item(Some(stream(Metric::HeartRate, Modality::Spot)), Body::Reading(reading(value, Class::Measured)));
            item.record.id = RecordId([n as u8 + 1; 16]);
            item.subject = Some(format!("p-{}", n % 4).parse().unwrap());
            item.chart = ChartId::of(item.record.id, item.placement);
            item
        })
        .collect()
}
