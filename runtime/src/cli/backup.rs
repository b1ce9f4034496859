//! `backup`: copies the store, while Evoke runs or is stopped.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::text::{count, print, print_json};
use super::{Common, Failure};
use evoke_store_sqlite as sqlite;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where to write the copy: a new file, or a folder. In a folder, the copy is named evoke.db, so that a command
    /// with --data DIR can open it
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
}

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct Copied {
    path: String,
    /// Size of the copy, in bytes.
    bytes: u64,
    /// Number of events in the copy.
    events: u64,
}

impl Backup {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let folder = super::check::store_folder(common)?;
        let to = self.file().map_err(|e| Failure::Failed(format!("cannot create {}: {e}", self.to.display())))?;
        if to.exists() {
            let to = to.display();
            return Err(Failure::Failed(format!(
                "{to} already exists, and a backup never replaces a file; name another file or folder"
            )));
        }
        let report = sqlite::backup(&folder, &to).map_err(|e| Failure::Failed(format!("cannot back up: {e}")))?;
        let bytes = std::fs::metadata(&to).map_or(0, |metadata| metadata.len());
        let copied = Copied { path: to.display().to_string(), bytes, events: report.totals.events };
        if common.client_args.json {
            return print_json(&copied);
        }
        let events = count(usize::try_from(copied.events).unwrap_or(usize::MAX), "event");
        print(&format!("{} has {events} in {bytes} bytes; the copy is verified and synced to disk", copied.path))
    }

    /// Returns the path of the copy. Creates the folder when the argument ends with `/`.
    fn file(&self) -> std::io::Result<PathBuf> {
        let named_as_folder = self.to.as_os_str().as_encoded_bytes().ends_with(b"/");
        if named_as_folder {
            std::fs::create_dir_all(&self.to)?;
        }
        Ok(if named_as_folder || self.to.is_dir() { self.to.join("evoke.db") } else { self.to.clone() })
    }
}
