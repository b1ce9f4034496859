//! Who is owed an event: the triggers of every function, compiled.

use crate::bus::Target;
use crate::event::Event;
use crate::store::NewDelivery;

/// The compiled triggers.
#[derive(Default)]
pub struct Router {}

impl Router {
    /// The deliveries that an event is owed, at most one a function.
    pub fn route(&self, _event: &Event, _target: &Target) -> Result<Vec<NewDelivery>, String> {
        Ok(Vec::new())
    }
}
