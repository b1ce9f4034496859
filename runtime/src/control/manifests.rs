//! Finds and loads the manifests of a command.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use super::host::{Host, Progress};
use super::{AppError, build, kinds, secrets};
use evoke_http::source::auth::Auth;
use evoke_http::source::{HttpSource, claimed_app_error};
use evoke_manifest::deliver::Deliver;
use evoke_manifest::{self as manifest, Checked, Diagnostic, Diagnostics};

/// The manifest to use without arguments.
const DEFAULT_MANIFEST: &str = "evoke.yaml";

/// Returns the paths of the manifests. An argument that is a file is returned as given; for a folder, its `.yaml` and
/// `.yml` files are returned, sorted, without hidden files and tests (`.test.yaml`). Without arguments, the path is
/// `evoke.yaml`. Returns an error if a folder has no manifest.
pub(crate) fn find(arguments: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    if arguments.is_empty() {
        if !Path::new(DEFAULT_MANIFEST).exists() {
            bail!("no {DEFAULT_MANIFEST} in the current folder; give a manifest or a folder of manifests");
        }
        return Ok(vec![DEFAULT_MANIFEST.into()]);
    }
    let mut found = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            found.push(argument.clone());
            continue;
        }
        let entries =
            std::fs::read_dir(argument).with_context(|| format!("cannot read the folder {}", argument.display()))?;
        let mut inside: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| is_yaml(p)).collect();
        if inside.is_empty() {
            bail!("the folder {} has no manifest (NAME.yaml or NAME.yml)", argument.display());
        }
        inside.sort();
        found.append(&mut inside);
    }
    found.dedup();
    Ok(found)
}

/// Returns true for `NAME.yaml` and `NAME.yml`. Returns false for tests of functions (`NAME.test.yaml`) and for hidden
/// files, such as the AppleDouble files (`._shop.yaml`) of macOS.
fn is_yaml(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_test = path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|part| part == "test"));
    let is_yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    is_yaml && !is_hidden && !is_test && path.is_file()
}

/// Loads manifests and checks them individually and together. Returns the manifests with their warnings, or all errors
/// together.
pub(crate) fn load(paths: &[PathBuf]) -> Result<(Vec<Checked>, Diagnostics), Diagnostics> {
    let mut manifests: Vec<Checked> = Vec::new();
    let mut found = Diagnostics::default();
    let mut apps: BTreeMap<String, PathBuf> = BTreeMap::new();
    let kinds = kinds::registry();
    for path in paths {
        match manifest::load(path, &kinds) {
            Ok(checked) => {
                found.extend(checked.warnings.clone());
                let app = checked.manifest.app.as_str().to_owned();
                if let Some(other) = apps.insert(app.clone(), path.clone()) {
                    let message = format!("the app {app} is also declared by {}", other.display());
                    let help = "give each manifest its own `app:`, or merge them into one manifest";
                    found.push(Diagnostic::file_error(&checked.source, message).help(help));
                }
                manifests.push(checked);
            }
            Err(errors) => found.extend(errors),
        }
    }
    found.extend(claimed_apps(&manifests, &apps));
    if found.has_errors() { Err(found) } else { Ok((manifests, found)) }
}

/// Returns an error for each glob in the `accept` of an http source, if the glob matches only sources of another app in
/// `apps`.
fn claimed_apps(manifests: &[Checked], apps: &BTreeMap<String, PathBuf>) -> Diagnostics {
    let mut found = Vec::new();
    for checked in manifests {
        for (source, _) in checked.manifest.all_sources() {
            let http = source.settings.get::<HttpSource>();
            for (glob, app) in http.into_iter().flat_map(HttpSource::claimed_apps) {
                // Globs for sources of the manifest's own app were reported when the manifest was loaded.
                if apps.contains_key(&app) && checked.manifest.app.as_str() != app {
                    let (message, help) = claimed_app_error(glob, &app);
                    found.push(checked.error_at(source.span, message, help));
                }
            }
        }
    }
    found.into_iter().collect()
}

/// Loads the manifests of a command, reports their warnings, and builds missing or outdated components.
pub(crate) async fn prepare(arguments: &[PathBuf], host: &dyn Host) -> Result<Vec<Checked>, AppError> {
    let (manifests, mut warnings) = load(&find(arguments)?)?;
    manifests.iter().flat_map(secrets::warnings).for_each(|warning| warnings.push(warning));
    if !warnings.is_empty() {
        host.report(Progress::Warnings(&warnings));
    }
    build::build_all(&manifests, false, host).await?;
    Ok(manifests)
}

/// The files that `up` depends on, each with its device, inode, size and modification time; `None` if the metadata of
/// the file cannot be read.
pub(crate) type Fingerprint = BTreeMap<PathBuf, Option<(u64, u64, u64, SystemTime)>>;

/// Returns the files that `up` depends on. Two different results mean that a file has changed.
pub(crate) fn fingerprint(arguments: &[PathBuf], manifests: &[Checked]) -> Fingerprint {
    let mut files = find(arguments).unwrap_or_default();
    for source in manifests.iter().flat_map(|checked| checked.manifest.all_sources()).map(|(source, _)| source) {
        let auth = source.settings.get::<HttpSource>().and_then(|http| http.auth.as_ref());
        files.extend(auth.into_iter().flat_map(Auth::secrets).filter_map(secrets::file_of));
    }
    for function in manifests.iter().flat_map(|checked| &checked.manifest.functions) {
        let grants = &function.allow.http;
        let trusts = function.deliver.iter().map(|deliver| &deliver.trust);
        files.extend(trusts.chain(grants.iter().map(|grant| &grant.trust)).filter_map(|trust| trust.ca.clone()));
        let of_grants = grants.iter().flat_map(|grant| grant.secrets.values());
        let of_deliver = function.deliver.iter().flat_map(Deliver::all_secrets);
        let all = function.allow.secrets.values().chain(of_grants).chain(of_deliver);
        files.extend(all.filter_map(secrets::file_of));
        files.extend(function.component_path().map(Path::to_owned));
    }
    files.extend(built(manifests));
    let state = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.modified().ok()?))
    };
    files.into_iter().map(|path| (path.clone(), state(&path))).collect()
}

/// Returns the files that `build:` commands may change: the components that they make, and the sources of these
/// components.
pub(crate) fn built(manifests: &[Checked]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for checked in manifests {
        let functions = checked.manifest.functions.iter().filter(|function| function.build.is_some());
        for component in functions.filter_map(manifest::Function::component_path) {
            files.extend(build::sources_of(component, &checked.manifest.folder));
            files.insert(component.to_owned());
        }
    }
    files
}
