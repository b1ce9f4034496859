//! TLS 1.2 and 1.3 of a listener. The host name that the client requests decides which certificate the server sends.
//! The server can also verify certificates of clients. The configuration can be replaced while the listener serves;
//! open connections keep their configuration.

mod client;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use evoke_egress::certificate;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

pub use client::ClientCertificate;

/// The first byte of a TLS connection: the type of the record with the handshake. No HTTP request begins with this
/// byte.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;
/// The advice in a log line about TLS on a port without TLS.
pub(super) const HOW_TO_ENABLE: &str = "give `evoke up` a certificate, or let clients use http://";

/// The content of the PEM files that a [`TlsConfig`] is made from.
pub struct TlsSettings {
    /// At least one certificate. The first one is used for clients that request no host name or an unknown one.
    pub certificates: Vec<CertificatePem>,
    /// Verification of client certificates. With `None`, the server does not ask clients for a certificate.
    pub clients: Option<ClientAuthorities>,
    /// True if HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
}

/// A certificate with its key.
pub struct CertificatePem {
    /// The certificate of the server, followed by the certificates of the intermediate authorities.
    pub chain: Vec<u8>,
    /// The private key: PKCS #8, PKCS #1 or SEC 1, without a password.
    pub key: Vec<u8>,
}

/// The authorities that sign the certificates of clients.
pub struct ClientAuthorities {
    /// The certificates of the authorities.
    pub roots: Vec<u8>,
    /// True if clients without a certificate are refused. Clients with a certificate that is not valid are always
    /// refused.
    pub required: bool,
}

/// The part of [`TlsSettings`] that has an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPart {
    /// The chain of the certificate with this index.
    Chain(usize),
    /// The key of the certificate with this index.
    Key(usize),
    /// The authorities of clients.
    Authorities,
}

/// Settings that are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TlsError {
    /// The part with the error.
    pub part: TlsPart,
    /// Why the part is not valid.
    pub reason: String,
}

/// The checked form of [`TlsSettings`].
pub struct TlsConfig {
    server: Arc<ServerConfig>,
    certificates: Arc<[Certificate]>,
}

/// A certificate of the listener.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The DNS names, in lower case. A name can begin with `*.`, which matches one label.
    pub names: Vec<String>,
    /// The end of the validity, in seconds since the Unix epoch.
    pub not_after_s: i64,
    /// The certificate in DER, without its chain.
    pub der: Vec<u8>,
}

impl Certificate {
    /// Returns true if the certificate is for this host name.
    fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
            }
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

/// TLS of a listener; cheap to clone. New connections use the current configuration.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<TlsConfig>>);

impl Tls {
    /// Makes the TLS of a listener, with its first configuration.
    pub fn new(config: TlsConfig) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// Replaces the configuration, for connections that are accepted later. No TLS session of an earlier configuration
    /// can be resumed.
    pub fn replace(&self, config: TlsConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Returns the certificates of the configuration.
    pub fn certificates(&self) -> Arc<[Certificate]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).certificates.clone()
    }

    /// Returns true if a certificate of the listener is for this host name.
    pub fn is_name(&self, host: &str) -> bool {
        self.certificates().iter().any(|certificate| certificate.is_for(host))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).server.clone().into()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Private keys must not appear in logs.
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Makes a configuration. Fails unless all certificates and keys can be read, and each key belongs to its
    /// certificate.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certified: Result<Vec<_>, _> =
            settings.certificates.iter().enumerate().map(|(index, pem)| certify(index, pem, &provider)).collect();
        let certified = certified?;
        let certificates: Arc<[Certificate]> = certified.iter().map(|(certificate, _)| certificate.clone()).collect();
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(|error| TlsError { part: TlsPart::Chain(0), reason: error.to_string() })?;
        let builder = match &settings.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let wrong = |reason: String| TlsError { part: TlsPart::Authorities, reason };
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&clients.roots)?), provider);
                let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(error.to_string()))?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::new(ByName(certified)));
        let protocols: &[&[u8]] = if settings.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        if settings.clients.is_some() {
            // Sessions cannot be resumed: a resumed session would not verify the client's certificate again, even if
            // the certificate has expired.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(Self { server: Arc::new(server), certificates })
    }

    /// Returns the certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }
}

fn certify(
    index: usize,
    pem: &CertificatePem,
    provider: &CryptoProvider,
) -> Result<(Certificate, Arc<CertifiedKey>), TlsError> {
    let wrong_chain = |reason: &str| TlsError { part: TlsPart::Chain(index), reason: reason.to_owned() };
    let wrong_key = |reason: &str| TlsError { part: TlsPart::Key(index), reason: reason.to_owned() };
    let chain = certificates(&pem.chain).map_err(|reason| wrong_chain(&reason))?;
    let first = chain.first().ok_or_else(|| wrong_chain(NO_CERTIFICATE))?;
    let fields = certificate::fields(first).ok_or_else(|| wrong_chain("the first certificate is damaged"))?;
    let certificate = Certificate {
        names: fields.dns.iter().map(|name| name.to_ascii_lowercase()).collect(),
        not_after_s: fields.not_after,
        der: first.to_vec(),
    };
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| {
        let is_locked = pem.key.windows(9).any(|bytes| bytes == b"ENCRYPTED");
        wrong_key(if is_locked {
            "the key is encrypted with a password; decrypt it, for example with `openssl pkey -in KEY -out NEW`"
        } else {
            "there is no private key in PEM form (`-----BEGIN PRIVATE KEY-----`)"
        })
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong_key("the key does not belong to the certificate"),
        error => wrong_key(&format!("the key cannot be used: {error}")),
    })?;
    Ok((certificate, Arc::new(certified)))
}

const NO_CERTIFICATE: &str = "there is no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)";

/// Reads all certificates of a PEM file.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|error| format!("it is not a valid PEM file: {error}"))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let wrong = |reason: String| TlsError { part: TlsPart::Authorities, reason };
    let all = certificates(pem).map_err(wrong)?;
    let mut roots = RootCertStore::empty();
    for certificate in all {
        roots.add(certificate).map_err(|error| wrong(format!("a certificate cannot be used: {error}")))?;
    }
    if roots.is_empty() { Err(wrong(NO_CERTIFICATE.to_owned())) } else { Ok(roots) }
}

/// Chooses the certificate by the host name that the client requests.
struct ByName(Vec<(Certificate, Arc<CertifiedKey>)>);

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(certificate, _)| &certificate.names)).finish()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let named = asked.and_then(|name| self.0.iter().find(|(certificate, _)| certificate.is_for(name)));
        named.or(self.0.first()).map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
pub(super) mod tests;
