//! The data folder. A file survives a power cut only if its folder was synced, and a folder only if its parent was.

use std::fs::File;
use std::io;
use std::path::Path;

/// Creates a folder if it does not exist, and syncs the parents of it and of each folder that it created.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
    std::fs::create_dir_all(folder)?;
    // Also sync for an existing folder: the process that created it may have crashed before its sync.
    let mut created = vec![folder.canonicalize()?];
    for at in missing {
        created.push(at.canonicalize()?);
    }
    created.iter().filter_map(|at| at.parent()).try_for_each(sync_folder)
}

/// Syncs a folder, so that the names in it survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder without read permission cannot be opened, and some file systems do not support syncing folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}
