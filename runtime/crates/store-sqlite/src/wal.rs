//! Checks SQLite's write-ahead log before SQLite reads it. After a crash, SQLite uses the log only up to the first
//! invalid frame, because it assumes that the crash interrupted the last commit there. So a flipped bit in an earlier
//! frame would silently undo the commit of this frame and all later commits.
//!
//! Only the last commit can be incomplete, because a commit begins only after the commit before it was synced. So if a
//! frame is invalid and another commit follows the commit of this frame, the frame was valid before and is damaged now.
//! The check recognises a following commit by its checksum, which continues the checksum of the frame before. SQLite's
//! documentation describes the format in "WAL-mode File Format".

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use super::failure::{log_of, remedy};

/// The lengths in bytes of the log's header and of the header that each frame has.
pub(super) const HEADER: usize = 32;
pub(super) const FRAME_HEADER: usize = 24;
const VERSION: u32 = 3_007_000;
/// The unit that a disk writes atomically, in bytes.
const SECTOR: u64 = 512;
/// The header of a log contains random numbers (salts), which each frame of this log repeats. If the salts of a frame
/// and of the header differ in at most this many bits, one of the two counts as damaged; the salts of an earlier log
/// differ in more bits.
const SALT_BITS_MAX: u32 = 2;

/// Checks the log of the database at `path`. If the log is damaged, returns a description of the damage and how to
/// recover. Returns `None` if the log is intact or cannot be read.
pub(super) fn find_damage(path: &Path) -> Option<String> {
    let log = log_of(path);
    let found = scan(&log).ok()??;
    // Scan again, because another process may have written a frame during the first scan.
    if scan(&log).ok()?? != found {
        return None;
    }
    let (log, database) = (log.display(), path.display().to_string());
    let (what, lost, kept_bytes) = match found {
        Found::Header => ("its header is corrupt".to_owned(), "all commits in this file", 0),
        Found::Frame { number, committed_bytes } => {
            let what = format!("its frame {number} is corrupt, and later commits follow it");
            (what, "the commit with this frame and all later commits", committed_bytes)
        }
    };
    Some(format!(
        "{log} is damaged: {what}. {}. If there is no backup, stop Evoke and discard {lost}, with their events \
         and results: `truncate -s {kept_bytes} {log}`",
        capitalize(&remedy(&database)),
    ))
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Header,
    /// A frame that is damaged. Frames count from 1. `committed_bytes` is the length of the log up to the end of the
    /// last commit before this frame.
    Frame {
        number: u64,
        committed_bytes: u64,
    },
}

fn scan(path: &Path) -> io::Result<Option<Found>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    scan_log(file, length)
}

fn scan_log(log: impl Read + Seek, length: u64) -> io::Result<Option<Found>> {
    let mut log = BufReader::with_capacity(1 << 20, log);
    let mut header = [0; HEADER];
    if length < HEADER as u64 {
        return Ok(None);
    }
    log.read_exact(&mut header)?;
    let Some(format) = Format::of(&header) else {
        // SQLite syncs the header before it writes frames. Until then, the header may be all zeros.
        return Ok((header != [0; HEADER]).then_some(Found::Header));
    };
    let size = (FRAME_HEADER + format.page_bytes) as u64;
    let frames = (length - HEADER as u64) / size;
    let mut frame = vec![0; FRAME_HEADER + format.page_bytes];
    let (mut chain, mut last_commit) = (format.seed, 0);
    let mut first_bad = None;
    for number in 1..=frames {
        log.read_exact(&mut frame)?;
        let (head, page) = frame.split_at(FRAME_HEADER);
        let computed = format.sum(format.sum(chain, head.get(..8).unwrap_or_default()), page);
        if match_salts(head, &format) == SaltMatch::Exact && computed == stored(head) {
            chain = computed;
            last_commit = if read_u32(head, 4) != 0 { number } else { last_commit };
            continue;
        }
        first_bad = Some(number);
        // The damaged part may be the checksum of the frame, so continue with the computed checksum.
        if ends_commit(head, &format, number) && follows(&mut log, &mut frame, &format, computed, number, frames)? {
            return Ok(Some(Found::Frame { number, committed_bytes: HEADER as u64 + last_commit * size }));
        }
        break;
    }
    let Some(bad) = first_bad else { return Ok(None) };
    for number in bad..=frames {
        // `log` is positioned at this frame, or one or two frames after it. A relative seek keeps the content of the
        // buffer. An absolute seek would drop the content, and the whole buffer would be read again for each frame.
        let at = HEADER as u64 + (number - 1) * size;
        let distance = at.cast_signed() - log.stream_position()?.cast_signed();
        log.seek_relative(distance)?;
        log.read_exact(&mut frame)?;
        let sum = stored(&frame);
        if ends_commit(&frame, &format, number) && follows(&mut log, &mut frame, &format, sum, number, frames)? {
            return Ok(Some(Found::Frame { number: bad, committed_bytes: HEADER as u64 + last_commit * size }));
        }
    }
    Ok(None)
}

/// Reads the frame after the frame `number`; `log` must be positioned there. Returns true if the checksum of this next
/// frame continues the checksum `sum`: then it was written after a frame with the checksum `sum`.
fn follows(
    log: &mut impl Read,
    frame: &mut [u8],
    format: &Format,
    sum: (u32, u32),
    number: u64,
    frames: u64,
) -> io::Result<bool> {
    if number == frames {
        return Ok(false);
    }
    log.read_exact(frame)?;
    let (head, page) = frame.split_at(FRAME_HEADER);
    let computed = format.sum(format.sum(sum, head.get(..8).unwrap_or_default()), page);
    Ok(match_salts(head, format) == SaltMatch::Exact && computed == stored(head))
}

/// Returns true if a frame, which may be damaged, was the last one of a commit. The field that marks the end of a
/// commit and the salts must be in the same sector, which a disk writes as a whole. Otherwise the field may be a
/// remainder of an earlier log.
fn ends_commit(head: &[u8], format: &Format, number: u64) -> bool {
    let at = HEADER as u64 + (number - 1) * (FRAME_HEADER + format.page_bytes) as u64;
    let is_one_sector = at / SECTOR == (at + 8) / SECTOR;
    read_u32(head, 4) != 0 && is_one_sector && match_salts(head, format) != SaltMatch::None
}

#[derive(PartialEq, Eq)]
enum SaltMatch {
    Exact,
    Near,
    None,
}

/// Compares a frame's salts with those of the log; frames of an earlier log have other salts.
fn match_salts(head: &[u8], format: &Format) -> SaltMatch {
    let salts = (read_u32(head, 8), read_u32(head, 12));
    match (salts.0 ^ format.salts.0).count_ones() + (salts.1 ^ format.salts.1).count_ones() {
        0 => SaltMatch::Exact,
        1..=SALT_BITS_MAX => SaltMatch::Near,
        _ => SaltMatch::None,
    }
}

fn stored(head: &[u8]) -> (u32, u32) {
    (read_u32(head, 16), read_u32(head, 20))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_be_bytes).unwrap_or_default()
}

struct Format {
    is_big_endian: bool,
    page_bytes: usize,
    salts: (u32, u32),
    seed: (u32, u32),
}

impl Format {
    /// Parses a header; returns `None` if it is invalid.
    fn of(header: &[u8; HEADER]) -> Option<Self> {
        let is_big_endian = match read_u32(header, 0) {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return None,
        };
        let page_bytes = usize::try_from(read_u32(header, 8)).ok()?;
        let (salts, seed) =
            ((read_u32(header, 16), read_u32(header, 20)), (read_u32(header, 24), read_u32(header, 28)));
        let format = Self { is_big_endian, page_bytes, salts, seed };
        let is_valid = read_u32(header, 4) == VERSION
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && format.sum((0, 0), header.get(..24)?) == seed;
        is_valid.then_some(format)
    }

    fn sum(&self, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let (pairs, _) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in pairs {
            let (one, two) = if self.is_big_endian {
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
            } else {
                (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
            };
            first = first.wrapping_add(one).wrapping_add(second);
            second = second.wrapping_add(two).wrapping_add(first);
        }
        (first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, SeekFrom};

    const PAGE: usize = 512;
    const FRAMES: usize = 6_000;
    const SALTS: [u8; 8] = [0x5a; 8];

    /// Counts the bytes that are read.
    struct Counted<'a>(Cursor<&'a [u8]>, &'a mut usize);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            *self.1 += count;
            Ok(count)
        }
    }

    impl Seek for Counted<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    /// Returns a log with a valid header. Its frames have these salts and wrong checksums, and each ends a commit.
    fn log_of_invalid_frames(salts: [u8; 8]) -> Vec<u8> {
        let unsigned = [0x377f_0682, VERSION, PAGE as u32, 0].map(u32::to_be_bytes).concat();
        let unsigned = [&unsigned[..], &SALTS].concat();
        let format = Format { is_big_endian: false, page_bytes: PAGE, salts: (0, 0), seed: (0, 0) };
        let (first, second) = format.sum((0, 0), &unsigned);
        let header = [&unsigned[..], &first.to_be_bytes(), &second.to_be_bytes()].concat();
        let frame = [&1_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &salts, &[7; 8], &[0; PAGE]].concat();
        [header, frame.repeat(FRAMES)].concat()
    }

    #[test]
    fn invalid_frames_are_read_at_most_twice() {
        // Frames of an earlier log; and frames for each of which the scan reads the next one, too, and then goes back.
        for salts in [[0xa5; 8], SALTS] {
            let (log, mut read) = (log_of_invalid_frames(salts), 0);
            let found = scan_log(Counted(Cursor::new(&log), &mut read), log.len() as u64).unwrap();
            assert_eq!(found, None);
            assert!((log.len()..2 * log.len()).contains(&read), "{read} bytes of {}", log.len());
        }
    }
}
