//! Many requests at the same time over HTTP/2.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Empty;
use hyper::client::conn::http2;

use super::*;

#[tokio::test]
async fn requests_beyond_the_first_of_each_connection_are_limited_over_all_connections() {
    let server = TestServer::open(Limits { further_streams_max: 20, ..Limits::default() }).await;
    let mut responses = FuturesUnordered::new();
    for _ in 0..2 {
        let io = TokioIo::new(server.connect().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..16 {
            let mut sender = sender.clone();
            let request = Request::get(format!("http://{}/slow", server.addr)).body(Empty::<Bytes>::new()).unwrap();
            responses.push(async move {
                let response = sender.send_request(request).await.unwrap();
                (response.status().as_u16(), response.headers().contains_key(RETRY_AFTER))
            });
        }
    }
    // The first of each connection and half of 20 wait at the gate; the others are refused at once.
    for _ in 0..20 {
        assert_eq!(timeout(CLOSE_WAIT_MAX, responses.next()).await.unwrap(), Some((503, true)));
    }
    server.gate.add_permits(12);
    for _ in 0..12 {
        assert_eq!(timeout(CLOSE_WAIT_MAX, responses.next()).await.unwrap(), Some((200, false)));
    }
    assert_eq!((responses.len(), server.paths().len()), (0, 12));
}
