//! Explains for each trigger whether an event matches it, and which field and operator are the reason. Uses the same
//! compiled patterns as routing.

use super::TriggerExplanation;
use super::functions::{full_name, trigger_name};
use evoke_core::runtime_events;
use evoke_manifest::{Checked, Trigger, TriggerSource};
use evoke_model::event::Event;
use evoke_pattern::{MalformedEvent, explain};

/// Matches an event against every trigger, or only against the triggers of one function. `entered` is the source
/// through which the event entered; `None` for an event that a function published. Returns an error if the data of the
/// event cannot be parsed.
pub(super) fn explain_event(
    manifests: &[Checked],
    event: &Event,
    entered: Option<&str>,
    only: Option<&str>,
) -> Result<Vec<TriggerExplanation>, MalformedEvent> {
    let all = manifests.iter().flat_map(|checked| checked.manifest.functions.iter().map(move |f| (checked, f)));
    all.map(|(checked, function)| (checked, function, full_name(&checked.manifest, function)))
        .filter(|(_, _, name)| only.is_none_or(|wanted| wanted == name))
        .flat_map(|(checked, function, name)| {
            function.triggers.iter().map(move |trigger| (checked, name.clone(), trigger))
        })
        .map(|(checked, name, trigger)| explain_trigger(checked, name, trigger, event, entered))
        .collect()
}

fn explain_trigger(
    checked: &Checked,
    function: String,
    trigger: &Trigger,
    event: &Event,
    entered: Option<&str>,
) -> Result<TriggerExplanation, MalformedEvent> {
    let source = match &trigger.source {
        TriggerSource::Any => None,
        TriggerSource::Shared(name) => checked.manifest.source(name.as_str()).map(|source| source.uri.clone()),
        TriggerSource::Private(source) => Some(source.uri.clone()),
    };
    let source_matches = source.as_deref().is_none_or(|source| entered == Some(source));
    // Events of a private source go only to the function that declares the source.
    let private = entered.filter(|source| matches!(trigger.source, TriggerSource::Any) && is_private(checked, source));
    let pattern = trigger.events.as_ref().map(|events| explain(&events.pattern, &event.into())).transpose()?;
    let names_runtime_events =
        trigger.events.as_ref().is_some_and(|events| runtime_events::selects_runtime_events(&events.pattern));
    let is_hidden = event.source == runtime_events::SOURCE && !names_runtime_events;
    let matched =
        source_matches && private.is_none() && !is_hidden && pattern.as_ref().is_none_or(|pattern| pattern.matched);
    let text = match (&source, &pattern) {
        (Some(source), _) if !source_matches => {
            let actual = entered.unwrap_or(&event.source);
            format!("the source of the event is {actual}, but the trigger accepts only events of {source}")
        }
        _ if private.is_some() => {
            format!("events of the source {} go only to the function that declares it", private.unwrap_or_default())
        }
        // This text is used only if the pattern matches. Otherwise, the explanation of the pattern is more useful.
        (_, Some(pattern)) if is_hidden && pattern.matched => {
            "events of Evoke itself go only to patterns that name their source or type exactly".to_owned()
        }
        (_, Some(pattern)) => pattern.to_string(),
        (Some(source), None) => format!("every event of {source}"),
        (None, None) => "every event".to_owned(),
    };
    Ok(TriggerExplanation {
        function,
        trigger: trigger_name(trigger.index).to_string(),
        matched,
        text,
        source,
        pattern,
    })
}

/// Returns true if a source is private to one function. The URI of a private source contains the name of the function,
/// as in `/app/function/timer-1`.
fn is_private(checked: &Checked, source: &str) -> bool {
    checked.manifest.all_sources().any(|(declared, owner)| owner.is_some() && declared.uri == source)
}
