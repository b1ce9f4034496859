//! File names as text: every path has exactly one name, and two different paths never have the same name.
//!
//! A name is the path relative to the folder, with `/` between its parts. Some bytes are written as U+FFFD and two hex
//! digits: bytes that are not UTF-8, and the bytes of control characters, of noncharacters and of U+FFFD itself.
//! CloudEvents 1.0, section 3.1, forbids control characters and noncharacters in strings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use evoke_model::event::is_excluded_char;
use evoke_model::hex_byte;

const ESCAPE: char = char::REPLACEMENT_CHARACTER;

/// Returns the name of `entry` in `folder`; the name of the top folder is empty.
pub(crate) fn join(folder: &str, entry: &[u8]) -> String {
    let mut name = String::with_capacity(folder.len() + 1 + entry.len());
    name.push_str(folder);
    if !folder.is_empty() {
        name.push('/');
    }
    for chunk in entry.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == ESCAPE || is_excluded_char(c) {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape(&mut name, byte));
            } else {
                name.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(&mut name, *byte));
    }
    name
}

/// Converts a path relative to the folder to its name.
pub(super) fn from_path(relative: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    relative.components().fold(String::new(), |folder, part| join(&folder, part.as_os_str().as_bytes()))
}

/// Converts a name back to the path relative to the folder.
pub(crate) fn path(name: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(name.len());
    let mut pieces = name.split(ESCAPE);
    bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let escaped = piece.as_bytes().split_first_chunk().and_then(|(digits, rest)| Some((hex_byte(*digits)?, rest)));
        let (byte, rest) = escaped.map_or((None, piece.as_bytes()), |(byte, rest)| (Some(byte), rest));
        bytes.extend(byte);
        bytes.extend_from_slice(rest);
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Returns the prefix that the names of all files in `folder` have.
pub(super) fn prefix(folder: &str) -> String {
    if folder.is_empty() { String::new() } else { format!("{folder}/") }
}

fn escape(name: &mut String, byte: u8) {
    name.push(ESCAPE);
    name.push_str(&format!("{byte:02X}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_converts_back_to_its_path() {
        for raw in [
            &b"a.csv"[..],
            "Übung.csv".as_bytes(),
            b"\xff.csv",
            b"a\nb",
            "\u{fffd}41".as_bytes(),
            b"%FF",
            b"\xc3(",
            "\u{ffff}\u{fdd0}".as_bytes(),
        ] {
            let name = join("x/y", raw);
            assert!(!name.chars().any(is_excluded_char), "{name:?}");
            assert_eq!(path(&name), PathBuf::from(OsString::from_vec([b"x/y/", raw].concat())), "{name:?}");
            assert_eq!(from_path(&path(&name)), name);
        }
        assert_eq!(join("", b"a"), "a");
        assert_ne!(join("", b"\xff"), join("", b"\xfe"));
    }
}
