//! Who is owed an event: the triggers of every function, compiled.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bus::Target;
use crate::event::{Data, Event};
use crate::store::{FunctionId, NewDelivery};

/// The compiled triggers of every function.
#[derive(Default)]
pub struct Router {
    order: HashMap<FunctionId, OrderBy>,
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
    /// Has a function handle events with the same key one after another.
    pub fn order(&mut self, function: FunctionId, by: OrderBy) {
        self.order.insert(function, by);
    }

    /// The deliveries that an event is owed: one for each function, however many of its triggers match.
    pub fn route(&self, event: &Event, target: &Target) -> Result<Vec<NewDelivery>, String> {
        let owed: Vec<(FunctionId, Arc<str>)> = match target {
            Target::Function { function, trigger } => vec![(*function, trigger.clone())],
            Target::Matching => Vec::new(),
        };
        let deliveries = owed.into_iter().map(|(function, trigger)| NewDelivery {
            function,
            trigger,
            order_key: self.order.get(&function).and_then(|by| order_key(event, by)),
        });
        Ok(deliveries.collect())
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
