//! Why a route is not up: one word for monitoring, which counts and compares, and one sentence for the person who mends it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::net::TlsFault;

/// The end of a connection, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub class: FaultClass,
    /// Says what happened and what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The words are part of what a gateway publishes: they may become more, and none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// This gateway does not know what time it is: a certificate seems not valid yet, or a token cannot be dated.
    Clock,
    /// The destination's certificate is for another name.
    TlsName,
    /// The destination's certificate is not signed by an authority of `tls.ca`.
    TlsUntrusted,
    TlsExpired,
    /// The destination speaks only what is older than TLS 1.2.
    TlsVersion,
    /// It knows only ciphers that are refused here.
    TlsCipher,
    /// Our certificate is missing or refused.
    TlsClientCertificate,
    /// Any other failed handshake.
    Tls,
    /// Asked to send in the clear to another machine.
    PlainText,
    /// User name, password or token refused.
    Login,
    /// Known, and not allowed.
    NotAuthorized,
    /// No way there: name, route, port, firewall, or nobody answers.
    Unreachable,
    /// The HTTP proxy on the way refuses.
    Proxy,
    /// The line stands and nothing is acknowledged.
    NoProgress,
    /// Another client connected under our name.
    TakenOver,
    /// The destination does not take connections or messages from us, for a reason of its own.
    Refused,
    /// The destination took messages that nobody listens to.
    Unheard,
    /// More messages, octets or connections than the destination allows.
    Quota,
    /// A message larger than the destination takes.
    TooLarge,
    /// The destination is busy or shutting down.
    Busy,
    /// The destination says that it is somewhere else.
    Moved,
    /// The destination ended the connection and said so.
    Ended,
    /// The line broke, or what came over it made no sense.
    Broken,
}

impl FaultClass {
    pub const ALL: [Self; 23] = [
        Self::Clock,
        Self::TlsName,
        Self::TlsUntrusted,
        Self::TlsExpired,
        Self::TlsVersion,
        Self::TlsCipher,
        Self::TlsClientCertificate,
        Self::Tls,
        Self::PlainText,
        Self::Login,
        Self::NotAuthorized,
        Self::Unreachable,
        Self::Proxy,
        Self::NoProgress,
        Self::TakenOver,
        Self::Refused,
        Self::Unheard,
        Self::Quota,
        Self::TooLarge,
        Self::Busy,
        Self::Moved,
        Self::Ended,
        Self::Broken,
    ];

    /// Why a TLS handshake failed.
    pub const fn of_tls(fault: TlsFault) -> Self {
        match fault {
            TlsFault::NotYetValid => Self::Clock,
            TlsFault::Expired => Self::TlsExpired,
            TlsFault::WrongHost => Self::TlsName,
            TlsFault::UnknownIssuer => Self::TlsUntrusted,
            TlsFault::ClientCertificateRequired | TlsFault::ClientCertificateRefused => Self::TlsClientCertificate,
            TlsFault::ProtocolVersion => Self::TlsVersion,
            TlsFault::NothingInCommon => Self::TlsCipher,
            TlsFault::Other => Self::Tls,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::TlsName => "tls_name",
            Self::TlsUntrusted => "tls_untrusted",
            Self::TlsExpired => "tls_expired",
            Self::TlsVersion => "tls_version",
            Self::TlsCipher => "tls_cipher",
            Self::TlsClientCertificate => "tls_client_certificate",
            Self::Tls => "tls",
            Self::PlainText => "plain_text",
            Self::Login => "login",
            Self::NotAuthorized => "not_authorized",
            Self::Unreachable => "unreachable",
            Self::Proxy => "proxy",
            Self::NoProgress => "no_progress",
            Self::TakenOver => "taken_over",
            Self::Refused => "refused",
            Self::Unheard => "unheard",
            Self::Quota => "quota",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::Moved => "moved",
            Self::Ended => "ended",
            Self::Broken => "broken",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_one_word_wherever_it_is_written() {
        for class in FaultClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
            assert!(
                include_str!("../../docs/mqtt.md").contains(&format!("`{}`", class.name())),
                "{} is not documented",
                class.name()
            );
        }
    }
}
