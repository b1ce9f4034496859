//! Clients that send their bodies slowly hold no memory that other clients need.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::support::Evoke;

const MANIFEST: &str = "
evoke: 1
app: shop
sources:
  hook:
    http: { path: /hook, type: hook.called }
";

/// The slow connections of one thread, and the number of threads.
const SLOW: (usize, usize) = (60, 4);
/// The posts of the other client in one measurement.
const POSTS: usize = 200;

/// The pause between two bytes of a slow connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps connections open whose bodies have `announced` bytes: each sends `sent` bytes at once, and one byte at a time
/// afterwards. Passes `open` when all are open. Replaces one closed connection per [`PAUSE`], until `stop` is closed.
fn send_slowly(address: &str, open: &Barrier, stop: &Receiver<()>, sent: usize, announced: usize) {
    let begin = || -> Option<TcpStream> {
        let mut peer = TcpStream::connect(address).ok()?;
        peer.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
        let head = format!("POST /hook HTTP/1.1\r\nHost: a\r\nContent-Length: {announced}\r\n\r\n");
        peer.write_all(head.as_bytes()).ok()?;
        peer.write_all(&vec![b'x'; sent]).ok()?;
        Some(peer)
    };
    let mut peers: Vec<Option<TcpStream>> = (0..SLOW.0).map(|_| begin()).collect();
    open.wait();
    while stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        for peer in &mut peers {
            if peer.as_mut().is_some_and(|peer| peer.write_all(b"x").is_err()) {
                *peer = None;
            }
        }
        if let Some(closed) = peers.iter_mut().find(|peer| peer.is_none()) {
            *closed = begin();
        }
    }
}

/// Sends small posts one after another, which must all be accepted. Returns the 99th percentile of their times.
fn measure(evoke: &Evoke) -> Duration {
    let mut times: Vec<Duration> = (0..POSTS)
        .map(|n| {
            let started = Instant::now();
            evoke.post_accepted("/hook", &format!(r#"{{"n":{n}}}"#));
            started.elapsed()
        })
        .collect();
    times.sort();
    times[POSTS * 99 / 100]
}

/// Asserts that small posts are accepted, and that slow clients with such bodies at most double their times. Other load on
/// the machine may disturb some of the rounds.
fn assert_undisturbed(sent: usize, announced: usize) {
    const ROUNDS: usize = 10;
    let evoke = Evoke::up_with(MANIFEST);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let alone = measure(&evoke);
        let open = Barrier::new(SLOW.1 + 1);
        let besides = std::thread::scope(|scope| {
            let stops: Vec<Sender<()>> = (0..SLOW.1)
                .map(|_| {
                    let (stop, stopped) = channel();
                    let (address, open) = (evoke.http(), &open);
                    scope.spawn(move || send_slowly(address, open, &stopped, sent, announced));
                    stop
                })
                .collect();
            open.wait();
            let besides = (0..3).map(|_| measure(&evoke)).min().unwrap();
            drop(stops);
            besides
        });
        let ratio = besides.as_secs_f64() / alone.as_secs_f64();
        ratios.push(ratio);
        if ratio <= 2.0 {
            println!("{announced} bytes: p99 {alone:?} alone, {besides:?} beside slow clients");
            return;
        }
    }
    panic!("{announced} bytes: in each round the p99 grew by more than 2 times: {ratios:?}");
}

#[test]
fn small_posts_are_accepted_and_fast_while_large_bodies_arrive_slowly() {
    assert_undisturbed(500_000, 1 << 20);
}

#[test]
fn small_posts_are_accepted_and_fast_while_small_bodies_arrive_slowly() {
    assert_undisturbed(60_000, 64 * 1024);
}
