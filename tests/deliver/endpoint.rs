//! An HTTP endpoint that records the requests it receives.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::Value;

/// A request, as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) at: Instant,
    pub(super) method: String,
    pub(super) path: String,
    /// By name in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
    /// The status of the response.
    pub(super) status: u16,
}

impl Received {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

/// A response: status, headers and body.
pub(super) type Answer = (u16, Vec<(&'static str, String)>, String);

/// Returns the response to a request, of which `status` is not set yet.
type Handler = dyn Fn(&Received) -> Answer + Send + Sync;

pub(super) struct Endpoint {
    address: String,
    received: Arc<Mutex<Vec<Received>>>,
    is_stopping: Arc<AtomicBool>,
    accepts: Option<JoinHandle<()>>,
}

/// Largest head and largest body that the endpoint reads.
const BYTES_MAX: u64 = 4 << 20;

impl Endpoint {
    pub(super) fn start(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (received, handler): (Arc<Mutex<Vec<Received>>>, Arc<Handler>) = (Arc::default(), Arc::new(handler));
        let (records, is_stopping) = (received.clone(), Arc::new(AtomicBool::new(false)));
        let stops = is_stopping.clone();
        let accepts = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stops.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, records, handler) = (stream.unwrap(), records.clone(), handler.clone());
                std::thread::spawn(move || drop(serve(stream, &records, &*handler)));
            }
        });
        Self { address, received, is_stopping, accepts: Some(accepts) }
    }

    /// An endpoint that takes everything.
    pub(super) fn that_takes_all() -> Self {
        Self::start(|_| (204, Vec::new(), String::new()))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        // Ends the wait for the next connection.
        drop(TcpStream::connect(&self.address));
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
    }
}

/// Serves one connection until the client closes it.
fn serve(stream: TcpStream, records: &Mutex<Vec<Received>>, handler: &Handler) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
    loop {
        let mut first = String::new();
        if reader.by_ref().take(BYTES_MAX).read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut words = first.split_ascii_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.by_ref().take(BYTES_MAX).read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            assert!(headers.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(), "{name} is repeated");
        }
        let length: u64 = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = String::new();
        reader.by_ref().take(length.min(BYTES_MAX)).read_to_string(&mut body)?;
        let mut received = Received { at: Instant::now(), method, path, headers, body, status: 0 };
        let (status, extra, text) = handler(&received);
        received.status = status;
        records.lock().unwrap().push(received);
        let extra: String = extra.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        // A 204 has no body (RFC 9110, section 15.3.5): the client would take one for its next response.
        let text = if status == 204 { String::new() } else { text };
        let has_length = status == 204 || extra.contains("content-length");
        let length = if has_length { String::new() } else { format!("content-length: {}\r\n", text.len()) };
        write!(writer, "HTTP/1.1 {status} Status\r\n{extra}{length}\r\n{text}")?;
    }
}
