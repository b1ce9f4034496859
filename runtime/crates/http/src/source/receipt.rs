//! The response to a request whose events are stored.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::reply::{NoReply, NoReplyBody, REPLY_HEADER};
use crate::problem::json;
use evoke_model::{Accepted, Seq};

/// The response body: the result of each event, in request order.
#[derive(serde::Serialize)]
struct Receipt<'a> {
    /// The number of events that this request stored.
    accepted: usize,
    /// The number of events that were stored earlier, by another request or as an earlier event of this request.
    duplicates: usize,
    events: Vec<EventReceipt<'a>>,
    /// Why the response is not the event that the request waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<NoReplyBody>,
}

#[derive(serde::Serialize)]
struct EventReceipt<'a> {
    id: &'a str,
    seq: Seq,
    duplicate: bool,
}

/// Returns the response to a request whose events are stored. `no_reply` is the reason why the response is not the
/// event that the request waited for.
pub(super) fn receipt(
    ids: &[String],
    accepted: &[Accepted],
    no_reply: Option<(NoReply, NoReplyBody)>,
) -> Response<Full<Bytes>> {
    let events: Vec<_> = ids
        .iter()
        .zip(accepted)
        .map(|(id, accepted)| match *accepted {
            Accepted::New(seq) => EventReceipt { id, seq, duplicate: false },
            Accepted::Duplicate(seq) => EventReceipt { id, seq, duplicate: true },
        })
        .collect();
    let duplicates = events.iter().filter(|event| event.duplicate).count();
    let accepted = events.len() - duplicates;
    // A receipt that is sent because there is no reply never has the status 200: the client must not mistake it for the
    // reply.
    let is_known = duplicates > 0 && accepted == 0 && no_reply.is_none();
    let (header, reply) = no_reply.map(|(none, body)| (none.header(), body)).unzip();
    let mut response = Response::new(json(&Receipt { accepted, duplicates, events, reply }));
    *response.status_mut() = if is_known { StatusCode::OK } else { StatusCode::ACCEPTED };
    response.headers_mut().extend(header.map(|header| (REPLY_HEADER, header)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
