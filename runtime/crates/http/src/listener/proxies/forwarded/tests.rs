use http::header::HeaderName;

use super::*;

fn proxies() -> Proxies {
    Proxies { networks: ["10.0.0.0/8", "2001:db8::/32"].map(|n| n.parse().unwrap()).into(), protocol: false }
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().uri(uri);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

/// Returns the client of a request from `peer`, as address, scheme and `X-Forwarded-Host`.
fn client(peer: &str, headers: &[(&str, &str)]) -> (String, String, Option<String>) {
    let mut request = request("/", headers);
    let connection = Client::of_connection(SocketAddr::new(peer.parse().unwrap(), 1), false, false);
    let client = connection.of_request(request.headers(), &proxies());
    let (address, scheme) = (client.address.ip().to_string(), client.scheme.to_string());
    client.apply(&mut request);
    let host = request.headers().get(X_FORWARDED_HOST).map(|host| host.to_str().unwrap().to_owned());
    (address, scheme, host)
}

fn address_of(peer: &str, headers: &[(&str, &str)]) -> String {
    client(peer, headers).0
}

const FOR: &str = "x-forwarded-for";

#[test]
fn the_client_is_the_last_address_that_is_no_proxy() {
    for (list, expected) in [
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7", "192.0.2.7"),
        ("198.51.100.1,192.0.2.7 , 10.0.0.9", "192.0.2.7"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("192.0.2.7:8080", "192.0.2.7"),
        ("[2001:db9::7]:8080, [2001:db8::1]", "2001:db9::7"),
        ("2001:db9::7", "2001:db9::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        // An entry that is not an address ends the search, which begins at the end of the list.
        ("192.0.2.7, unknown", "10.0.0.1"),
        ("192.0.2.7, unknown, 10.0.0.9", "10.0.0.9"),
        ("", "10.0.0.1"),
        (",", "10.0.0.1"),
        ("192.0.2.7, 192.0.2.999", "10.0.0.1"),
    ] {
        assert_eq!(address_of("10.0.0.1", &[(FOR, list)]), expected, "{list}");
    }
    // Several header lines count as one list.
    assert_eq!(address_of("10.0.0.1", &[(FOR, "198.51.100.1"), (FOR, "192.0.2.7")]), "192.0.2.7");
    assert_eq!(address_of("::ffff:10.0.0.1", &[(FOR, "192.0.2.7")]), "192.0.2.7");
}

#[test]
fn a_peer_that_is_no_proxy_cannot_say_anything_about_the_client() {
    for headers in [
        &[(FOR, "192.0.2.7"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example")][..],
        &[("forwarded", "for=192.0.2.7;proto=https;host=a.example")],
        &[("x-real-ip", "192.0.2.7")],
    ] {
        assert_eq!(client("198.51.100.1", headers), ("198.51.100.1".into(), "http".into(), None));
    }
}

#[test]
fn the_standard_header_names_client_scheme_and_host() {
    let of = |value: &str| client("10.0.0.1", &[("forwarded", value)]);
    let all = ("192.0.2.7".to_owned(), "https".to_owned(), Some("a.example:8443".to_owned()));
    assert_eq!(of("for=192.0.2.7;proto=https;host=\"a.example:8443\""), all);
    assert_eq!(of("for=198.51.100.1, For=\"192.0.2.7:80\" ; Proto=HTTPS; host=a.example:8443;by=10.0.0.1"), all);
    assert_eq!(of("for=\"[2001:db9::7]:80\", for=10.0.0.2").0, "2001:db9::7");
    for unclear in
        ["for=unknown", "for=_hidden", "by=192.0.2.7", "for=192.0.2.7;for=192.0.2.8", "for=\"192.0.2.7", "", "for="]
    {
        assert_eq!(of(unclear).0, "10.0.0.1", "{unclear}");
    }
}

#[test]
fn two_headers_that_disagree_are_both_ignored() {
    let both = |x: &str, standard: &str| {
        client("10.0.0.1", &[(FOR, x), ("forwarded", standard), ("x-forwarded-proto", "https")])
    };
    assert_eq!(both("192.0.2.7", "for=198.51.100.1"), ("10.0.0.1".into(), "http".into(), None));
    assert_eq!(both("192.0.2.7", "for=192.0.2.7"), ("192.0.2.7".into(), "https".into(), None));
}

#[test]
fn scheme_and_host_are_those_of_the_last_proxy_and_valid() {
    let of = |proto: &str, host: &str| {
        let (_, scheme, host) = client("10.0.0.1", &[("x-forwarded-proto", proto), ("x-forwarded-host", host)]);
        (scheme, host)
    };
    assert_eq!(of("http, https", "evil.example, a.example"), ("https".into(), Some("a.example".into())));
    assert_eq!(of("javascript", "a b"), ("http".into(), None));
    assert_eq!(of("", "user@a"), ("http".into(), None));
}

#[test]
fn functions_see_only_what_is_known_about_the_client() {
    let headers = [
        (FOR, "198.51.100.1, 192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-server", "s"),
        ("x-forwarded-ssl", "on"),
        ("x-real-ip", "198.51.100.1"),
        ("host", "inner:8080"),
        ("accept", "*/*"),
    ];
    let seen = |peer: &str, uri: &str| {
        let mut request = request(uri, &headers);
        let connection = Client::of_connection(SocketAddr::new(peer.parse().unwrap(), 1), false, false);
        connection.of_request(request.headers(), &proxies()).apply(&mut request);
        let mut seen: Vec<(HeaderName, String)> =
            request.headers().iter().map(|(name, value)| (name.clone(), value.to_str().unwrap().to_owned())).collect();
        seen.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        (seen, request.uri().to_string(), request.extensions().get::<Scheme>().cloned())
    };
    let known = [
        ("accept", "*/*"),
        ("host", "a.example"),
        (FOR, "192.0.2.7"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-proto", "https"),
    ]
    .map(|(name, value)| (HeaderName::from_static(name), value.to_owned()));
    let (found, uri, scheme) = seen("10.0.0.1", "http://inner:8080/x?y");
    assert_eq!((found, uri.as_str(), scheme), (known.to_vec(), "https://a.example/x?y", Some(Scheme::HTTPS)));
    assert_eq!(seen("10.0.0.1", "/x?y").1, "/x?y");

    let unknown = [("accept", "*/*"), ("host", "inner:8080")]
        .map(|(name, value)| (HeaderName::from_static(name), value.to_owned()));
    // A peer that is not a proxy cannot choose the scheme in the target either.
    let (found, uri, scheme) = seen("198.51.100.1", "https://inner:8080/x");
    assert_eq!((found, uri.as_str(), scheme), (unknown.to_vec(), "http://inner:8080/x", Some(Scheme::HTTP)));
}

#[test]
fn a_client_that_the_proxy_protocol_named_is_passed_on() {
    let mut request = request("/", &[(FOR, "203.0.113.9")]);
    let connection = Client::of_connection("192.0.2.7:5000".parse().unwrap(), true, true);
    let client = connection.of_request(request.headers(), &proxies());
    assert_eq!(client, connection);
    client.apply(&mut request);
    assert_eq!(request.headers()[FOR], "192.0.2.7");
    assert_eq!(request.headers()["x-forwarded-proto"], "https");
}

#[test]
fn other_headers_about_the_client_and_other_spellings_are_kept_from_proxies_only() {
    let names =
        ["x-forwarded-user", "x-forwarded-prefix", "x-forwarded", "x_forwarded_for", "x-forwarded_for", "x_real_ip"];
    let left = |peer: &str| {
        let mut request = request("/", &names.map(|name| (name, "forged")));
        let connection = Client::of_connection(SocketAddr::new(peer.parse().unwrap(), 1), false, false);
        connection.of_request(request.headers(), &proxies()).apply(&mut request);
        request.headers().keys().map(HeaderName::to_string).collect::<Vec<_>>()
    };
    assert_eq!(left("198.51.100.1"), [""; 0]);
    assert_eq!(left("10.0.0.1"), names[..3]);
}
