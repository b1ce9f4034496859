//! HTTP responses that a test gives to a function's requests, in place of the network.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::{self as wasi_http, WasiBody};

use super::refusal::{Refusal, SharedRefusal};
use evoke_egress::RequestBody;

/// Limit on the body of a request, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;

/// How a request of a function ends in a test.
#[derive(Debug)]
pub enum Answer {
    /// With a response.
    Response(Response<Bytes>),
    /// The host refuses the connection.
    ConnectionRefused,
    /// No response arrives in time.
    Timeout,
    /// The name of the host does not exist.
    UnknownHost,
    /// The request is refused, with this reason. The attempt is denied if the function then fails.
    Denied(String),
}

/// Returns the answer to a request with its whole body.
pub type HttpAnswers = Arc<dyn Fn(Request<Bytes>) -> Answer + Send + Sync>;

/// Reads a request body within its limit.
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

/// Returns the test's response to a request, and a line for the log. Errors: the request's body could not be read.
pub(super) async fn respond(
    answers: &HttpAnswers,
    refusal: &SharedRefusal,
    request: Request<RequestBody>,
) -> wasi_http::Result<(wasi_http::Result<Response<WasiBody>>, String)> {
    use wasi_http::Error as Wasi;
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    let line = format!("{} {}", head.method, head.uri.host().unwrap_or_default());
    let (answer, shown) = match answers(Request::from_parts(head, body)) {
        Answer::Response(response) => {
            let status = response.status().as_u16().to_string();
            (Ok(response.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync())), status)
        }
        Answer::ConnectionRefused => (Err(Wasi::ConnectionRefused), "failed: connection refused".to_owned()),
        Answer::Timeout => (Err(Wasi::HttpResponseTimeout), "failed: no response in time".to_owned()),
        Answer::UnknownHost => {
            (Err(Wasi::DnsError { rcode: None, info_code: None }), "failed: unknown host".to_owned())
        }
        Answer::Denied(reason) => {
            refusal.record(Refusal::Denied(reason));
            (Err(Wasi::HttpRequestDenied), "has no answer".to_owned())
        }
    };
    Ok((answer, format!("{line} {shown}")))
}
