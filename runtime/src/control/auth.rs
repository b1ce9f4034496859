//! Makes the guards of http sources. The guard of a source verifies the senders of its requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::secrets;
use evoke_http::source::HttpSource;
use evoke_http::source::auth::{Auth, Guard, SecretError};
use evoke_manifest::units::duration_text;
use evoke_manifest::{Checked, Diagnostic, Diagnostics, SecretRef, Source};
use evoke_telemetry::{AuthMetrics, Metrics};

/// The guards of http sources, by the URI of the source.
pub(super) type Guards = BTreeMap<String, Arc<Guard>>;

/// Makes the guards of the http sources of these manifests. Returns an error for each secret that cannot be used.
pub(super) fn guards(manifests: &[Checked], metrics: &Metrics) -> Result<Guards, Diagnostics> {
    let (mut guards, mut errors) = (Guards::new(), Vec::new());
    for checked in manifests {
        for (source, _) in checked.manifest.all_sources() {
            match guard(source, |uri| metrics.auth(uri)) {
                None => {}
                Some(Ok(guard)) => {
                    guards.insert(source.uri.clone(), Arc::new(guard));
                }
                Some(Err(found)) => {
                    let error = |SecretError { message, help }| checked.error_at(source.span, message, help);
                    errors.extend(found.into_iter().map(error));
                }
            }
        }
    }
    if errors.is_empty() { Ok(guards) } else { Err(errors.into_iter().collect()) }
}

/// Returns an error for each source that accepts a signature for longer than `dedup_window`. The id of an event is only
/// remembered for `dedup_window`. So after this time, such a source would accept a copy of an earlier request as a new
/// event.
pub(crate) fn check_dedup_window(manifests: &[Checked], dedup_window: Duration) -> Result<(), Diagnostics> {
    let of_source = |checked: &Checked, source: &Source| {
        let auth = source.settings.get::<HttpSource>()?.auth.as_ref()?;
        let lifetime = auth.signature_lifetime().filter(|lifetime| dedup_window < *lifetime)?;
        let message = format!(
            "{} accepts a signed request for {}, but the dedup window is only {}: after the window, a recorded request \
             that is sent again would be a new event",
            source.uri,
            duration_text(lifetime),
            duration_text(dedup_window)
        );
        let tolerance = match auth {
            Auth::Hmac(_) => format!(", or lower `tolerance` to {}", duration_text(dedup_window / 2)),
            _ => String::new(),
        };
        let window = duration_text(lifetime);
        let help = format!("start Evoke with `--dedup-window {window}` or longer (the default is 24h){tolerance}");
        Some(checked.error_at(source.span, message, help))
    };
    let errors = manifests
        .iter()
        .flat_map(|checked| checked.manifest.all_sources().filter_map(move |(source, _)| of_source(checked, source)));
    let errors: Diagnostics = errors.collect();
    if errors.has_errors() { Err(errors) } else { Ok(()) }
}

/// Returns a warning for each secret of an http source, if the secret cannot be used on this machine. `up` would refuse
/// the manifest.
pub(crate) fn warnings(checked: &Checked) -> Vec<Diagnostic> {
    let of_source = |source: &Source| {
        let errors = guard(source, |_| Arc::new(AuthMetrics::default())).and_then(Result::err).unwrap_or_default();
        let warning =
            |SecretError { message, help }| Diagnostic::warning(&checked.source, source.span, message).help(help);
        errors.into_iter().map(warning).collect::<Vec<_>>()
    };
    checked.manifest.all_sources().flat_map(|(source, _)| of_source(source)).collect()
}

/// Makes the guard of a source. Returns `None` if the source does not verify its senders.
fn guard(source: &Source, metrics: impl Fn(&str) -> Arc<AuthMetrics>) -> Option<Result<Guard, Vec<SecretError>>> {
    let auth = source.settings.get::<HttpSource>()?.auth.as_ref()?;
    let read = |what: &str, location: &SecretRef| match secrets::read_one(what, location) {
        Ok(secret) => Ok(secret.expose().to_owned()),
        Err((message, help)) => Err(SecretError { message, help }),
    };
    Some(Guard::new(auth, metrics(&source.uri), read))
}
