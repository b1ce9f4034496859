//! Builds the trace of an event: a tree of events, their deliveries and the events these published.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::request::Params;
use super::view::{Delivery, Node};
use super::{Admin, ApiResult, events};
use evoke_model::{DamagedEvent, Lineage, ReadEvent};
use evoke_store::{InspectionStore, StoreError};

/// Maximum number of events in a trace: more than a user reads, and some milliseconds of work.
const EVENTS_MAX: usize = 1_000;
/// Maximum total size of the events in a trace, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum depth of a trace, in events. An event takes four levels of JSON, and JSON parsers commonly stop at 128.
const DEPTH_MAX: usize = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceQuery {
    #[serde(default)]
    root: bool,
}

pub(super) async fn trace(
    State(admin): State<Arc<Admin>>,
    Path(reference): Path<String>,
    Params(query): Params<TraceQuery>,
) -> ApiResult<Json<Node>> {
    let store: &dyn InspectionStore = &*admin.store;
    let mut event = events::find(store, &reference).await?;
    if query.root
        && let Some(root) = lineage(&event).root
    {
        event = store.event(root).await?.unwrap_or(event);
    }
    let mut node = build_tree(store, &event).await?;
    node.missing = describe_missing(store, &event).await?;
    Ok(Json(node))
}

/// Describes the part of the trace that may be missing because retention removed it.
async fn describe_missing(store: &dyn InspectionStore, event: &ReadEvent) -> Result<Option<String>, StoreError> {
    let up_to = store.totals().await?.removed.to;
    let Lineage { cause, root, .. } = lineage(event);
    let cause_removed = match cause {
        Some(delivery) => store.delivery(delivery).await?.is_none(),
        None => false,
    };
    let root_removed = match root {
        Some(root) => store.event(root).await?.is_none(),
        None => false,
    };
    Ok(match (root_removed, cause_removed, DamagedEvent::seq_of(event) <= up_to) {
        (true, ..) => Some("retention removed the first event of the chain".to_owned()),
        (_, true, _) => Some("retention removed the delivery that published this event".to_owned()),
        (.., true) => Some(format!("retention removed events up to {up_to}, perhaps also events of this trace")),
        _ => None,
    })
}

/// Returns the lineage of an event; a default for a damaged one.
fn lineage(read: &ReadEvent) -> Lineage {
    read.as_ref().map(|stored| stored.lineage).unwrap_or_default()
}

/// Returns the size of an event in bytes; 0 for a damaged one.
fn size(read: &ReadEvent) -> usize {
    read.as_ref().map_or(0, |stored| stored.event.size())
}

/// An event of the tree under construction.
struct TreeEntry {
    node: Node,
    depth: usize,
    /// The deliveries, each with the indices of its published events in the list of entries.
    deliveries: Vec<(Delivery, Vec<usize>)>,
}

/// Builds the tree level by level, so that a tree that is too large loses its deepest events.
async fn build_tree(store: &dyn InspectionStore, root: &ReadEvent) -> Result<Node, StoreError> {
    let mut entries = vec![TreeEntry { node: Node::of(store, root), depth: 1, deliveries: Vec::new() }];
    let mut bytes = size(root);
    let mut next = VecDeque::from([0]);
    while let Some(index) = next.pop_front() {
        let Some((seq, depth)) = entries.get(index).map(|entry| (entry.node.seq, entry.depth)) else { continue };
        let mut deliveries = Vec::new();
        for record in store.deliveries(seq).await? {
            let mut delivery = Delivery::from(record);
            let ended = !delivery.attempts.is_empty();
            let published = if ended && depth < DEPTH_MAX { store.published(delivery.id).await? } else { Vec::new() };
            let mut children = Vec::new();
            for event in &published {
                bytes += size(event);
                if entries.len() >= EVENTS_MAX || bytes > BYTES_MAX {
                    delivery.omitted += 1;
                    continue;
                }
                children.push(entries.len());
                next.push_back(entries.len());
                entries.push(TreeEntry { node: Node::of(store, event), depth: depth + 1, deliveries: Vec::new() });
            }
            deliveries.push((delivery, children));
        }
        if let Some(entry) = entries.get_mut(index) {
            if depth == DEPTH_MAX && deliveries.iter().any(|(delivery, _)| !delivery.attempts.is_empty()) {
                entry.node.cut = Some(format!(
                    "the trace stops here after {DEPTH_MAX} levels of events; trace event {seq} to see the rest"
                ));
            }
            entry.deliveries = deliveries;
        }
    }
    Ok(link(entries).unwrap_or_else(|| Node::of(store, root)))
}

/// Links the entries to a tree, starting with the last: published events come after the event that caused them.
fn link(entries: Vec<TreeEntry>) -> Option<Node> {
    let mut nodes: Vec<Option<Node>> = Vec::new();
    nodes.resize_with(entries.len(), || None);
    for (index, TreeEntry { mut node, deliveries, .. }) in entries.into_iter().enumerate().rev() {
        for (mut delivery, children) in deliveries {
            let published = children.into_iter().filter_map(|child| nodes.get_mut(child).and_then(Option::take));
            delivery.published = published.collect();
            node.deliveries.push(delivery);
        }
        if let Some(slot) = nodes.get_mut(index) {
            *slot = Some(node);
        }
    }
    nodes.into_iter().next().flatten()
}
