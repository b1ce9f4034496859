//! Checks everything that a start needs, without starting anything.

use anyhow::Context as _;

use super::{UpOptions, open, validate};
use crate::control::{AppError, auth, manifests};
use evoke_manifest::{Diagnostics, Severity};
use evoke_model::clock::Clock;
use evoke_store_sqlite::SqliteStore;
use evoke_telemetry::Metrics;

/// Checks the manifests with their components and secrets, the store, the certificates and the addresses. Returns the
/// warnings, the number of manifests and the number of functions. Nothing is written to disk. The addresses are not
/// checked while another Evoke runs with the data folder, because that Evoke uses them.
pub async fn check_start(options: &UpOptions) -> Result<(Diagnostics, usize, usize), AppError> {
    let checked = validate(&options.manifests, &options.data, options.compile, Severity::Error, None).await?;
    let (manifests, _) = manifests::load(&manifests::find(&options.manifests)?)?;
    auth::check_dedup_window(&manifests, options.dedup_window)?;
    if options.data.join("evoke.db").exists() {
        let opened = SqliteStore::open_read_only(&options.data, Clock::system());
        opened.with_context(|| format!("cannot open the store in the data folder {}", options.data.display()))?;
    }
    if !options.data.join("listen.json").exists() {
        // The listeners are closed again immediately.
        drop(open::listen(options, &Metrics::new(), &Clock::system()).await?);
    }
    Ok(checked)
}
