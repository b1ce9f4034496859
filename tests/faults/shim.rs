//! The layer beneath the program, `shim.c`: built here, put in by its environment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::Evoke;

/// The library, built when the first test asks.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/faults/shim.c");
        let built = folder.join("faults-shim.so");
        // Put there whole: another run of the tests may be loading it.
        let new = folder.join(format!("faults-shim-{}.so", std::process::id()));
        let compiled =
            Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&new).arg(source).arg("-ldl").output();
        let output = compiled.expect("a C compiler, cc, as for SQLite");
        assert!(output.status.success(), "{output:?}");
        std::fs::rename(new, &built).unwrap();
        built
    })
}

/// What is done to one run of the program; see `shim.c`.
pub(super) struct Shim {
    environment: Vec<(&'static str, PathBuf)>,
}

impl Shim {
    pub(super) fn beneath(evoke: &Evoke) -> Self {
        let data = evoke.path(".").canonicalize().unwrap().join(".evoke");
        Self { environment: vec![("LD_PRELOAD", library().to_owned()), ("EVOKE_FAULTS_DATA", data)] }
    }

    fn with(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Writes down what changes on the disk, and what is acknowledged.
    pub(super) fn recording(self, trace: PathBuf) -> Self {
        self.with("EVOKE_FAULTS_TRACE", trace)
    }

    /// Lets calls fail as `CLASS:N:WHAT` says, and notes those that did.
    pub(super) fn failing(self, fault: &str, fired: PathBuf) -> Self {
        self.with("EVOKE_FAULTS_FAIL", fault).with("EVOKE_FAULTS_FIRED", fired)
    }

    /// Has a full disk as long as this file is there; see [`Room`].
    pub(super) fn limited_by(self, room: &Room) -> Self {
        self.with("EVOKE_FAULTS_FULL", &room.0)
    }

    pub(super) fn environment(&self) -> &[(&'static str, PathBuf)] {
        &self.environment
    }
}

/// How much room the disk has.
pub(super) struct Room(PathBuf);

impl Room {
    pub(super) fn of(evoke: &Evoke) -> Self {
        Self(evoke.path("full"))
    }

    /// From now on so many bytes.
    pub(super) fn limit(&self, bytes: usize) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, bytes.to_string()).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    /// As much as anybody wants.
    pub(super) fn free(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}
