//! The folder that the store is in. A file is there after a power cut only when its folder was synced, and the folder
//! itself only when the one around it was.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes a folder when it is not there, and sees to it that it stays.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
    std::fs::create_dir_all(folder)?;
    // Also of a folder that was there before: who made it may have gone down right then.
    let mut made = vec![folder.canonicalize()?];
    for at in missing {
        made.push(at.canonicalize()?);
    }
    made.iter().filter_map(|at| at.parent()).try_for_each(sync_folder)
}

/// Sees to it that the names in a folder stay.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder that cannot be read cannot be synced, and some file systems have no sync for folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}
