//! Loads the code of functions: the components, and the endpoints of functions with `deliver`.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::deliver::{self, Endpoint};
use super::functions::full_name;
use super::{http_function, outbound, state_source};
use evoke_egress::Grant;
use evoke_manifest::{Checked, ComponentRef, Diagnostic, Diagnostics, Function};
use evoke_sandbox::{self as sandbox, Grants, Kind, LoadError, Refusal, Sandbox, Secrets, Spec};

/// The part of a function that handles its events or requests.
pub(crate) enum Code {
    /// A component.
    Component(Arc<sandbox::Function>),
    /// The endpoint of a function with `deliver`.
    Endpoint(Box<Endpoint>),
}

/// Loads functions in parallel. The results are in the order of the functions.
pub(crate) async fn load_each<'a>(
    functions: impl Iterator<Item = (&'a Checked, &'a Function)>,
    sandbox: &'a Sandbox,
) -> Vec<Result<Code, Diagnostics>> {
    let load = async |(checked, function)| load_code(checked, function, sandbox).await;
    let loads: Vec<_> = functions.map(|each| load(each).boxed()).collect();
    stream::iter(loads).buffered(Sandbox::loads_max()).collect().await
}

pub(super) async fn load_code(checked: &Checked, function: &Function, sandbox: &Sandbox) -> Result<Code, Diagnostics> {
    match load_endpoint(checked, function)? {
        Some(endpoint) => Ok(endpoint),
        None => load_one(checked, function, sandbox).await.map(Code::Component),
    }
}

/// Loads a function. Returns `None` if its component must be compiled first.
pub(super) async fn load_cached(
    checked: &Checked,
    function: &Function,
    sandbox: &Sandbox,
) -> Result<Option<Code>, Diagnostics> {
    if let Some(endpoint) = load_endpoint(checked, function)? {
        return Ok(Some(endpoint));
    }
    let spec = spec(checked, function, read_outbound(checked, function)?)?;
    let loaded = sandbox.load_cached(&spec).await.transpose();
    loaded.map(|loaded| check_loaded(checked, function, loaded).map(Code::Component)).transpose()
}

/// Returns the endpoint of a function with `deliver`; `None` for a component.
fn load_endpoint(checked: &Checked, function: &Function) -> Result<Option<Code>, Diagnostics> {
    let Some(deliver) = &function.deliver else { return Ok(None) };
    deliver::load(checked, function, deliver).map(|endpoint| Some(Code::Endpoint(Box::new(endpoint))))
}

/// Loads a function's component under its grants, without a store. Returns all errors in one list.
pub(crate) async fn load_one(
    checked: &Checked,
    function: &Function,
    sandbox: &Sandbox,
) -> Result<Arc<sandbox::Function>, Diagnostics> {
    component_of(checked, function)?;
    load_with(checked, function, read_outbound(checked, function)?, sandbox).await
}

/// Reads the secrets of a function and the destinations of its requests.
fn read_outbound(checked: &Checked, function: &Function) -> Result<(Secrets, Vec<Grant>), Diagnostics> {
    outbound::read(function)
        .map_err(|(message, help)| Diagnostics::from_iter([checked.error_at(function.spans.allow, message, help)]))
}

fn component_of<'a>(checked: &Checked, function: &'a Function) -> Result<&'a ComponentRef, Diagnostics> {
    function.component.as_ref().ok_or_else(|| {
        let message =
            format!("`{}` has `deliver` and no component, so this command cannot run it", function.name.as_str());
        let help = "start `evoke up`, which sends the events of the function to the endpoint";
        Diagnostics::from_iter([checked.error_at(function.spans.component, message, help)])
    })
}

/// Like [`load_one`], but with the given secrets and destinations of requests instead of those in the manifest.
pub(crate) async fn load_with(
    checked: &Checked,
    function: &Function,
    outbound: (Secrets, Vec<Grant>),
    sandbox: &Sandbox,
) -> Result<Arc<sandbox::Function>, Diagnostics> {
    let spec = spec(checked, function, outbound)?;
    check_loaded(checked, function, sandbox.load(&spec).await)
}

fn spec(checked: &Checked, function: &Function, (secrets, http): (Secrets, Vec<Grant>)) -> Result<Spec, Diagnostics> {
    let component = component_of(checked, function)?;
    Ok(Spec {
        name: full_name(&checked.manifest, function).into(),
        uri: format!("/{}", full_name(&checked.manifest, function)),
        component: component.path.clone(),
        digest: component.sha256.map(|digest| evoke_model::hex(&digest)),
        timeout: function.timeout,
        memory: function.memory.0,
        grants: Grants {
            publish: function.allow.publish.iter().map(|glob| glob.as_str().to_owned()).collect(),
            state: function.allow.state.map(state_source::grant),
            config: function.allow.config.clone(),
            http,
            secrets,
        },
    })
}

/// Checks that a component of this kind fits the settings of its function. Returns an error for each setting that
/// does not.
pub(super) fn check_kind(checked: &Checked, function: &Function, kind: Kind) -> Vec<Diagnostic> {
    match kind {
        Kind::Http => http_function::check_manifest(checked, function),
        Kind::Handler | Kind::Command => http_function::check_event_sources(checked, function),
    }
}

/// Returns the component if it was loaded and fits its function. Otherwise returns errors that name the position of the
/// function in the manifest.
fn check_loaded(
    checked: &Checked,
    function: &Function,
    loaded: Result<Arc<sandbox::Function>, LoadError>,
) -> Result<Arc<sandbox::Function>, Diagnostics> {
    match loaded {
        Ok(loaded) => {
            let errors = check_kind(checked, function, loaded.kind());
            if errors.is_empty() { Ok(loaded) } else { Err(Diagnostics::from_iter(errors)) }
        }
        Err(error) => {
            let help = compile_help(&error).unwrap_or_else(|| {
                let help = match (&error, &function.build) {
                    (LoadError::Read { .. }, Some(_)) => {
                        "run `evoke build` to build it with the `build:` command of the function"
                    }
                    (LoadError::Read { .. }, None) => "build the component, or add a `build:` command",
                    (LoadError::Digest { .. }, _) => {
                        "use the component with the required SHA-256, or write the SHA-256 of this one in the manifest"
                    }
                    (LoadError::TooLarge { .. }, _) => "make the component smaller; this limit is fixed",
                    (LoadError::Invalid { .. }, _) => "correct the component; `evoke inspect FILE` checks it, too",
                    (LoadError::Memory { needed, .. }, _) => {
                        return format!("write `memory: {needed}KiB` or more, or use a component that needs less");
                    }
                    _ => "use a component that works with the grants in the manifest",
                };
                help.to_owned()
            });
            Err(Diagnostics::from_iter([checked.error_at(function.spans.component, error.to_string(), help)]))
        }
    }
}

/// Returns the help for an error of compilation: how to raise the limit, or how to try again. Returns `None` for other
/// errors.
pub(crate) fn compile_help(error: &LoadError) -> Option<String> {
    let (refusal, record) = match error {
        LoadError::Machine { .. } => return Some("the component itself is not the cause; try again".into()),
        LoadError::Refused { refusal, record, .. } => (refusal, record),
        _ => return None,
    };
    let help = match refusal {
        Refusal::Memory(_) => {
            "make the component smaller, or raise the limit with --compile-memory SIZE or EVOKE_COMPILE_MEMORY"
        }
        Refusal::Time(_) => {
            "make the component smaller, or raise the limit with --compile-time DURATION or EVOKE_COMPILE_TIME"
        }
        Refusal::Output(_) => "make the component smaller; this limit is fixed",
        Refusal::Crash(_) => "build the component with another version of its tools",
    };
    Some(match record {
        Some(record) => format!("{help}; to compile it unchanged, remove the stored refusal {}", record.display()),
        None => help.to_owned(),
    })
}
