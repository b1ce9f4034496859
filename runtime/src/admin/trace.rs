//! Builds the trace of an event: a tree of events, their deliveries, and the events that the deliveries published.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Response;
use serde::Deserialize;

use super::access::Exchange;
use super::request::{Params, PathSegments};
use super::stream::{self, Lines, StreamError};
use super::view::{Delivery, Node};
use super::{Admin, ApiResult, events};
use evoke_model::{DamagedEvent, DeliveryId, Lineage, ReadDelivery, ReadEvent, Seq};
use evoke_store::{InspectionStore, Store, StoreError};

/// Maximum number of events in a trace. Users hardly read more, and reading 1,000 events takes only some milliseconds.
const EVENTS_MAX: usize = 1_000;
/// Maximum number of deliveries in a trace.
const DELIVERIES_MAX: usize = 10_000;
/// Maximum total size of the events in a trace, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum depth of a trace, in events. Each event adds four levels to the JSON, and many JSON parsers allow at most
/// 128 levels.
const DEPTH_MAX: usize = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceQuery {
    #[serde(default)]
    root: bool,
}

pub(super) async fn trace(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments(reference): PathSegments<String>,
    Params(query): Params<TraceQuery>,
) -> ApiResult<Response<Body>> {
    let store = admin.store.clone();
    let (tree, missing) = {
        let _scan = exchange.scan().await;
        let mut event = events::find(&*store, &reference).await?;
        if query.root
            && let Some(root) = lineage(&event).root
        {
            event = store.event(root).await?.unwrap_or(event);
        }
        (build_tree(&*store, &event).await?, describe_missing(&*store, &event).await?)
    };
    Ok(stream::json(&admin, async move |mut lines: Lines| {
        let writer = Writer { store: &*store, tree: &tree };
        writer.event(0, missing.as_deref(), &mut lines).await?;
        lines.text("\n".into()).await?;
        Ok(lines.flush().await?)
    }))
}

/// Describes the part of the trace that may be missing because retention removed it; `None` if nothing is missing.
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

/// Returns the lineage of an event; the default lineage if the event is damaged.
fn lineage(read: &ReadEvent) -> Lineage {
    read.as_ref().map(|stored| stored.lineage).unwrap_or_default()
}

/// Returns the size of an event in bytes; 0 for a damaged event.
fn size(read: &ReadEvent) -> usize {
    read.as_ref().map_or(0, |stored| stored.event.size())
}

/// An event of the tree. To save memory, the tree has only the numbers of events and deliveries. Their contents are
/// read again when they are sent.
struct TreeEntry {
    seq: Seq,
    depth: usize,
    /// The reason why the tree stops at this event: too many deliveries or too many levels; `None` if it does not stop.
    /// Published events that are missing because of other limits are counted in [`TreeDelivery::omitted`].
    cut: Option<String>,
    deliveries: Vec<TreeDelivery>,
}

struct TreeDelivery {
    id: DeliveryId,
    /// Indices of the published events in the list of entries.
    published: Vec<usize>,
    /// Number of published events that are not in the tree because of [`EVENTS_MAX`] or [`BYTES_MAX`].
    omitted: usize,
}

impl TreeEntry {
    fn new(read: &ReadEvent, depth: usize) -> Self {
        Self { seq: DamagedEvent::seq_of(read), depth, cut: None, deliveries: Vec::new() }
    }
}

/// Builds the tree level by level, so that the deepest events are missing if the tree is too large.
async fn build_tree(store: &dyn InspectionStore, root: &ReadEvent) -> Result<Vec<TreeEntry>, StoreError> {
    let mut entries = vec![TreeEntry::new(root, 1)];
    let (mut bytes, mut count) = (size(root), 0);
    let mut next = VecDeque::from([0]);
    while let Some(index) = next.pop_front() {
        let Some((seq, depth)) = entries.get(index).map(|entry| (entry.seq, entry.depth)) else { continue };
        let (mut deliveries, mut cut) = (Vec::new(), None);
        for record in store.deliveries(seq).await? {
            if count >= DELIVERIES_MAX {
                cut = Some(format!("the trace stops here at its limit of {DELIVERIES_MAX} deliveries"));
                break;
            }
            count += 1;
            let (id, has_attempts) = summary(&record);
            let mut delivery = TreeDelivery { id, published: Vec::new(), omitted: 0 };
            if has_attempts && depth == DEPTH_MAX {
                let reason = "levels of events; to see the rest, trace event";
                cut = Some(format!("the trace stops here after {DEPTH_MAX} {reason} {seq}"));
            } else if has_attempts {
                for event in store.published(id).await? {
                    bytes += size(&event);
                    if entries.len() >= EVENTS_MAX || bytes > BYTES_MAX {
                        delivery.omitted += 1;
                        continue;
                    }
                    delivery.published.push(entries.len());
                    next.push_back(entries.len());
                    entries.push(TreeEntry::new(&event, depth + 1));
                }
            }
            deliveries.push(delivery);
        }
        if let Some(entry) = entries.get_mut(index) {
            (entry.deliveries, entry.cut) = (deliveries, cut);
        }
    }
    Ok(entries)
}

/// Returns the number of a delivery, and true if the delivery has completed attempts.
fn summary(record: &ReadDelivery) -> (DeliveryId, bool) {
    match record {
        Ok(record) => (record.id, !record.attempts.is_empty()),
        Err(damaged) => (damaged.id, !damaged.attempts.is_empty()),
    }
}

/// Sends a tree as nested [`Node`]s, with one event or delivery in memory at a time.
struct Writer<'a> {
    store: &'a dyn Store,
    tree: &'a [TreeEntry],
}

impl Writer<'_> {
    fn event<'a>(
        &'a self,
        index: usize,
        missing: Option<&'a str>,
        lines: &'a mut Lines,
    ) -> BoxFuture<'a, Result<(), StreamError>> {
        async move {
            let Some(entry) = self.tree.get(index) else { return Ok(()) };
            lines.ready().await?;
            let gone = || Err(DamagedEvent { seq: entry.seq, what: "retention has removed the event".into() });
            let read = self.store.event(entry.seq).await?.unwrap_or_else(gone);
            let node = Node::of(self.store, &read);
            drop(read);
            // Without `cut` and `missing`, the JSON of a node ends with its deliveries, an empty list here.
            lines.text(without_end(&node, "]}")).await?;
            drop(node);
            for (position, delivery) in entry.deliveries.iter().enumerate() {
                if position > 0 {
                    lines.text(",".into()).await?;
                }
                self.delivery(entry.seq, delivery, lines).await?;
            }
            lines.text("]".into()).await?;
            for (name, text) in [("cut", entry.cut.as_deref()), ("missing", missing)] {
                if let Some(text) = text {
                    lines.text(format!(r#","{name}":{}"#, serde_json::Value::from(text))).await?;
                }
            }
            Ok(lines.text("}".into()).await?)
        }
        .boxed()
    }

    async fn delivery(&self, event: Seq, entry: &TreeDelivery, lines: &mut Lines) -> Result<(), StreamError> {
        let TreeDelivery { id, published, omitted } = entry;
        let delivery = match self.store.delivery(*id).await? {
            Some(read) => Delivery::from(read),
            None => Delivery::removed(*id, event),
        };
        lines.text(without_end(&delivery, "}")).await?;
        drop(delivery);
        if !published.is_empty() {
            lines.text(r#","published":["#.into()).await?;
            for (position, index) in published.iter().enumerate() {
                if position > 0 {
                    lines.text(",".into()).await?;
                }
                self.event(*index, None, lines).await?;
            }
            lines.text("]".into()).await?;
        }
        if *omitted > 0 {
            lines.text(format!(r#","omitted":{omitted}"#)).await?;
        }
        Ok(lines.text("}".into()).await?)
    }
}

/// Returns the JSON of a value without the final text `end`, so that further members can be added.
fn without_end(value: &impl serde::Serialize, end: &str) -> String {
    // Never fails: strings, numbers and JSON always serialise.
    let mut json = serde_json::to_string(value).unwrap_or_default();
    json.truncate(json.strip_suffix(end).map_or(json.len(), str::len));
    json
}
