//! Cache of compiled components on disk, so that a restart does not compile again.
//!
//! A file is named `<SHA-256 of the component>-<hash of the engine's settings>.compiled`. It contains the artefact as
//! serialised by wasmtime, the artefact's SHA-256 (32 bytes), and the 8 bytes `EVOKEAOT`. It is written under a
//! temporary name and then renamed, in a folder that only this user can enter. A torn or damaged file is compiled
//! again.
//!
//! The artefact comes first in the file because the file is mapped into memory, not read: of an idle function, only the
//! pages that were used are in memory, and the operating system can drop even these. Therefore a file is never modified
//! after the rename.

use std::fs::{self, DirBuilder, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use evoke_model::hex;
use evoke_telemetry::Counter;

const MAGIC: &[u8; 8] = b"EVOKEAOT";
const TRAILER_BYTES: usize = 32 + MAGIC.len();
/// Artefacts that were not loaded for this long are removed, because every rebuild of a function leaves an old one
/// behind.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) struct Cache {
    folder: PathBuf,
    engine: Engine,
    engine_hash: u64,
    /// Serialises compilations: one uses all cores, and its memory is a multiple of the component's size.
    compiling: Mutex<()>,
    hits: Counter,
    misses: Counter,
}

impl Cache {
    /// Opens the folder, creates it if it is missing, and removes unused files.
    pub(super) fn open(folder: PathBuf, engine: Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // The files here are run as machine code, so no other user may write to the folder. Fails if another user owns
        // it.
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let cache = Self {
            folder,
            engine,
            engine_hash: hasher.finish(),
            compiling: Mutex::default(),
            hits: Counter::default(),
            misses: Counter::default(),
        };
        cache.remove_unused()?;
        Ok(cache)
    }

    /// Returns the component for `bytes` (binary or text form), from its artefact if there is one, else compiled.
    ///
    /// Blocks. Compiling takes seconds for a component of several MB.
    pub(super) fn load_or_compile(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        let path = self.path(bytes);
        if let Some(component) = self.read(&path) {
            self.hits.increment();
            return Ok(component);
        }
        let _lock = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Another load may have compiled the component in the meantime.
        if let Some(component) = self.read(&path) {
            self.hits.increment();
            return Ok(component);
        }
        self.misses.increment();
        let artefact = self.engine.precompile_component(bytes)?;
        let written = self.write(&path, &artefact);
        if let Some(component) = self.read(&path) {
            return Ok(component);
        }
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "cannot store a compiled function in the cache; the next start compiles it again");
        }
        load_own_artefact(&self.engine, Artefact::Bytes(&artefact))
    }

    /// Returns the number of cache hits and of compilations.
    pub(super) fn load_counts(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    fn path(&self, bytes: &[u8]) -> PathBuf {
        self.folder.join(format!("{}-{:016x}.compiled", hex(&Sha256::digest(bytes)), self.engine_hash))
    }

    /// Returns the artefact at `path` if it is undamaged and made for this engine.
    fn read(&self, path: &Path) -> Option<Component> {
        let file = fs::read(path).ok()?;
        let (artefact, trailer) = file.split_at_checked(file.len().checked_sub(TRAILER_BYTES)?)?;
        let (digest, magic) = trailer.split_at_checked(TRAILER_BYTES - MAGIC.len())?;
        if magic != MAGIC || digest != Sha256::digest(artefact).as_slice() {
            tracing::warn!(path = %path.display(), "a compiled function is damaged on disk; compiling it again");
            return None;
        }
        let component = load_own_artefact(&self.engine, Artefact::File(path)).ok()?;
        // Marks the file as used. If this fails, the file is removed after a month and the component is compiled again.
        let _ = File::open(path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(component)
    }

    fn write(&self, path: &Path, artefact: &[u8]) -> io::Result<()> {
        static ORDINAL: AtomicU64 = AtomicU64::new(0);
        let ordinal = ORDINAL.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{ordinal}.tmp", std::process::id()));
        let written = File::create_new(&temporary).and_then(|mut file| {
            file.write_all(artefact)?;
            file.write_all(&Sha256::digest(artefact))?;
            file.write_all(MAGIC)?;
            fs::rename(&temporary, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn remove_unused(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_ours = path.extension().is_some_and(|e| e == "compiled" || e == "tmp");
            let age = path.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if is_ours && age.is_some_and(|age| age > UNUSED_MAX) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// A compiled component, in memory or in a file.
#[derive(Clone, Copy)]
enum Artefact<'a> {
    Bytes(&'a [u8]),
    /// A file that starts with the artefact and was just verified.
    File(&'a Path),
}

/// Loads an artefact that `Engine::precompile_component` returned for the same engine configuration.
#[allow(unsafe_code)]
fn load_own_artefact(engine: &Engine, artefact: Artefact<'_>) -> wasmtime::Result<Component> {
    // SAFETY: both functions require that the bytes come from wasmtime; the second also requires that the file does not
    // change while it is mapped. The bytes come from the compiler, or from a file whose digest was just verified. This
    // program wrote that file completely before it renamed it into a folder that only its user can enter. Later the
    // file is only replaced or removed, which does not affect an existing mapping. wasmtime itself rejects artefacts of
    // another version or configuration.
    unsafe {
        match artefact {
            Artefact::Bytes(bytes) => Component::deserialize(engine, bytes),
            Artefact::File(path) => Component::deserialize_file(engine, path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("a/b"), crate::engine::engine(1).unwrap()).unwrap();
        (dir, cache)
    }

    #[test]
    fn a_component_is_compiled_once_and_then_loaded() {
        let (_dir, cache) = cache();
        let path = cache.path(b"(component)");
        assert!(cache.read(&path).is_none());
        cache.load_or_compile(b"(component)").unwrap();
        assert!(cache.read(&path).is_some());
        assert_eq!(fs::metadata(&cache.folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_torn_or_damaged_artefact_is_compiled_again_and_never_loaded() {
        let (_dir, cache) = cache();
        let path = cache.path(b"(component)");
        cache.load_or_compile(b"(component)").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - TRAILER_BYTES, whole.len() - MAGIC.len(), whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            for bytes in [&damaged[..], &whole[..at]] {
                fs::write(&path, bytes).unwrap();
                assert!(cache.read(&path).is_none(), "byte {at}");
            }
        }
        cache.load_or_compile(b"(component)").unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), whole.len());
        assert!(cache.read(&path).is_some());
    }

    #[test]
    fn a_file_unused_for_a_month_is_removed() {
        let (_dir, cache) = cache();
        cache.load_or_compile(b"(component)").unwrap();
        let path = cache.path(b"(component)");
        File::open(&path).unwrap().set_modified(SystemTime::now() - UNUSED_MAX - Duration::from_secs(60)).unwrap();
        fs::write(cache.folder.join("other"), "stays").unwrap();
        let cache = Cache::open(cache.folder.clone(), cache.engine).unwrap();
        assert!(!path.exists());
        assert!(cache.folder.join("other").exists());
    }
}
