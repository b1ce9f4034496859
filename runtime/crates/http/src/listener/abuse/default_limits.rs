//! The default time limits against slow peers. The peers are in memory and the clock is paused, so no real time passes.

use tokio::io::{DuplexStream, duplex};

use super::*;

/// The bytes that the connection buffers in each direction, like the buffers of a socket.
const BUFFER: usize = 64 * 1024;
const LARGE: &[u8] = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
const BODY: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";

/// Opens a connection in memory with the default limits. Returns the stream of the peer, and the task of the server,
/// which ends when the connection is closed.
fn connect() -> (DuplexStream, JoinHandle<()>) {
    let (peer, io) = duplex(BUFFER);
    let service = service(Arc::default(), Arc::new(Semaphore::new(0)));
    (peer, tokio::spawn(serve_stream(io, service, Limits::default())))
}

/// Requests a large response and reads `bytes` bytes of it each second. Returns the number of seconds until the
/// connection is closed, or `None` if it is still open after 5 minutes.
async fn take_slowly(bytes: usize) -> Option<f64> {
    let (mut peer, served) = connect();
    peer.write_all(LARGE).await.unwrap();
    let started = Instant::now();
    let drips = async {
        let mut part = vec![0; bytes];
        while peer.read_exact(&mut part).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = timeout(Duration::from_secs(300), served) => ended.is_ok().then(|| started.elapsed().as_secs_f64()),
        () = drips => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_cut_off_after_ten_seconds() {
    let (mut peer, served) = connect();
    peer.write_all(LARGE).await.unwrap();
    let started = Instant::now();
    timeout(Duration::from_secs(300), served).await.expect("the connection should be closed").unwrap();
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_less_than_500_bytes_a_second_is_cut_off_and_a_faster_one_may_take_longer() {
    let closed_after = take_slowly(400).await.expect("the connection should be closed");
    assert!(closed_after <= 15.0, "{closed_after} s");
    // The keep-alive time ends this connection: hyper has buffered the whole response, so no request is in flight.
    let closed_after = take_slowly(600).await.expect("the connection should be closed");
    assert!(closed_after > Limits::default().keep_alive.as_secs_f64(), "{closed_after} s");
}

/// Sends `bytes` bytes of a body each second. Returns the response and the number of seconds until it arrived.
async fn send_slowly(bytes: usize) -> (String, f64) {
    let (peer, _served) = connect();
    let (mut reader, mut writer) = tokio::io::split(peer);
    writer.write_all(BODY).await.unwrap();
    let started = Instant::now();
    let drips = async {
        while writer.write_all(&vec![b'x'; bytes]).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut response = Vec::new();
    tokio::select! {
        _ = reader.read_to_end(&mut response) => {}
        () = drips => {}
    }
    (String::from_utf8(response).unwrap(), started.elapsed().as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_body_below_500_bytes_a_second_ends_within_ten_seconds_and_any_other_after_thirty() {
    let (response, seconds) = send_slowly(400).await;
    assert!(response.starts_with("HTTP/1.1 408 ") && seconds <= 10.0, "{seconds} s: {response}");
    let (response, seconds) = send_slowly(600).await;
    assert!(response.starts_with("HTTP/1.1 408 ") && (29.9..=31.0).contains(&seconds), "{seconds} s: {response}");
}
