//! Finds the grants in manifests that the functions have not used.

use crate::admin::view::{FunctionGrants, Grant};
use crate::control::functions::{self, full_name};
use evoke_manifest::diagnostics::excerpt;
use evoke_manifest::{Checked, Diagnostic, Diagnostics, Function};
use evoke_model::text::count;
use evoke_model::{GrantKey, GrantKind};

/// Returns an error for each grant that a function has not used although it has run, and a warning for each function
/// with grants that has not run. Returns nothing about a grant that was added since the last start.
pub(super) fn find(manifests: &[Checked], recorded: &[FunctionGrants]) -> Diagnostics {
    let mut found = Diagnostics::default();
    for checked in manifests {
        let functions = functions::all(std::slice::from_ref(checked));
        found.extend(functions.flat_map(|(checked, function)| of_function(checked, function, recorded)).collect());
    }
    found
}

fn of_function(checked: &Checked, function: &Function, recorded: &[FunctionGrants]) -> Vec<Diagnostic> {
    let name = full_name(&checked.manifest, function);
    let record = recorded.iter().find(|record| record.function == name);
    let Some(record) = record.filter(|record| record.attempts > 0) else {
        let message = format!("`{}` has not run, so its unused grants are not known", function.name.as_str());
        let help = "run it with `evoke up` and check again, or use --offline to name the store of an Evoke that ran it";
        let warning = Diagnostic::warning(&checked.source, function.spans.name, message).help(help);
        return if function.grant_spans.is_empty() { Vec::new() } else { vec![warning] };
    };
    let unused = |key: &GrantKey| record.grants.iter().find(|grant| grant.key == *key && grant.is_unused());
    // If the grant of state is unused, its error also covers the shared state, which gets no error of its own.
    let state = unused(&GrantKind::State.key("")).is_some();
    let spans = function.grant_spans.iter().filter(|(key, _)| !(state && key.kind == GrantKind::SharedState));
    let mistakes = spans.filter_map(|(key, span)| Some((unused(key)?, *span)));
    mistakes.map(|(grant, span)| checked.error_at(span, message(function, grant), help(record, grant))).collect()
}

fn message(function: &Function, grant: &Grant) -> String {
    let what = match grant.key.kind {
        GrantKind::State => "state".to_owned(),
        GrantKind::SharedState => "the shared state of the app".to_owned(),
        _ => format!("`{}`", excerpt(&grant.key.name)),
    };
    let attempts = count(grant.attempts, "attempt");
    format!("`{}` did not use {what} in {attempts} since {}", function.name.as_str(), grant.since)
}

fn help(record: &FunctionGrants, grant: &Grant) -> String {
    let of_kind = record.grants.iter().filter(|other| other.key.kind == grant.key.kind && other.used);
    let used: Vec<String> = of_kind.flat_map(used_names).take(5).map(|name| format!("`{}`", excerpt(&name))).collect();
    match (used.is_empty(), grant.key.kind) {
        (true, _) | (false, GrantKind::State | GrantKind::SharedState) => "remove it".to_owned(),
        (false, _) => format!("remove it; with other grants of this kind, the function used {}", used.join(", ")),
    }
}

/// Returns the event types or hosts that the function used under a grant. Returns the name of the grant if none are
/// recorded, and for other kinds of grants.
fn used_names(grant: &Grant) -> Vec<String> {
    match grant.key.kind {
        GrantKind::Publish | GrantKind::Http if !grant.seen.is_empty() => grant.seen.clone(),
        _ => vec![grant.key.name.clone()],
    }
}
