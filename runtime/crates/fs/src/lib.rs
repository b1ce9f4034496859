//! Opens files and folders safely.
//!
//! [`open_regular`] and [`read_at_most`] open files that a user names. [`PrivateFolder`] is a folder that only its owner
//! can use. [`reserve`] protects the files of an open store from every other part of the process. [`MappedFile`] is a file
//! that is written without system calls. [`has_room`] recognises a full disk and a quota that is used up, and
//! [`is_at_size_limit`] a file that may not grow.

mod file_id;
mod mapped;
mod private;
mod regular;
mod reserved;
mod room;
mod sys;

pub use file_id::FileId;
pub use mapped::MappedFile;
pub use private::{FolderError, Prepared, PrivateFolder, make_folder, sync_folder};
pub use regular::{open_below, open_regular, read_at_most, read_text};
pub use reserved::{Reservation, is_reserved, reserve};
pub use room::{has_room, is_at_size_limit};
pub use sys::{close_inherited_on_exec, disable_huge_pages, lock_shared, shorten_time_slice, unlock};
