//! From a route's settings to a link's: secrets are read, certificates loaded, logins made ready.

use std::time::Duration;

use zeroize::Zeroizing;

use super::DaemonError;
use super::deliver::gateway_topic;
use crate::config::{self, CredentialsDir, MqttSettings, SasSettings, SecretError, SecretRef, Settings, secret};
use crate::deliver::mqtt::{LinkSettings, Login, Sas, Subscription, Will};
use crate::monitor::{Absence, offline};
use crate::net::{ClientIdentity, Proxy, TlsSettings, client_config};

/// How long a broker keeps receipts for a gateway that is not connected: longer than a restart, and what is not confirmed by
/// then goes again.
const RECEIPTS_KEPT: Duration = Duration::from_secs(3_600);
/// The one Azure documents for device keys.
const IOT_HUB_API: &str = "2021-04-12";

pub fn settings(settings: &Settings, route: &config::RouteSettings, mqtt: &MqttSettings) -> Result<LinkSettings, DaemonError> {
    let credentials = &settings.gateway.credentials;
    let tls = match &mqtt.tls {
        None => None,
        Some(tls) => {
            let client = match &tls.client {
                None => None,
                Some(client) => Some(ClientIdentity { cert: client.cert.clone(), key: secret::read(&client.key, credentials)? }),
            };
            let alpn = tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
            Some(client_config(&TlsSettings { route: route.name.clone(), ca: Some(tls.ca.clone()), client, alpn })?)
        }
    };
    let proxy = match &mqtt.proxy {
        None => None,
        Some(proxy) => {
            let login = login(proxy.username.as_ref(), proxy.password.as_ref(), credentials)?;
            let login = login.map(|login| (login.username, login.password));
            Some(Proxy { host: proxy.host.clone(), port: proxy.port, login })
        }
    };
    let will = Will { topic: gateway_topic(settings), payload: offline(&settings.gateway.id, Absence::Lost) };
    Ok(LinkSettings {
        protocol: mqtt.protocol,
        server_name: mqtt.tls.as_ref().and_then(|tls| tls.server_name.clone()),
        websocket: mqtt.websocket.clone(),
        proxy,
        login: login(mqtt.username.as_ref(), mqtt.password.as_ref(), credentials)?,
        sas: mqtt.sas.as_ref().map(|wanted| sas(wanted, route, mqtt, credentials)).transpose()?,
        will: mqtt.announce.then_some(will),
        keep_alive: mqtt.keep_alive,
        window: mqtt.window,
        max_packet: mqtt.max_packet,
        max_qos: mqtt.max_qos,
        retain: mqtt.retain,
        ..LinkSettings::new(mqtt.host.clone(), mqtt.port, tls, mqtt.client_id.clone())
    })
}

/// The connection that hears a route's receipts: a client of its own, for a broker throws out the older of two of one name.
pub fn of_receipts(link: &LinkSettings, mqtt: &MqttSettings) -> (LinkSettings, Subscription) {
    let link = LinkSettings { client_id: format!("{}-receipts", link.client_id), will: None, ..link.clone() };
    (link, Subscription { topics: vec![mqtt.receipt_topic.clone()], session: Some(RECEIPTS_KEPT) })
}

fn login(
    username: Option<&String>,
    password: Option<&SecretRef>,
    credentials: &CredentialsDir,
) -> Result<Option<Login>, SecretError> {
    let Some(username) = username else { return Ok(None) };
    let password = password.map(|password| secret::read(password, credentials)).transpose()?;
    let text = password.map(|octets| String::from_utf8_lossy(&octets).trim_end_matches(['\r', '\n']).to_owned());
    Ok(Some(Login { username: username.clone(), password: Zeroizing::new(text.unwrap_or_default()) }))
}

/// The device is the client id, as IoT Hub demands.
fn sas(
    wanted: &SasSettings,
    route: &config::RouteSettings,
    mqtt: &MqttSettings,
    credentials: &CredentialsDir,
) -> Result<Sas, DaemonError> {
    let (hub, device) = (&mqtt.host, &mqtt.client_id);
    let username = mqtt.username.clone().unwrap_or_else(|| format!("{hub}/{device}/?api-version={IOT_HUB_API}"));
    let key = secret::read(&wanted.key, credentials)?;
    Sas::new(username, format!("{hub}/devices/{device}"), &key, wanted.ttl)
        .map_err(|source| DaemonError::Sas { route: route.name.clone(), source })
}
