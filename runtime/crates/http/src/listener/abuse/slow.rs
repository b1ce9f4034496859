//! Peers that send or read bytes slowly, and connections that wait for their next request.

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// A time limit that is too long to end within a test.
const NEVER: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_connection_waits_for_its_next_request_longer_than_for_the_rest_of_a_head() {
    let server = TestServer::open(Limits { idle: SHORT, keep_alive: NEVER, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    for _ in 0..2 {
        peer.write_all(REQUEST).await.unwrap();
        until(&mut peer, "<0>").await;
        sleep(SHORT * 3).await; // longer than the idle limit, which must not apply
    }
    peer.write_all(b"G").await.unwrap();
    assert_eq!(until_closed(&mut peer).await, "");
    // The beginning of the next head arrives together with a request.
    let mut peer = server.connect().await;
    peer.write_all(&[REQUEST, b"GET / HTTP/1.1\r\nHo"].concat()).await.unwrap();
    assert_eq!(until_closed(&mut peer).await.matches("HTTP/1.1 200 ").count(), 1);
    assert_eq!(server.paths().len(), 3);
}

#[tokio::test]
async fn a_connection_ends_after_its_keep_alive_time() {
    let server = TestServer::open(Limits { idle: NEVER, keep_alive: SHORT, ..Limits::default() }).await;
    let started = Instant::now();
    assert!(server.exchange(REQUEST).await.starts_with("HTTP/1.1 200 "));
    assert!(started.elapsed() >= SHORT / 2);
}

#[tokio::test]
async fn connections_between_requests_give_way_when_most_connections_are_in_use() {
    let limits = Limits { connections_max: 4, idle: SHORT, keep_alive: NEVER, ..Limits::default() };
    let server = TestServer::open(limits).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut peer = server.connect().await;
        peer.write_all(REQUEST).await.unwrap();
        until(&mut peer, "<0>").await;
        waiting.push(peer);
    }
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    for mut peer in waiting {
        assert_eq!(until_closed(&mut peer).await, "");
    }
    server.gate.add_permits(1);
    until(&mut busy, "<0>").await;
}

#[tokio::test]
async fn a_body_below_the_lowest_rate_is_refused() {
    let rate_min = MinRate { bytes_per_s: 1_000_000, window: SHORT };
    let limits = Limits { body_idle: NEVER, body_total: NEVER, rate_min, ..Limits::default() };
    let server = TestServer::open(limits).await;
    let response = send_body_byte_by_byte(&server).await;
    assert!(response.starts_with(b"HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_peer_that_takes_a_response_below_the_lowest_rate_is_disconnected() {
    let rate_min = MinRate { bytes_per_s: u32::MAX, window: SHORT };
    let limits = Limits { idle: SHORT, write_stall: NEVER, rate_min, ..Limits::default() };
    let server = TestServer::open(limits).await;
    let mut peer = server.connect().await;
    peer.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.paths().is_empty() {
        tokio::task::yield_now().await;
    }
    // The peer reads one byte every 5 ms. The buffers of the kernel take the beginning of the response, and the server
    // can send the rest only as slowly as the peer reads.
    let drips = async {
        let mut byte = [0];
        while peer.read(&mut byte).await.is_ok_and(|length| length > 0) {
            sleep(Duration::from_millis(5)).await;
        }
        std::future::pending::<()>().await;
    };
    let stopped = async {
        server.stop.cancel();
        // The drain limit is 10 s, so only the limit `rate_min` can end the connection sooner.
        timeout(CLOSE_WAIT_MAX, server.served).await.expect("the connection should be closed").unwrap();
    };
    tokio::select! { () = stopped => {}, () = drips => {} }
}
