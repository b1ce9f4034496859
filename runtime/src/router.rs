//! Who is owed an event: the triggers of every function, compiled into one matcher.

use std::sync::Arc;

use foldhash::HashMap;

use crate::event::{Data, Event};
use crate::pattern::{Matcher, Pattern};
use crate::runtime_events;
use crate::store::{FunctionId, NewDelivery};

/// The compiled triggers of every function.
#[derive(Default)]
pub struct Router {
    matcher: Matcher<usize>,
    triggers: Vec<Trigger>,
    order: HashMap<FunctionId, OrderBy>,
    /// Who has a source of its own, by its URI.
    own: HashMap<String, (FunctionId, Arc<str>)>,
}

/// One entry of a function's `on:` that goes by patterns.
struct Trigger {
    function: FunctionId,
    name: Arc<str>,
    /// The source that its events must come from.
    from: Option<String>,
    /// Whether it is for what the runtime says, too.
    asks_for_runtime: bool,
}

/// Who an offered event is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target {
    /// Every function with a trigger that matches.
    #[default]
    Matching,
    /// One function: the event comes from a source of its own.
    Function {
        /// The function.
        function: FunctionId,
        /// The trigger that the source belongs to.
        trigger: Arc<str>,
    },
}

/// What decides which events a function handles one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// An attribute of the event, such as `subject` or an extension.
    Attribute(String),
    /// A field of the event's JSON data, by the names on the way to it.
    Data(Vec<String>),
}

impl Router {
    /// Has a function run on events that come from a source (any, without one) and match a pattern (all, without
    /// one). Triggers of a function are added in their order.
    pub fn add(&mut self, function: FunctionId, name: Arc<str>, from: Option<&str>, pattern: Option<&Pattern>) {
        let trigger = self.triggers.len();
        let asks_for_runtime = pattern.is_some_and(runtime_events::asks_for_them);
        self.triggers.push(Trigger { function, name, from: from.map(str::to_owned), asks_for_runtime });
        match pattern {
            Some(pattern) => self.matcher.insert(trigger, pattern),
            None => {
                let exact = match from {
                    Some(source) => serde_json::json!({ "source": [source] }),
                    None => serde_json::json!({ "source": [{ "exists": true }] }),
                };
                if let Ok(pattern) = Pattern::parse(&exact) {
                    self.matcher.insert(trigger, &pattern);
                }
            }
        }
    }

    /// Has a function handle events with the same key one after another.
    pub fn order(&mut self, function: FunctionId, by: OrderBy) {
        self.order.insert(function, by);
    }

    /// Says that a source is a function's own: its events are for this function, past the patterns.
    pub fn own(&mut self, source: &str, function: FunctionId, name: Arc<str>) {
        self.own.insert(source.to_owned(), (function, name));
    }

    /// Who is offered a stored event again: who it matches, and the function whose own source it came from.
    pub fn route_again(&self, event: &Event) -> Result<Vec<NewDelivery>, String> {
        let mut deliveries = self.route(event, &Target::Matching)?;
        if let Some((function, name)) = self.own.get(&event.source)
            && !deliveries.iter().any(|delivery| delivery.function == *function)
        {
            deliveries.push(self.delivery(event, *function, name));
        }
        Ok(deliveries)
    }

    /// The deliveries that an event is owed: one for each function, however many of its triggers match; the first
    /// of these names the delivery's trigger. `Err` says why it is no event: its data is not JSON.
    pub fn route(&self, event: &Event, target: &Target) -> Result<Vec<NewDelivery>, String> {
        let mut deliveries: Vec<NewDelivery> = Vec::new();
        match target {
            Target::Function { function, trigger } => deliveries.push(self.delivery(event, *function, trigger)),
            Target::Matching => {
                let is_runtime = event.source == runtime_events::SOURCE;
                for index in self.matcher.matches(&event.view()).map_err(|e| e.to_string())? {
                    let Some(trigger) = self.triggers.get(index) else { continue };
                    if is_runtime && !trigger.asks_for_runtime {
                        continue;
                    }
                    let comes_from = trigger.from.as_ref().is_none_or(|source| *source == event.source);
                    if comes_from && !deliveries.iter().any(|d| d.function == trigger.function) {
                        deliveries.push(self.delivery(event, trigger.function, &trigger.name));
                    }
                }
            }
        }
        Ok(deliveries)
    }

    fn delivery(&self, event: &Event, function: FunctionId, trigger: &Arc<str>) -> NewDelivery {
        let order_key = self.order.get(&function).and_then(|by| order_key(event, by));
        NewDelivery { function, trigger: trigger.clone(), order_key }
    }
}

/// The key of an event; one without it is not ordered at all. Strings stand for themselves, other values for their
/// JSON text, so that `1` and `"1"` are one key.
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
