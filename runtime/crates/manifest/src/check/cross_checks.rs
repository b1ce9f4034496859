//! Checks of the whole manifest: conflicting sources, patterns that cannot match, unknown event types, trigger loops.

use crate::diagnostics::{Diagnostic, excerpt};
use crate::grants::TypeGlob;
use crate::model::{Function, Manifest, Trigger, TriggerSource};
use crate::parser::{Reader, nearest};
use crate::source::{Registry, Source};
use evoke_model::runtime_events::TYPES;
use std::collections::{BTreeSet, HashMap};

/// Calls [`SourceKind::check_together`](crate::SourceKind::check_together) for each kind of source.
pub(super) fn sources_of_each_kind(reader: &mut Reader<'_>, manifest: &Manifest, kinds: &Registry) {
    for kind in kinds.iter() {
        let all = manifest.all_sources().map(|(source, _)| source);
        let of_kind: Vec<&Source> = all.filter(|source| source.kind.key() == kind.key()).collect();
        kind.check_together(reader, &of_kind);
    }
}

/// Reports a pattern that names a source of this app, if this source does not exist or the function cannot receive its
/// events. `public_uris` are the sources whose events every function can receive.
pub(super) fn event_sources(reader: &mut Reader<'_>, manifest: &Manifest, public_uris: &BTreeSet<String>) {
    let prefix = format!("/{}/", manifest.app);
    let owners: HashMap<&str, &Function> =
        manifest.all_sources().filter_map(|(source, owner)| Some((source.uri.as_str(), owner?))).collect();
    for (function, trigger) in triggers(manifest) {
        let Some(values) = exact_values(trigger, "source") else {
            continue;
        };
        if let Some(uri) = trigger_source_uri(&prefix, trigger) {
            let source = trigger_source(manifest, trigger);
            let is_accepted =
                |value: &String| source.is_some_and(|source| source.kind.accepts_source(&source.settings, value));
            if !values.contains(&uri) && !values.iter().any(is_accepted) {
                let message = format!("this pattern can never match: the events of the trigger come from `{uri}`");
                let span = values.first().map_or(trigger.span, |value| trigger.span_of_text(value));
                reader.error(span, message, "remove `source` from the pattern");
            }
            continue;
        }
        for value in values {
            let span = trigger.span_of_text(&value);
            let owner = owners.get(value.as_str());
            if let Some(owner) = owner.filter(|owner| owner.name != function.name) {
                let message =
                    format!("`{value}` can never match: only function `{}` receives events of this source", owner.name);
                reader.error(span, message, "declare the source under `sources` to share it");
            } else if owner.is_some() || public_uris.contains(&value) {
                continue;
            } else if value.starts_with(&prefix) {
                // Triggers with errors are not read. If there are errors, the value can be the URI of a private source
                // of such a trigger. So the value is not reported.
                if value.matches('/').count() > 2 && reader.has_errors() {
                    continue;
                }
                let message = format!("`{}` can never match: the app has no such source or function", excerpt(&value));
                let help = match nearest(&value, public_uris.iter().map(String::as_str)) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => format!("the events of this app have the sources {}", join_with_commas(public_uris)),
                };
                reader.error(span, message, help);
            } else if public_uris.contains(&format!("{prefix}{value}")) {
                let message = format!("no event of this app has the source `{}`", excerpt(&value));
                reader.warning(span, message, format!("did you mean `{prefix}{value}`?"));
            }
        }
    }
}

/// Returns the URI of the source that the trigger names; `None` for [`TriggerSource::Any`].
fn trigger_source_uri(prefix: &str, trigger: &Trigger) -> Option<String> {
    match &trigger.source {
        TriggerSource::Any => None,
        TriggerSource::Shared(name) => Some(format!("{prefix}{name}")),
        TriggerSource::Private(source) => Some(source.uri.clone()),
    }
}

/// Returns the source that the trigger names, if the manifest has it.
fn trigger_source<'m>(manifest: &'m Manifest, trigger: &'m Trigger) -> Option<&'m Source> {
    match &trigger.source {
        TriggerSource::Any => None,
        TriggerSource::Shared(name) => manifest.source(name.as_str()),
        TriggerSource::Private(source) => Some(source),
    }
}

fn join_with_commas(names: &BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Warns about an event type in a pattern if the app does not produce this type, but produces a similar one. An unknown
/// type that is not similar to any produced type gets no warning, because events of this type can come from outside the
/// app.
pub(super) fn event_types(reader: &mut Reader<'_>, manifest: &Manifest) {
    let of_sources: Vec<&str> =
        manifest.all_sources().flat_map(|(source, _)| source.kind.event_types(&source.settings)).collect();
    let accepted = of_sources.iter().filter_map(|glob| TypeGlob::parse(glob).ok());
    let published = manifest.functions.iter().flat_map(|function| function.allow.publish.iter().cloned());
    let globs: Vec<TypeGlob> = published.chain(accepted).collect();
    let known: BTreeSet<&str> =
        globs.iter().map(TypeGlob::as_str).filter(|type_| !type_.contains('*')).chain(TYPES).collect();
    if is_too_large_to_compare(manifest) {
        return;
    }
    let mut found = Vec::new();
    for (_, trigger) in triggers(manifest) {
        for type_ in exact_values(trigger, "type").unwrap_or_default() {
            if known.contains(type_.as_str()) || globs.iter().any(|glob| glob.matches(&type_)) {
                continue;
            }
            if let Some(similar) = nearest(&type_, known.iter().copied()) {
                let message = format!("nothing in this app produces events of type `{}`", excerpt(&type_));
                let warning = Diagnostic::warning(reader.source, trigger.span_of_text(&type_), message);
                found.push(warning.help(format!("did you mean `{similar}`?")));
            }
        }
    }
    reader.found.append(&mut found);
}

/// Warns about functions that can trigger each other in a loop. The check compares only event types and sources.
pub(super) fn cycles(reader: &mut Reader<'_>, manifest: &Manifest) {
    let functions = &manifest.functions;
    if is_too_large_to_compare(manifest) {
        return;
    }
    let successors: Vec<Vec<usize>> = functions
        .iter()
        .map(|from| {
            (0..functions.len())
                .filter(|to| functions.get(*to).is_some_and(|to| publishes_to(manifest, from, to)))
                .collect()
        })
        .collect();
    let mut reported = BTreeSet::new();
    for start in 0..functions.len() {
        if reported.contains(&start) {
            continue;
        }
        let Some(path) = shortest_loop(&successors, start) else {
            continue;
        };
        reported.extend(path.iter().copied());
        let names: Vec<_> = path
            .iter()
            .chain([&start])
            .filter_map(|at| functions.get(*at))
            .map(|function| format!("`{}`", function.name))
            .collect();
        let Some(function) = functions.get(start) else {
            continue;
        };
        let message = match names.as_slice() {
            [name, _] => format!("{name} can trigger itself: it is allowed to publish events that match its triggers"),
            names => format!("these functions can trigger each other in a loop: {}", names.join(" → ")),
        };
        let help = "narrow `allow.publish` or the `type` of a trigger, unless the function stops the loop itself";
        reader.warning(function.spans.allow, message, help);
    }
}

/// Returns the shortest loop of functions from `start` back to `start`, found by breadth-first search.
fn shortest_loop(successors: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut predecessors: HashMap<usize, usize> = HashMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in successors.get(at)? {
            if *next == start {
                let mut path = vec![at];
                while let Some(before) = path.last().filter(|at| **at != start).and_then(|at| predecessors.get(at)) {
                    path.push(*before);
                }
                path.reverse();
                return Some(path);
            }
            if !predecessors.contains_key(next) {
                predecessors.insert(*next, at);
                queue.push_back(*next);
            }
        }
    }
    None
}

/// Returns true if an event that `from` may publish can match a trigger of `to`.
fn publishes_to(manifest: &Manifest, from: &Function, to: &Function) -> bool {
    let uri = format!("/{}/{}", manifest.app, from.name);
    to.triggers.iter().filter(|trigger| matches!(trigger.source, TriggerSource::Any)).any(|trigger| {
        let Some(events) = &trigger.events else {
            return false;
        };
        let source_matches = exact_values(trigger, "source").is_none_or(|sources| sources.contains(&uri));
        let type_matches = match exact_values(trigger, "type") {
            Some(types) => types.iter().any(|type_| from.allow.publish.iter().any(|glob| glob.matches(type_))),
            // A pattern with operators for `type` is assumed to match no published event. A pattern without `type`
            // matches events of every type.
            None => events.json.get("type").is_none() && !from.allow.publish.is_empty(),
        };
        source_matches && type_matches
    })
}

/// Returns true if it would take too long to compare each published type with each type in the patterns. The checks are
/// then skipped, because they give only warnings.
fn is_too_large_to_compare(manifest: &Manifest) -> bool {
    let globs: usize = manifest.functions.iter().map(|function| function.allow.publish.len() + 1).sum();
    let types: usize =
        triggers(manifest).map(|(_, trigger)| exact_values(trigger, "type").map_or(1, |types| types.len())).sum();
    globs.saturating_mul(types) > 1_000_000
}

fn exact_values(trigger: &Trigger, field: &str) -> Option<Vec<String>> {
    trigger.events.as_ref()?.pattern.exact_values(field)
}

fn triggers(manifest: &Manifest) -> impl Iterator<Item = (&Function, &Trigger)> {
    manifest.functions.iter().flat_map(|function| function.triggers.iter().map(move |trigger| (function, trigger)))
}
