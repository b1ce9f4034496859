//! The HTTP requests of a function under test: the test responds to them, and they do not reach the network.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::request::Parts;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use wasmtime_wasi_http::{self as wasi_http, WasiBody};

use super::refusal::{Refusal, SharedRefusal};
use super::request_error::kind_to_wasi;
use evoke_egress::RequestBody;
use evoke_model::recording::{BodyEnd, GivenBody, RequestError};

/// Limit on the body of a request, in bytes. The whole body is read into memory before the test answers.
const BODY_BYTES_MAX: usize = 8 << 20;

/// How a request of a function ends in a test.
#[derive(Debug)]
pub enum Answer {
    /// The request gets this response.
    Response(Response<GivenBody>),
    /// The request fails with this error. If there is a text, the request was refused, and the text is the reason. If
    /// the function fails after a refusal, its attempt has the outcome `denied`.
    Error(RequestError, Option<String>),
    /// The request has not ended when the attempt ends.
    Never,
    /// The test defines no answer for this request, so the request is refused. The text gives the reason. If the
    /// function then fails, its attempt has the outcome `denied`.
    Missing(String),
}

/// Selects the answer to a request by its head (method, URL and headers), and returns a function that makes the answer
/// from the body. Called once for each request, in the order in which the guest sends the requests.
pub type HttpAnswers = Arc<dyn Fn(&Parts) -> BodyAnswer + Send + Sync>;

/// Returns the answer to a request. The argument is the whole body of the request.
pub type BodyAnswer = Box<dyn FnOnce(Bytes) -> Answer + Send>;

/// Reads a whole request body. Returns an error if the body is larger than [`BODY_BYTES_MAX`].
async fn read(mut body: RequestBody) -> wasi_http::Result<Bytes> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| wasi_http::Error::InternalError(Some(error.to_string())))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(wasi_http::Error::HttpRequestBodySize(u64::try_from(BODY_BYTES_MAX).ok()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// Returns the test's response to a request, and a line for the log. Returns an error if the request's body cannot be
/// read or is too large.
pub(super) async fn respond(
    answer: BodyAnswer,
    refusal: &SharedRefusal,
    request: Request<RequestBody>,
) -> wasi_http::Result<(wasi_http::Result<Response<WasiBody>>, String)> {
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    let line = format!("{} {}", head.method, head.uri.host().unwrap_or_default());
    let (answer, shown) = match answer(body) {
        Answer::Response(response) => {
            let status = response.status().as_u16().to_string();
            (Ok(response.map(to_body)), status)
        }
        Answer::Error(kind, reason) => {
            reason.into_iter().for_each(|reason| refusal.record(Refusal::Denied(reason)));
            (Err(kind_to_wasi(kind)), format!("failed: {}", kind.name()))
        }
        Answer::Never => std::future::pending().await,
        Answer::Missing(reason) => {
            refusal.record(Refusal::Denied(reason));
            (Err(wasi_http::Error::HttpRequestDenied), "has no answer in the test".to_owned())
        }
    };
    Ok((answer, format!("{line} {shown}")))
}

/// Returns a body that arrives in the parts that the test defines, and ends as the test defines.
fn to_body(given: GivenBody) -> WasiBody {
    let (parts, end) = given.into_parts();
    let parts = stream::iter(parts).map(|part| Ok(Frame::data(part)));
    let error = match end {
        BodyEnd::Complete => return StreamBody::new(parts).boxed_unsync(),
        BodyEnd::Error(error) => stream::once(ready(Err(kind_to_wasi(error)))).left_stream(),
        BodyEnd::Never => stream::pending().right_stream(),
    };
    StreamBody::new(parts.chain(error)).boxed_unsync()
}
