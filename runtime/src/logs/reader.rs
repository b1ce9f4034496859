//! Reads the lines of a snapshot in pages, in the order in which they were logged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::files::StoredFile;
use super::line::{Filter, Line, from_stored};

/// Maximum number of files that a reader has open at the same time.
const OPEN_MAX: usize = 16;
/// Maximum number of lines that one scan finds, for a reader that returns all lines. With 32 bytes of memory for each
/// line, these are 512 KiB. All files together can have some 400,000 lines.
pub(super) const FOUND_MAX: usize = 16 * 1024;

/// Reads selected lines, oldest first. Keeps at most one page in memory, and 32 bytes for each line that the last scan
/// found. Blocks on files, so it must not be used in async tasks.
pub struct Reader {
    files: Vec<StoredFile>,
    filter: Filter,
    /// The last line of the last scan, if there may be further lines to return.
    rest: Option<Place>,
    /// The lines to return, in reverse order: the next line is the last entry.
    lines: Vec<Place>,
    /// Open files with their index in `files`; the most recently used file is the last entry.
    open: Vec<(u32, File)>,
}

/// The position of a line in the files. The order of positions is the order of the lines.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    seq: u64,
    /// Index in [`Reader::files`].
    file: u32,
    offset: u64,
    length: u32,
}

impl Reader {
    /// Finds the last `limit` selected lines. If `limit` is `None`, finds the first [`FOUND_MAX`] selected lines, and
    /// [`Self::scan`] finds the further ones.
    pub(super) fn new(files: Vec<StoredFile>, filter: Filter, limit: Option<usize>) -> io::Result<Self> {
        let mut reader = Self { files, filter, lines: Vec::new(), rest: None, open: Vec::new() };
        match limit {
            Some(limit) => reader.lines = last(&reader.files, &reader.filter, limit)?,
            None => {
                reader.rest = Some(Place::default());
                reader.scan()?;
            }
        }
        Ok(reader)
    }

    /// Returns true if all lines of the last scan were returned, and [`Reader::scan`] may find further lines.
    pub fn needs_scan(&self) -> bool {
        self.lines.is_empty() && self.rest.is_some()
    }

    /// Finds the lines after those that the last scan found, at most [`FOUND_MAX`].
    pub fn scan(&mut self) -> io::Result<()> {
        let Some(after) = self.rest.take() else { return Ok(()) };
        // The newest of the found lines is at the top of the heap, and is removed if there are too many.
        let mut found: BinaryHeap<Place> = BinaryHeap::new();
        for (index, file) in self.files.iter().enumerate().filter(|(_, file)| file.last >= after.seq) {
            for_each_selected(file, &self.filter, |seq, offset, length| {
                let place = Place { seq, file: u32::try_from(index).unwrap_or(u32::MAX), offset, length };
                if place > after {
                    found.push(place);
                }
                if found.len() > FOUND_MAX {
                    found.pop();
                }
            })?;
        }
        self.rest = found.peek().copied().filter(|_| found.len() >= FOUND_MAX);
        self.lines = found.into_sorted_vec();
        self.lines.reverse();
        Ok(())
    }

    /// Returns the next lines of the last scan as JSON text, with about `bytes_max` bytes. Returns an empty list at the
    /// end of these lines. Lines of files that were deleted meanwhile are left out.
    pub fn page(&mut self, bytes_max: usize) -> io::Result<Vec<String>> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(place) = self.lines.pop()
        {
            if let Some(line) = self.read(place)? {
                bytes += line.len();
                page.push(line);
            }
        }
        Ok(page)
    }

    fn read(&mut self, place: Place) -> io::Result<Option<String>> {
        let open = match self.open.iter().position(|(index, _)| *index == place.file) {
            Some(at) => self.open.remove(at),
            None => {
                let Some(file) = self.files.get(place.file as usize) else { return Ok(None) };
                let Some(opened) = open(file)? else { return Ok(None) };
                if self.open.len() >= OPEN_MAX {
                    self.open.remove(0);
                }
                (place.file, opened)
            }
        };
        let mut line = vec![0; place.length as usize];
        let read = open.1.read_exact_at(&mut line, place.offset);
        self.open.push(open);
        match read {
            Ok(()) => Ok(Some(from_stored(&String::from_utf8(line).unwrap_or_default()).1)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the positions of the last `limit` selected lines, newest first. Reads the files with the newest lines first.
/// Stops when `limit` lines are found and the remaining files have only older lines.
fn last(files: &[StoredFile], filter: &Filter, limit: usize) -> io::Result<Vec<Place>> {
    let mut newest_first: Vec<usize> = (0..files.len()).collect();
    newest_first.sort_by_key(|index| Reverse(files.get(*index).map_or(0, |file| file.last)));
    let mut found: BinaryHeap<Reverse<Place>> = BinaryHeap::new();
    for index in newest_first {
        let Some(file) = files.get(index) else { continue };
        let oldest = found.peek().map_or(0, |Reverse(place)| place.seq);
        if limit == 0 || (found.len() >= limit && file.last < oldest) {
            break;
        }
        for_each_selected(file, filter, |seq, offset, length| {
            found.push(Reverse(Place { seq, file: u32::try_from(index).unwrap_or(u32::MAX), offset, length }));
            if found.len() > limit {
                found.pop();
            }
        })?;
    }
    // The newest line is first, because `Reverse` inverts the order.
    Ok(found.into_sorted_vec().into_iter().map(|Reverse(place)| place).collect())
}

/// Opens a file; `None` if it was deleted.
fn open(file: &StoredFile) -> io::Result<Option<File>> {
    match File::open(&file.path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Calls `each` with the `seq`, the offset and the length of each selected line of a file. Skips lines that are empty,
/// invalid UTF-8 or invalid JSON, because a crash cut these lines off.
fn for_each_selected(file: &StoredFile, filter: &Filter, mut each: impl FnMut(u64, u64, u32)) -> io::Result<()> {
    let Some(opened) = open(file)? else { return Ok(()) };
    let mut reader = BufReader::new(opened.take(file.length));
    let (mut line, mut offset) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let length = line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len);
        let text = line.get(..length).and_then(|line| std::str::from_utf8(line).ok());
        if let (Some(text), Ok(length)) = (text, u32::try_from(length))
            // The type `Line` has no field `seq`, so the parser ignores the `seq` of the stored line.
            && let Ok(parsed) = serde_json::from_str::<Line>(text)
            && filter.matches(&parsed)
        {
            let (seq, _) = from_stored(text);
            each(seq.unwrap_or_else(|| microseconds(&parsed.at)), offset, length);
        }
        offset += read as u64;
    }
}

/// Parses the time of a line that an earlier version wrote. Returns microseconds since the Unix epoch.
fn microseconds(at: &str) -> u64 {
    at.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_microsecond()).ok()).unwrap_or(0)
}
