//! Opens files and folders safely.
//!
//! [`open_regular`] and [`read_at_most`] open files whose paths a user configured. [`PrivateFolder`] is a folder that
//! only its owner can use. [`reserve`] keeps other parts of the process from opening the files of an open store.
//! [`MappedFile`] writes to a file without system calls. [`has_room`] detects a full disk and a used-up quota.
//! [`is_at_size_limit`] detects a file that has reached the process's limit for file sizes.

mod file_id;
mod mapped;
mod private;
mod regular;
mod reserved;
mod room;
mod sys;

pub use file_id::FileId;
pub use mapped::MappedFile;
pub use private::{FolderError, Prepared, PrivateFolder, make_folder, protected_folder, sync_folder};
pub use regular::{open_below, open_regular, read_at_most, read_text};
pub use reserved::{Reservation, is_reserved, reserve};
pub use room::{has_room, is_at_size_limit};
pub use sys::{close_inherited_on_exec, disable_huge_pages, lock_shared, shorten_time_slice, unlock};
