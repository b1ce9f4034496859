//! The graph of sources, functions and event types, with the rates of its edges.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use http::Response;
use serde::Serialize;

use super::row::cut;
use crate::admin::access::Exchange;
use crate::admin::search::{Conditions, Pages};
use crate::admin::{Admin, ApiResult};
use crate::control::flow::Graph;
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::{DeliveryState, Seq, StoredEvent};
use evoke_store::InspectionStore;

/// Maximum number of counted events. If there are more, only the newest are counted.
const EVENTS_MAX: usize = 300;
/// Maximum age of counted events, in milliseconds.
const AGE_MAX_MS: UnixMs = 5 * 60 * 1000;
/// Maximum number of events in the list of an edge.
const NEWEST_MAX: usize = 5;

/// The graph of the manifests, and the edges that the newest events took.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Flow {
    #[serde(flatten)]
    graph: Graph,
    /// The edges that the newest events took.
    edges: Vec<Edge>,
    /// Number of events that were counted.
    events: usize,
    /// The counted events were accepted within this number of milliseconds before now. A count divided by this time is
    /// a rate.
    window_ms: UnixMs,
    /// When the graph was made.
    at: String,
}

/// An edge that events took: from a source or a function to a function, or to no function.
#[derive(Debug, Serialize)]
struct Edge {
    /// The URI of the source, or `/app/function`.
    from: String,
    r#type: String,
    /// The function; absent for events without a delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The trigger that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    /// Number of deliveries; on an edge to no function, number of events.
    count: u64,
    /// Number of deliveries that are dead letters or are being retried.
    failed: u64,
    /// Number of deliveries that are not finished.
    pending: u64,
    /// The newest events that took the edge.
    newest: Vec<Seq>,
}

/// The key of an edge: its start, the event type, and the function with the trigger. `None` stands for events without a
/// delivery.
type Way = (String, String, Option<(String, String)>);

pub(in crate::admin) async fn flow(State(admin): State<Arc<Admin>>, exchange: Exchange) -> ApiResult<Response<Body>> {
    let scan = exchange.scan().await;
    let now_ms = admin.clock.now_ms();
    let range = Conditions { since_ms: Some(now_ms.saturating_sub(AGE_MAX_MS)), ..Conditions::default() };
    let mut pages = Pages::new(admin.store.clone(), range, scan.clone()).await?;
    let mut ways: BTreeMap<Way, Counts> = BTreeMap::new();
    let (mut events, mut oldest_ms) = (0, now_ms);
    'pages: while let Some(page) = pages.next().await? {
        for stored in page.into_iter().flatten() {
            if events >= EVENTS_MAX {
                break 'pages;
            }
            events += 1;
            oldest_ms = oldest_ms.min(stored.accepted_ms);
            count(&*admin.store, &stored, &mut ways).await?;
        }
    }
    let edges = ways.into_iter().map(|((from, type_, to), counts)| {
        let (to, trigger) = to.unzip();
        Edge { from, r#type: type_, to, trigger, counts }
    });
    // If fewer events than the maximum were counted, all events of the last `AGE_MAX_MS` were counted.
    let window_ms = if events < EVENTS_MAX { AGE_MAX_MS } else { now_ms.saturating_sub(oldest_ms).max(1) };
    let edges = edges.collect();
    // The graph is as large as all manifests, so it is made on a thread for blocking work.
    let respond = move || {
        let graph = admin.control.graph();
        Json(Flow { graph, edges, events, window_ms, at: rfc3339(now_ms) }).into_response()
    };
    Ok(scan.run(respond).await?)
}

/// Counts the deliveries of one event.
async fn count(
    store: &dyn InspectionStore,
    stored: &StoredEvent,
    ways: &mut BTreeMap<Way, Counts>,
) -> Result<(), evoke_store::StoreError> {
    let entered = stored.lineage.entered().and_then(|origin| store.origin_uri(origin));
    let from = cut(entered.as_deref().unwrap_or(&stored.event.source));
    let type_ = cut(&stored.event.type_);
    let mut add = |to: Option<(String, String)>, state: Option<DeliveryState>| {
        let counts = ways.entry((from.clone(), type_.clone(), to)).or_default();
        counts.count += 1;
        counts.failed += u64::from(matches!(state, Some(DeliveryState::Dead | DeliveryState::Retrying)));
        let is_pending = matches!(state, Some(DeliveryState::Ready | DeliveryState::Blocked | DeliveryState::Retrying));
        counts.pending += u64::from(is_pending);
        if counts.newest.len() < NEWEST_MAX && !counts.newest.contains(&stored.seq) {
            counts.newest.push(stored.seq);
        }
    };
    let deliveries = store.deliveries(stored.seq).await?;
    if deliveries.is_empty() {
        add(None, None);
    }
    for record in deliveries.into_iter().flatten() {
        add(Some((record.function, record.trigger)), Some(record.state));
    }
    Ok(())
}
