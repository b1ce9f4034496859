//! Runs a function's `build:` command when its component is missing or older than its sources.
//!
//! The sources are read from a dependency file beside the component (`charge.d` beside `charge.wasm`), as written by
//! cargo, make and C compilers. Without a dependency file the command runs each time; build tools are fast when nothing
//! has changed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use tokio::process::Command;

/// Why a component could not be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The shell could not be started.
    #[error("cannot run `{command}`: {source}")]
    Start {
        /// The command from the manifest.
        command: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The command failed; its output is on the terminal.
    #[error("`{command}` failed with {status}")]
    Failed {
        /// The command from the manifest.
        command: String,
        /// Exit status of the command.
        status: std::process::ExitStatus,
    },
    /// The command succeeded, but the component does not exist.
    #[error("`{command}` succeeded, but did not create {component}", component = .component.display())]
    Missing {
        /// The command from the manifest.
        command: String,
        /// Expected path of the component.
        component: PathBuf,
    },
}

/// Whether `component` must be built: it is missing, has no dependency file, or a source is newer or missing.
pub(super) fn is_stale(component: &Path) -> bool {
    let Ok(built) = modified(component) else { return true };
    let Ok(text) = std::fs::read_to_string(component.with_extension("d")) else { return true };
    parse_dependencies(&text).iter().any(|source| modified(source).is_ok_and(|at| at > built) || !source.exists())
}

/// Returns the source files that the dependency file of `component` lists; none without such a file.
pub(super) fn sources_of(component: &Path) -> Vec<PathBuf> {
    std::fs::read_to_string(component.with_extension("d")).map(|text| parse_dependencies(&text)).unwrap_or_default()
}

/// Runs `command` in `folder` with the shell. Its output goes to standard error.
pub(super) async fn run(command: &str, folder: &Path, component: &Path) -> Result<(), BuildError> {
    let start = |source| BuildError::Start { command: command.to_owned(), source };
    let output = std::io::stderr();
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .kill_on_drop(true)
        .status()
        .await
        .map_err(start)?;
    if !status.success() {
        return Err(BuildError::Failed { command: command.to_owned(), status });
    }
    if !component.exists() {
        return Err(BuildError::Missing { command: command.to_owned(), component: component.to_owned() });
    }
    Ok(())
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
