//! TLS and the PROXY protocol against the real server over loopback: handshakes of honest, slow and hostile peers.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::tls::tests::Authority;
use super::*;
use evoke_telemetry::ConnectionRefusal;

struct TlsServer {
    server: TestServer,
    tls: Tls,
    authority: Authority,
    metrics: Arc<ConnectionMetrics>,
}

fn config(authority: &Authority, clients: Option<ClientAuthorities>) -> TlsConfig {
    let certificates = vec![authority.sign(&["a.example"], |_| {}), authority.sign(&["b.example"], |_| {})];
    TlsConfig::new(&TlsSettings { certificates, clients, http2: true }).unwrap()
}

impl TlsServer {
    async fn open(limits: Limits) -> Self {
        Self::open_with(limits, None).await
    }

    /// With `None`, the server asks for no client certificate. With `Some(true)`, clients must have a certificate; with
    /// `Some(false)`, they can have one.
    async fn open_with(limits: Limits, required: Option<bool>) -> Self {
        let (authority, metrics) = (Authority::new("test"), Arc::<ConnectionMetrics>::default());
        let clients = required.map(|required| ClientAuthorities { roots: authority.pem(), required });
        let tls = Tls::new(config(&authority, clients));
        let (with, counted) = (tls.clone(), metrics.clone());
        let server = TestServer::open_with(limits, |listener| listener.with_tls(with).with_metrics(counted)).await;
        Self { server, tls, authority, metrics }
    }

    fn client(&self, identity: Option<CertificatePem>, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut client = match identity {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                use rustls::pki_types::pem::PemObject as _;
                let chain = rustls::pki_types::CertificateDer::pem_slice_iter(&pem.chain).map(Result::unwrap).collect();
                let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&pem.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        client
    }

    /// Connects with TLS and requests the server name `name`.
    async fn connect(&self, name: &str, client: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, self.server.connect().await).await
    }

    /// Sends a request over TLS, and returns everything that the server sends until it closes the connection.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut peer = self.connect("a.example", self.client(None, &[])).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        let mut response = Vec::new();
        let _ = timeout(CLOSE_WAIT_MAX, peer.read_to_end(&mut response)).await.expect("the connection should close");
        String::from_utf8_lossy(&response).into_owned()
    }

    fn refused(&self, reason: ConnectionRefusal) -> u64 {
        self.metrics.refused(reason).get()
    }
}

const CLOSING: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn requests_over_tls_have_the_same_limits_as_others() {
    let server = TlsServer::open(Limits::default()).await;
    assert!(server.exchange(CLOSING).await.starts_with("HTTP/1.1 200 "));
    let smuggled = "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let response = server.exchange(smuggled.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.matches("HTTP/1.1 ").count() == 1, "{response}");
    assert_eq!(server.server.paths(), ["/x"]);
}

#[tokio::test]
async fn the_protocol_is_agreed_on_in_the_handshake_and_the_certificate_is_chosen_by_name() {
    let server = TlsServer::open(Limits::default()).await;
    for (offered, agreed) in
        [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let peer = server.connect("a.example", server.client(None, offered)).await.unwrap();
        assert_eq!(peer.get_ref().1.alpn_protocol(), agreed);
    }
    let error = server.connect("a.example", server.client(None, &[b"spdy"])).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let shown = async |name| {
        let peer = server.connect(name, server.client(None, &[])).await?;
        Ok::<_, io::Error>(peer.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    };
    let own: Vec<_> = server.tls.certificates().iter().map(|certificate| certificate.der.clone()).collect();
    assert_eq!(shown("a.example").await.unwrap(), own[0]);
    assert_eq!(shown("b.example").await.unwrap(), own[1]);
    // For an unknown name, the server sends its first certificate, which is not valid for that name.
    assert!(shown("c.example").await.unwrap_err().to_string().contains("certificate"));
}

#[tokio::test]
async fn an_http_2_request_over_tls_gets_a_response() {
    let server = TlsServer::open(Limits::default()).await;
    let mut peer = server.connect("a.example", server.client(None, &[b"h2"])).await.unwrap();
    peer.write_all(&[PREFACE, b"\0\0\x06\x01\x05\0\0\0\x01\x82\x87\x84\x41\x01a"].concat()).await.unwrap();
    let mut response = Vec::new();
    while !String::from_utf8_lossy(&response).contains("<0>") {
        assert_ne!(peer.read_buf(&mut response).await.unwrap(), 0, "closed early: {response:?}");
    }
    assert_eq!(server.server.paths(), ["/"]);
}

#[tokio::test]
async fn a_replaced_certificate_serves_new_connections_and_open_ones_continue() {
    let server = TlsServer::open(Limits::default()).await;
    let mut before = server.connect("a.example", server.client(None, &[])).await.unwrap();
    let other = Authority::new("other");
    server.tls.replace(config(&other, None));
    let refused = server.connect("a.example", server.client(None, &[])).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    before.write_all(CLOSING).await.unwrap();
    let mut response = String::new();
    before.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[tokio::test]
async fn a_plain_request_is_told_that_the_port_speaks_tls() {
    let server = TlsServer::open(Limits::default()).await;
    let response = server.server.exchange(CLOSING).await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("this port requires TLS"), "{response}");
    assert_eq!(server.server.exchange(&[0; 100]).await, "");
    assert_eq!(server.refused(ConnectionRefusal::PlainHttp), 2);
    assert_eq!(server.server.paths(), [""; 0]);
}

#[tokio::test]
async fn an_unfinished_handshake_is_closed_in_time() {
    let server = TlsServer::open(Limits { handshake: SHORT, ..Limits::default() }).await;
    // The second beginning is the start of a TLS record with a length of 512 bytes.
    for beginning in [&b""[..], b"\x16\x03\x01\x02\0\x01", b"\x16"] {
        let started = Instant::now();
        assert_eq!(server.server.exchange(beginning).await, "");
        assert!(started.elapsed() >= SHORT / 2, "{beginning:?} was closed too early");
    }
    assert_eq!(server.refused(ConnectionRefusal::SlowHandshake), 3);
    // Bytes that are not a handshake are refused immediately.
    server.server.exchange(b"\x16\x03\x01\0\x05hello").await;
    assert_eq!(server.refused(ConnectionRefusal::Handshake), 1);
}

#[tokio::test]
async fn a_new_handshake_replaces_the_oldest_beyond_the_limit() {
    let server = TlsServer::open(Limits { handshakes_max: 3, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut peer = server.server.connect().await;
        peer.write_all(b"\x16\x03").await.unwrap();
        held.push(peer);
    }
    let mut fourth = server.connect("a.example", server.client(None, &[])).await.unwrap();
    fourth.write_all(CLOSING).await.unwrap();
    let mut response = String::new();
    fourth.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // The server closes one of the held connections. It does not wait for the handshake limit of 5 s.
    let closed = held.iter_mut().map(|peer| Box::pin(until_closed(peer)));
    timeout(Duration::from_secs(4), futures_util::future::select_all(closed)).await.expect("one should be closed");
}

#[tokio::test]
async fn a_connection_in_its_handshake_counts_for_all_connections() {
    let server = TlsServer::open(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut held = server.server.connect().await;
    held.write_all(b"\x16").await.unwrap();
    while server.refused(ConnectionRefusal::Limit) == 0 {
        assert!(server.connect("a.example", server.client(None, &[])).await.is_err());
    }
}

#[tokio::test]
async fn a_peer_that_reads_no_response_over_tls_is_disconnected() {
    let server = TlsServer::open(Limits { idle: SHORT, write_stall: SHORT, ..Limits::default() }).await;
    let mut peer = server.connect("a.example", server.client(None, &[])).await.unwrap();
    peer.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.server.paths().is_empty() {
        tokio::task::yield_now().await;
    }
    server.server.stop.cancel();
    // The drain limit is 10 s, so only the write stall limit can end the connection sooner.
    timeout(CLOSE_WAIT_MAX, server.server.served).await.expect("the connection should close").unwrap();
}

#[tokio::test]
async fn the_stop_ends_handshakes_at_once() {
    let server = TlsServer::open(Limits::default()).await;
    let mut peer = server.server.connect().await;
    peer.write_all(b"\x16\x03").await.unwrap();
    // The server accepts connections in order. So when a later connection is complete, the first one was accepted, too.
    assert!(server.exchange(CLOSING).await.starts_with("HTTP/1.1 200 "));
    server.server.stop.cancel();
    timeout(Duration::from_secs(4), server.server.served).await.expect("the stop waits for no handshake").unwrap();
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_authority_where_it_is_required() {
    for required in [true, false] {
        let server = TlsServer::open_with(Limits::default(), Some(required)).await;
        let send = async |identity| {
            let mut peer = server.connect("a.example", server.client(identity, &[])).await?;
            peer.write_all(CLOSING).await?;
            let mut response = String::new();
            peer.read_to_string(&mut response).await?;
            Ok::<_, io::Error>(response)
        };
        let valid = server.authority.sign(&["client.example"], |_| {});
        let response = send(Some(valid)).await.unwrap();
        assert!(response.contains("client: client.example\r\n"), "{response}");
        match send(None).await {
            Ok(response) => assert!(!required && !response.contains("client:"), "{response}"),
            Err(_) => assert!(required),
        }
        let expired =
            server.authority.sign(&["client.example"], |params| params.not_after = rcgen::date_time_ymd(2000, 1, 1));
        let foreign = Authority::new("other").sign(&["client.example"], |_| {});
        let for_servers = server.authority.sign(&["client.example"], |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        });
        for wrong in [expired, foreign, for_servers] {
            assert!(send(Some(wrong)).await.is_err());
        }
    }
}
