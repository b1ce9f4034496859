//! The output of the compiler process: the compiled component, if there is one, then a report in JSON, then the lengths
//! of these two parts (8 and 4 bytes, little-endian).
//!
//! The compiled component comes first because the parent maps the file into memory from its start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};

use super::limits::{MESSAGE_BYTES_MAX, Refusal};

/// Size of the two lengths at the end of the output, in bytes.
const TRAILER_BYTES: u64 = 12;
/// Size limit of a report, in bytes. The largest part of a report is the list of tools that made the component, with at
/// most 64 entries of 256 bytes (`producers.rs`).
pub(super) const REPORT_BYTES_MAX: u32 = 256 * 1024;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The component was compiled.
    Compiled(Facts),
    /// The file is not a valid component. The message continues a sentence that starts with the file's name.
    Invalid(String),
    /// The file is larger than this limit, in bytes. The text form has a lower limit than the binary form.
    TooLarge(u64),
    /// The component exceeds a limit, and the compiler process noticed it. In other cases, the operating system ends
    /// the process at the limit, or the process aborts, and there is no report.
    Refused(Refusal),
}

/// Facts about a component that cannot be read from its compiled form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// True if the file is a core module, which was converted to a component.
    pub(crate) is_module: bool,
    /// Number of core modules.
    pub(crate) modules: u64,
    /// Number of functions in all modules, plus conversions between core functions and component functions.
    pub(crate) functions: u64,
    /// Size of the data of all modules, in bytes.
    pub(crate) data_bytes: u64,
    /// The tools that made the component, by field (see `producers.rs`).
    pub(crate) producers: BTreeMap<String, BTreeSet<String>>,
    /// When its program starts.
    pub(crate) start: Start,
}

/// When the program in a component starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// In each attempt.
    #[default]
    Attempt,
    /// When it is compiled; each attempt continues from there (`compile/snapshot.rs`).
    Compilation,
    /// In each attempt, although it asks for a start when it is compiled. The reason continues a sentence that starts with
    /// the program.
    Refused(String),
}

/// The part of the output that the parent reads.
#[derive(Debug)]
pub(crate) struct Output {
    /// Size of the compiled component at the start of the file, in bytes.
    pub(crate) artefact_bytes: u64,
    pub(super) report: Report,
}

impl Output {
    /// Reads the output that ends at the offset `end` of the file. Returns `None` if the output is incomplete or
    /// malformed.
    pub(crate) fn read(file: &File, end: u64) -> Option<Self> {
        let lengths_at = end.checked_sub(TRAILER_BYTES)?;
        let (mut artefact, mut report) = ([0; 8], [0; 4]);
        file.read_exact_at(&mut artefact, lengths_at).ok()?;
        file.read_exact_at(&mut report, lengths_at + 8).ok()?;
        let (artefact_bytes, report_bytes) = (u64::from_le_bytes(artefact), u32::from_le_bytes(report));
        if report_bytes > REPORT_BYTES_MAX || artefact_bytes.checked_add(report_bytes.into()) != Some(lengths_at) {
            return None;
        }
        let mut text = vec![0; usize::try_from(report_bytes).ok()?];
        file.read_exact_at(&mut text, artefact_bytes).ok()?;
        Some(Self { artefact_bytes, report: serde_json::from_slice::<Report>(&text).ok()? })
    }

    /// Returns the facts about a compiled component; `None` for any other report.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        match &self.report {
            Report::Compiled(facts) => Some(facts),
            _ => None,
        }
    }
}

/// Writes the output of a compilation. Without a compiled component, `artefact` is empty.
pub(super) fn write(to: &mut impl Write, artefact: &[u8], report: &Report) -> io::Result<()> {
    let text = serde_json::to_vec(report)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    to.write_all(artefact)?;
    to.write_all(&text)?;
    to.write_all(&(artefact.len() as u64).to_le_bytes())?;
    to.write_all(&length.to_le_bytes())?;
    to.flush()
}

/// Cuts a message to [`MESSAGE_BYTES_MAX`], and replaces control characters, because a terminal would interpret them.
pub(super) fn bounded(message: &str) -> String {
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    let clean = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    message.get(..end).unwrap_or_default().trim_end().chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(artefact: &[u8], report: &Report) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, artefact, report).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Output> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Output::read(&file, bytes.len() as u64)
    }

    #[test]
    fn a_written_output_is_read_back_and_any_torn_one_is_not() {
        let report = Report::Compiled(Facts { modules: 3, ..Facts::default() });
        let whole = written(b"code", &report);
        let output = read(&whole).unwrap();
        assert_eq!((output.artefact_bytes, &output.report), (4, &report));
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_none(), "{end} bytes");
        }
    }

    #[test]
    fn an_output_with_wrong_lengths_is_not_read() {
        let whole = written(b"code", &Report::TooLarge(1));
        for at in whole.len() - 12..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x81;
            assert!(read(&wrong).is_none(), "byte {at}");
        }
    }

    #[test]
    fn messages_are_cut_and_have_no_control_characters() {
        assert_eq!(bounded("a\x1b[31mb\nc\u{9b}"), "a\u{fffd}[31mb\nc\u{fffd}");
        assert_eq!(bounded(&"ä".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX);
    }
}
