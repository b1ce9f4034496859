//! A measurement, not a check of every run: events at a high rate in the list of events. The machine must be idle:
//! `tests/console/run live_events -- --ignored --nocapture`.
//!
//! - **The page.** 5,000 events a second arrive at the http source. No frame of the page may take longer than
//!   [`FRAME_MAX_MS`], by the times between frames and by the browser's own long-task observer, and the list must follow.
//! - **The offered rate.** Events are sent at 5,000 a second, without and with the page, in turns. With the page, the rate
//!   may be lower by [`SLOWER_MAX`] at most.
//! - **The server.** Events are sent as fast as they are taken, without and with a client that follows the live stream of
//!   the page but draws nothing: a browser on the same machine takes the processor from both sides, which would measure
//!   the browser. The same limit holds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use crate::support::{Browser, Evoke, eventually};

const MANIFEST: &str = r#"
evoke: 1
app: load
sources:
  in: { http: { path: /in, type: load.in } }
"#;

/// Events per second.
const RATE: f64 = 5_000.0;
const CONNECTIONS: u32 = 16;
const TURN: Duration = Duration::from_secs(10);
const PAIRS: usize = 5;
/// The measurements run one after another.
static ALONE: Mutex<()> = Mutex::const_new(());
const FRAME_MAX_MS: f64 = 100.0;
/// The part of the rate that a page may cost.
const SLOWER_MAX: f64 = 0.03;

/// Sends events over all connections for the time of a turn; with a rate, at that rate altogether. Returns the number of
/// accepted events per second.
fn send(address: &str, rate: Option<f64>) -> f64 {
    let started = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let address = address.to_owned();
            std::thread::spawn(move || client(&address, rate.map(|rate| rate / f64::from(CONNECTIONS)), started))
        })
        .collect();
    let accepted: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    accepted as f64 / started.elapsed().as_secs_f64()
}

fn client(address: &str, rate: Option<f64>, started: Instant) -> u64 {
    let body = r#"{"customer":"ada","total":42,"items":["book","pen"],"note":"as long as an order usually is"}"#;
    let request = format!(
        "POST /in HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut accepted = 0_u64;
    while started.elapsed() < TURN {
        if let Some(rate) = rate {
            // A late client sends at once, until it is in time again.
            let due = Duration::from_secs_f64(accepted as f64 / rate);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_response(&mut reader), 202);
        accepted += 1;
    }
    accepted
}

/// Reads a response with its body. Returns its status.
fn read_response(reader: &mut BufReader<TcpStream>) -> u16 {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the connection was closed");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().unwrap();
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    status
}

/// A client that reads the live stream as the page does, and draws nothing.
struct Follower {
    is_stopping: Arc<AtomicBool>,
    reads: Option<std::thread::JoinHandle<u64>>,
}

impl Follower {
    fn start(evoke: &Evoke) -> Self {
        let mut stream = TcpStream::connect(&evoke.admin).unwrap();
        let (host, token) = (&evoke.admin, evoke.token());
        let head = format!(
            "GET /api/v1/console/live?events=true HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stops = is_stopping.clone();
        let reads = std::thread::spawn(move || {
            let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
            while !stops.load(Ordering::Relaxed) {
                // A timeout is no end of the stream.
                total += stream.read(&mut buffer).unwrap_or_default() as u64;
            }
            total
        });
        Self { is_stopping, reads: Some(reads) }
    }

    /// Returns the number of bytes that it read.
    fn stop(mut self) -> u64 {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.reads.take().unwrap().join().unwrap()
    }
}

/// Begins to record the times between frames, and the tasks that blocked the page for 50 ms or more.
const RECORD: &str = "
    window.gaps = []; window.tasks = [];
    window.observer ??= new PerformanceObserver((list) => list.getEntries().forEach((one) => window.tasks.push(one.duration)));
    window.observer.observe({ type: 'longtask' });
    window.frame && cancelAnimationFrame(window.frame);
    let last;
    const next = (now) => {
      if (last !== undefined) window.gaps.push(now - last);
      last = now;
      window.frame = requestAnimationFrame(next);
    };
    window.frame = requestAnimationFrame(next);";

fn numbers(value: &Value) -> Vec<f64> {
    let mut numbers: Vec<_> = value.as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted.get(((sorted.len() as f64 - 1.0) * part) as usize).copied().unwrap_or_default()
}

/// Sends on a thread, so that the browser is driven meanwhile.
async fn send_beside(address: &str, rate: Option<f64>) -> f64 {
    let address = address.to_owned();
    tokio::task::spawn_blocking(move || send(&address, rate)).await.unwrap()
}

/// The median of the pairs' ratios, of the second rate to the first. Prints each pair.
fn median_ratio(name: &str, pairs: &[(f64, f64)]) -> f64 {
    let mut ratios: Vec<_> = pairs.iter().map(|(without, with)| with / without).collect();
    ratios.sort_by(f64::total_cmp);
    for (without, with) in pairs {
        println!("{name}: {without:.0} events/s without, {with:.0} with: {:+.1} %", (with / without - 1.0) * 100.0);
    }
    let median = percentile(&ratios, 0.5);
    println!("{name}: median of {} pairs {:+.1} %", pairs.len(), (median - 1.0) * 100.0);
    median
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement that needs an idle machine and two minutes"]
async fn live_events_slow_the_ingest_by_less_than_can_be_seen() {
    let _alone = ALONE.lock().await;
    let evoke = Evoke::up(MANIFEST).await;
    // The first turn warms up both sides.
    send_beside(&evoke.http, Some(RATE)).await;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let without = send_beside(&evoke.http, None).await;
        let follower = Follower::start(&evoke);
        let with = send_beside(&evoke.http, None).await;
        assert!(follower.stop() > 100_000, "the follower got the events");
        pairs.push((without, with));
    }
    let server = median_ratio("server, all that it takes", &pairs);
    assert!(server >= 1.0 - SLOWER_MAX, "{server:.3}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement that needs an idle machine and two minutes"]
async fn live_events_at_5000_a_second_drop_no_frame_of_the_page() {
    let _alone = ALONE.lock().await;
    let evoke = Evoke::up(MANIFEST).await;
    send_beside(&evoke.http, Some(RATE)).await;
    let (mut pairs, mut gaps, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let without = send_beside(&evoke.http, Some(RATE)).await;
        let browser = Browser::start().await;
        browser.open(&evoke, "operator", "events").await;
        browser.see("[data-seq]").await;
        browser.run(RECORD).await;
        let first = newest_row(&browser).await;
        let at_rate = send_beside(&evoke.http, Some(RATE)).await;
        gaps.extend(numbers(&browser.run("return window.gaps").await));
        tasks.extend(numbers(&browser.run("return window.tasks").await));
        let last = newest_row(&browser).await;
        let sent = at_rate * TURN.as_secs_f64();
        assert!((last - first) as f64 > sent * 0.8, "the list follows: {first} to {last}, {sent} sent");
        pairs.push((without, at_rate));
        let messages = browser.messages().await;
        assert!(messages.is_empty(), "{messages:?}");
        browser.close().await;
    }
    let at_rate = median_ratio("page, 5,000 a second offered", &pairs);
    gaps.sort_by(f64::total_cmp);
    tasks.sort_by(f64::total_cmp);
    let (longest, task) = (percentile(&gaps, 1.0), percentile(&tasks, 1.0));
    println!(
        "{} frames: p50 {:.1} ms, p99 {:.1} ms, longest {longest:.1} ms; {} tasks of 50 ms or more, longest {task:.0} ms",
        gaps.len(),
        percentile(&gaps, 0.5),
        percentile(&gaps, 0.99),
        tasks.len(),
    );
    assert!(longest <= FRAME_MAX_MS && task <= FRAME_MAX_MS, "a frame took {longest:.1} ms, a task {task:.0} ms");
    assert!(at_rate >= 1.0 - SLOWER_MAX, "{at_rate:.3}");
}

/// The number of the event in the first row.
async fn newest_row(browser: &Browser) -> i64 {
    eventually("the list has rows", async || {
        browser.run("return Number(document.querySelector('[data-seq]')?.dataset.seq)").await.as_i64()
    })
    .await
}
