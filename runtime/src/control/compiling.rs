//! Functions that become active while their components are still being compiled. Their events wait in the store, and
//! each function runs as soon as its component is compiled. This happens only at a start: a reload waits until all
//! components are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::functions::{all, full_name};
use super::host::Progress;
use super::load::{Code, check_kind, load_cached, load_code};
use super::{AppError, Control, grants};
use evoke_manifest::{Checked, Diagnostics};
use evoke_sandbox::{self as sandbox, Kind, Sandbox};
use evoke_store::running::{Recorded, RunningLog, Work};

/// The longest time that a start waits for compilations. Then events are accepted, although compilations still run.
pub(super) const START_WAIT: Duration = Duration::from_millis(300);

/// The component of a function. Its compilation may still be running.
pub(super) struct Component {
    loaded: SetOnce<Arc<sandbox::Function>>,
    /// Cancelled when the component will not be loaded any more.
    given_up: CancellationToken,
}

impl Component {
    pub(super) fn loaded(function: Arc<sandbox::Function>) -> Self {
        Self { loaded: SetOnce::new_with(Some(function)), given_up: CancellationToken::new() }
    }

    fn compiling(given_up: CancellationToken) -> Self {
        Self { loaded: SetOnce::new(), given_up }
    }

    /// Returns the component; `None` while it is being compiled.
    pub(super) fn get(&self) -> Option<&Arc<sandbox::Function>> {
        self.loaded.get()
    }

    /// Waits for the component. Returns `None` if it will not be loaded any more.
    pub(super) async fn wait(&self) -> Option<&Arc<sandbox::Function>> {
        if let Some(function) = self.get() {
            return Some(function);
        }
        self.given_up.run_until_cancelled(self.loaded.wait()).await
    }
}

/// The code of a function at the time when the function becomes active.
pub(super) enum Known {
    Loaded(Code),
    /// The component seems to be of this kind and is still being compiled.
    Compiling(Kind, Arc<Component>),
}

/// A load that has ended.
struct Ended {
    /// The position of the function in the manifests.
    index: usize,
    result: Result<Code, Diagnostics>,
    took: Duration,
}

/// The components that were still being compiled when their functions became active. The compilations proceed only
/// while `running` is polled. Dropping a `Rest` ends the compilations, and the waits for the components.
pub(crate) struct Rest {
    manifests: Arc<[Checked]>,
    running: BoxStream<'static, Ended>,
    /// By the position of the function in the manifests.
    compiling: BTreeMap<usize, Compiling>,
    _give_up: DropGuard,
}

struct Compiling {
    name: String,
    kind: Kind,
    component: Arc<Component>,
}

/// Loads all functions of manifests, and changes nothing that is active. With a `limit`, waits at most this long for
/// compilations, and returns the unfinished ones as [`Rest`]. However, it waits for all compilations if a load has
/// failed, or if only the compilation can show the kind of a component. Returns all errors together. The result has the
/// order of the functions. `log` records each load while it runs.
pub(super) async fn load_all(
    manifests: &Arc<[Checked]>,
    sandbox: &Sandbox,
    log: &Arc<dyn RunningLog>,
    limit: Option<Duration>,
) -> Result<(Vec<Known>, Rest), Diagnostics> {
    // Functions that need no compilation are loaded first, so that they do not wait for a compiler.
    let mut results = cached(manifests, sandbox, log).await;
    let missing: Vec<_> = (0..).zip(&results).filter(|(_, result)| result.is_none()).map(|(index, _)| index).collect();
    let mut running = compile(manifests, sandbox, log, missing);
    let limit = limit.filter(|_| !results.iter().any(|result| matches!(result, Some(Err(_)))));
    let _ = timeout(limit.unwrap_or(Duration::MAX), collect(&mut running, &mut results)).await;
    let kinds = expected_kinds(manifests, &results).await;
    let is_settled = |(result, kind): (&Option<Result<_, _>>, &Option<Kind>)| match result {
        Some(result) => result.is_ok(),
        None => kind.is_some(),
    };
    if !results.iter().zip(&kinds).all(is_settled) {
        collect(&mut running, &mut results).await;
    }
    let give_up = CancellationToken::new();
    let (mut known, mut compiling, mut errors) = (Vec::new(), BTreeMap::new(), Diagnostics::default());
    for (index, (((checked, function), result), kind)) in all(manifests).zip(results).zip(kinds).enumerate() {
        match (result, kind) {
            (Some(Ok(code)), _) => known.push(Known::Loaded(code)),
            (Some(Err(found)), _) => errors.extend(found),
            (None, Some(kind)) => {
                let component = Arc::new(Component::compiling(give_up.clone()));
                known.push(Known::Compiling(kind, component.clone()));
                let name = full_name(&checked.manifest, function);
                compiling.insert(index, Compiling { name, kind, component });
            }
            // Cannot occur: if a kind is unknown, all loads have ended above.
            (None, None) => {}
        }
    }
    if errors.has_errors() {
        return Err(errors);
    }
    let rest = Rest { manifests: manifests.clone(), running, compiling, _give_up: give_up.drop_guard() };
    Ok((known, rest))
}

/// Loads the functions whose components do not have to be compiled. The result has `None` for the others.
async fn cached(
    manifests: &[Checked],
    sandbox: &Sandbox,
    log: &Arc<dyn RunningLog>,
) -> Vec<Option<Result<Code, Diagnostics>>> {
    let load = async |(checked, function): (&Checked, _)| {
        let _recorded = Recorded::start(log, &Work::Load(&full_name(&checked.manifest, function)));
        load_cached(checked, function, sandbox).await.transpose()
    };
    let loads: Vec<_> = all(manifests).map(|each| Box::pin(load(each))).collect();
    stream::iter(loads).buffered(Sandbox::loads_max()).collect().await
}

/// Loads these functions in parallel, and compiles their components.
fn compile(
    manifests: &Arc<[Checked]>,
    sandbox: &Sandbox,
    log: &Arc<dyn RunningLog>,
    functions: Vec<usize>,
) -> BoxStream<'static, Ended> {
    let (manifests, sandbox, log) = (manifests.clone(), sandbox.clone(), log.clone());
    let load = move |index| {
        let (manifests, sandbox, log) = (manifests.clone(), sandbox.clone(), log.clone());
        async move {
            let start = Instant::now();
            let (checked, function) = all(&manifests).nth(index)?;
            let _recorded = Recorded::start(&log, &Work::Load(&full_name(&checked.manifest, function)));
            let result = load_code(checked, function, &sandbox).await;
            Some(Ended { index, result, took: start.elapsed() })
        }
    };
    let ended = stream::iter(functions).map(load).buffer_unordered(Sandbox::loads_max());
    ended.filter_map(std::future::ready).boxed()
}

/// Collects the results of loads, until all have ended.
async fn collect(running: &mut BoxStream<'static, Ended>, results: &mut [Option<Result<Code, Diagnostics>>]) {
    while let Some(Ended { index, result, .. }) = running.next().await {
        if let Some(at) = results.get_mut(index) {
            *at = Some(result);
        }
    }
}

/// Returns the expected kind of each component that has no result yet, determined from its exports. Returns `None` for
/// a component with a result, and for a kind that is unknown or contradicts the manifest. For such a kind, the start
/// waits for the compilation, so that an error is reported before events are accepted.
async fn expected_kinds<T>(manifests: &[Checked], results: &[Option<T>]) -> Vec<Option<Kind>> {
    let (mut kinds, mut of_files) = (Vec::new(), BTreeMap::new());
    for ((checked, function), result) in all(manifests).zip(results) {
        let file = function.component.as_ref().filter(|_| result.is_none()).map(|component| &component.path);
        let Some(file) = file else {
            kinds.push(None);
            continue;
        };
        if !of_files.contains_key(file) {
            of_files.insert(file, sandbox::expected_kind(file).await);
        }
        let kind: Option<Kind> = of_files.get(file).copied().flatten();
        kinds.push(kind.filter(|kind| check_kind(checked, function, *kind).is_empty()));
    }
    kinds
}

impl Rest {
    /// Returns the names of the functions.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.compiling.values().map(|compiling| compiling.name.clone()).collect()
    }

    /// Returns true if all functions are loaded.
    pub(crate) fn is_empty(&self) -> bool {
        self.compiling.is_empty()
    }
}

impl Control {
    /// Waits for the components that were still being compiled at the start. Each function runs as soon as its
    /// component is compiled. Returns the first error.
    pub(crate) async fn finish_loading(&self, mut rest: Rest) -> Result<(), AppError> {
        while let Some(Ended { index, result, took }) = rest.running.next().await {
            let (Code::Component(loaded), Some(compiling)) = (result?, rest.compiling.get(&index)) else { continue };
            let Compiling { name, kind, component } = compiling;
            if loaded.kind() != *kind {
                return Err(other_kind(&rest.manifests, index).into());
            }
            let uses = (loaded.grant_use().clone(), loaded.refusing_imports().to_vec());
            let declared = grants::declared(&rest.manifests, [(name.clone(), uses)].into());
            self.0.grants.declare(declared, self.0.parts.clock.now_ms());
            // Cannot fail: each load ends only once.
            let _ = component.loaded.set(loaded);
            // Without this lock, a concurrent pause or resume could give the dispatcher an older list of the functions
            // that must not start attempts.
            let one_at_a_time = self.0.changing.lock().await;
            self.0.compiling.send_if_modified(|names| names.remove(name));
            self.hold();
            drop(one_at_a_time);
            self.0.host.report(Progress::Compiled { function: name, took });
        }
        self.0.parts.sandbox.remove_outdated();
        Ok(())
    }
}

/// Returns the error for a compiled component that is not of the expected kind. Either its file was replaced during the
/// start, or its exports did not show its real kind.
fn other_kind(manifests: &[Checked], index: usize) -> Diagnostics {
    let error = all(manifests).nth(index).map(|(checked, function)| {
        let message = "the compiled component is of another kind (events or HTTP requests) than its exports showed";
        checked.error_at(function.spans.component, message, "start Evoke again")
    });
    error.into_iter().collect()
}
