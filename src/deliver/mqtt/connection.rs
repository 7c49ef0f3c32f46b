//! The one file that knows the MQTT client library.
//!
//! One connection is one event loop with a clean start, in a task of its own, dropped whole at the first error: the
//! library's own reconnect clears what it had queued, and cancelling its `poll` can lose a message it already counts as
//! sent. What was not acknowledged is the shell's to send again, from the log.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, LastWill, Packet, PubAckReason, PublishProperties};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, TlsError, Transport};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::ended_by;
use super::link::{AckReason, Link, LinkEvent, LinkSettings, LostReason, Message, NotTaken, RefusalCode};
use crate::deliver::FaultClass;
use crate::net::classify;

/// The library keeps a slot of some 250 octets for each packet id it may use, so this bounds its memory to 4 MiB.
const MAX_WINDOW: u16 = 1024;
/// Packet ids a window: a broker that acknowledges out of order must not meet an id still in use.
const IDS_PER_WINDOW: u16 = 16;
/// The library panics below it.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The one name that needs no TLS, and the address it stands for.
const LOCALHOST: &str = "localhost";
const LOOPBACK: &str = "127.0.0.1";
/// How long a DISCONNECT may take before the connection is dropped without it.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Starts connecting; the first event says how that went. Call it inside a tokio runtime.
pub fn connect(settings: &LinkSettings) -> MqttLink {
    let window = settings.window.clamp(1, MAX_WINDOW);
    let (client, event_loop) = AsyncClient::new(options(settings, window), window.into());
    // Each message makes one note, its acknowledgement, so the loop never waits for a shell that is busy.
    let (sender, notes) = mpsc::channel(usize::from(window) + 2);
    let (tokens, handed) = std::sync::mpsc::channel();
    let task = if settings.tls.is_some() || is_this_machine(&settings.host) {
        tokio::spawn(run(event_loop, handed, sender))
    } else {
        tokio::spawn(async move { drop(sender.send(Note::Lost(LostReason::PlainText)).await) })
    };
    MqttLink {
        client,
        tokens,
        notes,
        task: AbortOnDropHandle::new(task),
        window,
        max_packet: settings.max_packet,
        connected: false,
        under_way: 0,
        connect_deadline: settings.connect_deadline,
        progress_deadline: settings.progress_deadline,
        deadline: Some(Instant::now() + settings.connect_deadline),
        lost: None,
    }
}

fn options(settings: &LinkSettings, window: u16) -> MqttOptions {
    let mut options = MqttOptions::new(&settings.client_id, dialled(settings), settings.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let tls = settings.tls.clone().map(TlsConfiguration::Rustls);
    options
        .set_transport(tls.map_or(Transport::Tcp, Transport::Tls))
        .set_network_options(network)
        .set_clean_start(true)
        .set_keep_alive(settings.keep_alive.max(MIN_KEEP_ALIVE))
        .set_outgoing_inflight_upper_limit(window * IDS_PER_WINDOW)
        .set_max_packet_size(Some(settings.max_packet))
        // The link's own deadline comes first.
        .set_connection_timeout(settings.connect_deadline.as_secs() + 1);
    if let Some(login) = &settings.login {
        options.set_credentials(&login.username, login.password.as_str());
    }
    if let Some(will) = &settings.will {
        options.set_last_will(LastWill::new(&will.topic, will.payload.clone(), QoS::AtLeastOnce, true, None));
    }
    options
}

/// Who `localhost` is, is not asked of a name server where no certificate would tell.
fn dialled(settings: &LinkSettings) -> &str {
    if settings.tls.is_none() && settings.host == LOCALHOST { LOOPBACK } else { &settings.host }
}

fn is_this_machine(host: &str) -> bool {
    host == LOCALHOST || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What the loop's task tells the link.
enum Note {
    Connected { receive_maximum: Option<u16>, max_packet: Option<u32> },
    Acked(u64, AckReason),
    Lost(LostReason),
}

/// `handed` has the tokens of what was handed to the loop, in order: a fresh loop sends in this order and nothing else. Which
/// packet id each got is kept here, so that the shell is woken once a message.
async fn run(mut event_loop: EventLoop, handed: std::sync::mpsc::Receiver<u64>, notes: mpsc::Sender<Note>) {
    let mut in_flight: HashMap<u16, u64> = HashMap::new();
    loop {
        let note = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                let properties = ack.properties.as_ref();
                Note::Connected {
                    receive_maximum: properties.and_then(|p| p.receive_max),
                    max_packet: properties.and_then(|p| p.max_packet_size),
                }
            }
            Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                in_flight.extend(handed.try_recv().ok().map(|token| (id, token)));
                continue;
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let Some(token) = in_flight.remove(&ack.pkid) else { continue };
                Note::Acked(token, ack_reason(ack.reason))
            }
            Ok(_) => continue,
            Err(error) => {
                // A link that no longer listens needs no reason.
                let _ = notes.send(Note::Lost(lost_reason(error))).await;
                return;
            }
        };
        if notes.send(note).await.is_err() {
            return;
        }
    }
}

pub struct MqttLink {
    client: AsyncClient,
    tokens: std::sync::mpsc::Sender<u64>,
    notes: mpsc::Receiver<Note>,
    task: AbortOnDropHandle<()>,
    window: u16,
    max_packet: u32,
    connected: bool,
    /// Handed to the loop and not acknowledged.
    under_way: usize,
    connect_deadline: Duration,
    progress_deadline: Duration,
    /// By when something must happen; `None` while nothing is owed.
    deadline: Option<Instant>,
    lost: Option<LostReason>,
}

impl Link for MqttLink {
    fn publish(&mut self, token: u64, message: Message) -> Result<(), NotTaken> {
        if self.room() == 0 {
            return Err(NotTaken::Full);
        }
        let bytes = packet_len(&message);
        if bytes > self.max_packet as usize {
            return Err(NotTaken::TooLarge { bytes, max: self.max_packet });
        }
        // The loop's queue is as long as the window, so this fails only when the loop is gone; `event` then says why.
        self.tokens.send(token).map_err(|_| NotTaken::Full)?;
        let Message { topic, payload, retain, content_type } = message;
        let sent = match content_type {
            None => self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload),
            Some(content_type) => {
                let properties = PublishProperties { content_type: Some(content_type.to_owned()), ..Default::default() };
                self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties)
            }
        };
        sent.map_err(|_| NotTaken::Full)?;
        self.under_way += 1;
        self.deadline.get_or_insert(Instant::now() + self.progress_deadline);
        Ok(())
    }

    fn room(&self) -> usize {
        if !self.connected || self.lost.is_some() {
            return 0;
        }
        usize::from(self.window).saturating_sub(self.under_way)
    }

    async fn event(&mut self) -> LinkEvent {
        loop {
            if let Some(reason) = &self.lost {
                return LinkEvent::Lost(reason.clone());
            }
            // What has happened comes before what is late: a busy shell must not find its own delay in the watchdog.
            let note = tokio::select! {
                biased;
                note = self.notes.recv() => note,
                () = until(self.deadline) => Some(Note::Lost(self.late())),
            };
            if let Some(event) = self.take(note) {
                return event;
            }
        }
    }

    async fn close(mut self) {
        if self.client.try_disconnect().is_err() {
            return;
        }
        // The loop goes on until the broker hangs up; its notes are read so that it is never stuck on them.
        let drained = async { while self.notes.recv().await.is_some() {} };
        let _ = timeout(CLOSE_GRACE, drained).await;
    }
}

impl MqttLink {
    fn take(&mut self, note: Option<Note>) -> Option<LinkEvent> {
        match note {
            Some(Note::Connected { receive_maximum, max_packet }) => {
                self.connected = true;
                self.deadline = None;
                self.window = self.window.min(receive_maximum.unwrap_or(u16::MAX)).max(1);
                self.max_packet = self.max_packet.min(max_packet.unwrap_or(u32::MAX));
                Some(LinkEvent::Connected { window: self.window, max_packet: self.max_packet })
            }
            Some(Note::Acked(token, reason)) => {
                self.under_way -= 1;
                self.deadline = (self.under_way > 0).then(|| Instant::now() + self.progress_deadline);
                Some(LinkEvent::Acked { token, reason })
            }
            Some(Note::Lost(reason)) => Some(self.lose(reason)),
            None => Some(self.lose(LostReason::Broken("its task ended".into()))),
        }
    }

    fn late(&self) -> LostReason {
        if self.connected {
            LostReason::NoProgress { in_flight: self.under_way, after: self.progress_deadline }
        } else {
            LostReason::ConnectDeadline(self.connect_deadline)
        }
    }

    fn lose(&mut self, reason: LostReason) -> LinkEvent {
        self.task.abort();
        self.lost = Some(reason.clone());
        LinkEvent::Lost(reason)
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A QoS 1 PUBLISH (MQTT 5, 3.3): type, length, topic, packet id, length of properties, content type, payload.
pub(super) fn packet_len(message: &Message) -> usize {
    let properties = message.content_type.map_or(0, |content_type| 1 + 2 + content_type.len());
    let remaining = 2 + message.topic.len() + 2 + length_octets(properties) + properties + message.payload.len();
    1 + length_octets(remaining) + remaining
}

/// A variable byte integer (MQTT 5, 1.5.5).
const fn length_octets(length: usize) -> usize {
    match length {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

const fn ack_reason(reason: PubAckReason) -> AckReason {
    match reason {
        PubAckReason::Success => AckReason::Success,
        PubAckReason::NoMatchingSubscribers => AckReason::NoMatchingSubscribers,
        PubAckReason::UnspecifiedError => AckReason::Refused(RefusalCode::UNSPECIFIED),
        PubAckReason::ImplementationSpecificError => AckReason::Refused(RefusalCode::IMPLEMENTATION_SPECIFIC),
        PubAckReason::NotAuthorized => AckReason::Refused(RefusalCode::NOT_AUTHORIZED),
        PubAckReason::TopicNameInvalid => AckReason::Refused(RefusalCode::TOPIC_NAME_INVALID),
        PubAckReason::PacketIdentifierInUse => AckReason::Refused(RefusalCode::PACKET_IDENTIFIER_IN_USE),
        PubAckReason::QuotaExceeded => AckReason::Refused(RefusalCode::QUOTA_EXCEEDED),
        PubAckReason::PayloadFormatInvalid => AckReason::Refused(RefusalCode::PAYLOAD_FORMAT_INVALID),
    }
}

fn lost_reason(error: ConnectionError) -> LostReason {
    match error {
        ConnectionError::Tls(TlsError::TLS(error)) => tls(&error),
        ConnectionError::Tls(TlsError::Io(error)) => io_reason(&error),
        ConnectionError::Tls(error) => LostReason::Unreachable(error.to_string()),
        ConnectionError::Io(error) => LostReason::Unreachable(error.to_string()),
        ConnectionError::ConnectionRefused(code) | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            refused(code)
        }
        // The broker's view of our certificate arrives with the first read, after our side of the handshake is done.
        ConnectionError::MqttState(StateError::Deserialization(CodecError::Io(error)) | StateError::Io(error)) => {
            io_reason(&error)
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            ended(reason_code, reason_string)
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => LostReason::Broken("no answer to a ping".into()),
        ConnectionError::MqttState(StateError::ConnectionAborted) => LostReason::Broken("the broker hung up".into()),
        other => LostReason::Broken(other.to_string()),
    }
}

fn tls(error: &rustls::Error) -> LostReason {
    LostReason::Tls { fault: classify(error), detail: error.to_string() }
}

fn io_reason(error: &io::Error) -> LostReason {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls(error),
        None => LostReason::Broken(error.to_string()),
    }
}

fn refused(code: ConnectReturnCode) -> LostReason {
    match code {
        ConnectReturnCode::BadUserNamePassword => LostReason::BadLogin,
        ConnectReturnCode::NotAuthorized => LostReason::NotAuthorized,
        other => {
            let code = match other {
                ConnectReturnCode::ServerBusy => 0x89,
                ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => 0x88,
                ConnectReturnCode::PacketTooLarge => 0x95,
                ConnectReturnCode::QuotaExceeded => 0x97,
                ConnectReturnCode::UseAnotherServer => 0x9C,
                ConnectReturnCode::ServerMoved => 0x9D,
                ConnectReturnCode::ConnectionRateExceeded => 0x9F,
                _ => 0x80,
            };
            let class = ended_by(code).unwrap_or(FaultClass::Refused);
            LostReason::Refused { class, text: format!("{other:?}") }
        }
    }
}

fn ended(code: DisconnectReasonCode, text: Option<String>) -> LostReason {
    if code == DisconnectReasonCode::SessionTakenOver {
        return LostReason::TakenOver;
    }
    LostReason::Ended {
        class: ended_by(code as u8).unwrap_or(FaultClass::Ended),
        text: text.unwrap_or_else(|| format!("{code:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore, crypto::ring};

    use super::*;

    #[test]
    fn in_the_clear_localhost_is_this_machine_whatever_a_name_server_says() {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
        let tls = Arc::new(tls.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        let dials = |tls| options(&LinkSettings::new("localhost", 1883, tls, "gw"), 1).broker_address().0;
        assert_eq!(dials(None), "127.0.0.1");
        assert_eq!(dials(Some(tls)), "localhost", "a certificate is for the name in the config");
    }

    #[test]
    fn the_end_a_broker_gives_says_how_to_come_back() {
        let ended = |code| ended(code, None).class();
        assert_eq!(ended(DisconnectReasonCode::ServerShuttingDown), FaultClass::Busy);
        assert_eq!(ended(DisconnectReasonCode::SessionTakenOver), FaultClass::TakenOver);
        assert_eq!(ended(DisconnectReasonCode::KeepAliveTimeout), FaultClass::Ended);
        assert_eq!(refused(ConnectReturnCode::QuotaExceeded).class(), FaultClass::Quota);
        assert_eq!(refused(ConnectReturnCode::Banned).class(), FaultClass::Refused);
    }

    #[test]
    fn a_packet_is_measured_as_the_library_writes_it() {
        use rumqttc::v5::mqttbytes::v5::Publish;
        for content_type in [None, Some("application/json")] {
            for size in [0, 94, 95, 100, 113, 114, 16_000, 16_370, 20_000, 2_100_000] {
                let message = Message { content_type, ..Message::new("bedrail/gw", vec![0; size]) };
                let properties = content_type
                    .map(|text| PublishProperties { content_type: Some(text.to_owned()), ..PublishProperties::default() });
                let mut publish = Publish::new("bedrail/gw", QoS::AtLeastOnce, message.payload.clone(), properties);
                publish.pkid = 1;
                assert_eq!(packet_len(&message), publish.size(), "{size} {content_type:?}");
            }
        }
    }
}
