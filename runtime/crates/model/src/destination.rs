//! Destinations of outbound requests: the origins that a manifest grants, and ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::{Host, Url};

/// The error for a text that is not a valid destination or not a valid range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {help}")]
pub struct InvalidDestination {
    /// Describes the mistake: the text of the manifest, and why it is not valid.
    pub message: String,
    /// How to correct the text.
    pub help: String,
}

impl InvalidDestination {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// The origin of a request: scheme, host and port, in the spelling that the URL Standard normalises to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// True for the scheme https, false for http.
    pub https: bool,
    /// An IPv4 address, an IPv6 address in brackets, or a host name. A host name is in lower case (IDNA A-labels) and
    /// has no trailing dot.
    pub host: String,
    /// Port. Default: 443 for https, 80 for http.
    pub port: u16,
}

impl Target {
    /// Normalises scheme and authority as browsers do: odd spellings of IPv4 addresses (decimal, octal, hexadecimal),
    /// percent-encoding, upper case and one trailing dot are resolved, so that one host has one spelling.
    ///
    /// # Errors
    /// A scheme other than http and https, credentials, or an invalid host or port.
    pub fn parse(scheme: &str, authority: &str) -> Result<Self, InvalidDestination> {
        let example = "write scheme, host and port, as in `https://api.example.com:443`";
        let text = || format!("`{scheme}://{}`", excerpt(authority));
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                let message = format!("a function cannot send requests to {}", text());
                return Err(InvalidDestination::new(message, "only `http://` and `https://` origins can be granted"));
            }
        };
        let not_an_origin = || format!("{} is not a valid origin", text());
        if authority.contains('@') {
            let message = format!("{}: an origin cannot contain credentials", not_an_origin());
            return Err(InvalidDestination::new(
                message,
                "remove `@` and the part before it; write credentials under `headers` or `secrets`",
            ));
        }
        // The URL parser removes these characters or gives them another meaning. A valid origin does not have them.
        if authority.is_empty()
            || authority.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#'))
        {
            return Err(InvalidDestination::new(not_an_origin(), example));
        }
        let port_text = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        if port_text.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port != 0)) {
            return Err(InvalidDestination::new(not_an_origin(), "write a port from 1 to 65535 after the colon"));
        }
        let url = Url::parse(&format!("{scheme}://{authority}/"))
            .map_err(|_| InvalidDestination::new(not_an_origin(), example))?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            None => String::new(),
        };
        if host.is_empty() || host.len() > HOST_BYTES_MAX || host.ends_with('.') {
            return Err(InvalidDestination::new(not_an_origin(), example));
        }
        let port = url.port_or_known_default().unwrap_or(if https { 443 } else { 80 });
        Ok(Self { https, host, port })
    }

    /// Returns the host as an IP address; `None` if the host is a name.
    pub fn address(&self) -> Option<IpAddr> {
        let inner = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => self.host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    /// Returns the scheme, `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Returns the value of the `host` header: the host, and the port if it is not the default port of the scheme.
    pub fn authority(&self) -> String {
        if self.port == if self.https { 443 } else { 80 } {
            return self.host.clone();
        }
        format!("{}:{}", self.host, self.port)
    }
}

/// Writes the origin in the form of `allow.http`, such as `https://api.example.com`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

/// The maximum length of a host name in bytes: the limit of DNS.
const HOST_BYTES_MAX: usize = 253;

/// The origins that one entry of `allow.http` grants: one host, or all hosts below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Scheme, host and port. If the entry has a wildcard (`*.`), the host is the part after `*.`.
    target: Target,
    /// True if the entry has a wildcard. The host of a request must then be the host in `target` with one or more
    /// labels before it.
    is_wildcard: bool,
}

impl Destination {
    /// Parses `scheme://host` or `scheme://host:port`. A host that begins with `*.` matches all hosts that have one or
    /// more labels in place of the `*`.
    ///
    /// # Errors
    /// A scheme other than http and https, a path, credentials, a `*` in another place, or an invalid host or port.
    pub fn parse(text: &str) -> Result<Self, InvalidDestination> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = match Self::parse(&format!("https://{text}")) {
                Ok(_) => format!("write `https://{text}`"),
                Err(_) => "write scheme, host and port, as in `https://api.example.com:443`".to_owned(),
            };
            return Err(InvalidDestination::new(format!("the origin `{}` has no scheme", excerpt(text)), help));
        };
        if matches!(scheme, "http" | "https")
            && let Some(at) = rest.find(['/', '?', '#'])
        {
            let origin = rest.get(..at).unwrap_or("");
            let message =
                format!("`{}` is more than an origin: only scheme, host and port can be granted", excerpt(text));
            return Err(InvalidDestination::new(message, format!("write `{scheme}://{origin}`")));
        }
        let (is_wildcard, authority) = match rest.strip_prefix("*.") {
            Some(below) => (true, below),
            None => (false, rest),
        };
        if authority.contains('*') {
            let message =
                format!("`{}` is not a valid origin: `*` is only allowed at the start, before a dot", excerpt(text));
            return Err(InvalidDestination::new(message, "write `https://*.example.com`, or list each host"));
        }
        let target = Target::parse(scheme, authority)?;
        if is_wildcard && target.address().is_some() {
            let message = format!("`{}` is not a valid origin: `*.` is not allowed before an address", excerpt(text));
            return Err(InvalidDestination::new(message, format!("write `{target}`")));
        }
        if is_wildcard && !target.host.contains('.') {
            let message = format!("`{}` would grant every host below `{}`", excerpt(text), excerpt(&target.host));
            return Err(InvalidDestination::new(message, "name a domain, as in `https://*.example.com`"));
        }
        Ok(Self { target, is_wildcard })
    }

    /// Returns true if requests to `target` are granted.
    pub fn matches(&self, target: &Target) -> bool {
        if self.target.https != target.https || self.target.port != target.port {
            return false;
        }
        if !self.is_wildcard {
            return self.target.host == target.host;
        }
        target.host.strip_suffix(&self.target.host).and_then(|above| above.strip_suffix('.')).is_some_and(|above| {
            // A wildcard matches names only, not IP addresses.
            !above.is_empty() && target.address().is_none()
        })
    }

    /// Returns the only origin that is granted; `None` for a wildcard.
    pub fn exact(&self) -> Option<&Target> {
        (!self.is_wildcard).then_some(&self.target)
    }

    /// Returns true for the scheme https.
    pub fn is_https(&self) -> bool {
        self.target.https
    }

    /// Returns the origin as manifests usually contain it: without the port if it is the default port of the scheme.
    pub fn origin(&self) -> String {
        format!("{}://{}{}", self.target.scheme(), if self.is_wildcard { "*." } else { "" }, self.target.authority())
    }

    /// Returns the host as granted, for labels of metrics: a name, an address, or `*.` and a name.
    pub fn host_pattern(&self) -> String {
        if self.is_wildcard { format!("*.{}", self.target.host) } else { self.target.host.clone() }
    }
}

/// Writes the origin in the form of the manifest, but always with its port.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.target.scheme(), self.host_pattern(), self.target.port)
    }
}

/// A range of IP addresses: an address, or a network such as `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    prefix: u8,
}

impl AddressRange {
    /// Returns true if the range contains the address. An IPv4 range contains no IPv6 addresses, not even IPv4-mapped
    /// addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self { network: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for AddressRange {
    type Err = InvalidDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let example = "write an address or a network, as in `10.1.2.3`, `10.1.0.0/16` or `fd00:1::/48`";
        let invalid = || InvalidDestination::new(format!("`{}` is not a range of addresses", excerpt(text)), example);
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| invalid())?;
        let Some(prefix) = prefix else { return Ok(network.into()) };
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let bits_max = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits_max).ok_or_else(|| {
            let message = format!("the prefix of `{}` is too long", excerpt(text));
            InvalidDestination::new(message, format!("write a number from 0 to {bits_max} after the slash"))
        })?;
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.prefix) {
            (IpAddr::V4(address), 32) => address.fmt(f),
            (IpAddr::V6(address), 128) => address.fmt(f),
            (network, prefix) => write!(f, "{network}/{prefix}"),
        }
    }
}

/// Cuts a text to 80 characters for a message, and escapes characters that could deceive a reader.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut cut: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
