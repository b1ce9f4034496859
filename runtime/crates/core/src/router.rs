//! Routing of events to functions: the triggers of every function, compiled into one matcher.

use std::sync::Arc;

use foldhash::HashMap;

use crate::runtime_events;
use evoke_model::event::{Data, Event};
use evoke_model::{FunctionId, NewDelivery};
use evoke_pattern::{Matcher, Pattern};

/// The compiled triggers of every function.
#[derive(Default)]
pub struct Router {
    matcher: Matcher<usize>,
    triggers: Vec<Trigger>,
    order_by: HashMap<FunctionId, OrderBy>,
    /// The function and trigger of each private source, by the source's URI.
    private_sources: HashMap<String, (FunctionId, Arc<str>)>,
}

/// One entry of a function's `on:` that selects events by source, by pattern, or by both.
struct Trigger {
    function: FunctionId,
    name: Arc<str>,
    /// The URI of the source that the events must come from; `None` means any source.
    source: Option<String>,
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

/// The part of an event that is its order key. A function handles events with the same key one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// An attribute of the event, such as `subject` or an extension.
    Attribute(String),
    /// A field of the event's JSON data, given as the path of member names.
    Data(Vec<String>),
}

impl Router {
    /// Adds a trigger: `function` runs on events that come from `source` and match `pattern`. `None` means any source,
    /// and all events. The caller adds the triggers of a function in the order of the manifest.
    pub fn add(&mut self, function: FunctionId, name: Arc<str>, source: Option<&str>, pattern: Option<&Pattern>) {
        let trigger = self.triggers.len();
        let accepts_runtime_events = pattern.is_some_and(runtime_events::selects_runtime_events);
        self.triggers.push(Trigger { function, name, source: source.map(str::to_owned), accepts_runtime_events });
        match pattern {
            Some(pattern) => self.matcher.insert(trigger, pattern),
            None => {
                let exact = match source {
                    Some(source) => serde_json::json!({ "source": [source] }),
                    None => serde_json::json!({ "source": [{ "exists": true }] }),
                };
                if let Ok(pattern) = Pattern::parse(&exact) {
                    self.matcher.insert(trigger, &pattern);
                }
            }
        }
    }

    /// Makes a function handle events with the same order key one after another.
    pub fn set_order(&mut self, function: FunctionId, by: OrderBy) {
        self.order_by.insert(function, by);
    }

    /// Declares `source` a private source of `function`. Its events are not matched with patterns: all of them go to
    /// this function.
    pub fn add_private_source(&mut self, source: &str, function: FunctionId, name: Arc<str>) {
        self.private_sources.insert(source.to_owned(), (function, name));
    }

    /// Returns the deliveries of a replayed event: one for each function that matches the event. If the event came from
    /// a private source, the function that declares the source also gets one. Returns the errors of [`Router::route`].
    pub fn route_replay(&self, event: &Event) -> Result<Vec<NewDelivery>, String> {
        let mut deliveries = self.route(event, &Target::Matching)?;
        if let Some((function, name)) = self.private_sources.get(&event.source)
            && !deliveries.iter().any(|delivery| delivery.function == *function)
        {
            deliveries.push(self.delivery(event, *function, name));
        }
        Ok(deliveries)
    }

    /// Returns the deliveries of an event: one for each function, even if several triggers of the function match. The
    /// delivery has the trigger name of the first one that matches.
    ///
    /// # Errors
    /// A message when the event's JSON data is not valid JSON.
    pub fn route(&self, event: &Event, target: &Target) -> Result<Vec<NewDelivery>, String> {
        let mut deliveries: Vec<NewDelivery> = Vec::new();
        match target {
            Target::Function { function, trigger } => deliveries.push(self.delivery(event, *function, trigger)),
            Target::Matching => {
                let is_runtime = event.source == runtime_events::SOURCE;
                for index in self.matcher.matches(&event.into()).map_err(|e| e.to_string())? {
                    let Some(trigger) = self.triggers.get(index) else { continue };
                    if is_runtime && !trigger.accepts_runtime_events {
                        continue;
                    }
                    let source_matches = trigger.source.as_ref().is_none_or(|source| *source == event.source);
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

/// Returns the order key of an event, or `None` if the event is not ordered. If the value is a string, the key is the
/// string itself. Otherwise the key is the value's JSON text. So `1` and `"1"` have the same key.
fn order_key(event: &Event, by: &OrderBy) -> Option<String> {
    match by {
        OrderBy::Attribute(name) => event.attributes().find(|(n, _)| n == name).map(|(_, value)| value.to_owned()),
        OrderBy::Data(path) => {
            let Data::Json(bytes) = &event.data else { return None };
            let data: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            match path.iter().try_fold(&data, |value, name| value.get(name))? {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => Some(text.clone()),
                value => Some(value.to_string()),
            }
        }
    }
}
