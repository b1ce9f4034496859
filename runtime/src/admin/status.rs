//! Whether it lives, whether it takes events, and what is running.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::problem::{Problem, Result};
use super::{Admin, view};

pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(admin): State<Admin>) -> Result<&'static str> {
    if admin.stop.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it is stopping"));
    }
    // A read shows that the store is there; a failed one ends the process by itself.
    admin.running.store.event(0).await?;
    Ok("ready\n")
}

pub(super) async fn status(State(admin): State<Admin>) -> Result<Json<view::Status>> {
    let running = &admin.running;
    let totals = running.store.totals().await?;
    let mut counts: BTreeMap<String, view::Numbers> =
        totals.functions.iter().map(|(name, counts)| (name.clone(), view::Numbers::of(counts))).collect();
    let mut functions: Vec<view::Function> = running
        .functions()
        .into_iter()
        .map(|function| view::Function {
            numbers: counts.remove(&function.name).unwrap_or_default(),
            name: function.name,
            declared: true,
            concurrency: function.concurrency,
            running: function.running,
        })
        .collect();
    // Functions of earlier manifests: what they are owed stays until they are back.
    functions.extend(counts.into_iter().map(|(name, numbers)| view::Function {
        name,
        declared: false,
        concurrency: 0,
        running: 0,
        numbers,
    }));
    let sources = running.sources().await.into_iter().map(|source| view::Source {
        uri: source.uri,
        kind: source.kind.to_owned(),
        state: if source.trouble.is_some() { "degraded" } else { "ok" }.to_owned(),
        trouble: source.trouble,
    });
    Ok(Json(view::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: running.started.elapsed().as_secs(),
        events: totals.events,
        pending: running.store.pending(),
        functions,
        sources: sources.collect(),
    }))
}
