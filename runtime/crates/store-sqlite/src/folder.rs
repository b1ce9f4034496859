//! Opens the data folder, for writing or only for reading. [`PrivateFolder`] documents its checks and guarantees.

use std::path::Path;

use evoke_fs::{FolderError, Prepared, PrivateFolder, Reservation, reserve};
use evoke_store::{Result, StoreError};
use rusqlite::Connection;

use super::failure::store_error;
use super::readers::open_for_reading;

/// The names of the files and folders that Evoke creates in the data folder begin with these texts, except for
/// [`OWNER_TOKEN`].
const OWN_NAMES: [&str; 7] = ["evoke.db", "lock", "listen.json", "tokens.json", "running", "logs", "compiled"];
/// The file with the owner's token of the admin API. [`prepare_data_folder`] does not change the permissions of this
/// file: the start checks whether other users could read the token, and in this case replaces the token.
const OWNER_TOKEN: &str = "admin.token";

/// Opens the data folder for the process that owns it; see [`PrivateFolder::prepare`]. Creates it when it is missing.
pub fn prepare_data_folder(path: &Path) -> std::result::Result<Prepared, FolderError> {
    PrivateFolder::prepare(path, &OWN_NAMES)
}

/// Reserves the files and folders that Evoke has created in the data folder (see [`evoke_fs::reserve`]).
pub fn reserve_own(folder: &PrivateFolder) -> std::io::Result<Reservation> {
    Ok(reserve(folder.list(&[&OWN_NAMES[..], &[OWNER_TOKEN]].concat())?))
}

/// Removes SQLite's index of the log; SQLite builds it again from the log. A user who opened the index before the
/// folder became private could hold a lock on the index, and this lock would stop every write. Must run before the
/// store is opened, by the process that holds the lock of the folder.
pub fn discard_index(folder: &PrivateFolder) -> std::io::Result<()> {
    match std::fs::remove_file(folder.path().join("evoke.db-shm")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the store in a folder for reading only. Another process can have the store open at the same time.
pub(super) fn open_store_for_reading(folder: &Path) -> Result<(PrivateFolder, Connection)> {
    let path = folder.join("evoke.db");
    let folder = PrivateFolder::open(folder).map_err(to_store_error)?;
    folder.find("evoke.db").map_err(to_store_error)?;
    let connection = open_for_reading(&path).map_err(|e| store_error(&path, &e))?;
    // SQLite opens the file at the first read.
    connection.query_row("PRAGMA user_version", [], |_| Ok(())).map_err(|e| store_error(&path, &e))?;
    folder.confirm("evoke.db").map_err(|e| StoreError::Failed(format!("cannot open {}: {e}", path.display())))?;
    Ok((folder, connection))
}

/// Converts the error of a folder, whose message says what the user can do.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn to_store_error(error: FolderError) -> StoreError {
    StoreError::Failed(error.to_string())
}
