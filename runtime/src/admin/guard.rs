//! Refuses requests that web pages of other origins cause in the operator's browser. Such a request has a foreign
//! `Host` if the page uses DNS rebinding, and otherwise a foreign `Origin` or `Sec-Fetch-Site`.
//!
//! The name `localhost` has an IPv4 and an IPv6 address. The listener has one of them, and another user of the
//! machine can listen on the same port of the other one. Without TLS, a browser cannot tell the two servers apart. So
//! the listener accepts requests with this name, but the page and the sessions of the console never use it.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use crate::control::ListenerHandle;
use evoke_http::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// How a request names the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// By a name and a port at which no other user of the machine can listen.
    Own,
    /// By the name `localhost`, without TLS.
    Localhost,
}

/// Returns how the request names the listener. Returns an error if the `Host` of the request does not name this
/// listener, or if a page of another origin caused the request.
pub(super) fn check<B>(request: &Request<B>, listener: &ListenerHandle) -> Result<Named, Problem> {
    let hosts = check_host(request, listener)?;
    check_origin(request.headers(), &hosts, listener, opens_page(request))?;
    let is_shared = hosts.iter().any(|host| is_shared(host, listener));
    Ok(if is_shared { Named::Localhost } else { Named::Own })
}

/// Returns true if another user of the machine can also listen at this name and port.
fn is_shared(host: &str, listener: &ListenerHandle) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    listener.tls.is_none() && name.eq_ignore_ascii_case("localhost")
}

/// Returns true if the user follows a link to the page of the console. Such a link may be on any site: the page is the
/// same for everybody, cannot be embedded, and gets its data by further requests, which are checked.
fn opens_page<B>(request: &Request<B>) -> bool {
    let is = |name: HeaderName, value: &str| request.headers().get(name).is_some_and(|found| found == value);
    *request.method() == Method::GET
        && request.uri().path() == "/"
        && is(SEC_FETCH_MODE, "navigate")
        && is(SEC_FETCH_DEST, "document")
}

/// Returns the hosts that the request names. Returns an error if there are none, or if one of them does not name this
/// listener.
fn check_host<'a, B>(request: &'a Request<B>, listener: &ListenerHandle) -> Result<Vec<&'a str>, Problem> {
    let refused = |host: &str| {
        let (url, address) = (listener.url(), listener.address);
        let or = if listener.tls.is_some() { " or a name of its certificate" } else { "" };
        let detail =
            format!("the Host of the request is \"{host}\", but this server listens on {address}; use {url}{or}");
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    };
    let mut hosts: Vec<&str> = request.uri().authority().map(|authority| authority.as_str()).into_iter().collect();
    for host in request.headers().get_all(HOST) {
        let Ok(host) = host.to_str() else { return refused("(not ASCII)") };
        hosts.push(host);
    }
    match hosts.iter().find(|host| !is_own(host, listener)) {
        Some(foreign) => refused(foreign),
        None if hosts.is_empty() => refused(""),
        None => Ok(hosts),
    }
}

fn check_origin(
    headers: &HeaderMap,
    hosts: &[&str],
    listener: &ListenerHandle,
    opens_page: bool,
) -> Result<(), Problem> {
    let refused = |what: &str, value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let detail =
            format!("a page of another site sent the request ({what}: {value}); use the console at {}", listener.url());
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    };
    for origin in headers.get_all(ORIGIN) {
        let scheme = if listener.tls.is_some() { "https://" } else { "http://" };
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme));
        // Other sites may use a name of the certificate too, on other ports. So the origin must be equal to the `Host`.
        let is_same = |host: &str| listener.tls.is_none() || hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        if !own.is_some_and(|host| is_own(host, listener) && !is_shared(host, listener) && is_same(host)) {
            return refused("Origin", origin);
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none` marks a request that the user made, e.g. by typing the address.
        if !opens_page && !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return refused("Sec-Fetch-Site", site);
        }
    }
    Ok(())
}

/// Returns true if `host[:port]` names the listener: by its IP address, or by `localhost`, which no DNS server can
/// point elsewhere. With TLS, the names in the certificate are also accepted, and the port may be any port, because
/// another machine may forward one of its own ports to the listener.
fn is_own(host: &str, listener: &ListenerHandle) -> bool {
    let address = listener.address;
    let (name, port) = match host.rsplit_once(':') {
        // `parse` alone would also accept a sign, such as `+80`.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port.parse().ok()),
        Some((_, port)) if !port.ends_with(']') => return false,
        _ => (host, Some(80)),
    };
    if port.is_none() || listener.tls.is_none() && port != Some(address.port()) {
        return false;
    }
    let ip = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse().map(IpAddr::V6).ok(),
        None => name.parse().map(IpAddr::V4).ok(),
    };
    // For a listener on all addresses of the machine, any IP address is accepted, because the addresses of the machine
    // are not known here. Such a listener always has TLS.
    let is_own_ip = |ip: IpAddr| address.ip().is_unspecified() || ip.to_canonical() == address.ip().to_canonical();
    name.eq_ignore_ascii_case("localhost")
        || ip.is_some_and(is_own_ip)
        || listener.tls.as_ref().is_some_and(|tls| tls.is_name(name))
}

#[cfg(test)]
mod tests {
    use evoke_http::listener::{CertificatePem, Tls, TlsConfig, TlsSettings};

    use super::*;

    fn listener(address: &str) -> std::sync::Arc<ListenerHandle> {
        ListenerHandle::new("admin", address.parse().unwrap(), None)
    }

    fn allows(uri: &str, headers: &[(&str, &str)]) -> bool {
        let request = Request::builder().uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        check(&request.body(()).unwrap(), &listener("127.0.0.1:8081")).is_ok()
    }

    #[test]
    fn only_hosts_that_are_the_listener_are_allowed() {
        for host in ["127.0.0.1:8081", "localhost:8081", "LOCALHOST:8081"] {
            assert!(allows("/", &[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8081",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:80",
            "127.0.0.1:+8081",
            "127.0.0.1:8081:8081",
            "127.0.0.2:8081",
            "127.0.0.1.evil.example:8081",
            "localhost.evil.example:8081",
            "localhost.:8081",
            "user@127.0.0.1:8081",
            "[::1]:8081",
            "[127.0.0.1]:8081",
            "::1:8081",
            "0:8081",
        ] {
            assert!(!allows("/", &[("host", host)]), "{host}");
        }
        assert!(!allows("/", &[]));
        assert!(!allows("/", &[("host", "127.0.0.1:8081"), ("host", "evil.example")]));
        assert!(!allows("http://evil.example/", &[("host", "127.0.0.1:8081")]));
        assert!(allows("http://127.0.0.1:8081/", &[("host", "127.0.0.1:8081")]));
        let v6 = listener("[::1]:80");
        assert!(is_own("[::1]", &v6) && is_own("[::1]:80", &v6) && is_own("localhost", &v6));
        assert!(!is_own("127.0.0.1", &v6));
    }

    #[test]
    fn requests_that_name_another_origin_are_refused() {
        let host = ("host", "127.0.0.1:8081");
        let own = ("origin", "http://127.0.0.1:8081");
        assert!(allows("/", &[host, own, ("sec-fetch-site", "same-origin")]));
        assert!(allows("/", &[host, ("sec-fetch-site", "none")]));
        for foreign in [
            // Another user can listen on this port of another address of `localhost`.
            "http://localhost:8081",
            "http://LOCALHOST:8081",
            "null",
            "",
            "http://evil.example",
            "https://127.0.0.1:8081",
            "http://127.0.0.1:3000",
            "http://127.0.0.1:8081.evil.example",
            "127.0.0.1:8081",
        ] {
            assert!(!allows("/", &[host, ("origin", foreign)]), "{foreign}");
        }
        for site in ["cross-site", "same-site", "", "other"] {
            assert!(!allows("/", &[host, ("sec-fetch-site", site)]), "{site}");
        }
        // Any site may have a link to the page of the console. Any other request from another site is refused.
        let link = [host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        let opens = |uri: &str, dest: &'static str, origin: &[(&str, &str)]| {
            allows(uri, &[&link[..], &[("sec-fetch-dest", dest)], origin].concat())
        };
        assert!(opens("/", "document", &[]));
        assert!(!opens("/", "document", &[("origin", "http://evil.example")]));
        assert!(!opens("/", "iframe", &[]) && !opens("/", "script", &[]) && !opens("/", "", &[]));
        assert!(!opens("/console/app.js", "document", &[]) && !opens("/api/v1/status", "document", &[]));
    }

    #[test]
    fn without_tls_localhost_is_a_shared_name() {
        let named = |host: &str, listener: &ListenerHandle| {
            check(&Request::builder().header("host", host).body(()).unwrap(), listener).unwrap()
        };
        let (v4, v6) = (listener("127.0.0.1:80"), listener("[::1]:80"));
        for host in ["localhost", "LOCALHOST:80"] {
            assert_eq!((named(host, &v4), named(host, &v6)), (Named::Localhost, Named::Localhost), "{host}");
        }
        assert_eq!((named("127.0.0.1", &v4), named("[::1]", &v6)), (Named::Own, Named::Own));
    }

    #[test]
    fn with_tls_the_names_of_the_certificate_are_allowed_and_pages_only_from_the_same_host() {
        let key =
            rcgen::generate_simple_self_signed(vec!["evoke.example".to_owned(), "*.in.example".to_owned()]).unwrap();
        let certificate =
            CertificatePem { chain: key.cert.pem().into_bytes(), key: key.signing_key.serialize_pem().into_bytes() };
        let config =
            TlsConfig::new(&TlsSettings { certificates: vec![certificate], clients: None, http2: false }).unwrap();
        let listener = ListenerHandle::new("admin", "0.0.0.0:8443".parse().unwrap(), Some(Tls::new(config)));
        let allows = |headers: &[(&str, &str)]| {
            let request =
                headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
            check(&request.body(()).unwrap(), &listener).is_ok()
        };
        for host in
            ["evoke.example", "EVOKE.example:8443", "a.in.example:443", "localhost:8443", "192.0.2.7:8443", "[::1]"]
        {
            assert!(allows(&[("host", host)]), "{host}");
            assert!(allows(&[("host", host), ("origin", &format!("https://{host}"))]), "{host}");
        }
        for host in
            ["evil.example", "evoke.example.evil.example", "in.example", "a.b.in.example:8443", "evoke.example:x", ""]
        {
            assert!(!allows(&[("host", host)]), "{host}");
        }
        for origin in [
            "http://evoke.example",
            "https://evoke.example:3000",
            "https://a.in.example",
            "https://evil.example",
            "null",
        ] {
            assert!(!allows(&[("host", "evoke.example"), ("origin", origin)]), "{origin}");
        }
    }
}
