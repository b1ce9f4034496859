//! Builds components that are missing or older than their sources. The commands themselves run in the [`Host`].
//!
//! The sources are read from the dependency file beside the component (`charge.d` beside `charge.wasm`), as written by
//! cargo, make and C compilers. Without a dependency file, the command runs each time: build tools are fast when
//! nothing has changed. The command also runs if the dependency file was written in another folder, of which this one is
//! a copy: the sources in the file are then those of the other folder.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::host::{Build, Host};
use evoke_manifest::{Checked, Diagnostics, Function};

/// Size limit of a dependency file, in bytes. A file that lists a thousand sources has about 100 KB.
const DEPENDENCIES_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Builds components one after another: only outdated components, or all if `even_fresh` is true. If functions share a
/// command, its first run builds the components of all of them. Returns the number of builds. If a build fails,
/// continues with the other builds, and returns all failures.
pub(crate) async fn build_all(manifests: &[Checked], even_fresh: bool, host: &dyn Host) -> Result<usize, Diagnostics> {
    let mut failed = Diagnostics::default();
    let mut count = 0;
    let mut ran = HashSet::new();
    for (checked, function) in manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (c, f))) {
        // `even_fresh` applies only to the first run of a shared command. If that run failed to build this component,
        // the component is still outdated. Then the command runs again, and its failure is reported for this function
        // too.
        let is_first = ran.insert((&checked.manifest.folder, &function.build));
        match build(checked, function, even_fresh && is_first, host).await {
            Ok(built) => count += usize::from(built),
            Err(error) => failed.extend(error),
        }
    }
    if failed.has_errors() { Err(failed) } else { Ok(count) }
}

/// Builds the component of one function if it is outdated or `even_fresh` is true. Returns true if the `build:` command
/// ran.
pub(crate) async fn build(
    checked: &Checked,
    function: &Function,
    even_fresh: bool,
    host: &dyn Host,
) -> Result<bool, Diagnostics> {
    let (Some(command), Some(component)) = (&function.build, function.component_path()) else { return Ok(false) };
    if !even_fresh && !is_stale(component, &checked.manifest.folder) {
        return Ok(false);
    }
    let build = Build {
        function: function.name.as_str().to_owned(),
        command: command.run.clone(),
        env: command.env.clone(),
        folder: checked.manifest.folder.clone(),
        component: component.to_owned(),
    };
    match host.build(build).await {
        Ok(()) => Ok(true),
        Err(message) => {
            let help = "the output of the command is above; `evoke build` runs it again";
            Err(Diagnostics::from_iter([checked.error_at(function.spans.component, message, help)]))
        }
    }
}

/// Returns true if `component` must be built: it is missing or has no dependency file of its own, or one of its sources
/// is newer or missing. `folder` is the one in which its command runs.
fn is_stale(component: &Path, folder: &Path) -> bool {
    let Ok(built) = modified(component) else { return true };
    let Ok(text) = read_dependencies(component) else { return true };
    let dependencies = parse_dependencies(&text, folder);
    is_of_a_copied_folder(&dependencies, component, folder)
        || dependencies.sources.iter().any(|source| modified(source).is_ok_and(|at| at > built) || !source.exists())
}

/// Returns true if the dependency file is about a component that has the same place in another folder.
fn is_of_a_copied_folder(dependencies: &Dependencies, component: &Path, folder: &Path) -> bool {
    let Ok(place) = component.strip_prefix(folder) else { return false };
    let is_this = |target: &Path| target.canonicalize().ok() == component.canonicalize().ok();
    dependencies.target.as_deref().is_some_and(|target| target.ends_with(place) && !is_this(target))
}

/// Returns the source files that the dependency file of `component` lists. Returns an empty list if there is no such
/// file. `folder` is the one in which the command of the component runs.
pub(super) fn sources_of(component: &Path, folder: &Path) -> Vec<PathBuf> {
    read_dependencies(component).map(|text| parse_dependencies(&text, folder).sources).unwrap_or_default()
}

/// Reads the dependency file of `component`.
fn read_dependencies(component: &Path) -> std::io::Result<String> {
    evoke_fs::read_text(&component.with_extension("d"), DEPENDENCIES_BYTES_MAX)
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

/// A dependency file.
#[derive(Default)]
struct Dependencies {
    /// The file that the first rule makes.
    target: Option<PathBuf>,
    /// The prerequisites of all rules.
    sources: Vec<PathBuf>,
}

/// Parses a dependency file: `target: a b\ c \`, continued on the next lines. Relative paths are relative to `folder`.
fn parse_dependencies(text: &str, folder: &Path) -> Dependencies {
    let joined = text.replace("\\\n", " ");
    let rules = joined.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    let mut found = Dependencies::default();
    for (target, list) in rules {
        found.target = found.target.or_else(|| paths(target, folder).pop());
        found.sources.extend(paths(list, folder));
    }
    found
}

/// Parses a list of paths, in which a space within a path is escaped as `\ `.
fn paths(list: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut path = String::new();
    for part in list.split_ascii_whitespace() {
        if let Some(start) = part.strip_suffix('\\') {
            path.push_str(start);
            path.push(' ');
        } else {
            path.push_str(part);
            found.push(folder.join(std::mem::take(&mut path)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_dependencies_returns_the_target_and_all_prerequisites() {
        let text = "/my\\ t/a.wasm: /s/lib.rs /with\\ space/x.rs \\\n  src/b.rs\n# env-dep:X\n/s/lib.rs:\n";
        let found = parse_dependencies(text, Path::new("/app"));
        assert_eq!(found.target.unwrap(), Path::new("/my t/a.wasm"));
        assert_eq!(found.sources, ["/s/lib.rs", "/with space/x.rs", "/app/src/b.rs"].map(PathBuf::from));
    }

    #[test]
    fn a_component_is_stale_when_it_or_a_source_is_missing_or_a_source_is_newer() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let [source, component] = ["lib.rs", "f.wasm"].map(|name| folder.join(name));
        let touch = |path: &Path, second| {
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            std::fs::File::options().create(true).append(true).open(path).unwrap().set_modified(at).unwrap();
        };
        assert!(is_stale(&component, folder));
        touch(&source, 1);
        touch(&component, 2);
        assert!(is_stale(&component, folder), "there is no dependency file");
        std::fs::write(folder.join("f.d"), "f.wasm: lib.rs\n").unwrap();
        assert!(!is_stale(&component, folder));
        touch(&source, 3);
        assert!(is_stale(&component, folder));
        std::fs::remove_file(&source).unwrap();
        assert!(is_stale(&component, folder));
    }

    #[test]
    fn the_component_of_a_copied_folder_is_stale() {
        let temporary = tempfile::tempdir().unwrap();
        let [original, copy] = ["original", "copy"].map(|name| temporary.path().join(name));
        let rule = format!("{0}/f.wasm: {0}/lib.rs\n", original.display());
        for folder in [&original, &copy] {
            std::fs::create_dir(folder).unwrap();
            for (name, text) in [("lib.rs", ""), ("f.wasm", ""), ("f.d", &rule)] {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        assert!(is_stale(&copy.join("f.wasm"), &copy));
        assert!(!is_stale(&original.join("f.wasm"), &original));
        // Under another name of its folder it is no copy.
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(&original, &link).unwrap();
        assert!(!is_stale(&link.join("f.wasm"), &link));
        // The command of a function may copy the component, with its dependency file, from where it was made.
        std::fs::create_dir(copy.join("out")).unwrap();
        for name in ["f.wasm", "f.d"] {
            std::fs::copy(original.join(name), copy.join("out").join(name)).unwrap();
        }
        assert!(!is_stale(&copy.join("out/f.wasm"), &copy));
    }
}
