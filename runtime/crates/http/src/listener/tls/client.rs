//! The certificate of a client.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use evoke_egress::certificate;

/// The longest principal, in bytes.
const PRINCIPAL_MAX: usize = 1024;

/// The verified certificate of a client, an extension of every request over the client's connection. One of the
/// configured authorities signed the certificate, and the handshake proved that the client has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(Arc<Names>);

#[derive(Debug, PartialEq, Eq)]
struct Names {
    principal: String,
    event_principal: Arc<str>,
    fields: certificate::Fields,
}

impl ClientCertificate {
    /// Reads the names of a certificate that was verified.
    pub(in crate::listener) fn new(certificate: &CertificateDer<'_>) -> Self {
        let fields = certificate::fields(certificate).unwrap_or_default();
        let principal = principal(&fields).unwrap_or_else(|| fingerprint(certificate));
        let event_principal = format!("certificate:{principal}").into();
        Self(Arc::new(Names { principal, event_principal, fields }))
    }

    /// Returns the principal of the client, which is a name in the certificate. The names are tried in this order: the
    /// alternative names (URIs, then mail addresses, then DNS names), then the subject's common name. The first one
    /// with at most 1,024 bytes is used. Without such a name, the principal is `sha256:` followed by the hash of the
    /// certificate. A principal has no control characters.
    pub fn principal(&self) -> &str {
        &self.0.principal
    }

    /// Returns the principal of the events that the client sends: `certificate:` followed by [`Self::principal`].
    /// Principals from `auth` never begin with `certificate:`. If the client is a proxy, this is the principal of the
    /// proxy.
    pub(crate) fn event_principal(&self) -> &Arc<str> {
        &self.0.event_principal
    }

    /// Returns the subject's common name.
    pub fn common_name(&self) -> Option<&str> {
        self.0.fields.common_name.as_deref()
    }

    /// Returns all alternative names that are DNS names.
    pub fn dns_names(&self) -> &[String] {
        &self.0.fields.dns
    }

    /// Returns all alternative names that are mail addresses.
    pub fn emails(&self) -> &[String] {
        &self.0.fields.emails
    }

    /// Returns all alternative names that are URIs.
    pub fn uris(&self) -> &[String] {
        &self.0.fields.uris
    }
}

fn principal(fields: &certificate::Fields) -> Option<String> {
    let names = [&fields.uris, &fields.emails, &fields.dns].into_iter().flatten();
    names.chain(&fields.common_name).find(|name| name.len() <= PRINCIPAL_MAX).cloned()
}

fn fingerprint(certificate: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
    hash.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn shown(params: &CertificateParams) -> ClientCertificate {
        ClientCertificate::new(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn the_principal_is_the_most_specific_name() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let nameless = shown(&params);
        assert!(nameless.principal().starts_with("sha256:") && nameless.principal().len() == 71, "{nameless:?}");

        params.distinguished_name.push(DnType::CommonName, "ada");
        assert_eq!(shown(&params).principal(), "ada");
        assert_eq!(shown(&params).common_name(), Some("ada"));
        params.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
        assert_eq!(shown(&params).principal(), "a.example");
        params.subject_alt_names.push(SanType::Rfc822Name("ada@example.com".try_into().unwrap()));
        assert_eq!(shown(&params).principal(), "ada@example.com");
        let long = format!("spiffe://{}", "x".repeat(PRINCIPAL_MAX));
        params.subject_alt_names.push(SanType::URI(long.as_str().try_into().unwrap()));
        assert_eq!(shown(&params).principal(), "ada@example.com");
        params.subject_alt_names.push(SanType::URI("spiffe://example/a".try_into().unwrap()));
        let all = shown(&params);
        assert_eq!(all.principal(), "spiffe://example/a");
        assert_eq!(
            (all.dns_names(), all.emails(), all.uris().len()),
            (&["a.example".into()][..], &["ada@example.com".into()][..], 2)
        );
    }
}
