//! Reads lines in groups. A group has all complete lines that one read returned. The events of a group are written to
//! the spool together or, without a spool, sent together. A read returns as soon as a part of the input is available,
//! so the line of a slow producer is sent immediately and does not wait for further lines.

use std::io::{self, BufRead};

/// The maximum length of a line in bytes. An event of the maximum size fits, even if every character is escaped.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The maximum number of lines per group.
const LINES_MAX: usize = 1_000;

/// The lines of a reader, with their numbers from 1.
pub(super) struct Lines<R> {
    reader: R,
    /// The number of the last line that was read.
    number: u64,
    /// The beginning of the next line, if its end was not read yet.
    part: Vec<u8>,
}

/// A line without its line break.
pub(super) struct Line {
    /// The number of the line, from 1.
    pub(super) number: u64,
    pub(super) text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, number: 0, part: Vec::new() }
    }

    /// Waits for a line that is not blank. Returns this line, and all further lines that the same read returned.
    /// Returns an empty list at the end of the input.
    pub(super) fn next_group(&mut self) -> io::Result<Vec<Line>> {
        let mut group = Vec::new();
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                // The last line may have no line break.
                let rest = std::mem::take(&mut self.part);
                if !rest.is_empty() {
                    self.push(&mut group, rest);
                }
                return Ok(group);
            }
            let mut used = 0;
            while group.len() < LINES_MAX
                && let Some(length) = buffer.get(used..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
            {
                let mut text = std::mem::take(&mut self.part);
                text.extend_from_slice(buffer.get(used..used + length).unwrap_or_default());
                used += length + 1;
                self.number += 1;
                if !text.trim_ascii().is_empty() {
                    group.push(Line { number: self.number, text });
                }
            }
            if group.len() < LINES_MAX {
                self.part.extend_from_slice(buffer.get(used..).unwrap_or_default());
                used = buffer.len();
            }
            self.reader.consume(used);
            if self.part.len() > LINE_BYTES_MAX {
                let message = format!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number + 1);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            if !group.is_empty() {
                return Ok(group);
            }
        }
    }

    fn push(&mut self, group: &mut Vec<Line>, text: Vec<u8>) {
        self.number += 1;
        if !text.trim_ascii().is_empty() {
            group.push(Line { number: self.number, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn groups(text: &[u8], buffer: usize) -> Vec<Vec<(u64, String)>> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, text));
        let mut groups = Vec::new();
        loop {
            let group = lines.next_group().unwrap();
            if group.is_empty() {
                return groups;
            }
            groups.push(group.into_iter().map(|line| (line.number, String::from_utf8(line.text).unwrap())).collect());
        }
    }

    #[test]
    fn lines_keep_their_numbers_in_groups_of_any_size() {
        let expected = [(1, "1"), (3, "22"), (4, "333")].map(|(number, text)| (number, text.to_owned()));
        for buffer in [1, 2, 3, 5, 100] {
            let all: Vec<_> = groups(b"1\n\n22\n333", buffer).concat();
            assert_eq!(all, expected, "{buffer}");
        }
        assert_eq!(groups(b"1\n22\n333\n", 100).len(), 1);
        assert_eq!(groups(b"\n \n", 100).len(), 0);
        let many = "1\n".repeat(2_500);
        assert_eq!(groups(many.as_bytes(), 1 << 20).iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_with_its_number() {
        let text = [b"1\n".to_vec(), vec![b' '; LINE_BYTES_MAX + 1]].concat();
        let mut lines = Lines::new(BufReader::with_capacity(4096, &text[..]));
        assert_eq!(lines.next_group().unwrap().len(), 1);
        let error = lines.next_group().map(|group| group.len()).unwrap_err();
        assert!(error.to_string().starts_with("line 2 is longer than"), "{error}");
    }
}
