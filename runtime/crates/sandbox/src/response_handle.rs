//! The functions of `wasi:http/types.future-incoming-response`. They use the table entries that `pending_response.rs`
//! defines.

use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, subscribe};
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode};
use wasmtime_wasi_http::p2::body::HostIncomingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse};

use super::http_types::HttpTypes;
use super::pending_response::PendingResponse;

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
            waiting @ (PendingResponse::Driven(_) | PendingResponse::Task(_)) => {
                *pending = waiting;
                return Ok(None);
            }
        };
        let (head, body) = match received {
            Ok(response) => response.into_parts(),
            // Only wasmtime-wasi-http can convert its errors to `ErrorCode`, and only in the `get` of its own handle.
            // So such a handle is created for the error.
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
