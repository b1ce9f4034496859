//! Builds components that are missing or older than their sources. The commands themselves run in the [`Host`].
//!
//! The sources are read from the dependency file beside the component (`charge.d` beside `charge.wasm`), as written by
//! cargo, make and C compilers. Without a dependency file, the command runs each time: build tools are fast when
//! nothing has changed.

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
    if !even_fresh && !is_stale(component) {
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

/// Returns true if `component` must be built: it is missing or has no dependency file, or one of its sources is newer
/// or missing.
fn is_stale(component: &Path) -> bool {
    let Ok(built) = modified(component) else { return true };
    let Ok(text) = read_dependencies(component) else { return true };
    parse_dependencies(&text).iter().any(|source| modified(source).is_ok_and(|at| at > built) || !source.exists())
}

/// Returns the source files that the dependency file of `component` lists. Returns an empty list if there is no such
/// file.
pub(super) fn sources_of(component: &Path) -> Vec<PathBuf> {
    read_dependencies(component).map(|text| parse_dependencies(&text)).unwrap_or_default()
}

/// Reads the dependency file of `component`.
fn read_dependencies(component: &Path) -> std::io::Result<String> {
    evoke_fs::read_text(&component.with_extension("d"), DEPENDENCIES_BYTES_MAX)
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

/// Parses the prerequisites of a dependency file: `target: a b\ c \`, continued on the next lines.
fn parse_dependencies(text: &str) -> Vec<PathBuf> {
    let joined = text.replace("\\\n", " ");
    let prerequisites = joined.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    let mut found = Vec::new();
    for (_, list) in prerequisites {
        // A space within a path is escaped as `\ `.
        let mut path = String::new();
        for part in list.split_ascii_whitespace() {
            if let Some(start) = part.strip_suffix('\\') {
                path.push_str(start);
                path.push(' ');
            } else {
                path.push_str(part);
                found.push(PathBuf::from(std::mem::take(&mut path)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_dependencies_returns_all_prerequisites() {
        let text = "/t/a.wasm: /s/lib.rs /with\\ space/x.rs \\\n  /s/b.rs\n# env-dep:X\n/s/lib.rs:\n";
        let expected: Vec<PathBuf> = ["/s/lib.rs", "/with space/x.rs", "/s/b.rs"].map(PathBuf::from).into();
        assert_eq!(parse_dependencies(text), expected);
    }

    #[test]
    fn a_component_is_stale_when_it_or_a_source_is_missing_or_a_source_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let [source, component] = ["lib.rs", "f.wasm"].map(|name| folder.path().join(name));
        let touch = |path: &Path, second| {
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            std::fs::File::options().create(true).append(true).open(path).unwrap().set_modified(at).unwrap();
        };
        assert!(is_stale(&component));
        touch(&source, 1);
        touch(&component, 2);
        assert!(is_stale(&component), "there is no dependency file");
        std::fs::write(folder.path().join("f.d"), format!("f.wasm: {}\n", source.display())).unwrap();
        assert!(!is_stale(&component));
        touch(&source, 3);
        assert!(is_stale(&component));
        std::fs::remove_file(&source).unwrap();
        assert!(is_stale(&component));
    }
}
