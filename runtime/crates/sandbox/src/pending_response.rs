//! `wasi:http/types.future-incoming-response`: the response that a guest waits for. The type of wasmtime-wasi-http needs a
//! second task for each request, whose start and end wake other threads.

use http::Response;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode};
use wasmtime_wasi_http::p2::body::HostIncomingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse};
use wasmtime_wasi_http::{self as wasi_http, FieldMap, WasiBody};

use super::http_types::HttpTypes;

type Received = wasi_http::Result<Response<WasiBody>>;

/// The entry of the resource table behind a `future-incoming-response`. The handles have the type of wasmtime-wasi-http,
/// because its bindings name that type.
pub(super) enum PendingResponse {
    /// The request runs as a task, which ends when this is dropped.
    Waiting(AbortOnDropJoinHandle<Received>),
    Arrived(Received),
    /// The guest has taken the response.
    Taken,
}

impl PendingResponse {
    /// Starts a request as a task on the current runtime.
    pub(super) fn start(response: impl Future<Output = Received> + Send + 'static) -> Self {
        Self::Waiting(spawn(response))
    }

    /// Converts the handle of an entry to the type in the bindings.
    pub(super) fn handle(pending: &Resource<Self>) -> Resource<HostFutureIncomingResponse> {
        Resource::new_own(pending.rep())
    }

    fn of(handle: &Resource<HostFutureIncomingResponse>) -> Resource<Self> {
        Resource::new_borrow(handle.rep())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for PendingResponse {
    async fn ready(&mut self) {
        if let Self::Waiting(task) = self {
            *self = Self::Arrived(task.await);
        }
    }
}

impl types::HostFutureIncomingResponse for HttpTypes<'_> {
    fn drop(&mut self, response: Resource<HostFutureIncomingResponse>) -> Result<()> {
        self.view.table.delete(Resource::<PendingResponse>::new_own(response.rep()))?;
        Ok(())
    }

    fn get(
        &mut self,
        response: Resource<HostFutureIncomingResponse>,
    ) -> Result<Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>> {
        let pending = self.view.table.get_mut(&PendingResponse::of(&response))?;
        let received = match std::mem::replace(pending, PendingResponse::Taken) {
            PendingResponse::Arrived(received) => received,
            PendingResponse::Taken => return Ok(Some(Err(()))),
            waiting @ PendingResponse::Waiting(_) => {
                *pending = waiting;
                return Ok(None);
            }
        };
        let (head, body) = match received {
            Ok(response) => response.into_parts(),
            // Only wasmtime-wasi-http converts its errors to those of the interface.
            Err(error) => {
                let failed = self.view.table.push(HostFutureIncomingResponse::Ready(Err(error)))?;
                let code = types::HostFutureIncomingResponse::get(&mut self.view, Resource::new_borrow(failed.rep()));
                self.view.table.delete(failed)?;
                return code;
            }
        };
        let headers = FieldMap::new_immutable(self.view.hooks, head.headers);
        let body = Some(HostIncomingBody::new(body));
        let response = HostIncomingResponse { status: head.status.as_u16(), headers, body };
        Ok(Some(Ok(Ok(self.view.table.push(response)?))))
    }

    fn subscribe(&mut self, response: Resource<HostFutureIncomingResponse>) -> Result<Resource<DynPollable>> {
        subscribe(self.view.table, PendingResponse::of(&response))
    }
}
