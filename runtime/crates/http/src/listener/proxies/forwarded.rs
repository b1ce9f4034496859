//! The headers in which proxies name the client: `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, and
//! `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its peer to a list. So the list is read from its end, and the last address that
//! does not belong to a proxy is the client. The client itself could have written everything before that address. A
//! proxy that writes only one of `X-Forwarded-For` and `Forwarded` can pass on the client's other header unchanged. So
//! if a request has both headers and they name different clients, neither is used, and the proxy counts as the client.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Uri};

use super::Proxies;
use crate::listener::host::is_host;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The headers about the client that are removed from all requests, including requests of proxies. Other headers about
/// the client, such as `X-Forwarded-User`, are kept in the requests of proxies and removed from all other requests.
/// Some programs read `_` in a name as `-`, so a header about the client whose name has a `_` is always removed.
const REPLACED: [HeaderName; 8] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
];

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::listener) struct Client {
    pub(in crate::listener) address: SocketAddr,
    /// The scheme that the client used.
    pub(in crate::listener) scheme: Scheme,
    /// True if a proxy named the client, either in a header of the request or in the PROXY header of the connection.
    pub(in crate::listener) is_forwarded: bool,
    /// True if a proxy has sent the request.
    is_from_proxy: bool,
    /// The host that the client asked for, if a proxy named it.
    host: Option<HeaderValue>,
}

/// The client, the scheme and the host that a request names in one kind of headers: `X-Forwarded-…`, or `Forwarded`.
#[derive(Debug, Default, PartialEq, Eq)]
struct ClientHeaders {
    /// The address that [`last_client`] finds; `None` if the list is empty, or if its last element is not an address.
    client: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<HeaderValue>,
}

impl Client {
    /// Makes the client of a connection. A request over the connection can have another client, see
    /// [`Self::of_request`].
    pub(in crate::listener) fn of_connection(address: SocketAddr, is_tls: bool, is_forwarded: bool) -> Self {
        let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        Self { address, scheme, is_forwarded, is_from_proxy: false, host: None }
    }

    /// Returns the client of a request that arrived over the connection of `self`. If `self` is a trusted proxy, and
    /// the request names a client, returns that client.
    pub(in crate::listener) fn of_request(&self, headers: &HeaderMap, proxies: &Proxies) -> Self {
        let mut client = self.clone();
        if proxies.networks.is_empty() || !proxies.is_trusted(self.address.ip()) {
            return client;
        }
        client.is_from_proxy = true;
        let named = match (headers.contains_key(X_FORWARDED_FOR), headers.contains_key(FORWARDED)) {
            (true, false) => x_forwarded(headers, proxies),
            (false, true) => forwarded(headers, proxies),
            (true, true) => {
                let (x, standard) = (x_forwarded(headers, proxies), forwarded(headers, proxies));
                if x.client != standard.client {
                    return client;
                }
                ClientHeaders { scheme: x.scheme.or(standard.scheme), host: x.host.or(standard.host), ..x }
            }
            // A proxy that sends no address can still send the scheme and the host.
            (false, false) => x_forwarded(headers, proxies),
        };
        if let Some(address) = named.client {
            client.address = SocketAddr::new(address, 0);
            client.is_forwarded = true;
        }
        client.scheme = named.scheme.unwrap_or(client.scheme);
        client.host = named.host;
        client
    }

    /// Replaces the headers about the client by the values that were verified, and sets the scheme and the host of the
    /// request.
    pub(in crate::listener) fn apply<B>(self, request: &mut Request<B>) {
        let headers = request.headers_mut();
        // Most requests have no header about the client.
        if headers.keys().any(is_about_client) {
            let is_kept =
                |name: &HeaderName| self.is_from_proxy && !REPLACED.contains(name) && !name.as_str().contains('_');
            let removed: Vec<HeaderName> =
                headers.keys().filter(|name| is_about_client(name) && !is_kept(name)).cloned().collect();
            removed.iter().for_each(|name| drop(headers.remove(name)));
        }
        if self.is_forwarded {
            let address = HeaderValue::from_str(&self.address.ip().to_canonical().to_string());
            headers.extend(address.ok().map(|address| (X_FORWARDED_FOR, address)));
            let scheme = HeaderValue::from_str(self.scheme.as_str());
            headers.extend(scheme.ok().map(|scheme| (X_FORWARDED_PROTO, scheme)));
        }
        if let Some(host) = &self.host {
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(HOST, host.clone());
        }
        // The peer chooses the scheme in the target of an HTTP/2 request, and in an absolute target of HTTP/1. The
        // verified scheme replaces the scheme of the peer.
        if request.uri().scheme().is_some_and(|scheme| *scheme != self.scheme || self.host.is_some()) {
            let mut parts = request.uri().clone().into_parts();
            parts.scheme = Some(self.scheme.clone());
            let host = self.host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
            parts.authority = host.or(parts.authority);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
        request.extensions_mut().insert(self.scheme);
    }
}

/// Returns true for the headers in which proxies describe the client, also with `_` in place of `-`.
fn is_about_client(name: &HeaderName) -> bool {
    match name.as_str().as_bytes() {
        [b'x', b'-' | b'_', rest @ ..] => rest.starts_with(b"forwarded") || matches!(rest, b"real-ip" | b"real_ip"),
        other => other == b"forwarded",
    }
}

fn x_forwarded(headers: &HeaderMap, proxies: &Proxies) -> ClientHeaders {
    // Each proxy replaces `X-Forwarded-Proto` and `X-Forwarded-Host`, or appends to them. So the last value is that of
    // the nearest proxy.
    let last = |name| list(headers, name).next_back().map(str::to_owned);
    ClientHeaders {
        client: last_client(list(headers, X_FORWARDED_FOR).map(address), proxies),
        scheme: last(X_FORWARDED_PROTO).and_then(|scheme| parse_scheme(&scheme)),
        host: last(X_FORWARDED_HOST).and_then(|host| parse_host(&host)),
    }
}

fn forwarded(headers: &HeaderMap, proxies: &Proxies) -> ClientHeaders {
    let elements: Vec<&str> = list(headers, FORWARDED).collect();
    let client = last_client(elements.iter().map(|element| address(parameter(element, "for")?)), proxies);
    let last = |name| elements.last().and_then(|element| parameter(element, name));
    ClientHeaders { client, scheme: last("proto").and_then(parse_scheme), host: last("host").and_then(parse_host) }
}

/// Returns the elements of a list header, from all its lines. The lines are split at all commas, even within quotes.
/// This is safe: no valid element contains a comma, and the pieces of a quoted text with a comma are not valid
/// addresses.
fn list(headers: &HeaderMap, name: HeaderName) -> impl DoubleEndedIterator<Item = &str> {
    let lines = headers.get_all(name).iter();
    // A line that is not visible ASCII counts as an unknown address, so the addresses before it are not trusted.
    lines.flat_map(|line| line.to_str().unwrap_or("unknown").split(',').map(str::trim))
}

/// Reads `addresses` from the end until one does not belong to a proxy, and returns the last address that was read. An
/// element that is not an address also ends the search, because the addresses before it cannot be trusted.
fn last_client(addresses: impl DoubleEndedIterator<Item = Option<IpAddr>>, proxies: &Proxies) -> Option<IpAddr> {
    let mut found = None;
    for address in addresses.rev() {
        let Some(address) = address else { break };
        found = Some(address);
        if !proxies.is_trusted(address) {
            break;
        }
    }
    found
}

/// Returns a parameter of an element of `Forwarded`, without its quotes. `None` if the element has the parameter more
/// than once.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut values = element.split(';').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    });
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Parses an address, with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn parse_scheme(text: &str) -> Option<Scheme> {
    match text {
        _ if text.eq_ignore_ascii_case("https") => Some(Scheme::HTTPS),
        _ if text.eq_ignore_ascii_case("http") => Some(Scheme::HTTP),
        _ => None,
    }
}

fn parse_host(text: &str) -> Option<HeaderValue> {
    is_host(text.as_bytes()).then(|| HeaderValue::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests;
