//! Reads the lines of a snapshot, a page at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, Take};

use super::Filter;

/// Reads selected lines, oldest first. Holds one page at most. Blocks on files: not for async tasks.
pub struct Reader {
    files: VecDeque<BufReader<Take<File>>>,
    filter: Filter,
    /// The number of selected lines before the first one to return.
    skip: usize,
}

impl Reader {
    /// Finds the last `limit` selected lines: counts lines, the newest file first, until there are enough.
    pub(super) fn new(files: Vec<(File, u64)>, filter: Filter, limit: usize) -> io::Result<Self> {
        let (mut readers, mut wanted, mut skip) = (VecDeque::new(), limit, 0);
        for (mut file, length) in files.into_iter().rev() {
            if wanted == 0 {
                break;
            }
            let mut counting = BufReader::new((&mut file).take(length));
            let mut count = 0;
            while let Some(line) = next_line(&mut counting)? {
                count += usize::from(filter.selects(&line));
            }
            file.rewind()?;
            skip = count.saturating_sub(wanted);
            wanted = wanted.saturating_sub(count);
            readers.push_front(BufReader::new(file.take(length)));
        }
        Ok(Self { files: readers, filter, skip })
    }

    /// Returns the next lines as JSON text, about `bytes_max` bytes; none at the end.
    pub fn page(&mut self, bytes_max: usize) -> io::Result<Vec<String>> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(file) = self.files.front_mut()
        {
            let Some(line) = next_line(file)? else {
                self.files.pop_front();
                continue;
            };
            if !self.filter.selects(&line) {
                continue;
            }
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            bytes += line.len();
            page.push(line);
        }
        Ok(page)
    }
}

impl Filter {
    fn selects(&self, line: &str) -> bool {
        serde_json::from_str(line).is_ok_and(|line| self.matches(&line))
    }
}

/// Returns the next line; `None` at the end. A line that a crash cut in half is empty or invalid JSON, also one that ends
/// within a character.
fn next_line(file: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if file.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(String::from_utf8(line).unwrap_or_default()))
}
