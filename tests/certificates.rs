//! Certificates for tests, and curl, which uses them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::support::Evoke;

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        // Clients look for an authority by its name.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes the certificate of the authority. Returns its path.
    pub(crate) fn write(&self, evoke: &Evoke, name: &str) -> PathBuf {
        write(evoke, name, &self.0.pem())
    }

    /// Signs a certificate for these names.
    pub(crate) fn sign(&self, names: &[&str]) -> Identity {
        self.sign_with(names, |_| {})
    }

    pub(crate) fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`. Returns their paths.
    pub(crate) fn write(&self, evoke: &Evoke, name: &str) -> (PathBuf, PathBuf) {
        let certificate = write(evoke, &format!("{name}.pem"), &self.certificate);
        (certificate, write(evoke, &format!("{name}.key"), &self.key))
    }
}

/// Writes a file that only its owner can read, in one step. Returns its path.
pub(crate) fn write(evoke: &Evoke, name: &str, text: &str) -> PathBuf {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let (path, new) = (evoke.path(name), evoke.path(&format!("{name}.new")));
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

/// The port of an address as `listen.json` has it.
pub(crate) fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

/// Runs curl for the path of a listener, as the host `a.example`.
pub(crate) fn curl(address: &str, path: &str, authority: &Path, arguments: &[&str]) -> Output {
    let port = port(address);
    Command::new("curl")
        .args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--cacert"])
        .arg(authority)
        .args(["--resolve", &format!("a.example:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("https://a.example:{port}{path}"))
        .output()
        .expect("curl runs")
}

/// The standard output of a command that succeeded.
pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
