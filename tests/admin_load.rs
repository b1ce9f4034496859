//! The admin API stays small and reachable under many clients that follow, do not read, or do nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::{Evoke, TIMEOUT, request};

/// The most by which unread responses may grow the process: what 40 responses of 64 KiB and one event of 1 MiB need.
const GROWTH_KIB_MAX: u64 = 200 * 1024;

/// Sends a request for a list and reads the status line only. Returns the status and the open connection.
fn open(evoke: &Evoke, path: &str) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(evoke.admin()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let (admin, token) = (evoke.admin(), evoke.token());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    (read_status(&mut stream).unwrap(), stream)
}

/// Reads the first line of a response up to the status.
fn read_status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(std::str::from_utf8(&start).unwrap().split(' ').nth(1).unwrap().parse().unwrap())
}

/// Opens 40 requests and reads none of their responses. Returns by how many KiB the process grew at most, until it was
/// idle.
fn growth_of_unread(evoke: &Evoke, path: &str) -> u64 {
    let before = evoke.rss_kib();
    let mut most = before;
    let opened: Vec<_> = (0..40)
        .map(|_| {
            let opened = open(evoke, path);
            most = most.max(evoke.rss_kib());
            opened
        })
        .collect();
    assert!(opened.iter().all(|(status, _)| *status == 200), "{opened:?}");
    // The process is idle when it uses no CPU time between two polls.
    let (mut last, mut same) = (0, 0);
    assert_eventually!(
        {
            most = most.max(evoke.rss_kib());
            let now = evoke.cpu_ticks();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same >= 20
        },
        "{path}: still busy"
    );
    assert_eq!(request("GET", evoke.admin(), "/readyz", &[], "").unwrap().status, 200);
    evoke.stdout(&["status"]);
    println!("{path}: 40 unread responses grew the process by {} KiB", most - before);
    most - before
}

#[test]
fn followers_are_limited_and_leave_room_for_health_and_commands() {
    let evoke = Evoke::up_with(ORDERS);
    let opened: Vec<_> = (0..64).map(|_| open(&evoke, "/api/v1/events?follow=true")).collect();
    let refused = opened.iter().filter(|(status, _)| *status == 503).count();
    assert_eq!(refused, 32, "{opened:?}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request("GET", evoke.admin(), path, &[], "").unwrap().status, 200, "{path}");
    }
    evoke.stdout(&["status"]);
    let refused = evoke.run(&["events", "--follow"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("too many followed lists: the maximum of 32"),
        "{refused:?}"
    );
    // The other followers still get events.
    let (_, stream) = opened.into_iter().find(|(status, _)| *status == 200).unwrap();
    evoke.stdout(&["emit", "--type", "t"]);
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap().contains(r#""type":"t""#)));
}

#[test]
fn strangers_that_only_connect_keep_nobody_out() {
    let evoke = Evoke::up_with(ORDERS);
    let (status, follower) = open(&evoke, "/api/v1/events?follow=true");
    assert_eq!(status, 200);
    let connections: Vec<_> = (0..600).map(|_| TcpStream::connect(evoke.admin()).unwrap()).collect();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request("GET", evoke.admin(), path, &[], "").unwrap().status, 200, "{path}");
    }
    evoke.stdout(&["status"]);
    evoke.stdout(&["emit", "--type", "t"]);
    // A request with a token keeps its connection, although it is the oldest.
    assert!(BufReader::new(follower).lines().any(|line| line.unwrap().contains(r#""type":"t""#)));
    drop(connections);
}

#[test]
fn strangers_that_never_send_the_code_of_a_session_keep_nobody_out() {
    let evoke = Evoke::up_with(ORDERS);
    let admin = evoke.admin();
    // As many requests as the API has connections. Their bodies never arrive.
    let mut connections: Vec<_> = (0..256)
        .map(|_| {
            let mut stream = TcpStream::connect(admin).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            let head = format!(
                "POST /api/v1/console/session HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\n\
                 Content-Length: 20\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request("GET", admin, path, &[], "").unwrap().status, 200, "{path}");
    }
    evoke.stdout(&["status"]);
    evoke.stdout(&["emit", "--type", "t"]);
    // A connection that was replaced before its head arrived has no response.
    let statuses: Vec<_> = connections.iter_mut().filter_map(|stream| read_status(stream).ok()).collect();
    assert!(statuses.contains(&408) && statuses.iter().all(|status| [408, 503].contains(status)), "{statuses:?}");
}

#[test]
fn unread_lists_of_logs_take_little_memory() {
    let mut evoke = Evoke::with(ORDERS);
    std::fs::create_dir_all(evoke.path(".evoke/logs")).unwrap();
    let line = serde_json::json!({ "at": "2026-01-01T00:00:00.000Z", "level": "info", "text": "x".repeat(1_000) });
    for name in ["evoke.jsonl", "evoke.jsonl.1", "evoke.jsonl.2"] {
        std::fs::write(evoke.path(".evoke/logs").join(name), format!("{line}\n").repeat(5_000)).unwrap();
    }
    evoke.up();
    let growth = growth_of_unread(&evoke, "/api/v1/logs?since=2025-01-01T00:00:00Z");
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB");
    assert_eq!(evoke.json_lines(&["logs", "--since", "2025-01-01T00:00:00Z"]).len(), 15_000);
}

/// Fourteen functions that publish each event again.
fn echoes() -> String {
    let function = |n| {
        format!(
            "  echo{n}:\n    component: $FUNCTIONS/echo.wasm\n    memory: 64MiB\n    on: [{{ source: in }}]\n    \
             allow: {{ publish: [\"*\"] }}\n"
        )
    };
    let functions: String = (0..14).map(function).collect();
    format!("evoke: 1\napp: lab\nsources:\n  in: {{ http: {{ path: /in, type: in }} }}\nfunctions:\n{functions}")
}

#[test]
fn unread_events_and_traces_take_little_memory() {
    let evoke = Evoke::up_with(&echoes());
    let body = serde_json::json!({ "text": "x".repeat(900_000) }).to_string();
    for _ in 0..3 {
        evoke.post_accepted("/in", &body);
    }
    evoke.settle();
    assert_eq!(evoke.json_lines(&["events", "--after", "0"]).len(), 3 * 15);
    assert_eq!(evoke.json(&["trace", "1"])["deliveries"].as_array().unwrap().len(), 14);
    for path in ["/api/v1/events?after=0", "/api/v1/trace/1"] {
        let growth = growth_of_unread(&evoke, path);
        assert!(growth < GROWTH_KIB_MAX, "{path}: {growth} KiB");
    }
}
