//! One TLS configuration for every connection the gateway opens.

mod tls;

pub use tls::{ClientIdentity, TlsError, TlsFault, TlsSettings, classify, client_config};
