//! Every way to a broker: both protocols in TLS, as a WebSocket, over IPv6, through an HTTP proxy, under another name, and with
//! logins that expire.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bedrail::config::Protocol;
use bedrail::deliver::mqtt::{Link, LinkEvent, LinkSettings, LostReason, Message, MqttLink, Sas, Will, connect};
use bedrail::net::{Proxy, TlsSettings, client_config};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::broker::{Broker, BrokerOptions, BrokerTls, free_port};
use support::link::{connected, lost, next};
use support::pki::Pki;
use support::proxy::{Answer, ConnectProxy};
use support::subscriber::{Receiver, Subscriber};

/// Far above what any step takes, so that a hang fails a test and does not stop the run.
const PATIENCE: Duration = Duration::from_secs(30);
/// gw:secret, as RFC 7617 writes it.
const LOGIN: &str = "Basic Z3c6c2VjcmV0";

#[tokio::test]
async fn every_way_to_a_broker_carries_every_message_under_both_protocols() {
    let pki = Pki::new();
    let (websocket, v6, plain_websocket) = (free_port(), free_port(), free_port());
    let broker = broker(
        &pki,
        &format!(
            "listener {v6} ::1\n{TLS}listener {websocket} 127.0.0.1\nprotocol websockets\n{TLS}listener {plain_websocket} 127.0.0.1\nprotocol websockets\n"
        ),
    );
    let proxy = ConnectProxy::start(Answer::Pass(Some(LOGIN.to_owned())));
    let through =
        Some(Proxy { host: "127.0.0.1".into(), port: proxy.port(), login: Some(("gw".into(), "secret".to_owned().into())) });
    let tls = LinkSettings::new("127.0.0.1", broker.port(), Some(tls(&pki, &[])), "gw");
    let ways = [
        ("TLS", tls.clone()),
        ("TLS over IPv6", LinkSettings { host: "::1".into(), port: v6, ..tls.clone() }),
        ("a WebSocket in TLS", LinkSettings { port: websocket, websocket: Some("/mqtt".into()), ..tls.clone() }),
        ("a WebSocket", LinkSettings { port: plain_websocket, tls: None, websocket: Some("/mqtt".into()), ..tls.clone() }),
        ("TLS through a proxy", LinkSettings { proxy: through.clone(), ..tls.clone() }),
        ("TLS over IPv6 through a proxy", LinkSettings { host: "::1".into(), port: v6, proxy: through.clone(), ..tls.clone() }),
        (
            "a WebSocket in TLS through a proxy",
            LinkSettings { port: websocket, websocket: Some("/mqtt".into()), proxy: through, ..tls.clone() },
        ),
    ];
    let subscriber = subscribe(&pki, &broker, "line/#");
    for protocol in [Protocol::V5, Protocol::V311] {
        for (way, settings) in &ways {
            let topic = format!("line/{}/{}", protocol.name(), way.replace(' ', "_"));
            let settings = LinkSettings { protocol, ..settings.clone() };
            send(&mut connect(&settings), &topic, 200).await;
            let arrived = |messages: &[support::subscriber::Message]| messages.iter().filter(|m| m.topic == topic).count() == 200;
            assert!(subscriber.wait_until(PATIENCE, arrived), "{way}");
            let order: Vec<_> = subscriber.messages().into_iter().filter(|m| m.topic == topic).map(|m| m.raw).collect();
            assert_eq!(order, (0..200).map(|n| n.to_string()).collect::<Vec<_>>(), "{way}");
        }
    }
    let asked = proxy.asked();
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert_eq!(asked[0], format!("CONNECT 127.0.0.1:{} HTTP/1.1", broker.port()));
    assert_eq!(asked[1], format!("CONNECT [::1]:{v6} HTTP/1.1"));
}

/// More than a socket holds at once, so that frames and writes come in pieces.
#[tokio::test]
async fn a_large_message_passes_a_websocket_whole() {
    let pki = Pki::new();
    let websocket = free_port();
    let broker = broker(&pki, &format!("listener {websocket} 127.0.0.1\nprotocol websockets\n{TLS}"));
    let subscriber = subscribe(&pki, &broker, "large");
    let settings = LinkSettings {
        websocket: Some("/mqtt".into()),
        max_packet: 4 << 20,
        ..LinkSettings::new("127.0.0.1", websocket, Some(tls(&pki, &[])), "gw")
    };
    let mut link = connect(&settings);
    connected(&mut link).await;
    let payload = format!("\"{}\"", "0123456789abcdef".repeat(200_000));
    link.publish(1, Message::new("large", payload.clone().into_bytes())).expect("room");
    assert!(matches!(next(&mut link).await, LinkEvent::Acked { token: 1, .. }));
    assert!(subscriber.wait_until(PATIENCE, |messages| messages.len() == 1));
    assert_eq!(subscriber.messages()[0].raw, payload);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_from_a_broker_that_does() {
    let pki = Pki::new();
    let broker = broker(&pki, "");
    let gone = free_port();
    for (answer, says) in [
        (Some(Answer::Pass(Some("Basic other".into()))), "it asks for a login; check proxy.username and proxy.password"),
        (Some(Answer::Refuse("403 Forbidden")), "it does not connect to 127.0.0.1:"),
        (Some(Answer::HangUp), "check that proxy.url is an HTTP proxy"),
        (None, "check proxy.url and that the proxy runs"),
    ] {
        let port = answer.map_or(gone, |answer| ConnectProxy::start(answer).port());
        let proxy = Proxy { host: "127.0.0.1".into(), port, login: Some(("gw".into(), "canary".to_owned().into())) };
        let settings = LinkSettings::new("127.0.0.1", broker.port(), Some(tls(&pki, &[])), "gw");
        let reason = lost(&mut connect(&LinkSettings { proxy: Some(proxy.clone()), ..settings })).await;
        assert_eq!(reason.class().name(), "proxy", "{reason}");
        assert!(reason.to_string().contains(says), "{reason}");
        assert!(!format!("{reason} {proxy:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_web_server_without_mqtt_is_not_called_a_broken_line() {
    let pki = Pki::new();
    let broker = broker(&pki, "");
    // Plain MQTT where a WebSocket is asked for: the broker hangs up.
    let settings = LinkSettings::new("127.0.0.1", broker.port(), Some(tls(&pki, &[])), "gw");
    let reason = lost(&mut connect(&LinkSettings { websocket: Some("/mqtt".into()), ..settings })).await;
    assert!(matches!(reason, LostReason::WebSocket(_)), "{reason}");
    assert!(reason.to_string().contains("check the path in url"), "{reason}");
}

#[tokio::test]
async fn the_server_hears_the_name_and_the_application_protocol_that_were_configured() {
    let pki = Pki::new();
    let identity = pki.server();
    let chain = CertificateDer::pem_file_iter(&identity.cert).expect("a file").collect::<Result<Vec<_>, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = versions.with_no_client_auth().with_single_cert(chain, key).expect("they go together");
    config.alpn_protocols = vec![b"x-amzn-mqtt-ca".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        let mut line = rustls::StreamOwned::new(rustls::ServerConnection::new(config).expect("a server"), socket);
        let mut first = [0; 1];
        line.read_exact(&mut first).expect("a CONNECT");
        let heard = (line.conn.server_name().map(str::to_owned), line.conn.alpn_protocol().map(<[u8]>::to_vec), first[0]);
        line.write_all(&[0x20, 3, 0, 0, 0]).expect("a CONNACK");
        let _ = line.read_to_end(&mut Vec::new());
        heard
    });
    let offered = tls(&pki, &["h2", "x-amzn-mqtt-ca"]);
    let settings =
        LinkSettings { server_name: Some("localhost".into()), ..LinkSettings::new("127.0.0.1", port, Some(offered), "gw") };
    let mut link = connect(&settings);
    connected(&mut link).await;
    link.close().await;
    let (name, protocol, first) = server.join().expect("no panic");
    assert_eq!((name.as_deref(), protocol.as_deref(), first), (Some("localhost"), Some(&b"x-amzn-mqtt-ca"[..]), 0x10));

    // The certificate has to carry that name, whatever the host is.
    let broker = broker(&pki, "");
    let settings = LinkSettings { server_name: Some("elsewhere.example".into()), port: broker.port(), ..settings };
    assert_eq!(lost(&mut connect(&settings)).await.class().name(), "tls_name");
}

/// Ten lives of a login: to the route it is one connection, and to the broker none that broke.
#[tokio::test]
async fn a_login_that_expires_is_renewed_in_time_without_a_gap() {
    let pki = Pki::new();
    let broker = broker(&pki, "");
    let subscriber = subscribe(&pki, &broker, "sas/#");
    let ttl = Duration::from_millis(1_000);
    let sas = Sas::new("hub/gw/?api-version=2021-04-12".into(), "hub/devices/gw".into(), b"YmVkcmFpbA==\n", ttl).expect("base64");
    let will = Some(Will { topic: "sas/will".into(), payload: b"\"gone\"".to_vec() });
    let settings =
        LinkSettings { sas: Some(sas), will, ..LinkSettings::new("127.0.0.1", broker.port(), Some(tls(&pki, &[])), "gw") };
    let mut link = connect(&settings);
    connected(&mut link).await;
    let (mut sent, mut acked) = (0u64, 0u64);
    let end = tokio::time::Instant::now() + 5 * ttl;
    let mut pause = tokio::time::interval(Duration::from_millis(2));
    while acked < sent || tokio::time::Instant::now() < end {
        tokio::select! {
            event = next(&mut link) => match event {
                LinkEvent::Acked { .. } => acked += 1,
                other => panic!("{other:?}"),
            },
            _ = pause.tick(), if tokio::time::Instant::now() < end => if link.room() > 0 {
                link.publish(sent, Message::new("sas/value", sent.to_string().into_bytes())).expect("room");
                sent += 1;
            },
        }
    }
    link.close().await;
    let logins = broker.log().matches("u'hub/gw/?api-version=2021-04-12'").count();
    assert!((5..=8).contains(&logins), "{logins} logins:\n{}", broker.log());
    let all = |messages: &[support::subscriber::Message]| messages.len() as u64 >= sent;
    assert!(subscriber.wait_until(PATIENCE, all), "{} of {sent}", subscriber.messages().len());
    let arrived: Vec<_> = subscriber.messages().into_iter().map(|message| message.raw).collect();
    assert_eq!(arrived, (0..sent).map(|n| n.to_string()).collect::<Vec<_>>(), "each once, in order, and no last will");
}

const TLS: &str = "{tls}";

/// TLS without client certificates, and whoever says so is let in, with any password. `{tls}` in further listeners stands for
/// the same certificates.
fn broker(pki: &Pki, listeners: &str) -> Broker {
    let server = pki.server();
    let files = format!("cafile {}\ncertfile {}\nkeyfile {}\n", pki.ca().display(), server.cert.display(), server.key.display());
    Broker::start(&BrokerOptions {
        tls: Some(BrokerTls { ca: pki.ca(), server, require_certificate: false }),
        extra: listeners.replace(TLS, &files),
        ..BrokerOptions::default()
    })
}

fn tls(pki: &Pki, alpn: &[&str]) -> Arc<rustls::ClientConfig> {
    let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    client_config(&TlsSettings { route: "live".into(), ca: Some(pki.ca()), client: None, alpn }).expect("good files")
}

fn subscribe(pki: &Pki, broker: &Broker, topic: &str) -> Subscriber {
    let tls = Some((pki.ca(), None));
    Subscriber::start(Receiver { port: broker.port(), client_id: "reader".into(), topic: topic.into(), tls, login: None })
}

async fn send(link: &mut MqttLink, topic: &str, count: u64) {
    connected(link).await;
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && link.room() > 0 {
            link.publish(sent, Message::new(topic, sent.to_string().into_bytes())).expect("room");
            sent += 1;
        }
        match next(link).await {
            LinkEvent::Acked { token, .. } => {
                assert_eq!(token, acked);
                acked += 1;
            }
            other => panic!("{topic}: {other:?}"),
        }
    }
}
