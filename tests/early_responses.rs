//! Responses that are ready before the body of their request has arrived: the client reads each of them, and its
//! connection takes the next request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::support::{Evoke, TIMEOUT};

const MANIFEST: &str = r#"
evoke: 1
app: shop
sources:
  checkout:
    http: { path: /checkout, type: order.placed, max_body: 4KiB }
  signed:
    http: { path: /signed, type: order.signed, auth: { bearer: { secret: { env: HOOK_TOKEN } } } }
  events:
    http: { path: /events, accept: { types: [order.placed] } }
functions:
  charge:
    component: $FUNCTIONS/charge.wasm
    on: [{ events: { type: [order.placed] } }]
    allow: { publish: ["payment.*"] }
"#;

fn up() -> Evoke {
    let mut evoke = Evoke::with(MANIFEST);
    evoke.set_environment(&[("HOOK_TOKEN", "a-long-token-for-tests")]);
    evoke.up();
    evoke
}

/// A connection over which requests are sent piece by piece.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Reads one response. Returns its status, and its head in lower case.
    fn response(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "the connection was closed after {head:?}");
        }
        head.make_ascii_lowercase();
        let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest.split("\r\n").next().unwrap());
        self.0.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
        (head["http/1.1 ".len()..][..3].parse().unwrap(), head)
    }
}

#[test]
fn a_connection_that_got_its_response_before_its_body_was_sent_takes_the_next_request() {
    let evoke = up();
    let refused = [
        (evoke.http(), "POST /nowhere", 404),
        (evoke.http(), "PUT /checkout", 405),
        (evoke.http(), "POST /checkout", 413),
        (evoke.http(), "POST /signed", 401),
        (evoke.http(), "POST /events", 415),
        // The name of another host.
        (evoke.admin(), "POST /api/v1/events", 403),
    ];
    let body = vec![b'x'; 5000];
    let chunked = [b"1388\r\n", &body[..], b"\r\n0\r\n\r\n"].concat();
    for (address, request, status) in refused {
        // Without its length, a body is refused for its size only once it has arrived.
        let lengths = [("Content-Length: 5000", &body), ("Transfer-Encoding: chunked", &chunked)];
        let lengths = &lengths[..if status == 413 { 1 } else { 2 }];
        for (length, body) in lengths {
            let mut connection = Connection::open(address);
            for _ in 0..3 {
                connection.send(format!("{request} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n").as_bytes());
                let (got, head) = connection.response();
                assert_eq!(got, status, "{request} {length}: {head}");
                assert!(!head.contains("connection: close"), "{head}");
                connection.send(body);
            }
            connection.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
            let next = if address == evoke.admin() { 403 } else { 404 };
            assert_eq!(connection.response().0, next, "{request} {length}");
        }
    }
    assert!(evoke.json_lines(&["events"]).is_empty());
}

#[test]
fn a_client_that_sends_a_large_body_before_it_reads_learns_why_it_was_refused() {
    let evoke = up();
    let body = vec![b'x'; 16 * 1024 * 1024];
    for (request, status) in [("POST /checkout", 413), ("POST /nowhere", 404), ("POST /signed", 401)] {
        let mut connection = Connection::open(evoke.http());
        connection.send(format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        connection.send(&body);
        assert_eq!(connection.response().0, status, "{request}");
    }
}

/// curl 7.88 reports an error instead of the response if the stream is reset while it sends.
#[test]
fn a_client_with_http_2_that_sends_a_large_body_learns_why_it_was_refused() {
    let evoke = up();
    let body = evoke.path("body");
    std::fs::write(&body, vec![b'x'; 16 * 1024 * 1024]).unwrap();
    for (path, status) in [("/checkout", 413), ("/nowhere", 404), ("/signed", 401)] {
        // Without its length, the body may end early: curl stops when it has the response.
        let curl = std::process::Command::new("curl")
            .args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30"])
            .args(["--http2-prior-knowledge", "--output", "/dev/null", "--write-out", "%{http_code}"])
            .args(["--header", "transfer-encoding: chunked", "--data-binary"])
            .arg(format!("@{}", body.display()))
            .arg(format!("http://{}{path}", evoke.http()))
            .output()
            .expect("curl runs");
        assert!(curl.status.success(), "{path}: {curl:?}");
        assert_eq!(String::from_utf8(curl.stdout).unwrap(), status.to_string(), "{path}");
    }
}

/// Such a client sends no body after a final response, so nothing could follow on its connection.
#[test]
fn a_client_that_waits_before_it_sends_its_body_is_told_that_the_connection_ends() {
    let evoke = up();
    for (request, status) in [("POST /checkout", 413), ("POST /nowhere", 404), ("POST /signed", 401)] {
        let mut connection = Connection::open(evoke.http());
        let head = format!("{request} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n");
        connection.send(head.as_bytes());
        let (got, head) = connection.response();
        assert_eq!(got, status, "{request}: {head}");
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(connection.0.read(&mut [0]).unwrap(), 0, "{request}");
    }
}
