//! Reads the trace that `shim.c` writes: records in the order of the calls, all numbers little-endian. A record is a
//! kind (1 byte), a file id (4), a number (8), a length (4) and a payload of that length.

use std::ops::Range;
use std::path::Path;

/// Identifies a file, not a name: a name that is removed and created again gets a new id.
pub(super) type FileId = u32;

/// Names are relative to the data folder: "" is the folder itself, ".." its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A file was opened for the first time. In a folder that was empty before, this call created it.
    Opened { file: FileId, name: String },
    /// Bytes were written at this offset; `bytes` is their range in [`Trace::bytes`].
    Written { file: FileId, offset: usize, bytes: Range<usize> },
    /// The file was truncated or extended to this length.
    Truncated { file: FileId, length: usize },
    /// A sync began.
    Syncing { file: FileId, serial: u64 },
    /// The sync with this serial number ended.
    Synced { file: FileId, serial: u64, ok: bool },
    /// A name was removed.
    Unlinked { name: String },
    /// A file was renamed.
    Renamed { from: String, to: String },
    /// A folder was created.
    FolderCreated { name: String },
    /// A success response is about to be sent.
    Sent { text: String },
}

pub(super) struct Trace {
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Record>,
}

impl Trace {
    pub(super) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut records = Vec::new();
        let mut at = 0;
        // A kill may cut off the last record; its call did not happen.
        while let Some(head) = bytes.get(at..at + 17) {
            let (file, number) = (u32::from_le_bytes(head[1..5].try_into().unwrap()), &head[5..13]);
            let number = u64::from_le_bytes(number.try_into().unwrap());
            let length = u32::from_le_bytes(head[13..17].try_into().unwrap()) as usize;
            let range = at + 17..at + 17 + length;
            let Some(payload) = bytes.get(range.clone()) else { break };
            let text = || String::from_utf8_lossy(payload).into_owned();
            let size = || usize::try_from(number).unwrap();
            records.push(match head[0] {
                1 => Record::Opened { file, name: text() },
                2 => Record::Written { file, offset: size(), bytes: range.clone() },
                3 => Record::Truncated { file, length: size() },
                4 => Record::Syncing { file, serial: number },
                5 => Record::Synced { file, serial: number, ok: payload.is_empty() },
                6 => Record::Unlinked { name: text() },
                7 => {
                    let both = text();
                    let (from, to) = both.split_once('\0').unwrap();
                    Record::Renamed { from: from.into(), to: to.into() }
                }
                8 => Record::FolderCreated { name: text() },
                9 => Record::Sent { text: text() },
                kind => panic!("the trace has a record of kind {kind}"),
            });
            at = range.end;
        }
        Self { bytes, records }
    }

    /// The id of the file that was first opened with this name. Panics if there is none.
    pub(super) fn file(&self, wanted: &str) -> FileId {
        let found = self.records.iter().find_map(|record| match record {
            Record::Opened { file, name } if name == wanted => Some(*file),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{wanted} was never opened"))
    }
}
