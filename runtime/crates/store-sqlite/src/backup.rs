//! Copies a snapshot of the store. Another process can write to the store at the same time.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::failure::store_error;
use super::folder::open_store_for_reading;
use super::readers::open_for_reading;
use evoke_fs::{protected_folder, sync_folder};
use evoke_model::CheckReport;
use evoke_store::{Result, StoreError};

/// Copies the store in `folder` to a new file, checks the copy and returns the report. The copy contains everything
/// that was committed before the call. After an error, no new file exists; otherwise the new file is complete and
/// synced.
///
/// SQLite opens the new file by its path. A user who could replace the file before SQLite opens it would get the whole
/// store. So the call fails if other users may replace files in the folder of `to`.
pub fn backup(folder: &Path, to: &Path) -> Result<CheckReport> {
    let to = &without_links(to).map_err(|e| StoreError::Failed(format!("cannot create {}: {e}", to.display())))?;
    let new = name_beside(to);
    let copied = copy(folder, &new).and_then(|report| {
        put_in_place(&new, to).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                StoreError::Failed(format!("{} already exists: name another file", to.display()))
            }
            _ => StoreError::Failed(format!("cannot create {}: {e}", to.display())),
        })?;
        Ok(report)
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    copied
}

fn without_links(to: &Path) -> io::Result<PathBuf> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(protected_folder(folder.unwrap_or(Path::new(".")))?.join(to.file_name().unwrap_or_default()))
}

fn name_beside(to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

fn copy(folder: &Path, new: &Path) -> Result<CheckReport> {
    let from = &folder.join("evoke.db");
    // Other users must not get access to the copy. `create_new` refuses a file or a link that another user prepared.
    let created = File::options().write(true).create_new(true).mode(0o600).open(new);
    let file = created.map_err(|e| StoreError::Failed(format!("cannot create {}: {e}", new.display())))?;
    let path = new.to_str().ok_or_else(|| StoreError::Failed(format!("the path {} is not UTF-8", new.display())))?;
    if let Some(damage) = super::wal::find_damage(from) {
        return Err(StoreError::Damaged(damage));
    }
    let (_folder, store) = open_store_for_reading(folder)?;
    super::schema::check_version(&store).map_err(|e| store_error(from, &e))??;
    // VACUUM reads the tables page by page in one snapshot, so it fails on damaged pages.
    store.execute("VACUUM INTO ?1", [path]).map_err(|e| store_error(from, &e))?;
    file.sync_all().map_err(|e| StoreError::Failed(format!("syncing {} failed: {e}", new.display())))?;
    let copy = open_for_reading(new).map_err(|e| store_error(new, &e))?;
    let report = super::check::check(&copy);
    match report.problems.first() {
        None => Ok(report),
        Some(problem) => Err(StoreError::Failed(format!(
            "no backup was made, because {} is corrupt: {problem}; `evoke check` lists all problems",
            from.display()
        ))),
    }
}

/// Moves the new file to its final name, unless a file with this name exists, and syncs the folder.
fn put_in_place(new: &Path, to: &Path) -> io::Result<()> {
    renameat_with(CWD, new, CWD, to, RenameFlags::NOREPLACE)?;
    to.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use evoke_model::clock::Clock;
    use evoke_store::Store as _;

    use super::*;
    use crate::SqliteStore;

    #[tokio::test]
    async fn no_copy_is_made_where_others_can_replace_it() {
        let parent = tempfile::tempdir().unwrap();
        let (data, shared) = (parent.path().join("data"), parent.path().join("shared"));
        SqliteStore::open(&data, Clock::fixed(0)).unwrap().close().await.unwrap();
        std::fs::create_dir_all(shared.join("own")).unwrap();
        let set_mode = |mode| std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
        set_mode(0o777);
        for folder in [shared.clone(), shared.join("own")] {
            let error = backup(&data, &folder.join("copy.db")).unwrap_err().to_string();
            assert!(error.contains("other users can replace files in") && error.contains("chmod go-w"), "{error}");
        }
        assert_eq!(std::fs::read_dir(shared.join("own")).unwrap().count(), 0);
        set_mode(0o1777);
        backup(&data, &shared.join("copy.db")).unwrap();
    }
}
