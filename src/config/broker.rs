//! Addresses of brokers and proxies, as the config writes them.

use std::net::{IpAddr, Ipv6Addr};

use super::value::shown;

/// Where brokers offer their WebSocket, unless told otherwise.
const WEBSOCKET_PATH: &str = "/mqtt";

/// Where an MQTT broker listens.
#[derive(Debug, PartialEq, Eq)]
pub struct Broker {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Of a WebSocket.
    pub path: Option<String>,
}

impl Broker {
    pub fn parse(url: &str) -> Result<Self, String> {
        let wants = "write \"mqtts://HOST\", \"mqtts://HOST:PORT\" or \"wss://HOST/PATH\"";
        let wrong = || format!("`{}` is not the address of a broker; {wants}", shown(url));
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (tls, websocket, port) = match scheme {
            "mqtts" => (true, false, 8883),
            "mqtt" => (false, false, 1883),
            "wss" => (true, true, 443),
            "ws" => (false, true, 80),
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !websocket && !matches!(path, "" | "/") {
            return Err(format!("the address of a broker has no path, unless it is a WebSocket; {wants}"));
        }
        if path.contains('#') || !path.is_ascii() || path.starts_with('?') {
            return Err(wrong());
        }
        let path = websocket.then(|| if matches!(path, "" | "/") { WEBSOCKET_PATH } else { path }.to_owned());
        let (host, port) = host_and_port(authority, Some(port)).ok_or_else(wrong)?;
        Ok(Self { tls, host, port, path })
    }

    pub fn is_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// Host and port of `http://HOST:PORT`. The port is written: none is usual for proxies.
pub fn proxy_address(url: &str) -> Result<(String, u16), String> {
    let authority = url.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let address = authority.and_then(|authority| host_and_port(authority, None));
    address.ok_or_else(|| format!("`{}` is not the address of a proxy; write \"http://HOST:PORT\"", shown(url)))
}

fn host_and_port(authority: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default?,
    };
    is_host(host).then(|| (host.to_owned(), port))
}

/// A name or an address without brackets.
pub fn is_host(host: &str) -> bool {
    let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.bytes().all(in_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_has_a_host_and_a_port() {
        let at = |host: &str, port, tls| Ok(Broker { tls, host: host.to_owned(), port, path: None });
        assert_eq!(Broker::parse("mqtts://broker.example"), at("broker.example", 8883, true));
        assert_eq!(Broker::parse("mqtts://broker.example:443/"), at("broker.example", 443, true));
        assert_eq!(Broker::parse("mqtt://127.0.0.1"), at("127.0.0.1", 1883, false));
        assert_eq!(Broker::parse("mqtt://[::1]:18830"), at("::1", 18830, false));
        assert_eq!(Broker::parse("mqtts://[2001:db8::1]"), at("2001:db8::1", 8883, true));
        for wrong in [
            "https://a",
            "mqtts://a:0",
            "mqtts://a:b",
            "mqtts://a:",
            "mqtts://a/b",
            "mqtts://[::1",
            "mqtts://[x]",
            "mqtts://[::1]x",
            "mqtts://ä",
            "wss://a/b#c",
            "wss://a?b",
            "wss:///mqtt",
        ] {
            assert!(Broker::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_websocket_has_a_path_too() {
        let at = |port, tls, path: &str| Ok(Broker { tls, host: "a.example".to_owned(), port, path: Some(path.to_owned()) });
        assert_eq!(Broker::parse("wss://a.example"), at(443, true, "/mqtt"));
        assert_eq!(Broker::parse("wss://a.example:8084/"), at(8084, true, "/mqtt"));
        assert_eq!(
            Broker::parse("wss://a.example/$iothub/websocket?iothub-no-client-cert=true"),
            at(443, true, "/$iothub/websocket?iothub-no-client-cert=true")
        );
        assert_eq!(Broker::parse("ws://a.example/x"), at(80, false, "/x"));
    }

    #[test]
    fn a_proxy_has_a_port() {
        assert_eq!(proxy_address("http://proxy.example:3128/"), Ok(("proxy.example".to_owned(), 3128)));
        assert_eq!(proxy_address("http://[fd00::1]:8080"), Ok(("fd00::1".to_owned(), 8080)));
        for wrong in ["http://proxy.example", "https://proxy.example:1", "proxy.example:3128", "http://a:b", "http://a:1/x"] {
            assert!(proxy_address(wrong).is_err(), "{wrong}");
        }
    }
}
