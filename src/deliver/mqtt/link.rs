//! What the deliver shell may know of a connection to a broker: a window to fill, acknowledgements to settle on, one end.
//! A test plays the broker by scripting this trait.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::sas::Sas;
use crate::config::Protocol;
use crate::deliver::{Fault, FaultClass};
use crate::net::{Proxy, TlsFault};

/// One connection. It ends once, with [`LinkEvent::Lost`], and is never mended: the shell makes a new one and sends again
/// whatever was not acknowledged.
pub trait Link: Send {
    /// Hands over one message. `token` comes back in its acknowledgement.
    fn publish(&mut self, token: u64, message: Message) -> Result<usize, NotTaken>;

    /// How many messages it takes now; 0 until connected.
    fn room(&self) -> usize;

    /// The next thing that happened. Cancel safe. After `Lost` it says `Lost` again.
    fn event(&mut self) -> impl Future<Output = LinkEvent> + Send;

    /// An orderly end: the broker drops the last will, so publish an offline status before.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
    /// Media type of the payload, where the protocol can carry one (MQTT 5, 3.3.2.3.9).
    pub content_type: Option<&'static str>,
}

impl Message {
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), retain: false, content_type: None }
    }

    #[must_use]
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the window is full")]
    Full,
    /// The broker would end the connection over it, so it is the message that has to give way.
    #[error("the message has {bytes} octets and at most {max} may go; raise max_packet of the route or the broker's own limit")]
    TooLarge { bytes: usize, max: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    Connected {
        /// Messages in flight at most: ours, or the broker's receive maximum if that is lower.
        window: u16,
        /// Octets in a packet at most, ours or the broker's limit.
        max_packet: u32,
    },
    /// At QoS 0 nobody acknowledges: it says success when the message has left the process.
    Acked {
        token: u64,
        reason: AckReason,
    },
    Lost(LostReason),
}

/// What the broker said about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckReason {
    Success,
    /// 0x10: taken, and nobody listens.
    NoMatchingSubscribers,
    Refused(RefusalCode),
}

/// A PUBACK reason code of 0x80 or above (MQTT 5, table 3-4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusalCode(pub u8);

impl RefusalCode {
    pub const UNSPECIFIED: Self = Self(0x80);
    pub const IMPLEMENTATION_SPECIFIC: Self = Self(0x83);
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    pub const PACKET_IDENTIFIER_IN_USE: Self = Self(0x91);
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::NOT_AUTHORIZED => "not authorized; allow this client to publish to the topic in the broker's access rules",
            Self::TOPIC_NAME_INVALID => "topic name invalid; change topic in the route",
            Self::QUOTA_EXCEEDED => "quota exceeded; raise the broker's limit, or lower max_rate",
            Self::PAYLOAD_FORMAT_INVALID => "payload format invalid; look into the broker's log",
            Self::IMPLEMENTATION_SPECIFIC => "not accepted by this broker; look into its log",
            Self::PACKET_IDENTIFIER_IN_USE => "packet identifier in use; the connection is made anew",
            _ => "refused without a reason; look into the broker's log",
        };
        write!(f, "0x{:02x}: {text}", self.0)
    }
}

impl fmt::Debug for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.0)
    }
}

/// Why a connection ended or never came to be. Texts say what to do where there is something to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    #[error("without TLS only a broker on this machine is spoken to; use mqtts:// and set tls.ca")]
    PlainText,
    #[error("cannot reach the broker: {0}; check url, the network and that the broker runs")]
    Unreachable(String),
    #[error("the proxy on the way: {0}")]
    Proxy(String),
    #[error("no WebSocket there: {0}; check the path in url and that the broker offers WebSocket on that port")]
    WebSocket(String),
    #[error("this gateway's clock says {0}, so no token can be dated; check time synchronisation")]
    ClockUnset(String),
    #[error("TLS: {fault} ({detail})")]
    Tls { fault: TlsFault, detail: String },
    #[error("the broker refused the login; check username and password of the route")]
    BadLogin,
    #[error(
        "the broker did not authorize this gateway; check username, password, client certificate and client_id, and the broker's access rules"
    )]
    NotAuthorized,
    #[error("the broker refused the connection: {text}; {}", remedy(*class))]
    Refused { class: FaultClass, text: String },
    #[error("the broker refused the token; check sas.key, client_id and this gateway's clock")]
    TokenRefused,
    #[error("no connection within {} s; check url, firewalls and that the broker runs", .0.as_secs())]
    ConnectDeadline(Duration),
    #[error("no acknowledgement for {} s with {in_flight} messages under way; the broker hangs or the line is dead", after.as_secs())]
    NoProgress { in_flight: usize, after: Duration },
    #[error("no answer to a ping within {} s; the broker hangs or the line is dead", .0.as_secs())]
    NoPing(Duration),
    #[error("the broker refused the subscription: {0}; allow this client to read the topic in the broker's access rules")]
    NotSubscribed(String),
    #[error("another client connected as this one; give each gateway a client_id of its own")]
    TakenOver,
    #[error("the broker ended the connection: {text}; {}", remedy(*class))]
    Ended { class: FaultClass, text: String },
    #[error("the connection broke: {0}")]
    Broken(String),
}

const fn remedy(class: FaultClass) -> &'static str {
    match class {
        FaultClass::Busy => "it is tried again after a while",
        FaultClass::Quota => "raise the broker's limit, or lower max_rate; it is tried again after a while",
        FaultClass::TooLarge => "raise the broker's limit, or lower max_packet",
        FaultClass::Moved => "change url to where it is now",
        _ => "look into the broker's log",
    }
}

impl LostReason {
    /// Refused for a reason that says nothing about when to come back.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused { class: FaultClass::Refused, text: text.into() }
    }

    pub const fn class(&self) -> FaultClass {
        match self {
            Self::PlainText => FaultClass::PlainText,
            Self::Unreachable(_) | Self::ConnectDeadline(_) => FaultClass::Unreachable,
            Self::Proxy(_) => FaultClass::Proxy,
            Self::WebSocket(_) => FaultClass::Refused,
            Self::ClockUnset(_) => FaultClass::Clock,
            Self::Tls { fault, .. } => FaultClass::of_tls(*fault),
            Self::BadLogin | Self::TokenRefused => FaultClass::Login,
            Self::NotAuthorized | Self::NotSubscribed(_) => FaultClass::NotAuthorized,
            Self::NoProgress { .. } | Self::NoPing(_) => FaultClass::NoProgress,
            Self::TakenOver => FaultClass::TakenOver,
            Self::Refused { class, .. } | Self::Ended { class, .. } => *class,
            Self::Broken(_) => FaultClass::Broken,
        }
    }

    pub fn fault(&self) -> Fault {
        Fault { class: self.class(), text: self.to_string() }
    }
}

/// All there is to know to make a connection.
#[derive(Clone)]
pub struct LinkSettings {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
    /// `None` is plain TCP, and refused for any broker but one on this machine.
    pub tls: Option<Arc<ClientConfig>>,
    /// Asked for in the handshake and looked for in the certificate instead of `host`.
    pub server_name: Option<String>,
    /// Path of a WebSocket; `None` is MQTT itself.
    pub websocket: Option<String>,
    pub proxy: Option<Proxy>,
    pub client_id: String,
    pub login: Option<Login>,
    /// Makes the login anew for each connection, and the connection anew before it expires.
    pub sas: Option<Sas>,
    pub will: Option<Will>,
    /// At least 5 s.
    pub keep_alive: Duration,
    /// Messages in flight at most, 1 to 1,024.
    pub window: u16,
    /// Octets in a packet, sent or accepted, at most.
    pub max_packet: u32,
    /// 1, or 0 where nothing is acknowledged.
    pub max_qos: u8,
    /// Whether messages, and the last will, may be retained.
    pub retain: bool,
    pub connect_deadline: Duration,
    /// How long the broker may acknowledge nothing while something is under way.
    pub progress_deadline: Duration,
}

#[derive(Clone)]
pub struct Login {
    pub username: String,
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).field("password", &"<password>").finish()
    }
}

/// What the broker publishes, retained, at QoS 1, when the gateway is gone without saying so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
}

impl LinkSettings {
    /// Long enough not to wake a mobile modem all the time, short enough that the last will comes within a minute.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
    /// Fills a line of 10 ms round trip with 6,000 messages a second; more only adds repeats after a lost connection.
    pub const WINDOW: u16 = 64;
    /// What the larger cloud brokers take; a window or a reading needs a hundredth.
    pub const MAX_PACKET: u32 = 128 << 10;
    /// DNS, TCP, TLS and CONNACK over a poor mobile line.
    pub const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
    pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(30);

    pub fn new(host: impl Into<String>, port: u16, tls: Option<Arc<ClientConfig>>, client_id: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            protocol: Protocol::V5,
            tls,
            server_name: None,
            websocket: None,
            proxy: None,
            client_id: client_id.into(),
            login: None,
            sas: None,
            will: None,
            keep_alive: Self::KEEP_ALIVE,
            window: Self::WINDOW,
            max_packet: Self::MAX_PACKET,
            max_qos: 1,
            retain: true,
            connect_deadline: Self::CONNECT_DEADLINE,
            progress_deadline: Self::PROGRESS_DEADLINE,
        }
    }
}
