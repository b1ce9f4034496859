//! Guest components from the folder `functions`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds a component with `functions/build.sh` and returns its path.
pub(crate) fn component(name: &str) -> PathBuf {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions").canonicalize().unwrap();
    let status = Command::new("bash").arg(functions.join("build.sh")).arg(name).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "functions/build.sh {name} failed with {status}");
    functions.join(format!("target/components/{name}.wasm"))
}
