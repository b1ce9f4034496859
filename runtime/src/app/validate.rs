//! Checks and builds the apps of manifests, without running them.

use std::path::PathBuf;

use crate::control::{AppError, Host, build, functions, manifests};
use evoke_manifest::Diagnostics;
use evoke_sandbox::{CompileLimits, Compiler, Sandbox, Settings};

/// Checks manifests, and that the existing components load under their grants. Returns the warnings, the number of
/// manifests and the number of functions. Nothing is written to disk.
pub async fn validate(arguments: &[PathBuf], compile: CompileLimits) -> Result<(Diagnostics, usize, usize), AppError> {
    let (manifests, mut found) = manifests::load(&manifests::find(arguments)?)?;
    let settings = Settings { cache_dir: None, compiler: Compiler::this_program(compile), concurrency: 1 };
    let sandbox = Sandbox::new(settings).map_err(anyhow::Error::from)?;
    let all: Vec<_> = functions::all(&manifests).collect();
    let count = all.len();
    // A missing component is no error if the manifest has a `build:` command for it.
    let existing = all.into_iter().filter(|(_, f)| f.component.path.exists() || f.build.is_none());
    for errors in functions::load_each(existing, &sandbox).await.into_iter().filter_map(Result::err) {
        found.extend(errors);
    }
    if found.has_errors() { Err(found.into()) } else { Ok((found, manifests.len(), count)) }
}

/// Runs the `build:` command of every function. Returns the number of builds.
pub async fn build(arguments: &[PathBuf], host: &dyn Host) -> Result<usize, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(arguments)?)?;
    Ok(build::build_all(&manifests, true, host).await?)
}
