//! The files of the log. Each function has its own files. All files together have a size limit.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::line::{Line, to_stored};
use evoke_model::clock::Clock;

/// The size limit of a file is an eighth of a function's share (the limit on all bytes divided by the number of
/// functions), but at least [`FILE_BYTES_MIN`] and at most this. So the deletion of a file removes only a small part of
/// a function's log.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Lower bound of the size limit of a file. With a limit of 48 MiB on all files, there are at most 6,144 full files.
const FILE_BYTES_MIN: u64 = 8 * 1024;
/// Maximum number of functions with files. Without a limit, the number could grow forever, because reloads can add new
/// names of functions. When one more function logs, the files of the function that logged least recently are deleted.
const OWNERS_MAX: usize = 4096;
/// Maximum number of files that are open for writing.
const OPEN_MAX: usize = 64;
/// A function that has logged nothing for this long, 30 days in microseconds, has probably been removed. When room is
/// needed, its files are deleted before the files of other functions.
pub(super) const STALE_US: u64 = 30 * 24 * 3600 * 1_000_000;

/// Maximum time by which the last `seq` of a file can be later than the modification time of the file. It can be later
/// because many lines are logged in one microsecond, and because the file system stores imprecise times.
const SEQ_AHEAD_US: u64 = 1_000_000;

/// The owner (see [`Files::owners`]) of Evoke's own lines.
const EVOKE: &str = "evoke";
/// The owner of the files that earlier versions wrote for all functions together. No function has this name.
const EARLIER: &str = "";
/// The names of the files of [`EARLIER`], oldest first.
const EARLIER_FILES: [&str; 3] = ["evoke.jsonl.2", "evoke.jsonl.1", "evoke.jsonl"];

pub(super) struct Files {
    folder: PathBuf,
    bytes_max: u64,
    /// The key is the full name of a function, [`EVOKE`] or [`EARLIER`].
    owners: HashMap<String, Owner>,
    /// The bytes of all files of all owners.
    bytes: u64,
    /// The `seq` of the last line.
    last: u64,
    /// True if the last write failed. Serves to log a failure once, and not for every line.
    failing: bool,
}

/// The files of a function, or of [`EVOKE`] or [`EARLIER`].
#[derive(Default)]
struct Owner {
    /// Oldest first. Only the last one is written.
    files: VecDeque<LogFile>,
    bytes: u64,
    /// The last file, if it is open.
    writer: Option<BufWriter<File>>,
}

struct LogFile {
    name: String,
    bytes: u64,
    /// Upper bound of the `seq` of the lines in the file.
    last: u64,
}

/// A file to read.
pub(super) struct StoredFile {
    pub(super) path: PathBuf,
    /// The number of bytes that belong to the snapshot.
    pub(super) length: u64,
    /// Upper bound of the `seq` of the lines in the file.
    pub(super) last: u64,
}

impl Owner {
    fn last(&self) -> u64 {
        self.files.back().map_or(0, |file| file.last)
    }

    fn file_bytes(&self) -> u64 {
        self.files.back().map_or(0, |file| file.bytes)
    }

    /// Sets the length of the last file. Corrects the owner's bytes and `total`, the bytes of all owners.
    fn resize(&mut self, length: u64, total: &mut u64) {
        let Some(file) = self.files.back_mut() else { return };
        let before = std::mem::replace(&mut file.bytes, length);
        for sum in [&mut self.bytes, total] {
            *sum = sum.saturating_sub(before).saturating_add(length);
        }
    }
}

impl Files {
    pub(super) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            // Other files, links and pipes do not belong to the log.
            if let Some((owner, number)) = owner_of(&name).filter(|_| metadata.is_file()) {
                let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let modified = modified.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
                // The number of a file is a time too. It may be later than the modification time if the clock was set
                // back.
                let last = number.max(modified.saturating_add(SEQ_AHEAD_US));
                found.push((owner, number, LogFile { name, bytes: metadata.len(), last }));
            }
        }
        found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut files = Self {
            folder: folder.to_owned(),
            bytes_max,
            owners: HashMap::new(),
            bytes: 0,
            last: found.iter().map(|(_, _, file)| file.last).max().unwrap_or(0),
            failing: false,
        };
        for (owner, _, file) in found {
            files.bytes += file.bytes;
            let owner = files.owners.entry(owner).or_default();
            owner.bytes += file.bytes;
            owner.files.push_back(file);
        }
        Ok(files)
    }

    /// Writes a line. If the write fails, the line is lost, and the function that logged it gets no error.
    pub(super) fn write(&mut self, line: &Line) {
        let now_us = u64::try_from(Clock::system().now_ms()).unwrap_or(0).saturating_mul(1000);
        self.last = now_us.max(self.last + 1);
        let text = to_stored(self.last, line) + "\n";
        let owner = line.function.as_deref().unwrap_or(EVOKE);
        let written = self.try_write(owner, &text);
        if written.is_err()
            && let Some(owner) = self.owners.get_mut(owner)
        {
            // The file may end with a part of the line. The next write opens the file again, and reads its length.
            owner.writer = None;
        }
        self.report(&written);
    }

    pub(super) fn flush(&mut self) {
        let mut flushed = Ok(());
        for writer in self.owners.values_mut().filter_map(|owner| owner.writer.as_mut()) {
            flushed = flushed.and(writer.flush());
        }
        self.report(&flushed);
    }

    fn try_write(&mut self, name: &str, text: &str) -> io::Result<()> {
        let length = text.len() as u64;
        self.make_room(name, length)?;
        let seq = self.last;
        let file_bytes_max = self.file_bytes_max();
        let is_new = self.owners.get(name).is_none_or(|owner| {
            owner.files.is_empty() || (owner.file_bytes() > 0 && owner.file_bytes() + length > file_bytes_max)
        });
        if is_new || self.owners.get(name).is_some_and(|owner| owner.writer.is_none()) {
            self.open_last(name, is_new)?;
        }
        let Some(owner) = self.owners.get_mut(name) else { return Ok(()) };
        let (Some(writer), Some(file)) = (&mut owner.writer, owner.files.back_mut()) else { return Ok(()) };
        writer.write_all(text.as_bytes())?;
        file.bytes += length;
        file.last = seq;
        owner.bytes += length;
        self.bytes += length;
        Ok(())
    }

    /// Opens the last file of an owner; if `is_new`, creates a new one first.
    fn open_last(&mut self, name: &str, is_new: bool) -> io::Result<()> {
        if let Some(writer) = self.owners.get_mut(name).and_then(|owner| owner.writer.take()) {
            writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        }
        self.close_some()?;
        let owner = self.owners.entry(name.to_owned()).or_default();
        if is_new {
            std::fs::create_dir_all(&self.folder)?;
            let file = format!("{}.{:020}.jsonl", name.replace('/', "."), self.last);
            owner.files.push_back(LogFile { name: file, bytes: 0, last: self.last });
        }
        let Some(file) = owner.files.back() else { return Ok(()) };
        let (writer, length) = open_to_append(&self.folder.join(&file.name))?;
        owner.resize(length, &mut self.bytes);
        owner.writer = Some(writer);
        Ok(())
    }

    /// Closes the file that was written least recently, if [`OPEN_MAX`] files are open.
    fn close_some(&mut self) -> io::Result<()> {
        let open = self.owners.values_mut().filter(|owner| owner.writer.is_some());
        let (mut count, mut oldest) = (0, None::<&mut Owner>);
        for owner in open {
            count += 1;
            if oldest.as_ref().is_none_or(|oldest| owner.last() < oldest.last()) {
                oldest = Some(owner);
            }
        }
        match oldest.filter(|_| count >= OPEN_MAX).and_then(|owner| owner.writer.take()) {
            Some(writer) => writer.into_inner().map(drop).map_err(io::IntoInnerError::into_error),
            None => Ok(()),
        }
    }

    fn file_bytes_max(&self) -> u64 {
        let share = self.bytes_max / (self.owners.len() as u64).max(1);
        (share / 8).clamp(FILE_BYTES_MIN.min(self.bytes_max / 8), FILE_BYTES_MAX)
    }

    /// Deletes files until the owner can write `length` more bytes within the limits.
    fn make_room(&mut self, name: &str, length: u64) -> io::Result<()> {
        if self.owners.len() >= OWNERS_MAX && !self.owners.contains_key(name) {
            let oldest = self.owners.iter().min_by_key(|(_, owner)| owner.last()).map(|(name, _)| name.clone());
            while let Some(oldest) = oldest.as_deref().filter(|oldest| self.owners.contains_key(*oldest)) {
                self.delete_oldest(oldest)?;
            }
        }
        while self.bytes.saturating_add(length) > self.bytes_max {
            let is_stale = |owner: &Owner| owner.last().saturating_add(STALE_US) < self.last;
            let rank = |owner: &Owner| (is_stale(owner), owner.bytes);
            let Some((largest, _)) = self.owners.iter().max_by_key(|(_, owner)| rank(owner)) else { break };
            let largest = largest.clone();
            self.delete_oldest(&largest)?;
        }
        Ok(())
    }

    /// Deletes the oldest file of an owner. If the owner has no other file, also removes the owner.
    fn delete_oldest(&mut self, name: &str) -> io::Result<()> {
        let Some(owner) = self.owners.get_mut(name) else { return Ok(()) };
        let Some(file) = owner.files.pop_front() else {
            self.owners.remove(name);
            return Ok(());
        };
        owner.bytes = owner.bytes.saturating_sub(file.bytes);
        self.bytes = self.bytes.saturating_sub(file.bytes);
        if owner.files.is_empty() {
            self.owners.remove(name);
        }
        match std::fs::remove_file(self.folder.join(&file.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the files that can have lines of `function`, or all files for `None`. The files of one owner are in
    /// order, oldest first.
    pub(super) fn readers(&mut self, function: Option<&str>) -> Vec<StoredFile> {
        self.flush();
        let is_selected = |name: &str| function.is_none_or(|function| name == function || name == EARLIER);
        let owners = self.owners.iter().filter(|(name, _)| is_selected(name));
        let files = owners.flat_map(|(_, owner)| &owner.files);
        files
            .map(|file| StoredFile { path: self.folder.join(&file.name), length: file.bytes, last: file.last })
            .collect()
    }

    fn report(&mut self, written: &io::Result<()>) {
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                let folder = self.folder.display();
                tracing::warn!("cannot write to {folder}; until a write succeeds, log lines are lost: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Returns the owner and the number of a file by its name; `None` if the file does not belong to the log.
fn owner_of(name: &str) -> Option<(String, u64)> {
    if let Some(age) = EARLIER_FILES.iter().position(|earlier| *earlier == name) {
        return Some((EARLIER.to_owned(), age as u64));
    }
    let (owner, number) = name.strip_suffix(".jsonl")?.rsplit_once('.')?;
    let number = number.parse().ok()?;
    match owner.split_once('.') {
        Some((app, function)) => Some((format!("{app}/{function}"), number)),
        None => (owner == EVOKE).then(|| (owner.to_owned(), number)),
    }
}

/// Opens a file for appending, and returns its length. If a crash cut off the last line, the buffer of the writer
/// starts with a line break, so that the next line is not appended to the cut line.
fn open_to_append(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    let mut length = file.metadata()?.len();
    let mut is_cut = false;
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        is_cut = last != *b"\n";
    }
    let mut writer = BufWriter::new(file);
    if is_cut {
        writer.write_all(b"\n")?;
        length += 1;
    }
    Ok((writer, length))
}
