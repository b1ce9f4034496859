//! Records a request of an attempt: its body while it is sent, and the response while it arrives.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::Recorder;
use crate::request_error::kind_of;
use evoke_egress::{BodyError, Error, RequestBody, ResponseBody};
use evoke_model::recording::{Content, Exchange, ExchangeAnswer, RequestError};

/// Estimated size of a request in a recording, in bytes, not counting its texts.
const EXCHANGE_BYTES: usize = 128;
/// Estimated size of a header in a recording, in bytes, not counting its name and its value.
const HEADER_BYTES: usize = 8;
/// Estimated size of a body part in a recording, in bytes, not counting its data.
const PART_BYTES: usize = 8;
/// Limit on the requests in a recording.
const EXCHANGES_MAX: usize = 1_000;

/// The place of a request in a recording. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RecordedExchange {
    recorder: Recorder,
    index: usize,
}

impl RecordedExchange {
    /// Adds a request to the recording. Returns its place, and the request with a body that is recorded while it is
    /// sent.
    pub(crate) fn start(recorder: &Recorder, request: Request<RequestBody>) -> (Self, Request<RequestBody>) {
        let (method, url) = (request.method().as_str().to_owned(), request.uri().to_string());
        let bytes = EXCHANGE_BYTES + method.len() + url.len();
        let index = recorder.add(bytes, |reads| {
            let is_sent = request.body().is_end_stream();
            reads.http.push(Exchange { method, url, body: Content::default(), is_sent, answer: None });
            reads.http.len() - 1
        });
        if index.is_some_and(|index| index >= EXCHANGES_MAX) {
            recorder.refuse(format!("the attempt sent more than {EXCHANGES_MAX} requests"));
        }
        let exchange = Self { recorder: recorder.clone(), index: index.unwrap_or_default() };
        let request = request.map(|body| Recorded { body, exchange: exchange.clone(), record: sent }.boxed_unsync());
        (exchange, request)
    }

    /// Records that the deadline of the attempt ended the request, if `error` is [`Error::Deadline`].
    pub(crate) fn ended(&self, error: &Error) {
        if *error == Error::Deadline {
            self.recorder.past_deadline(self.index);
        }
    }

    /// Records that there is no response. `refusal` is the reason if the request was refused.
    pub(crate) fn failed(&self, kind: RequestError, refusal: Option<&str>) {
        let refusal = refusal.map(str::to_owned);
        self.change(refusal.as_ref().map_or(0, String::len), |exchange| {
            exchange.answer = Some(ExchangeAnswer::Error { kind, refusal });
        });
    }

    /// Records the head of a response. The body is recorded while it arrives.
    pub(crate) fn responded(
        self,
        response: Response<ResponseBody>,
    ) -> Response<impl Body<Data = Bytes, Error = Error> + Send + 'static> {
        match texts(response.headers()) {
            Some(headers) => {
                let bytes = headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_BYTES).sum();
                let status = response.status().as_u16();
                let (body, parts) = Default::default();
                let answer = ExchangeAnswer::Response { status, headers, body, parts, error: None, is_stalled: false };
                self.change(bytes, |exchange| exchange.answer = Some(answer));
            }
            None => self.recorder.refuse("a response had a header that is not UTF-8 text".to_owned()),
        }
        response.map(|body| Recorded { body, exchange: self, record: received })
    }

    fn change(&self, bytes: usize, change: impl FnOnce(&mut Exchange)) {
        // A recording that was dropped has no entries.
        self.recorder.add(bytes, |reads| reads.http.get_mut(self.index).map(change));
    }
}

/// Returns the headers, or `None` if a value is not UTF-8 text.
fn texts(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some((name.as_str().to_owned(), std::str::from_utf8(value.as_bytes()).ok()?.to_owned()))
    };
    headers.iter().map(text).collect()
}

/// Records the result of a poll of a body: a part, an error, the end, or (`Pending`) that nothing has arrived.
type Record<B> = fn(&RecordedExchange, &B, Poll<Option<Result<&Frame<Bytes>, &<B as Body>::Error>>>);

/// A body that is recorded while it is read.
struct Recorded<B: Body> {
    body: B,
    exchange: RecordedExchange,
    record: Record<B>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Recorded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let result = match &polled {
            Poll::Ready(part) => Poll::Ready(part.as_ref().map(Result::as_ref)),
            Poll::Pending => Poll::Pending,
        };
        (self.record)(&self.exchange, &self.body, result);
        polled
    }

    // The sender derives the length of a request from these two functions.
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn sent(exchange: &RecordedExchange, body: &RequestBody, polled: Poll<Option<Result<&Frame<Bytes>, &BodyError>>>) {
    let Poll::Ready(part) = polled else { return };
    let is_end = part.is_none() || body.is_end_stream();
    let data = part.and_then(Result::ok).and_then(Frame::data_ref).map_or(&[][..], |data| data);
    exchange.change(data.len(), |exchange| {
        exchange.body.0.extend_from_slice(data);
        exchange.is_sent |= is_end;
    });
}

fn received(exchange: &RecordedExchange, _: &ResponseBody, polled: Poll<Option<Result<&Frame<Bytes>, &Error>>>) {
    let (mut data, mut failure) = (None, None);
    match polled {
        Poll::Ready(Some(Ok(frame))) if frame.trailers_ref().is_some_and(|trailers| !trailers.is_empty()) => {
            exchange.recorder.refuse("a response had trailers, which cannot be recorded".to_owned());
        }
        Poll::Ready(Some(Ok(frame))) => data = frame.data_ref(),
        Poll::Ready(Some(Err(error))) => {
            exchange.ended(error);
            failure = Some(kind_of(error));
        }
        Poll::Ready(None) | Poll::Pending => {}
    }
    let bytes = data.map_or(0, |data| data.len() + PART_BYTES);
    exchange.change(bytes, |exchange| {
        let Some(ExchangeAnswer::Response { body, parts, error, is_stalled, .. }) = &mut exchange.answer else {
            return;
        };
        if let Some(data) = data {
            body.0.extend_from_slice(data);
            parts.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
        }
        *error = error.or(failure);
        *is_stalled = polled.is_pending();
    });
}
