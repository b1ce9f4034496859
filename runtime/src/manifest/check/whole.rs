//! Checks that need the whole manifest.

use crate::manifest::diagnostics::{Diagnostic, shown};
use crate::manifest::model::{Function, Manifest, Origin, SourceKind, Trigger};
use crate::manifest::read::Reader;
use crate::manifest::source_text::Span;
use crate::manifest::suggest::nearest;
use crate::runtime_events::TYPES;
use std::collections::{BTreeSet, HashMap};

/// One listener serves all http sources, so a method of a path belongs to one of them.
pub(super) fn http_paths(reader: &mut Reader<'_>, manifest: &Manifest) {
    let mut taken: HashMap<(&str, &str), Span> = HashMap::new();
    for (source, _) in manifest.all_sources() {
        let SourceKind::Http(http) = &source.kind else {
            continue;
        };
        for method in &http.methods {
            if let Some(first) = taken.get(&(http.path.as_str(), method.as_str())) {
                let message = format!("`{} {}` is taken by another source", method.as_str(), shown(&http.path));
                let help = "give one of them another path or method; several functions can run on one source";
                reader.error_beside(source.span, message, help, (*first, "taken here"));
                break;
            }
            taken.insert((&http.path, method.as_str()), source.span);
        }
    }
}

/// A pattern that names a source of this app exactly can only match when the app has it. `open` are the sources
/// whose events go to every function.
pub(super) fn event_sources(reader: &mut Reader<'_>, manifest: &Manifest, open: &BTreeSet<String>) {
    let prefix = format!("/{}/", manifest.app);
    let owners: HashMap<&str, &Function> =
        manifest.all_sources().filter_map(|(source, owner)| Some((source.uri.as_str(), owner?))).collect();
    for (function, trigger) in triggers(manifest) {
        let Some(values) = exact(trigger, "source") else {
            continue;
        };
        if let Some(uri) = origin_uri(&prefix, trigger) {
            if !values.contains(&uri) {
                let message = format!("this pattern can never match: its events come from `{uri}`");
                let place = values.first().map_or(trigger.span, |value| trigger.place_of(value));
                reader.error(place, message, "leave `source` out of the pattern");
            }
            continue;
        }
        for value in values {
            let place = trigger.place_of(&value);
            let owner = owners.get(value.as_str());
            if let Some(owner) = owner.filter(|owner| owner.name != function.name) {
                let message = format!("`{value}` can never match: its events go to `{}` alone", owner.name);
                reader.error(place, message, "declare the source under `sources` to share it");
            } else if owner.is_some() || open.contains(&value) {
                continue;
            } else if value.starts_with(&prefix) {
                // With other mistakes about, it may be the source of a trigger that could not be read.
                if value.matches('/').count() > 2 && reader.has_errors() {
                    continue;
                }
                let message = format!("`{}` can never match: the app has no such source or function", shown(&value));
                let help = match nearest(&value, open.iter().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("the sources of its events are {}", listed(open)),
                };
                reader.error(place, message, help);
            } else if open.contains(&format!("{prefix}{value}")) {
                let message = format!("no source of this app makes events whose source is `{}`", shown(&value));
                reader.warning(place, message, format!("did you mean `{prefix}{value}`?"));
            }
        }
    }
}

/// The one source that the events of a trigger come from, if it names one.
fn origin_uri(prefix: &str, trigger: &Trigger) -> Option<String> {
    match &trigger.origin {
        Origin::Any => None,
        Origin::Shared(name) => Some(format!("{prefix}{name}")),
        Origin::Private(source) => Some(source.uri.clone()),
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A type that nothing here makes may come from outside, but one that is nearly the type of something does not.
pub(super) fn event_types(reader: &mut Reader<'_>, manifest: &Manifest) {
    let raw = manifest.all_sources().filter_map(|(source, _)| match &source.kind {
        SourceKind::Http(http) => http.type_.as_deref(),
        SourceKind::Files(_) | SourceKind::Timer(_) => None,
    });
    let globs: Vec<_> = manifest.functions.iter().flat_map(|function| &function.allow.publish).collect();
    let known: BTreeSet<&str> =
        raw.chain(globs.iter().map(|glob| glob.as_str())).filter(|type_| !type_.contains('*')).chain(TYPES).collect();
    if too_much(manifest) {
        return;
    }
    let mut found = Vec::new();
    for (_, trigger) in triggers(manifest) {
        for type_ in exact(trigger, "type").unwrap_or_default() {
            if known.contains(type_.as_str()) || globs.iter().any(|glob| glob.matches(&type_)) {
                continue;
            }
            if let Some(meant) = nearest(&type_, known.iter().copied()) {
                let message = format!("nothing in this app makes events of the type `{}`", shown(&type_));
                let warning = Diagnostic::warning(reader.source, trigger.place_of(&type_), message);
                found.push(warning.help(format!("did you mean `{meant}`?")));
            }
        }
    }
    reader.found.append(&mut found);
}

/// Functions that set each other off without end, as far as types and sources tell.
pub(super) fn cycles(reader: &mut Reader<'_>, manifest: &Manifest) {
    let functions = &manifest.functions;
    if too_much(manifest) {
        return;
    }
    let sets_off: Vec<Vec<usize>> = functions
        .iter()
        .map(|from| {
            (0..functions.len())
                .filter(|to| functions.get(*to).is_some_and(|to| publishes_to(manifest, from, to)))
                .collect()
        })
        .collect();
    let mut told = BTreeSet::new();
    for start in 0..functions.len() {
        if told.contains(&start) {
            continue;
        }
        let Some(path) = way_back(&sets_off, start) else {
            continue;
        };
        told.extend(path.iter().copied());
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
            [name, _] => format!("{name} can set itself off: it may publish what it runs on"),
            names => format!("these functions can set each other off in a circle: {}", names.join(" → ")),
        };
        let help = "narrow `allow.publish` or a trigger's `type`, unless the function ends the circle itself";
        reader.warning(function.spans.allow, message, help);
    }
}

/// The shortest way from a function over those it sets off back to itself.
fn way_back(sets_off: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: HashMap<usize, usize> = HashMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in sets_off.get(at)? {
            if *next == start {
                let mut path = vec![at];
                while let Some(before) = path.last().filter(|at| **at != start).and_then(|at| came_from.get(at)) {
                    path.push(*before);
                }
                path.reverse();
                return Some(path);
            }
            if !came_from.contains_key(next) {
                came_from.insert(*next, at);
                queue.push_back(*next);
            }
        }
    }
    None
}

/// Whether an event that `from` may publish can meet a trigger of `to`.
fn publishes_to(manifest: &Manifest, from: &Function, to: &Function) -> bool {
    let uri = format!("/{}/{}", manifest.app, from.name);
    to.triggers.iter().filter(|trigger| matches!(trigger.origin, Origin::Any)).any(|trigger| {
        let Some(events) = &trigger.events else {
            return false;
        };
        let source = exact(trigger, "source").is_none_or(|sources| sources.contains(&uri));
        let types = match exact(trigger, "type") {
            Some(types) => types.iter().any(|type_| from.allow.publish.iter().any(|glob| glob.matches(type_))),
            // A type that is not exact is not guessed at; no type at all takes every one.
            None => events.json.get("type").is_none() && !from.allow.publish.is_empty(),
        };
        source && types
    })
}

/// Comparing every type that is published with every type that is taken is advice, not worth any time.
fn too_much(manifest: &Manifest) -> bool {
    let globs: usize = manifest.functions.iter().map(|function| function.allow.publish.len() + 1).sum();
    let types: usize =
        triggers(manifest).map(|(_, trigger)| exact(trigger, "type").map_or(1, |types| types.len())).sum();
    globs.saturating_mul(types) > 1_000_000
}

fn exact(trigger: &Trigger, field: &str) -> Option<Vec<String>> {
    trigger.events.as_ref()?.pattern.exact_values(field)
}

fn triggers(manifest: &Manifest) -> impl Iterator<Item = (&Function, &Trigger)> {
    manifest.functions.iter().flat_map(|function| function.triggers.iter().map(move |trigger| (function, trigger)))
}
