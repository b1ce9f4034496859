//! `wasi:http/types` with a budget: before the host stores anything for a guest, its size is charged to the budget
//! (`budget.rs`). [`HttpTypes`] is also the host's side of `wasi:http/outgoing-handler`, which `outbound.rs`
//! implements. The functions themselves are those of wasmtime-wasi-http, except those of `response_handle.rs`. Every
//! function is listed here. So if a new version of wasmtime-wasi-http adds a function, this file does not compile until
//! the charge of the function is decided.
//!
//! Functions of every [`Kind`](super::kind::Kind) can create fields, requests and bodies, because all of them can send
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

/// Limit on one chunk of a body that the guest writes, in bytes. At most two chunks are in memory at a time: one that
/// the guest wrote and one that the client has not yet received.
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
}

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
