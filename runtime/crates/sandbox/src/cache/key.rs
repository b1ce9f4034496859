//! The secret key of a cache folder, and the authentication codes made with it.
//!
//! Files in the folder are run as machine code. A file that this program did not write, such as one that was unpacked
//! or restored into the folder, has no valid authentication code and is not loaded.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::super::compile::open_cached;

/// Length of a key and of an authentication code, in bytes.
pub(super) const MAC_BYTES: usize = 32;

/// Name of the key's file in the folder.
const FILE: &str = "key";

/// HMAC-SHA256. The data can be added in parts.
pub(super) type Mac = Hmac<Sha256>;

pub(super) struct Key([u8; MAC_BYTES]);

impl Key {
    /// Reads the key of a folder. Creates a new key if the folder has none, if other users could have read or written
    /// the key, or if its file is not valid.
    pub(super) fn of_folder(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        match read(&path) {
            Ok(key) => return Ok(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(
                    %error,
                    path = %path.display(),
                    "the key that protects the compiled functions in the cache cannot be used and is replaced; all \
                     functions are compiled again"
                );
                fs::remove_file(&path)?;
            }
        }
        let key = Self::random()?;
        let mut file = tempfile::Builder::new().prefix("key-").suffix(".tmp").tempfile_in(folder)?;
        file.write_all(&key.0)?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(key),
            // Another process has created the key at the same time.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => read(&path),
            Err(error) => Err(error.error),
        }
    }

    /// Returns a new random key, which is not stored.
    pub(super) fn random() -> io::Result<Self> {
        let mut key = [0; MAC_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self(key))
    }

    /// Starts an authentication code; the caller adds the data. Different purposes give different codes for the same
    /// data.
    pub(super) fn mac(&self, purpose: &str) -> io::Result<Mac> {
        let mut mac = Mac::new_from_slice(&self.0).map_err(io::Error::other)?;
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        Ok(mac)
    }
}

/// Reads a key. Returns an error if other users could have read or written it, or if it has a wrong length.
fn read(path: &Path) -> io::Result<Key> {
    let mut file = open_cached(path)?;
    let metadata = file.metadata()?;
    let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if metadata.permissions().mode() & 0o077 != 0 {
        return wrong("other users can access the key");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return wrong("the key belongs to another user");
    }
    if metadata.nlink() != 1 {
        return wrong("the file of the key has a second name (a hard link)");
    }
    if metadata.len() != MAC_BYTES as u64 {
        return wrong("the key does not have 32 bytes");
    }
    let mut key = [0; MAC_BYTES];
    file.read_exact(&mut key)?;
    Ok(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_key_of_a_folder_is_created_once_and_only_its_user_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Key::of_folder(folder.path()).unwrap();
        assert_eq!(Key::of_folder(folder.path()).unwrap().0, first.0);
        assert_eq!(mode(&folder.path().join(FILE)), 0o600);
        assert_ne!(Key::random().unwrap().0, first.0);
    }

    #[test]
    fn a_key_that_others_could_know_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, [7; MAC_BYTES]).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
        let make: [&dyn Fn(); 4] = [
            &|| fs::write(&path, [7; MAC_BYTES]).unwrap(),
            &|| fs::write(&path, [7; 5]).unwrap(),
            &|| std::os::unix::fs::symlink(&elsewhere, &path).unwrap(),
            &|| fs::hard_link(&elsewhere, &path).unwrap(),
        ];
        for (case, make) in make.into_iter().enumerate() {
            make();
            if case == 0 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            }
            let key = Key::of_folder(folder.path()).unwrap();
            assert_ne!(key.0, [7; MAC_BYTES], "case {case}");
            assert_eq!((mode(&path), Key::of_folder(folder.path()).unwrap().0), (0o600, key.0), "case {case}");
            fs::remove_file(&path).unwrap();
        }
    }
}
