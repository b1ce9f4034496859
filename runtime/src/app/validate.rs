//! Checks and builds the apps of manifests, without running them.

use std::path::{Path, PathBuf};

use super::unused_grants;
use crate::admin::view::FunctionGrants;
use crate::control::load::{Code, load_each};
use crate::control::{AppError, Host, auth, build, functions, manifests, secrets, sources, unset_secrets};
use evoke_manifest::{Checked, Diagnostic, Diagnostics, Function, Severity, Source};
use evoke_sandbox::{CompileLimits, Compiler, Sandbox, Settings};
use evoke_sources::files::{FilesSource, Overlap};

/// Checks manifests, and checks that the existing components load under their grants. Returns the warnings (including
/// warnings about the data folder `data`), the number of manifests and the number of functions. `missing_secrets` is
/// the severity of the report about a secret that is not set on this machine. `used` is the recorded use of grants:
/// with it, each grant that a function has not used, although it has run, is an error. Nothing is written to disk.
pub async fn validate(
    arguments: &[PathBuf],
    data: &Path,
    compile: CompileLimits,
    missing_secrets: Severity,
    used: Option<&[FunctionGrants]>,
) -> Result<(Diagnostics, usize, usize), AppError> {
    let (manifests, mut found) = manifests::load(&manifests::find(arguments)?)?;
    manifests.iter().flat_map(|checked| overlaps(checked, data)).for_each(|warning| found.push(warning));
    manifests.iter().flat_map(secrets::warnings).for_each(|warning| found.push(warning));
    manifests.iter().flat_map(auth::warnings).for_each(|warning| found.push(warning));
    let warning = |checked: &Checked, source: &Source, message: String, help: &'static str| {
        Diagnostic::warning(&checked.source, source.span, message).help(help)
    };
    manifests.iter().flat_map(|checked| sources::commands(checked, warning)).for_each(|one| found.push(one));
    used.iter().for_each(|used| found.extend(unused_grants::find(&manifests, used)));
    let settings = Settings { cache_dir: None, compiler: Compiler::this_program(compile), concurrency: 1 };
    let sandbox = Sandbox::new(settings).map_err(anyhow::Error::from)?;
    let all: Vec<_> = functions::all(&manifests).collect();
    let count = all.len();
    // A missing component is not an error if the manifest has a `build:` command for it.
    let existing = all.into_iter().filter(|(_, f)| f.build.is_none() || f.component_path().is_none_or(Path::exists));
    // A machine that only checks manifests may lack the secrets. Then the functions are checked without secrets.
    let existing: Vec<(&Checked, Function)> = existing.map(|(checked, function)| (checked, function.clone())).collect();
    let (mut checkable, mut unset) = (Vec::new(), Vec::new());
    for (checked, function) in existing {
        let unset_here = unset_secrets::of(&function);
        let missing = |(message, help): (String, String)| match missing_secrets {
            Severity::Error => checked.error_at(function.spans.allow, message, help),
            Severity::Warning => Diagnostic::warning(&checked.source, function.spans.allow, message).help(help),
        };
        unset.extend(unset_here.iter().cloned().map(missing));
        match (unset_here.is_empty(), function.deliver.is_some()) {
            (true, _) => checkable.push((checked, function)),
            (false, false) => checkable.push((checked, without_secrets(function))),
            // A function with `deliver` needs its secrets to build its request. Without them, it is not checked.
            (false, true) => {}
        }
    }
    unset.into_iter().for_each(|missing| found.push(missing));
    let references = || checkable.iter().map(|(checked, function)| (*checked, function));
    let loaded = load_each(references(), &sandbox).await;
    for ((checked, function), loaded) in references().zip(loaded) {
        match loaded {
            Ok(Code::Component(component)) if component.can_send_requests() && function.allow.http.is_empty() => {
                found.push(without_http(checked, function));
            }
            Ok(_) => {}
            Err(errors) => found.extend(errors),
        }
    }
    if found.has_errors() { Err(found.into()) } else { Ok((found, manifests.len(), count)) }
}

/// Returns the function without its secrets, and without the headers that contain secrets.
fn without_secrets(mut function: Function) -> Function {
    function.allow.secrets.clear();
    for grant in &mut function.allow.http {
        grant.headers.retain(|_, template| template.secrets().next().is_none());
    }
    function
}

/// Returns the warning about a component that could send requests but has no grant for them. It is only a warning,
/// because some toolchains add the import to every component.
fn without_http(checked: &Checked, function: &Function) -> Diagnostic {
    let message = format!("`{}` imports wasi:http, and each request that it sends is refused", function.name.as_str());
    let help = "if it sends requests, add the origins: `allow: { http: [\"https://HOST\"] }`";
    Diagnostic::warning(&checked.source, function.spans.component, message).help(help)
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
                    format!(
                        "the folder of the store, `{path}`, is in a watched folder; no file in `{path}` becomes an \
                         event"
                    ),
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
