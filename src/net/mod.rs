//! Every connection the gateway opens: the way there, and one TLS configuration.

mod dial;
mod http;
mod tls;

pub use dial::{DialError, Dialled, Line, Proxy, dial, is_this_machine};
pub use http::{HttpAnswer, HttpClient, HttpError};
pub use tls::{ClientIdentity, TlsError, TlsFault, TlsSettings, classify, client_config};

/// What a URL need not encode (RFC 3986, 2.3).
pub const UNRESERVED: percent_encoding::AsciiSet =
    percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
