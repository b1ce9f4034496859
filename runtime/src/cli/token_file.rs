//! Files with a token: `--token-file` names one, and `token create --out` makes one.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Once;

use super::Failure;
use super::text::{colour, escape, print_error};

/// Maximum size of a file with a token, in bytes. A token has about 50 bytes.
const BYTES_MAX: u64 = 4 * 1024;
/// The permission bits that let the group and all other users read a file.
const READ_BY_OTHERS: u32 = 0o044;

/// Reads a file with a token. The file may be a pipe, such as `<(pass show evoke)` of a shell.
///
/// A file that other users can read gives a warning and no error, because container tools mount secrets with the
/// permissions 0444. The warning is printed once, because a long `emit` reads the file at each new connection.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    static WARNED: Once = Once::new();
    let at = path.display();
    let failed = |error: io::Error| Failure::Failed(format!("cannot read {at}: {error}"));
    let file = File::open(path).map_err(failed)?;
    if let Some(warning) = file.metadata().ok().and_then(|found| exposed(path, &found)) {
        let style = colour("warn");
        WARNED.call_once(|| print_error(&format!("{style}warning{style:#}: {}\n", escape(&warning))));
    }
    let mut text = String::new();
    let length = file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > BYTES_MAX {
        return Err(Failure::Failed(format!("{at} has more than {BYTES_MAX} bytes, so it is not a file with a token")));
    }
    check(&at.to_string(), &text)
}

/// Returns a warning if other users can read the file.
fn exposed(path: &Path, found: &Metadata) -> Option<String> {
    let (at, mode) = (path.display(), found.permissions().mode() & 0o7777);
    (found.is_file() && mode & READ_BY_OTHERS != 0).then(|| {
        format!("other users can read the token file {at} (its permissions are {mode:04o}); run `chmod 600 {at}`")
    })
}

/// Returns the token in a text. The parameter `from` names the origin of the text in the error.
pub(super) fn check(from: &str, text: &str) -> Result<String, Failure> {
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| token.to_owned()).ok_or_else(|| Failure::Failed(format!("{from} has no valid token")))
}

/// A new file for a token. Only the user can read it. The file is removed unless [`NewFile::write`] succeeds.
pub(super) struct NewFile<'a> {
    path: &'a Path,
    file: File,
    is_written: bool,
}

impl<'a> NewFile<'a> {
    /// Creates the file. Returns an error if the path exists.
    pub(super) fn create(path: &'a Path) -> Result<Self, Failure> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| Failure::Failed(format!("cannot create {}: {error}", path.display())))?;
        Ok(Self { path, file, is_written: false })
    }

    /// Writes the token. Returns when the token is on disk.
    pub(super) fn write(mut self, token: &str) -> io::Result<()> {
        self.file.write_all(format!("{token}\n").as_bytes())?;
        self.file.sync_all()?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_written {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_token_file_that_other_users_can_read_gives_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "evoke_x\n").unwrap();
        for (mode, is_exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let warning = exposed(&path, &path.metadata().unwrap());
            assert_eq!(warning.is_some(), is_exposed, "{mode:o}");
            assert!(warning.is_none_or(|text| text.contains(&format!("permissions are {mode:04o}"))));
            assert_eq!(read(&path).unwrap(), "evoke_x");
        }
    }

    #[test]
    fn a_token_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{:<1$}", "evoke_x", BYTES_MAX as usize)).unwrap();
        assert_eq!(read(&path).unwrap(), "evoke_x");
        std::fs::write(&path, format!("{:<1$}", "evoke_x", BYTES_MAX as usize + 1)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("more than 4096 bytes"), "{error}");
        // Endless.
        assert!(read(Path::new("/dev/zero")).is_err());
        std::fs::write(&path, "a b").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no valid token"));
    }

    #[test]
    fn a_new_file_replaces_nothing_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists(), "a file without a token is removed");
        NewFile::create(&path).unwrap().write("evoke_x").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(NewFile::create(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "evoke_x\n");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("missing"), &link).unwrap();
        assert!(NewFile::create(&link).is_err(), "a link is not followed");
    }
}
