//! The filter of a source, and the scan of a folder tree for files that the filter includes.

use std::io;
use std::path::Path;

use globset::GlobSet;
use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::access::Access;
use super::config::FilesSource;
use super::confined::{Found, Root, found, is_missing, is_store};
use super::globs::{self, set};
use super::name;
use super::version::Stamp;

/// The longest path relative to the folder, in bytes. Linux does not accept a longer path in one call: its `PATH_MAX`
/// of 4096 includes the zero byte at the end.
const PATH_BYTES_MAX: usize = 4095;
/// Maximum number of subfolders in the path of a file. Each access to the file opens all these folders one after the
/// other.
const DEPTH_MAX: usize = 128;
/// Maximum number of unreadable entries of one folder. With more, the folder counts as unreadable as a whole, so that
/// the list of problems stays short.
const UNREAD_ENTRIES_MAX: usize = 1_000;
/// The number of entries after which a scan checks whether the source was stopped.
const STOP_CHECK_ENTRIES: usize = 1_024;

/// The include and exclude globs of a source.
pub(super) struct Filter {
    include: GlobSet,
    /// Globs for the folders that can contain an included file.
    include_folders: GlobSet,
    exclude: GlobSet,
}

impl Filter {
    /// Compiles the globs of `config`. The error names an invalid glob; a checked manifest has no invalid globs.
    pub(super) fn new(config: &FilesSource) -> Result<Self, globset::Error> {
        let folders: Vec<String> = config.include.iter().flat_map(|glob| folders_of(glob)).collect();
        Ok(Self { include: set(&config.include)?, include_folders: set(&folders)?, exclude: set(&config.exclude)? })
    }

    /// Returns true if a file is included. An excluded folder excludes everything in it.
    pub(super) fn includes(&self, relative: &Path) -> bool {
        self.include.is_match(relative) && !self.excludes(relative)
    }

    /// Returns false if `exclude` excludes the files of Evoke's store, such as `evoke.db`, in the folder `relative`.
    pub(super) fn includes_below(&self, relative: &Path) -> bool {
        !self.excludes(&relative.join("evoke.db"))
    }

    /// Returns true if a folder can contain included files.
    pub(super) fn enters(&self, relative: &Path) -> bool {
        relative.as_os_str().is_empty() || (self.include_folders.is_match(relative) && !self.excludes(relative))
    }

    fn excludes(&self, relative: &Path) -> bool {
        globs::excludes(&self.exclude, relative)
    }
}

/// Returns globs for all folders that can contain, at any depth, a file that `glob` matches.
fn folders_of(glob: &str) -> Vec<String> {
    // A glob with these characters cannot be split at each `/`, because a `/` can be inside braces or brackets or after
    // a backslash. Match all folders.
    if glob.contains(['{', '[', '\\']) {
        return vec!["**".to_owned()];
    }
    let mut folders = Vec::new();
    for (index, _) in glob.match_indices('/') {
        let folder = glob.get(..index).unwrap_or_default();
        if folder.split('/').any(|part| part.contains("**")) {
            break;
        }
        folders.push(folder.to_owned());
    }
    if let Some((before, _)) = glob.split_once("**") {
        let start = before.rfind('/').map_or("", |slash| before.get(..=slash).unwrap_or_default());
        folders.push(format!("{start}**"));
    }
    folders
}

/// Returns a reason if a path is too long or too deep to be read; otherwise `None`.
pub(super) fn refusal(relative: &Path) -> Option<String> {
    if relative.as_os_str().len() > PATH_BYTES_MAX {
        return Some(format!("its path is longer than {PATH_BYTES_MAX} bytes"));
    }
    (relative.components().count() > DEPTH_MAX + 1).then(|| format!("it is nested in more than {DEPTH_MAX} folders"))
}

/// The result of scanning a folder and all folders below it.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    /// The included files, with their metadata.
    pub(super) files: Vec<(String, Stamp)>,
    /// The files and folders that could not be read, with the reasons. These files and folders may or may not exist.
    pub(super) unread: Vec<(String, String)>,
    /// Why a folder that was scanned cannot be watched for changes.
    pub(super) unwatched: Option<String>,
    /// The folder and the files of Evoke's store that were found and left out.
    pub(super) of_store: Vec<String>,
}

/// Scans `folder` and all folders below it. Calls `watch` with each folder before the folder is listed, so that no
/// change is missed in between. Does not access entries that the filter does not include. Returns an error if the top
/// folder itself cannot be listed, or if the source is stopped.
pub(super) fn scan(
    root: &Root,
    folder: &str,
    filter: &Filter,
    watch: &mut dyn FnMut(&Path) -> Result<(), String>,
    access: &Access,
) -> io::Result<ScanResult> {
    let mut scanned = ScanResult::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let relative = name::path(&folder);
        if !filter.enters(&relative) {
            continue;
        }
        let watched = access.enter(&folder).map(|()| watch(&relative));
        let listed = watched.and_then(|watched| {
            list(root, &folder, &relative, filter, &mut scanned, &mut folders, access)?;
            Ok(watched)
        });
        match listed {
            Ok(watched) => scanned.unwatched = scanned.unwatched.or_else(|| watched.err()),
            Err(error) if access.stop.is_cancelled() || folder.is_empty() => return Err(error),
            Err(error) if is_missing(&error) => {}
            Err(error) => scanned.unread.push((folder, error.to_string())),
        }
    }
    Ok(scanned)
}

/// Lists one folder: adds its files to `scanned` and its subfolders to `folders`.
fn list(
    root: &Root,
    folder: &str,
    relative: &Path,
    filter: &Filter,
    scanned: &mut ScanResult,
    folders: &mut Vec<String>,
    access: &Access,
) -> io::Result<()> {
    let unread_before = scanned.unread.len();
    let handle = root.folder(relative)?;
    for (count, entry) in Dir::read_from(&handle)?.enumerate() {
        if count % STOP_CHECK_ENTRIES == 0 && access.stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let entry = entry?;
        let raw = entry.file_name();
        if raw.to_bytes() == b"." || raw.to_bytes() == b".." {
            continue;
        }
        let name = name::join(folder, raw.to_bytes());
        let relative = name::path(&name);
        let kind = entry.file_type();
        let is_file = matches!(kind, FileType::RegularFile | FileType::Unknown) && filter.includes(&relative);
        let is_folder = matches!(kind, FileType::Directory | FileType::Unknown) && filter.enters(&relative);
        if !is_file && !is_folder {
            continue;
        }
        if let Some(reason) = refusal(&relative) {
            scanned.unread.push((name, reason));
        } else {
            let stat = access.enter(&name).and_then(|()| Ok(statat(&handle, raw, AtFlags::SYMLINK_NOFOLLOW)?));
            match stat {
                Ok(stat) if is_store(&stat) => scanned.of_store.push(name),
                Ok(stat) => match found(&stat) {
                    Found::File(info) if is_file => scanned.files.push((name, info.stamp)),
                    Found::Folder if is_folder => folders.push(name),
                    Found::File(_) | Found::Folder | Found::Nothing => {}
                },
                Err(error) if is_missing(&error) => {}
                Err(error) => scanned.unread.push((name, error.to_string())),
            }
        }
        if scanned.unread.len() - unread_before > UNREAD_ENTRIES_MAX {
            scanned.unread.truncate(unread_before);
            return Err(io::Error::other(format!("more than {UNREAD_ENTRIES_MAX} of its entries cannot be read")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
