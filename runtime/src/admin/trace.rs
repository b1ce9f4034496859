//! The tree of causes: an event, its deliveries, what they published, and so on.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::problem::Params;
use super::view::{Delivery, Node};
use super::{Admin, Answer, events};
use crate::store::{Lineage, Store, StoreError, StoredEvent};

/// Events of a trace: more than anyone reads, and some milliseconds of work.
const EVENTS_MAX: usize = 1_000;
/// Their size together, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events below each other. Each is four levels of JSON, and JSON readers commonly stop at 128.
const DEPTH_MAX: usize = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    #[serde(default)]
    root: bool,
}

pub(super) async fn trace(
    State(admin): State<Arc<Admin>>,
    Path(reference): Path<String>,
    Params(from): Params<From>,
) -> Answer<Json<Node>> {
    let store = &*admin.store;
    let mut event = events::find(store, &reference).await?;
    if from.root
        && let Some(root) = event.lineage.root
    {
        event = store.event(root).await?.unwrap_or(event);
    }
    let mut node = grow(store, &event).await?;
    node.missing = missing(store, &event).await?;
    Ok(Json(node))
}

/// What of a trace may be missing because retention removed it.
async fn missing(store: &dyn Store, event: &StoredEvent) -> Result<Option<String>, StoreError> {
    let up_to = store.totals().await?.removed.to;
    let Lineage { cause, root, .. } = event.lineage;
    let gone_cause = match cause {
        Some(delivery) => store.delivery(delivery).await?.is_none(),
        None => false,
    };
    let gone_root = match root {
        Some(root) => store.event(root).await?.is_none(),
        None => false,
    };
    Ok(match (gone_root, gone_cause, event.seq <= up_to) {
        (true, ..) => Some("retention removed the event that started the chain".to_owned()),
        (_, true, _) => Some("retention removed the delivery that published it".to_owned()),
        (.., true) => Some(format!("retention removed events up to {up_to}: what came of it may be among them")),
        _ => None,
    })
}

/// An event of the tree while the tree grows.
struct Branch {
    node: Node,
    depth: usize,
    /// Its deliveries, each with where its published events stand.
    deliveries: Vec<(Delivery, Vec<usize>)>,
}

/// Grows the tree level by level, so that what is cut off when it gets too large is the far end.
async fn grow(store: &dyn Store, root: &StoredEvent) -> Result<Node, StoreError> {
    let mut branches = vec![Branch { node: root.into(), depth: 1, deliveries: Vec::new() }];
    let mut bytes = root.event.size();
    let mut next = VecDeque::from([0]);
    while let Some(index) = next.pop_front() {
        let Some((seq, depth)) = branches.get(index).map(|b| (b.node.seq, b.depth)) else { continue };
        let mut deliveries = Vec::new();
        for record in store.deliveries(seq).await? {
            let ended = !record.attempts.is_empty();
            let published = if ended && depth < DEPTH_MAX { store.published(record.id).await? } else { Vec::new() };
            let mut delivery = Delivery::from(record);
            let mut places = Vec::new();
            for event in &published {
                bytes += event.event.size();
                if branches.len() >= EVENTS_MAX || bytes > BYTES_MAX {
                    delivery.omitted += 1;
                    continue;
                }
                places.push(branches.len());
                next.push_back(branches.len());
                branches.push(Branch { node: event.into(), depth: depth + 1, deliveries: Vec::new() });
            }
            deliveries.push((delivery, places));
        }
        if let Some(branch) = branches.get_mut(index) {
            if depth == DEPTH_MAX && deliveries.iter().any(|(delivery, _)| !delivery.attempts.is_empty()) {
                branch.node.cut = Some(format!("the trace ends here after {DEPTH_MAX} events; trace {seq} goes on"));
            }
            branch.deliveries = deliveries;
        }
    }
    Ok(assemble(branches, root))
}

/// Puts the branches together, from the last: what an event caused stands behind it.
fn assemble(branches: Vec<Branch>, root: &StoredEvent) -> Node {
    let mut nodes: Vec<Option<Node>> = Vec::new();
    nodes.resize_with(branches.len(), || None);
    for (index, Branch { mut node, deliveries, .. }) in branches.into_iter().enumerate().rev() {
        for (mut delivery, places) in deliveries {
            let published = places.into_iter().filter_map(|place| nodes.get_mut(place).and_then(Option::take));
            delivery.published = published.collect();
            node.deliveries.push(delivery);
        }
        if let Some(place) = nodes.get_mut(index) {
            *place = Some(node);
        }
    }
    nodes.into_iter().next().flatten().unwrap_or_else(|| root.into())
}
