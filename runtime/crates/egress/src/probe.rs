//! Connections without a request, to check whether a port accepts connections, and which certificates a server has.
//! Grants and addresses are checked as for requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use evoke_model::destination::Target;

use super::certificate;
use super::client::{GrantState, Owner};
use super::connect::{dial, resolve};
use super::error::{Error, of_tls, peer_text};

/// The validity of the certificates that a server presented, and whether they are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificates {
    /// The earliest end of validity of the certificates in the chain, in seconds since the Unix epoch; `None` if no
    /// certificate can be parsed.
    pub not_after_s: Option<i64>,
    /// Why the chain is not trusted for the name; `None` if it is trusted.
    pub distrust: Option<String>,
}

impl Owner {
    /// Makes a connection within `time`, and closes it.
    ///
    /// # Errors
    /// The target is not granted, its address is refused, or no connection was made.
    pub async fn probe_tcp(&self, target: &Target, time: Duration) -> Result<(), Error> {
        let (_, state) = self.granted(target)?;
        self.open(state, target, time).await.map(drop)
    }

    /// Makes a TLS handshake for the host `name` within `time`, and closes the connection. Certificates that are not
    /// trusted do not end the handshake; no request is sent over the connection.
    ///
    /// # Errors
    /// The errors of [`Self::probe_tcp`], and a handshake that failed for a reason other than its certificates.
    pub async fn probe_tls(&self, target: &Target, name: &str, time: Duration) -> Result<PeerCertificates, Error> {
        let (_, state) = self.granted(target)?;
        let end = Instant::now() + time;
        let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(host)
            .map_err(|_| Error::Invalid(format!("`{name}` is not a name that a certificate can have")))?;
        let roots = self.0.shared.trust.roots(self.io(), state.grant.ca.as_ref()).await?;
        let provider = Arc::new(ring::default_provider());
        let setup = |error: &dyn std::fmt::Display| Error::Internal(format!("TLS cannot be set up: {error}"));
        let trusted = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
        let recorder = Arc::new(Recorder { trusted: trusted.map_err(|error| setup(&error))?, seen: Mutex::default() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?
            .dangerous()
            .with_custom_certificate_verifier(recorder.clone())
            .with_no_client_auth();
        let stream = self.open(state, target, time).await?;
        let timed_out = |_| Error::TlsTimeout { target: target.clone(), after: time };
        let connected = timeout_at(end, TlsConnector::from(Arc::new(config)).connect(server, stream)).await;
        let failed = |error: std::io::Error| Error::Tls {
            target: target.clone(),
            message: peer_text(error),
            is_certificate: false,
        };
        connected.map_err(timed_out)?.map_err(failed)?;
        let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.ok_or_else(|| Error::Protocol("the server presented no certificate".into()))
    }

    /// Connects to an address of the target that the grant allows.
    async fn open(&self, state: &GrantState, target: &Target, time: Duration) -> Result<TcpStream, Error> {
        let end = Instant::now() + time;
        let open = async { dial(target, &resolve(self, &state.grant, target, end).await?, time).await };
        let timed_out = |_| Error::ConnectTimeout { target: target.clone(), after: time };
        timeout_at(end, open).await.map_err(timed_out)?
    }
}

/// Accepts all certificates. Records the end of their validity, and the result of the real verifier (`trusted`).
#[derive(Debug)]
struct Recorder {
    trusted: Arc<WebPkiServerVerifier>,
    seen: Mutex<Option<PeerCertificates>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let chain = [end_entity].into_iter().chain(intermediates);
        let ends = chain.filter_map(|one| certificate::fields(one).map(|fields| fields.not_after));
        let distrust = verified.err().as_ref().map(of_tls);
        let seen = PeerCertificates { not_after_s: ends.min(), distrust };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}
