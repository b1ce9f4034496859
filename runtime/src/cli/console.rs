//! `console`: prints a link that opens the web console, and opens it on a desktop.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, parse};
use super::text::{print, print_error, print_json_text};
use super::{Common, Failure};

#[derive(Debug, Args)]
pub(super) struct Console {
    /// Only print the link
    #[arg(long)]
    no_open: bool,
}

#[derive(Deserialize)]
struct Code {
    code: String,
    expires_in_s: u64,
}

impl Console {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let client = Client::find(common)?;
        let Code { code, expires_in_s } = parse(&client.post("/api/v1/console/codes", &json!({}))?)?;
        // Browsers send no fragment, so the code is in no log.
        let url = format!("{}/#code={code}", client.base_url()?);
        if common.client_args.json {
            return print_json_text(&json!({ "url": url, "expires_in_s": expires_in_s }).to_string());
        }
        print(&url)?;
        print_error(&format!("the link is valid once, for {expires_in_s} seconds\n"));
        if !self.no_open && std::io::stdout().is_terminal() && has_desktop() {
            open(common.data_folder(), &url);
        }
        Ok(())
    }
}

fn has_desktop() -> bool {
    cfg!(target_os = "macos") || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Opens the link in the user's browser. The link is in a file that only the user can read, because other users see the
/// arguments of a process. A failure is no error: the link was printed.
fn open(data: &Path, url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let Ok(path) = std::path::absolute(data.join("console.html")) else { return };
    // The code has only letters, digits, `-` and `_`.
    let page =
        format!("<!doctype html><meta http-equiv=\"refresh\" content=\"0; url={url}\"><a href=\"{url}\">Console</a>\n");
    // Files of this process are private: `process::protect`.
    let _ = std::fs::remove_file(&path);
    let written = std::fs::File::create_new(&path).and_then(|mut file| file.write_all(page.as_bytes()));
    if written.is_ok() {
        let mut command = Command::new(program);
        let _ = command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}
