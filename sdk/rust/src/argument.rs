//! What a function may take and return: the two ends that `#[evoke::function]` joins.

use crate::{Delivery, Event, Failure};
use serde::de::DeserializeOwned;
use std::ops::Deref;

/// What a parameter of a function can be: [`Event`], [`Delivery`], [`Json`], [`crate::FileEvent`],
/// [`crate::TimerTick`], or a type of your own that implements this.
#[diagnostic::on_unimplemented(
    message = "a function cannot take `{Self}`",
    label = "not made from an event",
    note = "it takes `evoke::Event`, `evoke::Delivery`, `evoke::FileEvent`, `evoke::TimerTick`, or `evoke::Json<T>` for data of your own type"
)]
pub trait Argument: Sized {
    /// Makes the parameter of what is delivered.
    ///
    /// # Errors
    /// The event does not fit: a reject, as no later attempt changes it.
    fn from_event(event: &Event, delivery: &Delivery) -> Result<Self, Failure>;
}

impl Argument for Event {
    fn from_event(event: &Event, _: &Delivery) -> Result<Self, Failure> {
        Ok(event.clone())
    }
}

impl Argument for Delivery {
    fn from_event(_: &Event, delivery: &Delivery) -> Result<Self, Failure> {
        Ok(delivery.clone())
    }
}

/// The event's data, read as JSON. Data that is no `T` is rejected with a message that names the mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned> Argument for Json<T> {
    fn from_event(event: &Event, _: &Delivery) -> Result<Self, Failure> {
        parse(event).map(Self)
    }
}

/// Reads the event's data, and says in a reject which event it was that did not fit.
pub(crate) fn parse<T: DeserializeOwned>(event: &Event) -> Result<T, Failure> {
    event.json().map_err(|error| Failure::reject(format!("the data of {} does not fit: {error}", event.type_)))
}

/// What a function may return: `Result<(), E>` with any error that becomes a [`Failure`], or nothing.
#[diagnostic::on_unimplemented(
    message = "a function cannot return `{Self}`",
    label = "neither `Result<(), evoke::Failure>` nor `()`",
    note = "errors of other types become a `Failure` by `.or_retry(…)?` or `.or_reject(…)?` of `evoke::OrFail`"
)]
pub trait Outcome {
    /// Done, or why not.
    ///
    /// # Errors
    /// What the function failed with.
    fn outcome(self) -> Result<(), Failure>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> Outcome for Result<(), E> {
    fn outcome(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}
