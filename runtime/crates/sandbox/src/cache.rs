//! Cache of compiled components, so that a restart does not compile them again.
//!
//! A file is named `<SHA-256 of the component>-<hash of the engine's settings>.compiled`. The file contains the output
//! of the compiler process (`compile/output.rs`), an authentication code (32 bytes), and the 8 bytes `EVOKEAO2`. The
//! cache writes the file under a temporary name and then renames it, in a folder that only this user can enter. The
//! authentication code is computed with the folder's secret key (`cache/key.rs`) over the output and the file's name. A
//! component whose file has no valid authentication code is compiled again. A file with the ending `.refused` records
//! that a component exceeds a limit (`cache/refused.rs`).
//!
//! The output comes first in the file, because the file is not read, but mapped into memory from its start. So only the
//! pages of a function that were used are in memory, and the operating system can drop them while the function is idle.
//! Because the file is mapped, the cache never modifies it after the rename. The file is verified and mapped through
//! the same descriptor, so no other file can take its place in between.
//!
//! Without a folder, compiled components are in files without a name (`memory_file`), and the cache ends with the
//! process.

mod key;
mod refused;

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt, FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hmac::Mac as _;
use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

use self::key::{Key, MAC_BYTES};
use self::refused::Record;
use super::compile::{
    Cancelled, CompileError, Compiler, Facts, Input, Output, Refusal, memory_file, open_cached, output_bytes_max,
};
use evoke_model::hex;
use evoke_telemetry::Counter;

const MAGIC: &[u8; 8] = b"EVOKEAO2";
/// Length of the seal that ends each file: the authentication code and the magic bytes.
const SEAL_BYTES: usize = MAC_BYTES + MAGIC.len();
/// Files that were not used for this long are removed when the cache is opened, because every rebuild of a function
/// leaves the file of the previous build behind.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Number of compiled components that stay in the cache although no active function uses them, so that going back to a
/// previous build needs no compilation.
const OUTDATED_MAX: usize = 8;
const TEMPORARY: &str = ".tmp";
/// The version of the changes that the compiler process makes to a component before wasmtime compiles it
/// (`compile/go_memory.rs`, `compile/snapshot.rs`, `compile/bulk.rs`, `compile/link.rs`), and of the facts in its
/// output. The names of components in the cache depend on this version, so compiled components of another version are
/// not used.
const TRANSLATION: u32 = 6;

pub(super) struct Cache {
    /// `None` keeps everything in memory.
    folder: Option<PathBuf>,
    key: Key,
    engine: Engine,
    /// A second engine (of the warm pool, `warm_pool.rs`), and the function that selects the components that are also
    /// loaded for this engine.
    warm: Option<(Engine, IsFor)>,
    engine_hash: u64,
    compiler: Compiler,
    /// One lock for each component that is being loaded, by its name in the cache, so that several functions with the
    /// same component compile it once.
    loading: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// The components of a cache without a folder, by name.
    in_memory: Mutex<HashMap<String, InMemory>>,
    /// The names of the components that were loaded since the last call of [`Cache::remove_outdated`].
    loaded: Mutex<HashSet<String>>,
    hits: Counter,
    misses: Counter,
}

/// A component that is ready to be linked.
#[derive(Clone)]
pub(super) struct Compiled {
    pub(super) component: Component,
    /// The same component, loaded for the second engine; `None` if it is not loaded for that engine.
    pub(super) warm: Option<Component>,
    pub(super) facts: Facts,
    /// Size of the compiled component, in bytes.
    pub(super) bytes: u64,
}

type IsFor = fn(&Facts, &Component) -> bool;

enum InMemory {
    Compiled(Compiled),
    Refused(Record),
}

/// Why a component is not loaded.
#[derive(Debug)]
pub(super) enum CacheError {
    /// Compiling it failed.
    Compile(CompileError),
    /// An earlier compilation exceeded a limit or made the compiler crash, so the component was not compiled again.
    RefusedBefore {
        refusal: Refusal,
        /// The file that records the earlier compilation; `None` if the record is in memory.
        record: Option<PathBuf>,
    },
}

impl Cache {
    /// Opens the folder, creates it if it is missing, and removes unused files.
    pub(super) fn open(folder: PathBuf, engine: Engine, compiler: Compiler) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // The files here are run as machine code, so no other user may write to the folder. This call fails if another
        // user owns the folder.
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        remove_unused(&folder);
        let key = Key::of_folder(&folder)?;
        Ok(Self::new(Some(folder), key, engine, compiler))
    }

    /// Creates a cache that ends with the process.
    pub(super) fn in_memory(engine: Engine, compiler: Compiler) -> io::Result<Self> {
        Ok(Self::new(None, Key::random()?, engine, compiler))
    }

    fn new(folder: Option<PathBuf>, key: Key, engine: Engine, compiler: Compiler) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        TRANSLATION.hash(&mut hasher);
        let engine_hash = hasher.finish();
        Self {
            folder,
            key,
            engine,
            warm: None,
            engine_hash,
            compiler,
            loading: Mutex::default(),
            in_memory: Mutex::default(),
            loaded: Mutex::default(),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }

    /// Sets a second engine, whose settings for compiled code must equal those of the first one. The components that
    /// `is_for` selects are also loaded for this engine.
    pub(super) fn with_second_engine(mut self, engine: Engine, is_for: IsFor) -> Self {
        self.warm = Some((engine, is_for));
        self
    }

    /// Returns the compiled component of a file, from the cache if it is there. Otherwise compiles it. The file
    /// contains a component in binary or text form, or a core module that can be converted to one.
    ///
    /// Blocks until the component is compiled, the compiler's time limit is reached, or `cancelled` ends the
    /// compilation.
    pub(super) fn load_or_compile(&self, input: &Input, cancelled: Option<&Cancelled>) -> Result<Compiled, CacheError> {
        let name = self.name(input);
        lock(&self.loaded).insert(name.clone());
        let own_lock = lock(&self.loading).entry(name.clone()).or_default().clone();
        let result = {
            let _one_at_a_time = lock(&own_lock);
            self.load_locked(&name, input, cancelled)
        };
        let mut loading = lock(&self.loading);
        // If there are only two references, one here and one in the map, no task waits for the lock.
        if Arc::strong_count(&own_lock) <= 2 {
            loading.remove(&name);
        }
        result
    }

    /// Returns the component of a file if it is in the cache. Otherwise returns `None`, or an error if an earlier
    /// compilation was refused and another one would be refused again.
    pub(super) fn load_cached(&self, input: &Input) -> Result<Option<Compiled>, CacheError> {
        let name = self.name(input);
        lock(&self.loaded).insert(name.clone());
        self.find(&name, input)
    }

    fn find(&self, name: &str, input: &Input) -> Result<Option<Compiled>, CacheError> {
        if let Some(compiled) = self.cached(name, input)? {
            self.hits.increment();
            return Ok(Some(compiled));
        }
        match self.refused_before(name) {
            Some((refusal, record)) => Err(CacheError::RefusedBefore { refusal, record }),
            None => Ok(None),
        }
    }

    fn load_locked(&self, name: &str, input: &Input, cancelled: Option<&Cancelled>) -> Result<Compiled, CacheError> {
        if let Some(compiled) = self.find(name, input)? {
            return Ok(compiled);
        }
        self.misses.increment();
        let (file, temporary) =
            self.new_file().map_err(|error| machine("the file for the compiled function cannot be created", &error))?;
        let output = self.compiler.compile(input, &file, cancelled).inspect_err(|error| {
            if let CompileError::Refused(refusal) = error {
                self.remember(name, Record::new(refusal.clone(), self.compiler.limits));
            }
        })?;
        let sealed = self.seal(&file, name);
        sealed.map_err(|error| machine("the file of the compiled function cannot be written", &error))?;
        let compiled = self.load(&file, &output)?;
        match (temporary, self.path(name, "compiled")) {
            (Some(temporary), Some(path)) => {
                if let Err(error) = temporary.persist(&path) {
                    let error = error.error;
                    tracing::warn!(%error, path = %path.display(), "cannot store a compiled function in the cache; the next start compiles it again");
                }
            }
            _ => {
                lock(&self.in_memory).insert(name.to_owned(), InMemory::Compiled(compiled.clone()));
            }
        }
        Ok(compiled)
    }

    /// Removes the compiled components that were not loaded since the last call, except for the [`OUTDATED_MAX`] that
    /// were used last. Without this, each rebuild of a function would leave a file behind. Must be called after all
    /// active functions were loaded, because functions that were not loaded count as outdated.
    pub(super) fn remove_outdated(&self) {
        let active = std::mem::take(&mut *lock(&self.loaded));
        let Some(entries) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else { return };
        let is_outdated = |path: &PathBuf| {
            let is_compiled = path.extension().is_some_and(|extension| extension == "compiled");
            is_compiled && path.file_stem().is_some_and(|name| name.to_str().is_some_and(|name| !active.contains(name)))
        };
        let outdated = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_outdated);
        let mut outdated: Vec<(SystemTime, PathBuf)> =
            outdated.filter_map(|path| Some((path.symlink_metadata().ok()?.modified().ok()?, path))).collect();
        outdated.sort_by(|a, b| b.cmp(a));
        for (_, path) in outdated.into_iter().skip(OUTDATED_MAX) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove an outdated file from the cache of compiled functions");
            }
        }
    }

    /// Returns the number of cache hits and of compilations.
    pub(super) fn load_counts(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    fn name(&self, input: &Input) -> String {
        format!("{}-{:016x}", hex(&input.sha256), self.engine_hash)
    }

    fn path(&self, name: &str, extension: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{name}.{extension}")))
    }

    /// Returns the component if it is in the cache. Removes its file if the file has no valid seal.
    fn cached(&self, name: &str, input: &Input) -> Result<Option<Compiled>, CacheError> {
        let Some(path) = self.path(name, "compiled") else {
            return Ok(match lock(&self.in_memory).get(name) {
                Some(InMemory::Compiled(compiled)) => Some(compiled.clone()),
                _ => None,
            });
        };
        let Ok(file) = open_cached(&path) else { return Ok(None) };
        let Some(output) = self.verify(&file, name, input) else {
            tracing::warn!(
                path = %path.display(),
                "the file of a compiled function has no valid authentication code: it was damaged on disk, or another \
                 program wrote it; compiling the function again"
            );
            // If this fails, the file is replaced after the compilation.
            let _ = fs::remove_file(&path);
            return Ok(None);
        };
        let compiled = self.load(&file, &output)?;
        // Marks the file as used. If this always fails, the file is removed after a month and the component is compiled
        // again.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(compiled))
    }

    /// Returns the output in a file if its seal (the authentication code and the magic bytes) is valid and the output
    /// contains a compiled component.
    fn verify(&self, file: &File, name: &str, input: &Input) -> Option<Output> {
        let length = file.metadata().ok()?.len();
        let end = length.checked_sub(SEAL_BYTES as u64).filter(|end| *end <= output_bytes_max(input.bytes))?;
        let mut seal = [0; SEAL_BYTES];
        file.read_exact_at(&mut seal, end).ok()?;
        let (code, magic) = seal.split_at_checked(MAC_BYTES)?;
        if magic != MAGIC || self.mac(file, name, end).ok()?.verify_slice(code).is_err() {
            return None;
        }
        Output::read(file, end).filter(|output| output.facts().is_some())
    }

    /// Appends the authentication code and the magic bytes to the output in a file.
    fn seal(&self, file: &File, name: &str) -> io::Result<()> {
        let end = file.metadata()?.len();
        let code = self.mac(file, name, end)?.finalize().into_bytes();
        let seal: Vec<u8> = code.iter().chain(MAGIC).copied().collect();
        file.write_all_at(&seal, end)
    }

    /// Computes the authentication code of the first `end` bytes of a file, without holding them in memory.
    fn mac(&self, file: &File, name: &str, end: u64) -> io::Result<key::Mac> {
        let mut mac = self.key.mac("compiled")?;
        mac.update(name.as_bytes());
        mac.update(&[0]);
        let (mut at, mut buffer) = (0, vec![0; 64 * 1024]);
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..length).unwrap_or_default();
            file.read_exact_at(part, at)?;
            mac.update(part);
            at += length as u64;
        }
        Ok(mac)
    }

    /// Loads the compiled component in a file with a valid seal.
    fn load(&self, file: &File, output: &Output) -> Result<Compiled, CompileError> {
        let facts = output.facts().cloned().unwrap_or_default();
        let load = |engine: &Engine| {
            load_own_artefact(engine, Artefact::File(file)).or_else(|error| {
                // If the file system is mounted without execute permission, the file cannot be mapped as code. Then the
                // component is loaded from a copy in memory.
                match error.chain().any(|cause| cause.is::<rustix::io::Errno>() || cause.is::<io::Error>()) {
                    true => load_own_artefact(engine, Artefact::Bytes(&read_start(file, output.artefact_bytes)?)),
                    false => Err(error),
                }
            })
        };
        let component = load(&self.engine)
            .map_err(|error| CompileError::Invalid(format!("is not a valid component: {error:#}")))?;
        // If loading for the second engine fails, the component still works, but is slower.
        let warm = self.warm.as_ref().filter(|(_, is_for)| is_for(&facts, &component));
        let warm = warm.and_then(|(engine, _)| load(engine).ok());
        Ok(Compiled { component, warm, facts, bytes: output.artefact_bytes })
    }

    /// Creates an empty file for the compiler's output, under a temporary name if the cache has a folder.
    fn new_file(&self) -> io::Result<(File, Option<NamedTempFile>)> {
        match &self.folder {
            Some(folder) => {
                let temporary = tempfile::Builder::new().suffix(TEMPORARY).tempfile_in(folder)?;
                Ok((temporary.as_file().try_clone()?, Some(temporary)))
            }
            None => Ok((memory_file("evoke-compiled")?, None)),
        }
    }

    /// Returns the refusal of an earlier compilation, and the file that records it, if another compilation would be
    /// refused again.
    fn refused_before(&self, name: &str) -> Option<(Refusal, Option<PathBuf>)> {
        let path = self.path(name, "refused");
        let record = match &path {
            Some(path) => Record::read(path, &self.key, name)?,
            None => match lock(&self.in_memory).get(name)? {
                InMemory::Refused(record) => record.clone(),
                InMemory::Compiled(_) => return None,
            },
        };
        Some((record.refusal(self.compiler.limits)?.clone(), path))
    }

    /// Records that a component was refused, so that it is not compiled again.
    fn remember(&self, name: &str, record: Record) {
        let (Some(path), Some(folder)) = (self.path(name, "refused"), &self.folder) else {
            lock(&self.in_memory).insert(name.to_owned(), InMemory::Refused(record));
            return;
        };
        let written = record.to_text(&self.key, name).and_then(|text| {
            let mut file = tempfile::Builder::new().suffix(TEMPORARY).tempfile_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)
        });
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "cannot record that the compiler refused a component; the next load compiles the component again");
        }
    }
}

impl From<CompileError> for CacheError {
    fn from(error: CompileError) -> Self {
        Self::Compile(error)
    }
}

fn machine(what: &str, error: &io::Error) -> CompileError {
    CompileError::Machine(format!("{what}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the files that were not used for [`UNUSED_MAX`]. If a file cannot be removed, logs a warning and continues.
fn remove_unused(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_ours = path.extension().is_some_and(|e| ["compiled", "refused", "tmp"].iter().any(|ours| e == *ours));
        let age = path.symlink_metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if is_ours
            && age.is_some_and(|age| age > UNUSED_MAX)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove an unused file from the cache of compiled functions");
        }
    }
}

fn read_start(file: &File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut start = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut start, 0)?;
    Ok(start)
}

/// A compiled component, in memory or in a file.
#[derive(Clone, Copy)]
enum Artefact<'a> {
    Bytes(&'a [u8]),
    /// An open file that starts with the artefact. The file was just sealed or verified.
    File(&'a File),
}

/// Loads an artefact that the compiler process made for the same engine configuration.
#[allow(unsafe_code)]
fn load_own_artefact(engine: &Engine, artefact: Artefact<'_>) -> wasmtime::Result<Component> {
    // SAFETY: both functions require that the bytes come from wasmtime; the second also requires that the file does not
    // change while it is mapped. The bytes come from the compiler process, which has ended, or from a file whose
    // authentication code was just verified. Only this program can make such an authentication code. The path
    // `/dev/fd/N` names the open file itself, even if another file has its name now. The file is in memory without a
    // name, or in a folder that only its user can enter. Later the file is only replaced or removed, which does not
    // affect an existing mapping. wasmtime itself rejects artefacts of another version or configuration.
    unsafe {
        match artefact {
            Artefact::Bytes(bytes) => Component::deserialize(engine, bytes),
            Artefact::File(file) => Component::deserialize_file(engine, format!("/dev/fd/{}", file.as_raw_fd())),
        }
    }
}

#[cfg(test)]
mod tests;
