//! Routing of events to functions: the triggers of every function, compiled into one matcher.

mod order_key;

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

pub use self::order_key::OrderBy;
use self::order_key::order_key;
use crate::runtime_events;
use evoke_model::claim::{self, SourceNames};
use evoke_model::event::{Data, Event};
use evoke_model::{FunctionId, NewDelivery, Origin, StoredEvent};
use evoke_pattern::{Matcher, Pattern, check_json};

/// The compiled triggers of every function.
#[derive(Default)]
pub struct Router {
    matcher: Matcher<usize>,
    triggers: Vec<Trigger>,
    /// The triggers without a pattern, which receive every event of their source.
    by_origin: HashMap<Origin, Vec<usize>>,
    order_by: HashMap<FunctionId, OrderBy>,
    /// For each private source: the function that owns the source, and the name of the trigger that declares the
    /// source. When an event of the source is accepted, only this function receives the event.
    private_sources: HashMap<Origin, (FunctionId, Arc<str>)>,
    /// The names of the apps. The sources `/<app>/…` belong to the app.
    apps: HashSet<String>,
}

/// One entry of a function's `on:` in the manifest. The entry selects events by source, by pattern, or by both.
struct Trigger {
    function: FunctionId,
    name: Arc<str>,
    /// The source through which the events must enter; `None` means any source.
    source: Option<Origin>,
    /// True if the trigger also receives the runtime's own events.
    accepts_runtime_events: bool,
}

/// The functions that receive an accepted event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target {
    /// Every function with a matching trigger.
    #[default]
    Matching,
    /// One function: the event comes from a private source of this function.
    Function {
        /// The function that owns the source.
        function: FunctionId,
        /// The trigger that declares the source.
        trigger: Arc<str>,
    },
}

impl Router {
    /// Adds a trigger: `function` runs on events that enter through `source` (`None`: any event) and match `pattern`
    /// (`None`: all events). The caller adds the triggers of a function in the order of the manifest.
    pub fn add(&mut self, function: FunctionId, name: Arc<str>, source: Option<Origin>, pattern: Option<&Pattern>) {
        let trigger = self.triggers.len();
        let accepts_runtime_events = pattern.is_some_and(runtime_events::selects_runtime_events);
        self.triggers.push(Trigger { function, name, source, accepts_runtime_events });
        match (pattern, source) {
            (Some(pattern), _) => self.matcher.insert(trigger, pattern),
            (None, Some(source)) => self.by_origin.entry(source).or_default().push(trigger),
            (None, None) => {
                if let Ok(pattern) = Pattern::parse(&serde_json::json!({ "source": [{ "exists": true }] })) {
                    self.matcher.insert(trigger, &pattern);
                }
            }
        }
    }

    /// Makes a function handle events with the same order key one after another.
    pub fn set_order(&mut self, function: FunctionId, by: OrderBy) {
        self.order_by.insert(function, by);
    }

    /// Declares `source` as a private source of `function`: the events of the source go to this function without
    /// pattern matching.
    pub fn add_private_source(&mut self, source: Origin, function: FunctionId, name: Arc<str>) {
        self.private_sources.insert(source, (function, name));
    }

    /// Declares an app: the sources `/<app>/…` belong to it, and no producer can claim them.
    pub fn add_app(&mut self, name: &str) {
        self.apps.insert(name.to_owned());
    }

    /// Returns the owner of the URI `source`: the name of an app or of the runtime. Other spellings of an owner's URI,
    /// and URIs that could be mistaken for it, have the same owner; see [`claim::source_names`]. `trusted` returns true
    /// for the authority of another machine whose sources are accepted. The path of a URI with such an authority is not
    /// compared with the apps of this runtime.
    pub fn owner_of(&self, source: &str, trusted: impl Fn(&str) -> bool) -> Option<String> {
        let SourceNames { local, remote } = claim::source_names(source);
        let remote = remote.filter(|(authority, _)| !trusted(authority)).map(|(_, name)| name);
        [local, remote].into_iter().flatten().find(|name| name == claim::RUNTIME_NAME || self.apps.contains(name))
    }

    /// Returns the deliveries of a replayed event: one for each function with a matching trigger. If the event came
    /// from a private source, the function that owns the source also gets one. Returns an empty list if the producer of
    /// the event chose a `source` that by now belongs to an app. `origin_uri` is the URI of the source through which
    /// the event entered. The errors are those of [`Router::route`].
    pub fn route_replay(&self, stored: &StoredEvent, origin_uri: Option<&str>) -> Result<Vec<NewDelivery>, String> {
        if self.claims_an_app(stored, origin_uri) {
            return Ok(Vec::new());
        }
        let StoredEvent { event, lineage, .. } = stored;
        let entered = lineage.entered();
        let mut deliveries = self.route(event, entered, &Target::Matching)?;
        if let Some((function, name)) = entered.and_then(|origin| self.private_sources.get(&origin))
            && !deliveries.iter().any(|delivery| delivery.function == *function)
        {
            deliveries.push(self.delivery(event, *function, name));
        }
        Ok(deliveries)
    }

    /// Returns the deliveries of a scheduled event that is due: the same as if the event were accepted now. Returns an
    /// empty list if the producer of the event chose a `source` that by now belongs to an app. The errors are those of
    /// [`Router::route`].
    pub fn route_due(&self, stored: &StoredEvent, origin_uri: Option<&str>) -> Result<Vec<NewDelivery>, String> {
        if self.claims_an_app(stored, origin_uri) {
            return Ok(Vec::new());
        }
        let entered = stored.lineage.entered();
        let private = entered.and_then(|origin| self.private_sources.get(&origin));
        let target = private.map_or(Target::Matching, |(function, trigger)| Target::Function {
            function: *function,
            trigger: trigger.clone(),
        });
        self.route(&stored.event, entered, &target)
    }

    /// Returns true if the producer of a stored event chose a `source` that by now belongs to an app or to the runtime.
    fn claims_an_app(&self, stored: &StoredEvent, origin_uri: Option<&str>) -> bool {
        let entered = stored.lineage.entered();
        if matches!(entered, None | Some(Origin::OPERATOR)) || entered == Some(Origin::default()) {
            return false;
        }
        let owner = |uri: &str| self.owner_of(uri, |_| true);
        // An event that entered through a source of an app may have any `source` of this app: HTTP components publish
        // such events. Producers cannot misuse this. While the app exists, the bus accepts from a producer only one
        // `source` of the app: the URI of the source through which the event enters.
        owner(&stored.event.source).is_some_and(|app| origin_uri.and_then(owner) != Some(app))
    }

    /// Returns the deliveries of an event: one for each function with a matching trigger. A delivery names the first
    /// trigger of its function that matches. `entered` is the source through which the event entered; `None` for an
    /// event that a function published.
    ///
    /// # Errors
    /// A message when the event's JSON data is not valid JSON, or is nested deeper than 128 levels.
    pub fn route(&self, event: &Event, entered: Option<Origin>, target: &Target) -> Result<Vec<NewDelivery>, String> {
        let mut deliveries: Vec<NewDelivery> = Vec::new();
        match target {
            Target::Function { function, trigger } => {
                // For `Target::Matching`, the matcher rejects invalid JSON data. Such data is also rejected here,
                // because a replay of the event uses the matcher.
                if let Data::Json(json) = &event.data {
                    check_json(json).map_err(|e| e.to_string())?;
                }
                deliveries.push(self.delivery(event, *function, trigger));
            }
            Target::Matching => {
                let is_runtime = event.source == runtime_events::SOURCE;
                let mut matching = self.matcher.matches(&event.into()).map_err(|e| e.to_string())?;
                if let Some(triggers) = entered.and_then(|origin| self.by_origin.get(&origin)) {
                    matching.extend(triggers);
                    matching.sort_unstable();
                }
                for index in matching {
                    let Some(trigger) = self.triggers.get(index) else { continue };
                    if is_runtime && !trigger.accepts_runtime_events {
                        continue;
                    }
                    let source_matches = trigger.source.is_none_or(|source| entered == Some(source));
                    if source_matches && !deliveries.iter().any(|d| d.function == trigger.function) {
                        deliveries.push(self.delivery(event, trigger.function, &trigger.name));
                    }
                }
            }
        }
        Ok(deliveries)
    }

    fn delivery(&self, event: &Event, function: FunctionId, trigger: &Arc<str>) -> NewDelivery {
        let order_key = self.order_by.get(&function).and_then(|by| order_key(event, by));
        NewDelivery { function, trigger: trigger.clone(), order_key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_model::{Lineage, Seq};

    #[test]
    fn an_event_of_a_private_source_is_valid_for_patterns_and_so_for_a_replay() {
        let (function, origin) = (FunctionId(7), Origin(3));
        let mut router = Router::default();
        router.add_private_source(origin, function, "on[0]".into());
        let target = Target::Function { function, trigger: "on[0]".into() };
        for (depth, is_valid) in [(128, true), (129, false), (5_000, false)] {
            let json = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let event = Event { data: Data::Json(json.into()), ..Event::default() };
            let routed = router.route(&event, Some(origin), &target);
            assert_eq!(routed.as_ref().map(Vec::len).is_ok(), is_valid, "{depth}: {routed:?}");
            let lineage = Lineage { origin, ..Lineage::default() };
            let stored = StoredEvent { seq: Seq(1), accepted_ms: 0, lineage, event: Arc::new(event) };
            assert_eq!(router.route_replay(&stored, None).is_ok_and(|found| found.len() == 1), is_valid, "{depth}");
        }
    }
}
