//! The PROXY protocol against the real server over loopback.

use super::*;
use evoke_telemetry::ConnectionRefusal;

async fn open(limits: Limits, trusted: &str) -> (TestServer, Arc<ConnectionMetrics>) {
    let metrics = Arc::<ConnectionMetrics>::default();
    let (proxies, counted) = (Proxies { networks: vec![trusted.parse().unwrap()], protocol: true }, metrics.clone());
    (TestServer::open_with(limits, |listener| listener.with_proxies(proxies).with_metrics(counted)).await, metrics)
}

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_listed_proxy_names_the_client_and_a_header_in_parts_is_read_whole() {
    let (server, _) = open(Limits::default(), "127.0.0.1").await;
    let header = "PROXY TCP4 192.0.2.7 192.0.2.8 8080 80\r\n";
    let response = server.exchange(format!("{header}{REQUEST}").as_bytes()).await;
    assert!(response.contains("peer: 192.0.2.7\r\n"), "{response}");
    let mut peer = server.connect().await;
    for byte in format!("{header}{REQUEST}").bytes() {
        peer.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(until_closed(&mut peer).await.contains("peer: 192.0.2.7\r\n"));
    let local = [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", REQUEST.as_bytes()].concat();
    assert!(server.exchange(&local).await.contains("peer: 127.0.0.1\r\n"));
}

#[tokio::test]
async fn a_peer_that_is_not_listed_cannot_name_a_client() {
    let (server, metrics) = open(Limits::default(), "192.0.2.1").await;
    let response = server.exchange(format!("PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n{REQUEST}").as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(server.exchange(REQUEST.as_bytes()).await.contains("peer: 127.0.0.1\r\n"));
    assert_eq!(metrics.refused(ConnectionRefusal::ProxyHeader).get(), 0);
    assert_eq!(server.paths(), ["/x"]);
}

#[tokio::test]
async fn a_wrong_or_missing_or_endless_header_is_closed_and_counted() {
    let (server, metrics) = open(Limits { handshake: SHORT, ..Limits::default() }, "127.0.0.0/8").await;
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 5_000]].concat();
    let oversized = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 5_000]].concat();
    let wrong: [&[u8]; 4] = [REQUEST.as_bytes(), b"PROXY TCP4 x y 1 2\r\n", &endless, &oversized];
    for bytes in wrong {
        assert_eq!(server.exchange(bytes).await, "");
    }
    assert_eq!(metrics.refused(ConnectionRefusal::ProxyHeader).get(), wrong.len() as u64);
    assert_eq!(server.exchange(b"PROXY TCP4 192.").await, "");
    assert_eq!(metrics.refused(ConnectionRefusal::SlowHandshake).get(), 1);
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn connections_of_a_proxy_count_for_their_clients() {
    let limits = Limits { connections_per_peer_max: 1, ..Limits::default() };
    let (server, metrics) = open(limits, "127.0.0.1").await;
    let open = async |client: &str| {
        let mut peer = server.connect().await;
        let head = format!("PROXY TCP4 {client} 192.0.2.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.write_all(head.as_bytes()).await.unwrap();
        peer
    };
    let mut first = open("192.0.2.7").await;
    until(&mut first, "<0>").await;
    let mut other = open("192.0.2.9").await;
    until(&mut other, "<0>").await;
    let response = until_closed(&mut open("192.0.2.7").await).await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert_eq!(metrics.refused(ConnectionRefusal::Limit).get(), 1);
}
