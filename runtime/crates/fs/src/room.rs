//! Checks whether more data can be written to a folder or a file.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Size of the test write in bytes. The size is larger than the space that can be left on a disk, or within a quota,
/// after a write of one page has failed. A smaller test write could succeed although the disk is full.
const TRIAL: usize = 64 * 1024;

/// Returns false if the disk is full, or if the quota of the user, the group or the project is used up. Tests this by
/// writing a file without a name. Returns true if this write fails for another reason.
///
/// Used by callers whose library (such as SQLite) reports a full disk only as a failed write, without the error number.
#[must_use]
pub fn has_room(folder: &Path) -> bool {
    let without_name = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    let write = |file: &mut File| file.write_all(&[0; TRIAL]);
    let written = match File::options().write(true).mode(0o600).custom_flags(without_name).open(folder) {
        // Some file systems, such as network file systems, do not support files without a name.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::IsADirectory) => {
            let named = folder.join(format!(".room.{}", std::process::id()));
            let written = File::create_new(&named).and_then(|mut file| write(&mut file));
            let _ = std::fs::remove_file(named);
            written
        }
        opened => opened.and_then(|mut file| write(&mut file)),
    };
    !written.is_err_and(|error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// Returns true if a file can grow by less than 64 KiB until it reaches the process's limit for file sizes
/// (`ulimit -f`). The process must ignore the signal SIGXFSZ, otherwise a write beyond the limit ends the process.
#[must_use]
pub fn is_at_size_limit(file: &Path) -> bool {
    let limit = getrlimit(Resource::Fsize).current;
    let length = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    limit.is_some_and(|limit| length.saturating_add(TRIAL as u64) > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_space_has_room_and_the_trial_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(has_room(folder.path()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // An error for another reason does not count as a full disk.
        assert!(has_room(&folder.path().join("absent")));
    }
}
