//! Tests of TLS, with a certificate authority that the test makes.

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Returns the PEM of an authority, and a server configuration with a certificate that this authority signed for
/// `name`.
pub(super) fn signed_for(name: &str, protocols: &[&[u8]]) -> (String, ServerConfig) {
    signed_for_all(vec![name.to_owned()], protocols)
}

fn signed_for_all(names: Vec<String>, protocols: &[&[u8]]) -> (String, ServerConfig) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&key).unwrap();
    let pem = authority.pem();
    let issuer = rcgen::Issuer::new(parameters, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (pem, config)
}

/// Starts a server that responds with the version of the request and its host.
async fn start(config: ServerConfig) -> Server {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let host = request.uri().authority().map(ToString::to_string);
                let host = host.or_else(|| Some(request.headers()["host"].to_str().unwrap().to_owned())).unwrap();
                Ok::<_, std::convert::Infallible>(http::Response::new(full(format!("{:?} {host}", request.version()))))
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

pub(super) fn owner_trusting(url: &str, pem: &str) -> Owner {
    owner_with(url, |grant| grant.ca = Some(TrustAnchors::from_pem(pem.as_bytes()).unwrap()))
}

#[tokio::test]
async fn a_certificate_of_the_granted_authority_is_accepted_over_both_versions_of_http() {
    for (protocols, version) in [(&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0"), (&[b"http/1.1"], "HTTP/1.1")] {
        let (pem, config) = signed_for("localhost", protocols);
        let server = start(config).await;
        let url = format!("https://localhost:{}", server.port);
        let owner = owner_trusting(&url, &pem);
        for _ in 0..3 {
            let response = owner.send(get(&url), &Limits::within(5 * SECOND)).await.unwrap();
            assert_eq!(text(response).await, format!("{version} localhost:{}", server.port));
        }
        if version == "HTTP/2.0" {
            let limits = Limits::within(5 * SECOND);
            let call = || async { text(owner.send(get(&url), &limits).await.unwrap()).await };
            let texts = futures_util::future::join_all((0..50).map(|_| call())).await;
            assert!(texts.iter().all(|text| text.starts_with(version)), "{texts:?}");
            assert_eq!(server.accepted(), 1);
        }
    }
}

#[tokio::test]
async fn an_unknown_authority_another_name_and_plain_http_are_refused() {
    let (pem, config) = signed_for("localhost", &[b"http/1.1"]);
    let server = start(config).await;
    let url = format!("https://localhost:{}", server.port);
    let error = owner_of(&url).send(get(&url), &Limits::within(5 * SECOND)).await.err().unwrap();
    assert!(matches!(error, Error::Tls { is_certificate: true, .. }), "{error:?}");
    let (other_pem, other) = signed_for("other.test", &[b"http/1.1"]);
    let server = start(other).await;
    let url = format!("https://localhost:{}", server.port);
    let error = owner_trusting(&url, &other_pem).send(get(&url), &Limits::within(5 * SECOND)).await.err().unwrap();
    assert!(matches!(error, Error::Tls { is_certificate: true, .. }), "{error:?}");
    let (seen, _requests) = tokio::sync::mpsc::unbounded_channel();
    let plain = Server::answering(OK, seen).await;
    let url = format!("https://localhost:{}", plain.port);
    let limits = Limits { connect_timeout: SECOND, ..Limits::within(5 * SECOND) };
    let error = owner_trusting(&url, &pem).send(get(&url), &limits).await.err().unwrap();
    assert!(matches!(error, Error::Tls { is_certificate: false, .. } | Error::TlsTimeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let silent = Server::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let url = format!("https://127.0.0.1:{}", silent.port);
    let limits = Limits { connect_timeout: Duration::from_millis(100), ..Limits::within(5 * SECOND) };
    let error = owner_of(&url).send(get(&url), &limits).await.err().unwrap();
    assert!(matches!(error, Error::TlsTimeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_certificate_with_many_names_makes_no_long_message() {
    let names = (0..200).map(|at| format!("{at}.{}.test", "x".repeat(50))).collect();
    let (pem, config) = signed_for_all(names, &[b"http/1.1"]);
    let server = start(config).await;
    let url = format!("https://localhost:{}", server.port);
    let error = owner_trusting(&url, &pem).send(get(&url), &Limits::within(5 * SECOND)).await.err().unwrap();
    assert!(matches!(error, Error::Tls { is_certificate: true, .. }), "{error:?}");
    // No name is cut, because a part of a secret would not be recognised.
    let is_short = |text: &str| text.len() < 1000 && text.contains("\"localhost\"") && !text.contains("xx");
    assert!(is_short(&error.to_string()) && error.to_string().contains("200 other names"), "{error}");
    let owner = owner_trusting(&url, &pem);
    let target = evoke_model::destination::Target::parse("https", &format!("localhost:{}", server.port)).unwrap();
    let distrust = owner.probe_tls(&target, "localhost", 5 * SECOND).await.unwrap().distrust.unwrap();
    assert!(is_short(&distrust), "{distrust}");
}

#[test]
fn trust_anchors_are_certificates_in_pem() {
    let of = |pem: &str| TrustAnchors::from_pem(pem.as_bytes()).err().map(|error| error.to_string());
    let (pem, _) = signed_for("a.test", &[]);
    assert_eq!(of(&pem), None);
    assert!(of("").unwrap().contains("no certificate"));
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(of(key).unwrap().contains("no certificate"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(of(broken).unwrap().contains("certificate 1"));
    assert!(of("-----BEGIN CERTIFICATE-----\n%\n").is_some());
}
