//! Runs the `build:` commands of functions with the shell.
//!
//! The author of the manifest wrote the command, and Evoke may hold secrets of other users. So the command gets only
//! the environment variables in [`PASSED`] and those that the manifest names, no open file of Evoke, and nothing on
//! standard input. The command runs in a process group of its own, which is killed when the build is cancelled.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use super::process::inherited_umask;
use crate::control::Build;

/// The environment variables that every command gets if Evoke has them: for the shell and its locale, for the folders
/// of toolchains, and for the network. `LC_*` is passed too.
const PASSED: [&str; 34] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "NO_COLOR",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "CARGO_NET_OFFLINE",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "WASM_TOOLCHAIN_DIR",
    "WASM_TOOLCHAIN_FORCE",
    "WASM_TOOLCHAIN_RUSTUP",
    "WASI_LIBC",
    "WASI_SDK_PATH",
    "GOPATH",
    "GOCACHE",
    "NVM_DIR",
    "VIRTUAL_ENV",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Runs the command with the umask that the user's shell had, not with the stricter umask that Evoke sets for itself.
const SCRIPT: &str = r#"umask "$1" && exec /bin/sh -c "$2""#;

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

/// A process group, which is killed when this value is dropped without a call of [`Group::finished`].
struct Group(Option<Pid>);

impl Group {
    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error is ignored, because the group may already have ended.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs the command in the folder of the manifest. The output goes to standard error. Dropping the future kills the
/// command and all processes that it started, except those that left the process group of the command.
pub(super) async fn run(build: Build) -> Result<(), BuildError> {
    let Build { command, env, folder, component, .. } = build;
    let output = std::io::stderr();
    let umask = format!("{:04o}", inherited_umask());
    let child = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "sh", &umask, &command])
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| is_passed(name, &env))))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(source) => return Err(BuildError::Start { command, source }),
    };
    // The child is the leader of its process group, so the id of the group is that of the child.
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let status = match child.wait().await {
        Ok(status) => status,
        Err(source) => return Err(BuildError::Start { command, source }),
    };
    group.finished();
    if !status.success() {
        return Err(BuildError::Failed { command, status });
    }
    if !component.exists() {
        return Err(BuildError::Missing { command, component });
    }
    Ok(())
}

fn is_passed(name: &str, named: &[String]) -> bool {
    PASSED.contains(&name) || name.starts_with("LC_") || named.iter().any(|one| one == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_tools_and_locale_and_what_the_manifest_names_and_nothing_else() {
        let named = ["CC".to_owned()];
        for name in ["PATH", "HOME", "LC_ALL", "CARGO_HOME", "WASM_TOOLCHAIN_FORCE", "CC"] {
            assert!(is_passed(name, &named), "{name}");
        }
        for name in ["PAYMENT_KEY", "CARGO_REGISTRY_TOKEN", "GITHUB_TOKEN", "LD_PRELOAD", "EVOKE_DATA", "CC2", "LC"] {
            assert!(!is_passed(name, &named), "{name}");
        }
    }
}
