//! One TLS configuration for every connection the gateway opens.
