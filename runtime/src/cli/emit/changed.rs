//! `--when-changed KEY`: reads a series of JSON values (readings), and sends an event only for a reading that differs
//! from the one before.
//!
//! The file `changed/KEY.json` stores the data of the last event. It also stores the event that is being sent, until
//! Evoke has confirmed this event or, with `--spool`, until the event is in the spool. If the command ends before that,
//! the next command sends the event again, with the same id. So each change makes one event, even if the command or
//! Evoke ends at any point.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::Failure;
use super::super::client::encode_segment;
use super::draft::Draft;
use super::lines::Line;
use super::sender::Sender;
use super::spool::{Spool, prepare_folder};
use super::stream::{Stream, cannot_read, stdin_lines, wrong_line};
use evoke_fs::PrivateFolder;
use evoke_model::Json;

/// The maximum size of `changed/KEY.json` in bytes. Two events of the maximum size fit, even if every character is
/// escaped.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The maximum length of a percent-encoded key, in bytes. The key is a part of a file name, whose length is limited.
const KEY_BYTES_MAX: usize = 64;

/// The content of `changed/KEY.json`.
#[derive(Default, Serialize, Deserialize)]
struct Last {
    /// The data of the last event.
    data: Option<Json>,
    /// The data and the JSON form of the event that is being sent.
    sending: Option<(Json, String)>,
}

/// The last reading of one key, with the file that stores it.
struct Readings {
    folder: PrivateFolder,
    /// The name of the file in the folder.
    file: String,
    last: Last,
    /// Held to keep the file locked, so that two commands do not send the same change.
    _lock: File,
}

/// Sends an event for each reading that differs from the one before. If `reading` is `Some`, it has the only reading:
/// the value of `--data`, or `None` without `--data`, which counts as `null`. If `reading` is `None`, each line of
/// standard input is a reading.
pub(super) fn run(
    stream: &Stream<'_>,
    folder: &Path,
    key: &str,
    reading: Option<Option<Box<RawValue>>>,
) -> Result<(), Failure> {
    if stream.spool.is_none()
        && let Some(data) = folder.parent().filter(|data| !data.is_dir())
    {
        let folder = data.display();
        return Err(Failure::NotRunning(format!(
            "there is no data folder {folder}, which stores the last reading; name another one before the command \
             (evoke --data DIR emit …), or use --spool DIR"
        )));
    }
    // A wrong key is reported before a folder is made.
    file_name(key)?;
    let draft = stream.draft.clone();
    if stream.spool.is_some() {
        let spool = stream.open_spool()?;
        let mut readings = Readings::open(folder, key)?;
        let feed = move |spool: &Spool| readings.feed(&draft, reading, &mut |event| spool.append(&[event.to_owned()]));
        return stream.send_spooled(&spool, feed);
    }
    prepare_folder(folder, &[]).map_err(|what| cannot_store(folder, &what))?;
    let mut readings = Readings::open(folder, key)?;
    let (mut sender, mut last) = (Sender::new(stream.common), 0);
    readings.feed(&draft, reading, &mut |event| {
        stream.send_now(&mut sender, &[event.as_bytes()], |_| last + 1, last)?;
        last += 1;
        Ok(())
    })?;
    stream.report(sender.sent, 0, false)
}

/// Returns the name of the file for a key, without its ending.
fn file_name(key: &str) -> Result<String, Failure> {
    let name = encode_segment(key);
    if key.starts_with('.') {
        return Err(Failure::Usage(format!("--when-changed {key}: the key must not begin with a dot")));
    }
    if name.is_empty() || name.len() > KEY_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "--when-changed {key}: the percent-encoded key has {} bytes; it must have 1 to {KEY_BYTES_MAX} bytes",
            name.len()
        )));
    }
    Ok(name)
}

fn cannot_store(folder: &Path, what: &str) -> Failure {
    Failure::Failed(format!("cannot store the last reading in {}: {what}", folder.display()))
}

impl Readings {
    /// Reads the last reading of a key from the subfolder `changed` of `folder`, and creates the subfolder if it does
    /// not exist. The caller has prepared `folder`.
    fn open(folder: &Path, key: &str) -> Result<Self, Failure> {
        let name = file_name(key)?;
        let failed = |what: String| cannot_store(folder, &what);
        let folder = prepare_folder(&folder.join("changed"), &[]).map_err(failed)?;
        let options = &mut OpenOptions::new();
        let lock = folder.open_file(&format!("{name}.lock"), options.write(true).create(true).truncate(false));
        let lock = lock.map_err(|error| failed(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(failed(format!("another `evoke emit --when-changed {key}` is running; wait for its end")));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
        }
        let file = format!("{name}.json");
        let wrong = |what: String| {
            let path = folder.path().join(&file);
            failed(format!("{} is {what}; remove it, and the next reading is sent as a change", path.display()))
        };
        let mut text = Vec::new();
        let opened = folder.open_file(&file, OpenOptions::new().read(true));
        let last = match opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)) {
            Ok(length) if length as u64 > FILE_BYTES_MAX => {
                return Err(wrong(format!("larger than {FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => serde_json::from_slice::<Last>(&text).map_err(|error| wrong(format!("damaged ({error})")))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Last::default(),
            Err(error) => return Err(failed(error.to_string())),
        };
        Ok(Self { folder, file, last, _lock: lock })
    }

    fn feed(
        &mut self,
        draft: &Draft,
        reading: Option<Option<Box<RawValue>>>,
        send: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.finish_sending(send)?;
        if let Some(reading) = reading {
            let text = reading.as_deref().map_or("null", RawValue::get);
            return self.take(draft, text.as_bytes(), send).map_err(|error| error.unwrap_or_else(Failure::Failed));
        }
        let mut lines = stdin_lines();
        loop {
            let group = lines.next_group().map_err(|error| cannot_read(&error))?;
            if group.is_empty() {
                return Ok(());
            }
            for Line { number, text } in group {
                let taken = self.take(draft, &text, send);
                taken.map_err(|error| error.unwrap_or_else(|mistake| wrong_line(number, &mistake)))?;
            }
        }
    }

    /// Sends an event if the reading differs from the last one. The returned error is `Ok(failure)` if the command
    /// failed, and `Err(text)` if the reading is wrong; the text describes the mistake.
    fn take(
        &mut self,
        draft: &Draft,
        reading: &[u8],
        send: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Result<Failure, String>> {
        let data: Json = serde_json::from_slice(reading).map_err(|error| mistake(format!("not JSON: {error}")))?;
        if self.last.data.as_ref() == Some(&data) {
            return Ok(());
        }
        let event = draft.line_to_json(reading).map_err(mistake)?;
        self.last.sending = Some((data, event));
        self.store().and_then(|()| self.finish_sending(send)).map_err(Ok)
    }

    /// Sends the event in [`Last::sending`], if there is one. Then stores the data of this event as [`Last::data`].
    fn finish_sending(&mut self, send: &mut dyn FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        let Some((data, event)) = &self.last.sending else { return Ok(()) };
        send(event)?;
        self.last = Last { data: Some(data.clone()), sending: None };
        self.store()
    }

    fn store(&self) -> Result<(), Failure> {
        // Serialising JSON values and strings cannot fail.
        let text = serde_json::to_vec(&self.last).unwrap_or_default();
        let path = || self.folder.path().join(&self.file);
        let written = self.folder.replace(&self.file, &text, true);
        written.map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path().display())))
    }
}

/// Returns the error that [`Readings::take`] returns for a wrong reading.
fn mistake(text: String) -> Result<Failure, String> {
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft::new(Some("t".into()), None, None, None).unwrap()
    }

    fn read(readings: &mut Readings, text: &str, fail: bool) -> Vec<String> {
        let mut sent = Vec::new();
        let mut send = |event: &str| {
            sent.push(event.to_owned());
            if fail { Err(Failure::NotRunning("away".into())) } else { Ok(()) }
        };
        let _ = readings.take(&draft(), text.as_bytes(), &mut send);
        sent
    }

    #[test]
    fn only_a_reading_that_differs_is_an_event() {
        let folder = tempfile::tempdir().unwrap();
        let mut readings = Readings::open(folder.path(), "root disk/1").unwrap();
        let sent = ["1", "1", "1.0", r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#, "null", "1"]
            .map(|text| read(&mut readings, text, false).len());
        assert_eq!(sent, [1, 0, 1, 1, 0, 1, 1]);
        drop(readings);
        // The next command reads the last reading from the file. Another key has another file.
        assert_eq!(read(&mut Readings::open(folder.path(), "root disk/1").unwrap(), "1", false).len(), 0);
        assert_eq!(read(&mut Readings::open(folder.path(), "other").unwrap(), "1", false).len(), 1);
    }

    #[test]
    fn an_event_of_unknown_fate_is_sent_again_with_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let first = read(&mut Readings::open(folder.path(), "k").unwrap(), "1", true);
        let mut readings = Readings::open(folder.path(), "k").unwrap();
        let mut again = Vec::new();
        readings
            .finish_sending(&mut |event| {
                again.push(event.to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(again, first);
        assert_eq!(read(&mut readings, "1", false).len(), 0);
    }

    #[test]
    fn a_key_cannot_lead_out_of_the_folder_and_is_used_by_one_command() {
        let folder = tempfile::tempdir().unwrap();
        for key in ["", "..", ".", &"x".repeat(65), &"ä".repeat(11)] {
            assert!(Readings::open(folder.path(), key).is_err(), "{key}");
        }
        let held = Readings::open(folder.path(), "a/../../k").unwrap();
        assert_eq!(held.folder.path().join(&held.file), folder.path().join("changed/a%2F..%2F..%2Fk.json"));
        let error = Readings::open(folder.path(), "a/../../k").map(drop).unwrap_err().to_string();
        assert!(error.contains("another `evoke emit --when-changed a/../../k` is running"), "{error}");
    }
}
