//! The MQTT route: `render` is pure, `connection` is the one file that knows the client library, `send` joins them.
