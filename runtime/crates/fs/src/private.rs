//! Folders that only their owner can use.
//!
//! # Guarantees
//! [`PrivateFolder::prepare`] and [`PrivateFolder::open`] open the folder, keep its descriptor, and check this open
//! folder: it must belong to this user, and no other user may write to it. So only this user and root can add, replace
//! or rename a file in it. After `prepare`, only this user and root can open a file in it.
//!
//! SQLite opens files by path only, and other users may be able to rename a parent folder in this path. Therefore a
//! caller that opened a file by path must call [`PrivateFolder::confirm`] before it uses the file. `confirm` returns an
//! error if the path now leads to another folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, chmodat, fchmod, fstat, fsync, openat, renameat, stat, statat, unlinkat,
};

use super::FileId;

/// The permission bits of other users (the group and all others): read, write and enter.
const OF_OTHERS: u32 = 0o077;
/// The permission bits that let other users write.
const WRITE_BY_OTHERS: u32 = 0o022;
/// [`tighten`] removes permissions from subfolders down to this depth.
const DEPTH_MAX: usize = 4;

/// A folder that belongs to this user and that no other user may write to.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    pinned: OwnedFd,
    id: FileId,
}

/// A folder that [`PrivateFolder::prepare`] made private.
#[derive(Debug)]
pub struct Prepared {
    /// The folder, which is private now.
    pub folder: PrivateFolder,
    /// Messages for the user about changed permissions, and about a parent folder that other users may write to.
    pub notes: Vec<String>,
    /// True if the folder or a file in it had permissions for other users, which `prepare` has removed.
    pub was_open: bool,
}

/// Why a folder cannot be used.
#[derive(Debug)]
pub enum FolderError {
    /// The folder or a file in it cannot be created, opened or changed.
    Io(PathBuf, io::Error),
    /// The folder or a file in it belongs to another user.
    Foreign {
        /// Path of the folder or the file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The user id of this process.
        user: u32,
    },
    /// Other users may write to the folder.
    Writable {
        /// Path of the folder.
        path: PathBuf,
        /// Permission bits of the folder.
        mode: u32,
    },
    /// A file in the folder is not a regular file.
    NotRegular {
        /// Path of the file.
        path: PathBuf,
        /// The type of the file, as text for a message, such as `a symbolic link`.
        kind: &'static str,
    },
}

impl std::fmt::Display for FolderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot access {}: {error}", path.display()),
            Self::Foreign { path, owner, user } => {
                let path = path.display();
                write!(
                    f,
                    "{path} belongs to the user with id {owner}, and Evoke runs as the user with id {user}: run Evoke \
                     as the owner, take the folder over with `chown -R {user} {path}`, or choose another \
                     folder (`--data`, or `--spool` of `evoke emit`)"
                )
            }
            Self::Writable { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "other users may write to {path} (its permissions are {mode:04o}), so its files cannot be trusted: \
                     check that no other user changed them and run `chmod 700 {path}`, or choose another \
                     folder (`--data`, or `--spool` of `evoke emit`)"
                )
            }
            Self::NotRegular { path, kind } => {
                write!(
                    f,
                    "{} is {kind}, not a regular file: move it away, or choose another folder (`--data`, or `--spool` of \
                     `evoke emit`)",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for FolderError {}

impl PrivateFolder {
    /// Opens a folder for reading. Changes nothing.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::check(path).map(|(folder, _)| folder)
    }

    /// Opens a folder for a process that writes to it. Creates the folder if it is missing. Removes the permissions of
    /// other users from the folder, and from each file and subfolder whose name starts with one of the texts in `own`.
    pub fn prepare(path: &Path, own: &[&str]) -> Result<Prepared, FolderError> {
        let failed = |error: io::Error| FolderError::Io(path.to_owned(), error);
        make_folder(path).map_err(failed)?;
        let (folder, stat) = Self::check(path)?;
        let mode = permissions(&stat);
        let mut notes = Vec::new();
        if mode & OF_OTHERS != 0 {
            let private = Mode::from_raw_mode(mode & !OF_OTHERS);
            fchmod(&folder.pinned, private).map_err(|error| failed(error.into()))?;
            notes.push(format!(
                "other users could read {} (its permissions were {mode:04o}); now only you can",
                path.display()
            ));
        }
        let tightened = tighten(&folder.pinned, path, own, DEPTH_MAX)?;
        notes.extend(folder.parent_warning());
        Ok(Prepared { folder, notes, was_open: mode & OF_OTHERS != 0 || tightened })
    }

    fn check(path: &Path) -> Result<(Self, Stat), FolderError> {
        let failed = |error: io::Error| FolderError::Io(path.to_owned(), error);
        let flags = OFlags::DIRECTORY | OFlags::NONBLOCK;
        let pinned = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
        let stat = fstat(&pinned).map_err(|error| failed(error.into()))?;
        check_owner(path, &stat)?;
        let mode = permissions(&stat);
        if mode & WRITE_BY_OTHERS != 0 {
            return Err(FolderError::Writable { path: path.to_owned(), mode });
        }
        Ok((Self { path: path.to_owned(), pinned: pinned.into(), id: FileId::of(&stat) }, stat))
    }

    /// Returns a warning if users other than root and the owner can rename the folder and put another folder in its
    /// place. Evoke notices a replaced folder, but then it has to stop.
    fn parent_warning(&self) -> Option<String> {
        let parent = statat(&self.pinned, "..", AtFlags::empty()).ok()?;
        others_may_rename_in(&parent).then(|| {
            format!(
                "other users may rename or replace {}, because they may write to its parent folder: remove that \
                 permission (`chmod go-w`), or choose another folder (`--data`, or `--spool` of `evoke emit`)",
                self.path.display()
            )
        })
    }

    /// Returns the path as the caller gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the identity of the folder.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Returns the identity of the file `name` in the folder; `None` if there is no such file.
    ///
    /// # Errors
    /// The entry is not a regular file, belongs to another user, or cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<FileId>, FolderError> {
        let path = self.path.join(name);
        match statat(&self.pinned, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let not_regular = |kind| Err(FolderError::NotRegular { path: path.clone(), kind });
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => {}
                    FileType::Symlink => return not_regular("a symbolic link"),
                    FileType::Directory => return not_regular("a folder"),
                    FileType::Fifo => return not_regular("a named pipe"),
                    _ => return not_regular("a socket or a device"),
                }
                check_owner(&path, &stat)?;
                Ok(Some(FileId::of(&stat)))
            }
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(FolderError::Io(path, error.into())),
        }
    }

    /// Returns the identities of the files and folders in this folder whose names start with one of `names`. Does not
    /// open these files.
    pub fn list(&self, names: &[&str]) -> io::Result<Vec<FileId>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.pinned)? {
            let entry = entry?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if names.iter().any(|start| text.starts_with(start)) {
                match statat(&self.pinned, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => found.push(FileId::of(&stat)),
                    Err(rustix::io::Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(found)
    }

    /// Returns the identity of the file `name`. Returns an error if the path of the folder no longer leads to the
    /// opened folder, or if the file of this name at the path is not the file in the opened folder. A caller that
    /// opened a file by path calls this function before it uses the file.
    pub fn confirm(&self, name: &str) -> io::Result<FileId> {
        let below = FileId::of(&statat(&self.pinned, name, AtFlags::SYMLINK_NOFOLLOW)?);
        let by_path = FileId::of(&stat(self.path.join(name))?);
        let folder = FileId::of_path(&self.path)?;
        if below == by_path && folder == self.id {
            return Ok(below);
        }
        Err(io::Error::other("another folder got this path while Evoke opened the file"))
    }

    /// Returns the names of the files and folders in this folder. Leaves out names that are not UTF-8.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.pinned)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Opens a file in the folder with these options. Does not follow symbolic links, and does not wait for the other
    /// end of a named pipe. The options must not truncate the file: if another folder got the path, a file there would
    /// be truncated before the error. Use [`PrivateFolder::replace`] instead. If the options create a missing file, an
    /// empty file can be left in that other folder.
    pub fn open_file(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        self.find(name).map_err(io::Error::other)?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = options.mode(0o600).custom_flags(flags.bits().cast_signed()).open(self.path.join(name))?;
        if self.confirm(name)? != FileId::of_open(&file)? {
            return Err(io::Error::other("another file got this name while Evoke opened it"));
        }
        Ok(file)
    }

    /// Replaces the content of the file `name` atomically: writes the file `NAME.new` and renames it. If `is_durable`
    /// is true, the new content is on the disk when this function returns.
    pub fn replace(&self, name: &str, content: &[u8], is_durable: bool) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        // The new file is created relative to the opened folder, because the path may lead to another folder by now.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.pinned, &new, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(content)?;
        if is_durable {
            file.sync_data()?;
        }
        renameat(&self.pinned, &new, &self.pinned, name)?;
        if is_durable { self.sync() } else { Ok(()) }
    }

    /// Removes a file from the folder. A missing file is no error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(is_there(unlinkat(&self.pinned, name, AtFlags::empty())).map(drop)?)
    }

    /// Syncs the folder, so that the names in it survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        match fsync(&self.pinned) {
            // Some file systems do not support syncing folders.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Returns the path of an existing folder without symbolic links. Returns an error if another user can put a file in
/// place of a file that this process creates in the folder, because that user owns the folder or a folder above, or may
/// write to one of these folders. The write permission for a folder with a sticky bit, such as `/tmp`, does not count.
pub fn protected_folder(folder: &Path) -> io::Result<PathBuf> {
    let folder = folder.canonicalize()?;
    for at in folder.ancestors() {
        let found = stat(at)?;
        let refused = |why: String, advice: &str| {
            let (folder, at) = (folder.display(), at.display());
            let message = format!("other users can replace files in {folder}, because {why} {at}: {advice}");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        };
        if found.st_uid != 0 && found.st_uid != rustix::process::geteuid().as_raw() {
            let why = format!("the user with id {} owns", found.st_uid);
            return refused(why, "choose a folder that belongs to you");
        }
        if others_may_rename_in(&found) {
            let why = "they may write to".to_owned();
            return refused(why, "remove that permission (`chmod go-w`), or choose another folder");
        }
    }
    Ok(folder)
}

/// Returns true if users other than root and the owner may rename the files and folders in a folder.
fn others_may_rename_in(folder: &Stat) -> bool {
    let is_sticky = permissions(folder) & 0o1000 != 0;
    // On many systems, each user has a group with the same number and without other members, and this group may write
    // to the user's folders. Its write permission is not a risk. Other groups, such as `staff`, can have more members.
    let user = rustix::process::geteuid().as_raw();
    let is_own_group = folder.st_gid == user && folder.st_gid == rustix::process::getegid().as_raw();
    let by_others = permissions(folder) & if is_own_group { 0o002 } else { WRITE_BY_OTHERS };
    by_others != 0 && !is_sticky
}

fn permissions(stat: &Stat) -> u32 {
    #[allow(clippy::useless_conversion, reason = "the type differs between systems")]
    let mode = u32::from(stat.st_mode);
    mode & 0o7777
}

fn check_owner(path: &Path, stat: &Stat) -> Result<(), FolderError> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid == user {
        return Ok(());
    }
    Err(FolderError::Foreign { path: path.to_owned(), owner: stat.st_uid, user })
}

/// Removes the permissions of other users from each file and subfolder whose name starts with one of the texts in
/// `own`, and from everything below such a subfolder. Does not open files: opening and closing a file of a store would
/// release the locks that this process holds on it. Returns true if a permission was changed.
fn tighten(folder: &OwnedFd, path: &Path, own: &[&str], depth: usize) -> Result<bool, FolderError> {
    let failed = |error: rustix::io::Errno| FolderError::Io(path.to_owned(), error.into());
    let mut changed = false;
    for entry in Dir::read_from(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text == "." || text == ".." || !own.iter().any(|own| text.starts_with(own)) {
            continue;
        }
        let Some(stat) = is_there(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)).map_err(failed)? else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            continue;
        }
        let below = path.join(&*text);
        check_owner(&below, &stat)?;
        if permissions(&stat) & OF_OTHERS != 0 {
            // `chmodat` follows links. No other user can put a link under this name, because the folder is private.
            let private = Mode::from_raw_mode(permissions(&stat) & !OF_OTHERS);
            changed |= is_there(chmodat(folder, name, private, AtFlags::empty())).map_err(failed)?.is_some();
        }
        if kind == FileType::Directory && depth > 0 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Some(inner) = is_there(openat(folder, name, flags, Mode::empty())).map_err(failed)? {
                changed |= tighten(&inner, &below, &[""], depth - 1)?;
            }
        }
    }
    Ok(changed)
}

/// Returns `None` for an entry that was removed after it was listed. For example, SQLite removes its `-wal` and `-shm`
/// files when another process closes the store.
fn is_there<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        result => result.map(Some),
    }
}

/// Creates a folder and its missing parents. Only the owner can use the created folders. Syncs the parent of the folder
/// and the parent of each created folder: a new folder survives a power cut only if its parent was synced.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Sync also if the folder existed: the process that created it may have crashed before the sync.
    let mut created = vec![folder.canonicalize()?];
    for at in missing {
        created.push(at.canonicalize()?);
    }
    created.iter().filter_map(|at| at.parent()).try_for_each(sync_folder)
}

/// Syncs a folder, so that the names in it survive a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder without read permission cannot be opened, and some file systems do not support syncing folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
