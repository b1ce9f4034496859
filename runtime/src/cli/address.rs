//! The address of the admin API, as options and `listen.json` have it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Host and port of the admin API. `http://` before them and `/` after them are accepted and ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdminAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    /// A name; only `localhost` is known to be this machine.
    Name(String),
}

impl AdminAddress {
    /// Where `up` listens unless an option says otherwise.
    pub(super) const DEFAULT: Self = Self { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 8081 };

    /// Whether the address can only be on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address to listen on. The error says what to write instead.
    pub(super) fn to_listen(&self) -> Result<SocketAddr, String> {
        let port = self.port;
        match &self.host {
            Host::Ip(ip) if self.is_loopback() => Ok(SocketAddr::new(*ip, port)),
            Host::Name(_) if self.is_loopback() => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            _ => Err(format!(
                "--admin {self} can be reached from other machines, but the admin API has no TLS, so tokens could be \
                 read on the way; write --admin 127.0.0.1:{port}, and reach it from another machine with \
                 `ssh -L {port}:127.0.0.1:{port} HOST`, or over a proxy on this machine that has TLS"
            )),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "write an address and a port, such as 127.0.0.1:8081 or http://localhost:8081";
        if text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")) {
            return Err(format!("the admin API has no TLS; {expected}"));
        }
        let rest = match text.get(..7) {
            Some(start) if start.eq_ignore_ascii_case("http://") => text.get(7..).unwrap_or_default(),
            _ => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Ok(address) = rest.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(address.ip()), port: address.port() });
        }
        let (name, port) = rest.rsplit_once(':').ok_or(expected)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let is_port = port.chars().all(|c| c.is_ascii_digit());
        match port.parse() {
            Ok(port) if is_port && !name.is_empty() && name.chars().all(is_name) => {
                Ok(Self { host: Host::Name(name.to_owned()), port })
            }
            _ => Err(expected.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_accepted_with_and_without_its_scheme() {
        for (text, shown) in [
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("http://127.0.0.1:8081", "127.0.0.1:8081"),
            ("HTTP://[::1]:8081/", "[::1]:8081"),
            ("http://localhost:8081/", "localhost:8081"),
            ("evoke.example:8081", "evoke.example:8081"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in
            ["", "8081", "localhost", "https://localhost:8081", "http://", "a b:1", "localhost:+1", "x@y:1", "a:1/path"]
        {
            assert!(wrong.parse::<AdminAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_addresses_can_be_listened_on() {
        for text in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8081", "localhost:8081", "[::ffff:127.0.0.1]:1"] {
            assert!(text.parse::<AdminAddress>().unwrap().to_listen().unwrap().ip().to_canonical().is_loopback());
        }
        for text in ["0.0.0.0:8081", "[::]:8081", "192.0.2.1:8081", "evoke.example:8081", "localhost.example:1"] {
            let error = text.parse::<AdminAddress>().unwrap().to_listen().unwrap_err();
            assert!(error.contains(text) && error.contains("write --admin 127.0.0.1:"), "{error}");
        }
    }
}
