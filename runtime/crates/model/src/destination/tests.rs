use super::*;

#[test]
fn an_origin_is_only_scheme_host_and_port() {
    for (text, canonical) in [
        ("https://api.example.com:443", "https://api.example.com:443"),
        ("https://API.example.com", "https://api.example.com:443"),
        ("https://api.example.com.", "https://api.example.com:443"),
        ("https://bücher.example", "https://xn--bcher-kva.example:443"),
        ("http://localhost", "http://localhost:80"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://0x7f.1:8080", "http://127.0.0.1:8080"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("https://*.Example.com:8443", "https://*.example.com:8443"),
    ] {
        assert_eq!(Destination::parse(text).unwrap().to_string(), canonical);
    }
    for text in [
        "",
        "example.com",
        "https://",
        "https://a/b",
        "https://a?b",
        "https://a#b",
        "https://u@a",
        "https://a:0",
        "https://a:",
        "https://a:x",
        "https://a:65536",
        "https://a:+80",
        "ws://a",
        "https://a b",
        "https://:443",
        "https://[::1",
        "https://a\\b",
        "https://a\n",
        "https://*",
        "https://*.com",
        "https://*.127.0.0.1",
        "https://a.*.example.com",
        "https://api*.example.com",
        "https://*.*.example.com",
        "https://..",
        "https://a..",
    ] {
        assert!(Destination::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_wildcard_matches_one_label_or_more_and_nothing_else() {
    let wildcard = Destination::parse("https://*.example.com:8443").unwrap();
    let matches = |scheme: &str, authority: &str| wildcard.matches(&Target::parse(scheme, authority).unwrap());
    assert!(matches("https", "a.example.com:8443"));
    assert!(matches("https", "A.B.EXAMPLE.com.:8443"));
    for other in ["example.com:8443", "aexample.com:8443", "a.example.com", "a.example.com.evil.test:8443"] {
        assert!(!matches("https", other), "{other}");
    }
    assert!(!matches("http", "a.example.com:8443"));
}

#[test]
fn odd_spellings_of_an_address_are_that_address() {
    for spelling in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
    ] {
        let target = Target::parse("http", spelling).unwrap();
        assert_eq!(target.address(), Some("127.0.0.1".parse().unwrap()), "{spelling}");
    }
    for spelling in ["[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]"] {
        let target = Target::parse("http", spelling).unwrap();
        assert_eq!(target.address(), Some("::ffff:127.0.0.1".parse().unwrap()), "{spelling}");
    }
    // Spellings that a resolver could read as addresses, but that the URL Standard does not accept.
    for spelling in ["127.0.0.256", "1.2.3.4.5", "0x100000000", "a.1", "[fe80::1%25eth0]", "127.0.0.1@evil.test"] {
        assert!(Target::parse("http", spelling).is_err(), "{spelling}");
    }
}

#[test]
fn a_range_contains_its_addresses_of_its_own_family() {
    let contains =
        |range: &str, address: &str| range.parse::<AddressRange>().unwrap().contains(address.parse().unwrap());
    assert!(contains("10.1.0.0/16", "10.1.255.255"));
    assert!(!contains("10.1.0.0/16", "10.2.0.0"));
    assert!(contains("0.0.0.0/0", "8.8.8.8"));
    assert!(!contains("0.0.0.0/0", "::ffff:8.8.8.8"));
    assert!(contains("127.0.0.1", "127.0.0.1"));
    assert!(!contains("127.0.0.1", "127.0.0.2"));
    assert!(contains("fd00:1::/48", "fd00:1:0:ffff::1"));
    assert!(!contains("fd00:1::/48", "fd00:2::1"));
    assert!(contains("::/0", "::1"));
    for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::1/129", "localhost", "10.0.0.1/x"] {
        assert!(text.parse::<AddressRange>().is_err(), "{text}");
    }
}
