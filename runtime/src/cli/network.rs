//! Options of `up` for its listeners: certificates, and trusted proxies in front of Evoke.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::app::TlsFiles;
use evoke_http::listener::{Network as Block, Proxies};

#[derive(Debug, Clone, Args)]
pub(super) struct Network {
    /// PEM file with the certificate for the http sources and its chain. Clients must then use TLS. With several files,
    /// the server name that a client requests selects the certificate. The files are read again when they change, and
    /// after SIGHUP
    #[arg(long, env = "EVOKE_HTTP_CERT", value_name = "FILE", value_delimiter = ',')]
    http_cert: Vec<PathBuf>,
    /// PEM file with the private key of the certificate. Give one key for each --http-cert, in the same order
    #[arg(long, env = "EVOKE_HTTP_KEY", value_name = "FILE", value_delimiter = ',')]
    http_key: Vec<PathBuf>,
    /// PEM file with the certificates of the authorities that sign client certificates for the http sources
    #[arg(long, env = "EVOKE_HTTP_CLIENT_CA", value_name = "FILE", requires = "http_cert")]
    http_client_ca: Option<PathBuf>,
    /// With --http-client-ca: whether each client needs a certificate that one of these authorities signed
    #[arg(long, env = "EVOKE_HTTP_CLIENT_CERT", default_value = "required", value_name = "WHEN")]
    http_client_cert: ClientCert,
    /// Let other machines reach the http sources without TLS, for example behind a proxy that handles TLS
    #[arg(long, env = "EVOKE_HTTP_PLAINTEXT")]
    http_plaintext: bool,
    /// PEM file with the certificate for the admin API and its chain. The API may then listen on any address, not only
    /// on a loopback address
    #[arg(long, env = "EVOKE_ADMIN_CERT", value_name = "FILE", value_delimiter = ',')]
    admin_cert: Vec<PathBuf>,
    /// PEM file with the private key of the certificate. Give one key for each --admin-cert, in the same order
    #[arg(long, env = "EVOKE_ADMIN_KEY", value_name = "FILE", value_delimiter = ',')]
    admin_key: Vec<PathBuf>,
    /// Addresses of trusted proxies in front of the http sources, such as 10.0.0.0/8,192.0.2.7. Their headers
    /// X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and Forwarded are used; the same headers from other peers
    /// are ignored
    #[arg(long, env = "EVOKE_TRUSTED_PROXIES", value_name = "ADDRESSES", value_delimiter = ',')]
    trusted_proxies: Vec<Block>,
    /// Expect each connection from a trusted proxy to begin with a header of the PROXY protocol, version 1 or 2
    #[arg(long, env = "EVOKE_PROXY_PROTOCOL", requires = "trusted_proxies")]
    proxy_protocol: bool,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientCert {
    /// A client without a certificate is refused
    Required,
    /// A client may have no certificate; a client with a wrong certificate is refused
    Optional,
}

impl Network {
    /// Returns the certificate files of the http sources; `None` without TLS. Returns an error if other machines could
    /// reach the sources without TLS and `--http-plaintext` is missing. The error names the options to use instead.
    pub(super) fn http_tls(&self, http: SocketAddr) -> Result<Option<TlsFiles>, String> {
        let is_required = self.http_client_cert == ClientCert::Required;
        let clients = self.http_client_ca.clone().map(|roots| (roots, is_required));
        let files =
            pairs("http", &self.http_cert, &self.http_key)?.map(|certificates| TlsFiles { certificates, clients });
        if files.is_none() && !self.http_plaintext && !http.ip().to_canonical().is_loopback() {
            return Err(format!(
                "--http {http} can be reached from other machines, but has no TLS; add --http-cert FILE --http-key FILE, \
                 or write --http 127.0.0.1:{}; if a proxy in front of Evoke handles TLS, add --http-plaintext",
                http.port()
            ));
        }
        Ok(files)
    }

    /// Returns the certificate files of the admin API; `None` without TLS.
    pub(super) fn admin_tls(&self) -> Result<Option<TlsFiles>, String> {
        let certificates = pairs("admin", &self.admin_cert, &self.admin_key)?;
        Ok(certificates.map(|certificates| TlsFiles { certificates, clients: None }))
    }

    pub(super) fn proxies(&self) -> Proxies {
        Proxies { networks: self.trusted_proxies.clone(), protocol: self.proxy_protocol }
    }
}

/// Pairs each certificate with its key. Returns `None` if there are no certificates.
fn pairs(of: &str, certificates: &[PathBuf], keys: &[PathBuf]) -> Result<Option<Vec<(PathBuf, PathBuf)>>, String> {
    if certificates.len() != keys.len() {
        let (number, key_number) = (certificates.len(), keys.len());
        return Err(format!(
            "there are {number} --{of}-cert and {key_number} --{of}-key; write one --{of}-key FILE for each --{of}-cert FILE"
        ));
    }
    let pairs: Vec<_> = certificates.iter().cloned().zip(keys.iter().cloned()).collect();
    Ok((!pairs.is_empty()).then_some(pairs))
}
