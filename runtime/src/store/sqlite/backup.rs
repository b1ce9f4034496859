//! A copy of the store as it is at one moment, beside whoever writes to it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::failure::failed;
use super::folder::sync_folder;
use super::readers::open_for_reading;
use crate::store::{CheckReport, Result, StoreError};

/// Copies the store in `folder` to a file that is not there yet, and verifies the copy; answers what is in it. It holds
/// everything that was committed before the call, and it is there whole and for good or not at all.
pub fn backup(folder: &Path, to: &Path) -> Result<CheckReport> {
    let new = name_beside(to);
    let copied = copy(&folder.join("evoke.db"), &new).and_then(|report| {
        put_in_place(&new, to).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Failed(format!("{} is there already", to.display())),
            _ => StoreError::Failed(format!("cannot make {}: {e}", to.display())),
        })?;
        Ok(report)
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    copied
}

fn name_beside(to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

fn copy(from: &Path, new: &Path) -> Result<CheckReport> {
    let made = File::create(new).and_then(|file| {
        // Nobody gets to read the copy who may not read the store.
        file.set_permissions(std::fs::metadata(from)?.permissions())?;
        Ok(file)
    });
    let file = made.map_err(|e| StoreError::Failed(format!("cannot make {}: {e}", new.display())))?;
    let path = new.to_str().ok_or_else(|| StoreError::Failed(format!("{} is not UTF-8", new.display())))?;
    if let Some(damage) = super::wal::damage(from) {
        return Err(StoreError::Damaged(damage));
    }
    let store = open_for_reading(from).map_err(|e| failed(from, &e))?;
    super::schema::is_of_this_version(&store).map_err(|e| failed(from, &e))??;
    // One moment of the store, page by page from its tables: what is damaged does not get through.
    store.execute("VACUUM INTO ?1", [path]).map_err(|e| failed(from, &e))?;
    file.sync_all().map_err(|e| StoreError::Failed(format!("syncing {} failed: {e}", new.display())))?;
    let copy = open_for_reading(new).map_err(|e| failed(new, &e))?;
    let report = super::check::check(&copy);
    match report.problems.first() {
        None => Ok(report),
        Some(problem) => {
            Err(StoreError::Failed(format!("the copy is not sound, and neither is {}: {problem}", from.display())))
        }
    }
}

/// Renames without replacing anything, and makes the name stay.
fn put_in_place(new: &Path, to: &Path) -> io::Result<()> {
    renameat_with(CWD, new, CWD, to, RenameFlags::NOREPLACE)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}
