//! Handlers: components that export `evoke:function/handler`.

use std::time::Duration;

use wasmtime::Store;

use super::context::HostContext;
use super::invocation::Invocation;
use super::outcome;
use evoke_model::event::{Data, Event};
use evoke_model::outcome::Outcome;

mod bindings;
pub(super) use bindings::GuestPre;
pub(super) use bindings::direct::GuestPre as DirectGuestPre;
pub(super) use bindings::exports::evoke::function::handler::Delivery;
use bindings::exports::evoke::function::handler::{Event as GuestEvent, Failure};

/// Runs the handler to its end. Returns an error if the handler traps.
pub(super) async fn run(
    pre: &GuestPre<HostContext>,
    store: &mut Store<HostContext>,
    invocation: &Invocation,
    delivery: Delivery<'_>,
) -> wasmtime::Result<Outcome> {
    let guest = pre.instantiate_async(&mut *store).await?;
    let Some(event) = invocation.cause.as_deref() else { return Ok(no_event()) };
    let extensions = extensions(event);
    let event = to_guest_event(event, &extensions);
    let handled = guest.evoke_function_handler().call_handle(&mut *store, event, delivery).await?;
    Ok(to_outcome(handled, store.data()))
}

/// Runs the handler to its end on the caller's stack. Returns an error if the handler traps.
pub(super) fn run_direct(
    pre: &DirectGuestPre<HostContext>,
    store: &mut Store<HostContext>,
    invocation: &Invocation,
    delivery: Delivery<'_>,
) -> wasmtime::Result<Outcome> {
    let guest = pre.instantiate(&mut *store)?;
    let Some(event) = invocation.cause.as_deref() else { return Ok(no_event()) };
    let extensions = extensions(event);
    let event = to_guest_event(event, &extensions);
    let handled = guest.evoke_function_handler().call_handle(&mut *store, event, delivery)?;
    Ok(to_outcome(handled, store.data()))
}

fn extensions(event: &Event) -> Vec<(&str, &str)> {
    event.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Converts an event to the type in the guest's bindings, without copying.
fn to_guest_event<'a>(event: &'a Event, extensions: &'a [(&'a str, &'a str)]) -> GuestEvent<'a> {
    GuestEvent {
        id: &event.id,
        source: &event.source,
        type_: &event.type_,
        subject: event.subject.as_deref(),
        time: event.time.as_deref(),
        // In the JSON format of CloudEvents, an event with JSON data needs no media type. The guest gets the event in
        // another form, which needs one (CloudEvents JSON format, section 3.1.2).
        datacontenttype: event.datacontenttype.as_deref().or(match event.data {
            Data::Json(_) => Some("application/json"),
            _ => None,
        }),
        dataschema: event.dataschema.as_deref(),
        extensions,
        data: event.data.as_bytes(),
    }
}

/// Returns the outcome of a handler that returned.
fn to_outcome(returned: Result<(), Failure>, context: &HostContext) -> Outcome {
    let redactor = context.invocation.redactor();
    match returned {
        Ok(()) => Outcome::Done,
        Err(Failure::Reject(message)) => Outcome::Reject { message: outcome::sanitize(redactor, &message) },
        Err(Failure::Retry(retry)) => {
            let message = outcome::sanitize(redactor, &retry.message);
            outcome::limit_outcome(context, &message)
                .unwrap_or(Outcome::Retry { message, after: retry.after_ms.map(Duration::from_millis) })
        }
    }
}

fn no_event() -> Outcome {
    Outcome::Unavailable { message: "the function was called without an event".into() }
}
