//! Looking at what is there: which files count, everything in a folder, and one file's content.

use std::io::{self, Read};
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{AtFlags, Dir, statat};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::beneath::{Found, Root, found, is_absence};
use super::name;
use super::version::{Stamp, Version};
use crate::manifest::FilesSource;

/// Which files count.
pub(super) struct Filter {
    include: GlobSet,
    exclude: GlobSet,
}

impl Filter {
    /// The globs of `config`; an error says which is none. A checked manifest has no such.
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

    /// Whether a file counts. A folder that is excluded excludes all that is in it.
    pub(super) fn counts(&self, relative: &Path) -> bool {
        self.include.is_match(relative)
            && !relative.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| self.exclude.is_match(part))
    }

    fn skips_folder(&self, relative: &Path) -> bool {
        !relative.as_os_str().is_empty() && self.exclude.is_match(relative)
    }
}

/// What was found in a folder and all folders below it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The files that count.
    pub(super) files: Vec<(String, Stamp)>,
    /// Folders that could not be looked into.
    pub(super) unread: Vec<String>,
    /// Why the first of them could not.
    pub(super) problem: Option<String>,
}

/// Looks at everything in the folder called `folder`, which `watch` is told of before it is listed. Fails when it is
/// stopped.
pub(super) fn scan(
    root: &Root,
    folder: &str,
    filter: &Filter,
    watch: &mut dyn FnMut(&Path),
    stop: &CancellationToken,
) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let relative = name::path(&folder);
        if filter.skips_folder(&relative) {
            continue;
        }
        watch(&relative);
        if let Err(error) = list(root, &folder, &relative, filter, &mut seen.files, &mut folders)
            && !is_absence(&error)
        {
            seen.problem.get_or_insert_with(|| format!("cannot look into `{}`: {error}", relative.display()));
            seen.unread.push(folder);
        }
    }
    Ok(seen)
}

/// Lists one folder: files that count to `files`, folders to `folders`.
fn list(
    root: &Root,
    folder: &str,
    relative: &Path,
    filter: &Filter,
    files: &mut Vec<(String, Stamp)>,
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
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(error),
        };
        let name = name::join(folder, raw.to_bytes());
        match found(&stat) {
            Found::File(stamp) if filter.counts(&name::path(&name)) => files.push((name, stamp)),
            Found::Folder => folders.push(name),
            Found::File(_) | Found::Nothing => {}
        }
    }
    Ok(())
}

/// What reading a file gave.
#[derive(Debug)]
pub(super) enum Reading {
    /// It is this version, as a whole; with its content when that was asked for and is small enough.
    Whole(Version, Option<Vec<u8>>),
    /// It is not there.
    Gone,
    /// It changed meanwhile, and looks like this now.
    Changed(Stamp),
    /// It could not be read.
    Failed(io::Error),
}

/// Reads a file that was last seen as `expected`; keeps its content when it has at most `keep_max` bytes.
pub(super) fn read(
    root: &Root,
    name: &str,
    expected: Option<Stamp>,
    keep_max: Option<u64>,
    stop: &CancellationToken,
) -> Reading {
    let relative = name::path(name);
    let (expected, before) = match (expected, root.look(&relative)) {
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
        Err(error) if is_absence(&error) => Reading::Gone,
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
    // One byte more than expected is enough to know that it grew.
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
    // The same file, and still under its name: else it was replaced while it was read.
    match (found(&rustix::fs::fstat(&file)?), root.look(relative)?) {
        (Found::File(opened), Found::File(now)) if opened == expected && now == expected => {
            Ok(Reading::Whole(Version { stamp: expected, sha256: hex(&hasher.finalize()) }, kept))
        }
        (_, Found::File(now)) => Ok(Reading::Changed(now)),
        _ => Ok(Reading::Gone),
    }
}

/// Bytes in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
