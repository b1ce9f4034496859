//! The settings of a sandbox, and of the function that a bench measures.

use std::path::PathBuf;
use std::time::Duration;

use evoke_sandbox::{CompileLimits, Compiler, Grants, Settings, Spec};

/// The settings of a sandbox that compiles with the `evoke` program.
pub(crate) fn settings(cache: PathBuf) -> Settings {
    let compiler = Compiler::program(env!("CARGO_BIN_EXE_evoke").into(), CompileLimits::DEFAULT);
    Settings { cache_dir: Some(cache), compiler, concurrency: 64 }
}

/// Returns the specification of a function with this component.
pub(crate) fn spec(component: PathBuf, grants: Grants) -> Spec {
    Spec {
        name: "bench/guest".into(),
        uri: "/bench/guest".into(),
        component,
        digest: None,
        timeout: Duration::from_secs(5),
        memory: 64 * 1024 * 1024,
        grants,
    }
}
