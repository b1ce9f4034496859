//! The grants of an owner: the destinations that it may reach.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use evoke_model::destination::{AddressRange, Destination};

/// One entry of `allow.http` in a manifest, with the values of its secrets.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The origins that may be reached.
    pub destination: Destination,
    /// Headers that are added to each request. They replace the headers of the request that have the same names. Mark
    /// values with secrets as sensitive ([`HeaderValue::set_sensitive`]).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Addresses that may be reached although they are not global.
    pub addresses: Vec<AddressRange>,
    /// Certificate authorities that are trusted for this grant only, in addition to those of the machine.
    pub ca: Option<TrustAnchors>,
}

impl Grant {
    /// Returns a grant without headers, addresses and authorities.
    pub fn new(destination: Destination) -> Self {
        Self { destination, headers: Vec::new(), addresses: Vec::new(), ca: None }
    }
}

/// Certificates of authorities, from a PEM file.
#[derive(Clone)]
pub struct TrustAnchors(pub(crate) Arc<Vec<CertificateDer<'static>>>);

/// Why a text has no usable certificates of authorities.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The text is not PEM, or a section is broken.
    #[error("the file is not valid PEM: {0}")]
    Pem(String),
    /// The text has no section `CERTIFICATE`.
    #[error("the file has no certificate (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
    /// A certificate cannot be an authority.
    #[error("certificate {number} of the file cannot be used: {message}")]
    Invalid {
        /// The position in the file, from 1.
        number: usize,
        /// Why the certificate is not valid.
        message: String,
    },
}

impl TrustAnchors {
    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// The text is not PEM, has no certificate, or has a certificate that cannot be an authority.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TrustError::Pem(error.to_string()))?;
        if certificates.is_empty() {
            return Err(TrustError::Empty);
        }
        let mut roots = RootCertStore::empty();
        for (at, certificate) in certificates.iter().enumerate() {
            roots
                .add(certificate.clone())
                .map_err(|error| TrustError::Invalid { number: at + 1, message: error.to_string() })?;
        }
        Ok(Self(Arc::new(certificates)))
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}
