//! `wasi:http/types` with a budget: before the host stores anything for a guest, its size is charged to the budget
//! (`budget.rs`). [`HttpTypes`] is also the host's side of `wasi:http/outgoing-handler`, which `outbound.rs`
//! implements. The functions themselves are those of wasmtime-wasi-http, except those of `response_handle.rs`. Every
//! function is listed here. So if a new version of wasmtime-wasi-http adds a function, this file does not compile until
//! the charge of the function is decided.
//!
//! Guests of every [`Kind`](super::kind::Kind) can create fields, requests and bodies, because all of them can send
//! requests.

use http::HeaderMap;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Duration, ErrorCode, IoError, Method, Scheme, StatusCode};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult, HttpError, HttpResult};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpCtxView};

use super::budget::HostBudget;
use super::pending_response::Unfinished;
use super::publish::Publisher;
use super::secrets::Redactor;

/// Limit on one chunk of a body that the guest writes, in bytes. At most two chunks of one body wait to be sent at a
/// time: `outbound.rs` allows one (`p2_outgoing_body_buffer_chunks`), and wasmtime-wasi-http adds one.
pub(super) const CHUNK_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES: usize = 2 * CHUNK_BYTES_MAX;
/// Estimate of the memory that a field takes in addition to its name and value, in bytes.
const FIELD_BYTES: usize = 128;

/// The host's side of `wasi:http`.
pub(super) struct HttpTypes<'a> {
    pub(super) view: WasiHttpCtxView<'a>,
    pub(super) budget: &'a HostBudget,
    pub(super) unfinished: &'a mut Unfinished,
    /// Closed when the guest sets its response: events that it publishes later are refused.
    pub(super) publisher: Publisher<'a>,
    /// Replaces the values of secrets in errors.
    pub(super) redactor: &'a Redactor,
}

/// Limit on the text of an error that the guest sets as its response, in bytes. The text becomes part of a message.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// Connects the generated bindings of `wasi:http` to [`HttpTypes`].
pub(super) struct HttpTypesHost;

impl HasData for HttpTypesHost {
    type Data<'a> = HttpTypes<'a>;
}

pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> HttpTypes<'_>,
) -> Result<()> {
    types::add_to_linker::<T, HttpTypesHost>(linker, &(&LinkOptions::default()).into(), view)
}

impl HttpTypes<'_> {
    fn charge(&self, bytes: usize) -> Result<()> {
        Ok(self.budget.charge(bytes)?)
    }

    fn charge_field(&self, bytes: usize) -> HeaderResult<()> {
        self.charge(bytes.saturating_add(FIELD_BYTES)).map_err(HeaderError::trap)
    }

    /// Charges the size of a copy of these fields. The copy is not made until the guest changes the fields.
    fn charge_copy(&self, fields: &Resource<FieldMap>) -> Result<()> {
        let fields: &HeaderMap = self.view.table.get(fields)?;
        self.charge(fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum())
    }
}

/// Cuts the text of an error of the guest. The code that receives the error runs on the connection's thread, where a
/// long text would delay other connections. The values of secrets are replaced first, because a cut could leave a part
/// of one.
fn with_short_text(mut code: ErrorCode, redactor: &Redactor) -> ErrorCode {
    let text = match &mut code {
        ErrorCode::InternalError(text)
        | ErrorCode::HttpResponseTransferCoding(text)
        | ErrorCode::HttpResponseContentCoding(text) => text,
        ErrorCode::DnsError(payload) => &mut payload.rcode,
        ErrorCode::TlsAlertReceived(payload) => &mut payload.alert_message,
        ErrorCode::HttpRequestHeaderSize(Some(field))
        | ErrorCode::HttpRequestTrailerSize(field)
        | ErrorCode::HttpResponseHeaderSize(field)
        | ErrorCode::HttpResponseTrailerSize(field) => &mut field.field_name,
        // The other codes have no text.
        _ => return code,
    };
    if let Some(text) = text {
        *text = redactor.redacted_start(text, ERROR_BYTES_MAX);
    }
    code
}

/// Implements traits for [`HttpTypes`]. Each function runs the statements in its braces, and then the function of the
/// same name in wasmtime-wasi-http.
macro_rules! delegate {
    ($(impl $trait:ident {
        $(fn $name:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $ret:ty { $($before:tt)* })*
    })*) => {$(
        impl types::$trait for HttpTypes<'_> {$(
            fn $name(&mut $self $(, $arg: $ty)*) -> $ret {
                $($before)*
                types::$trait::$name(&mut $self.view $(, $arg)*)
            }
        )*}
    )*};
}

delegate! {
    impl Host {
        fn convert_error_code(self, error: HttpError) -> Result<ErrorCode> {}
        fn convert_header_error(self, error: HeaderError) -> Result<types::HeaderError> {}
        fn http_error_code(self, error: Resource<IoError>) -> Result<Option<ErrorCode>> {}
    }

    impl HostFields {
        fn new(self) -> Result<Resource<FieldMap>> { self.charge(FIELD_BYTES)?; }
        fn from_list(self, entries: Vec<(String, Vec<u8>)>) -> HeaderResult<Resource<FieldMap>> {
            for (name, value) in &entries {
                self.charge_field(name.len() + value.len())?;
            }
        }
        fn drop(self, fields: Resource<FieldMap>) -> Result<()> {}
        fn get(self, fields: Resource<FieldMap>, name: String) -> Result<Vec<Vec<u8>>> {}
        fn has(self, fields: Resource<FieldMap>, name: String) -> Result<bool> {}
        fn set(self, fields: Resource<FieldMap>, name: String, values: Vec<Vec<u8>>) -> HeaderResult<()> {
            self.charge_field(name.len())?;
            for value in &values {
                self.charge_field(value.len())?;
            }
        }
        fn delete(self, fields: Resource<FieldMap>, name: String) -> HeaderResult<()> {}
        fn append(self, fields: Resource<FieldMap>, name: String, value: Vec<u8>) -> HeaderResult<()> {
            self.charge_field(name.len() + value.len())?;
        }
        fn entries(self, fields: Resource<FieldMap>) -> Result<Vec<(String, Vec<u8>)>> {}
        fn clone(self, fields: Resource<FieldMap>) -> Result<Resource<FieldMap>> { self.charge_copy(&fields)?; }
    }

    impl HostIncomingRequest {
        fn method(self, request: Resource<HostIncomingRequest>) -> Result<Method> {}
        fn path_with_query(self, request: Resource<HostIncomingRequest>) -> Result<Option<String>> {}
        fn scheme(self, request: Resource<HostIncomingRequest>) -> Result<Option<Scheme>> {}
        fn authority(self, request: Resource<HostIncomingRequest>) -> Result<Option<String>> {}
        fn headers(self, request: Resource<HostIncomingRequest>) -> Result<Resource<FieldMap>> {}
        fn consume(self, request: Resource<HostIncomingRequest>) -> Result<Result<Resource<HostIncomingBody>, ()>> {}
        fn drop(self, request: Resource<HostIncomingRequest>) -> Result<()> {}
    }

    impl HostOutgoingRequest {
        fn new(self, headers: Resource<FieldMap>) -> Result<Resource<HostOutgoingRequest>> {}
        fn body(self, request: Resource<HostOutgoingRequest>) -> Result<Result<Resource<HostOutgoingBody>, ()>> {
            self.charge(BODY_BYTES)?;
        }
        fn drop(self, request: Resource<HostOutgoingRequest>) -> Result<()> {}
        fn method(self, request: Resource<HostOutgoingRequest>) -> Result<Method> {}
        fn set_method(self, request: Resource<HostOutgoingRequest>, method: Method) -> Result<Result<(), ()>> {
            if let Method::Other(name) = &method {
                self.charge(name.len())?;
            }
        }
        fn path_with_query(self, request: Resource<HostOutgoingRequest>) -> Result<Option<String>> {}
        fn set_path_with_query(
            self, request: Resource<HostOutgoingRequest>, path: Option<String>
        ) -> Result<Result<(), ()>> {
            self.charge(path.as_ref().map_or(0, String::len))?;
        }
        fn scheme(self, request: Resource<HostOutgoingRequest>) -> Result<Option<Scheme>> {}
        fn set_scheme(self, request: Resource<HostOutgoingRequest>, scheme: Option<Scheme>) -> Result<Result<(), ()>> {
            if let Some(Scheme::Other(name)) = &scheme {
                self.charge(name.len())?;
            }
        }
        fn authority(self, request: Resource<HostOutgoingRequest>) -> Result<Option<String>> {}
        fn set_authority(
            self, request: Resource<HostOutgoingRequest>, authority: Option<String>
        ) -> Result<Result<(), ()>> {
            self.charge(authority.as_ref().map_or(0, String::len))?;
        }
        fn headers(self, request: Resource<HostOutgoingRequest>) -> Result<Resource<FieldMap>> {}
    }

    impl HostResponseOutparam {
        fn drop(self, out: Resource<HostResponseOutparam>) -> Result<()> {}
        fn set(
            self, out: Resource<HostResponseOutparam>, response: Result<Resource<HostOutgoingResponse>, ErrorCode>
        ) -> Result<()> {
            self.publisher.close();
            let response = response.map_err(|code| with_short_text(code, self.redactor));
        }
        fn send_informational(
            self, out: Resource<HostResponseOutparam>, status: u16, headers: Resource<FieldMap>
        ) -> HttpResult<()> {}
    }

    impl HostIncomingResponse {
        fn drop(self, response: Resource<HostIncomingResponse>) -> Result<()> {}
        fn status(self, response: Resource<HostIncomingResponse>) -> Result<StatusCode> {}
        fn headers(self, response: Resource<HostIncomingResponse>) -> Result<Resource<FieldMap>> {}
        fn consume(self, response: Resource<HostIncomingResponse>) -> Result<Result<Resource<HostIncomingBody>, ()>> {}
    }

    impl HostFutureTrailers {
        fn drop(self, trailers: Resource<HostFutureTrailers>) -> Result<()> {}
        fn subscribe(self, trailers: Resource<HostFutureTrailers>) -> Result<Resource<DynPollable>> {}
        fn get(
            self, trailers: Resource<HostFutureTrailers>
        ) -> Result<Option<Result<Result<Option<Resource<FieldMap>>, ErrorCode>, ()>>> {}
    }

    impl HostIncomingBody {
        fn stream(self, body: Resource<HostIncomingBody>) -> Result<Result<Resource<DynInputStream>, ()>> {}
        fn finish(self, body: Resource<HostIncomingBody>) -> Result<Resource<HostFutureTrailers>> {}
        fn drop(self, body: Resource<HostIncomingBody>) -> Result<()> {}
    }

    impl HostOutgoingResponse {
        fn new(self, headers: Resource<FieldMap>) -> Result<Resource<HostOutgoingResponse>> {}
        fn body(self, response: Resource<HostOutgoingResponse>) -> Result<Result<Resource<HostOutgoingBody>, ()>> {
            self.charge(BODY_BYTES)?;
        }
        fn status_code(self, response: Resource<HostOutgoingResponse>) -> Result<StatusCode> {}
        fn set_status_code(
            self, response: Resource<HostOutgoingResponse>, status: StatusCode
        ) -> Result<Result<(), ()>> {}
        fn headers(self, response: Resource<HostOutgoingResponse>) -> Result<Resource<FieldMap>> {}
        fn drop(self, response: Resource<HostOutgoingResponse>) -> Result<()> {}
    }

    impl HostOutgoingBody {
        fn write(self, body: Resource<HostOutgoingBody>) -> Result<Result<Resource<DynOutputStream>, ()>> {}
        fn finish(self, body: Resource<HostOutgoingBody>, trailers: Option<Resource<FieldMap>>) -> HttpResult<()> {}
        fn drop(self, body: Resource<HostOutgoingBody>) -> Result<()> {}
    }

    impl HostRequestOptions {
        fn new(self) -> Result<Resource<RequestOptions>> {}
        fn connect_timeout(self, options: Resource<RequestOptions>) -> Result<Option<Duration>> {}
        fn set_connect_timeout(
            self, options: Resource<RequestOptions>, timeout: Option<Duration>
        ) -> Result<Result<(), ()>> {}
        fn first_byte_timeout(self, options: Resource<RequestOptions>) -> Result<Option<Duration>> {}
        fn set_first_byte_timeout(
            self, options: Resource<RequestOptions>, timeout: Option<Duration>
        ) -> Result<Result<(), ()>> {}
        fn between_bytes_timeout(self, options: Resource<RequestOptions>) -> Result<Option<Duration>> {}
        fn set_between_bytes_timeout(
            self, options: Resource<RequestOptions>, timeout: Option<Duration>
        ) -> Result<Result<(), ()>> {}
        fn drop(self, options: Resource<RequestOptions>) -> Result<()> {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use types::{DnsErrorPayload, FieldSizePayload, HostResponseOutparam as _, TlsAlertReceivedPayload};
    use wasmtime_wasi_http::WasiHttpView as _;

    use super::super::context::HostContext;
    use super::*;

    /// Returns the length of the error that a client of the guest would get.
    async fn error_bytes(code: ErrorCode) -> usize {
        let mut context = HostContext::for_test();
        let (sender, head) = oneshot::channel();
        let out = context.http().new_response_outparam(sender).unwrap();
        context.http_types().set(out, Err(code)).unwrap();
        format!("{:?}", head.await.unwrap().unwrap_err()).len()
    }

    #[tokio::test]
    async fn each_text_of_an_error_that_is_set_as_response_is_bounded() {
        let text = || Some("\u{1b}".repeat(1_000_000));
        let field = || FieldSizePayload { field_name: text(), field_size: None };
        for code in [
            ErrorCode::InternalError(text()),
            ErrorCode::HttpResponseTransferCoding(text()),
            ErrorCode::HttpResponseContentCoding(text()),
            ErrorCode::DnsError(DnsErrorPayload { rcode: text(), info_code: None }),
            ErrorCode::TlsAlertReceived(TlsAlertReceivedPayload { alert_id: None, alert_message: text() }),
            ErrorCode::HttpRequestHeaderSize(Some(field())),
            ErrorCode::HttpRequestTrailerSize(field()),
            ErrorCode::HttpResponseHeaderSize(field()),
            ErrorCode::HttpResponseTrailerSize(field()),
        ] {
            let bytes = error_bytes(code).await;
            // Each control character takes six bytes.
            assert!((ERROR_BYTES_MAX..6 * ERROR_BYTES_MAX + 200).contains(&bytes), "{bytes}");
        }
        assert!(error_bytes(ErrorCode::LoopDetected).await < 200);
    }
}
