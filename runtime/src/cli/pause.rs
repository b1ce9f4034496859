//! `pause` and `resume`: stop and continue the deliveries of a function or an app.

use clap::Args;

use super::client::{Client, parse};
use super::text::{print, print_json_text};
use super::{Common, Failure};
use crate::admin::view::{Changed, PauseTarget};

/// The argument of `pause` and `resume`.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// A function, app/function, or an app
    #[arg(value_name = "FUNCTION|APP")]
    name: String,
}

impl Target {
    pub(super) fn pause(self, common: &Common) -> Result<(), Failure> {
        self.change(common, "pause", "paused; its deliveries stay pending until `evoke resume`", "was already paused")
    }

    pub(super) fn resume(self, common: &Common) -> Result<(), Failure> {
        self.change(common, "resume", "resumed", "was not paused")
    }

    fn change(self, common: &Common, action: &str, done: &str, unchanged: &str) -> Result<(), Failure> {
        let target = PauseTarget { name: self.name };
        let response = Client::find(common)?.post(&format!("/api/v1/{action}"), &target)?;
        if common.client_args.json {
            return print_json_text(&response);
        }
        let Changed { changed } = parse(&response)?;
        print(&format!("{} {}", target.name, if changed { done } else { unchanged }))
    }
}
