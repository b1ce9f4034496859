//! Reads settled files: checks that a file may be read, hashes it slice by slice, and keeps small contents.

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

/// The most bytes that are read of one file before other files have their turn. Larger than any content that is kept.
pub(super) const SLICE_BYTES: u64 = 4 * 1024 * 1024;
const _: () = assert!(SLICE_BYTES > EVENT_SIZE_MAX as u64);
const BUFFER_BYTES: usize = 64 * 1024;

/// The settings of the manifest that decide which files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Contents up to this size are kept; `None` when no event has content.
    pub(super) keep_max: Option<u64>,
    /// Larger files are not read.
    pub(super) size_max: u64,
    /// Whether files with several names are read.
    pub(super) hard_links: bool,
}

impl Rules {
    pub(super) fn of(config: &FilesSource) -> Self {
        Self {
            keep_max: config.content.then(|| config.max_content.0.min(EVENT_SIZE_MAX as u64)),
            size_max: config.max_size.0,
            // Without content, an event does not reveal the content of a file that a producer linked into the folder.
            hard_links: config.hard_links || !config.content,
        }
    }
}

/// The hash of the part of a file that was read so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    hasher: Sha256,
    pub(super) bytes: u64,
}

/// The result of reading a file, or of one slice of it.
#[derive(Debug)]
pub(super) enum Reading {
    /// The file was read as a whole and has this version; with the content when it was requested and small enough.
    Whole(Version, Option<Vec<u8>>),
    /// A slice was read, and more slices follow.
    Partial(Progress),
    /// The file was not read, because it has this many hard links.
    Linked(Version, u64),
    /// The file was not read, because it is larger than the limit.
    TooLarge(Version),
    /// The file does not exist.
    Gone,
    /// The file changed since `expected` was observed, and has this metadata now.
    Changed(Stamp),
    /// Reading failed.
    Failed(io::Error),
}

/// Reads the next slice of a file whose last known metadata is `expected`. `progress` is the result of the previous
/// slices.
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
    // The rules were checked for the file that had the name before; this may be another one.
    if opened.stamp != expected {
        return Ok(Reading::Changed(opened.stamp));
    }
    if opened.links > 1 && !rules.hard_links {
        return Ok(Reading::Linked(Version { stamp: expected, sha256: String::new() }, opened.links));
    }
    file.seek(SeekFrom::Start(progress.bytes))?;
    let mut kept = rules.keep_max.filter(|max| expected.size <= *max).map(|_| Vec::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    // Reads one byte more than a slice, to detect the end of a file of exactly one slice.
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
        // A file that grows is not read beyond its known size.
        if progress.bytes > expected.size {
            break true;
        }
    };
    // The open file must be unchanged and still have its name: otherwise it was replaced while it was read.
    match (found(&rustix::fs::fstat(&file)?), root.stat(relative)?) {
        (Found::File(after), Found::File(now)) if after == opened && now == opened => {}
        (_, Found::File(now)) => return Ok(Reading::Changed(now.stamp)),
        _ => return Ok(Reading::Gone),
    }
    if !is_at_end {
        return Ok(Reading::Partial(progress));
    }
    if progress.bytes != expected.size {
        return Err(io::Error::other("the file system reports another size than the file has"));
    }
    Ok(Reading::Whole(Version { stamp: expected, sha256: hex(&progress.hasher.finalize()) }, kept))
}
