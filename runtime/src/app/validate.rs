//! Checks and builds the apps of manifests, without running them.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::control::{AppError, Host, build, functions, manifests};
use evoke_manifest::{Checked, Diagnostic, Diagnostics};
use evoke_sandbox::{Sandbox, Settings};
use evoke_sources::files::{FilesSource, Overlap};

/// Checks manifests. Also checks that each existing component loads under the grants of its function. Returns the
/// warnings, also those about the data folder `data`, the number of manifests and the number of functions.
pub async fn validate(arguments: &[PathBuf], data: &Path) -> Result<(Diagnostics, usize, usize), AppError> {
    let (manifests, mut found) = manifests::load(&manifests::find(arguments)?)?;
    manifests.iter().flat_map(|checked| overlaps(checked, data)).for_each(|warning| found.push(warning));
    let cache = std::env::temp_dir().join(format!("evoke-validate-{}", uuid::Uuid::now_v7().simple()));
    // A new folder: others can make names in the folder for temporary files too.
    let created = DirBuilder::new().mode(0o700).create(&cache);
    created.with_context(|| format!("cannot create the folder {}", cache.display()))?;
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

/// Returns a warning for each files source that watches the data folder.
fn overlaps(checked: &Checked, data: &Path) -> Vec<Diagnostic> {
    let warning = |(source, _): (&evoke_manifest::Source, _)| {
        let (message, help) = match source.settings.get::<FilesSource>()?.overlap(data)? {
            Overlap::Same => {
                let message = "the files source watches the folder of the store; no file in it becomes an event";
                (message.to_owned(), "watch another folder, or choose another data folder with --data".to_owned())
            }
            Overlap::Below(path) => {
                let path = path.display();
                (
                    format!("the files source watches the folder of the store, `{path}`; it is left out"),
                    format!("to hide this warning, write `exclude: [\"{path}\"]`"),
                )
            }
        };
        Some(Diagnostic::warning(&checked.source, source.span, message).help(help))
    };
    checked.manifest.all_sources().filter_map(warning).collect()
}

/// Runs the `build:` command of every function. Returns the number of builds.
pub async fn build(arguments: &[PathBuf], host: &dyn Host) -> Result<usize, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(arguments)?)?;
    Ok(build::build_all(&manifests, true, host).await?)
}
