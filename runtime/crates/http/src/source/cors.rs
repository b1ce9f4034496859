//! Cross-origin requests of browsers (the CORS protocol of the Fetch standard), for sources with `cors:`.
//!
//! A request from a page of an origin that is not listed gets 403. This includes simple requests, which a browser sends
//! without a preflight request: otherwise any page could make events. Requests without `Origin`, and requests of pages
//! from the listener's own origin, are not affected.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use crate::problem::Problem;
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt};
use evoke_manifest::units::DurationText;

/// The longest time for which browsers keep the result of a preflight request.
const MAX_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The headers of responses that pages can read. `Retry-After` is enough: the reason of a refusal is in the body.
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after");
/// The response to a preflight request depends on these headers of the request.
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// The pages of other origins that can send requests to the source and read its responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Cors {
    /// Origins as browsers send them, such as `https://shop.example`, or `*` alone for every origin.
    #[schemars(with = "Vec<String>", length(min = 1), inner(length(min = 1)))]
    pub origins: Vec<AllowedOrigin>,
    /// Request headers that pages can set beside those that are always allowed, or `*` alone for every header.
    #[serde(default)]
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub headers: Vec<AllowedHeader>,
    /// How long browsers keep the result of a preflight request, at most 24h.
    #[serde(default = "default_max_age", with = "DurationText")]
    pub max_age: Duration,
    /// True if pages can send cookies and other credentials.
    #[serde(default)]
    pub credentials: bool,
}

/// An entry of `origins`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AllowedOrigin(String);

/// An entry of `headers`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AllowedHeader(String);

fn default_max_age() -> Duration {
    Duration::from_secs(600)
}

impl Cors {
    /// Parses the value of `cors`.
    pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, key_span: Span) -> Option<Self> {
        let example = "`{ origins: [\"https://shop.example\"] }`";
        let mut table = Table::read(reader, node, key_span, "Cors", "`cors`", example)?;
        let origins_span = table.key_span("origins");
        let origins =
            table.required(reader, "origins", &["origin", "allow_origins"], "`origins: [\"https://shop.example\"]`");
        let origins: Option<Vec<_>> = origins.map(|node| {
            let items = reader.nonempty_list(
                node,
                "`origins`",
                "no page could use the source",
                "list an origin, or remove `cors`",
            );
            items.iter().filter_map(|item| reader.parse_text(item, "an origin", AllowedOrigin::parse)).collect()
        });
        let headers: Vec<_> = match table.optional(reader, "headers") {
            Some(node) => {
                let items = reader.list(node, "`headers`");
                items.iter().filter_map(|item| reader.parse_text(item, "a header", AllowedHeader::parse)).collect()
            }
            None => Vec::new(),
        };
        let max_age = table.optional(reader, "max_age");
        let max_age = max_age.and_then(|node| reader.duration(node, "`max_age`", Duration::ZERO..=MAX_AGE_MAX));
        let credentials = table.optional(reader, "credentials").and_then(|node| reader.boolean(node, "`credentials`"));
        table.reject_unknown_keys(reader, |key| match key {
            "origin" | "allow_origins" | "allowed_origins" => Some("did you mean `origins`?"),
            "methods" | "allow_methods" => Some("remove it: pages can use the `methods` of the source"),
            "allow_headers" | "allowed_headers" => Some("did you mean `headers`?"),
            "allow_credentials" => Some("did you mean `credentials`?"),
            _ => None,
        });
        let cors = Self {
            origins: origins?,
            headers,
            max_age: max_age.unwrap_or_else(default_max_age),
            credentials: credentials.unwrap_or_default(),
        };
        if cors.is_any() && cors.credentials {
            let message = "`credentials` cannot be combined with the origin `*`: every page could act as its visitors";
            reader.error(origins_span, message, "list the origins, or remove `credentials`");
        }
        if cors.is_any() && cors.origins.len() > 1 {
            reader.error(origins_span, "`*` already includes all other origins", "remove `*`, or the other origins");
        }
        Some(cors)
    }

    fn is_any(&self) -> bool {
        self.origins.iter().any(|origin| origin.0 == "*")
    }

    fn allows(&self, origin: &[u8]) -> bool {
        self.is_any() || self.origins.iter().any(|allowed| allowed.0.as_bytes() == origin)
    }

    /// Returns the headers to add to every response to a request.
    ///
    /// # Errors
    /// 403 for a request from a page of an origin that is not allowed.
    pub(super) fn check(&self, head: &Parts) -> Result<HeaderMap, Problem> {
        let mut added = HeaderMap::new();
        if !self.is_any() {
            added.insert(VARY, HeaderValue::from_static("origin"));
        }
        let mut origins = head.headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(added) };
        if origins.next().is_some() {
            return Err(Problem::malformed("the header `origin` is sent more than once; send it once"));
        }
        if !self.allows(origin.as_bytes()) {
            if is_own_origin(head, origin.as_bytes()) {
                return Ok(added);
            }
            let origin = String::from_utf8_lossy(origin.as_bytes());
            let detail = format!(
                "pages of the origin `{}` cannot send requests to this source; to allow the origin, add it to `cors.origins` in the manifest",
                excerpt(&origin)
            );
            let problem = Problem::new(StatusCode::FORBIDDEN, detail);
            return Err(problem.with_header(VARY, HeaderValue::from_static("origin")));
        }
        let allowed = if self.is_any() { HeaderValue::from_static("*") } else { origin.clone() };
        added.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        added.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.credentials {
            added.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        Ok(added)
    }

    /// Returns the response to a preflight request for a source with these methods.
    pub(super) fn preflight(&self, head: &Parts, methods: &[Method]) -> Result<Response<Full<Bytes>>, Problem> {
        let mut added = self.check(head)?;
        added.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        added.insert(VARY, VARY_PREFLIGHT);
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        added.extend(list(&names).map(|value| (ACCESS_CONTROL_ALLOW_METHODS, value)));
        let is_any = self.headers.iter().any(|header| header.0 == "*");
        let requested = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let allowed = match (is_any, requested) {
            // With credentials, browsers read `*` as the name of a header, so the requested headers are allowed by
            // their names.
            (true, Some(requested)) => Some(requested.clone()),
            (true, None) => None,
            (false, _) => list(&self.headers.iter().map(|header| header.0.as_str()).collect::<Vec<_>>()),
        };
        added.extend(allowed.map(|value| (ACCESS_CONTROL_ALLOW_HEADERS, value)));
        added.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        *response.headers_mut() = added;
        Ok(response)
    }
}

/// Returns the method that a preflight request asks for; `None` for other requests.
pub(super) fn requested_method(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// Returns true if the page (`origin`) has the scheme, host and port to which the request is sent.
///
/// Without TLS, the host must be an IP address or `localhost`. Any other name can be changed by its owner to resolve to
/// this machine (DNS rebinding), and then a page of that name has the same host as the listener. With TLS, the browser
/// has compared the name with the certificate.
fn is_own_origin(head: &Parts, origin: &[u8]) -> bool {
    let origin = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
    let Some((page_scheme, page)) = origin else { return false };
    // HTTP/2 sends the host in the URI.
    let host = head.uri.authority().map(Authority::as_str);
    let Some(host) = host.or_else(|| head.headers.get(HOST)?.to_str().ok()) else { return false };
    // The listener sets the scheme that the client used.
    let scheme = head.extensions.get::<Scheme>().unwrap_or(&Scheme::HTTP);
    let is_safe = *scheme == Scheme::HTTPS || host.parse().is_ok_and(|host: Authority| cannot_be_rebound(host.host()));
    scheme.as_str() == page_scheme && page.eq_ignore_ascii_case(host) && is_safe
}

/// Returns true for IP addresses and for `localhost`, which browsers never look up in the DNS.
fn cannot_be_rebound(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

fn list(names: &[&str]) -> Option<HeaderValue> {
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}

impl AllowedOrigin {
    /// Parses an origin in the form in which browsers send it.
    fn parse(text: &str) -> Result<Self, ValueError> {
        let wrong = |help: String| Err(ValueError::new(format!("`{}` is not an origin", excerpt(text)), help));
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        if text == "null" {
            return wrong("remove it: every sandboxed page and local file has the origin `null`".to_owned());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong(format!("write the scheme too, as in `https://{}`", excerpt(text)));
        };
        let Some(authority) = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty()) else {
            return wrong("write scheme and host, as in `https://shop.example`".to_owned());
        };
        let Some(parsed) = authority.parse::<Authority>().ok().filter(|_| !authority.contains('@')) else {
            let wildcard = if authority.contains('*') { "list each origin, or write `*` alone" } else { "" };
            let help =
                if wildcard.is_empty() { "write scheme and host, as in `https://shop.example`" } else { wildcard };
            return wrong(help.to_owned());
        };
        if authority.contains('*') {
            return wrong("list each origin, or write `*` alone".to_owned());
        }
        let (host, scheme) = (parsed.host().to_ascii_lowercase(), scheme.to_ascii_lowercase());
        if !host.is_ascii() {
            return wrong("write the name in its ASCII form (punycode), as browsers send it".to_owned());
        }
        // Browsers leave out the default port.
        let port = match (scheme.as_str(), parsed.port_u16()) {
            ("https", Some(443)) | ("http", Some(80)) | (_, None) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        let canonical = format!("{scheme}://{host}{port}");
        if canonical != text {
            return wrong(format!("browsers send it as `{}`", excerpt(&canonical)));
        }
        Ok(Self(canonical))
    }
}

impl AllowedHeader {
    fn parse(text: &str) -> Result<Self, ValueError> {
        match HeaderName::try_from(text) {
            Ok(name) => Ok(Self(name.as_str().to_owned())),
            Err(_) => Err(ValueError::new(
                format!("`{}` is not the name of a header", excerpt(text)),
                "write a name such as `content-type`, or `*` for every header",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let origins = origins.iter().map(|origin| AllowedOrigin::parse(origin).unwrap()).collect();
        let headers = vec![AllowedHeader::parse("Content-Type").unwrap()];
        Cors { origins, headers, max_age: default_max_age(), credentials }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// Returns the head of a request over TLS, or without it.
    fn head(scheme: Scheme, pairs: &[(&'static str, &str)]) -> Parts {
        let mut head = http::Request::new(()).into_parts().0;
        head.headers = headers(pairs);
        head.extensions.insert(scheme);
        head
    }

    /// Returns the added headers as text, or the status of the refusal.
    fn check(cors: &Cors, pairs: &[(&'static str, &str)]) -> Result<String, u16> {
        let added = cors.check(&head(Scheme::HTTPS, pairs)).map_err(|problem| problem.status.as_u16())?;
        let mut lines: Vec<_> =
            added.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        Ok(lines.join("; "))
    }

    #[test]
    fn only_listed_origins_and_the_own_origin_are_allowed() {
        let shop = cors(&["https://shop.example", "http://localhost:3000"], false);
        let allowed = "access-control-allow-origin: https://shop.example; access-control-expose-headers: retry-after; vary: origin";
        assert_eq!(check(&shop, &[("origin", "https://shop.example")]).as_deref(), Ok(allowed));
        assert_eq!(check(&shop, &[]).as_deref(), Ok("vary: origin"));
        let own = [("origin", "https://api.example:8443"), ("host", "api.example:8443")];
        assert_eq!(check(&shop, &own).as_deref(), Ok("vary: origin"));
        for origin in [
            "https://evil.example",
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.evil.example",
            "https://SHOP.example",
            "null",
            "",
        ] {
            assert_eq!(check(&shop, &[("origin", origin), ("host", "api.example")]), Err(403), "{origin}");
        }
        let twice = [("origin", "https://shop.example"), ("origin", "https://evil.example")];
        let mut repeated = head(Scheme::HTTPS, &[]);
        for (name, value) in twice {
            repeated.headers.append(name, value.parse().unwrap());
        }
        assert_eq!(shop.check(&repeated).unwrap_err().status, 400);
    }

    #[test]
    fn a_page_of_a_name_that_resolves_to_this_machine_is_foreign_without_tls() {
        let shop = cors(&["https://shop.example"], false);
        let check =
            |scheme, origin: &str, host: &str| shop.check(&head(scheme, &[("origin", origin), ("host", host)])).is_ok();
        for host in ["127.0.0.1:8080", "[::1]:8080", "192.0.2.7", "localhost:8080", "LOCALHOST"] {
            let origin = format!("http://{}", host.to_ascii_lowercase());
            assert!(check(Scheme::HTTP, &origin, host), "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "127.1", "[::1", ""] {
            assert!(!check(Scheme::HTTP, &format!("http://{host}"), host), "{host}");
        }
        // A page of another scheme is of another origin.
        assert!(!check(Scheme::HTTP, "https://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(!check(Scheme::HTTPS, "http://api.example", "api.example"));
    }

    #[test]
    fn every_origin_gets_a_star_and_no_credentials() {
        let any = cors(&["*"], false);
        let allowed = "access-control-allow-origin: *; access-control-expose-headers: retry-after";
        assert_eq!(check(&any, &[("origin", "null")]).as_deref(), Ok(allowed));
        let with_cookies =
            check(&cors(&["https://shop.example"], true), &[("origin", "https://shop.example")]).unwrap();
        assert!(with_cookies.contains("access-control-allow-credentials: true"), "{with_cookies}");
    }

    #[test]
    fn a_preflight_request_gets_methods_headers_and_age() {
        let shop = cors(&["https://shop.example"], false);
        let head = |pairs: &[(&'static str, &str)]| head(Scheme::HTTP, pairs);
        let asked = head(&[("origin", "https://shop.example"), ("access-control-request-headers", "x-evil")]);
        let response = shop.preflight(&asked, &[Method::POST, Method::PUT]).unwrap();
        let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(response.status(), 204);
        assert_eq!(header(ACCESS_CONTROL_ALLOW_METHODS), "POST, PUT");
        assert_eq!(header(ACCESS_CONTROL_ALLOW_HEADERS), "content-type");
        assert_eq!(header(ACCESS_CONTROL_MAX_AGE), "600");
        assert!(header(VARY).starts_with("origin, "));
        let any = Cors { headers: vec![AllowedHeader::parse("*").unwrap()], ..shop.clone() };
        let response = any.preflight(&asked, &[Method::POST]).unwrap();
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "x-evil");
        assert!(shop.preflight(&head(&[("origin", "https://evil.example")]), &[Method::POST]).is_err());
    }

    #[test]
    fn an_origin_must_have_the_form_that_browsers_send() {
        for (text, help) in [
            ("shop.example", "`https://shop.example`"),
            ("https://shop.example/", "as `https://shop.example`"),
            ("https://shop.example/app", "as `https://shop.example`"),
            ("https://Shop.example", "as `https://shop.example`"),
            ("https://shop.example:443", "as `https://shop.example`"),
            ("http://shop.example:80", "as `http://shop.example`"),
            ("https://*.shop.example", "list each origin"),
            ("https://", "scheme and host"),
            ("https://user@shop.example", "scheme and host"),
            ("null", "sandboxed"),
        ] {
            let error = AllowedOrigin::parse(text).unwrap_err();
            assert!(error.help.contains(help), "{text}: {error:?}");
        }
        for text in ["*", "https://shop.example", "http://localhost:3000", "https://[::1]:8443", "app://local"] {
            assert!(AllowedOrigin::parse(text).is_ok(), "{text}");
        }
    }
}
