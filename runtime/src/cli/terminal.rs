//! Shows the progress of `up` on standard error, and runs `build:` commands there.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::build;
use super::text::{escape_lines, print_error};
use crate::control::{AppError, Build, Host, Progress};
use evoke_model::clock::rfc3339;

/// The terminal of the user.
pub(super) struct Terminal;

impl Host for Terminal {
    fn report(&self, progress: Progress<'_>) {
        match progress {
            Progress::Warnings(warnings) => print_error(&warnings.styled()),
            Progress::Starting { admin } => say("starting", &format!("{admin} (admin)")),
            Progress::Loading { functions } => say("loading", &format!("{functions} functions")),
            Progress::Ready { http, admin } => {
                say("listening", &format!("{http} (sources), {admin} (admin)"));
                if !http.tls && !http.address.ip().to_canonical().is_loopback() {
                    let advice = "put a proxy with TLS in front of it";
                    say("note", &format!("sources can be reached from other machines, without TLS; {advice}"));
                }
                say("ready", "press Ctrl-C to stop");
            }
            Progress::CertificatesReplaced { listener, expires_ms } => {
                let until = expires_ms.map(|end| format!(", valid until {}", rfc3339(end))).unwrap_or_default();
                say("reloaded", &format!("the certificates of the {listener} listener{until}"));
            }
            Progress::Reloading { reason } => say("reloading", reason),
            Progress::Reloaded => say("reloaded", ""),
            Progress::Unchanged(AppError::Manifest(errors)) => {
                print_error(&errors.styled());
                say("unchanged", "the previous manifests stay active");
            }
            Progress::Unchanged(error) => say("unchanged", &format!("{error}; the previous manifests stay active")),
            Progress::Draining { limit } => {
                say("draining", &format!("at most {limit:?}; press Ctrl-C again to end at once"));
            }
            Progress::Ended { deliveries } => say(
                "ended",
                &format!(
                    "at once; {deliveries} deliveries were running and stay pending: they run again at the next start"
                ),
            ),
            Progress::Interrupted { deliveries } => {
                say(
                    "drained",
                    &format!("{deliveries} deliveries were still running; they run again at the next start"),
                );
            }
        }
    }

    fn build(&self, build: Build) -> BoxFuture<'static, Result<(), String>> {
        say("building", &format!("{} ({})", build.function, build.command));
        build::run(build).map(|result| result.map_err(|error| error.to_string())).boxed()
    }
}

/// Prints a progress line: a verb, aligned right, and its details.
fn say(verb: &str, details: &str) {
    let style = anstyle::Style::new().bold();
    print_error(&format!("{style}{verb:>10}{style:#} {}\n", escape_lines(details)));
}
