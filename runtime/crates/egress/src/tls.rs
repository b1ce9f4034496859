//! TLS for outbound requests: the trusted certificate authorities and the TLS configuration of each grant.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::error::Error;
use super::grant::TrustAnchors;

/// The certificate authorities that the machine trusts. They are read once, on first use.
#[derive(Default)]
pub(crate) struct Trust {
    roots: OnceCell<Arc<RootCertStore>>,
    /// The configuration for all grants that have no certificate authorities of their own.
    shared: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    /// Returns the configuration for a grant. `ca` has the grant's own certificate authorities, if the grant has any.
    pub(crate) async fn config(&self, io: &Handle, ca: Option<&TrustAnchors>) -> Result<Arc<ClientConfig>, Error> {
        let roots = self.roots(io, ca).await?;
        match ca {
            None => self.shared.get_or_try_init(|| async { new_config(roots) }).await.cloned(),
            Some(_) => new_config(roots),
        }
    }

    /// Returns the root certificates of the system, and those of `ca`.
    pub(crate) async fn roots(&self, io: &Handle, ca: Option<&TrustAnchors>) -> Result<Arc<RootCertStore>, Error> {
        let roots = self.roots.get_or_try_init(|| read_roots(io)).await?;
        let Some(ca) = ca else { return Ok(roots.clone()) };
        let mut roots = RootCertStore::clone(roots);
        roots.add_parsable_certificates(ca.0.iter().cloned());
        Ok(Arc::new(roots))
    }
}

/// Reads the root certificates of the system, which takes tens of milliseconds.
async fn read_roots(io: &Handle) -> Result<Arc<RootCertStore>, Error> {
    let read = io.spawn_blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the machine's certificate authorities cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!("the machine has no certificate authorities; https requests need a `ca` in their grant");
        }
        Arc::new(roots)
    });
    read.await.map_err(|error| Error::Internal(format!("cannot read the machine's certificate authorities: {error}")))
}

fn new_config(roots: Arc<RootCertStore>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Internal(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
