use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::*;

/// An authority, and certificates that it has signed.
pub(in crate::listener) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(in crate::listener) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(in crate::listener) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub(in crate::listener) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Signs a certificate for these names, which is valid for clients and servers.
    pub(in crate::listener) fn sign(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificatePem {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        CertificatePem { chain: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
    }
}

fn settings(certificates: Vec<CertificatePem>) -> TlsSettings {
    TlsSettings { certificates, clients: None, http2: true }
}

fn error(settings: &TlsSettings) -> (TlsPart, String) {
    let error = TlsConfig::new(settings).err().expect("the settings should be wrong");
    (error.part, error.reason)
}

#[test]
fn each_mistake_in_the_files_is_named_with_its_file() {
    let authority = Authority::new("a");
    let good = || authority.sign(&["a.example"], |_| {});
    let second = |wrong: CertificatePem| error(&settings(vec![good(), wrong]));
    for (chain, reason) in [
        (&b""[..], "no certificate in PEM form"),
        (b"text", "no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "not a valid PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"),
    ] {
        let (part, found) = second(CertificatePem { chain: chain.to_vec(), ..good() });
        assert!(part == TlsPart::Chain(1) && found.contains(reason), "{part:?} {found}");
    }
    let other = good().key;
    let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_vec();
    for (key, reason) in [
        (b"".to_vec(), "no private key in PEM form"),
        (good().chain, "no private key in PEM form"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(), "cannot be used"),
        (locked, "encrypted with a password"),
        (other, "does not belong to the certificate"),
    ] {
        let (part, found) = second(CertificatePem { key, ..good() });
        assert!(part == TlsPart::Key(1) && found.contains(reason), "{part:?} {found}");
    }
    for (roots, reason) in [
        (&b""[..], "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
    ] {
        let clients = Some(ClientAuthorities { roots: roots.to_vec(), required: true });
        let (part, found) = error(&TlsSettings { clients, ..settings(vec![good()]) });
        assert!(part == TlsPart::Authorities && found.contains(reason), "{part:?} {found}");
    }
    let tls = TlsConfig::new(&settings(vec![good(), good()])).unwrap();
    assert_eq!(tls.certificates().len(), 2);
}

#[test]
fn a_certificate_is_for_its_names_and_a_wildcard_for_one_label() {
    let certificate = authority_certificate(&["A.example", "*.b.example"]);
    for host in ["a.example", "A.EXAMPLE", "x.b.example", "X.B.example"] {
        assert!(certificate.is_for(host), "{host}");
    }
    for host in ["", "example", "b.example", "x.y.b.example", ".b.example", "x.a.example", "a.example.evil.example"] {
        assert!(!certificate.is_for(host), "{host}");
    }
}

fn authority_certificate(names: &[&str]) -> Certificate {
    let pem = Authority::new("a").sign(names, |_| {});
    TlsConfig::new(&settings(vec![pem])).unwrap().certificates()[0].clone()
}
