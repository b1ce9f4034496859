//! Events: listed, followed, put in by hand.

use std::collections::VecDeque;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use serde::Deserialize;

use super::problem::{Problem, Result};
use super::{Admin, view};
use crate::bus::{Offer, Target};
use crate::clock::{Clock, rfc3339};
use crate::event::Event;
use crate::store::{Accepted, EventFilter, Seq, StoredEvent};

/// Events that are read at a time: at the largest size, 256 MiB would be too much, so fewer of them are.
const PAGE: usize = 100;

/// The most events that the newest are listed of; more of them are listed from a position on.
const NEWEST_MAX: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct Listing {
    r#type: Option<String>,
    source: Option<String>,
    /// Only events behind this position, oldest first; without it the newest are listed.
    after: Option<Seq>,
    limit: Option<usize>,
    /// Whether to go on with events as they come.
    #[serde(default)]
    follow: bool,
    /// Whether each line is a [`view::Envelope`] instead of the event alone.
    #[serde(default)]
    envelope: bool,
}

/// Where a listing stands.
struct Cursor {
    admin: Admin,
    listing: Listing,
    after: Seq,
    left: usize,
    read: VecDeque<StoredEvent>,
    newest: tokio::sync::watch::Receiver<Seq>,
}

pub(super) async fn list(State(admin): State<Admin>, Query(listing): Query<Listing>) -> Result<Response> {
    let store = &admin.running.store;
    let newest = store.newest();
    let limit = listing.limit.unwrap_or(if listing.follow || listing.after.is_some() { usize::MAX } else { 20 });
    let mut read = VecDeque::new();
    // Whatever is committed after this is behind the cursor, and found by following.
    let mut after = listing.after.unwrap_or(*newest.borrow());
    if listing.after.is_none() && !(listing.follow && listing.limit.is_none()) {
        if limit > NEWEST_MAX {
            let detail =
                format!("at most the newest {NEWEST_MAX} are listed; give a position with `after` to list more");
            return Err(Problem::bad_request(detail));
        }
        read = store.events(EventFilter { after: None, ..filter(&listing, limit) }).await?.into();
        after = read.back().map_or(after, |last| last.seq.max(after));
    }
    let left = if listing.follow && listing.limit.is_some() { usize::MAX } else { limit };
    let done = listing.after.is_none() && !listing.follow;
    let left = if done { read.len() } else { left };
    let cursor = Cursor { admin, listing, after, left, read, newest };
    let lines = stream::unfold(cursor, |mut cursor| async move {
        let line = cursor.next().await?;
        Some((line, cursor))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn filter(listing: &Listing, limit: usize) -> EventFilter {
    EventFilter { type_: listing.r#type.clone(), source: listing.source.clone(), after: None, limit }
}

impl Cursor {
    async fn next(&mut self) -> Option<std::result::Result<Bytes, crate::store::StoreError>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some(event) = self.read.pop_front() {
                self.left -= 1;
                self.after = self.after.max(event.seq);
                return Some(Ok(line(&event, self.listing.envelope)));
            }
            let store = &self.admin.running.store;
            let seen = *self.newest.borrow_and_update();
            let filter = EventFilter { after: Some(self.after), ..filter(&self.listing, PAGE.min(self.left)) };
            match store.events(filter).await {
                Err(error) => return Some(Err(error)),
                Ok(page) if !page.is_empty() => self.read = page.into(),
                Ok(_) if !self.listing.follow => return None,
                Ok(_) => {
                    // None of what was there is meant: none of it needs to be looked at again.
                    self.after = self.after.max(seen);
                    tokio::select! {
                        () = self.admin.stop.cancelled() => return None,
                        changed = self.newest.changed() => changed.ok()?,
                    }
                }
            }
        }
    }
}

fn line(event: &StoredEvent, envelope: bool) -> Bytes {
    let mut line = if envelope {
        serde_json::to_string(&view::Envelope::of(event)).unwrap_or_default()
    } else {
        event.event.to_json()
    };
    line.push('\n');
    line.into()
}

/// Takes an event that a person made: what it lacks is filled in.
pub(super) async fn accept(State(admin): State<Admin>, body: Bytes) -> Result<Response> {
    let event = Event::from_json(&body, |event| {
        if event.id.is_empty() {
            event.id = uuid::Uuid::now_v7().to_string();
        }
        if event.source.is_empty() {
            event.source = "/cli".to_owned();
        }
        event.time.get_or_insert_with(|| rfc3339(Clock::system().now_ms()));
    })
    .map_err(|e| Problem::bad_request(format!("the body is not a CloudEvent: {e}")))?;
    let id = event.id.clone();
    let offer = Offer { events: vec![event], target: Target::Matching, marks: Vec::new() };
    let accepted = admin.running.bus.accept(offer).await?;
    let (seq, duplicate) = match accepted.first() {
        Some(Accepted::New(seq)) => (*seq, false),
        Some(Accepted::Duplicate(seq)) => (*seq, true),
        None => (0, false),
    };
    let answer = serde_json::json!({ "id": id, "seq": seq, "duplicate": duplicate });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}
