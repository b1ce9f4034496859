//! Finds the changes that a reload makes, to report them to users.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;

use super::functions::{self, full_name};
use evoke_http::source::Endpoint;
use evoke_manifest::Checked;
use evoke_model::TakeOver;

/// The functions, sources and routes that manifests declare, in a form in which two versions can be compared.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// The functions by full name, and the sources by URI.
    parts: BTreeMap<String, Part>,
    routes: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Part {
    /// The settings as in the manifest.
    settings: Value,
    /// The modification time of the component's file.
    component: Option<SystemTime>,
}

/// The names of functions, `app/function`, and the URIs of sources that a reload changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The new functions and sources.
    pub added: Vec<String>,
    /// The functions and sources that no manifest declares any more.
    pub removed: Vec<String>,
    /// The functions and sources with other settings or another component.
    pub changed: Vec<String>,
    /// The functions whose `order_by` changed while they had pending deliveries, with the number of these deliveries.
    /// The deliveries keep the keys of the old `order_by`. Includes functions that were renamed in the same reload.
    pub reordered: Vec<(String, u64)>,
    /// All routes of http sources, such as `POST /checkout to /shop/checkout`; empty if none changed.
    pub routes: Vec<String>,
}

impl Declared {
    /// Collects the functions, sources and routes, and reads the modification times of the components.
    pub(super) fn new(manifests: &[Checked], endpoints: &[Endpoint]) -> Self {
        // Never fails: manifests always serialise.
        let functions = functions::all(manifests).map(|(checked, function)| {
            let settings = serde_json::to_value(function).unwrap_or_default();
            let file = function.component_path().and_then(|path| std::fs::metadata(path).ok());
            let component = file.and_then(|file| file.modified().ok());
            (full_name(&checked.manifest, function), Part { settings, component })
        });
        let sources = manifests.iter().flat_map(|checked| checked.manifest.all_sources()).map(|(source, _)| {
            let settings = serde_json::to_value(source).unwrap_or_default();
            (source.uri.clone(), Part { settings, component: None })
        });
        let mut routes: Vec<_> = endpoints.iter().map(route).collect();
        routes.sort();
        Self { parts: functions.chain(sources).collect(), routes }
    }

    /// Returns the changes from `before` to `self`. `renamed` has the functions that were renamed in this reload.
    /// `pending` has the number of pending deliveries of each function.
    pub(super) fn since(&self, before: &Self, renamed: &[TakeOver], pending: &BTreeMap<String, u64>) -> Changes {
        let missing_in = |other: &Self, one: &Self| {
            one.parts.keys().filter(|name| !other.parts.contains_key(*name)).cloned().collect::<Vec<_>>()
        };
        let both = self.parts.iter().filter_map(|(name, part)| Some((name, part, before.parts.get(name)?)));
        let changed: Vec<_> = both.filter(|(_, now, then)| now != then).collect();
        let from_earlier =
            renamed.iter().filter_map(|TakeOver { from, to }| Some((to, self.parts.get(to)?, before.parts.get(from)?)));
        let reordered = changed.iter().copied().chain(from_earlier);
        let reordered = reordered.filter(|(_, now, then)| now.settings["order_by"] != then.settings["order_by"]);
        let reordered = reordered.filter_map(|(name, ..)| Some((name.clone(), *pending.get(name)?)));
        Changes {
            added: missing_in(before, self),
            removed: missing_in(self, before),
            reordered: reordered.filter(|(_, pending)| *pending > 0).collect(),
            changed: changed.into_iter().map(|(name, ..)| name.clone()).collect(),
            routes: if self.routes == before.routes { Vec::new() } else { self.routes.clone() },
        }
    }

    /// Returns [`Changes`] with only the routes, for the first start.
    pub(super) fn only_routes(&self) -> Changes {
        Changes { routes: self.routes.clone(), ..Changes::default() }
    }
}

fn route(endpoint: &Endpoint) -> String {
    let methods: Vec<_> = endpoint.methods.iter().map(http::Method::as_str).collect();
    format!("{} {} to {}", methods.join(","), endpoint.path, endpoint.uri)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::kinds::registry;

    fn declared(text: &str) -> Declared {
        let endpoint = "deliver: { url: \"https://endpoint.example/\" }, on: [{ events: { type: [t] } }]";
        let text = format!("evoke: 1\napp: a\n{}", text.replace("ENDPOINT", endpoint));
        let checked = evoke_manifest::load_str(&text, Path::new("a.yaml"), &registry()).unwrap();
        Declared::new(&[checked], &[])
    }

    #[test]
    fn functions_and_sources_are_added_removed_and_changed() {
        let before = declared(
            "sources: { tick: { timer: { every: 1m } } }\nfunctions: { one: { ENDPOINT }, two: { ENDPOINT }, three: { ENDPOINT } }",
        );
        let after = declared(
            "sources: { tick: { timer: { every: 2m } } }\nfunctions: { two: { ENDPOINT }, three: { ENDPOINT, order_by: data.id }, four: { ENDPOINT } }",
        );
        let pending = BTreeMap::from([("a/three".to_owned(), 3), ("a/two".to_owned(), 1)]);
        let changes = after.since(&before, &[], &pending);
        let expected = Changes {
            added: vec!["a/four".into()],
            removed: vec!["a/one".into()],
            changed: vec!["/a/tick".into(), "a/three".into()],
            reordered: vec![("a/three".into(), 3)],
            routes: Vec::new(),
        };
        assert_eq!(changes, expected);
        assert_eq!(after.since(&after, &[], &pending), Changes::default());
    }

    #[test]
    fn a_renamed_function_with_another_order_is_reported_with_what_waits() {
        let before = declared("functions: { one: { ENDPOINT }, two: { ENDPOINT } }");
        let after = declared("functions: { three: { ENDPOINT, order_by: subject }, four: { ENDPOINT } }");
        let renamed = [("a/one", "a/three"), ("a/two", "a/four")]
            .map(|(from, to)| TakeOver { from: from.to_owned(), to: to.to_owned() });
        let pending = BTreeMap::from([("a/three".to_owned(), 3), ("a/four".to_owned(), 1)]);
        assert_eq!(after.since(&before, &renamed, &pending).reordered, [("a/three".to_owned(), 3)]);
        assert!(after.since(&before, &[], &pending).reordered.is_empty());
    }
}
