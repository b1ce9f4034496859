//! Checks and builds the apps of manifests, without running them.

use std::path::PathBuf;

use crate::control::{AppError, Host, build, functions, manifests};
use evoke_manifest::Diagnostics;
use evoke_sandbox::{Sandbox, Settings};

/// Checks manifests. Also checks that each existing component loads under the grants of its function. Returns the
/// warnings, the number of manifests and the number of functions.
pub async fn validate(arguments: &[PathBuf]) -> Result<(Diagnostics, usize, usize), AppError> {
    let (manifests, mut found) = manifests::load(&manifests::find(arguments)?)?;
    let cache = std::env::temp_dir().join(format!("evoke-validate-{}", std::process::id()));
    let sandbox = Sandbox::new(Settings { cache_dir: cache.clone(), concurrency: 1 }).map_err(anyhow::Error::from)?;
    let mut count = 0;
    for (checked, function) in manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (c, f))) {
        count += 1;
        // A missing component is no error if the manifest has a `build:` command for it.
        if (function.component.path.exists() || function.build.is_none())
            && let Err(errors) = functions::load_one(checked, function, &sandbox).await
        {
            found.extend(errors);
        }
    }
    let _ = std::fs::remove_dir_all(cache);
    if found.has_errors() { Err(found.into()) } else { Ok((found, manifests.len(), count)) }
}

/// Runs the `build:` command of every function. Returns the number of builds.
pub async fn build(arguments: &[PathBuf], host: &dyn Host) -> Result<usize, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(arguments)?)?;
    Ok(build::build_all(&manifests, true, host).await?)
}
