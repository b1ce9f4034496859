//! The spool: a folder that keeps events until Evoke has stored them.
//!
//! | file | content |
//! |---|---|
//! | `00000001.events`, … | events in order, one JSON text per line; full files before `position` are removed |
//! | `position` | the number of a file and an offset: Evoke has stored, or refused, all events before this position |
//! | `refused.jsonl` | the events that Evoke refused, each with the reason |
//! | `lock` | locked while a command uses the folder |
//!
//! When [`Spool::append`] returns, the events are on the disk. If the process ends during an append, the last line of
//! the file may be incomplete: it has no line break. The next command removes this line, because its append did not
//! return.
//!
//! The position is written after Evoke has stored the events. If the process ends in between, the next command sends
//! these events again. They have the same ids as before, so Evoke stores each of them only once.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::Failure;
use super::super::text::{escape, print_error};
use evoke_fs::PrivateFolder;
use evoke_model::Json;

/// When a file has this length in bytes, further events go to a new file. Only whole files are removed, so small files
/// free the space of stored events sooner.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The maximum size of a batch in bytes, unless the first event alone is larger. Evoke accepts requests of up to 4 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// The maximum number of events in a batch.
const BATCH_EVENTS_MAX: usize = 1_000;

const POSITION: &str = "position";
const REFUSED: &str = "refused.jsonl";

/// The number of a file, and an offset in this file in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    file: u64,
    offset: u64,
}

/// Events in order, to send in one request.
pub(super) struct Batch {
    pub(super) events: Vec<Vec<u8>>,
    /// The position after each event.
    ends: Vec<Position>,
}

/// The events of one folder. One thread appends events; another thread reads batches and confirms them.
pub(super) struct Spool {
    /// Each file is opened in this folder. If another folder is now at the path of this folder, opening a file fails.
    folder: PrivateFolder,
    bytes_max: u64,
    state: Mutex<State>,
    changed: Condvar,
    _lock: File,
}

struct State {
    /// The number and the length of each file, in order.
    files: VecDeque<(u64, u64)>,
    /// The last file, open for appending.
    last: Option<File>,
    position: Position,
    /// The size of `refused.jsonl`, in bytes.
    refused: u64,
    /// True after the last event was appended.
    is_closed: bool,
}

impl State {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum::<u64>() + self.refused
    }
}

impl Spool {
    /// Opens the folder, and creates it if it does not exist.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> Result<Self, Failure> {
        let failed = |what: String| Failure::Failed(format!("cannot use the spool {}: {what}", folder.display()));
        let folder = prepare_folder(folder, &["lock", POSITION, REFUSED]).map_err(failed)?;
        let lock = lock(&folder).map_err(failed)?;
        let state = State::load(&folder).map_err(|error| failed(error.to_string()))?;
        Ok(Self { folder, bytes_max, state: Mutex::new(state), changed: Condvar::new(), _lock: lock })
    }

    /// Writes events to the disk: all of them or none. Each event is in its JSON form, without a line break.
    ///
    /// # Errors
    /// The spool is full, or the disk has an error. Then none of the events is in the spool.
    pub(super) fn append(&self, events: &[String]) -> Result<(), Failure> {
        let size = events.iter().map(|event| event.len() as u64 + 1).sum::<u64>();
        let mut state = self.lock();
        let used = state.bytes();
        if used.saturating_add(size) > self.bytes_max {
            let advice = if state.refused >= used / 2 {
                format!("move the file {REFUSED} ({} bytes) away, or raise --spool-max", state.refused)
            } else {
                "start Evoke to empty the spool, or raise --spool-max".to_owned()
            };
            return Err(self.failed(&format!(
                "it is full: it has {used} of at most {} bytes, and the next events need {size} bytes; {advice}",
                self.bytes_max
            )));
        }
        let file = state.files.back().map_or(1, |(number, _)| *number);
        self.write(&mut state, events, size).map_err(|error| {
            self.failed(&format!("writing {} failed: {error}", self.path(&file_name(file)).display()))
        })?;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn write(&self, state: &mut State, events: &[String], size: u64) -> io::Result<()> {
        let append = |number, create_new| {
            self.folder.open_file(&file_name(number), OpenOptions::new().append(true).create_new(create_new))
        };
        match state.files.back().copied() {
            Some((_, length)) if length < FILE_BYTES_MAX && state.last.is_some() => {}
            Some((number, length)) if length < FILE_BYTES_MAX => {
                let file = append(number, false)?;
                // An append that failed may have left a part of its events.
                file.set_len(length)?;
                self.folder.sync()?;
                state.last = Some(file);
            }
            last => {
                state.last = None;
                let number = last.map_or(state.position.file, |(number, _)| number) + 1;
                let file = append(number, true)?;
                // The file exists now, also if the next step fails.
                state.files.push_back((number, 0));
                self.folder.sync()?;
                state.last = Some(file);
            }
        }
        let (Some(file), Some((_, length))) = (&mut state.last, state.files.back_mut()) else { return Ok(()) };
        let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        for event in events {
            text.extend_from_slice(event.as_bytes());
            text.push(b'\n');
        }
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
            // Removes the part that was written: after an error, none of the events may stay in the file. If this
            // fails, too, the next append tries again.
            let _ = file.set_len(*length);
            state.last = None;
            return Err(error);
        }
        *length += size;
        Ok(())
    }

    /// Ends the input: after the last event, [`Spool::next_batch`] returns `None`.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Returns true after [`Spool::close`].
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Waits until [`Spool::close`], but at most for `wait`.
    pub(super) fn wait_for_close(&self, wait: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), wait, |state| !state.is_closed));
    }

    /// Returns the next events that are not confirmed. If there are none, waits for further events, or returns `None`
    /// if the spool is closed.
    pub(super) fn next_batch(&self) -> Result<Option<Batch>, Failure> {
        let mut state = self.lock();
        loop {
            let position = state.position;
            let next = state
                .files
                .iter()
                .find(|(file, length)| *file > position.file || (*file == position.file && position.offset < *length));
            if let Some((file, length)) = next.copied() {
                drop(state);
                let offset = if file == position.file { position.offset } else { 0 };
                return self.read(Position { file, offset }, length).map(Some);
            }
            if state.is_closed {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads a batch of events that starts at a position. The first `length` bytes of the file are safely on the disk.
    fn read(&self, from: Position, length: u64) -> Result<Batch, Failure> {
        let name = file_name(from.file);
        let path = self.path(&name);
        let rest = usize::try_from(length - from.offset).unwrap_or(usize::MAX);
        let mut size = rest.min(BATCH_BYTES_MAX);
        loop {
            let mut text = vec![0; size];
            let file = self.folder.open_file(&name, OpenOptions::new().read(true));
            let read = file.and_then(|file| file.read_exact_at(&mut text, from.offset));
            read.map_err(|error| self.failed(&format!("reading {} failed: {error}", path.display())))?;
            let (mut events, mut ends, mut offset) = (Vec::new(), Vec::new(), from.offset);
            for line in text.split_inclusive(|byte| *byte == b'\n').take(BATCH_EVENTS_MAX) {
                let Some(event) = line.strip_suffix(b"\n") else { break };
                offset += line.len() as u64;
                events.push(event.to_vec());
                ends.push(Position { file: from.file, offset });
            }
            if !events.is_empty() {
                return Ok(Batch { events, ends });
            }
            if size == rest {
                let help = "move this file away to send the events in the other files";
                return Err(self.failed(&format!("{} is damaged at byte {}; {help}", path.display(), from.offset)));
            }
            // The next event is longer than this part of the file.
            size = size.saturating_mul(2).min(rest);
        }
    }

    /// Records that Evoke has stored the first `count` events of a batch, or refused them.
    pub(super) fn confirm(&self, batch: &Batch, count: usize) -> Result<(), Failure> {
        let Some(end) = count.checked_sub(1).and_then(|last| batch.ends.get(last)).copied() else { return Ok(()) };
        let text = format!("{:08} {}\n", end.file, end.offset);
        let written = self.folder.replace(POSITION, text.as_bytes(), false);
        written.map_err(|error| self.failed(&format!("writing the position failed: {error}")))?;
        let mut state = self.lock();
        state.position = end;
        // Removes the files whose events are all confirmed. The file to which events are appended stays until it is
        // full.
        while let Some((file, length)) = state.files.front().copied()
            && (file < end.file || (file == end.file && end.offset >= length && length >= FILE_BYTES_MAX))
        {
            state.files.pop_front();
            if state.files.is_empty() {
                state.last = None;
            }
            let _ = self.folder.remove(&file_name(file));
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Appends an event that Evoke refused, with the reason, to `refused.jsonl`. Returns the path of that file.
    pub(super) fn set_aside(&self, event: &[u8], reason: &str) -> Result<PathBuf, Failure> {
        let path = self.path(REFUSED);
        let text = String::from_utf8_lossy(event);
        // If a file of the spool is damaged, the text may not be JSON.
        let event = serde_json::from_str::<Json>(&text).unwrap_or_else(|_| Json(text.into()));
        let line = format!("{}\n", serde_json::json!({ "reason": reason, "event": event }));
        let mut state = self.lock();
        if state.refused.saturating_add(line.len() as u64) > self.bytes_max {
            let (path, max) = (path.display(), self.bytes_max);
            return Err(self.failed(&format!("{path} would exceed --spool-max ({max} bytes); move this file away")));
        }
        let opened = self.folder.open_file(REFUSED, OpenOptions::new().append(true).create(true));
        let written = opened.and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.sync_data()
        });
        written.map_err(|error| self.failed(&format!("writing {} failed: {error}", path.display())))?;
        state.refused += line.len() as u64;
        Ok(path)
    }

    fn failed(&self, what: &str) -> Failure {
        Failure::Failed(format!("the spool {}: {what}", self.folder.path().display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn load(folder: &PrivateFolder) -> io::Result<Self> {
        let mut numbers: Vec<u64> = folder.names()?.iter().filter_map(|name| file_number(name)).collect();
        numbers.sort_unstable();
        let mut files = VecDeque::new();
        for number in numbers {
            files.push_back((number, complete_length(folder, &file_name(number))?));
        }
        let position = load_position(folder, &files);
        let refused = match folder.open_file(REFUSED, OpenOptions::new().read(true)) {
            Ok(file) => file.metadata()?.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { files, last: None, position, refused, is_closed: false })
    }
}

/// Removes the last line of a file if the line is incomplete, because its append did not complete. Returns the new
/// length of the file.
fn complete_length(folder: &PrivateFolder, name: &str) -> io::Result<u64> {
    let mut file = folder.open_file(name, OpenOptions::new().read(true).write(true))?;
    let length = file.metadata()?.len();
    let (mut end, mut block) = (length, vec![0; 64 * 1024]);
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or_default();
        let Some(part) = block.get_mut(..size) else { break };
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(end)
}

/// Reads the position. If it is missing or damaged, returns the start of the first file, whose events are then sent
/// again.
fn load_position(folder: &PrivateFolder, files: &VecDeque<(u64, u64)>) -> Position {
    /// Maximum number of bytes to read. The text of every position is shorter.
    const BYTES_MAX: u64 = 64;
    let first = files.front().map_or(0, |(file, _)| *file);
    let start = Position { file: first, offset: 0 };
    let mut text = String::new();
    let opened = folder.open_file(POSITION, OpenOptions::new().read(true));
    let Ok(_) = opened.and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) else { return start };
    let stored = text.strip_suffix('\n').and_then(|text| {
        let (file, offset) = text.split_once(' ')?;
        Some(Position { file: file.parse().ok()?, offset: offset.parse().ok()? })
    });
    let is_valid = |at: &Position| match files.iter().find(|(file, _)| *file == at.file) {
        Some((_, length)) => at.offset <= *length && ends_a_line(folder, &file_name(at.file), at.offset),
        // The file of the position may already be removed. Then all remaining files come after that file.
        None => at.file < first || files.is_empty(),
    };
    stored.filter(is_valid).unwrap_or(start)
}

fn ends_a_line(folder: &PrivateFolder, name: &str, offset: u64) -> bool {
    let mut byte = [0];
    let read = |file: File| file.read_exact_at(&mut byte, offset - 1);
    offset == 0 || folder.open_file(name, OpenOptions::new().read(true)).and_then(read).is_ok_and(|()| byte == *b"\n")
}

fn file_name(number: u64) -> String {
    format!("{number:08}.events")
}

fn file_number(name: &str) -> Option<u64> {
    name.strip_suffix(".events")?.parse().ok()
}

/// Opens the folder, and creates it if it does not exist. Makes it private; see [`PrivateFolder::prepare`]. Prints
/// notes for the user. Returns an error as text.
pub(super) fn prepare_folder(folder: &Path, own: &[&str]) -> Result<PrivateFolder, String> {
    let prepared = PrivateFolder::prepare(folder, own).map_err(|error| error.to_string())?;
    prepared.notes.iter().for_each(|note| print_error(&format!("{}\n", escape(note))));
    Ok(prepared.folder)
}

/// Locks the folder for this process. The operating system releases the lock when the process ends.
fn lock(folder: &PrivateFolder) -> Result<File, String> {
    let path = folder.path().join("lock");
    let file = folder.open_file("lock", OpenOptions::new().write(true).create(true).truncate(false));
    let file = file.map_err(|error| error.to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err("another `evoke emit` uses it; give each producer a spool of its own".to_owned())
        }
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;
