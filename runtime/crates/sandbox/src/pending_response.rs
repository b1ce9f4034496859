//! `wasi:http/types.future-incoming-response`: the response that a guest waits for.
//!
//! Most guests send one request at a time and wait for its response. The guest's own task drives such a request, so
//! that the request wakes no other thread. Concurrent requests, and requests whose body the guest still writes, run as
//! tasks: the guest can wait for something else while they continue.

use std::pin::Pin;
use std::sync::Arc;

use http::Response;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, poll_noop, spawn};
use wasmtime_wasi_http::p2::types::HostFutureIncomingResponse;
use wasmtime_wasi_http::{self as wasi_http, WasiBody};

type Received = wasi_http::Result<Response<WasiBody>>;
type Receiving = Pin<Box<dyn Future<Output = Received> + Send>>;

/// The unfinished requests of an attempt.
#[derive(Default)]
pub(super) struct Unfinished {
    /// The index, in the table of resources, of the request that the guest's task drives. The request can have ended
    /// already.
    driven: Option<u32>,
    /// Each unfinished request holds a clone, so the number of clones is the number of these requests.
    count: Arc<()>,
}

impl Unfinished {
    /// Starts a request, and adds its entry to the table.
    pub(super) fn start(
        &mut self,
        table: &mut ResourceTable,
        response: impl Future<Output = Received> + Send + 'static,
        has_body: bool,
    ) -> Result<Resource<PendingResponse>, ResourceTableError> {
        let has_others = Arc::strong_count(&self.count) > 1;
        if has_others && let Some(driven) = self.driven.take() {
            // If the table has no such entry any more, the request has ended.
            let _ = table.get_mut(&Resource::<PendingResponse>::new_borrow(driven)).map(PendingResponse::run_as_task);
        }
        let counted = self.count.clone();
        let mut response: Receiving = Box::pin(async move {
            let received = response.await;
            drop(counted);
            received
        });
        if has_others || has_body {
            return table.push(PendingResponse::Task(spawn(response)));
        }
        // Sends the request if a connection is ready for it.
        let pending = match poll_noop(Pin::new(&mut response)) {
            Some(received) => PendingResponse::Arrived(received),
            None => PendingResponse::Driven(response),
        };
        let entry = table.push(pending)?;
        self.driven = Some(entry.rep());
        Ok(entry)
    }
}

/// The entry of the resource table behind a `future-incoming-response`. Its handles have the type
/// [`HostFutureIncomingResponse`], because the bindings of wasmtime-wasi-http require this type.
pub(super) enum PendingResponse {
    /// The guest's own task runs the request, while the guest waits for the response.
    Driven(Receiving),
    /// The request runs as a task, which ends when this value is dropped.
    Task(AbortOnDropJoinHandle<Received>),
    Arrived(Received),
    /// The guest has taken the response.
    Taken,
}

impl PendingResponse {
    /// Lets a request continue as a task on the current runtime.
    fn run_as_task(&mut self) {
        *self = match std::mem::replace(self, Self::Taken) {
            Self::Driven(response) => Self::Task(spawn(response)),
            other => other,
        };
    }

    /// Converts the handle of an entry to the type in the bindings.
    pub(super) fn handle(pending: &Resource<Self>) -> Resource<HostFutureIncomingResponse> {
        Resource::new_own(pending.rep())
    }

    pub(super) fn of(handle: &Resource<HostFutureIncomingResponse>) -> Resource<Self> {
        Resource::new_borrow(handle.rep())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for PendingResponse {
    async fn ready(&mut self) {
        let received = match self {
            Self::Driven(response) => response.await,
            Self::Task(task) => task.await,
            Self::Arrived(_) | Self::Taken => return,
        };
        *self = Self::Arrived(received);
    }
}
