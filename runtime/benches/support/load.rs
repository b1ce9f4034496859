//! A load generator for any HTTP/1.1 server. The generator keeps a number of connections open. On each connection, the
//! next request is sent as soon as the previous response is complete.
//!
//! The generator is cheap, because it runs on the same cores as the server: a request is prepared once, and takes one
//! write, mostly one read, and no allocation. `cargo bench -p evoke --bench load` measures its cost.
#![allow(dead_code)]

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A request, and the server that it is sent to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The complete request, head and body.
    pub(crate) request: Vec<u8>,
    /// The expected status; a response with another status is an error.
    pub(crate) status: u16,
}

impl Target {
    pub(crate) fn get(address: SocketAddr, path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes();
        Self { address, request, status: 200 }
    }

    pub(crate) fn post(address: SocketAddr, path: &str, body: &str, status: u16) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self { address, request: (head + body).into_bytes(), status }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        let end = self.request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let header = format!("\r\n{name}: {value}");
        self.request.splice(end..end, header.into_bytes());
        self
    }
}

/// The results of all clients.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// The latency of each successful request, in nanoseconds, ascending.
    latencies_ns: Vec<u64>,
    /// The number of requests without the expected response.
    pub(crate) errors: u64,
    pub(crate) error: Option<String>,
    time: Duration,
}

impl Load {
    /// Sends requests for this time. Then waits for the responses that are still missing.
    pub(crate) async fn run(target: &Target, connections: usize, time: Duration) -> Self {
        let started = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            clients.spawn(client(target.clone(), started, time));
        }
        let mut all = Self::default();
        while let Some(one) = clients.join_next().await {
            all.add(one.unwrap());
        }
        all.time = started.elapsed();
        all
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latencies_ns.extend(other.latencies_ns);
        self.latencies_ns.sort_unstable();
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.time += other.time;
    }

    /// The number of successful requests.
    pub(crate) fn answered(&self) -> usize {
        self.latencies_ns.len()
    }

    /// Successful requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_ns.len() as f64 / self.time.as_secs_f64()
    }

    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        percentile(&self.latencies_ns, percent)
    }

    /// Returns the columns under [`HEADINGS`]: requests per second; p50, p90 and p99 in milliseconds; and errors.
    pub(crate) fn columns(&self) -> String {
        let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|p| self.percentile(p).as_secs_f64() * 1e3);
        let error = self.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
        format!("{:>10.0} {p50:>8.3} {p90:>8.3} {p99:>8.3} {:>7}{error}", self.rate(), self.errors)
    }
}

/// Headings for [`Load::columns`].
pub(crate) const HEADINGS: &str = "requests/s   p50 ms   p90 ms   p99 ms  errors";

async fn client(target: Target, started: Instant, time: Duration) -> Load {
    let mut seen = Load { latencies_ns: Vec::with_capacity(1 << 16), ..Load::default() };
    while started.elapsed() < time {
        let Err(error) = connection(&target, started, time, &mut seen.latencies_ns).await else { break };
        seen.errors += 1;
        seen.error.get_or_insert(error.to_string());
        // Without a pause this loop would spin on a server that refuses everything.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    seen
}

/// Sends requests over one connection until the time is over or a request fails.
async fn connection(target: &Target, started: Instant, time: Duration, latencies_ns: &mut Vec<u64>) -> io::Result<()> {
    let mut connection = Connection::open(target.address).await?;
    loop {
        let sent = Instant::now();
        connection.exchange(target).await?;
        let now = Instant::now();
        latencies_ns.push(u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX));
        if now - started >= time {
            return Ok(());
        }
    }
}

/// A connection that is kept open, with its read buffer.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// Sends a request and reads the complete response. Returns the raw body, up to 64 KiB of it. Returns an error for
    /// a status other than the expected one.
    pub(crate) async fn exchange(&mut self, target: &Target) -> io::Result<&[u8]> {
        self.stream.write_all(&target.request).await?;
        let (status, body) = read_response(&mut self.stream, &mut self.buffer).await?;
        match status == target.status {
            true => Ok(&self.buffer[body]),
            false => Err(io::Error::other(format!("status {status}: {}", String::from_utf8_lossy(&self.buffer[body])))),
        }
    }
}

/// Returns a percentile of latencies in ascending order.
pub(crate) fn percentile(latencies_ns: &[u64], percent: f64) -> Duration {
    let at = (latencies_ns.len().saturating_sub(1)) as f64 * percent / 100.0;
    Duration::from_nanos(latencies_ns.get(at as usize).copied().unwrap_or_default())
}

/// Reads one complete response. Returns its status, and the range of its body in the buffer.
async fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<(u16, Range<usize>)> {
    let mut filled = 0;
    let head = loop {
        filled += read(stream, &mut buffer[filled..]).await?;
        if let Some(head) = head(&buffer[..filled])? {
            break head;
        }
    };
    match head.length {
        Some(length) => {
            let mut left = (head.end + length).saturating_sub(filled);
            while left > 0 {
                // If the body is larger than the buffer, later parts overwrite earlier ones.
                let at = if filled < buffer.len() { filled } else { head.end };
                let read = read(stream, &mut buffer[at..]).await?;
                filled = at + read;
                left = left.saturating_sub(read);
            }
        }
        // A chunked body ends with an empty chunk; trailers are not supported. The response must fit into the buffer.
        None => {
            while !ends_chunked(&buffer[head.end..filled]) {
                filled += read(stream, &mut buffer[filled..]).await?;
            }
        }
    }
    Ok((head.status, head.end..filled))
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer).await? {
        0 => Err(io::Error::other("the connection was closed, or the response is larger than 64 KiB")),
        read => Ok(read),
    }
}

struct Head {
    status: u16,
    /// Where the body starts.
    end: usize,
    /// The length of the body; `None` for a chunked body.
    length: Option<usize>,
}

/// Parses the head of a response. Returns `None` while it is incomplete.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let malformed = || io::Error::other(format!("malformed response {:?}", String::from_utf8_lossy(bytes)));
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { return Ok(None) };
    let mut lines = bytes[..end].split(|&byte| byte == b'\n');
    let status = lines.next().and_then(|line| std::str::from_utf8(line.get(9..12)?).ok()?.parse().ok());
    let status = status.ok_or_else(malformed)?;
    let mut length = Some(0);
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            length = Some(std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or_else(malformed)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            length = None;
        }
    }
    Ok(Some(Head { status, end, length }))
}

/// Returns true if a chunked body is complete.
fn ends_chunked(mut body: &[u8]) -> bool {
    loop {
        let Some(line) = body.iter().position(|&byte| byte == b'\n') else { return false };
        let digits = body[..line].split(|byte| !byte.is_ascii_hexdigit()).next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let next = line + 1 + size.unwrap_or_default() + 2;
        if body.len() < next || size == Some(0) {
            return size == Some(0) && body.len() >= next;
        }
        body = &body[next..];
    }
}
