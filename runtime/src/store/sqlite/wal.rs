//! Looks at SQLite's log before SQLite does. After a crash SQLite takes a log up to its first frame that is not whole, as
//! that is where a commit was torn; so a bit that flipped further ahead would silently undo all commits behind it.
//!
//! A commit is torn only when it was the last: the next one is begun after it was synced. So where a frame is not whole,
//! and behind the end of its commit another one begins, the frame was whole once. That another one begins is seen by its
//! sum, which goes on from that of the frame before. The format is that of "WAL-mode File
//! Format" in SQLite's documentation.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::failure::remedy;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const VERSION: u32 = 3_007_000;
/// What a disk writes whole, or not at all.
const SECTOR: u64 = 512;
/// Salts that differ by so few bits are the same, and were damaged: those of an earlier log are as good as random.
const SALT_BITS_MAX: u32 = 2;

/// Why the log of the database at `path` is damaged, and what to do; `None` when it is not, or nobody can say.
pub(super) fn damage(path: &Path) -> Option<String> {
    let mut name: OsString = path.into();
    name.push("-wal");
    let found = scan(Path::new(&name)).ok()??;
    // While somebody writes to it, a frame that was half there is whole now.
    if scan(Path::new(&name)).ok()?? != found {
        return None;
    }
    let (log, database) = (Path::new(&name).display(), path.display().to_string());
    let (what, without) = match found {
        Found::Header => ("its header is not what was written".to_owned(), 0),
        Found::Frame { number, whole_bytes } => {
            (format!("its frame {number} is not what was written, and more was committed after it"), whole_bytes)
        }
    };
    Some(format!(
        "{log} is damaged: {what}. {}; or go on without what was committed last: `truncate -s {without} {log}`",
        capitalised(&remedy(&database)),
    ))
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Header,
    /// Counts from 1; the log up to the last commit before it has so many bytes.
    Frame {
        number: u64,
        whole_bytes: u64,
    },
}

fn scan(path: &Path) -> io::Result<Option<Found>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut log = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if length < HEADER as u64 {
        return Ok(None);
    }
    log.read_exact(&mut header)?;
    let Some(format) = Format::of(&header) else {
        // It was synced before there were frames; until then it is zeros.
        return Ok((header != [0; HEADER]).then_some(Found::Header));
    };
    let size = (FRAME_HEADER + format.page_bytes) as u64;
    let frames = (length - HEADER as u64) / size;
    let mut frame = vec![0; FRAME_HEADER + format.page_bytes];
    let (mut chain, mut whole) = (format.seed, 0);
    let mut first_bad = None;
    for number in 1..=frames {
        log.read_exact(&mut frame)?;
        let (head, page) = frame.split_at(FRAME_HEADER);
        let computed = format.sum(format.sum(chain, head.get(..8).unwrap_or_default()), page);
        if is_live(head, &format) == Live::Exactly && computed == stored(head) {
            chain = computed;
            whole = if word(head, 4) != 0 { number } else { whole };
            continue;
        }
        first_bad = Some(number);
        // Its own sum may be what is damaged.
        if ends_commit(head, &format, number) && follows(&mut log, &mut frame, &format, computed, number, frames)? {
            return Ok(Some(Found::Frame { number, whole_bytes: HEADER as u64 + whole * size }));
        }
        break;
    }
    let Some(bad) = first_bad else { return Ok(None) };
    for number in bad..=frames {
        log.seek(SeekFrom::Start(HEADER as u64 + (number - 1) * size))?;
        log.read_exact(&mut frame)?;
        let sum = stored(&frame);
        if ends_commit(&frame, &format, number) && follows(&mut log, &mut frame, &format, sum, number, frames)? {
            return Ok(Some(Found::Frame { number: bad, whole_bytes: HEADER as u64 + whole * size }));
        }
    }
    Ok(None)
}

/// Whether the frame behind `number`, where `log` stands, was written after one with this sum.
fn follows(
    log: &mut BufReader<File>,
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
    Ok(is_live(head, format) == Live::Exactly && computed == stored(head))
}

/// Whether a frame that may not be whole ended a commit. What says so has to be in the same sector as what says that the
/// frame is of this log: else it may be left from another.
fn ends_commit(head: &[u8], format: &Format, number: u64) -> bool {
    let at = HEADER as u64 + (number - 1) * (FRAME_HEADER + format.page_bytes) as u64;
    let is_one_sector = at / SECTOR == (at + 8) / SECTOR;
    word(head, 4) != 0 && is_one_sector && is_live(head, format) != Live::Not
}

#[derive(PartialEq, Eq)]
enum Live {
    Exactly,
    Nearly,
    Not,
}

/// Whether a frame is of this log, and not left from one before it.
fn is_live(head: &[u8], format: &Format) -> Live {
    let salts = (word(head, 8), word(head, 12));
    match (salts.0 ^ format.salts.0).count_ones() + (salts.1 ^ format.salts.1).count_ones() {
        0 => Live::Exactly,
        1..=SALT_BITS_MAX => Live::Nearly,
        _ => Live::Not,
    }
}

fn stored(head: &[u8]) -> (u32, u32) {
    (word(head, 16), word(head, 20))
}

fn word(bytes: &[u8], at: usize) -> u32 {
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
    /// What a header says; `None` when it is none.
    fn of(header: &[u8; HEADER]) -> Option<Self> {
        let is_big_endian = match word(header, 0) {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return None,
        };
        let page_bytes = usize::try_from(word(header, 8)).ok()?;
        let (salts, seed) = ((word(header, 16), word(header, 20)), (word(header, 24), word(header, 28)));
        let format = Self { is_big_endian, page_bytes, salts, seed };
        let is_one = word(header, 4) == VERSION
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && format.sum((0, 0), header.get(..24)?) == seed;
        is_one.then_some(format)
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
