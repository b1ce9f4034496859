//! Runs the `build:` commands of functions with the shell.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use crate::control::Build;

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
        status: ExitStatus,
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

/// Runs the command in its folder. The output goes to standard error.
pub(super) async fn run(build: Build) -> Result<(), BuildError> {
    let Build { command, folder, component, .. } = build;
    let output = std::io::stderr();
    let status = Command::new("/bin/sh")
        .args(["-c", &command])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .kill_on_drop(true)
        .status()
        .await;
    let status = match status {
        Ok(status) => status,
        Err(source) => return Err(BuildError::Start { command, source }),
    };
    if !status.success() {
        return Err(BuildError::Failed { command, status });
    }
    if !component.exists() {
        return Err(BuildError::Missing { command, component });
    }
    Ok(())
}
