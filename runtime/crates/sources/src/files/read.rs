//! Reads settled files: checks whether a file may be read, hashes it slice by slice, and returns the content of small
//! files.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::access::Access;
use super::config::FilesSource;
use super::confined::{Found, Root, found, is_missing};
use super::name;
use super::version::{Stamp, Version};
use evoke_model::event::EVENT_SIZE_MAX;
use evoke_model::hex;

/// Maximum number of bytes that are read of one file before other files are read. Content for an event is collected
/// within one slice, therefore a slice is larger than any event.
pub(super) const SLICE_BYTES: u64 = 4 * 1024 * 1024;
const _: () = assert!(SLICE_BYTES > EVENT_SIZE_MAX as u64);
const BUFFER_BYTES: usize = 64 * 1024;

/// The settings of the manifest that decide which files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Maximum size of content for an event; `None` if events have no content.
    pub(super) keep_max: Option<u64>,
    /// Maximum size of a file; larger files are not read.
    pub(super) size_max: u64,
    /// True if files with several hard links are read.
    pub(super) hard_links: bool,
}

impl Rules {
    pub(super) fn of(config: &FilesSource) -> Self {
        Self {
            keep_max: config.content.then(|| config.max_content.0.min(EVENT_SIZE_MAX as u64)),
            size_max: config.max_size.0,
            // Events without content cannot reveal a file that another user linked into the folder, so the file may be
            // read.
            hard_links: config.hard_links || !config.content,
        }
    }
}

/// The hash of the part of a file that has been read so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    hasher: Sha256,
    pub(super) bytes: u64,
}

/// The result of reading a file, or of one slice of it.
#[derive(Debug)]
pub(super) enum Reading {
    /// The file was read as a whole and has this version. The second field is the content, if it was requested and is
    /// small enough.
    Whole(Version, Option<Vec<u8>>),
    /// A slice was read, and more slices follow.
    Partial(Progress),
    /// The file was not read, because it has this many hard links.
    Linked(Version, u64),
    /// The file was not read, because it is larger than [`Rules::size_max`].
    TooLarge(Version),
    /// The file does not exist.
    Gone,
    /// The file has changed. This is its new metadata.
    Changed(Stamp),
    Failed(io::Error),
}

/// Reads the next slice of a file. `expected` is the last observed metadata of the file; `None` if it did not exist.
/// `progress` is the result of the previous slices.
pub(super) fn read(
    root: &Root,
    name: &str,
    expected: Option<Stamp>,
    progress: Option<Progress>,
    rules: &Rules,
    access: &Access,
) -> Reading {
    let relative = name::path(name);
    let (expected, before) = match (expected, access.enter(name).and_then(|()| root.stat(&relative))) {
        (_, Ok(Found::Folder | Found::Nothing)) => return Reading::Gone,
        (_, Err(error)) => return Reading::Failed(error),
        (Some(expected), Ok(Found::File(before))) => (expected, before),
        (None, Ok(Found::File(before))) => return Reading::Changed(before.stamp),
    };
    if before.stamp != expected {
        return Reading::Changed(before.stamp);
    }
    let unread = Version { stamp: expected, sha256: String::new() };
    if expected.size > rules.size_max {
        return Reading::TooLarge(unread);
    }
    if before.links > 1 && !rules.hard_links {
        return Reading::Linked(unread, before.links);
    }
    match read_slice(root, &relative, expected, progress.unwrap_or_default(), rules, access) {
        Ok(reading) => reading,
        Err(error) if is_missing(&error) => Reading::Gone,
        Err(error) => Reading::Failed(error),
    }
}

fn read_slice(
    root: &Root,
    relative: &Path,
    expected: Stamp,
    mut progress: Progress,
    rules: &Rules,
    access: &Access,
) -> io::Result<Reading> {
    let (mut file, opened) = root.file(relative)?;
    // The caller checked the rules for the file that had this name a moment ago. The opened file may be another one.
    if opened.stamp != expected {
        return Ok(Reading::Changed(opened.stamp));
    }
    if opened.links > 1 && !rules.hard_links {
        return Ok(Reading::Linked(Version { stamp: expected, sha256: String::new() }, opened.links));
    }
    file.seek(SeekFrom::Start(progress.bytes))?;
    let mut kept = rules.keep_max.filter(|max| expected.size <= *max).map(|_| Vec::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    // Allows one byte more than a slice: otherwise, the end of a file of exactly one slice would not be noticed.
    let mut rest = (&mut file).take(SLICE_BYTES + 1);
    let is_at_end = loop {
        access.step();
        if access.stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = match rest.read(&mut buffer) {
            Ok(0) => break rest.limit() > 0,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = buffer.get(..count).unwrap_or_default();
        progress.hasher.update(piece);
        progress.bytes += count as u64;
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(piece);
        }
        // Stop if the file has more bytes than expected: it is growing.
        if progress.bytes > expected.size {
            break true;
        }
    };
    // Check that the file did not change and was not replaced while it was read.
    match (found(&rustix::fs::fstat(&file)?), root.stat(relative)?) {
        (Found::File(after), Found::File(now)) if after == opened && now == opened => {}
        (_, Found::File(now)) => return Ok(Reading::Changed(now.stamp)),
        _ => return Ok(Reading::Gone),
    }
    if !is_at_end {
        return Ok(Reading::Partial(progress));
    }
    if progress.bytes != expected.size {
        let (reported, found) = (expected.size, progress.bytes);
        let message = format!("its file system reports a size of {reported} bytes, but {found} bytes were read");
        return Err(io::Error::other(message));
    }
    Ok(Reading::Whole(Version { stamp: expected, sha256: hex(&progress.hasher.finalize()) }, kept))
}
