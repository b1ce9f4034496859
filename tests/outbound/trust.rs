//! `ca:` of a grant: authorities that are trusted besides those of the machine, for this grant only.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::{call, manifest};
use crate::certificates::{Authority, Identity};
use crate::support::Evoke;

/// A server with TLS that counts the requests that it receives. Its threads end with the test process.
struct TlsPeer {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl TlsPeer {
    fn start(identity: &Identity) -> Self {
        let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let peer = Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let requests = peer.requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let (requests, mut reader) = (requests.clone(), BufReader::new(StreamOwned::new(connection, stream)));
                std::thread::spawn(move || {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        // A client that refuses the certificate ends the connection.
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    requests.fetch_add(1, Ordering::SeqCst);
                    let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                });
            }
        });
        peer
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

#[test]
fn a_private_authority_is_trusted_for_its_grant_and_for_no_other() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = || TlsPeer::start(&authority.sign(&["127.0.0.1", "localhost"]));
    let (right, wrong, without) = (server(), server(), server());
    let other_name = TlsPeer::start(&authority.sign(&["b.example"]));
    let ended = authority.sign_with(&["127.0.0.1"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let ended = TlsPeer::start(&ended);
    let grant = |host: &str, peer: &TlsPeer, ca: &str| {
        format!("{{ url: \"https://{host}:{}\", addresses: [127.0.0.1]{ca} }}", peer.port)
    };
    let grants = [
        grant("127.0.0.1", &right, ", ca: ./own.pem"),
        grant("localhost", &right, ", ca: ./own.pem"),
        grant("127.0.0.1", &wrong, ", ca: ./other.pem"),
        grant("127.0.0.1", &without, ""),
        grant("127.0.0.1", &other_name, ", ca: ./own.pem"),
        grant("127.0.0.1", &ended, ", ca: ./own.pem"),
    ];
    let mut evoke = Evoke::with(&manifest(&format!("[{}]", grants.join(", "))));
    authority.write(&evoke, "own.pem");
    other.write(&evoke, "other.pem");
    evoke.up();
    let reach = |host: &str, peer: &TlsPeer| -> Value {
        call(&evoke, &json!({ "url": format!("https://{host}:{}/", peer.port) })).remove(0)
    };
    for host in ["127.0.0.1", "localhost"] {
        let called = reach(host, &right);
        assert_eq!((&called["status"], &called["body"]), (&json!(200), &json!("ok")), "{host}: {called}");
    }
    for (what, peer) in
        [("another authority", &wrong), ("no `ca`", &without), ("another name", &other_name), ("ended", &ended)]
    {
        let called = reach("127.0.0.1", peer);
        let error = called["error"].as_str().unwrap_or_default();
        assert!(error.contains("certificate"), "{what}: {called}");
        assert_eq!(peer.requests(), 0, "{what}");
    }
    assert_eq!(right.requests(), 2);
}

#[test]
fn a_file_without_an_authority_is_an_error_at_the_start_that_names_the_file() {
    let mut evoke = Evoke::with(&manifest("[{ url: \"https://api.example\", ca: ./own.pem }]"));
    for content in [None, Some(""), Some("no certificate")] {
        if let Some(content) = content {
            std::fs::write(evoke.path("own.pem"), content).unwrap();
        }
        let output = evoke.run(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains("own.pem"), "{content:?}: {message}");
    }
    Authority::new().write(&evoke, "own.pem");
    evoke.up();
}
