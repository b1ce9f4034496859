//! HTTP components that respond with what HTTP does not allow, and peers on either side that never read.

use std::io::{Read, Write};

use crate::assert_eventually;
use crate::component_kinds::{PATH, begin_request, http_manifest};
use crate::support::{Evoke, TIMEOUT, request};

/// Starts the fixture `http-answer` with one request at a time and a short time limit.
fn short() -> Evoke {
    Evoke::up_with(&http_manifest(&format!("{PATH}    timeout: 1s\n    concurrency: 1\n")))
}

/// Asserts that the function handles requests.
fn assert_answers(evoke: &Evoke) {
    assert_eq!(evoke.post("/web", "still there").body, "still there");
}

#[test]
fn responses_that_http_does_not_allow_fail_alone() {
    let mut evoke = Evoke::up_with(&http_manifest(PATH));
    for (query, logged) in
        [("many-headers", "total size of fields exceeds limit"), ("early", "the function returned status 103")]
    {
        let status = request("GET", evoke.http(), &format!("/web?{query}"), &[], "").unwrap().status;
        assert_eq!(status, 502, "{query}");
        assert_eventually!(evoke.stdout(&["logs"]).contains(logged), "{query}: {}", evoke.stdout(&["logs"]));
        assert_answers(&evoke);
    }
    assert!(!evoke.has_ended());
}

#[test]
fn a_response_never_has_two_content_lengths() {
    let evoke = Evoke::up_with(&http_manifest(PATH));
    // The fixture adds an invalid length, and a second one in each way that the interface has. Each of these calls must
    // fail.
    let mut stream =
        begin_request(&evoke, "POST /web?two-lengths HTTP/1.1\nHost: a\nContent-Length: 5\nConnection: close\n\nhello");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nhello"), "{text}");
    assert_eq!(text.to_lowercase().matches("content-length: 5\r\n").count(), 1, "{text}");
    assert_eq!(text.to_lowercase().matches("content-length").count(), 1, "{text}");
}

#[test]
fn a_request_with_too_many_headers_reaches_no_guest() {
    let evoke = Evoke::up_with(&http_manifest(PATH));
    for count in [101, 33_000] {
        let head: String = (0..count).map(|n| format!("x-{n}: 1\n")).collect();
        let mut stream = begin_request(&evoke, "POST /web HTTP/1.1\nHost: a\nContent-Length: 0\n");
        // The server does not read all of a large head; what the client then reads may be a reset.
        let _ = stream.write_all(format!("{head}\n").replace('\n', "\r\n").as_bytes());
        let mut response = Vec::new();
        let end = stream.read_to_end(&mut response);
        let response = String::from_utf8(response).unwrap();
        let is_refused = response.starts_with("HTTP/1.1 431 ") || count > 101 && response.is_empty() && end.is_err();
        assert!(is_refused, "{count} headers: {response}");
    }
    assert_answers(&evoke);
    assert_eventually!(evoke.stdout(&["logs"]).contains("echoed"), "{}", evoke.stdout(&["logs"]));
    assert_eq!(evoke.stdout(&["logs"]).matches("echoed").count(), 1, "{}", evoke.stdout(&["logs"]));
}

#[test]
fn a_client_that_reads_nothing_holds_a_guest_until_its_timeout() {
    let evoke = short();
    let unread = begin_request(&evoke, "GET /web?flood HTTP/1.1\nHost: a\n\n");
    assert_eventually!(evoke.stdout(&["logs"]).contains("reached its timeout of 1s"), "{}", evoke.stdout(&["logs"]));
    // The only permit is free again.
    assert_answers(&evoke);
    drop(unread);
}

#[test]
fn a_guest_that_never_reads_its_request_ends_at_its_timeout() {
    let evoke = short();
    let mut stream = begin_request(&evoke, "POST /web?hang HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n");
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 0x1000], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    // Writes until the server closes the connection. Until then, the server takes no more than the buffers hold.
    while stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 32 << 20, "the server took {sent} bytes that nobody read");
    assert_eventually!(evoke.stdout(&["logs"]).contains("reached its timeout of 1s"), "{}", evoke.stdout(&["logs"]));
    assert_answers(&evoke);
}
