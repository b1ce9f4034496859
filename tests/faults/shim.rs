//! Builds the preloaded library `shim.c`, and configures it through environment variables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::Evoke;

/// The path of the library. The first call builds it.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/faults/shim.c");
        let built = folder.join("faults-shim.so");
        // Renamed into place: another run of the tests may be loading it.
        let new = folder.join(format!("faults-shim-{}.so", std::process::id()));
        let compiled =
            Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&new).arg(source).arg("-ldl").output();
        let output = compiled.expect("a C compiler, cc, as for SQLite");
        assert!(output.status.success(), "{output:?}");
        std::fs::rename(new, &built).unwrap();
        built
    })
}

/// The environment variables that inject faults into one run of the program; see `shim.c`.
pub(crate) struct Shim {
    environment: Vec<(&'static str, PathBuf)>,
}

impl Shim {
    /// A shim for the data folder of this Evoke that injects no faults yet.
    pub(crate) fn for_data_of(evoke: &Evoke) -> Self {
        let data = evoke.path(".").canonicalize().unwrap().join(".evoke");
        Self { environment: vec![("LD_PRELOAD", library().to_owned()), ("EVOKE_FAULTS_DATA", data)] }
    }

    fn with(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Records all changes on the disk and all success responses in this file.
    pub(super) fn recording(self, trace: PathBuf) -> Self {
        self.with("EVOKE_FAULTS_TRACE", trace)
    }

    /// Makes a call fail, given as `CLASS:N:WHAT`, and lists failed calls in the file `fired`.
    pub(super) fn failing(self, fault: &str, fired: PathBuf) -> Self {
        self.with("EVOKE_FAULTS_FAIL", fault).with("EVOKE_FAULTS_FIRED", fired)
    }

    /// Ends the process with SIGABRT when a function logs this text.
    pub(crate) fn aborting_at(self, text: &str) -> Self {
        self.with("EVOKE_FAULTS_ABORT", text)
    }

    /// Limits the disk space or the quota; see [`DiskLimit`].
    pub(super) fn limited_by(self, limit: &DiskLimit) -> Self {
        self.with("EVOKE_FAULTS_FULL", &limit.0)
    }

    /// Sets the wall clock; see [`WallClock`].
    pub(crate) fn with_clock(self, clock: &WallClock) -> Self {
        self.with("EVOKE_FAULTS_CLOCK", &clock.0)
    }

    pub(crate) fn environment(&self) -> &[(&'static str, PathBuf)] {
        &self.environment
    }
}

/// A limit on the growth of the files in the data folder, while its file exists.
pub(super) struct DiskLimit(PathBuf, Space);

/// The resource that is exhausted for files in the data folder.
#[derive(Clone, Copy)]
pub(super) enum Space {
    /// Space on the disk: writes fail with `ENOSPC`.
    Disk,
    /// The quota of the user: writes fail with `EDQUOT`.
    Quota,
}

impl DiskLimit {
    pub(super) fn of(evoke: &Evoke, space: Space) -> Self {
        Self(evoke.path("full"), space)
    }

    /// From now on the files can grow by this many bytes in total.
    pub(super) fn set(&self, bytes: usize) {
        let new = self.0.with_extension("new");
        let kind = if matches!(self.1, Space::Quota) { "quota" } else { "" };
        std::fs::write(&new, format!("{bytes} {kind}")).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    /// Removes the limit.
    pub(super) fn remove(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// The wall clock of a program: the real one until [`WallClock::set`].
pub(crate) struct WallClock(PathBuf);

impl WallClock {
    pub(crate) fn of(evoke: &Evoke) -> Self {
        Self(evoke.path("clock"))
    }

    /// From now on, at the latest after 5 ms, the wall clock differs from the real one by this many seconds.
    pub(crate) fn set(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}
