//! Pauses functions and apps for an operator. A pause is durable: its mark (a small stored value) is committed together
//! with the runtime event that reports the pause.

use std::collections::BTreeMap;

use serde_json::json;

use super::Control;
use evoke_manifest::parser::{join_with_or, nearest};
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::{FunctionId, Mark, MarkNames, runtime_events};
use evoke_store::StoreError;

/// The scope of the marks. Each key is the name of a paused function (`app/function`) or of a paused app.
const SCOPE: &str = "/evoke/paused";

/// The marks whose keys are names of functions.
pub(super) const NAMED_MARKS: MarkNames = MarkNames { scope: SCOPE, prefix: "" };

/// The reason why a function or an app was not paused or not resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// There is no such function or app; the message has a suggestion.
    #[error("{0}")]
    NotFound(String),
    /// The function or app cannot be paused or resumed on its own; the message has the reason.
    #[error("{0}")]
    Conflict(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pause of a function or an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The time of the pause.
    pub since_ms: UnixMs,
    /// Why Evoke itself paused the function; `None` if an operator did.
    pub reason: Option<String>,
}

impl Pause {
    /// Returns the value of the mark: the time in milliseconds, and the reason after a space.
    fn to_mark(&self) -> Vec<u8> {
        let reason = self.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
        format!("{}{reason}", self.since_ms).into_bytes()
    }

    /// Reads the value of a mark. A mark that cannot be parsed still pauses: only the time is unknown.
    fn from_mark(value: Vec<u8>) -> Self {
        let text = String::from_utf8(value).unwrap_or_default();
        let (since, reason) = match text.split_once(' ') {
            Some((since, reason)) => (since, Some(reason.to_owned())),
            None => (text.as_str(), None),
        };
        Self { since_ms: since.parse().unwrap_or_default(), reason }
    }
}

/// The paused functions and apps, by name.
pub(super) type Paused = BTreeMap<String, Pause>;

/// Returns the pause of a function. If both the function and its app are paused, the earlier time counts. The reason is
/// that of the function's own pause.
pub(super) fn pause_of(paused: &Paused, function: &str) -> Option<Pause> {
    let app = function.split_once('/').map(|(app, _)| app);
    let own = paused.get(function);
    let with_app = app.and_then(|app| paused.get(app));
    let since_ms = own.into_iter().chain(with_app).map(|pause| pause.since_ms).min()?;
    Some(Pause { since_ms, reason: own.and_then(|pause| pause.reason.clone()) })
}

impl Control {
    /// Reads the paused functions and apps from the store. Must be called before the first manifests are applied.
    pub(crate) async fn restore_paused(&self) -> Result<(), StoreError> {
        let marks = self.0.parts.bus.marks(SCOPE).await?;
        let paused = marks.into_iter().map(|(name, value)| (name, Pause::from_mark(value))).collect();
        *self.paused() = paused;
        Ok(())
    }

    /// Pauses a function, `app/function`, or all functions of an app. Deliveries stay pending; running attempts
    /// continue. Returns `false` if the function or app was already paused.
    ///
    /// # Errors
    /// [`PauseError::NotFound`] if no active manifest declares the function or app, [`PauseError::Conflict`] if the
    /// function handles HTTP requests and has no deliveries, and [`PauseError::Store`].
    pub async fn pause(&self, name: &str) -> Result<bool, PauseError> {
        self.pause_because(name, None).await
    }

    /// Pauses the functions whose endpoints are gone for good (`410 Gone`). Returns the names of these functions.
    ///
    /// # Errors
    /// The first error; the next call tries again.
    pub(crate) async fn pause_gone(&self) -> Result<Vec<String>, PauseError> {
        let gone = self.0.parts.dispatcher.gone();
        let mut paused = Vec::new();
        if gone.is_empty() {
            return Ok(paused);
        }
        for (name, id) in self.function_ids() {
            if let Some(reason) = gone.get(&id) {
                let reason = format!("the endpoint is gone: {reason}");
                self.pause_because(&name, Some(runtime_events::truncated(&reason))).await?;
                paused.push(name);
            }
        }
        Ok(paused)
    }

    async fn pause_because(&self, name: &str, reason: Option<String>) -> Result<bool, PauseError> {
        let _one_at_a_time = self.0.changing.lock().await;
        self.check_name(name)?;
        if self.paused().contains_key(name) {
            return Ok(false);
        }
        let pause = Pause { since_ms: self.0.parts.clock.now_ms(), reason };
        // Pauses before the report, so that the paused function does not receive the event about its own pause.
        self.paused().insert(name.to_owned(), pause.clone());
        self.hold();
        let reported = self.report(runtime_events::PAUSED, name, &pause, Some(pause.to_mark())).await;
        if reported.is_err() {
            self.paused().remove(name);
            self.hold();
        }
        reported.map(|()| true).map_err(PauseError::from)
    }

    /// Resumes a function or an app, even if no active manifest declares it any more. Returns `false` if it was not
    /// paused.
    ///
    /// # Errors
    /// [`PauseError::NotFound`] if the name is unknown and not paused, [`PauseError::Conflict`] if the function is
    /// paused only because its app is paused, and [`PauseError::Store`].
    pub async fn resume(&self, name: &str) -> Result<bool, PauseError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let pause = self.paused().get(name).cloned();
        let Some(pause) = pause else {
            if let Some((app, _)) = name.split_once('/')
                && self.paused().contains_key(app)
            {
                let message =
                    format!("{name} is paused with its app; `evoke resume {app}` resumes all of its functions");
                return Err(PauseError::Conflict(message));
            }
            self.check_name(name)?;
            return Ok(false);
        };
        self.report(runtime_events::RESUMED, name, &pause, None).await?;
        self.paused().remove(name);
        self.hold();
        Ok(true)
    }

    /// Stores the runtime event together with the mark.
    async fn report(&self, type_: &str, name: &str, pause: &Pause, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        let now_ms = self.0.parts.clock.now_ms();
        let kind = if name.contains('/') { "function" } else { "app" };
        let mut data = json!({ kind: name, "since": rfc3339(pause.since_ms) });
        if let (Some(reason), Some(data)) = (&pause.reason, data.as_object_mut()) {
            data.insert("reason".to_owned(), reason.as_str().into());
        }
        let id = uuid::Uuid::now_v7().to_string();
        let event = runtime_events::new_event(id, type_, name, &data, now_ms);
        let mark = Mark { scope: SCOPE.to_owned(), key: name.to_owned(), value };
        self.0.parts.bus.publish_runtime_event(Some(event), mark).await
    }

    /// Passes to the dispatcher the functions that must not start attempts: the paused functions, and the functions
    /// whose components are still being compiled.
    pub(super) fn hold(&self) {
        let ids = self.held_ids(&self.function_ids());
        self.0.parts.dispatcher.set_paused(ids);
    }

    /// Returns those `ids` whose functions are paused, or whose components are being compiled.
    pub(super) fn held_ids(&self, ids: &BTreeMap<String, FunctionId>) -> foldhash::HashSet<FunctionId> {
        let (paused, compiling) = (self.paused(), self.0.compiling.borrow());
        let is_held = |name: &String| pause_of(&paused, name).is_some() || compiling.contains(name);
        ids.iter().filter(|(name, _)| is_held(name)).map(|(_, id)| *id).collect()
    }

    /// Returns true if an active manifest declares an app of this name, or if an app of this name is paused.
    pub(crate) fn has_app(&self, name: &str) -> bool {
        self.paused().contains_key(name) || self.active().manifests.iter().any(|c| c.manifest.app.as_str() == name)
    }

    /// Returns an error if no active manifest declares a function or app of this name, or if the function handles HTTP
    /// requests, which have no deliveries.
    fn check_name(&self, name: &str) -> Result<(), PauseError> {
        let active = self.active();
        let apps = active.manifests.iter().map(|checked| checked.manifest.app.as_str());
        let names: Vec<&str> = active.function_ids.keys().map(String::as_str).chain(apps).collect();
        if names.contains(&name) {
            return match active.request_handlers.contains(name) {
                true => Err(PauseError::Conflict(format!(
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
        Err(PauseError::NotFound(format!("there is no active function or app `{name}`; {help}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_paused_by_itself_or_with_its_app_and_no_other_app() {
        let pause = |since_ms| Pause { since_ms, reason: None };
        let names = [("shop", 7), ("lab/one", 3), ("shop/charge", 9)];
        let paused: Paused = names.map(|(name, since_ms)| (name.to_owned(), pause(since_ms))).into();
        let since = |name| pause_of(&paused, name).map(|pause| pause.since_ms);
        assert_eq!((since("shop/charge"), since("shop/other")), (Some(7), Some(7)));
        assert_eq!((since("lab/one"), since("lab/two"), since("shopping/charge")), (Some(3), None, None));
    }

    #[test]
    fn a_mark_keeps_the_time_and_the_reason() {
        for reason in [None, Some("the endpoint is gone: 410 Gone (delivery 7)".to_owned())] {
            let pause = Pause { since_ms: 1_700_000_000_000, reason };
            assert_eq!(Pause::from_mark(pause.to_mark()), pause);
        }
        assert_eq!(Pause::from_mark(vec![0xff]), Pause { since_ms: 0, reason: None });
    }
}
