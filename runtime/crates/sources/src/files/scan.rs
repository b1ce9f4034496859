//! Scans folders and reads files: the filter, the listing of a folder tree, and the content of one file.

use std::io::{self, Read};
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{AtFlags, Dir, statat};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::config::FilesSource;
use super::confined::{Found, Root, found, is_missing, is_store};
use super::name;
use super::version::{Stamp, Version};
use evoke_model::hex;

/// The include and exclude globs of a source.
pub(super) struct Filter {
    include: GlobSet,
    exclude: GlobSet,
}

impl Filter {
    /// Compiles the globs of `config`. The error names the invalid glob; a checked manifest causes none.
    pub(super) fn new(config: &FilesSource) -> Result<Self, globset::Error> {
        let set = |globs: &[String]| {
            let mut set = GlobSetBuilder::new();
            for glob in globs {
                set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
            }
            set.build()
        };
        Ok(Self { include: set(&config.include)?, exclude: set(&config.exclude)? })
    }

    /// Whether a file is included. An excluded folder excludes everything in it.
    pub(super) fn includes(&self, relative: &Path) -> bool {
        self.include.is_match(relative)
            && !relative.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| self.exclude.is_match(part))
    }

    /// Whether files at or below a path can be included, as far as `exclude` is concerned.
    pub(super) fn includes_below(&self, relative: &Path) -> bool {
        let below = relative.join("evoke.db");
        !below.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| self.exclude.is_match(part))
    }

    fn excludes_folder(&self, relative: &Path) -> bool {
        !relative.as_os_str().is_empty() && self.exclude.is_match(relative)
    }
}

/// The result of scanning a folder and all folders below it.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    /// The included files, with their metadata.
    pub(super) files: Vec<(String, Stamp)>,
    /// Folders that could not be read.
    pub(super) unread: Vec<String>,
    /// Why the first of these could not be read.
    pub(super) problem: Option<String>,
    /// The folder and the files of the store, which were left out.
    pub(super) of_store: Vec<String>,
}

/// Scans `folder` and all folders below. Calls `watch` with each folder before the folder is listed. Fails when the
/// source is stopped.
pub(super) fn scan(
    root: &Root,
    folder: &str,
    filter: &Filter,
    watch: &mut dyn FnMut(&Path),
    stop: &CancellationToken,
) -> io::Result<ScanResult> {
    let mut scanned = ScanResult::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let relative = name::path(&folder);
        if filter.excludes_folder(&relative) {
            continue;
        }
        watch(&relative);
        if let Err(error) = list(root, &folder, &relative, filter, &mut scanned, &mut folders)
            && !is_missing(&error)
        {
            scanned.problem.get_or_insert_with(|| format!("cannot read the folder `{}`: {error}", relative.display()));
            scanned.unread.push(folder);
        }
    }
    Ok(scanned)
}

/// Lists one folder: adds its files to `scanned` and its folders to `folders`.
fn list(
    root: &Root,
    folder: &str,
    relative: &Path,
    filter: &Filter,
    scanned: &mut ScanResult,
    folders: &mut Vec<String>,
) -> io::Result<()> {
    let handle = root.folder(relative)?;
    for entry in Dir::read_from(&handle)? {
        let entry = entry?;
        let raw = entry.file_name();
        if raw.to_bytes() == b"." || raw.to_bytes() == b".." {
            continue;
        }
        let stat = match statat(&handle, raw, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from) {
            Ok(stat) => stat,
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(error),
        };
        let name = name::join(folder, raw.to_bytes());
        match found(&stat) {
            Found::File(stamp) if filter.includes(&name::path(&name)) => scanned.files.push((name, stamp)),
            Found::Folder => folders.push(name),
            Found::Nothing if is_store(&stat) => scanned.of_store.push(name),
            Found::File(_) | Found::Nothing => {}
        }
    }
    Ok(())
}

/// The result of reading a file.
#[derive(Debug)]
pub(super) enum Reading {
    /// The file was read as a whole and has this version; with the content when it was requested and small enough.
    Whole(Version, Option<Vec<u8>>),
    /// The file does not exist.
    Gone,
    /// The file changed while it was read, and has this metadata now.
    Changed(Stamp),
    /// Reading failed.
    Failed(io::Error),
}

/// Reads a file whose last known metadata is `expected`. Keeps the content when it has at most `keep_max` bytes.
pub(super) fn read(
    root: &Root,
    name: &str,
    expected: Option<Stamp>,
    keep_max: Option<u64>,
    stop: &CancellationToken,
) -> Reading {
    let relative = name::path(name);
    let (expected, before) = match (expected, root.stat(&relative)) {
        (_, Ok(Found::Folder | Found::Nothing)) => return Reading::Gone,
        (_, Err(error)) => return Reading::Failed(error),
        (Some(expected), Ok(Found::File(before))) => (expected, before),
        (None, Ok(Found::File(before))) => return Reading::Changed(before),
    };
    if before != expected {
        return Reading::Changed(before);
    }
    match read_whole(root, &relative, expected, keep_max, stop) {
        Ok(reading) => reading,
        Err(error) if is_missing(&error) => Reading::Gone,
        Err(error) => Reading::Failed(error),
    }
}

fn read_whole(
    root: &Root,
    relative: &Path,
    expected: Stamp,
    keep_max: Option<u64>,
    stop: &CancellationToken,
) -> io::Result<Reading> {
    let mut file = root.file(relative)?;
    let mut kept = keep_max.filter(|max| expected.size <= *max).map(|_| Vec::new());
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    // One byte more than expected is enough to detect growth.
    let mut rest = (&mut file).take(expected.size.saturating_add(1));
    loop {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = buffer.get(..count).unwrap_or_default();
        hasher.update(piece);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(piece);
        }
    }
    // The open file must be unchanged and still have its name: otherwise it was replaced while it was read.
    match (found(&rustix::fs::fstat(&file)?), root.stat(relative)?) {
        (Found::File(opened), Found::File(now)) if opened == expected && now == expected => {
            Ok(Reading::Whole(Version { stamp: expected, sha256: hex(&hasher.finalize()) }, kept))
        }
        (_, Found::File(now)) => Ok(Reading::Changed(now)),
        _ => Ok(Reading::Gone),
    }
}
