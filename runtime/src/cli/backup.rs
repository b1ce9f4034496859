//! `backup`: a copy of the store, running or not.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::text::{count, print, print_json};
use super::{Common, Failure};
use crate::store::sqlite;

/// Where to.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// A file that is not there yet; or a folder, in which the copy is called evoke.db, so that --data DIR names it
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Copied {
    /// The copy.
    path: String,
    /// Its size.
    bytes: u64,
    /// How many events it has.
    events: u64,
}

impl Backup {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        super::check::find_store(common)?;
        let to = self.file().map_err(|e| Failure::Failed(format!("cannot make {}: {e}", self.to.display())))?;
        if to.exists() {
            let to = to.display();
            return Err(Failure::Failed(format!(
                "{to} is there already, and no backup is replaced: name another file"
            )));
        }
        let report = sqlite::backup(common.folder(), &to).map_err(|e| Failure::Failed(format!("no backup: {e}")))?;
        let bytes = std::fs::metadata(&to).map_or(0, |metadata| metadata.len());
        let copied = Copied { path: to.display().to_string(), bytes, events: report.totals.events };
        if common.reach.json {
            return print_json(&copied);
        }
        let events = count(usize::try_from(copied.events).unwrap_or(usize::MAX), "event");
        print(&format!("{} has {events} in {bytes} bytes; it is whole, and synced to its disk", copied.path))
    }

    /// The file; makes a folder that was named as one.
    fn file(&self) -> std::io::Result<PathBuf> {
        let named_as_folder = self.to.as_os_str().as_encoded_bytes().ends_with(b"/");
        if named_as_folder {
            std::fs::create_dir_all(&self.to)?;
        }
        Ok(if named_as_folder || self.to.is_dir() { self.to.join("evoke.db") } else { self.to.clone() })
    }
}
