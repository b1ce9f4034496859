//! The events that a function publishes. They are completed, checked against the grant, and buffered until the attempt
//! succeeds or the HTTP response is set.

use std::sync::{Mutex, MutexGuard, PoisonError};

use wasmtime::component::{HasData, Linker};

use super::budget::HostBudget;
use super::grant_use::GrantUse;
use super::refusal::{Refusal, Refusals};
use super::secrets::Redactor;
use evoke_model::event::{EVENT_SIZE_MAX, Event};
use evoke_model::runtime_events;

mod event;
#[cfg(test)]
mod tests;

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../../../sdk/wit",
        inline: "package evoke:publish-host; world guest { import evoke:function/bus@0.1.0; }",
    });
}
use bindings::evoke::function::bus;
use bindings::evoke::function::types::{self, Draft};
pub(super) use event::Origin;

/// Limits on the events of one attempt. All of them are held in memory and go into one commit.
const EVENTS_MAX: usize = 1_000;
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Estimate of the memory that an event takes in addition to its texts and data, in bytes.
const RECORD_BYTES: usize = 512;
/// Length limit of an event type in the message of a refusal, in bytes.
const SHOWN_BYTES_MAX: usize = 256;

/// Publishes events for one attempt. Borrows its fields from the `Invocation`.
#[derive(Clone, Copy)]
pub(super) struct Publisher<'a> {
    pub(super) origin: Origin<'a>,
    /// The grant: patterns of event types, in which `*` matches any run of characters.
    pub(super) allowed: &'a [String],
    /// Records which globs of the grant are used.
    pub(super) grant_use: &'a GrantUse,
    pub(super) published: &'a Mutex<Published>,
    pub(super) budget: &'a HostBudget,
    pub(super) redactor: &'a Redactor,
}

/// The events that an attempt has published so far.
#[derive(Default)]
pub(super) struct Published {
    events: Vec<Event>,
    bytes: usize,
    /// True after the guest has set its HTTP response. Events that were published before are stored with the response;
    /// later events are refused.
    is_closed: bool,
}

impl Publisher<'_> {
    /// Publishes a draft. Returns the id of the event, or the reason for the refusal.
    fn publish_draft(&self, draft: Draft) -> Result<String, String> {
        let shown = self.redactor.is_active().then(|| self.redacted(&draft));
        self.add(|ordinal| {
            let event = self.origin.event_from_draft(draft, ordinal);
            event.map_err(|reason| match shown {
                Some(shown) => self.origin.event_from_draft(shown, ordinal).err().unwrap_or(reason),
                None => reason,
            })
        })
    }

    /// Returns a redacted draft without its data. The reason of a refusal is built from this draft, because the reason
    /// quotes only the start of an attribute: if the original text were cut there, a part of a secret could be left.
    fn redacted(&self, draft: &Draft) -> Draft {
        let redact = |text: &String| self.redactor.redact_text(text).into_owned();
        Draft {
            type_: redact(&draft.type_),
            subject: draft.subject.as_ref().map(redact),
            datacontenttype: draft.datacontenttype.as_ref().map(redact),
            dataschema: draft.dataschema.as_ref().map(redact),
            extensions: draft.extensions.iter().map(|(name, value)| (redact(name), redact(value))).collect(),
            data: Vec::new(),
            id: draft.id.as_ref().map(redact),
        }
    }

    /// Publishes an event in CloudEvents JSON form. Only `type` is required. The source of the event is always that of
    /// the function, whatever the JSON contains.
    pub(super) fn publish_json(&self, json: &[u8]) -> Result<String, String> {
        self.add(|ordinal| {
            self.origin.event_from_json(json, ordinal).map_err(|reason| {
                // Secrets are replaced for the same reason as in a draft (see `redacted`).
                let shown = self.redactor.redact(json);
                self.origin.event_from_json(&shown, ordinal).err().unwrap_or(reason)
            })
        })
    }

    /// Removes and returns the published events.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    /// Refuses all further events.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    fn add(&self, event: impl FnOnce(usize) -> Result<Event, String>) -> Result<String, String> {
        let mut published = self.lock();
        if published.is_closed {
            return Err(
                "cannot publish: the response is already set; publish events before you set the response".into()
            );
        }
        if published.events.len() >= EVENTS_MAX {
            return Err(format!("an attempt may publish at most {EVENTS_MAX} events"));
        }
        let event = event(published.events.len())?;
        self.may_publish(&event.type_)?;
        let size = event.size();
        if size > EVENT_SIZE_MAX {
            return Err(format!("the event has {size} bytes; the limit is {EVENT_SIZE_MAX}"));
        }
        if published.bytes + size > BYTES_MAX {
            return Err(format!("an attempt may publish at most {BYTES_MAX} bytes in total"));
        }
        self.budget.charge(size + RECORD_BYTES).map_err(|exceeded| exceeded.to_string())?;
        published.bytes += size;
        let id = event.id.clone();
        published.events.push(event);
        Ok(id)
    }

    fn may_publish(&self, type_: &str) -> Result<(), String> {
        // The source of the event needs no check: it is always that of the function.
        if let Some(refusal) = runtime_events::reserved_type_error(type_) {
            return Err(refusal);
        }
        // Checks all globs, also after the first match, because each glob that matches counts as used.
        let mut is_granted = false;
        for (position, _) in self.allowed.iter().enumerate().filter(|(_, glob)| glob_matches(glob, type_)) {
            self.grant_use.published(position, type_);
            is_granted = true;
        }
        if is_granted {
            return Ok(());
        }
        self.grant_use.publish_refused(type_);
        // The text is redacted before it is cut, because a cut could leave a part of a secret.
        let type_ = self.redactor.redact_text(type_);
        let shown = type_.get(..type_.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or(&type_);
        Err(format!(
            "events of type `{shown}` may not be published; to allow them, add the type to the function's \
             `allow: {{ publish: [\"{shown}\"] }}`"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if `text` matches `glob`, in which `*` matches any run of characters.
fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((_, after)) = text.split_once(piece) else { return false };
        text = after;
    }
    text.ends_with(last)
}

/// The host's side of `evoke:function/bus`.
pub(super) struct Bus<'a> {
    pub(super) publisher: Publisher<'a>,
    pub(super) refusals: &'a mut Refusals,
}

/// Connects the generated bindings of `evoke:function/bus` to [`Bus`].
pub(super) struct BusHost;

impl HasData for BusHost {
    type Data<'a> = Bus<'a>;
}

pub(super) fn add_to_linker<T: 'static>(linker: &mut Linker<T>, view: fn(&mut T) -> Bus<'_>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, BusHost>(linker, view)?;
    bus::add_to_linker::<T, BusHost>(linker, view)
}

impl types::Host for Bus<'_> {}

impl bus::Host for Bus<'_> {
    fn publish(&mut self, draft: Draft) -> Result<String, String> {
        let published = self.publisher.publish_draft(draft);
        match &published {
            Ok(_) => self.refusals.record_state(None),
            Err(reason) => {
                let reason = self.publisher.redactor.redact_text(reason).into_owned();
                self.refusals.record_publish(Refusal::Denied(reason));
            }
        }
        published
    }
}
