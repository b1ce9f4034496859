//! Refuses requests that web pages of other origins cause in the operator's browser: by DNS rebinding, they carry a
//! foreign `Host`; from a page elsewhere, a foreign `Origin` or `Sec-Fetch-Site`.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Request, StatusCode};

use evoke_http::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns an error unless the request is for the listener at `address`, and comes from no other origin.
pub(super) fn check<B>(request: &Request<B>, address: SocketAddr) -> Result<(), Problem> {
    check_host(request, address)?;
    check_origin(request.headers(), address)
}

fn check_host<B>(request: &Request<B>, address: SocketAddr) -> Result<(), Problem> {
    let refused = |host: &str| {
        let port = address.port();
        let detail = format!(
            "the Host of the request is \"{host}\", but this is {address}; use http://{address} or http://localhost:{port}"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    };
    let mut hosts: Vec<&str> = request.uri().authority().map(|authority| authority.as_str()).into_iter().collect();
    for host in request.headers().get_all(HOST) {
        let Ok(host) = host.to_str() else { return refused("(not ASCII)") };
        hosts.push(host);
    }
    match hosts.iter().find(|host| !is_own(host, address)) {
        Some(foreign) => refused(foreign),
        None if hosts.is_empty() => refused(""),
        None => Ok(()),
    }
}

fn check_origin(headers: &HeaderMap, address: SocketAddr) -> Result<(), Problem> {
    let refused = |what: &str, value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let detail =
            format!("the request comes from another site ({what}: {value}); only http://{address} may send it");
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    };
    for origin in headers.get_all(ORIGIN) {
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        if !own.is_some_and(|host| is_own(host, address)) {
            return refused("Origin", origin);
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none` is a request that the user made, e.g. by typing the address.
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return refused("Sec-Fetch-Site", site);
        }
    }
    Ok(())
}

/// Whether `host[:port]` is the listener: its IP address or `localhost`, which no DNS server can point elsewhere.
fn is_own(host: &str, address: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        // `parse` would accept a sign.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port.parse().ok()),
        Some((_, port)) if !port.ends_with(']') => return false,
        _ => (host, Some(80)),
    };
    if port != Some(address.port()) {
        return false;
    }
    let ip = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse().map(IpAddr::V6).ok(),
        None => name.parse().map(IpAddr::V4).ok(),
    };
    name.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.to_canonical() == address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(uri: &str, headers: &[(&str, &str)]) -> bool {
        let request = Request::builder().uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        check(&request.body(()).unwrap(), "127.0.0.1:8081".parse().unwrap()).is_ok()
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
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        assert!(is_own("[::1]", v6) && is_own("[::1]:80", v6) && is_own("localhost", v6) && !is_own("127.0.0.1", v6));
    }

    #[test]
    fn requests_that_name_another_origin_are_refused() {
        let host = ("host", "127.0.0.1:8081");
        for own in ["http://127.0.0.1:8081", "http://localhost:8081"] {
            assert!(allows("/", &[host, ("origin", own), ("sec-fetch-site", "same-origin")]), "{own}");
        }
        assert!(allows("/", &[host, ("sec-fetch-site", "none")]));
        for foreign in [
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
    }
}
