//! `console`: prints a link to the web console, and opens the link on a machine with a desktop. With `--offline`,
//! serves the console over the store of a stopped Evoke or a backup.

use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, parse};
use super::text::{print, print_error, print_json_text};
use super::{Common, Failure};
use crate::offline::Offline;

/// The path of the request that makes the code in the link.
const CODES: &str = "/api/v1/console/codes";

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
    /// The address for the link, if the listener has no TLS.
    address: Option<SocketAddr>,
}

impl Console {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        if let Some(folder) = &common.client_args.offline {
            return self.serve(folder, common);
        }
        let client = Client::find(common)?;
        let code = parse(&client.post(CODES, &json!({}))?)?;
        self.show(client.base_url()?, code, common.existing_data_folder().ok().as_deref(), common)
    }

    /// Serves the console over the store in a folder until Ctrl-C or SIGTERM.
    fn serve(&self, folder: &Path, common: &Common) -> Result<(), Failure> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = common.client_args.admin.as_ref().map_or(Ok(any_port), |given| given.to_listen(false));
        let address = address.map_err(Failure::Usage)?;
        let offline = Offline::serve(folder, address).map_err(failed)?;
        let response = offline.send(Method::POST, CODES).map_err(failed)?;
        let (status, body) = (response.status(), offline.wait(response.into_body().collect()));
        let body = body.map_err(|error| failed(error.into()))?.to_bytes();
        if status != StatusCode::CREATED {
            let reason = String::from_utf8_lossy(&body);
            return Err(Failure::Failed(format!("cannot make a link to the console: {reason}")));
        }
        let code = parse(&String::from_utf8_lossy(&body))?;
        let mut stop = offline.stop_signals().map_err(failed)?;
        self.show(&offline.url(), code, Some(offline.temporary()), common)?;
        print_error("press Ctrl-C to stop\n");
        offline.wait(stop.received());
        Ok(())
    }

    /// Prints the link. On a machine with a desktop, also writes a page with the link into `folder`, and opens this
    /// page in the browser. Other users must not be able to replace the page, so without a data folder of this user,
    /// `folder` is `None`.
    fn show(&self, base_url: &str, code: Code, folder: Option<&Path>, common: &Common) -> Result<(), Failure> {
        let Code { code, expires_in_s, address } = code;
        let base_url = address.map_or_else(|| base_url.to_owned(), |address| format!("http://{address}"));
        // Browsers do not send the fragment of a URL, so no server can log the code.
        let url = format!("{base_url}/#code={code}");
        if common.client_args.json {
            return print_json_text(&json!({ "url": url, "expires_in_s": expires_in_s }).to_string());
        }
        print(&url)?;
        print_error(&format!("the link is valid once, for {expires_in_s} seconds\n"));
        if let Some(folder) = folder
            && !self.no_open
            && std::io::stdout().is_terminal()
            && has_desktop()
        {
            open(folder, &url);
        }
        Ok(())
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: anyhow::Error) -> Failure {
    Failure::Failed(format!("{error:#}"))
}

fn has_desktop() -> bool {
    cfg!(target_os = "macos") || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Opens the link in the user's browser. Other users can see the arguments of a process, so the browser gets the name
/// of a file that has the link and that only the user can read. A failure is ignored, because the link was also
/// printed.
fn open(folder: &Path, url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let Ok(path) = std::path::absolute(folder.join("console.html")) else { return };
    // The code has only letters, digits, `-` and `_`, so it needs no escaping in HTML.
    let page =
        format!("<!doctype html><meta http-equiv=\"refresh\" content=\"0; url={url}\"><a href=\"{url}\">Console</a>\n");
    // Only the user can read the new file, because `process::protect` has set the umask.
    let _ = std::fs::remove_file(&path);
    let written = std::fs::File::create_new(&path).and_then(|mut file| file.write_all(page.as_bytes()));
    if written.is_ok() {
        let mut command = Command::new(program);
        let _ = command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}
