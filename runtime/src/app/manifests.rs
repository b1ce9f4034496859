//! The manifests that a command is given: found, read, and their components built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use super::build;
use crate::manifest::{self, Checked, Diagnostic, Diagnostics, Function};

/// The manifest that is meant when none is named.
const DEFAULT_MANIFEST: &str = "evoke.yaml";

/// The manifests that these arguments name: files, and folders with their `.yaml` and `.yml` files; none at all is
/// `evoke.yaml`.
pub(super) fn find(arguments: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    if arguments.is_empty() {
        if !Path::new(DEFAULT_MANIFEST).exists() {
            bail!("there is no {DEFAULT_MANIFEST} here; name a manifest or a folder of manifests");
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
            bail!("there is no .yaml file in the folder {}", argument.display());
        }
        inside.sort();
        found.append(&mut inside);
    }
    found.dedup();
    Ok(found)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") && path.is_file()
}

/// Reads manifests and checks them on their own and together. All mistakes come back at once; warnings come beside
/// the manifests when there is no mistake.
pub(super) fn load(paths: &[PathBuf]) -> Result<(Vec<Checked>, Diagnostics), Diagnostics> {
    let mut manifests: Vec<Checked> = Vec::new();
    let mut found = Diagnostics::default();
    let mut apps: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in paths {
        match manifest::load(path) {
            Ok(checked) => {
                found.extend(checked.warnings.clone());
                let app = checked.manifest.app.as_str().to_owned();
                if let Some(other) = apps.insert(app.clone(), path.clone()) {
                    let message = format!("the app {app} is declared by {} too", other.display());
                    let help = "give each manifest its own `app:`, or put both into one";
                    found.push(Diagnostic::file_error(&checked.source, message).help(help));
                }
                manifests.push(checked);
            }
            Err(mistakes) => found.extend(mistakes),
        }
    }
    if found.has_errors() { Err(found) } else { Ok((manifests, found)) }
}

/// Every function with a `build:`.
pub(super) fn buildable(manifests: &[Checked]) -> impl Iterator<Item = (&Checked, &Function, &str)> {
    manifests.iter().flat_map(|checked| {
        let functions = checked.manifest.functions.iter();
        functions.filter_map(move |function| Some((checked, function, function.build.as_deref()?)))
    })
}

/// Builds what is missing or older than its sources (also what is fresh, with `even_fresh`), one after another, telling on standard
/// error what it does. All failures come back at once.
pub(super) async fn build_all(manifests: &[Checked], even_fresh: bool) -> Result<(), Diagnostics> {
    let mut failed = Diagnostics::default();
    for (checked, function, _) in buildable(manifests) {
        if (even_fresh || build::is_stale(&function.component.path))
            && let Err(error) = run_build(checked, function).await
        {
            failed.extend(error);
        }
    }
    if failed.has_errors() { Err(failed) } else { Ok(()) }
}

/// Builds one function when it is missing or older than its sources.
pub(super) async fn build_one(checked: &Checked, function: &Function) -> Result<(), Diagnostics> {
    if build::is_stale(&function.component.path) { run_build(checked, function).await } else { Ok(()) }
}

async fn run_build(checked: &Checked, function: &Function) -> Result<(), Diagnostics> {
    let Some(command) = &function.build else { return Ok(()) };
    super::say("building", &format!("{} ({command})", function.name.as_str()));
    build::run(command, &checked.manifest.folder, &function.component.path).await.map_err(|error| {
        let help = "what it printed stands above; `evoke build` runs it again";
        Diagnostics::from_iter([checked.error_at(function.spans.component, error.to_string(), help)])
    })
}

/// What tells whether anything that `up` was made from has changed: each file with its time.
pub(super) fn fingerprint(arguments: &[PathBuf], manifests: &[Checked]) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let mut files = find(arguments).unwrap_or_default();
    for function in manifests.iter().flat_map(|checked| &checked.manifest.functions) {
        files.push(function.component.path.clone());
        if function.build.is_some() {
            files.extend(build::sources_of(&function.component.path));
        }
    }
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    files.into_iter().map(|path| (path.clone(), modified(&path))).collect()
}
