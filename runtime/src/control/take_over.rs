//! Functions that were renamed take over the data stored under their earlier names (`was:`).
//!
//! The take-over is one commit of the store. It runs at each load of manifests, before the functions are registered,
//! but only the first load finds data to take over. During the take-over, attempts of the function must not run under
//! either name, and private sources of the function must not run under the earlier name. Otherwise, these attempts and
//! sources would continue to write data under the earlier name.

use std::collections::BTreeMap;
use std::time::Duration;

use foldhash::HashSet;
use tokio::sync::MutexGuard;

use super::functions::{self, full_name};
use super::host::Progress;
use super::sources::Sources;
use super::{AppError, Control, Parts, grants, pause, sources};
use evoke_core::runtime_events::conditions;
use evoke_manifest::{Checked, Diagnostics, Span};
use evoke_model::text::count;
use evoke_model::{FunctionId, MarkNames, Origin, StateConflict, TakeOver, TakenOver};
use evoke_sources::monitor;
use evoke_store::StoreError;
use evoke_store::take_over::find_conflict;

/// The marks (small values in the store) whose keys contain names of functions. The store renames these keys too.
const MARK_NAMES: [MarkNames; 6] = [
    pause::NAMED_MARKS,
    grants::NAMED_MARKS,
    conditions::NAMED_MARKS[0],
    conditions::NAMED_MARKS[1],
    conditions::NAMED_MARKS[2],
    monitor::NAMED_MARKS,
];

/// The wait before a retry after a temporary error of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Returns the earlier names (`was:`) of the functions of manifests, in the order of the manifests.
fn declared(manifests: &[Checked]) -> impl Iterator<Item = (&Checked, Span, TakeOver)> {
    functions::all(manifests).flat_map(|(checked, function)| {
        let to = full_name(&checked.manifest, function);
        function.was.iter().map(move |earlier| {
            let from = format!("{}/{}", checked.manifest.app, earlier.name);
            (checked, earlier.span, TakeOver { from, to: to.clone() })
        })
    })
}

/// Returns true if a function of these manifests has an earlier name.
pub(super) fn has_earlier_names(manifests: &[Checked]) -> bool {
    declared(manifests).next().is_some()
}

/// A function that has taken over from an earlier name.
#[derive(Debug)]
pub struct Successor {
    /// Both names of the function, and how many deliveries and keys of state it took over.
    pub taken: TakenOver,
    /// True if the function also took over a pause.
    pub is_paused: bool,
}

/// The result of [`Control::take_over`]: the locked sources, to which the caller applies the new manifests, and the
/// functions that took over.
pub(super) struct Prepared<'a> {
    pub(super) sources: MutexGuard<'a, Sources>,
    pub(super) taken: Vec<Successor>,
}

impl Control {
    /// Gives functions the data stored under their earlier names (`was:`), and reports this. After an error, nothing
    /// has changed, and the active functions and sources continue. After a success, the caller must replace the
    /// functions and the sources, and then call [`Control::end_take_over`].
    pub(super) async fn take_over(&self, manifests: &[Checked]) -> Result<Prepared<'_>, AppError> {
        let Parts { store, dispatcher, .. } = &self.0.parts;
        let all: Vec<TakeOver> = declared(manifests).map(|(.., take_over)| take_over).collect();
        if all.is_empty() {
            return Ok(Prepared { sources: self.0.sources.lock().await, taken: Vec::new() });
        }
        // Finds a conflict before the wait for running attempts. The commit checks for conflicts again.
        if let Some(conflict) = find_conflict(&all, |name| store.state_usage(name).keys) {
            return Err(conflict_error(manifests, &conflict).into());
        }
        let unfinished = self.unfinished().await.map_err(|error| store_error(error, "cannot count deliveries"))?;
        let suspended = self.to_suspend(&all, &unfinished);
        let running = dispatcher.running_of(&suspended);
        if running > 0 {
            self.0.host.report(Progress::TakingOver { running });
        }
        dispatcher.suspend(suspended).await;
        let mut sources = self.0.sources.lock().await;
        let stopped = sources.stop_own_of(&all).await;
        let _storing = self.0.grants.pause_storing().await;
        let taken: Result<_, AppError> = match store.take_over(all.clone(), &MARK_NAMES).await {
            Ok(Ok(taken)) => {
                // Renames the records even if the store had nothing to rename: the newest records may not be stored
                // yet.
                self.0.grants.rename(&all);
                Ok(taken)
            }
            Ok(Err(conflict)) => Err(conflict_error(manifests, &conflict).into()),
            Err(error) => Err(store_error(error, "cannot rename functions")),
        };
        let taken = match taken {
            Ok(taken) if !taken.is_empty() => return Ok(Prepared { sources, taken: self.taken_over(taken) }),
            other => other,
        };
        // Nothing was changed, and the active functions and sources continue until they are replaced.
        let (active, ids) = {
            let active = self.active();
            (active.manifests.clone(), active.function_ids.clone())
        };
        sources.restart(&active, &ids, &stopped);
        dispatcher.end_suspension();
        taken.map(|_| Prepared { sources, taken: Vec::new() })
    }

    /// Ends the suspension of the functions that took over. Must be called after the new functions are set.
    pub(super) fn end_take_over(&self) {
        self.0.parts.dispatcher.end_suspension();
    }

    /// Registers the sources of manifests in the store. Returns their origins, by URI. If functions were renamed, also
    /// registers the functions, and retries after temporary errors of the store: the active functions cannot continue
    /// under their earlier names.
    pub(super) async fn register_sources(
        &self,
        manifests: &[Checked],
        is_renamed: bool,
    ) -> Result<BTreeMap<String, Origin>, AppError> {
        let names: Vec<String> = functions::all(manifests).map(|(c, f)| full_name(&c.manifest, f)).collect();
        loop {
            let registered = match sources::register_origins(manifests, &*self.0.parts.store).await {
                Ok(origins) if is_renamed => self.0.parts.store.register(names.clone()).await.map(|_| origins),
                registered => registered,
            };
            match registered {
                Ok(origins) => return Ok(origins),
                Err(error) if is_renamed && error.is_temporary() => tokio::time::sleep(STORE_RETRY).await,
                Err(error) => return Err(store_error(error, "cannot register the sources")),
            }
        }
    }

    /// Returns the ids of the active functions by full name, and the functions that were renamed since the last call.
    pub(crate) fn function_ids_and_renamed(&self) -> (BTreeMap<String, FunctionId>, Vec<TakeOver>) {
        let mut active = self.active();
        (active.function_ids.clone(), std::mem::take(&mut active.renamed))
    }

    /// Returns the active functions that must not run during the take-over: each function under an earlier name, and
    /// each function to which deliveries are moved.
    fn to_suspend(&self, all: &[TakeOver], unfinished: &BTreeMap<String, u64>) -> HashSet<FunctionId> {
        let active = self.active();
        let id = |name: &String| active.function_ids.get(name).copied();
        let ids = all.iter().flat_map(|TakeOver { from, to }| {
            let has_deliveries = id(from).is_some() || unfinished.get(from).is_some_and(|count| *count > 0);
            [id(from), id(to).filter(|_| has_deliveries)]
        });
        ids.flatten().collect()
    }

    /// Returns the number of pending deliveries and dead letters of each function, including inactive functions.
    async fn unfinished(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let totals = self.0.parts.store.totals().await?;
        Ok(totals.functions.into_iter().map(|(name, counts)| (name, counts.pending() + counts.dead)).collect())
    }

    /// Renames the functions in the memory of this process too: in the dispatcher and in the pauses.
    fn taken_over(&self, taken: Vec<TakenOver>) -> Vec<Successor> {
        let renamed = taken.into_iter().map(|taken| {
            let TakenOver { from, to, .. } = &taken;
            self.0.parts.dispatcher.rename_restored(from, to);
            let mut paused = self.paused();
            let pause = paused.remove(from).filter(|_| !paused.contains_key(to));
            let is_paused = pause.is_some();
            paused.extend(pause.map(|pause| (to.clone(), pause)));
            Successor { taken, is_paused }
        });
        renamed.collect()
    }
}

impl Prepared<'_> {
    /// Returns the renamed functions.
    pub(super) fn renamed(&self) -> Vec<TakeOver> {
        let names = self.taken.iter().map(|Successor { taken, .. }| (taken.from.clone(), taken.to.clone()));
        names.map(|(from, to)| TakeOver { from, to }).collect()
    }
}

fn store_error(error: StoreError, what: &str) -> AppError {
    anyhow::Error::new(error).context(format!("{what} in the store, evoke.db")).into()
}

/// Returns the error about a conflict, at the position of the last earlier name in `was:` that has state.
fn conflict_error(manifests: &[Checked], conflict: &StateConflict) -> Diagnostics {
    let StateConflict { to, names } = conflict;
    let with_counts: Vec<_> = names.iter().map(|(name, keys)| format!("{name} has {}", count(*keys, "key"))).collect();
    let message =
        format!("`{to}` cannot take over the state, because several names have state: {}", with_counts.join(", and "));
    let (kept, others) = match names.as_slice() {
        [(kept, _), others @ ..] => (kept.as_str(), others),
        [] => (to.as_str(), &[][..]),
    };
    let other = others.first().map_or(kept, |(name, _)| name.as_str());
    let help = format!(
        "nothing was changed; compare `evoke state list {kept}` with `evoke state list {other}`, copy what is needed with \
         `evoke state set`, delete the rest, as in `evoke state delete {other} --all`, and reload; if Evoke does not run, \
         first start it without this entry of `was`"
    );
    let named = |name: &str| names.iter().any(|(with_state, _)| with_state == name);
    let place = declared(manifests).filter(|(.., one)| one.to == *to && named(&one.from)).last();
    let error = place.map(|(checked, span, _)| checked.error_at(span, message, help));
    error.into_iter().collect()
}
