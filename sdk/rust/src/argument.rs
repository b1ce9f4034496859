//! The parameter and return types of a function, as `#[evoke::function]` uses them.

use crate::{Delivery, Event, Failure};
use serde::de::DeserializeOwned;
use std::ops::Deref;

/// A parameter type of a function: [`Event`], [`Delivery`], [`Json`], [`crate::FileEvent`], [`crate::TimerTick`], or
/// your own type that implements this trait.
#[diagnostic::on_unimplemented(
    message = "a function cannot take `{Self}`",
    label = "cannot be created from an event",
    note = "the supported types are `evoke::Event`, `evoke::Delivery`, `evoke::FileEvent`, `evoke::TimerTick`, and `evoke::Json<T>` for data of your own type"
)]
pub trait Argument: Sized {
    /// Creates the parameter from an event and its delivery.
    ///
    /// # Errors
    /// [`Failure::Reject`] if this type cannot be created from the event. A later attempt would fail in the same way.
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

/// The event's data, parsed as JSON. Data that does not parse as `T` is rejected with a message that names the mistake.
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

/// Parses the event's data. If the data cannot be parsed, the message of the reject names the event's type.
pub(crate) fn parse<T: DeserializeOwned>(event: &Event) -> Result<T, Failure> {
    event.json().map_err(|error| Failure::reject(format!("cannot parse the data of {}: {error}", event.type_)))
}

/// A return type of a function: `()`, or `Result<(), E>` with an error type that converts into a [`Failure`].
#[diagnostic::on_unimplemented(
    message = "a function cannot return `{Self}`",
    label = "expected `Result<(), evoke::Failure>` or `()`",
    note = "convert errors of other types to a `Failure` with `.or_retry(…)?` or `.or_reject(…)?` of `evoke::OrFail`"
)]
pub trait Outcome {
    /// Converts the return value to the result of the attempt.
    ///
    /// # Errors
    /// The failure that the function returned.
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
