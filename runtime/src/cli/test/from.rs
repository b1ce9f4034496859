//! `test --from`: fetches recorded attempts from a running Evoke or, with `--offline`, from the store in a folder, and
//! writes the file with their tests.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::app::RecordedFile;
use crate::cli::client::{Client, parse};
use crate::cli::text::{escape, print, print_error};
use crate::cli::{Common, Failure};
use evoke_model::DeliveryId;
use evoke_model::recording::Recording;

/// The default of `--last`.
const LAST_DEFAULT: usize = 20;

/// The recorded attempts from which tests are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// All recorded attempts of a delivery.
    Delivery(DeliveryId),
    /// The newest recorded attempts of a function, `app/function`.
    Function(String),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.parse(), text.contains('/')) {
            (Ok(delivery), _) => Ok(Self::Delivery(delivery)),
            (Err(_), true) => Ok(Self::Function(text.to_owned())),
            (Err(_), false) => {
                Err("write the number of a delivery, such as 42, or a function, such as shop/charge".into())
            }
        }
    }
}

/// A line of the response: a recording, or the description of a damaged recording.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Damaged { damaged: String },
    Recording(Box<Recording>),
}

/// Returns the recordings, the oldest first. Prints a note for each recording that is damaged, and for each attempt
/// that was not recorded.
pub(super) fn fetch(
    common: &Common,
    from: &From,
    attempt: Option<u32>,
    last: Option<usize>,
) -> Result<Vec<Recording>, Failure> {
    let mut query = match from {
        From::Delivery(delivery) => vec![("delivery", delivery.to_string())],
        From::Function(function) => {
            vec![("function", function.clone()), ("limit", last.unwrap_or(LAST_DEFAULT).to_string())]
        }
    };
    query.extend(attempt.map(|attempt| ("attempt", attempt.to_string())));
    let (mut recordings, mut left_out) = (Vec::new(), 0);
    Client::find(common)?.lines("/api/v1/recordings", &query, |line| {
        match parse(line)? {
            Entry::Damaged { damaged } => {
                left_out += 1;
                print_error(&format!("{}\n", escape(&damaged)));
            }
            Entry::Recording(recording) => match &recording.not_recorded {
                None => recordings.push(*recording),
                Some(reason) => {
                    left_out += 1;
                    let Recording { delivery_id, attempt, .. } = &*recording;
                    let text = format!("attempt {attempt} of delivery {delivery_id} was not recorded: {reason}");
                    print_error(&format!("{}\n", escape(&text)));
                }
            },
        }
        Ok(())
    })?;
    if matches!(from, From::Function(_)) {
        recordings.reverse();
    }
    match (recordings.is_empty(), left_out) {
        (false, _) => Ok(recordings),
        (true, 0) => Err(Failure::Failed(
            "there is no recorded attempt; attempts are recorded if the function has `record: true`".to_owned(),
        )),
        (true, _) => Err(Failure::Reported),
    }
}

/// Returns the file for the tests. Without `--out`, the tests of a delivery are written beside the manifest, and the
/// tests of a function are not written.
pub(super) fn file(from: &From, out: Option<&Path>) -> RecordedFile {
    match (out, from) {
        (Some(out), _) if is_stdout(out) => RecordedFile::Beside("recorded".to_owned()),
        (Some(out), _) => RecordedFile::At(out.to_owned()),
        (None, From::Delivery(delivery)) => RecordedFile::Beside(format!("delivery-{delivery}")),
        (None, From::Function(_)) => RecordedFile::None,
    }
}

pub(super) fn is_stdout(out: &Path) -> bool {
    out == Path::new("-")
}

/// Writes the tests. A file that already exists is replaced only if `replace` is true.
pub(super) fn write(recorded: Option<(PathBuf, String)>, to_stdout: bool, replace: bool) -> Result<(), Failure> {
    let Some((path, text)) = recorded else { return Ok(()) };
    if to_stdout {
        return print(text.trim_end());
    }
    let mut options = File::options();
    options.write(true);
    // Recordings can contain credentials. `create_new` follows no link and opens no existing file, so the tests are
    // not written into a file that other users can read.
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    let path = path.display();
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let advice = "replace it with --update, or name another file with --out";
            Failure::Failed(format!("{path} already exists; {advice}"))
        }
        _ => Failure::Failed(format!("cannot write {path}: {error}")),
    })?;
    print_error(&format!("wrote {path}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_update_an_existing_file_and_a_link_to_no_file_stay_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, target) =
            (folder.path().join("file"), folder.path().join("link"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let write = |path: &Path, text: &str, replace| write(Some((path.to_owned(), text.to_owned())), false, replace);
        write(&file, "1", false).unwrap();
        for path in [&file, &link] {
            let error = write(path, "2", false).unwrap_err().to_string();
            assert!(error.contains("already exists; replace it with --update"), "{error}");
        }
        assert!(!target.exists());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
        write(&file, "", true).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    }
}
