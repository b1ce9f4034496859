//! Attempts to reach what is not granted (PROMISES, SSRF). Each runs in a network where every address is this machine,
//! and one server that listens on all of them is the observer: it records at which address each connection arrived.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::network::{Answers, in_own_network, set_up};
use super::peer::{self, Peer};
use super::{call, manifest};
use crate::assert_eventually;
use crate::support::Evoke;

/// Addresses of the internet, which this network has on loopback.
const GLOBAL_4: &str = "93.184.215.14";
const OTHER_4: &str = "198.41.0.4";
const GLOBAL_6: &str = "2606:4700::77";
/// A global address that this network does not have.
const NOWHERE: &str = "8.8.4.4";
/// Addresses that a function must not reach, and on which the observer listens.
const INNER: [&str; 7] =
    ["169.254.169.254", "10.0.0.1", "192.168.0.1", "100.64.0.1", "172.16.0.1", "fd00::1", "fec0::1"];

const REFUSED: &str = "HTTP: the request is not allowed";

fn addresses() -> Vec<String> {
    let mut all: Vec<String> = [GLOBAL_4, OTHER_4].map(|address| format!("{address}/32")).into();
    all.push(format!("{GLOBAL_6}/128 nodad"));
    all.extend(
        INNER.map(|inner| if inner.contains(':') { format!("{inner}/128 nodad") } else { format!("{inner}/32") }),
    );
    all
}

fn answers(names: &[(&'static str, &[&[&str]])]) -> Answers {
    let parse = |text: &&str| text.parse::<IpAddr>().unwrap();
    let rounds = |rounds: &[&[&str]]| rounds.iter().map(|round| round.iter().map(parse).collect()).collect();
    names.iter().map(|(name, each)| (*name, rounds(each))).collect()
}

/// The observer: a server at every address of both families.
fn observer() -> Peer {
    Peer::listen("[::]:0", peer::ok_once)
}

fn set_up_network(names: &[(&'static str, &[&[&str]])]) -> super::network::NameServer {
    let all = addresses();
    set_up(&all.iter().map(String::as_str).collect::<Vec<_>>(), answers(names))
}

#[test]
fn no_spelling_of_an_inner_address_is_reached_without_its_grant() {
    in_own_network("outbound::escapes::no_spelling_of_an_inner_address_is_reached_without_its_grant", || {
        let _names = set_up_network(&[]);
        let observer = observer();
        let port = observer.port();
        // Every host is granted in its normal form, so only the check of the address is left. Beside it are its other
        // spellings.
        let hosts: [(&str, &[&str]); 29] = [
            ("127.0.0.1", &["127.0.0.1.", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1"]),
            ("127.255.255.254", &[]),
            ("0.0.0.0", &["0"]),
            ("localhost", &["localhost.", "LOCALHOST"]),
            ("169.254.169.254", &["0xa9fea9fe", "2852039166"]),
            ("10.0.0.1", &[]),
            ("192.168.0.1", &[]),
            ("172.16.0.1", &[]),
            ("100.64.0.1", &[]),
            ("224.0.0.1", &[]),
            ("255.255.255.255", &[]),
            ("192.0.2.1", &[]),
            ("198.18.0.1", &[]),
            ("[::1]", &["[0:0:0:0:0:0:0:1]", "[0000::0001]"]),
            ("[::]", &[]),
            ("[::ffff:127.0.0.1]", &["[::FFFF:7F00:1]"]),
            ("[::ffff:a9fe:a9fe]", &["[::ffff:169.254.169.254]"]),
            ("[::ffff:0:7f00:1]", &[]),
            ("[::127.0.0.1]", &[]),
            ("[64:ff9b::7f00:1]", &["[64:ff9b::127.0.0.1]"]),
            ("[64:ff9b:1::7f00:1]", &[]),
            ("[2002:7f00:1::1]", &[]),
            ("[2001::1]", &[]),
            ("[2001:db8::1]", &[]),
            ("[fe80::1]", &[]),
            ("[fec0::1]", &[]),
            ("[fd00::1]", &[]),
            ("[fd00:ec2::254]", &[]),
            ("[ff02::1]", &[]),
        ];
        let grants: Vec<String> = hosts.iter().map(|(host, _)| format!("\"http://{host}:{port}\"")).collect();
        let evoke = Evoke::up_with(&manifest(&format!("[{}]", grants.join(", "))));
        for host in hosts.iter().flat_map(|(host, others)| [host].into_iter().chain(*others)) {
            let called = call(&evoke, &json!({ "url": format!("http://{host}:{port}/") }));
            assert_eq!(called, [json!({ "error": REFUSED })], "{host}");
        }
        // Nothing of these is a target at all.
        let no_targets = [
            "user@127.0.0.1",
            "user:password@localhost",
            "127.0.0.1@127.0.0.1",
            "user@[::1]",
            "user:password@[::1]",
            "[::1]@[::1]",
            "[::1].",
            "[::1%25lo]",
            // Other digits and letters, which a name may not have or which become those of an address.
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
            "\u{24db}ocalhost",
        ];
        for host in no_targets {
            let called = call(&evoke, &json!({ "url": format!("http://{host}:{port}/") }));
            assert!(called[0]["error"].is_string(), "{host}: {called:?}");
        }
        let logs = || evoke.stdout(&["logs"]);
        assert_eventually!(logs().contains("the metadata service of cloud machines"), "{}", logs());
        assert!(!logs().contains("password"), "{}", logs());
        assert_eq!(observer.arrived(), [] as [&str; 0]);
    });
}

#[test]
fn only_what_is_granted_by_name_is_reached() {
    in_own_network("outbound::escapes::only_what_is_granted_by_name_is_reached", || {
        let _names = set_up_network(&[
            ("api.test", &[&[GLOBAL_4]]),
            ("a.wild.test", &[&[GLOBAL_4]]),
            ("b.a.wild.test", &[&[GLOBAL_4]]),
            ("wild.test", &[&[GLOBAL_4]]),
            ("evilwild.test", &[&[GLOBAL_4]]),
            ("api.test.evil.test", &[&[GLOBAL_4]]),
            ("xn--bcher-kva.test", &[&[GLOBAL_4]]),
        ]);
        let observer = observer();
        let port = observer.port();
        let evoke = Evoke::up_with(&manifest(&format!(
            "[\"http://api.test:{port}\", \"http://*.wild.test:{port}\", \"http://bücher.test:{port}\"]"
        )));
        let reach = |url: String| call(&evoke, &json!({ "url": url })).remove(0);
        let granted = ["api.test", "API.test.", "a.wild.test", "b.a.wild.test", "xn--bcher-kva.test"];
        for host in granted {
            assert_eq!(reach(format!("http://{host}:{port}/"))["status"], 200, "{host}");
        }
        let heads = observer.seen();
        assert!(heads[1].head.contains(&format!("host: api.test:{port}\r\n")), "{}", heads[1].head);
        for host in ["wild.test", "evilwild.test", "api.test.evil.test", GLOBAL_4, OTHER_4] {
            assert_eq!(reach(format!("http://{host}:{port}/")), json!({ "error": REFUSED }), "{host}");
        }
        assert_eq!(reach("http://api.test/".into()), json!({ "error": REFUSED }), "another port");
        assert_eq!(reach(format!("https://api.test:{port}/")), json!({ "error": REFUSED }), "another scheme");
        assert_eq!(observer.arrived(), [GLOBAL_4; 5]);
    });
}

#[test]
fn an_answer_that_changes_between_two_lookups_reaches_no_inner_address() {
    in_own_network("outbound::escapes::an_answer_that_changes_between_two_lookups_reaches_no_inner_address", || {
        let names = set_up_network(&[
            // The first DNS response is harmless; the following ones are not.
            ("rebind.test", &[&[GLOBAL_4], &["127.0.0.1"], &["169.254.169.254"], &["::1"], &[OTHER_4]]),
            ("first.test", &[&["10.0.0.1"], &[GLOBAL_4]]),
        ]);
        let observer = observer();
        let port = observer.port();
        let evoke =
            Evoke::up_with(&manifest(&format!("[\"http://rebind.test:{port}\", \"http://first.test:{port}\"]")));
        let reach = |name: &str| call(&evoke, &json!({ "url": format!("http://{name}:{port}/") })).remove(0);
        assert_eq!(reach("rebind.test")["status"], 200);
        // One look-up for one request: the address that was checked is the one that is connected to.
        assert_eq!(names.lookups("rebind.test"), 1);
        for _ in 0..3 {
            assert_eq!(reach("rebind.test"), json!({ "error": REFUSED }));
        }
        assert_eq!(reach("rebind.test")["status"], 200);
        assert_eq!(names.lookups("rebind.test"), 5);
        assert_eq!(reach("first.test"), json!({ "error": REFUSED }));
        assert_eq!(reach("first.test")["status"], 200);
        assert_eq!(observer.arrived(), [GLOBAL_4, OTHER_4, GLOBAL_4]);
    });
}

#[test]
fn of_mixed_answers_only_the_allowed_addresses_are_tried_in_both_families() {
    in_own_network("outbound::escapes::of_mixed_answers_only_the_allowed_addresses_are_tried_in_both_families", || {
        let inner_6 = ["::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1", "fe80::1", "2002:7f00:1::1"];
        let _names = set_up_network(&[
            ("mixed.test", &[&["127.0.0.1", "::1", "169.254.169.254", GLOBAL_4]]),
            ("six.test", &[&["10.0.0.1", "::1", GLOBAL_6]]),
            ("inner-six.test", &[&inner_6]),
            ("next.test", &[&[NOWHERE, GLOBAL_4]]),
            ("private.test", &[&["10.0.0.1", "127.0.0.1"]]),
        ]);
        let observer = observer();
        let port = observer.port();
        let plain = ["mixed.test", "six.test", "inner-six.test", "next.test"];
        let mut grants: Vec<String> = plain.iter().map(|name| format!("\"http://{name}:{port}\"")).collect();
        grants.push(format!("{{ url: \"http://private.test:{port}\", addresses: [10.0.0.0/8] }}"));
        let evoke = Evoke::up_with(&manifest(&format!("[{}]", grants.join(", "))));
        let reach = |name: &str| call(&evoke, &json!({ "url": format!("http://{name}:{port}/") })).remove(0);
        for name in ["mixed.test", "six.test", "next.test", "private.test"] {
            assert_eq!(reach(name)["status"], 200, "{name}");
        }
        assert_eq!(reach("inner-six.test"), json!({ "error": REFUSED }));
        assert_eq!(observer.arrived(), [GLOBAL_4, GLOBAL_6, GLOBAL_4, "10.0.0.1"]);
    });
}

#[test]
fn a_redirect_to_an_inner_address_is_returned_and_not_followed() {
    in_own_network("outbound::escapes::a_redirect_to_an_inner_address_is_returned_and_not_followed", || {
        let _names = set_up_network(&[("api.test", &[&[GLOBAL_4]]), ("six.test", &[&[GLOBAL_6]])]);
        let redirects: Vec<String> = ["http://169.254.169.254/", "http://localhost/", "//[::1]/", "http://api.test/"]
            .map(|to| format!("location: {to}"))
            .into();
        let count = std::sync::atomic::AtomicUsize::new(0);
        let observer = Peer::listen("[::]:0", move |_| {
            let at = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            peer::response("307 Temporary Redirect", &[&redirects[at % redirects.len()]], b"")
        });
        let port = observer.port();
        let evoke = Evoke::up_with(&manifest(&format!("[\"http://api.test:{port}\", \"http://six.test:{port}\"]")));
        for (name, address) in [("api.test", GLOBAL_4), ("six.test", GLOBAL_6)] {
            let (before, seen) = (observer.connections(), observer.seen().len());
            for _ in 0..4 {
                let called = call(&evoke, &json!({ "url": format!("http://{name}:{port}/") }));
                assert_eq!(called[0]["status"], 307, "{called:?}");
            }
            assert!(observer.arrived()[before..].iter().all(|at| at == address), "{:?}", observer.arrived());
            assert_eq!(observer.seen().len(), seen + 4);
        }
    });
}

#[test]
fn the_environment_and_an_absolute_path_choose_no_other_destination() {
    in_own_network("outbound::escapes::the_environment_and_an_absolute_path_choose_no_other_destination", || {
        let _names = set_up_network(&[("api.test", &[&[GLOBAL_4]])]);
        let observer = observer();
        let port = observer.port();
        let proxy = format!("http://127.0.0.1:{port}");
        let mut evoke = Evoke::with(&manifest(&format!("[\"http://api.test:{port}\"]")));
        evoke.set_environment(&[
            ("http_proxy", &proxy),
            ("HTTP_PROXY", &proxy),
            ("ALL_PROXY", &proxy),
            ("all_proxy", &proxy),
        ]);
        evoke.up();
        let called = call(
            &evoke,
            &json!({
                "url": format!("http://api.test:{port}/http://127.0.0.1/"),
                "headers": { "host": "127.0.0.1" },
            }),
        );
        // The header is forbidden to guests; without it the path is sent as a path.
        assert!(called[0]["error"].is_string(), "{called:?}");
        let called = call(&evoke, &json!({ "url": format!("http://api.test:{port}/http://127.0.0.1/") }));
        assert_eq!(called[0]["status"], 200, "{called:?}");
        let head = &observer.seen()[0].head;
        assert!(head.starts_with("GET /http://127.0.0.1/ HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: api.test:{port}\r\n")), "{head}");
        assert_eq!(observer.arrived(), [GLOBAL_4]);
        let none: Vec<Value> = call(&evoke, &json!({ "url": "http://other.test/", "fail": true }));
        assert!(none.is_empty());
    });
}
