//! Which triggers an event meets, and which field and operator of each say so: from the same compiled patterns that
//! route it.

use super::functions::{full_name, trigger_name};
use crate::admin::Explained;
use crate::event::Event;
use crate::manifest::{Checked, Trigger, TriggerSource};
use crate::pattern::{MalformedEvent, explain};
use crate::runtime_events;

/// Explains an event to every trigger, or to those of one function.
pub(super) fn event(
    manifests: &[Checked],
    event: &Event,
    function: Option<&str>,
) -> Result<Vec<Explained>, MalformedEvent> {
    let all = manifests.iter().flat_map(|checked| checked.manifest.functions.iter().map(move |f| (checked, f)));
    all.map(|(checked, declared)| (checked, declared, full_name(&checked.manifest, declared)))
        .filter(|(_, _, name)| function.is_none_or(|wanted| wanted == name))
        .flat_map(|(checked, declared, name)| {
            declared.triggers.iter().map(move |trigger| (checked, name.clone(), trigger))
        })
        .map(|(checked, name, trigger)| one(checked, name, trigger, event))
        .collect()
}

fn one(checked: &Checked, function: String, trigger: &Trigger, event: &Event) -> Result<Explained, MalformedEvent> {
    let source = match &trigger.source {
        TriggerSource::Any => None,
        TriggerSource::Shared(name) => checked.manifest.source(name.as_str()).map(|source| source.uri.clone()),
        TriggerSource::Private(source) => Some(source.uri.clone()),
    };
    let comes_from = source.as_ref().is_none_or(|source| *source == event.source);
    // What comes from a function's own source is for that function alone.
    let stranger = matches!(trigger.source, TriggerSource::Any) && is_private(checked, &event.source);
    let pattern = trigger.events.as_ref().map(|events| explain(&events.pattern, &event.view())).transpose()?;
    let asks = trigger.events.as_ref().is_some_and(|events| runtime_events::asks_for_them(&events.pattern));
    let unasked = event.source == runtime_events::SOURCE && !asks;
    let matched = comes_from && !stranger && !unasked && pattern.as_ref().is_none_or(|pattern| pattern.matched);
    let text = match (&source, &pattern) {
        (Some(source), _) if !comes_from => format!("source is {}, and it takes those of {source}", event.source),
        _ if stranger => format!("{} belongs to one function alone", event.source),
        // What the pattern itself says is worth more.
        (_, Some(pattern)) if unasked && pattern.matched => {
            "what Evoke says of itself goes to patterns that name its source or type word for word".to_owned()
        }
        (_, Some(pattern)) => pattern.to_string(),
        (Some(source), None) => format!("every event of {source}"),
        (None, None) => "every event".to_owned(),
    };
    Ok(Explained { function, trigger: trigger_name(trigger.index).to_string(), matched, text, source, pattern })
}

/// Whether a source belongs to one function alone. It is named after it: `/app/function/timer-1`.
fn is_private(checked: &Checked, source: &str) -> bool {
    checked.manifest.all_sources().any(|(declared, owner)| owner.is_some() && declared.uri == source)
}
