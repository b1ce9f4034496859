//! Whether a folder takes more data.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// In bytes. More than a file system or a quota leaves over after a write of one page has failed.
const TRIAL: usize = 64 * 1024;

/// Returns false if the disk is full, or if the quota of the user, the group or the project is used up. Writes a file
/// without a name to find out, and returns true if the file cannot be written for another reason.
///
/// For programs whose library reports such an error as a failed write, without its error number.
#[must_use]
pub fn has_room(folder: &Path) -> bool {
    let mode = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    let file = OpenOptions::new().write(true).mode(0o600).custom_flags(mode).open(folder);
    let written = file.and_then(|mut file| file.write_all(&[0; TRIAL]));
    !written.is_err_and(|error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_space_has_room_and_the_trial_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(has_room(folder.path()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Another error is not a full disk.
        assert!(has_room(&folder.path().join("absent")));
    }
}
