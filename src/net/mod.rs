//! Every connection the gateway opens: the way there, and one TLS configuration.

mod dial;
mod tls;

pub use dial::{DialError, Dialled, Line, Proxy, dial, is_this_machine};
pub use tls::{ClientIdentity, TlsError, TlsFault, TlsSettings, classify, client_config};
