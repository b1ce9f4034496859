//! The address of the admin API, as written in options and in `listen.json`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Host and port of the admin API. `http://` or `https://` before them and `/` after them are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdminAddress {
    host: Host,
    port: u16,
    /// True if the address was written with `https://`.
    tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    /// A host name. Only `localhost` surely means this machine.
    Name(String),
}

impl AdminAddress {
    /// The address on which `up` listens without `--admin`.
    pub(super) const DEFAULT: Self = Self { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 8081, tls: false };

    /// Returns true if the address surely belongs to this machine.
    fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Returns true if the address was written with `https://`.
    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Returns true if a connection to this address reaches the listener at `listened`, and the listener has TLS if this
    /// address was written with `https://`.
    pub(super) fn is_of(&self, listened: &Self) -> bool {
        let is_same_host = self.host == listened.host || self.is_loopback() && listened.is_local();
        self.port == listened.port && is_same_host && (listened.tls || !self.tls)
    }

    /// Returns true if a listener at this address can be reached on a loopback address. Then [`Self::base_url`] has such
    /// an address.
    pub(super) fn is_local(&self) -> bool {
        self.is_loopback() || matches!(self.host, Host::Ip(ip) if ip.is_unspecified())
    }

    /// Returns the URL to connect to, without a path. For a listener on all addresses, this is a loopback address.
    pub(super) fn base_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = match &self.host {
            Host::Ip(IpAddr::V4(ip)) if ip.is_unspecified() => Host::Ip(Ipv4Addr::LOCALHOST.into()),
            Host::Ip(IpAddr::V6(ip)) if ip.is_unspecified() => Host::Ip(Ipv6Addr::LOCALHOST.into()),
            host => host.clone(),
        };
        format!("{scheme}://{}", Self { host, ..self.clone() })
    }

    /// Returns the error for a command that would send a token over the network without TLS.
    pub(super) fn without_tls(&self) -> String {
        let port = self.port;
        format!(
            "the address {self} of the admin API is not on this machine and has no TLS, so tokens could be read on the \
             way; write --admin https://{self}, or make a tunnel with `ssh -L {port}:127.0.0.1:{port} HOST` and write \
             --admin 127.0.0.1:{port}"
        )
    }

    /// Returns the address to listen on. `has_tls` is true if `up` has a certificate for the admin API. The error names
    /// the options to use instead.
    pub(super) fn to_listen(&self, has_tls: bool) -> Result<SocketAddr, String> {
        const CERTIFICATE: &str = "--admin-cert FILE --admin-key FILE";
        let port = self.port;
        match &self.host {
            _ if self.tls && !has_tls => {
                Err(format!("--admin https://{self} needs a certificate; add {CERTIFICATE}, or write --admin {self}"))
            }
            Host::Ip(ip) if has_tls || self.is_loopback() => Ok(SocketAddr::new(*ip, port)),
            Host::Name(_) if self.is_loopback() => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            Host::Name(_) if has_tls => Err(format!(
                "--admin {self} has a host name, but `up` listens on an IP address, such as --admin 0.0.0.0:{port}"
            )),
            _ => Err(format!(
                "--admin {self} can be reached from other machines, but the admin API has no TLS, so tokens could be \
                 read on the way; add {CERTIFICATE}, or write --admin 127.0.0.1:{port}, and reach it from another \
                 machine with `ssh -L {port}:127.0.0.1:{port} HOST`, or over a proxy on this machine that has TLS"
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
        let expected = "write an address and a port, such as 127.0.0.1:8081 or https://localhost:8081";
        let without = |scheme: &str| match text.split_at_checked(scheme.len()) {
            Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => Some(rest),
            _ => None,
        };
        let (tls, rest) = match (without("https://"), without("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => (false, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Ok(address) = rest.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(address.ip()), port: address.port(), tls });
        }
        let (name, port) = rest.rsplit_once(':').ok_or(expected)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let is_port = port.chars().all(|c| c.is_ascii_digit());
        match port.parse() {
            Ok(port) if is_port && !name.is_empty() && name.chars().all(is_name) => {
                Ok(Self { host: Host::Name(name.to_owned()), port, tls })
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
            ("HTTPS://evoke.example:8443/", "evoke.example:8443"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in [
            "",
            "8081",
            "localhost",
            "https://localhost",
            "http://",
            "https://",
            "ftp://localhost:1",
            "a b:1",
            "localhost:+1",
            "x@y:1",
            "a:1/path",
        ] {
            assert!(wrong.parse::<AdminAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_addresses_can_be_listened_on_without_tls() {
        for text in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8081", "localhost:8081", "[::ffff:127.0.0.1]:1"] {
            assert!(text.parse::<AdminAddress>().unwrap().to_listen(false).unwrap().ip().to_canonical().is_loopback());
        }
        for text in ["0.0.0.0:8081", "[::]:8081", "192.0.2.1:8081", "evoke.example:8081", "localhost.example:1"] {
            let error = text.parse::<AdminAddress>().unwrap().to_listen(false).unwrap_err();
            assert!(error.contains(text) && error.contains("write --admin 127.0.0.1:"), "{error}");
            assert!(error.contains("--admin-cert FILE --admin-key FILE"), "{error}");
        }
        let error = "https://127.0.0.1:1".parse::<AdminAddress>().unwrap().to_listen(false).unwrap_err();
        assert!(error.contains("add --admin-cert FILE --admin-key FILE, or write --admin 127.0.0.1:1"), "{error}");
    }

    #[test]
    fn with_tls_every_ip_address_can_be_listened_on() {
        for (text, address) in
            [("0.0.0.0:8443", "0.0.0.0:8443"), ("https://[::]:1", "[::]:1"), ("localhost:2", "127.0.0.1:2")]
        {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_listen(true), Ok(address.parse().unwrap()));
        }
        let error = "https://evoke.example:8443".parse::<AdminAddress>().unwrap().to_listen(true).unwrap_err();
        assert!(error.contains("such as --admin 0.0.0.0:8443"), "{error}");
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        let address = |text: &str| text.parse::<AdminAddress>().unwrap();
        assert_eq!(address("https://0.0.0.0:8443").base_url(), "https://127.0.0.1:8443");
        assert_eq!(address("[::]:8081").base_url(), "http://[::1]:8081");
        assert_eq!(address("evoke.example:8081").base_url(), "http://evoke.example:8081");
        assert!(address("localhost:1").is_of(&address("https://0.0.0.0:1")));
        assert!(address("192.0.2.1:1").is_of(&address("https://192.0.2.1:1")));
        assert!(!address("192.0.2.1:1").is_of(&address("https://0.0.0.0:1")));
        assert!(!address("localhost:2").is_of(&address("https://127.0.0.1:1")));
    }

    #[test]
    fn a_written_address_with_tls_never_becomes_one_without() {
        let address = |text: &str| text.parse::<AdminAddress>().unwrap();
        for (written, listened, is_of) in [
            ("https://prod.example:8081", "prod.example:8081", false),
            ("https://localhost:1", "127.0.0.1:1", false),
            ("https://localhost:1", "https://0.0.0.0:1", true),
            ("localhost:1", "127.0.0.1:1", true),
            ("localhost:1", "https://127.0.0.1:1", true),
        ] {
            assert_eq!(address(written).is_of(&address(listened)), is_of, "{written} {listened}");
        }
    }
}
