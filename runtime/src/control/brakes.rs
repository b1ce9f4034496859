//! Pauses functions and apps for an operator. A pause is durable: it is a mark in the store, committed together with the
//! runtime event that reports it.

use std::collections::BTreeMap;

use serde_json::json;

use super::Control;
use evoke_manifest::parser::{join_with_or, nearest};
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::{FunctionId, Mark, runtime_events};
use evoke_store::StoreError;

/// The scope of the marks. Each key is a paused function, `app/function`, or a paused app.
const SCOPE: &str = "/evoke/paused";

/// Why a function or an app was not paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum BrakeError {
    /// There is no such function or app; the message has a suggestion.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense for this function; the message says why.
    #[error("{0}")]
    Conflict(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The paused functions and apps, by name, each with the time of the pause.
pub(super) type Paused = BTreeMap<String, UnixMs>;

/// Returns the time since which a function is paused, by itself or with its app.
pub(super) fn paused_since_ms(paused: &Paused, function: &str) -> Option<UnixMs> {
    let app = function.split_once('/').map(|(app, _)| app);
    let own = paused.get(function).copied();
    let with_app = app.and_then(|app| paused.get(app)).copied();
    own.into_iter().chain(with_app).min()
}

impl Control {
    /// Reads the paused functions and apps from the store. Must be called before the first manifests are applied.
    pub(crate) async fn restore_paused(&self) -> Result<(), StoreError> {
        let marks = self.0.parts.bus.marks(SCOPE).await?;
        let paused = marks.into_iter().map(|(name, value)| {
            // A mark that cannot be parsed still pauses: only the time is unknown.
            let since_ms = String::from_utf8(value).ok().and_then(|text| text.parse().ok());
            (name, since_ms.unwrap_or_default())
        });
        let paused = paused.collect();
        *self.paused() = paused;
        Ok(())
    }

    /// Pauses a function, `app/function`, or all functions of an app. Deliveries stay pending; running attempts
    /// continue. Returns `false` if it was paused before.
    ///
    /// # Errors
    /// [`BrakeError::NotFound`] if no active manifest declares it, [`BrakeError::Conflict`] if the function handles HTTP
    /// requests and has no deliveries, and [`BrakeError::Store`].
    pub async fn pause(&self, name: &str) -> Result<bool, BrakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        self.check_name(name)?;
        if self.paused().contains_key(name) {
            return Ok(false);
        }
        let now_ms = self.0.parts.clock.now_ms();
        // The pause comes before its report, so that a paused function does not receive it.
        self.paused().insert(name.to_owned(), now_ms);
        self.apply_paused();
        let reported = self.report(runtime_events::PAUSED, name, now_ms, Some(now_ms.to_string().into_bytes())).await;
        if reported.is_err() {
            self.paused().remove(name);
            self.apply_paused();
        }
        reported.map(|()| true).map_err(BrakeError::from)
    }

    /// Resumes a function or an app, also one that no active manifest declares any more. Returns `false` if it was not
    /// paused.
    ///
    /// # Errors
    /// [`BrakeError::NotFound`] if it is not paused and unknown, [`BrakeError::Conflict`] if it is paused with its app
    /// only, and [`BrakeError::Store`].
    pub async fn resume(&self, name: &str) -> Result<bool, BrakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let since_ms = self.paused().get(name).copied();
        let Some(since_ms) = since_ms else {
            if let Some((app, _)) = name.split_once('/')
                && self.paused().contains_key(app)
            {
                let message =
                    format!("{name} is paused with its app; `evoke resume {app}` resumes all of its functions");
                return Err(BrakeError::Conflict(message));
            }
            self.check_name(name)?;
            return Ok(false);
        };
        self.report(runtime_events::RESUMED, name, since_ms, None).await?;
        self.paused().remove(name);
        self.apply_paused();
        Ok(true)
    }

    /// Stores the runtime event together with the mark.
    async fn report(
        &self,
        type_: &str,
        name: &str,
        since_ms: UnixMs,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let now_ms = self.0.parts.clock.now_ms();
        let kind = if name.contains('/') { "function" } else { "app" };
        let data = json!({ kind: name, "since": rfc3339(since_ms) });
        let id = uuid::Uuid::now_v7().to_string();
        let event = runtime_events::new_event(id, type_, name, &data, now_ms);
        let mark = Mark { scope: SCOPE.to_owned(), key: name.to_owned(), value };
        self.0.parts.bus.publish_runtime_event(Some(event), mark).await
    }

    /// Tells the dispatcher which of the active functions are paused.
    fn apply_paused(&self) {
        let ids = self.paused_ids(&self.function_ids());
        self.0.parts.dispatcher.set_paused(ids);
    }

    /// Returns the ids of the paused ones of these functions.
    pub(super) fn paused_ids(&self, ids: &BTreeMap<String, FunctionId>) -> foldhash::HashSet<FunctionId> {
        let paused = self.paused();
        ids.iter().filter(|(name, _)| paused_since_ms(&paused, name).is_some()).map(|(_, id)| *id).collect()
    }

    /// Returns an error if an active manifest declares no function or app of this name, or if the function has no
    /// deliveries.
    fn check_name(&self, name: &str) -> Result<(), BrakeError> {
        let active = self.active();
        let apps = active.manifests.iter().map(|checked| checked.manifest.app.as_str());
        let names: Vec<&str> = active.function_ids.keys().map(String::as_str).chain(apps).collect();
        if names.contains(&name) {
            return match active.request_handlers.contains(name) {
                true => Err(BrakeError::Conflict(format!(
                    "{name} handles HTTP requests and has no deliveries that could be paused"
                ))),
                false => Ok(()),
            };
        }
        let help = match nearest(name, names.iter().copied()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if names.is_empty() => "no manifest is active".to_owned(),
            None => format!("expected {}", join_with_or(names.iter().copied().take(20))),
        };
        Err(BrakeError::NotFound(format!("there is no active function or app `{name}`; {help}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_paused_by_itself_or_with_its_app_and_no_other_app() {
        let paused: Paused = [("shop".to_owned(), 7), ("lab/one".to_owned(), 3), ("shop/charge".to_owned(), 9)].into();
        let since = |name| paused_since_ms(&paused, name);
        assert_eq!((since("shop/charge"), since("shop/other")), (Some(7), Some(7)));
        assert_eq!((since("lab/one"), since("lab/two"), since("shopping/charge")), (Some(3), None, None));
    }
}
