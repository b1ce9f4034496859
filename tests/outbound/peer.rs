//! A server that records the requests that it receives, and the address at which each connection arrived.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// Runs on threads that end with the test process.
pub(crate) struct Peer {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    arrived: Arc<Mutex<Vec<SocketAddr>>>,
    open: Arc<AtomicUsize>,
}

impl Peer {
    /// Starts a server on loopback. An empty response leaves the connection open and silent.
    pub(crate) fn start(respond: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0", respond)
    }

    pub(crate) fn listen(address: &str, respond: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let peer = Self { host, seen: Arc::default(), arrived: Arc::default(), open: Arc::default() };
        let (seen, arrived, open, respond) =
            (peer.seen.clone(), peer.arrived.clone(), peer.open.clone(), Arc::new(respond));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                arrived.lock().unwrap().push(stream.local_addr().unwrap());
                open.fetch_add(1, Ordering::SeqCst);
                let (seen, open, respond) = (seen.clone(), open.clone(), respond.clone());
                std::thread::spawn(move || {
                    serve(stream, &seen, &*respond);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        peer
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.host.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The number of accepted connections.
    pub(crate) fn connections(&self) -> usize {
        self.arrived.lock().unwrap().len()
    }

    /// The addresses at which connections arrived, in order.
    pub(crate) fn arrived(&self) -> Vec<String> {
        self.arrived.lock().unwrap().iter().map(|address| address.ip().to_canonical().to_string()).collect()
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>, respond: &dyn Fn(&Seen) -> Vec<u8>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let mut request = Seen { head, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = vec![0; length];
        if reader.read_exact(&mut request.body).is_err() {
            return;
        }
        seen.lock().unwrap().push(request.clone());
        let response = respond(&request);
        if reader.get_mut().write_all(&response).is_err() || response.windows(7).any(|part| part == b": close") {
            return;
        }
    }
}

/// A response with a body.
pub(crate) fn response(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn ok(_: &Seen) -> Vec<u8> {
    response("200 OK", &[], b"ok")
}

/// Responds and closes the connection, so that the next request needs a new one.
pub(crate) fn ok_once(_: &Seen) -> Vec<u8> {
    response("200 OK", &["connection: close"], b"ok")
}
