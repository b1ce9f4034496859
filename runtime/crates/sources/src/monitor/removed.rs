//! Removes the states and readings of monitors that no manifest has any more.
//!
//! After the first search that does not find a monitor, its states and readings stay in the store for the time in its
//! option `keep`. If the monitor returns within this time, it continues with this data.
//!
//! # Format
//! There is one mark for each monitor that has data in the store. Its scope (namespace) is `/evoke#monitors`, its key
//! is the source's URI, and its value is [`Known`] as a JSON object with `v` (1).

use std::collections::BTreeMap;

use evoke_core::bus::{Bus, Offer};
use evoke_model::clock::UnixMs;
use evoke_model::{Mark, MarkNames};
use serde::{Deserialize, Serialize};

use super::monitors::{MARKS_MAX, Monitors, readings_scope};
use super::watched::StateMark;

const SCOPE: &str = "/evoke#monitors";

/// The marks whose keys are URIs of monitors. The URI of a private monitor contains the name of its function. When the
/// function is renamed, the keys of these marks change.
pub const NAMED_MARKS: MarkNames = MarkNames { scope: SCOPE, prefix: "/" };

const HOUR_MS: i64 = 3_600_000;

/// A monitor that has data in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    v: u32,
    keep_hours: i64,
    /// The time of the first search that did not find the monitor in any manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed_ms: Option<UnixMs>,
}

impl Known {
    fn running(keep_hours: i64) -> Self {
        Self { v: 1, keep_hours, removed_ms: None }
    }

    fn mark(&self, uri: &str) -> Mark {
        // Serialising numbers cannot fail.
        Mark { scope: SCOPE.to_owned(), key: uri.to_owned(), value: serde_json::to_vec(self).ok() }
    }
}

/// Returns the mark in `/evoke#monitors` that a monitor stores together with its first state.
pub(super) fn known_mark(uri: &str, keep_hours: i64) -> Mark {
    Known::running(keep_hours).mark(uri)
}

impl Monitors {
    /// Records which monitors have data in the store but are in no manifest any more. Removes the data of each monitor
    /// that has been gone for the time in its option `keep`. If something fails, the next call tries again.
    pub(super) async fn remove_gone(&self, bus: &Bus, now_ms: UnixMs) {
        if let Err(error) = self.try_remove_gone(bus, now_ms).await {
            tracing::debug!("cannot remove the data of removed monitors now, the next try is later: {error}");
        }
    }

    async fn try_remove_gone(&self, bus: &Bus, now_ms: UnixMs) -> Result<(), String> {
        let stored = bus.marks(SCOPE).await.map_err(|error| error.to_string())?;
        let known = |value: &Vec<u8>| serde_json::from_slice::<Known>(value).ok().filter(|known| known.v == 1);
        let known: BTreeMap<&str, Option<Known>> =
            stored.iter().map(|(uri, value)| (uri.as_str(), known(value))).collect();
        let running = self.running();
        let mut changed = Vec::new();
        for (uri, monitor) in &running {
            let now = Known::running(monitor.config.keep_hours());
            if known.get(&**uri) != Some(&Some(now.clone())) {
                changed.push(now.mark(uri));
            }
        }
        let mut expired = Vec::new();
        for (uri, known) in known.into_iter().filter(|(uri, _)| !running.contains_key(*uri)) {
            let known = known.unwrap_or(Known::running(24));
            match known.removed_ms {
                None => changed.push(Known { removed_ms: Some(now_ms), ..known }.mark(uri)),
                Some(at_ms) if now_ms.saturating_sub(at_ms) >= known.keep_hours.saturating_mul(HOUR_MS) => {
                    expired.push(uri);
                }
                Some(_) => {}
            }
        }
        for marks in changed.chunks(MARKS_MAX) {
            write(bus, marks.to_vec()).await?;
        }
        for uri in expired {
            remove(bus, uri).await?;
            tracing::info!("removed the states and readings of {uri}: no manifest has this monitor any more");
        }
        Ok(())
    }
}

/// Removes the states and readings of a monitor. Removes its mark in `/evoke#monitors` last, so that an interrupted
/// removal continues later.
async fn remove(bus: &Bus, uri: &str) -> Result<(), String> {
    let states = bus.marks(uri).await.map_err(|error| error.to_string())?;
    // A source of another kind may have this URI now. Its marks must stay, therefore only marks of states are removed.
    let is_state =
        |key: &str, value: &[u8]| key.starts_with("state/") && serde_json::from_slice::<StateMark>(value).is_ok();
    let states = states.into_iter().filter(|(key, value)| is_state(key, value)).map(|(key, _)| (uri.to_owned(), key));
    let scope = readings_scope(uri);
    let readings = bus.marks(&scope).await.map_err(|error| error.to_string())?;
    let readings = readings.into_keys().map(|key| (scope.clone(), key));
    let known = (SCOPE.to_owned(), uri.to_owned());
    let all = states.chain(readings).chain([known]).map(|(scope, key)| Mark { scope, key, value: None });
    for marks in all.collect::<Vec<_>>().chunks(MARKS_MAX) {
        write(bus, marks.to_vec()).await?;
    }
    Ok(())
}

async fn write(bus: &Bus, marks: Vec<Mark>) -> Result<(), String> {
    bus.accept(Offer { marks, ..Offer::default() }).await.map(drop).map_err(|error| error.to_string())
}
